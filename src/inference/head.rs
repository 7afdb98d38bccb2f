//! The classification head that an adapter was tuned with, applied to what an encoder returns for an image.

use super::encoder::Encoded;
use model::adapter::{Head, HeadInput};
use model::backbone::Architecture;

/// `weight·x + bias`, one logit per class; `None` where `encoded` lacks what the head reads: [`HeadInput::Cls`] and
/// [`HeadInput::ClsMean`] need the last hidden state, which CLIP gives before its final LayerNorm only.
pub fn head_logits(head: &Head, encoded: &Encoded, architecture: Architecture) -> Option<Vec<f32>> {
    let input = match head.input {
        HeadInput::Feature => encoded.feature.clone(),
        HeadInput::Cls | HeadInput::ClsMean if architecture == Architecture::Clip => return None,
        HeadInput::Cls => encoded.cls_and_mean()?.0,
        HeadInput::ClsMean => {
            let (mut cls, mean) = encoded.cls_and_mean()?;
            cls.extend(mean);
            cls
        }
    };
    let inputs = head.weight.shape()[1];
    if input.len() != inputs {
        return None;
    }
    let bias = |class: usize| head.bias.as_ref().map_or(0.0, |bias| bias.data()[class]);
    Some(
        head.weight
            .data()
            .chunks_exact(inputs)
            .enumerate()
            .map(|(class, weight)| {
                let sum: f64 = std::iter::zip(weight, &input)
                    .map(|(&w, &x)| f64::from(w) * f64::from(x))
                    .sum();
                sum as f32 + bias(class)
            })
            .collect(),
    )
}
