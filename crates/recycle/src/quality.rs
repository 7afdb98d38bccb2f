//! What synthetic images are worth beside real ones, by features of the bare backbone. All features are scaled to length one first, as
//! they are when they are compared with prototypes; so the figures do not depend on the scale of a backbone's features.

use engine::distance::Distance;
use matrix::Mat;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why features cannot be compared.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum QualityError {
    #[error("{found} {which} images; at least {least} are needed to compare them")]
    TooFew {
        which: &'static str,
        found: usize,
        least: usize,
    },
    #[error("a {which} image has a feature that is not finite or of another length")]
    Feature { which: &'static str },
    #[error("the features could not be decomposed")]
    Decomposition,
}

/// Synthetic images beside real ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RealComparison {
    /// Real images of the comparison.
    pub real_images: usize,
    /// Between Gaussians fitted to both; 0 for equal ones. It is larger the fewer images there are: compare pools of one size.
    pub frechet_distance: f64,
    /// Share of the synthetic images that lie among the real ones.
    pub precision: f64,
    /// Share of the real images that lie among the synthetic ones.
    pub recall: f64,
}

/// Neighbours that say how far an image's surroundings reach, as in arXiv 1904.06991.
const NEIGHBOURS: usize = 3;

/// Compares the features of synthetic and real images, each `[width]`.
///
/// # Errors
/// [`QualityError`] for fewer than four images of either, or features that are not finite.
pub fn compare_with_real(
    synthetic: &[Vec<f32>],
    real: &[Vec<f32>],
) -> Result<RealComparison, QualityError> {
    let (synthetic, real) = (
        unit_features(synthetic, "synthetic")?,
        unit_features(real, "real")?,
    );
    if synthetic[0].len() != real[0].len() {
        return Err(QualityError::Feature { which: "real" });
    }
    Ok(RealComparison {
        real_images: real.len(),
        frechet_distance: frechet_distance(&synthetic, &real)?,
        precision: share_within(&synthetic, &real),
        recall: share_within(&real, &synthetic),
    })
}

fn unit_features(
    features: &[Vec<f32>],
    which: &'static str,
) -> Result<Vec<Vec<f32>>, QualityError> {
    let least = NEIGHBOURS + 1;
    if features.len() < least {
        return Err(QualityError::TooFew {
            which,
            found: features.len(),
            least,
        });
    }
    let width = features[0].len();
    let sound = |own: &Vec<f32>| own.len() == width && own.iter().all(|value| value.is_finite());
    if !features.iter().all(sound) {
        return Err(QualityError::Feature { which });
    }
    let unit = |own: &Vec<f32>| Distance::Cosine.prepare(own.clone());
    Ok(features.iter().map(unit).collect())
}

/// `|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2·(Σ_a·Σ_b)^½)`, as in arXiv 1706.08500. With `Σ_a = AᵀA` and `Σ_b = BᵀB` the trace of the root is the
/// sum of the singular values of `A·Bᵀ`, which is exact also where there are fewer images than dimensions.
fn frechet_distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> Result<f64, QualityError> {
    let (mean_a, a) = centred(a);
    let (mean_b, b) = centred(b);
    let means = mean_a.iter().zip(&mean_b);
    let between: f64 = means.map(|(a, b)| (a - b) * (a - b)).sum();
    let both = matrix::product(a.as_ref(), b.transpose());
    let svd = matrix::thin_svd(both.as_ref()).ok_or(QualityError::Decomposition)?;
    let root: f64 = svd.values.iter().sum();
    let squares = matrix::squared_norm(a.as_ref()) + matrix::squared_norm(b.as_ref());
    let spread = squares - 2.0 * root;
    // Rounding may leave equal sets slightly below zero; `max` would make zero of NaN.
    Ok((between + spread).clamp(0.0, f64::INFINITY))
}

/// The mean, and a matrix whose rows have the covariance `AᵀA`: no more rows than columns.
fn centred(features: &[Vec<f32>]) -> (Vec<f64>, Mat<f64>) {
    let (rows, width) = (features.len(), features[0].len());
    let mut mean = vec![0f64; width];
    for feature in features {
        for (sum, &value) in mean.iter_mut().zip(feature) {
            *sum += f64::from(value) / rows as f64;
        }
    }
    let scale = ((rows - 1) as f64).sqrt();
    let matrix = Mat::from_fn(rows, width, |row, column| {
        (f64::from(features[row][column]) - mean[column]) / scale
    });
    if rows > width {
        let reduced = matrix::thin_r(matrix.as_ref());
        return (mean, reduced);
    }
    (mean, matrix)
}

/// Share of `points` that are nearer to one of `others` than its third-nearest neighbour among `others`.
fn share_within(points: &[Vec<f32>], others: &[Vec<f32>]) -> f64 {
    let distance = |a: &[f32], b: &[f32]| Distance::SquaredEuclidean.between(a, b);
    let radii: Vec<f32> = others
        .iter()
        .enumerate()
        .map(|(own, centre)| {
            let rest = others.iter().enumerate().filter(|(index, _)| *index != own);
            let mut distances: Vec<f32> = rest.map(|(_, other)| distance(centre, other)).collect();
            distances.sort_by(f32::total_cmp);
            distances[NEIGHBOURS - 1]
        })
        .collect();
    let is_within = |point: &&Vec<f32>| {
        let mut spheres = others.iter().zip(&radii);
        spheres.any(|(centre, radius)| distance(point, centre) <= *radius)
    };
    points.iter().filter(is_within).count() as f64 / points.len() as f64
}

/// How different the images of one class are: the mean of `1 − cos` over all pairs, 0 for copies of one image. `None` for fewer than
/// two.
pub fn diversity<'f>(features: impl IntoIterator<Item = &'f Vec<f32>>) -> Option<f64> {
    let unit = features
        .into_iter()
        .map(|own| Distance::Cosine.prepare(own.clone()));
    let unit: Vec<Vec<f32>> = unit.collect();
    let mut sum = 0.0;
    let mut pairs = 0;
    for (index, a) in unit.iter().enumerate() {
        for b in &unit[index + 1..] {
            sum += f64::from(Distance::Cosine.between(a, b));
            pairs += 1;
        }
    }
    (pairs > 0).then(|| sum / f64::from(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn cloud(count: usize, centre: [f32; 4], spread: f32, seed: u64) -> Vec<Vec<f32>> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut point = || centre.map(|own| own + spread * random.random_range(-1.0f32..1.0));
        (0..count).map(|_| point().to_vec()).collect()
    }

    /// tr((Σ_a·Σ_b)^½) from the eigenvalues of the product of whole covariances.
    fn plain_frechet(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
        let statistics = |set: &[Vec<f32>]| {
            let count = set.len() as f64;
            let mean: Vec<f64> = (0..4)
                .map(|j| set.iter().map(|own| f64::from(own[j])).sum::<f64>() / count)
                .collect();
            let covariance = Mat::from_fn(4, 4, |i, j| {
                let product =
                    |own: &Vec<f32>| (f64::from(own[i]) - mean[i]) * (f64::from(own[j]) - mean[j]);
                set.iter().map(product).sum::<f64>() / (count - 1.0)
            });
            (mean, covariance)
        };
        let ((mean_a, a), (mean_b, b)) = (statistics(a), statistics(b));
        let roots = (&a * &b).eigenvalues().unwrap();
        let root: f64 = roots.iter().map(|value| value.re.max(0.0).sqrt()).sum();
        let means = mean_a.iter().zip(&mean_b).map(|(a, b)| (a - b).powi(2));
        let trace = |own: &Mat<f64>| (0..4).map(|i| own[(i, i)]).sum::<f64>();
        means.sum::<f64>() + trace(&a) + trace(&b) - 2.0 * root
    }

    #[test]
    fn the_frechet_distance_is_that_of_whole_covariances() {
        let a = cloud(40, [1.0, 0.2, -0.3, 0.5], 0.4, 1);
        let b = cloud(25, [0.8, 0.4, 0.1, 0.5], 0.7, 2);
        let unit = |set: &[Vec<f32>]| -> Vec<Vec<f32>> {
            set.iter()
                .map(|own| Distance::Cosine.prepare(own.clone()))
                .collect()
        };
        let expected = plain_frechet(&unit(&a), &unit(&b));
        let found = compare_with_real(&a, &b).unwrap().frechet_distance;
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    #[test]
    fn equal_sets_are_no_distance_apart_and_cover_each_other() {
        let set = cloud(12, [1.0, 0.0, 0.0, 0.0], 0.5, 3);
        let equal = compare_with_real(&set, &set).unwrap();
        assert!(equal.frechet_distance < 1e-9);
        assert_eq!((equal.precision, equal.recall), (1.0, 1.0));
    }

    #[test]
    fn images_in_one_corner_of_the_real_ones_are_precise_and_recall_little() {
        let real: Vec<Vec<f32>> = [
            cloud(10, [1.0, 0.0, 0.0, 0.0], 0.1, 4),
            cloud(10, [0.0, 1.0, 0.0, 0.0], 0.1, 5),
        ]
        .concat();
        let corner = cloud(10, [1.0, 0.0, 0.0, 0.0], 0.05, 6);
        let found = compare_with_real(&corner, &real).unwrap();
        assert!(found.precision > 0.8, "{found:?}");
        assert!(found.recall <= 0.5, "{found:?}");
        let elsewhere = cloud(10, [0.0, 0.0, 0.0, 1.0], 0.05, 7);
        let found = compare_with_real(&elsewhere, &real).unwrap();
        assert_eq!((found.precision, found.recall), (0.0, 0.0));
    }

    #[test]
    fn copies_have_no_diversity_and_right_angles_have_one() {
        let (a, b) = (vec![2.0, 0.0], vec![0.0, 5.0]);
        assert_eq!(diversity([&a, &a, &a]), Some(0.0));
        assert_eq!(diversity([&a, &b]), Some(1.0));
        assert_eq!(diversity([&a]), None);
    }

    #[test]
    fn too_few_images_are_refused_with_their_number() {
        let set = cloud(9, [1.0, 0.0, 0.0, 0.0], 0.5, 3);
        assert_eq!(
            compare_with_real(&set, &set[..3]).unwrap_err().to_string(),
            "3 real images; at least 4 are needed to compare them"
        );
        let mut broken = set.clone();
        broken[2][1] = f32::INFINITY;
        assert_eq!(
            compare_with_real(&broken, &set),
            Err(QualityError::Feature { which: "synthetic" })
        );
    }
}
