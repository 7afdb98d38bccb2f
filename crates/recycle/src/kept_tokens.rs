//! Which tokens of an image enter the network: positions ascending, 0 the class token, patch p = p + 1.

/// The class token and all patches but the `dropped` with the least of `attention` `[patches]`; of equals the first is kept.
pub fn most_attended(attention: &[f32], dropped: usize) -> Vec<u32> {
    let mut order: Vec<usize> = (0..attention.len()).collect();
    order.sort_by(|&a, &b| attention[b].total_cmp(&attention[a]).then(a.cmp(&b)));
    order.truncate(attention.len().saturating_sub(dropped));
    let mut kept: Vec<u32> = order.iter().map(|&patch| patch as u32 + 1).collect();
    kept.push(0);
    kept.sort_unstable();
    kept
}

/// The same places in the mirrored image of `grid` × `grid` patches.
pub(super) fn mirrored(tokens: &[u32], grid: usize) -> Vec<u32> {
    let grid = grid as u32;
    let mut mirrored: Vec<u32> = tokens
        .iter()
        .map(|&token| match token.checked_sub(1) {
            None => 0,
            Some(patch) => patch / grid * grid + (grid - 1 - patch % grid) + 1,
        })
        .collect();
    mirrored.sort_unstable();
    mirrored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_token_and_the_most_attended_patches_are_kept_in_order() {
        let attention = [0.1, 0.4, 0.2, 0.2, 0.1];
        assert_eq!(most_attended(&attention, 0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(most_attended(&attention, 3), [0, 2, 3]);
        assert_eq!(most_attended(&attention, 4), [0, 2]);
        assert_eq!(most_attended(&attention, 9), [0]);
    }

    #[test]
    fn mirroring_moves_patches_within_their_row_and_twice_is_nothing() {
        // Row 0: patches 1 2 3, row 1: 4 5 6.
        assert_eq!(mirrored(&[0, 1, 5, 9], 3), [0, 3, 5, 7]);
        let tokens = [0, 2, 3, 6, 7];
        assert_eq!(mirrored(&mirrored(&tokens, 3), 3), tokens);
    }
}
