//! Priors: what makes images look like pictures at all, beside what the model says. Each has a weight; the sum of all is weighted
//! once more against the cross-entropy.

use super::recipe::{InversionRecipe, PriorWeights};
use crate::recipe::{Problems, RecipeError};
use engine::loss::{Moments, StatisticsTerm, TokenStatistics, mean_norm, total_variation};
use engine::operation::OperationError;
use engine::resnet::{BatchNormPrior, ResNet};
use engine::session::Output;
use model::backbone::Backbone;

/// What priors compare with, from files.
#[derive(Debug, Default)]
pub struct PriorData {
    /// Needed where the prior of that name has a weight.
    pub batch_norm: Option<ResNet>,
    /// Needed where the prior of that name has a weight.
    pub token_statistics: Option<TokenStatistics>,
}

/// All priors of a recipe.
pub(super) struct Priors {
    weights: PriorWeights,
    /// Of the sum of all.
    weight: f64,
    batch_norm: Option<BatchNormPrior>,
    tokens: Option<TokenPrior>,
}

/// Statistics of the tokens at the LayerNorms of the model that is inverted, over the whole batch.
struct TokenPrior {
    /// Stored `(mean, variance)` of each of `[2·layers]` LayerNorm inputs, where the file has them.
    stored: Vec<Option<(Vec<f32>, Vec<f32>)>>,
    width: usize,
    /// `[2·layers, width]`: the gradient at an input `x` is `offset + slope∘x`.
    offset: Vec<f32>,
    slope: Vec<f32>,
}

/// Name of LayerNorm input `index` of `[2·layers]` in a file of statistics.
pub(crate) fn site(index: usize) -> String {
    format!("layers.{}.norm{}", index / 2, 1 + index % 2)
}

/// Moments of LayerNorm input `index`, from the sums that a pass gives.
pub(crate) fn moments(sums: &[f64], count: usize, index: usize, width: usize) -> Moments {
    let sums = &sums[2 * index * width..][..2 * width];
    let (values, squares) = sums.split_at(width);
    let tokens = count as f64;
    let mean: Vec<f64> = values.iter().map(|sum| sum / tokens).collect();
    let spread = squares.iter().zip(&mean);
    Moments {
        count: count as u64,
        // Rounding can take a spread of nothing below zero.
        spread: spread
            .map(|(square, mean)| (square - tokens * mean * mean).max(0.0))
            .collect(),
        mean,
    }
}

impl Priors {
    /// # Errors
    /// [`RecipeError::Problems`] where a prior with a weight has no data, or data of another backbone.
    pub fn new(
        recipe: &InversionRecipe,
        data: PriorData,
        backbone: &Backbone,
    ) -> Result<Self, RecipeError> {
        let weights = recipe.priors.clone();
        let mut problems = Problems::default();
        problems.check(weights.batch_norm == 0.0 || data.batch_norm.is_some(), || {
            "the BatchNorm prior has a weight but no ResNet: give the file of one in torchvision's layout, \
             or set priors.batch_norm to 0"
                .into()
        });
        let statistics = data
            .token_statistics
            .filter(|_| weights.token_statistics > 0.0);
        if weights.token_statistics > 0.0 {
            match &statistics {
                None => problems.add(
                    "the prior of token statistics has a weight but no statistics: make a file with `lora-recycle prior build DIR`, \
                     or set priors.token_statistics to 0"
                        .into(),
                ),
                Some(statistics) => problems.check(
                    statistics.backbone_digest == backbone.digest,
                    || "the token statistics were taken from another backbone; make them again with `lora-recycle prior build DIR`".into(),
                ),
            }
        }
        problems.finish()?;
        Ok(Self {
            weight: recipe.prior_weight,
            batch_norm: data
                .batch_norm
                .filter(|_| weights.batch_norm > 0.0)
                .map(BatchNormPrior::new),
            tokens: statistics.map(|own| TokenPrior::new(own, backbone)),
            weights,
        })
    }

    /// Whether passes must give the sums at LayerNorm inputs.
    pub fn reads_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// The weighted sum of the priors on `pixels` alone; adds its gradient to `dpixels`.
    pub fn pixels(
        &mut self,
        pixels: &[f32],
        shape: [usize; 4],
        mut dpixels: Option<&mut [f32]>,
    ) -> Result<f64, OperationError> {
        let mut sum = 0.0;
        let inner = |weight: f64| (self.weight * weight) as f32;
        if let Some(prior) = &mut self.batch_norm {
            let weight = self.weights.batch_norm;
            let loss = prior.loss(pixels, shape, inner(weight), dpixels.as_deref_mut())?;
            sum += weight * f64::from(loss);
        }
        for (weight, prior) in [
            (
                self.weights.total_variation,
                total_variation as fn(&[f32], [usize; 4], f32, Option<&mut [f32]>) -> _,
            ),
            (self.weights.l2, mean_norm),
        ] {
            if weight > 0.0 {
                let loss: f32 = prior(pixels, shape, inner(weight), dpixels.as_deref_mut())?;
                sum += weight * f64::from(loss);
            }
        }
        Ok(self.weight * sum)
    }

    /// The weighted prior of token statistics for a whole batch's `output`; keeps its gradient for [`Self::norm_inputs`].
    pub fn tokens(&mut self, output: &Output) -> f64 {
        let (Some(prior), Some(sums)) = (&mut self.tokens, &output.norm_input_sums) else {
            return 0.0;
        };
        let weight = self.weight * self.weights.token_statistics;
        weight * prior.loss(sums, &output.norm_input_counts, weight as f32)
    }

    /// `(offset, slope)` of the gradient at the LayerNorm inputs after the last [`Self::tokens`].
    pub fn norm_inputs(&self) -> Option<(&[f32], &[f32])> {
        let prior = self.tokens.as_ref()?;
        Some((&prior.offset, &prior.slope))
    }
}

impl TokenPrior {
    fn new(mut statistics: TokenStatistics, backbone: &Backbone) -> Self {
        let (width, count) = (backbone.config.width, 2 * backbone.config.layers);
        let stored = (0..count).map(|index| {
            let own = statistics.sites.remove(&site(index))?;
            (own.mean.len() == width && own.variance.len() == width)
                .then_some((own.mean, own.variance))
        });
        Self {
            stored: stored.collect(),
            width,
            offset: vec![0.0; count * width],
            slope: vec![0.0; count * width],
        }
    }

    /// The sum over LayerNorm inputs, not weighted; overwrites the gradient, which is.
    fn loss(&mut self, sums: &[f64], counts: &[usize], weight: f32) -> f64 {
        let mut loss = 0.0;
        for (index, stored) in self.stored.iter().enumerate() {
            let Some((mean, variance)) = stored else {
                continue;
            };
            let own = moments(sums, counts[index], index, self.width);
            let mut term = StatisticsTerm::default();
            term.set(&own, mean, variance, weight);
            loss += term.loss;
            let range = index * self.width..(index + 1) * self.width;
            self.offset[range.clone()].copy_from_slice(&term.constant);
            self.slope[range].copy_from_slice(&term.slope);
        }
        loss
    }
}
