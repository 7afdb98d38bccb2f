//! Moving tokens about: patches, gathering, choosing, pooling.

use super::buffer::{View, ViewMut};
use crate::backend::PatchGrid;
use model::backbone::Pooling;

/// Position of the token in `row`: 0 the class token, patch p = p + 1.
pub fn position(grid: PatchGrid, positions: Option<View<'_>>, row: usize) -> usize {
    positions.map_or(row % grid.tokens, |positions| positions.index(row))
}

/// Calls `copy(range in pixels, range in the patch row)` for each run of pixels of patch `patch` of image `image`.
fn for_each_run(
    grid: PatchGrid,
    image: usize,
    patch: usize,
    mut copy: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let size = grid.patch_size;
    let side = grid.grid * size;
    let (top, left) = (patch / grid.grid * size, patch % grid.grid * size);
    for channel in 0..3 {
        for line in 0..size {
            let from = ((image * 3 + channel) * side + top + line) * side + left;
            let to = (channel * size + line) * size;
            copy(from..from + size, to..to + size);
        }
    }
}

pub fn patchify(
    pixels: &[f32],
    grid: PatchGrid,
    positions: Option<View<'_>>,
    patches: &mut ViewMut<'_>,
) {
    for row in 0..patches.rows {
        let target = patches.row(row);
        match position(grid, positions, row) {
            0 => target.fill(0.0),
            place => for_each_run(grid, row / grid.tokens, place - 1, |from, to| {
                target[to].copy_from_slice(&pixels[from]);
            }),
        }
    }
}

pub fn patchify_backward(
    dpatches: View<'_>,
    grid: PatchGrid,
    positions: Option<View<'_>>,
    dpixels: &mut [f32],
) {
    if positions.is_some() {
        dpixels.fill(0.0);
    }
    for row in 0..dpatches.rows {
        let place = position(grid, positions, row);
        if place > 0 {
            let source = dpatches.row(row);
            for_each_run(grid, row / grid.tokens, place - 1, |to, from| {
                dpixels[to].copy_from_slice(&source[from]);
            });
        }
    }
}

/// What [`embed`] adds to the products of the patches.
pub struct TokenEmbedding<'a> {
    pub bias: Option<&'a [f32]>,
    pub class_token: &'a [f32],
    pub position: &'a [f32],
}

pub fn embed(
    tokens: &mut ViewMut<'_>,
    grid: PatchGrid,
    positions: Option<View<'_>>,
    embedding: &TokenEmbedding<'_>,
) {
    let width = tokens.columns;
    for row in 0..tokens.rows {
        let place = position(grid, positions, row);
        let offset = &embedding.position[place * width..][..width];
        let target = tokens.row(row);
        if place == 0 {
            target.copy_from_slice(embedding.class_token);
        } else if let Some(bias) = embedding.bias {
            for (value, bias) in target.iter_mut().zip(bias) {
                *value += bias;
            }
        }
        for (value, offset) in target.iter_mut().zip(offset) {
            *value += offset;
        }
    }
}

pub fn choose_rows(
    attention: Option<View<'_>>,
    tokens: usize,
    keep: usize,
    rows: &mut ViewMut<'_>,
) {
    for image in 0..rows.rows / (1 + keep) {
        let mut next = image * (1 + keep);
        let mut push = |token: usize| {
            rows.row(next)[0] = f32::from_bits((image * tokens + token) as u32);
            next += 1;
        };
        push(0);
        let Some(attention) = attention.filter(|_| keep > 0) else {
            continue;
        };
        let attention = attention.row(image);
        // A patch stays when fewer than `keep` patches beat it; counting needs no memory and is exact with equals.
        for (patch, &own) in attention.iter().enumerate() {
            let beaten_by = attention
                .iter()
                .enumerate()
                .filter(|&(other, &value)| value > own || (value == own && other < patch))
                .count();
            if beaten_by < keep {
                push(1 + patch);
            }
        }
    }
}

pub fn gather(x: View<'_>, rows: View<'_>, y: &mut ViewMut<'_>) {
    for row in 0..y.rows {
        y.row(row).copy_from_slice(x.row(rows.index(row)));
    }
}

pub fn scatter_add(dy: View<'_>, rows: View<'_>, dx: &mut ViewMut<'_>) {
    for row in 0..dy.rows {
        for (dx, dy) in dx.row(rows.index(row)).iter_mut().zip(dy.row(row)) {
            *dx += dy;
        }
    }
}

pub fn pool(tokens: View<'_>, pooling: Pooling, pooled: &mut ViewMut<'_>) {
    let width = tokens.columns;
    let per_image = tokens.rows / pooled.rows;
    for image in 0..pooled.rows {
        let target = pooled.row(image);
        let first = image * per_image;
        let mean = match pooling {
            Pooling::Cls => {
                target.copy_from_slice(tokens.row(first));
                continue;
            }
            Pooling::Mean => target,
            Pooling::ClsMean => {
                let (class, mean) = target.split_at_mut(width);
                class.copy_from_slice(tokens.row(first));
                mean
            }
        };
        mean.fill(0.0);
        for row in first + 1..first + per_image {
            for (sum, value) in mean.iter_mut().zip(tokens.row(row)) {
                *sum += value;
            }
        }
        let share = 1.0 / (per_image - 1) as f32;
        for value in mean {
            *value *= share;
        }
    }
}

pub fn pool_backward(dpooled: View<'_>, pooling: Pooling, dtokens: &mut ViewMut<'_>) {
    let width = dtokens.columns;
    let per_image = dtokens.rows / dpooled.rows;
    for image in 0..dpooled.rows {
        let source = dpooled.row(image);
        let first = image * per_image;
        let (class, mean) = match pooling {
            Pooling::Cls => (Some(source), None),
            Pooling::Mean => (None, Some(source)),
            Pooling::ClsMean => (Some(&source[..width]), Some(&source[width..])),
        };
        match class {
            Some(class) => dtokens.row(first).copy_from_slice(class),
            None => dtokens.row(first).fill(0.0),
        }
        for row in first + 1..first + per_image {
            let target = dtokens.row(row);
            match mean {
                Some(mean) => {
                    let share = 1.0 / (per_image - 1) as f32;
                    for (target, value) in target.iter_mut().zip(mean) {
                        *target = share * value;
                    }
                }
                None => target.fill(0.0),
            }
        }
    }
}

pub fn column_sums(x: View<'_>, sums: &mut ViewMut<'_>) {
    let mut totals = vec![0f64; 2 * x.columns];
    let (values, squares) = totals.split_at_mut(x.columns);
    for row in 0..x.rows {
        for ((value, square), &x) in values.iter_mut().zip(squares.iter_mut()).zip(x.row(row)) {
            let x = f64::from(x);
            *value += x;
            *square += x * x;
        }
    }
    let (slots, _) = sums.row(0).as_chunks_mut::<2>();
    for (slot, total) in slots.iter_mut().zip(totals) {
        *slot = crate::backend::halves(total);
    }
}

pub fn add(x: View<'_>, y: &mut ViewMut<'_>) {
    for row in 0..x.rows {
        for (y, x) in y.row(row).iter_mut().zip(x.row(row)) {
            *y += x;
        }
    }
}

pub fn add_affine(x: View<'_>, offset: &[f32], slope: &[f32], dx: &mut ViewMut<'_>) {
    for row in 0..x.rows {
        let columns = dx.row(row).iter_mut().zip(x.row(row));
        for ((dx, x), (offset, slope)) in columns.zip(offset.iter().zip(slope)) {
            *dx += slope.mul_add(*x, *offset);
        }
    }
}
