//! How sure an answer is: the temperature of the probabilities and the scale of novelty, from examples that a head has not seen.

use super::fit::{FittedHead, HeadError, LabelledFeature};
use super::settings::HeadSettings;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Where the temperature of the probabilities comes from, or the scale of novelty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    /// From examples that were left out in turns.
    Supports,
    /// From copies of the examples; rough.
    Copies,
    /// It is the usual one of the head.
    None,
}

/// Examples that are left out are divided into at most this many parts.
const MOST_FOLDS: usize = 5;

/// So many left-out examples are enough.
const ENOUGH: usize = 200;

/// How far the temperature may be from the usual one: standard deviation of its logarithm before anything is seen. It keeps a handful of
/// examples that are all right from making every answer certain.
const LOG_TEMPERATURE_DEVIATION: f64 = 1.0;

/// Of the logarithm of the temperature: far below what a few examples tell.
const TEMPERATURE_TOLERANCE: f64 = 1e-3;

/// An image of a known class that a head has not seen.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut {
    /// Number of its class.
    pub class: usize,
    /// To each class.
    pub squared_distances: Vec<f64>,
}

impl LeftOut {
    /// What `head`, which has not seen them, measures of `examples`.
    ///
    /// # Errors
    /// [`HeadError`]
    pub fn of(head: &FittedHead, examples: &[LabelledFeature<'_>]) -> Result<Vec<Self>, HeadError> {
        let queries: Vec<&[f32]> = examples.iter().map(|own| own.feature).collect();
        let distances = head.squared_distances(&queries)?;
        let measured = examples.iter().zip(distances.row_iter());
        Ok(measured
            .map(|(own, row)| Self {
                class: own.class,
                squared_distances: row.iter().copied().collect(),
            })
            .collect())
    }

    /// `softmax(−d²/T)`, over the classes.
    pub fn probabilities(&self, temperature: f64) -> Vec<f64> {
        let nearest = self.nearest();
        let weights = self.squared_distances.iter();
        let weights: Vec<f64> = weights
            .map(|distance| ((nearest - distance) / temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    /// The squared distance to the nearest class mean.
    fn nearest(&self) -> f64 {
        least(self.squared_distances.iter())
    }
}

fn least<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    values.copied().fold(f64::INFINITY, f64::min)
}

/// Examples scored by heads that are fitted without them: of each class with two or more, one part after the other is left out. A class
/// with one example stays in all heads. None where too few are left for a metric like that of `whole`, the head of all examples.
///
/// # Errors
/// [`HeadError`]
pub fn leave_out(
    settings: &HeadSettings,
    whole: &FittedHead,
    examples: &[LabelledFeature<'_>],
) -> Result<Vec<LeftOut>, HeadError> {
    let (classes, _) = whole.sizes();
    let mut counts = vec![0usize; classes];
    let places: Vec<usize> = examples
        .iter()
        .map(|example| {
            counts[example.class] += 1;
            counts[example.class] - 1
        })
        .collect();
    let folds = counts.iter().copied().max().unwrap_or(0).min(MOST_FOLDS);
    let mut left_out = Vec::new();
    for fold in 0..folds {
        if left_out.len() >= ENOUGH {
            break;
        }
        let is_out = |(example, place): (&LabelledFeature<'_>, usize)| {
            let folds = folds.min(counts[example.class]);
            folds > 1 && place % folds == fold
        };
        let (out, kept): (Vec<_>, Vec<_>) = examples
            .iter()
            .zip(places.iter().copied())
            .partition(|&own| is_out(own));
        if out.is_empty() {
            continue;
        }
        let kept: Vec<LabelledFeature<'_>> = kept.into_iter().map(|(own, _)| *own).collect();
        let head = FittedHead::fit(settings, classes, &kept)?;
        if head.usual_temperature() != whole.usual_temperature() {
            return Ok(Vec::new());
        }
        // Of many classes an even choice is enough.
        let step = out.len().div_ceil(ENOUGH);
        let out: Vec<LabelledFeature<'_>> =
            out.into_iter().step_by(step).map(|(own, _)| *own).collect();
        left_out.extend(LeftOut::of(&head, &out)?);
    }
    Ok(left_out)
}

/// The temperature `T` of `softmax(−d²/T)` with the least negative log-likelihood on `left_out`, near to `usual` where they are few.
pub fn temperature(left_out: &[LeftOut], usual: f64) -> f64 {
    if left_out.is_empty() {
        return usual;
    }
    // How much farther than the nearest class mean all are, and that of the right class.
    let above: Vec<(Vec<f64>, f64)> = left_out
        .iter()
        .map(|own| {
            let nearest = own.nearest();
            let above = own.squared_distances.iter().map(|d| d - nearest);
            let above: Vec<f64> = above.collect();
            let right = above[own.class];
            (above, right)
        })
        .collect();
    let loss = |log: f64| {
        let temperature = log.exp();
        let likelihoods = above.par_iter().map(|(above, right)| {
            let sum: f64 = above.iter().map(|d| (-d / temperature).exp()).sum();
            right / temperature + sum.ln()
        });
        // Summed in order, so that the number of threads changes no bit.
        let likelihoods: Vec<f64> = likelihoods.collect();
        let away = (log - usual.ln()) / LOG_TEMPERATURE_DEVIATION;
        likelihoods.iter().sum::<f64>() + 0.5 * away * away
    };
    // Golden section over four deviations to both sides; the loss has one valley in the inverse of the temperature.
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let reach = 4.0 * LOG_TEMPERATURE_DEVIATION;
    let (mut low, mut high) = (usual.ln() - reach, usual.ln() + reach);
    let (mut a, mut b) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_a, mut at_b) = (loss(a), loss(b));
    while high - low > TEMPERATURE_TOLERANCE {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - golden * (high - low);
            at_a = loss(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + golden * (high - low);
            at_b = loss(b);
        }
    }
    ((low + high) / 2.0).exp()
}

/// How far images of known classes are from the nearest class mean: the logarithm of the distance, as a normal distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NoveltyScale {
    /// Mean of the logarithms.
    pub mean: f64,
    /// Their standard deviation, above 0.
    pub deviation: f64,
    /// Degrees of freedom of that deviation, above 0: of few images it is known only roughly.
    pub degrees: f64,
    /// What it was learned from.
    pub calibration: Calibration,
}

/// Where a query of a known class is expected from copies: `share·V + (1 − share)·U − below`, and how far queries scatter around it.
/// `V` is the mean log-distance of copies to the mean of their class in the metric of the other classes, `U` that of the examples to the
/// nearest other mean. Chosen on validation classes of letters, clothes and textures (docs/experiments/NOTEBOOK.md, "Candidates").
struct FromCopies {
    share: f64,
    below: f64,
    deviation: f64,
}

const OF_ONE_EXAMPLE: FromCopies = FromCopies {
    share: 0.5,
    below: 0.19,
    deviation: 0.22,
};
const OF_TWO_EXAMPLES: FromCopies = FromCopies {
    share: 0.75,
    below: 0.26,
    deviation: 0.21,
};

/// Classes whose copies are looked at; each needs a metric of its own.
const MOST_CLASSES_OF_COPIES: usize = 8;

/// As good as a normal distribution.
const MANY_DEGREES: f64 = 1e6;

/// What squared distances of a head become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squares {
    /// Distances.
    Rooted,
    /// Cosine distances, which are half of the squared distances of directions.
    HalvedToCosine,
}

/// Fewer left-out images say nothing about how far images of known classes are.
const LEAST_LEFT_OUT: usize = 10;

impl NoveltyScale {
    /// From the distances of `left_out` images to the nearest mean; `None` for too few.
    pub fn of(left_out: &[LeftOut], squares: Squares) -> Option<Self> {
        if left_out.len() < LEAST_LEFT_OUT {
            return None;
        }
        let count = left_out.len() as f64;
        let logarithm = |own: &LeftOut| {
            let distance = match squares {
                Squares::Rooted => own.nearest().sqrt(),
                Squares::HalvedToCosine => own.nearest() / 2.0,
            };
            log_distance(distance)
        };
        let logarithms: Vec<f64> = left_out.iter().map(logarithm).collect();
        let mean = logarithms.iter().sum::<f64>() / count;
        let squares = logarithms.iter().map(|own| (own - mean) * (own - mean));
        let deviation = (squares.sum::<f64>() / (count - 1.0)).sqrt();
        // The next image comes from the same distribution, whose mean is known only so well.
        let deviation = (deviation * (1.0 + 1.0 / count).sqrt()).max(LEAST_DEVIATION);
        Some(Self {
            mean,
            deviation,
            degrees: count - 1.0,
            calibration: Calibration::Supports,
        })
    }

    /// From copies, where too few examples can be left out; `None` without copies or a metric.
    ///
    /// # Errors
    /// [`HeadError`]
    pub fn from_copies(
        settings: &HeadSettings,
        classes: usize,
        examples: &[LabelledFeature<'_>],
    ) -> Result<Option<Self>, HeadError> {
        if settings.copies == 0 || examples.iter().any(|own| own.copies.is_empty()) {
            return Ok(None);
        }
        let rule = match 2 * examples.len() < 3 * classes {
            true => OF_ONE_EXAMPLE,
            false => OF_TWO_EXAMPLES,
        };
        let logarithm = |square: f64| log_distance(square.sqrt());
        let (mut of_copies, mut of_examples) = (Vec::new(), Vec::new());
        for class in (0..classes).step_by(classes.div_ceil(MOST_CLASSES_OF_COPIES).max(1)) {
            let (own, others): (Vec<&LabelledFeature<'_>>, Vec<_>) =
                examples.iter().partition(|example| example.class == class);
            let others: Vec<LabelledFeature<'_>> = others
                .into_iter()
                .map(|other: &LabelledFeature<'_>| LabelledFeature {
                    class: other.class - usize::from(other.class > class),
                    ..*other
                })
                .collect();
            let head = FittedHead::fit(settings, classes - 1, &others)?;
            if !head.has_metric() {
                return Ok(None);
            }
            let features: Vec<&[f32]> = own.iter().map(|own| own.feature).collect();
            let copies: Vec<&[f32]> = own.iter().flat_map(|own| own.copies).copied().collect();
            let squares = head.squared_distances_to_mean(&copies, &features)?;
            of_copies.extend(squares.into_iter().map(logarithm));
            let distances = head.squared_distances(&features)?;
            let nearest = distances.row_iter().map(|row| least(row.iter()));
            of_examples.extend(nearest.map(logarithm));
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let centre = rule.share * mean(&of_copies) + (1.0 - rule.share) * mean(&of_examples);
        Ok(Some(Self {
            mean: centre - rule.below,
            deviation: rule.deviation,
            degrees: MANY_DEGREES,
            calibration: Calibration::Copies,
        }))
    }

    /// The share of images of known classes that are nearer than `distance`.
    pub fn share_nearer(&self, distance: f32) -> f64 {
        let t = (log_distance(f64::from(distance)) - self.mean) / self.deviation;
        // Student's t as a normal deviate, by Abramowitz and Stegun 26.7.8.
        let normal = t * (1.0 - 0.25 / self.degrees) / (1.0 + 0.5 * t * t / self.degrees).sqrt();
        normal_distribution(normal)
    }
}

/// A shorter distance is none.
const LEAST_DISTANCE: f64 = 1e-9;

fn log_distance(distance: f64) -> f64 {
    distance.max(LEAST_DISTANCE).ln()
}

/// Where all left-out images are equally far.
const LEAST_DEVIATION: f64 = 1e-3;

/// `Φ(z)` by Abramowitz and Stegun 26.2.17, within 7.5e-8.
fn normal_distribution(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let powers = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() * powers;
    if z > 0.0 { 1.0 - tail } else { tail }
}
