//! Fitting a head, and the distances that it measures.

use super::metric::{Metric, StoredMetric, in_f32};
use super::settings::{HeadKind, HeadSettings};
use matrix::{Mat, MatRef};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An example: its feature, those of its copies, and its class.
#[derive(Debug, Clone, Copy)]
pub struct LabelledFeature<'a> {
    /// Number of its class.
    pub class: usize,
    /// `[width]`
    pub feature: &'a [f32],
    /// Each `[width]`; those that the settings ask for, in their order.
    pub copies: &'a [&'a [f32]],
}

/// Why a head cannot be fitted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeadError {
    /// A class without examples.
    #[error("class {0} has no example")]
    EmptyClass(usize),
    /// Lengths that differ, or a value that is not finite.
    #[error("a feature is not finite, or not as long as the others")]
    Feature,
}

/// Squared distances to class means in a metric. Features have length one before anything is computed.
///
/// It is linear in the feature `u`: `|u − m_c|² = |Wu|² − 2·(w_c·u + b_c)` with `w_c = Σ⁻¹m_c` and `b_c = −½ m_cᵀΣ⁻¹m_c`, so that the class
/// with the largest `w_c·u + b_c` is the nearest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredHead", into = "StoredHead")]
pub struct FittedHead {
    metric: Metric,
    /// `w`, `[classes, width]`, values that `f32` can hold
    weight: Mat<f64>,
    /// `b`, `[classes]`, likewise
    offset: Vec<f64>,
}

impl FittedHead {
    /// Fits `settings` to `examples` of `classes` classes.
    ///
    /// With class means `m_c` and the deviations `x − m_c` of all examples and copies, `S` their covariance with
    /// `rows − classes` degrees of freedom, the metric is that of `Σ = (1−a)·S + a·tr(S)/D·I`.
    ///
    /// # Errors
    /// [`HeadError`]
    pub fn fit(
        settings: &HeadSettings,
        classes: usize,
        examples: &[LabelledFeature<'_>],
    ) -> Result<Self, HeadError> {
        let width = examples.first().map_or(0, |example| example.feature.len());
        let all = |example: &LabelledFeature<'_>| {
            let mut copies = example.copies.iter();
            is_sound(example.feature, width) && copies.all(|copy| is_sound(copy, width))
        };
        if width == 0 || !examples.iter().all(all) {
            return Err(HeadError::Feature);
        }
        // Examples and copies: class, whether the class mean takes it, feature.
        let rows: Vec<(usize, bool, &[f32])> = examples
            .iter()
            .flat_map(|example| {
                let copies = example.copies.iter();
                let copies = copies.map(|copy| (example.class, settings.means_of_copies, *copy));
                std::iter::once((example.class, true, example.feature)).chain(copies)
            })
            .collect();
        let features: Vec<&[f32]> = rows.iter().map(|row| row.2).collect();
        let mut deviations = units(&features, width);
        let mut means = Mat::<f64>::zeros(width, classes);
        let mut counts = vec![0usize; classes];
        for (unit, &(class, is_of_mean, _)) in deviations.col_iter().zip(&rows) {
            if is_of_mean {
                counts[class] += 1;
                let mut mean = means.col_mut(class);
                mean += unit;
            }
        }
        for (class, &count) in counts.iter().enumerate() {
            if count == 0 {
                return Err(HeadError::EmptyClass(class));
            }
            let mean = means.col_mut(class);
            mean.iter_mut().for_each(|value| *value /= count as f64);
        }
        let metric = match settings.kind {
            HeadKind::NearestMean => Metric::identity(width),
            HeadKind::Lda | HeadKind::LdaAugmented => {
                for (mut deviation, &(class, ..)) in deviations.col_iter_mut().zip(&rows) {
                    deviation -= means.col(class);
                }
                let degrees = rows.len() as f64 - classes as f64;
                Metric::of(deviations.as_ref(), degrees, settings.shrinkage)
                    .ok_or(HeadError::Feature)?
            }
        };
        if settings.kind == HeadKind::NearestMean {
            // The mean of directions is a direction: as by the cosine of the angle.
            for mean in means.col_iter_mut() {
                let length = mean.norm_l2();
                if length > 0.0 {
                    mean.iter_mut().for_each(|value| *value /= length);
                }
            }
        }
        let whitened = metric.whiten(means.as_ref());
        Ok(Self::of_whitened(metric, whitened.as_ref()))
    }

    /// The head whose class means are `W⁻¹` times the columns of `whitened` `[width, classes]`.
    fn of_whitened(metric: Metric, whitened: MatRef<'_, f64>) -> Self {
        let weight = metric.whiten(whitened);
        let offset = whitened
            .col_iter()
            .map(|mean| -0.5 * mean.squared_norm_l2());
        Self {
            weight: Mat::from_fn(weight.ncols(), weight.nrows(), |i, j| {
                in_f32(weight[(j, i)])
            }),
            offset: offset.map(in_f32).collect(),
            metric,
        }
    }

    /// Columns of length one, `[width, features]`.
    fn sound_units(&self, features: &[&[f32]]) -> Result<Mat<f64>, HeadError> {
        let width = self.weight.ncols();
        match features.iter().all(|feature| is_sound(feature, width)) {
            true => Ok(units(features, width)),
            false => Err(HeadError::Feature),
        }
    }

    /// Squared distances `[features, classes]` in the metric, of `features` of any length other than zero.
    ///
    /// # Errors
    /// [`HeadError::Feature`]
    pub fn squared_distances(&self, features: &[&[f32]]) -> Result<Mat<f64>, HeadError> {
        let queries = self.sound_units(features)?;
        let squares = self.metric.squared_lengths(queries.as_ref());
        let products = matrix::product(self.weight.as_ref(), queries.as_ref());
        Ok(Mat::from_fn(
            features.len(),
            self.offset.len(),
            |i, class| {
                let square = squares[i] - 2.0 * (products[(class, i)] + self.offset[class]);
                // `max` would make zero of NaN.
                square.clamp(0.0, f64::INFINITY)
            },
        ))
    }

    /// Squared distances of `features` to the mean of `examples` of another class, in the metric.
    ///
    /// # Errors
    /// [`HeadError::Feature`]
    pub(super) fn squared_distances_to_mean(
        &self,
        features: &[&[f32]],
        examples: &[&[f32]],
    ) -> Result<Vec<f64>, HeadError> {
        let mut away = self.sound_units(features)?;
        let mut mean = Mat::<f64>::zeros(away.nrows(), 1);
        for unit in self.sound_units(examples)?.col_iter() {
            let mut sum = mean.col_mut(0);
            sum += unit;
        }
        let mean = matrix::scaled(1.0 / examples.len() as f64, mean.as_ref());
        for mut column in away.col_iter_mut() {
            column -= mean.col(0);
        }
        Ok(self.metric.squared_lengths(away.as_ref()))
    }

    /// Whether distances are measured in more than the features' own metric.
    pub fn has_metric(&self) -> bool {
        !self.metric.is_identity()
    }

    /// The head with its class means moved towards `features` that are classified together, `per_class[c]` the examples of class `c`:
    /// soft k-means in the metric, three steps of
    ///
    /// `p_qc = softmax_c(−|z_q − m_c|² / T)`, `m_c = (15·n_c·m⁰_c + Σ_q p_qc z_q) / (15·n_c + Σ_q p_qc)`,
    ///
    /// with `z = Wu`, `m⁰_c` the mean of the examples and `T` a tenth of the usual temperature. Chosen on validation classes
    /// (docs/experiments/NOTEBOOK.md, "Candidates"). `None` where there is no metric to measure in.
    ///
    /// # Errors
    /// [`HeadError::Feature`]
    pub fn moved_towards(
        &self,
        features: &[&[f32]],
        per_class: &[usize],
    ) -> Result<Option<Self>, HeadError> {
        const STEPS: usize = 3;
        const QUERIES_AN_EXAMPLE_IS_WORTH: f64 = 15.0;
        const SHARE_OF_USUAL_TEMPERATURE: f64 = 0.1;
        if !self.has_metric() {
            return Ok(None);
        }
        let (classes, width) = self.sizes();
        let queries = self.metric.whiten(self.sound_units(features)?.as_ref());
        // Σ⁻¹m = Wᵀ(Wm)
        let first = self.metric.unwhiten(self.weight.transpose());
        let temperature = SHARE_OF_USUAL_TEMPERATURE * self.usual_temperature();
        let mut means = first.clone();
        for _ in 0..STEPS {
            let products = matrix::product(means.transpose(), queries.as_ref());
            let lengths: Vec<f64> = means.col_iter().map(|own| own.squared_norm_l2()).collect();
            // Without |z_q|², which is the same for all classes.
            let shares = Mat::from_fn(classes, features.len(), |class, query| {
                (2.0 * products[(class, query)] - lengths[class]) / temperature
            });
            let shares = softmax_columns(shares);
            let sums = matrix::product(queries.as_ref(), shares.transpose());
            for class in 0..classes {
                let worth = QUERIES_AN_EXAMPLE_IS_WORTH * per_class[class] as f64;
                let all = worth + shares.row(class).iter().sum::<f64>();
                for j in 0..width {
                    means[(j, class)] = (worth * first[(j, class)] + sums[(j, class)]) / all;
                }
            }
        }
        let moved = Self::of_whitened(self.metric.clone(), means.as_ref());
        Ok(Some(moved))
    }

    /// `T` of `softmax(−d²/T)` where the examples do not say. Chosen on validation classes of letters, clothes and textures with one example
    /// each (docs/experiments/NOTEBOOK.md, "Heads"); squared distances in a metric grow with the width.
    pub fn usual_temperature(&self) -> f64 {
        match self.has_metric() {
            true => 0.3 * self.weight.ncols() as f64,
            false => 0.2,
        }
    }

    #[cfg(test)]
    pub(super) fn whitened(&self, features: MatRef<'_, f64>) -> Mat<f64> {
        self.metric.whiten(features)
    }

    /// Classes, and the width of features.
    pub fn sizes(&self) -> (usize, usize) {
        (self.weight.nrows(), self.weight.ncols())
    }

    /// `w`, a row for each class, and `b`.
    pub fn linear(&self) -> (Vec<Vec<f32>>, Vec<f32>) {
        let weight = self.weight.row_iter();
        let weight = weight.map(|row| row.iter().map(|&value| value as f32).collect());
        let offset = self.offset.iter().map(|&value| value as f32).collect();
        (weight.collect(), offset)
    }
}

/// Softmax of each column.
fn softmax_columns(mut logits: Mat<f64>) -> Mat<f64> {
    for j in 0..logits.ncols() {
        let column = logits.col(j);
        let largest = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = column.iter().map(|value| (value - largest).exp()).sum();
        let column = logits.col_mut(j);
        column
            .iter_mut()
            .for_each(|value| *value = (*value - largest).exp() / sum);
    }
    logits
}

/// The form in which a head is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHead {
    /// `w`, a row for each class
    weight: Vec<Vec<f32>>,
    /// `b`
    offset: Vec<f32>,
    metric: StoredMetric,
}

impl From<FittedHead> for StoredHead {
    fn from(head: FittedHead) -> Self {
        let (weight, offset) = head.linear();
        Self {
            weight,
            offset,
            metric: head.metric.stored(),
        }
    }
}

impl TryFrom<StoredHead> for FittedHead {
    type Error = String;

    fn try_from(stored: StoredHead) -> Result<Self, String> {
        let width = stored.weight.first().map_or(0, Vec::len);
        let sound = stored.weight.iter().all(|row| is_sound(row, width));
        if width == 0 || !sound || !is_sound(&stored.offset, stored.weight.len()) {
            return Err("the weight and the offset of its head do not fit".into());
        }
        Ok(Self {
            weight: Mat::from_fn(stored.weight.len(), width, |i, j| {
                f64::from(stored.weight[i][j])
            }),
            offset: stored.offset.iter().copied().map(f64::from).collect(),
            metric: Metric::read(stored.metric, width)?,
        })
    }
}

fn is_sound(feature: &[f32], width: usize) -> bool {
    feature.len() == width && feature.iter().all(|value| value.is_finite())
}

/// The class with the smallest of `distances` `[features, classes]` for each feature; the first of equals.
pub fn nearest_classes(distances: MatRef<'_, f64>) -> Vec<usize> {
    let rows = distances.row_iter();
    rows.map(|row| {
        let mut best = 0;
        for (class, distance) in row.iter().enumerate() {
            if *distance < row[best] {
                best = class;
            }
        }
        best
    })
    .collect()
}

/// Columns of length one, `[width, features]`.
fn units(features: &[&[f32]], width: usize) -> Mat<f64> {
    let mut columns = Mat::zeros(width, features.len());
    for (column, feature) in columns.col_iter_mut().zip(features) {
        let values = column.iter_mut().zip(unit(feature));
        values.for_each(|(slot, value)| *slot = value);
    }
    columns
}

/// `feature` scaled to length one; zeros stay zeros.
fn unit(feature: &[f32]) -> impl Iterator<Item = f64> {
    let squares = feature
        .iter()
        .map(|&value| f64::from(value) * f64::from(value));
    let length = squares.sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    feature.iter().map(move |&value| f64::from(value) * scale)
}

/// The mean direction of `feature` and `copies`: what stands for a query with its copies.
pub fn with_copies(feature: &[f32], copies: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0f64; feature.len()];
    for row in std::iter::once(feature).chain(copies.iter().copied()) {
        for (sum, value) in sum.iter_mut().zip(unit(row)) {
            *sum += value;
        }
    }
    sum.into_iter().map(|value| value as f32).collect()
}
