//! What the encoder that serves must give: features, attention and hidden states, and the losses that follow from them.

use super::VerifyError;
use super::adapter_folder::AdapterFolder;
use super::checks::ReferenceChecks;
use super::episode::ReferenceEpisode;
use crate::inference::{EncodeRow, Encoded, Encoder, Outputs, head_logits};
use engine::loss::{Scoring, cross_entropy};
use engine::tolerance;
use model::adapter::{Adapter, Head};
use model::backbone::Architecture;
use model::tensor::Tensor;
use recycle::meta_train::{EpisodeScores, Goal, episode_loss};
use std::sync::Arc;

/// The bare backbone: `features`, `cls_attention` and `last_hidden_state` of `pixel_values`, `cls_SIZE` and `mean_patch_SIZE` of
/// `pixels_SIZE`.
pub(super) fn bare(
    checks: &mut ReferenceChecks<'_>,
    encoder: &mut dyn Encoder,
) -> Result<(), VerifyError> {
    for name in checks.names() {
        if name == "pixel_values" {
            let (pixels, _) = checks.input_pixels(&name)?;
            let encoded = encode(encoder, &pixels, None)?;
            let hidden = encoded
                .iter()
                .filter_map(|one| one.last_hidden_state.as_ref());
            let mut shape = vec![encoded.len()];
            shape.extend(hidden.clone().next().map(Tensor::shape).unwrap_or_default());
            let hidden: Vec<f32> = hidden.flat_map(Tensor::data).copied().collect();
            compare_rows(checks, "", "features", &encoded, |one| &one.feature)?;
            compare_rows(checks, "", "cls_attention", &encoded, |one| {
                &one.cls_attention
            })?;
            checks.compare("", "last_hidden_state", &shape, &hidden, tolerance::FORWARD)?;
        } else if let Some(size) = name.strip_prefix("pixels_") {
            let (pixels, _) = checks.input_pixels(&name)?;
            let encoded = encode(encoder, &pixels, None)?;
            let pairs: Vec<(Vec<f32>, Vec<f32>)> =
                encoded.iter().filter_map(Encoded::cls_and_mean).collect();
            compare_rows(checks, "", &format!("cls_{size}"), &pairs, |pair| &pair.0)?;
            let name = format!("mean_patch_{size}");
            compare_rows(checks, "", &name, &pairs, |pair| &pair.1)?;
        }
    }
    Ok(())
}

/// An adapter whose values are in the folder's reference: `adapter_…` and `episode_…`.
pub(super) fn adapted(
    checks: &mut ReferenceChecks<'_>,
    encoder: &mut dyn Encoder,
    architecture: Architecture,
    of: &AdapterFolder,
    head: Option<&Head>,
    labels: Option<&[usize]>,
) -> Result<(), VerifyError> {
    let (pixels, _) = checks.input_pixels("pixel_values")?;
    let encoded = encode(encoder, &pixels, Some(&of.adapter))?;
    let label = of.label();
    compare_rows(checks, &label, "adapter_features", &encoded, |one| {
        &one.feature
    })?;
    compare_rows(checks, &label, "adapter_cls_attention", &encoded, |one| {
        &one.cls_attention
    })?;
    if let Some(head) = head {
        let names = ["adapter_logits", "adapter_ce"];
        compare_head(checks, names, architecture, of, head, &encoded, labels)?;
    }
    let Some(labels) = labels else {
        return Ok(());
    };
    if let Some(episode) = ReferenceEpisode::read(checks, labels)? {
        let features: Vec<f32> = encoded
            .iter()
            .flat_map(|one| &one.feature)
            .copied()
            .collect();
        // Plain features, minus the squared Euclidean distance.
        let mut scoring = EpisodeScores::nearest_mean(Scoring::default());
        let mut loss = |goal| episode_loss(&mut scoring, &features, episode.labels(), goal, None);
        let divergence = loss(episode.teacher())?;
        let cross_entropy = loss(Goal::Labels)?;
        let shape = [episode.queries, episode.classes];
        checks.compare(
            &label,
            "episode_scores",
            &shape,
            &divergence.scores,
            tolerance::FORWARD,
        )?;
        for (name, loss) in [
            ("episode_kl", divergence.loss),
            ("episode_ce", cross_entropy.loss),
        ] {
            checks.compare(&label, name, &[1], &[loss], tolerance::LOSS)?;
        }
    }
    Ok(())
}

/// Logits and mean cross-entropy, called `names` in the reference.
pub(super) fn compare_head(
    checks: &mut ReferenceChecks<'_>,
    [logits_name, loss_name]: [&str; 2],
    architecture: Architecture,
    of: &AdapterFolder,
    head: &Head,
    encoded: &[Encoded],
    labels: Option<&[usize]>,
) -> Result<(), VerifyError> {
    let label = of.label();
    let logits: Option<Vec<Vec<f32>>> = encoded
        .iter()
        .map(|one| head_logits(head, one, architecture))
        .collect();
    let logits = logits.ok_or_else(|| VerifyError::Head {
        adapter: of.name.clone(),
    })?;
    compare_rows(checks, &label, logits_name, &logits, |row| row)?;
    if let Some(labels) = labels {
        let loss = cross_entropy(&logits.concat(), labels, head.weight.shape()[0], None)?;
        checks.compare(&label, loss_name, &[1], &[loss], tolerance::LOSS)?;
    }
    Ok(())
}

/// Compares one vector per row, joined.
fn compare_rows<'r, R>(
    checks: &mut ReferenceChecks<'_>,
    label: &str,
    name: &str,
    rows: &'r [R],
    part: impl Fn(&'r R) -> &'r [f32],
) -> Result<(), VerifyError> {
    let shape = [rows.len(), rows.first().map_or(0, |row| part(row).len())];
    let values: Vec<f32> = rows.iter().flat_map(part).copied().collect();
    checks.compare(label, name, &shape, &values, tolerance::FORWARD)
}

/// Runs `pixels` `[batch, 3, size, size]` through the encoder.
pub(super) fn encode(
    encoder: &mut dyn Encoder,
    pixels: &Tensor,
    adapter: Option<&Arc<Adapter>>,
) -> Result<Vec<Encoded>, VerifyError> {
    let shape = pixels.shape();
    let rows: Vec<EncodeRow> = (0..shape[0])
        .filter_map(|row| Tensor::new(&shape[1..], pixels.row(row).to_vec()).ok())
        .map(|pixels| EncodeRow {
            pixels: Arc::new(pixels),
            adapter: adapter.cloned(),
            pinned: false,
        })
        .collect();
    let outputs = Outputs {
        last_hidden_state: true,
    };
    Ok(encoder.encode(&rows, outputs)?)
}
