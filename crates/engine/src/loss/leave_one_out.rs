//! How well a batch's classes separate: each feature is scored against the class means without itself.
//! Inversion with this loss taken negative makes images that the bare backbone cannot tell apart.

use super::classification::cross_entropy;
use super::prototype::{Rows, Scoring, add_scaled, count_classes};
use crate::operation::{Checks, OperationError};

/// Leave-one-out nearest-prototype cross-entropy. Keeps its buffers: no allocation once it has seen the largest sizes.
#[derive(Debug)]
pub struct LeaveOneOut {
    scoring: Scoring,
    rows: Rows,
    counts: Vec<usize>,
    /// `[classes, width]`
    sums: Vec<f64>,
    dsums: Vec<f64>,
    /// One class mean without the row at hand, `[width]`.
    mean: Vec<f64>,
    dmean: Vec<f64>,
    /// `[rows, classes]`
    scores: Vec<f32>,
    dscores: Vec<f32>,
}

impl LeaveOneOut {
    /// The loss for features that are scored by `scoring`; its buffers grow with use.
    pub fn new(scoring: Scoring) -> Self {
        Self {
            scoring,
            rows: Rows::default(),
            counts: Vec::new(),
            sums: Vec::new(),
            dsums: Vec::new(),
            mean: Vec::new(),
            dmean: Vec::new(),
            scores: Vec::new(),
            dscores: Vec::new(),
        }
    }

    /// min(cross-entropy, `cap`) of `features` `[rows, width]`, mean over rows, where a row's own class mean leaves the row
    /// out; without a cap the cross-entropy itself. Overwrites `dfeatures` `[rows, width]`: zeros above the cap.
    ///
    /// # Errors
    /// Fewer than two rows in a class, zero width or classes, lengths that do not fit, values that are not finite, a cap
    /// that is not above zero.
    pub fn loss(
        &mut self,
        features: &[f32],
        labels: &[usize],
        [classes, width]: [usize; 2],
        cap: Option<f32>,
        dfeatures: Option<&mut [f32]>,
    ) -> Result<f32, OperationError> {
        let checks = Checks("leave-one-out cross-entropy");
        let shape = [labels.len(), width];
        checks.positive("the temperature", self.scoring.temperature)?;
        if let Some(cap) = cap {
            checks.positive("the cap", cap)?;
        }
        checks.finite("features", features, &shape)?;
        checks.labels(labels, labels.len(), classes)?;
        count_classes(checks, labels, classes, 2, &mut self.counts)?;
        if let Some(dfeatures) = &dfeatures {
            checks.length("dfeatures", dfeatures, &shape)?;
        }

        self.score(features, labels, [classes, width]);
        self.dscores.resize(self.scores.len(), 0.0);
        let dscores = dfeatures.is_some().then_some(self.dscores.as_mut_slice());
        let loss = cross_entropy(&self.scores, labels, classes, dscores)?;
        let capped = cap.filter(|&cap| loss > cap);
        match (dfeatures, capped) {
            (Some(dfeatures), Some(_)) => dfeatures.fill(0.0),
            (Some(dfeatures), None) => self.backward(labels, [classes, width], dfeatures),
            (None, _) => {}
        }
        Ok(capped.unwrap_or(loss))
    }

    fn score(&mut self, features: &[f32], labels: &[usize], [classes, width]: [usize; 2]) {
        self.rows.load(features, width, self.scoring.unit_features);
        self.sums.clear();
        self.sums.resize(classes * width, 0.0);
        for (row, &label) in self.rows.values.chunks_exact(width).zip(labels) {
            add_scaled(&mut self.sums[label * width..][..width], 1.0, row);
        }
        self.scores.clear();
        self.mean.resize(width, 0.0);
        for (row, &label) in self.rows.values.chunks_exact(width).zip(labels) {
            for class in 0..classes {
                let sum = &self.sums[class * width..][..width];
                let own = class == label;
                mean_without(&mut self.mean, sum, self.counts[class], own.then_some(row));
                self.scores.push(self.scoring.score(row, &self.mean) as f32);
            }
        }
    }

    fn backward(&mut self, labels: &[usize], [classes, width]: [usize; 2], dfeatures: &mut [f32]) {
        self.dsums.clear();
        self.dsums.resize(classes * width, 0.0);
        self.dmean.resize(width, 0.0);
        self.rows.clear_gradients();
        for (index, &label) in labels.iter().enumerate() {
            let (row, drow) = self.rows.row(index);
            for class in 0..classes {
                let sum = &self.sums[class * width..][..width];
                let own = class == label;
                mean_without(&mut self.mean, sum, self.counts[class], own.then_some(row));
                self.dmean.fill(0.0);
                let dscore = f64::from(self.dscores[index * classes + class]);
                self.scoring
                    .score_backward(row, &self.mean, dscore, drow, &mut self.dmean);
                let share = 1.0 / (self.counts[class] - usize::from(own)) as f64;
                let dsum = &mut self.dsums[class * width..][..width];
                add_scaled(dsum, share, &self.dmean);
                if own {
                    add_scaled(drow, -share, &self.dmean);
                }
            }
        }
        for (index, &label) in labels.iter().enumerate() {
            add_scaled(
                self.rows.row(index).1,
                1.0,
                &self.dsums[label * width..][..width],
            );
        }
        self.rows.store_gradients(dfeatures);
    }
}

/// Overwrites `mean` with the mean of a class of `count` rows, `left_out` not among them.
fn mean_without(mean: &mut [f64], sum: &[f64], count: usize, left_out: Option<&[f64]>) {
    match left_out {
        Some(row) => {
            let share = 1.0 / (count - 1) as f64;
            for ((slot, total), own) in mean.iter_mut().zip(sum).zip(row) {
                *slot = (total - own) * share;
            }
        }
        None => {
            let share = 1.0 / count as f64;
            for (slot, total) in mean.iter_mut().zip(sum) {
                *slot = total * share;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::prototype::tests::{any_scoring, plain_rows, plain_score};
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    fn plain(
        scoring: Scoring,
        features: &[f64],
        labels: &[usize],
        [classes, width]: [usize; 2],
    ) -> f64 {
        let rows = plain_rows(features, width, scoring.unit_features);
        let losses = rows.iter().enumerate().map(|(own, row)| {
            let scores: Vec<f64> = (0..classes)
                .map(|class| {
                    let members: Vec<&Vec<f64>> = (0..rows.len())
                        .filter(|&i| i != own && labels[i] == class)
                        .map(|i| &rows[i])
                        .collect();
                    let mean: Vec<f64> = (0..width)
                        .map(|i| members.iter().map(|m| m[i]).sum::<f64>() / members.len() as f64)
                        .collect();
                    plain_score(scoring, row, &mean)
                })
                .collect();
            scores.iter().map(|s| s.exp()).sum::<f64>().ln() - scores[labels[own]]
        });
        losses.sum::<f64>() / labels.len() as f64
    }

    proptest! {
        #[test]
        fn leave_one_out_and_its_gradient_equal_the_plain_formula(
            scoring in any_scoring(), classes in 2usize..4, extra in 0usize..4, width in 2usize..7, seed in 0u64..1000,
        ) {
            let labels: Vec<usize> = (0..2 * classes + extra).map(|i| i % classes).collect();
            let features = noise(seed, labels.len() * width);
            let sizes = [classes, width];
            let mut dfeatures = vec![f32::NAN; features.len()];
            let mut loss = LeaveOneOut::new(scoring);
            let value = loss.loss(&features, &labels, sizes, None, Some(&mut dfeatures)).unwrap();
            let forward = |at: &[f64]| plain(scoring, at, &labels, sizes);
            assert_near("loss", value, forward(&widen(&features)), 1e-5);
            assert_gradient("dfeatures", &features, &dfeatures, forward);
        }
    }

    #[test]
    fn above_the_cap_the_loss_is_the_cap_and_the_gradient_zero() {
        let features = noise(3, 6 * 4);
        let labels = [0, 1, 0, 1, 0, 1];
        let mut loss = LeaveOneOut::new(Scoring::default());
        let mut dfeatures = vec![f32::NAN; features.len()];
        let free = loss
            .loss(&features, &labels, [2, 4], None, Some(&mut dfeatures))
            .unwrap();
        let uncapped = dfeatures.clone();
        let below = loss
            .loss(
                &features,
                &labels,
                [2, 4],
                Some(free * 1.01),
                Some(&mut dfeatures),
            )
            .unwrap();
        assert_eq!((below, &dfeatures), (free, &uncapped));
        let above = loss
            .loss(
                &features,
                &labels,
                [2, 4],
                Some(free * 0.99),
                Some(&mut dfeatures),
            )
            .unwrap();
        assert_eq!((above, dfeatures), (free * 0.99, vec![0.0; features.len()]));
    }

    #[test]
    fn a_class_of_one_row_is_refused() {
        let mut loss = LeaveOneOut::new(Scoring::default());
        let error = loss
            .loss(&[0.0; 6], &[0, 0, 1], [2, 2], None, None)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "leave-one-out cross-entropy: class 1 has 1 rows, at least 2 are needed"
        );
    }
}
