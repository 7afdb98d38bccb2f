//! Distances between feature vectors ("features" in the code), and the prototypes of classes that distances are taken to.

use serde::{Deserialize, Serialize};

/// How far apart two feature vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// `1 − cos`, on features scaled to length one: it does not depend on the scale of a backbone's features.
    #[default]
    Cosine,
    /// `‖a − b‖²`, the paper's choice.
    SquaredEuclidean,
    /// `‖a − b‖`
    Euclidean,
}

impl Distance {
    /// The form in which features are compared: of length one for [`Self::Cosine`], else as they are.
    pub fn prepare(self, mut feature: Vec<f32>) -> Vec<f32> {
        if self == Self::Cosine {
            scale_to_unit(&mut feature);
        }
        feature
    }

    /// Distance of two prepared features.
    ///
    /// # Panics
    /// In debug builds, when the lengths differ.
    pub fn between(self, a: &[f32], b: &[f32]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        match self {
            // `max` would make zero of NaN.
            Self::Cosine => (1.0 - dot(a, b)).clamp(0.0, f32::INFINITY),
            Self::SquaredEuclidean => squared_distance(a, b),
            Self::Euclidean => squared_distance(a, b).sqrt(),
        }
    }

    /// The prototype of one class: the mean of its prepared support features, prepared again. `None` without features.
    pub fn prototype<'f>(self, supports: impl IntoIterator<Item = &'f [f32]>) -> Option<Vec<f32>> {
        let mut supports = supports.into_iter();
        let mut sum: Vec<f64> = supports.next()?.iter().map(|&v| f64::from(v)).collect();
        let mut count = 1.0;
        for support in supports {
            for (sum, &value) in sum.iter_mut().zip(support) {
                *sum += f64::from(value);
            }
            count += 1.0;
        }
        let mean = sum.into_iter().map(|sum| (sum / count) as f32).collect();
        Some(self.prepare(mean))
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn scale_to_unit(feature: &mut [f32]) {
    let length = dot(feature, feature).sqrt();
    // A feature of zeros has no direction and stays as it is.
    if length > 0.0 {
        for value in feature {
            *value /= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prototype_is_the_mean_and_unequal_counts_are_fine() {
        let supports = [[1.0f32, 0.0], [3.0, 4.0], [2.0, 2.0]];
        let prototype = Distance::SquaredEuclidean
            .prototype(supports.iter().map(|s| s.as_slice()))
            .unwrap();
        assert_eq!(prototype, [2.0, 2.0]);
        let none: [&[f32]; 0] = [];
        assert_eq!(Distance::SquaredEuclidean.prototype(none), None);
    }

    #[test]
    fn cosine_does_not_see_the_scale_of_a_feature() {
        let a = Distance::Cosine.prepare(vec![3.0, 4.0]);
        let b = Distance::Cosine.prepare(vec![300.0, 400.0]);
        assert!(Distance::Cosine.between(&a, &b) < 1e-6);
        let zero = Distance::Cosine.prepare(vec![0.0, 0.0]);
        assert_eq!(Distance::Cosine.between(&a, &zero), 1.0);
    }

    #[test]
    fn the_euclidean_distance_is_the_root_of_the_squared_one() {
        let (a, b) = ([1.0, 2.0], [4.0, 6.0]);
        assert_eq!(Distance::SquaredEuclidean.between(&a, &b), 25.0);
        assert_eq!(Distance::Euclidean.between(&a, &b), 5.0);
    }
}
