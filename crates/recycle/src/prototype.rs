//! From distances to probabilities, and to the nearest.

/// `softmax(−distance / temperature)`.
pub fn probabilities(distances: &[f32], temperature: f32) -> Vec<f32> {
    let nearest = distances.iter().copied().fold(f32::INFINITY, f32::min);
    let weights: Vec<f32> = distances
        .iter()
        .map(|distance| (-(distance - nearest) / temperature).exp())
        .collect();
    let total: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// `softmax(logits)`.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights = logits.iter().map(|logit| f64::from(logit - largest).exp());
    let weights: Vec<f64> = weights.collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// Index of the smallest distance, the first of equals.
pub fn nearest(distances: &[f32]) -> Option<usize> {
    (0..distances.len()).min_by(|&a, &b| distances[a].total_cmp(&distances[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_survive_huge_distances() {
        let values = probabilities(&[1e30, 2e30, 1e30], 1e-3);
        assert_eq!(values, [0.5, 0.0, 0.5]);
        let values = probabilities(&[0.1, 0.2, 0.4], 0.1);
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(values[0] > values[1] && values[1] > values[2]);
    }
}
