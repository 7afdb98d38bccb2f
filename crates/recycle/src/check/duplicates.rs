//! Examples that are nearly the same picture.

/// Examples further apart than this are not compared.
const FURTHEST: usize = 4096;
/// Pairs of more examples than this that are all alike are not told one by one.
const MOST_PAIRS: usize = 1 << 20;
/// Examples whose products are computed at a time; bounds the memory.
const BLOCK: usize = 512;

/// Pairs `(i, j)`, `i < j`, of features whose cosine is at least `least`, the most alike first. Features that are
/// 4,096 places apart are compared, those further apart need not be; at most 2²⁰ pairs are found.
pub fn similar_pairs(features: &[&[f32]], least: f64) -> Vec<(usize, usize)> {
    let width = features.first().map_or(0, |feature| feature.len());
    let lengths: Vec<f64> = features
        .iter()
        .map(|feature| {
            feature
                .iter()
                .map(|value| f64::from(*value).powi(2))
                .sum::<f64>()
                .sqrt()
        })
        .collect();
    let unit = |index: usize, row: usize| {
        let length = lengths[index];
        if length > 0.0 && features[index].len() == width {
            f64::from(features[index][row]) / length
        } else {
            0.0
        }
    };
    let block = |from: usize, to: usize| {
        matrix::Mat::<f64>::from_fn(width, to - from, |row, column| unit(from + column, row))
    };
    let mut found: Vec<(f64, usize, usize)> = Vec::new();
    for left in (0..features.len()).step_by(BLOCK) {
        let left_end = (left + BLOCK).min(features.len());
        let own = block(left, left_end);
        for right in (left..features.len().min(left_end + FURTHEST)).step_by(BLOCK) {
            let right_end = (right + BLOCK).min(features.len());
            let others = block(right, right_end);
            let cosines = matrix::product(own.transpose(), others.as_ref());
            for i in 0..left_end - left {
                for j in 0..right_end - right {
                    let is_alike = left + i < right + j && cosines[(i, j)] >= least;
                    if is_alike && found.len() < MOST_PAIRS {
                        found.push((cosines[(i, j)], left + i, right + j));
                    }
                }
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    found.into_iter().map(|(_, i, j)| (i, j)).collect()
}

/// The group of each of `count` examples: those that `pairs` connect, however indirectly, are one.
pub fn groups_of(count: usize, pairs: &[(usize, usize)]) -> Vec<usize> {
    fn root(parents: &mut [usize], mut index: usize) -> usize {
        while parents[index] != index {
            parents[index] = parents[parents[index]];
            index = parents[index];
        }
        index
    }
    let mut parents: Vec<usize> = (0..count).collect();
    for &(one, other) in pairs {
        let (one, other) = (root(&mut parents, one), root(&mut parents, other));
        parents[one.max(other)] = one.min(other);
    }
    (0..count).map(|index| root(&mut parents, index)).collect()
}
