//! Values of the published code for one adapter, in the reference beside it: the whole pass, pruning inside layers, sparse
//! tokens, total variation.

use super::VerifyError;
use super::adapter_folder::AdapterFolder;
use super::checks::ReferenceChecks;
use super::gradients::{AT_PIXELS, compare_pixels};
use super::serving::{compare_head, encode};
use crate::inference::Encoder;
use engine::loss::total_variation;
use engine::session::{Input, Pruning, Session, SessionOptions, Wanted};
use engine::tolerance;
use model::adapter::Head;
use model::backbone::Backbone;
use model::tensor::Tensor;
use recycle::head_pass::HeadPass;
use std::collections::BTreeSet;

/// What the values were computed with.
pub(super) struct Published<'a> {
    pub of: &'a AdapterFolder,
    /// Of the folder's reference, as `labels` are.
    pub pixels: &'a Tensor,
    pub labels: &'a [usize],
    pub head: &'a Head,
    /// How the engine computes.
    pub engine: &'a SessionOptions,
}

impl Published<'_> {
    /// Compares with everything that `checks`, the reference beside the adapter, has.
    pub fn compare(
        &self,
        checks: &mut ReferenceChecks<'_>,
        backbone: &Backbone,
        encoder: &mut dyn Encoder,
        session: &mut Session,
    ) -> Result<(), VerifyError> {
        let architecture = backbone.config.architecture;
        let encoded = encode(encoder, self.pixels, Some(&self.of.adapter))?;
        let names = ["full.logits", "full.ce"];
        let labels = Some(self.labels);
        compare_head(
            checks,
            names,
            architecture,
            self.of,
            self.head,
            &encoded,
            labels,
        )?;
        let cases: BTreeSet<String> = checks
            .names()
            .iter()
            .filter_map(|name| name.split_once('.'))
            .map(|(case, _)| case.to_owned())
            .collect();
        for case in &cases {
            let tokens = match case.as_str() {
                "full" => Some((Vec::new(), None)),
                "sparse" => Some((Vec::new(), sparse_tokens(checks)?)),
                name => pruning(name).map(|pruning| (pruning, None)),
            };
            if let Some((pruning, tokens)) = tokens {
                self.pass(checks, session, case, &pruning, tokens.as_deref())?;
            }
        }
        self.total_variation(checks)?;
        self.inversion(checks, backbone, session)
    }

    /// One pass forward and back to the pixels.
    fn pass(
        &self,
        checks: &mut ReferenceChecks<'_>,
        session: &mut Session,
        case: &str,
        pruning: &[Pruning],
        tokens: Option<&[u32]>,
    ) -> Result<(), VerifyError> {
        let label = self.of.label();
        let input = Input {
            adapter: Some(&self.of.adapter),
            pruning,
            tokens,
            read: self.head.input,
            ..Input::pixels(self.pixels)
        };
        let wanted = Wanted {
            class_attention: true,
            kept_tokens: true,
            ..Wanted::default()
        };
        let output = session.forward_for(&input, wanted, AT_PIXELS)?;
        let name = |part: &str| format!("{case}.{part}");
        if let Some(kept) = &output.kept_tokens {
            checks.compare_exactly(&label, &name("kept_tokens"), kept)?;
        }
        if let Some(attention) = &output.class_attention {
            checks.compare(
                &label,
                &name("last_cls_attention"),
                attention.shape(),
                attention.data(),
                tolerance::FORWARD,
            )?;
        }
        let features = output.features.data();
        let (images, mut dfeatures) = (self.labels.len(), vec![0.0; features.len()]);
        let head = HeadPass::of(self.head).part(features, self.labels, images, &mut dfeatures)?;
        // The whole pass was compared as the encoder gives it.
        if case != "full" {
            let shape = [images, self.head.weight.shape()[0]];
            let logits = &head.logits;
            checks.compare(&label, &name("logits"), &shape, logits, tolerance::FORWARD)?;
            checks.compare(
                &label,
                &name("ce"),
                &[1],
                &[head.loss as f32],
                tolerance::LOSS,
            )?;
        }
        let gradients = session.backward(&dfeatures, None)?;
        let dpixels = gradients.pixels.as_ref();
        compare_pixels(checks, &label, &name("ce_grad_pixels"), dpixels)
    }

    /// Of the pixels themselves.
    fn total_variation(&self, checks: &mut ReferenceChecks<'_>) -> Result<(), VerifyError> {
        let &[batch, channels, height, width] = self.pixels.shape() else {
            return Ok(());
        };
        let label = self.of.label();
        let mut dpixels = vec![0.0; self.pixels.data().len()];
        let shape = [batch, channels, height, width];
        let loss = total_variation(self.pixels.data(), shape, 1.0, Some(&mut dpixels))?;
        checks.compare(&label, "tv.loss", &[1], &[loss], tolerance::LOSS)?;
        checks.compare(&label, "tv.grad", &shape, &dpixels, tolerance::GRADIENT)
    }
}

/// The tokens that enter a sparse pass.
fn sparse_tokens(checks: &mut ReferenceChecks<'_>) -> Result<Option<Vec<u32>>, VerifyError> {
    const NAME: &str = "sparse.tokens";
    if !checks.has(NAME) {
        return Err(checks.wrong(format!("sparse.… is there without {NAME}")));
    }
    let tokens = checks.input_integers(NAME)?;
    let tokens: Result<Vec<u32>, _> = tokens.iter().map(|&token| u32::try_from(token)).collect();
    tokens
        .map(Some)
        .map_err(|_| checks.wrong(format!("{NAME} has a negative value")))
}

/// `prune_l0_25_l2_50`: 25 % of the patches go in layer 0, 50 % in layer 2; `none` for nothing. `None` for another name.
fn pruning(name: &str) -> Option<Vec<Pruning>> {
    let parts: Vec<&str> = name.strip_prefix("prune_")?.split('_').collect();
    let pairs = parts.chunks(2).map(|pair| {
        let &[layer, percent] = pair else {
            return None;
        };
        let percent = match percent {
            "none" => 0.0,
            digits => f64::from(digits.parse::<u8>().ok()?),
        };
        Some(Pruning {
            layer: layer.strip_prefix('l')?.parse().ok()?,
            ratio: percent / 100.0,
        })
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pruned_passes_say_which_share_goes_where() {
        let read = |name| {
            pruning(name).map(|all| all.iter().map(|p| (p.layer, p.ratio)).collect::<Vec<_>>())
        };
        assert_eq!(read("prune_l1_none"), Some(vec![(1, 0.0)]));
        assert_eq!(read("prune_l0_25_l12_50"), Some(vec![(0, 0.25), (12, 0.5)]));
        for other in ["tv", "prune_", "prune_l1", "prune_1_50", "prune_l1_half"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
