//! Priors: what makes images look like pictures at all, beside what the model says. Each has a weight; the sum of all is weighted
//! once more against the cross-entropy.

use super::recipe::{InversionRecipe, PriorWeights};
use crate::recipe::{Problems, RecipeError};
use engine::images::PriorLosses;
use engine::loss::{Moments, StatisticsTerm, TokenStatistics};
use engine::resnet::ResNet;
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
        // Rounding can take a spread of nothing below zero; `max` would make zero of NaN.
        spread: spread
            .map(|(square, mean)| (square - tokens * mean * mean).clamp(0.0, f64::INFINITY))
            .collect(),
        mean,
    }
}

impl Priors {
    /// The priors, and the network of that of BatchNorm.
    ///
    /// # Errors
    /// [`RecipeError::Problems`] where a prior with a weight has no data, or data of another backbone.
    pub fn new(
        recipe: &InversionRecipe,
        data: PriorData,
        backbone: &Backbone,
    ) -> Result<(Self, Option<ResNet>), RecipeError> {
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
        let batch_norm = data.batch_norm.filter(|_| weights.batch_norm > 0.0);
        let own = Self {
            weight: recipe.prior_weight,
            tokens: statistics.map(|own| TokenPrior::new(own, backbone)),
            weights,
        };
        Ok((own, batch_norm))
    }

    /// Whether passes must give the sums at LayerNorm inputs.
    pub fn reads_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Weights of the gradients of the priors on pixels alone.
    pub fn of_pixels(&self) -> engine::images::PriorWeights {
        let weight = |own: f64| match own > 0.0 {
            true => (self.weight * own) as f32,
            false => 0.0,
        };
        engine::images::PriorWeights {
            total_variation: weight(self.weights.total_variation),
            mean_norm: weight(self.weights.l2),
            batch_norm: weight(self.weights.batch_norm),
        }
    }

    /// The weighted sum of the priors on pixels alone.
    pub fn weighted(&self, losses: PriorLosses) -> f64 {
        let all = [
            (self.weights.batch_norm, losses.batch_norm),
            (self.weights.total_variation, losses.total_variation),
            (self.weights.l2, losses.mean_norm),
        ];
        let with_weight = all.into_iter().filter(|(weight, _)| *weight > 0.0);
        self.weight * with_weight.map(|(weight, loss)| weight * loss).sum::<f64>()
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
    pub fn norm_inputs(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        let prior = self.tokens.as_ref()?;
        Some((prior.offset.clone(), prior.slope.clone()))
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
