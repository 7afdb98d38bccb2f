//! The BatchNorm prior of a ResNet: logits, the prior and its terms, its gradient at the pixels.

use super::checks::Checks;
use super::{FORWARD_TOLERANCE, GRADIENT_TOLERANCE, LOSS_TOLERANCE, VerifyError};
use crate::engine::resnet::{BatchNormPrior, ResNet};

pub(super) fn compare(checks: &mut Checks<'_>, network: ResNet) -> Result<(), VerifyError> {
    if !checks.has("pixel_values") {
        return Ok(());
    }
    let (pixels, shape) = checks.input_pixels("pixel_values")?;
    let mut prior = BatchNormPrior::new(network);
    if let Some(logits) = prior.logits(pixels.data(), shape)? {
        let logits_shape = [shape[0], logits.len() / shape[0]];
        checks.compare("", "logits", &logits_shape, &logits, FORWARD_TOLERANCE)?;
    }
    let mut dpixels = vec![0.0; pixels.data().len()];
    let loss = prior.loss(pixels.data(), shape, 1.0, Some(&mut dpixels))?;
    checks.compare("", "prior", &[1], &[loss], LOSS_TOLERANCE)?;
    for (layer, term) in prior.terms() {
        checks.compare("", &format!("prior.{layer}"), &[1], &[term], LOSS_TOLERANCE)?;
    }
    checks.compare(
        "",
        "prior_grad_pixels",
        &shape,
        &dpixels,
        GRADIENT_TOLERANCE,
    )
}
