//! How far the mean and variance of a batch are from stored ones, and the slope of that distance at each value.
//!
//! The statistics couple all images of a batch. A batch that is computed in parts joins here: each part gives its
//! [`Moments`], they are merged in a fixed order, [`StatisticsTerm`] turns the whole into a loss, and each part adds its own
//! gradient from it. The split changes nothing but the last bits.

use crate::operation::{Checks, OperationError};

/// Count, mean and sum of squared differences from the mean, for each channel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Values seen of each channel.
    pub count: u64,
    /// `[channels]`
    pub mean: Vec<f64>,
    /// Sum of squared differences from the mean.
    pub spread: Vec<f64>,
}

impl Moments {
    /// Of no values at all.
    pub fn empty(channels: usize) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; channels],
            spread: vec![0.0; channels],
        }
    }

    /// Forgets all values.
    pub fn clear(&mut self) {
        self.count = 0;
        self.mean.fill(0.0);
        self.spread.fill(0.0);
    }

    /// Overwrites with the moments of `values` `[rows, channels]` (tokens), or empties where there are no rows.
    ///
    /// # Errors
    /// A length that is not a multiple of the channels, values that are not finite.
    pub fn of_rows(&mut self, values: &[f32]) -> Result<(), OperationError> {
        let channels = self.mean.len();
        let rows = values.len().checked_div(channels).unwrap_or(0);
        self.clear();
        if rows == 0 && values.is_empty() {
            return Ok(());
        }
        Checks("batch statistics").finite("activations", values, &[rows, channels])?;
        self.count = rows as u64;
        for row in values.chunks_exact(channels) {
            for (mean, &value) in self.mean.iter_mut().zip(row) {
                *mean += f64::from(value);
            }
        }
        self.mean.iter_mut().for_each(|mean| *mean /= rows as f64);
        for row in values.chunks_exact(channels) {
            for ((spread, mean), &value) in self.spread.iter_mut().zip(&self.mean).zip(row) {
                let difference = f64::from(value) - mean;
                *spread += difference * difference;
            }
        }
        Ok(())
    }

    /// Overwrites with the moments of `values` `[channels, positions]` (feature maps).
    ///
    /// # Panics
    /// When the length is not a multiple of the channels.
    pub(crate) fn of_planes(&mut self, values: &[f32]) {
        let channels = self.mean.len();
        assert!(channels > 0 && values.len().is_multiple_of(channels));
        let positions = values.len() / channels;
        self.clear();
        if positions == 0 {
            return;
        }
        self.count = positions as u64;
        for (channel, plane) in values.chunks_exact(positions).enumerate() {
            let sum: f64 = plane.iter().map(|&value| f64::from(value)).sum();
            let mean = sum / positions as f64;
            let squares = plane.iter().map(|&value| (f64::from(value) - mean).powi(2));
            self.mean[channel] = mean;
            self.spread[channel] = squares.sum();
        }
    }

    /// Adds the values that `other` summarises (Chan, Golub and LeVeque's pairwise update).
    ///
    /// # Panics
    /// When the two have different numbers of channels.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.mean.len(), other.mean.len());
        if other.count == 0 {
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let total = ours + theirs;
        let others = other.mean.iter().zip(&other.spread);
        let own = self.mean.iter_mut().zip(&mut self.spread);
        for ((mean, spread), (other_mean, other_spread)) in own.zip(others) {
            let difference = other_mean - *mean;
            *mean += difference * theirs / total;
            *spread += other_spread + difference * difference * ours * theirs / total;
        }
        self.count += other.count;
    }

    /// Biased variance of channel `channel`; zero where nothing was seen.
    pub fn variance(&self, channel: usize) -> f64 {
        self.spread[channel] / (self.count as f64).max(1.0)
    }
}

/// ‖mean − stored mean‖₂ + ‖variance − stored variance‖₂ over channels, with biased variance.
/// Its gradient at a value `v` of channel `c` is `constant[c] + slope[c]·v`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StatisticsTerm {
    /// The sum of both norms, unweighted.
    pub loss: f64,
    /// `[channels]`: the part of the gradient that is the same for all values of a channel.
    pub constant: Vec<f32>,
    /// `[channels]`: the part of the gradient that grows with the value.
    pub slope: Vec<f32>,
}

impl StatisticsTerm {
    /// Overwrites the term for `moments` of the whole batch; the gradient is multiplied by `weight`.
    /// A norm of zero has gradient zero.
    ///
    /// # Panics
    /// When the three have different numbers of channels.
    pub fn set(&mut self, moments: &Moments, mean: &[f32], variance: &[f32], weight: f32) {
        let channels = moments.mean.len();
        assert!(mean.len() == channels && variance.len() == channels);
        let norm = |difference: &dyn Fn(usize) -> f64| {
            (0..channels)
                .map(|c| difference(c).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let mean_difference = |c: usize| moments.mean[c] - f64::from(mean[c]);
        let variance_difference = |c: usize| moments.variance(c) - f64::from(variance[c]);
        let (mean_norm, variance_norm) = (norm(&mean_difference), norm(&variance_difference));
        self.loss = mean_norm + variance_norm;
        let share = |norm: f64| {
            if norm > 0.0 && moments.count > 0 {
                f64::from(weight) / (norm * moments.count as f64)
            } else {
                0.0
            }
        };
        let (mean_share, variance_share) = (share(mean_norm), share(variance_norm));
        self.constant.clear();
        self.slope.clear();
        for c in 0..channels {
            let slope = 2.0 * variance_share * variance_difference(c);
            let constant = mean_share * mean_difference(c) - slope * moments.mean[c];
            self.slope.push(slope as f32);
            self.constant.push(constant as f32);
        }
    }

    /// Adds the gradient at `values` `[rows, channels]` (all or a part of the batch) to `dvalues`.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn add_gradient_to_rows(
        &self,
        values: &[f32],
        dvalues: &mut [f32],
    ) -> Result<(), OperationError> {
        let channels = self.constant.len();
        let rows = values.len().checked_div(channels).unwrap_or(0);
        let checks = Checks("batch statistics backward");
        checks.length("activations", values, &[rows, channels])?;
        checks.length("dactivations", dvalues, &[rows, channels])?;
        if rows == 0 {
            return Ok(());
        }
        let rows = values.chunks_exact(channels);
        for (row, drow) in rows.zip(dvalues.chunks_exact_mut(channels)) {
            let lines = self.constant.iter().zip(&self.slope);
            for ((dvalue, value), (constant, slope)) in drow.iter_mut().zip(row).zip(lines) {
                *dvalue += constant + slope * value;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    fn plain(values: &[f64], stored_mean: &[f64], stored_variance: &[f64]) -> f64 {
        let channels = stored_mean.len();
        let rows = (values.len() / channels) as f64;
        let (mut means, mut variances) = (0.0, 0.0);
        for c in 0..channels {
            let column = || values.iter().skip(c).step_by(channels);
            let mean = column().sum::<f64>() / rows;
            let variance = column().map(|v| (v - mean).powi(2)).sum::<f64>() / rows;
            means += (mean - stored_mean[c]).powi(2);
            variances += (variance - stored_variance[c]).powi(2);
        }
        means.sqrt() + variances.sqrt()
    }

    proptest! {
        #[test]
        fn a_batch_in_any_two_parts_gives_the_plain_loss_and_gradient(
            rows in 1usize..12, channels in 1usize..6, cut in 0usize..12, seed in 0u64..1000,
        ) {
            // Far from zero, where sums of squares would cancel.
            let values: Vec<f32> = noise(seed, rows * channels).iter().map(|v| v + 30.0).collect();
            let mean: Vec<f32> = noise(seed + 1, channels).iter().map(|v| v + 29.0).collect();
            let variance: Vec<f32> = noise(seed + 2, channels).iter().map(|v| v.abs() + 0.5).collect();
            let (first, second) = values.split_at(cut.min(rows) * channels);
            let mut whole = Moments::empty(channels);
            for part in [first, second] {
                let mut moments = Moments::empty(channels);
                moments.of_rows(part).unwrap();
                whole.merge(&moments);
            }
            let mut term = StatisticsTerm::default();
            term.set(&whole, &mean, &variance, 1.0);
            let forward = |at: &[f64]| plain(at, &widen(&mean), &widen(&variance));
            assert_near("loss", term.loss as f32, forward(&widen(&values)), 1e-6);
            let mut dvalues = vec![0.0; values.len()];
            let (dfirst, dsecond) = dvalues.split_at_mut(first.len());
            term.add_gradient_to_rows(first, dfirst).unwrap();
            term.add_gradient_to_rows(second, dsecond).unwrap();
            assert_gradient("dvalues", &values, &dvalues, forward);
        }
    }

    #[test]
    fn statistics_that_are_met_have_loss_and_gradient_zero() {
        let mut moments = Moments::empty(1);
        moments.of_rows(&[1.0, 3.0]).unwrap();
        let mut term = StatisticsTerm::default();
        term.set(&moments, &[2.0], &[1.0], 1.0);
        assert_eq!(term.loss, 0.0);
        assert_eq!((term.constant[0], term.slope[0]), (0.0, 0.0));
    }
}
