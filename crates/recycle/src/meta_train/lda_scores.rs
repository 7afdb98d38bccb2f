//! Scores of queries in the metric of the covariance within classes, as the head `lda` measures, with gradients through supports and
//! queries, the metric included.

use engine::operation::OperationError;
use matrix::{Mat, MatRef};

/// The name in errors.
const OPERATION: &str = "lda scores";

/// `a` in `Σ = (1−a)·S + a·tr(S)/D·I`, as heads have it by default.
const SHRINKAGE: f64 = 0.3;

/// Scores `−(u − m_c)ᵀ Σ⁻¹ (u − m_c) / (D·T)` of queries `u` at the class means `m_c` of the supports, with `S` the covariance of the supports'
/// deviations from their class means. Distances are of order `D`, the width; divided by it they are of order one.
#[derive(Debug)]
pub(super) struct LdaScores {
    /// Scores are divided by it.
    temperature: f64,
    /// Scales every feature to length one first.
    unit_features: bool,
    pass: Option<Pass>,
}

/// What a forward pass leaves for the backward pass.
#[derive(Debug)]
struct Pass {
    supports: UnitRows,
    queries: UnitRows,
    labels: Vec<usize>,
    counts: Vec<usize>,
    metric: SupportMetric,
    /// `Σ⁻¹u` of the queries, `[queries, width]`
    mapped_queries: Mat<f64>,
    /// `Σ⁻¹m_c`, `[classes, width]`
    mapped_means: Mat<f64>,
}

impl LdaScores {
    pub fn new(temperature: f64, unit_features: bool) -> Self {
        Self {
            temperature,
            unit_features,
            pass: None,
        }
    }

    /// Overwrites `scores` `[queries, classes]` from `supports` `[supports, width]` with one label each and `queries` `[queries, width]`.
    ///
    /// # Errors
    /// A class without supports, no class with two, values that are not finite.
    pub fn forward(
        &mut self,
        supports: &[f32],
        labels: &[usize],
        queries: &[f32],
        [classes, width]: [usize; 2],
        scores: &mut [f32],
    ) -> Result<(), OperationError> {
        self.pass = None;
        check_finite("supports", supports, &[labels.len(), width])?;
        check_finite("queries", queries, &[scores.len() / classes.max(1), width])?;
        let mut counts = vec![0; classes];
        labels.iter().for_each(|&label| counts[label] += 1);
        let class_size = |class, found, needed| OperationError::ClassSize {
            operation: OPERATION,
            class,
            found,
            needed,
        };
        if let Some(class) = counts.iter().position(|&count| count == 0) {
            return Err(class_size(class, 0, 1));
        }
        if labels.len() == classes {
            return Err(class_size(0, 1, 2));
        }
        let supports = UnitRows::of(supports, width, self.unit_features);
        let queries = UnitRows::of(queries, width, self.unit_features);
        let means = class_means(supports.rows.as_ref(), labels, &counts);
        let deviations = Mat::from_fn(labels.len(), width, |i, j| {
            supports.rows[(i, j)] - means[(labels[i], j)]
        });
        let degrees = (labels.len() - classes) as f64;
        let metric = SupportMetric::of(deviations, degrees).ok_or(OperationError::Setting {
            operation: OPERATION,
            name: "a deviation from a class mean",
            value: f64::INFINITY,
            requirement: "the covariance of the supports must be finite",
        })?;
        let mapped_queries = metric.map(queries.rows.as_ref());
        let mapped_means = metric.map(means.as_ref());
        let divisor = width as f64 * self.temperature;
        for (query, row) in scores.chunks_exact_mut(classes).enumerate() {
            for (class, score) in row.iter_mut().enumerate() {
                let square: f64 = (0..width)
                    .map(|j| {
                        (queries.rows[(query, j)] - means[(class, j)])
                            * (mapped_queries[(query, j)] - mapped_means[(class, j)])
                    })
                    .sum();
                *score = (-square / divisor) as f32;
            }
        }
        self.pass = Some(Pass {
            supports,
            queries,
            labels: labels.to_vec(),
            counts,
            metric,
            mapped_queries,
            mapped_means,
        });
        Ok(())
    }

    /// Gradients of the last [`Self::forward`] from `dscores` `[queries, classes]`; overwrites `dsupports` `[supports, width]` and `dqueries`
    /// `[queries, width]`.
    ///
    /// With `y = Σ⁻¹(u − m_c)` and `d` the squared distance, `∂d/∂u = 2y`, `∂d/∂m_c = −2y` and `∂d/∂Σ = −y yᵀ`.
    ///
    /// # Errors
    /// No forward pass waits.
    pub fn backward(
        &mut self,
        dscores: &[f32],
        dsupports: &mut [f32],
        dqueries: &mut [f32],
    ) -> Result<(), OperationError> {
        let pass = self.pass.as_ref().ok_or(OperationError::NoForward)?;
        let (classes, width) = (pass.counts.len(), pass.queries.rows.ncols());
        let divisor = width as f64 * self.temperature;
        let mut dquery_rows = Mat::<f64>::zeros(pass.queries.rows.nrows(), width);
        let mut dmeans = Mat::<f64>::zeros(classes, width);
        // One row y for each query and class, and the gradient at its distance.
        let mut mapped = Mat::<f64>::zeros(dscores.len(), width);
        let mut ddistances = Vec::with_capacity(dscores.len());
        for (index, &dscore) in dscores.iter().enumerate() {
            let (query, class) = (index / classes, index % classes);
            let ddistance = -f64::from(dscore) / divisor;
            ddistances.push(ddistance);
            for j in 0..width {
                let y = pass.mapped_queries[(query, j)] - pass.mapped_means[(class, j)];
                mapped[(index, j)] = y;
                dquery_rows[(query, j)] += 2.0 * ddistance * y;
                dmeans[(class, j)] -= 2.0 * ddistance * y;
            }
        }
        let ddeviations = pass.metric.backward(mapped.as_ref(), &ddistances);
        // A deviation is a support minus the mean of its class.
        for (i, &label) in pass.labels.iter().enumerate() {
            for j in 0..width {
                dmeans[(label, j)] -= ddeviations[(i, j)];
            }
        }
        let dsupport_rows = Mat::from_fn(pass.labels.len(), width, |i, j| {
            let label = pass.labels[i];
            ddeviations[(i, j)] + dmeans[(label, j)] / pass.counts[label] as f64
        });
        pass.supports.backward(dsupport_rows, dsupports);
        pass.queries.backward(dquery_rows, dqueries);
        Ok(())
    }
}

/// `Σ = c·ZᵀZ + f·I` of deviations `Z`, with `c = (1−a)/degrees` and `f = a·‖Z‖²/(degrees·D)`; the identity where `Z` is zero.
#[derive(Debug)]
struct SupportMetric {
    /// `Z`, `[supports, width]`
    deviations: Mat<f64>,
    degrees: f64,
    /// `c`
    coefficient: f64,
    /// `f`
    floor: f64,
    /// `(f·I + c·ZZᵀ)⁻¹`, `[supports, supports]`
    inner: Mat<f64>,
}

impl SupportMetric {
    /// `None` where the decomposition does not converge.
    fn of(deviations: Mat<f64>, degrees: f64) -> Option<Self> {
        let (rows, width) = (deviations.nrows(), deviations.ncols());
        let squares = matrix::squared_norm(deviations.as_ref());
        if squares == 0.0 {
            return Some(Self {
                deviations,
                degrees,
                coefficient: 0.0,
                floor: 1.0,
                inner: Mat::zeros(rows, rows),
            });
        }
        let coefficient = (1.0 - SHRINKAGE) / degrees;
        let floor = SHRINKAGE * squares / (degrees * width as f64);
        let gram = matrix::product(deviations.as_ref(), deviations.transpose());
        let eigen = matrix::symmetric_eigen(gram.as_ref())?;
        let scaled = Mat::from_fn(rows, rows, |i, j| {
            eigen.vectors[(i, j)] / (floor + coefficient * eigen.values[j].max(0.0))
        });
        Some(Self {
            inner: matrix::product(scaled.as_ref(), eigen.vectors.transpose()),
            deviations,
            degrees,
            coefficient,
            floor,
        })
    }

    /// `XΣ⁻¹` of `rows` `X`, by Woodbury: `Σ⁻¹ = (I − c·Zᵀ(f·I + c·ZZᵀ)⁻¹Z) / f`.
    fn map(&self, rows: MatRef<'_, f64>) -> Mat<f64> {
        let along = matrix::product(rows, self.deviations.transpose());
        let inner = matrix::product(along.as_ref(), self.inner.as_ref());
        let mut mapped = rows.to_owned();
        let back = matrix::product(inner.as_ref(), self.deviations.as_ref());
        matrix::add_scaled(&mut mapped, -self.coefficient, back.as_ref());
        matrix::scaled(1.0 / self.floor, mapped.as_ref())
    }

    /// The gradient at `Z` of distances whose rows `y` are `mapped` and whose gradients are `ddistances`.
    ///
    /// `dΣ = −Σ g·y yᵀ`, `dZ = 2c·Z·dΣ + tr(dΣ)·∂f/∂Z`.
    fn backward(&self, mapped: MatRef<'_, f64>, ddistances: &[f64]) -> Mat<f64> {
        let (rows, width) = (self.deviations.nrows(), self.deviations.ncols());
        if self.coefficient == 0.0 {
            return Mat::zeros(rows, width);
        }
        // −Z·dΣ without dΣ, which is as large as the width squared.
        let mut along = matrix::product(self.deviations.as_ref(), mapped.transpose());
        let mut trace = 0.0;
        for (index, &ddistance) in ddistances.iter().enumerate() {
            along
                .col_mut(index)
                .iter_mut()
                .for_each(|value| *value *= ddistance);
            trace -= ddistance * mapped.row(index).squared_norm_l2();
        }
        let product = matrix::product(along.as_ref(), mapped);
        let of_floor = 2.0 * SHRINKAGE * trace / (self.degrees * width as f64);
        let mut ddeviations = matrix::scaled(-2.0 * self.coefficient, product.as_ref());
        matrix::add_scaled(&mut ddeviations, of_floor, self.deviations.as_ref());
        ddeviations
    }
}

/// Features widened to `f64`, scaled to length one where asked for.
#[derive(Debug)]
struct UnitRows {
    /// `[rows, width]`
    rows: Mat<f64>,
    /// Length of each row before scaling; empty where rows are taken as they are.
    lengths: Vec<f64>,
}

impl UnitRows {
    fn of(values: &[f32], width: usize, unit: bool) -> Self {
        let count = values.len() / width;
        let mut rows = Mat::from_fn(count, width, |i, j| f64::from(values[i * width + j]));
        let mut lengths = Vec::new();
        if unit {
            for row in rows.row_iter_mut() {
                let length = row.norm_l2();
                lengths.push(length);
                if length > 0.0 {
                    row.iter_mut().for_each(|value| *value /= length);
                }
            }
        }
        Self { rows, lengths }
    }

    /// Overwrites `dvalues` with the gradients at the values as they were given, from those `drows` at the rows.
    fn backward(&self, mut drows: Mat<f64>, dvalues: &mut [f32]) {
        for (i, &length) in self.lengths.iter().enumerate() {
            let along: f64 = (0..drows.ncols())
                .map(|j| self.rows[(i, j)] * drows[(i, j)])
                .sum();
            for j in 0..drows.ncols() {
                drows[(i, j)] = match length > 0.0 {
                    true => (drows[(i, j)] - along * self.rows[(i, j)]) / length,
                    false => 0.0,
                };
            }
        }
        let width = drows.ncols();
        for (index, dvalue) in dvalues.iter_mut().enumerate() {
            *dvalue = drows[(index / width, index % width)] as f32;
        }
    }
}

/// `[classes, width]`
fn class_means(rows: MatRef<'_, f64>, labels: &[usize], counts: &[usize]) -> Mat<f64> {
    let mut means = Mat::<f64>::zeros(counts.len(), rows.ncols());
    for (i, &label) in labels.iter().enumerate() {
        for j in 0..rows.ncols() {
            means[(label, j)] += rows[(i, j)] / counts[label] as f64;
        }
    }
    means
}

fn check_finite(
    name: &'static str,
    values: &[f32],
    shape: &[usize; 2],
) -> Result<(), OperationError> {
    if shape.contains(&0) {
        return Err(OperationError::Empty {
            operation: OPERATION,
            name,
            shape: shape.to_vec(),
        });
    }
    let expected = shape[0] * shape[1];
    if values.len() != expected {
        return Err(OperationError::Length {
            operation: OPERATION,
            name,
            shape: shape.to_vec(),
            expected,
            found: values.len(),
        });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(OperationError::NotFinite {
            operation: OPERATION,
            name,
            shape: shape.to_vec(),
            index,
            value: values[index],
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    /// The scores by a plain inverse of `Σ`.
    fn plain(
        (temperature, unit): (f64, bool),
        supports: &[f64],
        labels: &[usize],
        queries: &[f64],
        [classes, width]: [usize; 2],
    ) -> Vec<f64> {
        let rows = |values: &[f64]| -> Vec<Vec<f64>> {
            let rows = values.chunks(width).map(|row| {
                let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
                let divisor = if unit { length } else { 1.0 };
                row.iter().map(|v| v / divisor).collect()
            });
            rows.collect()
        };
        let (supports, queries) = (rows(supports), rows(queries));
        let mut means = vec![vec![0.0; width]; classes];
        for (row, &label) in supports.iter().zip(labels) {
            let count = labels.iter().filter(|&&own| own == label).count() as f64;
            for (mean, value) in means[label].iter_mut().zip(row) {
                *mean += value / count;
            }
        }
        let degrees = (labels.len() - classes) as f64;
        let mut covariance = vec![vec![0.0; width]; width];
        for (row, &label) in supports.iter().zip(labels) {
            let away: Vec<f64> = row.iter().zip(&means[label]).map(|(u, m)| u - m).collect();
            for (line, own) in covariance.iter_mut().zip(&away) {
                let pairs = line.iter_mut().zip(&away);
                pairs.for_each(|(value, other)| *value += own * other / degrees);
            }
        }
        let trace: f64 = (0..width).map(|i| covariance[i][i]).sum();
        let mut sigma = covariance;
        for (i, row) in sigma.iter_mut().enumerate() {
            row.iter_mut().for_each(|value| *value *= 0.7);
            row[i] += 0.3 * trace / width as f64;
        }
        let mut scores = Vec::new();
        for query in &queries {
            for mean in &means {
                let away: Vec<f64> = query.iter().zip(mean).map(|(q, m)| q - m).collect();
                let solved = solve(sigma.clone(), away.clone());
                let square: f64 = away.iter().zip(solved).map(|(a, b)| a * b).sum();
                scores.push(-square / (width as f64 * temperature));
            }
        }
        scores
    }

    /// Gaussian elimination of a positive definite system.
    fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
        let n = right.len();
        for i in 0..n {
            let pivot = matrix[i].clone();
            for j in 0..n {
                if j != i {
                    let factor = matrix[j][i] / pivot[i];
                    let pairs = matrix[j].iter_mut().zip(&pivot);
                    pairs.for_each(|(value, own)| *value -= factor * own);
                    right[j] -= factor * right[i];
                }
            }
        }
        (0..n).map(|i| right[i] / matrix[i][i]).collect()
    }

    proptest! {
        #[test]
        fn scores_and_their_gradients_equal_the_plain_formula_with_unequal_supports(
            temperature in 0.2f64..3.0, unit in any::<bool>(), classes in 1usize..4, extra in 2usize..6, query_count in 1usize..4,
            width in 2usize..9, seed in 0u64..1000,
        ) {
            let labels: Vec<usize> = (0..classes + extra)
                .map(|i| if i < classes { classes - 1 - i } else { (i * i + seed as usize) % classes })
                .collect();
            let supports = noise(seed, labels.len() * width);
            let queries = noise(seed + 1, query_count * width);
            let sizes = [classes, width];
            let mut scores = vec![f32::NAN; query_count * classes];
            let mut scorer = LdaScores::new(temperature, unit);
            scorer.forward(&supports, &labels, &queries, sizes, &mut scores).unwrap();
            let (wide_supports, wide_queries) = (widen(&supports), widen(&queries));
            let kind = (temperature, unit);
            for (found, expected) in scores.iter().zip(plain(kind, &wide_supports, &labels, &wide_queries, sizes)) {
                assert_near("score", *found, expected, 1e-5);
            }
            let dscores = noise(seed + 2, scores.len());
            let [mut dsupports, mut dqueries] = [vec![f32::NAN; supports.len()], vec![f32::NAN; queries.len()]];
            scorer.backward(&dscores, &mut dsupports, &mut dqueries).unwrap();
            let weigh = |scores: Vec<f64>| -> f64 {
                scores.iter().zip(&dscores).map(|(a, &b)| a * f64::from(b)).sum()
            };
            assert_gradient("dsupports", &supports, &dsupports, |at| {
                weigh(plain(kind, at, &labels, &wide_queries, sizes))
            });
            assert_gradient("dqueries", &queries, &dqueries, |at| {
                weigh(plain(kind, &wide_supports, &labels, at, sizes))
            });
        }
    }

    #[test]
    fn equal_supports_measure_plain_distances_and_have_finite_gradients() {
        let supports = [1.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0];
        let queries = [1.0, 1.0, 0.0, 0.0];
        let mut scores = [f32::NAN; 4];
        let mut scorer = LdaScores::new(1.0, false);
        scorer
            .forward(&supports, &[0, 0, 1, 1], &queries, [2, 2], &mut scores)
            .unwrap();
        assert_eq!(scores, [-0.5, -1.0, -2.5, 0.0]);
        let (mut dsupports, mut dqueries) = ([f32::NAN; 8], [f32::NAN; 4]);
        scorer
            .backward(&[1.0; 4], &mut dsupports, &mut dqueries)
            .unwrap();
        assert!(dsupports.iter().chain(&dqueries).all(|own| own.is_finite()));
    }

    #[test]
    fn one_support_of_each_class_an_empty_class_and_a_backward_without_forward_are_refused() {
        let refused = |labels: &[usize]| {
            let supports = vec![1.0; labels.len() * 2];
            let mut scorer = LdaScores::new(1.0, true);
            let scored = scorer.forward(&supports, labels, &[1.0, 2.0], [2, 2], &mut [0.0; 2]);
            scored.unwrap_err().to_string()
        };
        assert_eq!(
            refused(&[0, 1]),
            "lda scores: class 0 has 1 rows, at least 2 are needed"
        );
        assert_eq!(
            refused(&[0, 0]),
            "lda scores: class 1 has 0 rows, at least 1 are needed"
        );
        let backward = LdaScores::new(1.0, true).backward(&[], &mut [], &mut []);
        assert_eq!(backward, Err(OperationError::NoForward));
    }
}
