//! The BatchNorm prior of a ResNet: logits, the prior and its terms, its gradient at the pixels.

use super::VerifyError;
use super::checks::ReferenceChecks;
use engine::resnet::{BatchNormPrior, ResNet};
use engine::tolerance;

pub(super) fn compare(
    checks: &mut ReferenceChecks<'_>,
    network: ResNet,
) -> Result<(), VerifyError> {
    if !checks.has("pixel_values") {
        return Ok(());
    }
    let (pixels, shape) = checks.input_pixels("pixel_values")?;
    let mut prior = BatchNormPrior::new(network);
    if let Some(logits) = prior.logits(pixels.data(), shape)? {
        let logits_shape = [shape[0], logits.len() / shape[0]];
        checks.compare("", "logits", &logits_shape, &logits, tolerance::FORWARD)?;
    }
    let mut dpixels = vec![0.0; pixels.data().len()];
    let loss = prior.loss(pixels.data(), shape, 1.0, Some(&mut dpixels))?;
    checks.compare("", "prior", &[1], &[loss], tolerance::LOSS)?;
    for (layer, term) in prior.terms() {
        checks.compare(
            "",
            &format!("prior.{layer}"),
            &[1],
            &[term],
            tolerance::LOSS,
        )?;
    }
    checks.compare(
        "",
        "prior_grad_pixels",
        &shape,
        &dpixels,
        tolerance::GRADIENT,
    )
}
