//! Scores of queries in the metric of the covariance within classes, as the head `lda` measures, with gradients through supports and
//! queries, the metric included.

use super::prototype::{Rows, count_classes};
use crate::operation::{Checks, OperationError};
use matrix::{Mat, MatRef};

/// How features become scores in the metric of `Σ = (1−a)·S + a·tr(S)/D·I`, with `S` the covariance of the supports' deviations from
/// their class means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LdaScoring {
    /// `a`, above 0 and at most 1.
    pub shrinkage: f64,
    /// Scores are divided by it.
    pub temperature: f64,
    /// Scales every feature to length one first; a zero vector stays as it is.
    pub unit_features: bool,
}

/// Scores `−(u − m_c)ᵀ Σ⁻¹ (u − m_c) / (D·T)` of queries `u` at the class means `m_c` of the supports. Distances are of order `D`, the
/// width; divided by it they are of order one.
#[derive(Debug)]
pub struct LdaScores {
    scoring: LdaScoring,
    supports: Rows,
    queries: Rows,
    pass: Option<Pass>,
}

/// What a forward pass leaves for the backward pass.
#[derive(Debug)]
struct Pass {
    labels: Vec<usize>,
    counts: Vec<usize>,
    metric: SupportMetric,
    /// `Σ⁻¹u` of the queries, `[queries, width]`
    mapped_queries: Mat<f64>,
    /// `Σ⁻¹m_c`, `[classes, width]`
    mapped_means: Mat<f64>,
}

impl LdaScores {
    /// Scores by `scoring`.
    pub fn new(scoring: LdaScoring) -> Self {
        Self {
            scoring,
            supports: Rows::default(),
            queries: Rows::default(),
            pass: None,
        }
    }

    /// Overwrites `scores` `[queries, classes]` from `supports` `[supports, width]` with one label each and `queries` `[queries, width]`.
    ///
    /// # Errors
    /// Zero queries, width or classes, a class without supports, no class with two, lengths that do not fit, values that are not finite.
    pub fn forward(
        &mut self,
        supports: &[f32],
        labels: &[usize],
        queries: &[f32],
        [classes, width]: [usize; 2],
        scores: &mut [f32],
    ) -> Result<(), OperationError> {
        self.pass = None;
        let checks = Checks("lda scores");
        let query_count = queries.len().checked_div(width).unwrap_or(0);
        checks.finite("supports", supports, &[labels.len(), width])?;
        checks.finite("queries", queries, &[query_count, width])?;
        checks.filled("scores", scores, &[query_count, classes])?;
        checks.labels(labels, labels.len(), classes)?;
        let mut counts = Vec::new();
        count_classes(checks, labels, classes, 1, &mut counts)?;
        if labels.len() == classes {
            // None has a deviation.
            count_classes(checks, labels, classes, 2, &mut counts)?;
        }
        self.supports
            .load(supports, width, self.scoring.unit_features);
        self.queries
            .load(queries, width, self.scoring.unit_features);
        let (supports, queries) = (self.supports.matrix(), self.queries.matrix());
        let mut means = Mat::<f64>::zeros(classes, width);
        for (i, &label) in labels.iter().enumerate() {
            for j in 0..width {
                means[(label, j)] += supports[(i, j)] / counts[label] as f64;
            }
        }
        let deviations = Mat::from_fn(labels.len(), width, |i, j| {
            supports[(i, j)] - means[(labels[i], j)]
        });
        let degrees = (labels.len() - classes) as f64;
        let metric = SupportMetric::of(deviations, degrees, self.scoring.shrinkage);
        let metric = metric.ok_or(OperationError::Setting {
            operation: checks.0,
            name: "a deviation from a class mean",
            value: f64::INFINITY,
            requirement: "the covariance of the supports must be finite",
        })?;
        let mapped_queries = metric.map(queries);
        let mapped_means = metric.map(means.as_ref());
        let divisor = width as f64 * self.scoring.temperature;
        for (query, row) in scores.chunks_exact_mut(classes).enumerate() {
            for (class, score) in row.iter_mut().enumerate() {
                let square: f64 = (0..width)
                    .map(|j| {
                        (queries[(query, j)] - means[(class, j)])
                            * (mapped_queries[(query, j)] - mapped_means[(class, j)])
                    })
                    .sum();
                *score = (-square / divisor) as f32;
            }
        }
        self.pass = Some(Pass {
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
    /// No forward pass waits, lengths that do not fit it, values that are not finite.
    pub fn backward(
        &mut self,
        dscores: &[f32],
        dsupports: &mut [f32],
        dqueries: &mut [f32],
    ) -> Result<(), OperationError> {
        let checks = Checks("lda scores backward");
        let pass = self.pass.as_ref().ok_or(OperationError::NoForward)?;
        let (classes, width) = (pass.counts.len(), self.queries.width);
        checks.finite("dscores", dscores, &[self.queries.count(), classes])?;
        checks.length("dsupports", dsupports, &[self.supports.count(), width])?;
        checks.length("dqueries", dqueries, &[self.queries.count(), width])?;
        let divisor = width as f64 * self.scoring.temperature;
        self.queries.clear_gradients();
        self.supports.clear_gradients();
        let mut dmeans = Mat::<f64>::zeros(classes, width);
        // One row y for each query and class, and the gradient at its distance.
        let mut mapped = Mat::<f64>::zeros(dscores.len(), width);
        let mut ddistances = Vec::with_capacity(dscores.len());
        for (index, &dscore) in dscores.iter().enumerate() {
            let (query, class) = (index / classes, index % classes);
            let ddistance = -f64::from(dscore) / divisor;
            ddistances.push(ddistance);
            let dquery = self.queries.row(query).1;
            for (j, dvalue) in dquery.iter_mut().enumerate() {
                let y = pass.mapped_queries[(query, j)] - pass.mapped_means[(class, j)];
                mapped[(index, j)] = y;
                *dvalue += 2.0 * ddistance * y;
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
        for (i, &label) in pass.labels.iter().enumerate() {
            let dsupport = self.supports.row(i).1;
            for (j, dvalue) in dsupport.iter_mut().enumerate() {
                *dvalue = ddeviations[(i, j)] + dmeans[(label, j)] / pass.counts[label] as f64;
            }
        }
        self.supports.store_gradients(dsupports);
        self.queries.store_gradients(dqueries);
        Ok(())
    }
}

/// `Σ = c·ZᵀZ + f·I` of deviations `Z`, with `c = (1−a)/degrees` and `f = a·‖Z‖²/(degrees·D)`; the identity where `Z` is zero.
#[derive(Debug)]
struct SupportMetric {
    /// `Z`, `[supports, width]`
    deviations: Mat<f64>,
    degrees: f64,
    /// `a`
    shrinkage: f64,
    /// `c`
    coefficient: f64,
    /// `f`
    floor: f64,
    /// `(f·I + c·ZZᵀ)⁻¹`, `[supports, supports]`
    inner: Mat<f64>,
}

impl SupportMetric {
    /// `None` where the decomposition does not converge.
    fn of(deviations: Mat<f64>, degrees: f64, shrinkage: f64) -> Option<Self> {
        let (rows, width) = (deviations.nrows(), deviations.ncols());
        let squares = matrix::squared_norm(deviations.as_ref());
        if squares == 0.0 {
            return Some(Self {
                deviations,
                degrees,
                shrinkage,
                coefficient: 0.0,
                floor: 1.0,
                inner: Mat::zeros(rows, rows),
            });
        }
        let coefficient = (1.0 - shrinkage) / degrees;
        let floor = shrinkage * squares / (degrees * width as f64);
        let gram = matrix::product(deviations.as_ref(), deviations.transpose());
        let eigen = matrix::symmetric_eigen(gram.as_ref())?;
        let scaled = Mat::from_fn(rows, rows, |i, j| {
            eigen.vectors[(i, j)]
                / (floor + coefficient * eigen.values[j].clamp(0.0, f64::INFINITY))
        });
        Some(Self {
            inner: matrix::product(scaled.as_ref(), eigen.vectors.transpose()),
            deviations,
            degrees,
            shrinkage,
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
        let of_floor = 2.0 * self.shrinkage * trace / (self.degrees * width as f64);
        let mut ddeviations = matrix::scaled(-2.0 * self.coefficient, product.as_ref());
        matrix::add_scaled(&mut ddeviations, of_floor, self.deviations.as_ref());
        ddeviations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::prototype::tests::{check_scores, plain_rows, unequal_labels};
    use proptest::prelude::*;

    const SHRINKAGE: f64 = 0.3;

    /// The scores by a plain inverse of `Σ`.
    fn plain(
        scoring: LdaScoring,
        supports: &[f64],
        labels: &[usize],
        queries: &[f64],
        [classes, width]: [usize; 2],
    ) -> Vec<f64> {
        let rows = |values| plain_rows(values, width, scoring.unit_features);
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
                scores.push(-square / (width as f64 * scoring.temperature));
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
            temperature in 0.2f64..3.0, unit_features in any::<bool>(), classes in 1usize..4, extra in 2usize..6, query_count in 1usize..4,
            width in 2usize..9, seed in 0u64..1000,
        ) {
            let scoring = LdaScoring { shrinkage: SHRINKAGE, temperature, unit_features };
            let labels = unequal_labels(classes, extra, seed);
            let mut scorer = LdaScores::new(scoring);
            let sizes = [classes, width];
            check_scores(
                &labels,
                (query_count, sizes, seed),
                1e-5,
                |supports, queries, scores| scorer.forward(supports, &labels, queries, sizes, scores).map(|()| scorer),
                LdaScores::backward,
                |supports, queries| plain(scoring, supports, &labels, queries, sizes),
            );
        }
    }

    fn scorer(unit_features: bool) -> LdaScores {
        LdaScores::new(LdaScoring {
            shrinkage: SHRINKAGE,
            temperature: 1.0,
            unit_features,
        })
    }

    #[test]
    fn equal_supports_measure_plain_distances_and_have_finite_gradients() {
        let supports = [1.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0];
        let queries = [1.0, 1.0, 0.0, 0.0];
        let mut scores = [f32::NAN; 4];
        let mut scorer = scorer(false);
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
            let mut scorer = scorer(true);
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
        let backward = scorer(true).backward(&[], &mut [], &mut []);
        assert_eq!(backward, Err(OperationError::NoForward));
    }
}
