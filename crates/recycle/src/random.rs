//! Random draws that depend on seed, purpose and position alone: a computation that goes on after an interruption needs no
//! generator's state, and what one purpose draws does not shift what another draws.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What numbers are drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    HeldOut = 1,
    Episodes = 2,
    Pairs = 3,
    Batches = 4,
    Flips = 5,
    FirstImages = 6,
    Augmentation = 7,
    Validation = 8,
}

/// The generator of draw `position` (a step, an epoch, a part of a batch) for `purpose`.
pub(super) fn generator(seed: u64, purpose: Purpose, position: u64) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    bytes[16..24].copy_from_slice(&position.to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn seed_purpose_and_position_each_change_the_draws() {
        let first = |seed, purpose, position| generator(seed, purpose, position).next_u64();
        let same = first(1, Purpose::Batches, 2);
        assert_eq!(same, first(1, Purpose::Batches, 2));
        let all = BTreeSet::from([
            same,
            first(2, Purpose::Batches, 2),
            first(1, Purpose::Flips, 2),
            first(1, Purpose::Batches, 3),
        ]);
        assert_eq!(all.len(), 4);
    }
}
