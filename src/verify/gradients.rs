//! What the engine's backward must give: the gradient of the tuned head's loss at the pixels, and that of an episode at the
//! adapter's low-rank pairs.

use super::VerifyError;
use super::adapter_folder::AdapterFolder;
use super::checks::ReferenceChecks;
use super::episode::ReferenceEpisode;
use engine::loss::Scoring;
use engine::session::{Input, Session, Wanted};
use engine::tolerance;
use engine::vit::Differentiate;
use model::adapter::{Head, Side, peft_lora_matrix};
use model::tensor::Tensor;
use recycle::head_pass::HeadPass;
use recycle::meta_train::{EpisodeScores, episode_gradients};

pub(super) const AT_PIXELS: Differentiate = Differentiate {
    pixels: true,
    pairs: false,
};

/// `adapter_ce_grad_pixels` and `episode_grad.<PEFT name>`, in either of PEFT's name styles.
pub(super) fn adapted(
    checks: &mut ReferenceChecks<'_>,
    session: &mut Session,
    of: &AdapterFolder,
    head: Option<&Head>,
    labels: &[usize],
) -> Result<(), VerifyError> {
    let (pixels, _) = checks.input_pixels("pixel_values")?;
    let label = of.label();
    let name = "adapter_ce_grad_pixels";
    if let Some(head) = head.filter(|_| checks.has(name)) {
        let input = Input {
            adapter: Some(&of.adapter),
            read: head.input,
            ..Input::pixels(&pixels)
        };
        let output = session.forward_for(&input, Wanted::default(), AT_PIXELS)?;
        let features = output.features.data();
        let mut dfeatures = vec![0.0; features.len()];
        HeadPass::of(head).part(features, labels, labels.len(), &mut dfeatures)?;
        let gradients = session.backward(&dfeatures, None)?;
        compare_pixels(checks, &label, name, gradients.pixels.as_ref())?;
    }
    let names: Vec<String> = checks
        .names()
        .into_iter()
        .filter(|name| name.starts_with(EPISODE_GRADIENT))
        .collect();
    let Some(episode) = ReferenceEpisode::read(checks, labels)?.filter(|_| !names.is_empty())
    else {
        return Ok(());
    };
    let input = Input {
        adapter: Some(&of.adapter),
        ..Input::pixels(&pixels)
    };
    let architecture = session.config().architecture;
    let mut scoring = EpisodeScores::nearest_mean(Scoring::default());
    let (_, gradients) = episode_gradients(
        session,
        &input,
        &mut scoring,
        episode.labels(),
        episode.teacher(),
    )?;
    for name in names {
        let matrix = name
            .strip_prefix(EPISODE_GRADIENT)
            .and_then(|name| peft_lora_matrix(architecture, name));
        let found = matrix.and_then(|(site, side)| {
            let own = gradients.pairs.get(&site)?;
            Some(match side {
                Side::A => &own.da,
                Side::B => &own.db,
            })
        });
        // A name that the adapter has no low-rank pair for stays among those that are not checked.
        if let Some(found) = found {
            checks.compare(
                &label,
                &name,
                found.shape(),
                found.data(),
                tolerance::GRADIENT,
            )?;
        }
    }
    Ok(())
}

const EPISODE_GRADIENT: &str = "episode_grad.";

/// Compares a gradient at the pixels, where the pass gave one.
pub(super) fn compare_pixels(
    checks: &mut ReferenceChecks<'_>,
    label: &str,
    name: &str,
    dpixels: Option<&Tensor>,
) -> Result<(), VerifyError> {
    match dpixels {
        Some(dpixels) => checks.compare(
            label,
            name,
            dpixels.shape(),
            dpixels.data(),
            tolerance::GRADIENT,
        ),
        None => Ok(()),
    }
}
