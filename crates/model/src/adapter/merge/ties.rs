//! TIES (arXiv 2306.01708) on lists of values: trim each to its largest, elect a sign a value, average what has that sign.

use super::MajoritySign;

/// What trimming and election need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ties<'a> {
    /// Share of each list's values that is kept, above 0 and at most 1.
    pub density: f64,
    pub majority_sign: MajoritySign,
    /// What each list's values are multiplied with after the election, which is without weights.
    pub weights: &'a [f32],
}

impl Ties<'_> {
    /// Merges the lists that `list(0)`, `list(1)`, … give, one for each weight, all of one length. Each is made twice, so that no
    /// more than one is in memory.
    pub fn merge(&self, list: impl Fn(usize) -> Vec<f32>) -> Vec<f32> {
        let trimmed = |index: usize| largest(list(index), self.density);
        let mut totals: Vec<f32> = Vec::new();
        for index in 0..self.weights.len() {
            let values = trimmed(index);
            totals.resize(values.len(), 0.0);
            for (total, value) in totals.iter_mut().zip(values) {
                *total += match self.majority_sign {
                    MajoritySign::Total => value,
                    MajoritySign::Frequency => sign(value),
                };
            }
        }
        let mut sums = vec![0f32; totals.len()];
        let mut counts = vec![0f32; totals.len()];
        for (index, weight) in self.weights.iter().enumerate() {
            for (place, value) in trimmed(index).into_iter().enumerate() {
                let elected = if totals[place] >= 0.0 { 1.0 } else { -1.0 };
                if sign(value) == elected {
                    sums[place] += value * weight;
                    counts[place] += 1.0;
                }
            }
        }
        let means = sums.iter().zip(&counts);
        means.map(|(sum, count)| sum / count.max(1.0)).collect()
    }
}

fn sign(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

/// The int(density·n) values of largest magnitude, one at least; all others zero.
fn largest(values: Vec<f32>, density: f64) -> Vec<f32> {
    if density >= 1.0 {
        return values;
    }
    let kept = ((density * values.len() as f64) as usize).max(1);
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Of equals the first is kept.
    let larger = |&i: &usize, &j: &usize| {
        let magnitudes = values[j].abs().total_cmp(&values[i].abs());
        magnitudes.then(i.cmp(&j))
    };
    if kept < order.len() {
        order.select_nth_unstable_by(kept, larger);
    }
    let mut trimmed = vec![0.0; values.len()];
    for &index in &order[..kept] {
        trimmed[index] = values[index];
    }
    trimmed
}
