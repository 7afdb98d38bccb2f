//! Scores of queries against class prototypes, the means of labelled support features.

use crate::distance::Distance;
use crate::operation::{Checks, OperationError};
use matrix::MatRef;
use serde::{Deserialize, Serialize};

/// How features become scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// A score is minus the distance; for [`Distance::Cosine`] it is the cosine of the angle, zero where either is the zero vector.
    pub distance: Distance,
    /// Scores are divided by it.
    pub temperature: f32,
    /// Scales every feature to length one before the means are taken; a zero vector stays as it is.
    pub unit_features: bool,
}

impl Default for Scoring {
    fn default() -> Self {
        Self {
            distance: Distance::SquaredEuclidean,
            temperature: 1.0,
            unit_features: false,
        }
    }
}

/// Prototype scores with gradients through supports and queries. Keeps its buffers: no allocation once it has seen the
/// largest sizes.
#[derive(Debug)]
pub struct PrototypeScores {
    scoring: Scoring,
    supports: Rows,
    queries: Rows,
    /// `[classes, width]`
    prototypes: Vec<f64>,
    dprototypes: Vec<f64>,
    /// Supports of each class.
    counts: Vec<usize>,
    labels: Vec<usize>,
}

impl PrototypeScores {
    /// Scores by `scoring`; the buffers grow with use.
    pub fn new(scoring: Scoring) -> Self {
        Self {
            scoring,
            supports: Rows::default(),
            queries: Rows::default(),
            prototypes: Vec::new(),
            dprototypes: Vec::new(),
            counts: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Overwrites `scores` `[queries, classes]` from `supports` `[supports, width]` with one label each (classes may have
    /// different numbers of supports, in any order) and `queries` `[queries, width]`.
    ///
    /// # Errors
    /// Zero queries, width or classes, a class without supports, lengths that do not fit, values that are not finite.
    pub fn forward(
        &mut self,
        supports: &[f32],
        labels: &[usize],
        queries: &[f32],
        [classes, width]: [usize; 2],
        scores: &mut [f32],
    ) -> Result<(), OperationError> {
        let checks = Checks("prototype scores");
        let query_count = queries.len().checked_div(width).unwrap_or(0);
        checks.positive("the temperature", self.scoring.temperature)?;
        checks.finite("supports", supports, &[labels.len(), width])?;
        checks.finite("queries", queries, &[query_count, width])?;
        checks.filled("scores", scores, &[query_count, classes])?;
        checks.labels(labels, labels.len(), classes)?;
        count_classes(checks, labels, classes, 1, &mut self.counts)?;

        self.labels.clear();
        self.labels.extend_from_slice(labels);
        self.supports
            .load(supports, width, self.scoring.unit_features);
        self.queries
            .load(queries, width, self.scoring.unit_features);
        self.prototypes.clear();
        self.prototypes.resize(classes * width, 0.0);
        for (row, &label) in self.supports.values.chunks_exact(width).zip(labels) {
            add_scaled(&mut self.prototypes[label * width..][..width], 1.0, row);
        }
        for (prototype, &count) in self.prototypes.chunks_exact_mut(width).zip(&self.counts) {
            prototype
                .iter_mut()
                .for_each(|value| *value /= count as f64);
        }
        let query_rows = self.queries.values.chunks_exact(width);
        for (query, score_row) in query_rows.zip(scores.chunks_exact_mut(classes)) {
            for (prototype, score) in self.prototypes.chunks_exact(width).zip(score_row) {
                *score = self.scoring.score(query, prototype) as f32;
            }
        }
        Ok(())
    }

    /// Gradients of the last [`Self::forward`] from `dscores` `[queries, classes]`; overwrites `dsupports`
    /// `[supports, width]` and `dqueries` `[queries, width]`.
    ///
    /// # Errors
    /// Lengths that do not fit the last forward (or there was none), values that are not finite.
    pub fn backward(
        &mut self,
        dscores: &[f32],
        dsupports: &mut [f32],
        dqueries: &mut [f32],
    ) -> Result<(), OperationError> {
        let checks = Checks("prototype scores backward");
        let (classes, width) = (self.counts.len(), self.queries.width);
        checks.finite("dscores", dscores, &[self.queries.count(), classes])?;
        checks.length("dsupports", dsupports, &[self.supports.count(), width])?;
        checks.length("dqueries", dqueries, &[self.queries.count(), width])?;

        self.dprototypes.clear();
        self.dprototypes.resize(classes * width, 0.0);
        self.queries.clear_gradients();
        self.supports.clear_gradients();
        for (index, dscore_row) in dscores.chunks_exact(classes).enumerate() {
            let (query, dquery) = self.queries.row(index);
            for (class, &dscore) in dscore_row.iter().enumerate() {
                let prototype = &self.prototypes[class * width..][..width];
                let dprototype = &mut self.dprototypes[class * width..][..width];
                self.scoring.score_backward(
                    query,
                    prototype,
                    f64::from(dscore),
                    dquery,
                    dprototype,
                );
            }
        }
        for (index, &label) in self.labels.iter().enumerate() {
            let share = 1.0 / self.counts[label] as f64;
            let dprototype = &self.dprototypes[label * width..][..width];
            add_scaled(self.supports.row(index).1, share, dprototype);
        }
        self.supports.store_gradients(dsupports);
        self.queries.store_gradients(dqueries);
        Ok(())
    }
}

impl Scoring {
    /// The score of a query at a prototype, both `[width]`.
    pub(super) fn score(&self, query: &[f64], prototype: &[f64]) -> f64 {
        let score = match self.distance {
            Distance::SquaredEuclidean => -squared_distance(query, prototype),
            Distance::Euclidean => -squared_distance(query, prototype).sqrt(),
            Distance::Cosine => {
                let lengths = (dot(query, query) * dot(prototype, prototype)).sqrt();
                if lengths > 0.0 {
                    dot(query, prototype) / lengths
                } else {
                    0.0
                }
            }
        };
        score / f64::from(self.temperature)
    }

    /// Adds the gradients of [`Self::score`] × `dscore`; nothing where there is no slope (distance or length zero).
    pub(super) fn score_backward(
        &self,
        query: &[f64],
        prototype: &[f64],
        dscore: f64,
        dquery: &mut [f64],
        dprototype: &mut [f64],
    ) {
        let slope = dscore / f64::from(self.temperature);
        let pull = match self.distance {
            Distance::SquaredEuclidean => 2.0 * slope,
            Distance::Euclidean => {
                let distance = squared_distance(query, prototype).sqrt();
                if distance > 0.0 {
                    slope / distance
                } else {
                    0.0
                }
            }
            Distance::Cosine => {
                let query_square = dot(query, query);
                let prototype_square = dot(prototype, prototype);
                let lengths = (query_square * prototype_square).sqrt();
                if lengths > 0.0 {
                    let cosine = dot(query, prototype) / lengths;
                    add_scaled(dquery, slope / lengths, prototype);
                    add_scaled(dquery, -slope * cosine / query_square, query);
                    add_scaled(dprototype, slope / lengths, query);
                    add_scaled(dprototype, -slope * cosine / prototype_square, prototype);
                }
                return;
            }
        };
        let sides = query.iter().zip(prototype).zip(dquery).zip(dprototype);
        for (((q, p), dq), dp) in sides {
            *dq -= pull * (q - p);
            *dp += pull * (q - p);
        }
    }
}

/// Features widened to `f64`, scaled to length one where asked for, with their gradients.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub width: usize,
    /// `[rows, width]`
    pub values: Vec<f64>,
    gradients: Vec<f64>,
    /// Length of each row before scaling; empty where rows are taken as they are.
    lengths: Vec<f64>,
}

impl Rows {
    pub fn load(&mut self, values: &[f32], width: usize, unit: bool) {
        self.width = width;
        self.values.clear();
        self.values
            .extend(values.iter().map(|&value| f64::from(value)));
        self.lengths.clear();
        if unit {
            for row in self.values.chunks_exact_mut(width) {
                let length = dot(row, row).sqrt();
                self.lengths.push(length);
                if length > 0.0 {
                    row.iter_mut().for_each(|value| *value /= length);
                }
            }
        }
    }

    pub fn count(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// `[rows, width]`
    pub fn matrix(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.count(), self.width)
    }

    pub fn clear_gradients(&mut self) {
        self.gradients.clear();
        self.gradients.resize(self.values.len(), 0.0);
    }

    /// Row `index` and its gradient.
    pub fn row(&mut self, index: usize) -> (&[f64], &mut [f64]) {
        let range = index * self.width..(index + 1) * self.width;
        (&self.values[range.clone()], &mut self.gradients[range])
    }

    /// Overwrites `dvalues` with the gradients at the rows as they were loaded.
    pub fn store_gradients(&mut self, dvalues: &mut [f32]) {
        let rows = self.values.chunks_exact(self.width);
        let drows = self.gradients.chunks_exact_mut(self.width);
        for ((row, drow), &length) in rows.zip(drows).zip(&self.lengths) {
            if length > 0.0 {
                let along = dot(row, drow);
                for (dvalue, value) in drow.iter_mut().zip(row) {
                    *dvalue = (*dvalue - along * value) / length;
                }
            } else {
                drow.fill(0.0);
            }
        }
        for (dvalue, &gradient) in dvalues.iter_mut().zip(&self.gradients) {
            *dvalue = gradient as f32;
        }
    }
}

/// Overwrites `counts` with the number of rows of each class.
pub(super) fn count_classes(
    checks: Checks,
    labels: &[usize],
    classes: usize,
    needed: usize,
    counts: &mut Vec<usize>,
) -> Result<(), OperationError> {
    counts.clear();
    counts.resize(classes, 0);
    labels.iter().for_each(|&label| counts[label] += 1);
    match counts.iter().position(|&count| count < needed) {
        Some(class) => Err(OperationError::ClassSize {
            operation: checks.0,
            class,
            found: counts[class],
            needed,
        }),
        None => Ok(()),
    }
}

pub(super) fn add_scaled(out: &mut [f64], scale: f64, values: &[f64]) {
    for (slot, value) in out.iter_mut().zip(values) {
        *slot += scale * value;
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    pub fn any_scoring() -> impl Strategy<Value = Scoring> {
        let distance = prop_oneof![
            Just(Distance::SquaredEuclidean),
            Just(Distance::Euclidean),
            Just(Distance::Cosine)
        ];
        (distance, 0.2f32..3.0, any::<bool>()).prop_map(|(distance, temperature, unit_features)| {
            Scoring {
                distance,
                temperature,
                unit_features,
            }
        })
    }

    pub fn plain_rows(values: &[f64], width: usize, unit: bool) -> Vec<Vec<f64>> {
        let rows = values.chunks(width).map(|row| {
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            let divisor = if unit { length } else { 1.0 };
            row.iter().map(|v| v / divisor).collect()
        });
        rows.collect()
    }

    pub fn plain_score(scoring: Scoring, q: &[f64], p: &[f64]) -> f64 {
        let square = q.iter().zip(p).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let product = q.iter().zip(p).map(|(a, b)| a * b).sum::<f64>();
        let score = match scoring.distance {
            Distance::SquaredEuclidean => -square,
            Distance::Euclidean => -square.sqrt(),
            Distance::Cosine => product / (length(q) * length(p)),
        };
        score / f64::from(scoring.temperature)
    }

    /// At least one support of each class.
    pub fn unequal_labels(classes: usize, extra: usize, seed: u64) -> Vec<usize> {
        let label = |i: usize| match i < classes {
            true => classes - 1 - i,
            false => (i * i + seed as usize) % classes,
        };
        (0..classes + extra).map(label).collect()
    }

    /// Scores that `forward` writes from random supports with these labels and random queries, and the gradients that `backward` of its
    /// result writes, are those of `plain(supports, queries)`; scores within `tolerance`.
    pub fn check_scores<Scorer>(
        labels: &[usize],
        (query_count, [classes, width], seed): (usize, [usize; 2], u64),
        tolerance: f64,
        forward: impl FnOnce(&[f32], &[f32], &mut [f32]) -> Result<Scorer, OperationError>,
        backward: impl FnOnce(&mut Scorer, &[f32], &mut [f32], &mut [f32]) -> Result<(), OperationError>,
        plain: impl Fn(&[f64], &[f64]) -> Vec<f64>,
    ) {
        let supports = noise(seed, labels.len() * width);
        let queries = noise(seed + 1, query_count * width);
        let mut scores = vec![f32::NAN; query_count * classes];
        let mut scorer = forward(&supports, &queries, &mut scores).unwrap();
        let (wide_supports, wide_queries) = (widen(&supports), widen(&queries));
        let expected = plain(&wide_supports, &wide_queries);
        for (found, expected) in scores.iter().zip(expected) {
            assert_near("score", *found, expected, tolerance);
        }
        let dscores = noise(seed + 2, scores.len());
        let [mut dsupports, mut dqueries] = [
            vec![f32::NAN; supports.len()],
            vec![f32::NAN; queries.len()],
        ];
        backward(&mut scorer, &dscores, &mut dsupports, &mut dqueries).unwrap();
        let weigh = |scores: Vec<f64>| -> f64 {
            let pairs = scores.iter().zip(&dscores);
            pairs.map(|(a, &b)| a * f64::from(b)).sum()
        };
        assert_gradient("dsupports", &supports, &dsupports, |at| {
            weigh(plain(at, &wide_queries))
        });
        assert_gradient("dqueries", &queries, &dqueries, |at| {
            weigh(plain(&wide_supports, at))
        });
    }

    fn plain(
        scoring: Scoring,
        supports: &[f64],
        labels: &[usize],
        queries: &[f64],
        [classes, width]: [usize; 2],
    ) -> Vec<f64> {
        let supports = plain_rows(supports, width, scoring.unit_features);
        let mean = |class: usize| -> Vec<f64> {
            let members: Vec<_> = supports
                .iter()
                .zip(labels)
                .filter(|(_, l)| **l == class)
                .collect();
            let column = |i: usize| members.iter().map(|(row, _)| row[i]).sum::<f64>();
            (0..width)
                .map(|i| column(i) / members.len() as f64)
                .collect()
        };
        let prototypes: Vec<Vec<f64>> = (0..classes).map(mean).collect();
        let queries = plain_rows(queries, width, scoring.unit_features);
        let scores = queries
            .iter()
            .flat_map(|q| prototypes.iter().map(move |p| plain_score(scoring, q, p)));
        scores.collect()
    }

    proptest! {
        #[test]
        fn scores_and_their_gradients_equal_the_plain_formula_with_unequal_supports(
            scoring in any_scoring(), classes in 1usize..5, extra in 0usize..6, query_count in 1usize..5,
            width in 2usize..9, seed in 0u64..1000,
        ) {
            let labels = unequal_labels(classes, extra, seed);
            let mut scorer = PrototypeScores::new(scoring);
            let sizes = [classes, width];
            check_scores(
                &labels,
                (query_count, sizes, seed),
                1e-6,
                |supports, queries, scores| scorer.forward(supports, &labels, queries, sizes, scores).map(|()| scorer),
                PrototypeScores::backward,
                |supports, queries| plain(scoring, supports, &labels, queries, sizes),
            );
        }
    }

    #[test]
    fn a_query_on_its_prototype_and_a_zero_feature_have_finite_gradients() {
        for distance in [
            Distance::SquaredEuclidean,
            Distance::Euclidean,
            Distance::Cosine,
        ] {
            for unit_features in [false, true] {
                let mut scorer = PrototypeScores::new(Scoring {
                    distance,
                    temperature: 1.0,
                    unit_features,
                });
                let supports = [1.0, 2.0, 0.0, 0.0];
                let queries = [1.0, 2.0, 0.0, 0.0];
                let mut scores = [f32::NAN; 4];
                scorer
                    .forward(&supports, &[0, 1], &queries, [2, 2], &mut scores)
                    .unwrap();
                let (mut dsupports, mut dqueries) = ([f32::NAN; 4], [f32::NAN; 4]);
                scorer
                    .backward(&[1.0; 4], &mut dsupports, &mut dqueries)
                    .unwrap();
                let all = scores.iter().chain(&dsupports).chain(&dqueries);
                assert!(
                    all.into_iter().all(|value| value.is_finite()),
                    "{distance:?}"
                );
            }
        }
    }

    #[test]
    fn a_class_without_supports_and_a_backward_without_forward_are_refused() {
        let mut scorer = PrototypeScores::new(Scoring::default());
        let error = scorer
            .forward(&[0.0; 4], &[0, 0], &[0.0; 2], [2, 2], &mut [0.0; 2])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "prototype scores: class 1 has 0 rows, at least 1 are needed"
        );
        let mut scorer = PrototypeScores::new(Scoring::default());
        assert!(matches!(
            scorer.backward(&[], &mut [], &mut []),
            Err(OperationError::Empty { .. })
        ));
    }
}
