//! How alike two adapters are, from their low-rank pairs alone.

use super::{Adapter, LowRankPair};

impl Adapter {
    /// Cosine of the angle between the changes of two adapters, all linear maps together: 1 for the same change up to its size, 0 for
    /// changes that have nothing in common. `None` where either changes nothing, or for values that are not finite.
    pub fn change_cosine(&self, other: &Self) -> Option<f64> {
        let lengths = inner_product(self, self) * inner_product(other, other);
        let cosine = inner_product(self, other) / lengths.sqrt();
        cosine.is_finite().then(|| cosine.clamp(-1.0, 1.0))
    }
}

/// `Σ tr(ΔWᵀ·ΔW')` over the maps that both change, from the low-rank pairs: `tr((BᵀB')·(A'Aᵀ))`. Maps of different widths have none.
fn inner_product(one: &Adapter, other: &Adapter) -> f64 {
    let pairs = one.pairs.iter();
    let pairs = pairs.filter_map(|(site, own)| Some((own, other.pairs.get(site)?)));
    pairs.map(|(own, other)| of_pairs(own, other)).sum()
}

fn of_pairs(one: &LowRankPair, other: &LowRankPair) -> f64 {
    if (one.inputs(), one.outputs()) != (other.inputs(), other.outputs()) {
        return 0.0;
    }
    let (rank, other_rank) = (one.rank(), other.rank());
    let mut b = vec![0f64; rank * other_rank];
    let rows = one.b.data().chunks_exact(rank);
    for (row, other_row) in rows.zip(other.b.data().chunks_exact(other_rank)) {
        for (i, &own) in row.iter().enumerate() {
            for (j, &value) in other_row.iter().enumerate() {
                b[i * other_rank + j] += f64::from(own) * f64::from(value);
            }
        }
    }
    let mut sum = 0.0;
    for i in 0..rank {
        for j in 0..other_rank {
            let rows = one.a.row(i).iter().zip(other.a.row(j));
            let a: f64 = rows.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            sum += b[i * other_rank + j] * a;
        }
    }
    sum * f64::from(one.scale) * f64::from(other.scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Site, Target};
    use crate::tensor::Tensor;

    fn adapter(layer: usize, a: [f32; 6], b: [f32; 4], scale: f32) -> Adapter {
        let site = Site {
            layer,
            target: Target::Value,
        };
        let pair = LowRankPair {
            a: Tensor::new([2, 3], a.to_vec()).unwrap(),
            b: Tensor::new([2, 2], b.to_vec()).unwrap(),
            scale,
        };
        Adapter {
            pairs: [(site, pair)].into(),
            head: None,
        }
    }

    #[test]
    fn the_cosine_is_that_of_the_whole_changes_whatever_their_size() {
        let first = adapter(
            0,
            [1.0, -2.0, 0.5, 3.0, 0.0, 1.0],
            [0.3, 1.0, -1.0, 2.0],
            0.5,
        );
        let second = adapter(
            0,
            [0.2, 1.0, 0.5, -1.0, 2.0, 0.0],
            [1.0, 0.0, 0.5, 1.0],
            2.0,
        );
        let site = *first.pairs.keys().next().unwrap();
        let (a, b) = (first.delta(site).unwrap(), second.delta(site).unwrap());
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            let pairs = a.data().iter().zip(b.data());
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let expected = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        let found = first.change_cosine(&second).unwrap();
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        let mut louder = first.clone();
        louder.pairs.get_mut(&site).unwrap().scale = 40.0;
        assert!((first.change_cosine(&louder).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn changes_of_different_maps_have_nothing_in_common_and_none_is_no_direction() {
        let first = adapter(0, [1.0; 6], [1.0; 4], 1.0);
        assert_eq!(
            first.change_cosine(&adapter(1, [1.0; 6], [1.0; 4], 1.0)),
            Some(0.0)
        );
        assert_eq!(
            first.change_cosine(&adapter(0, [1.0; 6], [0.0; 4], 1.0)),
            None
        );
    }
}
