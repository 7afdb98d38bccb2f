//! The metric of a shared covariance: a linear map after which features vary alike in all directions within a class.

use matrix::{Mat, MatRef};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Directions along which the deviations vary less than this share of the most are rounding.
const NEGLIGIBLE: f64 = 1e-12;

/// `a` in `Σ = (1−a)·S + a·tr(S)/D·I`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shrinkage {
    /// Above 0 and at most 1.
    Fixed(f64),
    /// Oracle approximating shrinkage (arXiv 0907.4698, equation 23): from the deviations themselves.
    Oas,
}

impl fmt::Display for Shrinkage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(value) => write!(formatter, "{value}"),
            Self::Oas => formatter.write_str("oas"),
        }
    }
}

impl FromStr for Shrinkage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "oas" {
            return Ok(Self::Oas);
        }
        match text.parse() {
            Ok(value) if value > 0.0 && value <= 1.0 => Ok(Self::Fixed(value)),
            _ => Err(format!(
                "the shrinkage is \"{text}\"; it must be oas, or a number above 0 and at most 1"
            )),
        }
    }
}

/// `Σ⁻¹ = WᵀW` with `W = floor·I + V·diag(gains)·Vᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// `1/√λ`, the gain in directions without deviations
    floor: f64,
    /// `V`, `[width, rank]`
    directions: Mat<f64>,
    /// `[rank]`, added to the floor
    gains: Vec<f64>,
}

impl Metric {
    /// The metric in which distances are those of the features themselves.
    pub fn identity(width: usize) -> Self {
        Self {
            floor: 1.0,
            directions: Mat::zeros(width, 0),
            gains: Vec::new(),
        }
    }

    /// Whether distances are those of the features themselves.
    pub fn is_identity(&self) -> bool {
        self.gains.is_empty() && self.floor == 1.0
    }

    /// The metric of `S = XXᵀ/degrees`, where the columns of `deviations` `X` `[width, features]` are taken from the mean of their class. The
    /// identity where there is no deviation.
    ///
    /// `None` for values that are not finite.
    pub fn of(deviations: MatRef<'_, f64>, degrees: f64, shrinkage: Shrinkage) -> Option<Self> {
        let (width, count) = (deviations.nrows(), deviations.ncols());
        let squares = matrix::squared_norm(deviations);
        if !squares.is_finite() {
            return None;
        }
        if squares == 0.0 || width == 0 {
            return Some(Self::identity(width));
        }
        let degrees = degrees.max(1.0);
        // Of the two products the smaller one has the same eigenvalues.
        let (values, directions) = if count < width {
            let gram = matrix::product(deviations.transpose(), deviations);
            let eigen = matrix::symmetric_eigen(gram.as_ref())?;
            let counted = counted(&eigen.values);
            let own = eigen.vectors.subcols(count - counted, counted);
            let mut directions = matrix::product(deviations, own);
            let values = eigen.values[count - counted..].to_vec();
            for (j, value) in values.iter().enumerate() {
                let length = value.sqrt();
                directions
                    .col_mut(j)
                    .iter_mut()
                    .for_each(|own| *own /= length);
            }
            (values, directions)
        } else {
            let scatter = scatter(deviations);
            let eigen = matrix::symmetric_eigen(scatter.as_ref())?;
            let counted = counted(&eigen.values);
            let directions = eigen.vectors.subcols(width - counted, counted).to_owned();
            (eigen.values[width - counted..].to_vec(), directions)
        };
        let variances: Vec<f64> = values.iter().map(|value| value / degrees).collect();
        let trace: f64 = variances.iter().sum();
        let share = match shrinkage {
            Shrinkage::Fixed(share) => share,
            Shrinkage::Oas => {
                let squares: f64 = variances.iter().map(|value| value * value).sum();
                oas(trace, squares, degrees, width as f64)
            }
        };
        let least = share * trace / width as f64;
        let floor = 1.0 / least.sqrt();
        let gain = |variance: &f64| 1.0 / ((1.0 - share) * variance + least).sqrt() - floor;
        let gains: Vec<f64> = variances.iter().map(gain).collect();
        let (floor, gains) = (
            in_f32(floor),
            gains.into_iter().map(in_f32).collect::<Vec<_>>(),
        );
        let directions = Mat::from_fn(width, gains.len(), |i, j| in_f32(directions[(i, j)]));
        let sound = floor.is_finite() && gains.iter().all(|gain| gain.is_finite());
        sound.then_some(Self {
            floor,
            directions,
            gains,
        })
    }

    /// `|Wu|²` of each column `u` of `features` `[width, features]`.
    pub fn squared_lengths(&self, features: MatRef<'_, f64>) -> Vec<f64> {
        let along = matrix::product(self.directions.transpose(), features);
        let floor = self.floor * self.floor;
        let lengths = features.col_iter().zip(along.col_iter());
        let lengths = lengths.map(|(feature, along)| {
            let gains = self.gains.iter().zip(along.iter());
            let above = gains.map(|(gain, along)| {
                let whole = self.floor + gain;
                (whole * whole - floor) * along * along
            });
            floor * feature.squared_norm_l2() + above.sum::<f64>()
        });
        lengths.collect()
    }

    /// `W·X` of `features` `X` `[width, features]`: squared distances between columns are those in `Σ⁻¹`.
    pub fn whiten(&self, features: MatRef<'_, f64>) -> Mat<f64> {
        let mut whitened = matrix::scaled(self.floor, features);
        if self.gains.is_empty() {
            return whitened;
        }
        let mut along = matrix::product(self.directions.transpose(), features);
        for column in along.col_iter_mut() {
            let gains = column.iter_mut().zip(&self.gains);
            gains.for_each(|(value, gain)| *value *= gain);
        }
        let back = matrix::product(self.directions.as_ref(), along.as_ref());
        matrix::add_scaled(&mut whitened, 1.0, back.as_ref());
        whitened
    }
}

impl Metric {
    /// `W⁻¹·X` of `whitened` `X` `[width, features]`.
    pub fn unwhiten(&self, whitened: MatRef<'_, f64>) -> Mat<f64> {
        let mut features = matrix::scaled(1.0 / self.floor, whitened);
        let mut along = matrix::product(self.directions.transpose(), whitened);
        for column in along.col_iter_mut() {
            let gains = column.iter_mut().zip(&self.gains);
            gains.for_each(|(value, gain)| {
                *value *= 1.0 / (self.floor + gain) - 1.0 / self.floor;
            });
        }
        let back = matrix::product(self.directions.as_ref(), along.as_ref());
        matrix::add_scaled(&mut features, 1.0, back.as_ref());
        features
    }
}

/// The form in which a metric is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredMetric {
    floor: f32,
    /// The columns of `V`
    directions: Vec<Vec<f32>>,
    gains: Vec<f32>,
}

impl Metric {
    pub(super) fn stored(&self) -> StoredMetric {
        let columns = self.directions.col_iter();
        StoredMetric {
            floor: self.floor as f32,
            directions: columns
                .map(|column| column.iter().map(|&value| value as f32).collect())
                .collect(),
            gains: self.gains.iter().map(|&gain| gain as f32).collect(),
        }
    }

    /// # Errors
    /// What does not fit features of `width` values.
    pub(super) fn read(stored: StoredMetric, width: usize) -> Result<Self, String> {
        let StoredMetric {
            floor,
            directions,
            gains,
        } = stored;
        let rank = gains.len();
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        let fits = |column: &Vec<f32>| column.len() == width && finite(column);
        if !(floor.is_finite() && floor > 0.0 && finite(&gains))
            || directions.len() != rank
            || rank > width
            || !directions.iter().all(fits)
        {
            return Err("the metric of its head does not fit".into());
        }
        Ok(Self {
            floor: f64::from(floor),
            directions: Mat::from_fn(width, rank, |i, j| f64::from(directions[j][i])),
            gains: gains.into_iter().map(f64::from).collect(),
        })
    }
}

/// Columns whose products are added up at once.
const COLUMNS_AT_ONCE: usize = 4096;

/// `XXᵀ`, parts of the columns side by side and added in their order, so that the number of threads changes no bit.
fn scatter(columns: MatRef<'_, f64>) -> Mat<f64> {
    let (width, count) = (columns.nrows(), columns.ncols());
    let starts: Vec<usize> = (0..count).step_by(COLUMNS_AT_ONCE).collect();
    let parts: Vec<Mat<f64>> = starts
        .into_par_iter()
        .map(|start| {
            let own = columns.subcols(start, COLUMNS_AT_ONCE.min(count - start));
            matrix::product(own, own.transpose())
        })
        .collect();
    let mut sum = Mat::zeros(width, width);
    for part in &parts {
        matrix::add_scaled(&mut sum, 1.0, part.as_ref());
    }
    sum
}

/// As `f32` holds it, so that what is written down answers the same.
pub(super) fn in_f32(value: f64) -> f64 {
    f64::from(value as f32)
}

/// How many of the ascending `values` are more than rounding; at least one.
fn counted(values: &[f64]) -> usize {
    let largest = values.last().copied().unwrap_or(0.0);
    let counted = values.iter().rev();
    let counted = counted.take_while(|&&value| value > largest * NEGLIGIBLE);
    counted.count().max(1)
}

/// With `n` samples of `p` dimensions, the trace of `S` and that of `S²`.
fn oas(trace: f64, squares: f64, n: f64, p: f64) -> f64 {
    let above = (1.0 - 2.0 / p) * squares + trace * trace;
    let below = (n + 1.0 - 2.0 / p) * (squares - trace * trace / p);
    // Equal variances in all directions need no shrinking, and equation 23 divides by zero.
    let share = if below > 0.0 { above / below } else { 1.0 };
    // Without any floor, Σ of few samples has no inverse.
    share.clamp(1e-3, 1.0)
}
