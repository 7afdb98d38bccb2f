//! Cyclic shift and mirror, one draw for a whole batch: a permutation of the pixels, so its adjoint is its inverse.

use super::check_pair;
use crate::operation::{Checks, OperationError};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Rolls down and right (pixels that leave come in on the other side), then mirrors the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RollFlip {
    /// Rows; negative values move up.
    pub down: i32,
    /// Columns; negative values move left.
    pub right: i32,
    /// Whether the columns are mirrored afterwards.
    pub flip: bool,
}

impl RollFlip {
    /// Up to an eighth of each side in both directions, mirrored half of the time.
    pub fn draw(generator: &mut impl Rng, height: usize, width: usize) -> Self {
        let mut shift = |side: usize| {
            let largest = i32::try_from(side / 8).unwrap_or(i32::MAX - 1);
            generator.random_range(-largest..=largest)
        };
        Self {
            down: shift(height),
            right: shift(width),
            flip: generator.random_bool(0.5),
        }
    }

    /// Overwrites `target` with the changed `source`, both `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// An axis of length zero, lengths that do not fit, values that are not finite.
    pub fn apply(
        self,
        source: &[f32],
        shape: [usize; 4],
        target: &mut [f32],
    ) -> Result<(), OperationError> {
        check_pair(Checks("roll and flip"), source, target, shape)?;
        self.forward(source, shape, target);
        Ok(())
    }

    /// [`Self::apply`] of values that are known to fit.
    pub(crate) fn forward(self, source: &[f32], shape: [usize; 4], target: &mut [f32]) {
        self.permute(shape, |from, to, step_back| {
            let row = &source[from..from + shape[3]];
            copy_row(row, &mut target[to..to + shape[3]], step_back, self.flip);
        });
    }

    /// The adjoint: overwrites `dsource` with the gradient at the source of [`Self::apply`], from `dtarget` at its target.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn adjoint(
        self,
        dtarget: &[f32],
        shape: [usize; 4],
        dsource: &mut [f32],
    ) -> Result<(), OperationError> {
        check_pair(Checks("roll and flip backward"), dtarget, dsource, shape)?;
        self.backward(dtarget, shape, dsource);
        Ok(())
    }

    /// [`Self::adjoint`] of values that are known to fit.
    pub(crate) fn backward(self, dtarget: &[f32], shape: [usize; 4], dsource: &mut [f32]) {
        let width = shape[3];
        self.permute(shape, |from, to, shift| {
            let row = &dtarget[to..to + width];
            // Flipping first and rolling back is rolling further and flipping, mirrored about the same axis.
            let back = if self.flip {
                shift
            } else {
                (width - shift) % width
            };
            copy_row(row, &mut dsource[from..from + width], back, self.flip);
        });
    }

    /// As a device reads it.
    pub(crate) fn numbers(self) -> [u32; 3] {
        let bits = |value: i32| u32::from_ne_bytes(value.to_ne_bytes());
        [bits(self.down), bits(self.right), u32::from(self.flip)]
    }

    /// What [`Self::numbers`] were made of.
    pub(crate) fn of_numbers([down, right, flip]: [u32; 3]) -> Self {
        let value = |bits: u32| i32::from_ne_bytes(bits.to_ne_bytes());
        Self {
            down: value(down),
            right: value(right),
            flip: flip != 0,
        }
    }

    /// Calls `copy(source offset, target offset, shift right)` for every row.
    fn permute(self, shape: [usize; 4], mut copy: impl FnMut(usize, usize, usize)) {
        let [batch, channels, height, width] = shape;
        let down = wrap(self.down, height);
        let right = wrap(self.right, width);
        for plane in 0..batch * channels {
            for row in 0..height {
                let from = (plane * height + row) * width;
                let to = (plane * height + (row + down) % height) * width;
                copy(from, to, right);
            }
        }
    }
}

/// `shift` as a position from 0 to `side` − 1.
fn wrap(shift: i32, side: usize) -> usize {
    (i64::from(shift)).rem_euclid(side as i64) as usize
}

/// Rolls `source` right by `shift`, then mirrors it where `flip`.
fn copy_row(source: &[f32], target: &mut [f32], shift: usize, flip: bool) {
    let (head, tail) = source.split_at(source.len() - shift);
    let (front, back) = target.split_at_mut(shift);
    front.copy_from_slice(tail);
    back.copy_from_slice(head);
    if flip {
        target.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use test_support::gradient_check::noise;

    proptest! {
        #[test]
        fn every_pixel_lands_where_the_plain_formula_says_and_the_adjoint_brings_it_back(
            b in 1usize..3, c in 1usize..3, h in 1usize..8, w in 1usize..8,
            down in -20i32..20, right in -20i32..20, flip: bool, seed in 0u64..100,
        ) {
            let change = RollFlip { down, right, flip };
            let shape = [b, c, h, w];
            let source = noise(seed, b * c * h * w);
            let mut target = vec![f32::NAN; source.len()];
            change.apply(&source, shape, &mut target).unwrap();
            for plane in 0..b * c {
                for y in 0..h as i32 {
                    for x in 0..w as i32 {
                        let to_y = (y + down).rem_euclid(h as i32) as usize;
                        let rolled = (x + right).rem_euclid(w as i32) as usize;
                        let to_x = if flip { w - 1 - rolled } else { rolled };
                        let from = (plane * h + y as usize) * w + x as usize;
                        prop_assert_eq!(target[(plane * h + to_y) * w + to_x], source[from]);
                    }
                }
            }
            let mut back = vec![f32::NAN; source.len()];
            change.adjoint(&target, shape, &mut back).unwrap();
            prop_assert_eq!(back, source);
        }
    }

    #[test]
    fn draws_reach_an_eighth_of_the_side_and_no_further_and_follow_the_seed() {
        let draw = |seed| {
            let mut generator = ChaCha8Rng::seed_from_u64(seed);
            (0..400)
                .map(|_| RollFlip::draw(&mut generator, 17, 32))
                .collect::<Vec<_>>()
        };
        let draws = draw(1);
        assert_eq!(draws, draw(1));
        let range = |value: fn(&RollFlip) -> i32| {
            let values = draws.iter().map(value);
            (values.clone().min(), values.max())
        };
        assert_eq!(range(|d| d.down), (Some(-2), Some(2)));
        assert_eq!(range(|d| d.right), (Some(-4), Some(4)));
        let flips = draws.iter().filter(|d| d.flip).count();
        assert!((150..250).contains(&flips), "{flips}");
    }

    #[test]
    fn a_batch_of_zero_is_refused() {
        let error = RollFlip::default()
            .apply(&[], [0, 3, 2, 2], &mut [])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "roll and flip: the source has shape [0, 3, 2, 2]; no axis may be zero"
        );
    }
}
