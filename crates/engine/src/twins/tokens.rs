//! Operations that move tokens about or go over them column by column, against plain loops. What only copies is equal bit for
//! bit.

use super::{SUMS, TestMemory, all, assert_near_all};
use crate::backend::{Backend, Matrix, PatchGrid, whole};
use model::backbone::Pooling;
use proptest::prelude::*;
use test_support::gradient_check::{noise, widen};

/// Positions of the tokens of each image: the class token and `patches`, those of the next image turned by one place.
fn positions(grid: PatchGrid, patches: &[usize]) -> Vec<u32> {
    let all = grid.grid * grid.grid;
    let of_image = |image: usize| {
        let mut own: Vec<u32> = patches
            .iter()
            .map(|patch| ((patch + image) % all + 1) as u32)
            .collect();
        own.sort_unstable();
        std::iter::once(0).chain(own)
    };
    (0..grid.images).flat_map(of_image).collect()
}

/// A grid, which of its patches enter (all of them where the flag says so), a seed.
fn any_grid() -> impl Strategy<Value = (PatchGrid, Vec<usize>, bool, u64)> {
    (
        0usize..3,
        1usize..4,
        1usize..5,
        0usize..9,
        any::<bool>(),
        0u64..1000,
    )
        .prop_map(|(images, side, patch_size, chosen, dense, seed)| {
            let all = side * side;
            let count = if dense { all } else { chosen % (all + 1) };
            let grid = PatchGrid {
                images,
                tokens: 1 + count,
                patch_size,
                grid: side,
            };
            (grid, (0..count).collect(), dense, seed)
        })
}

/// Puts the positions on the memory, unless all tokens are in order.
fn put_positions<B: Backend>(
    memory: &mut TestMemory<'_, B>,
    dense: bool,
    positions: &[u32],
) -> Option<Matrix> {
    (!dense).then(|| memory.put_indices(positions))
}

/// Where value `at` of the patch row of `position` lies in the pixels of `image`.
fn pixel_of(grid: PatchGrid, image: usize, position: u32, at: usize) -> usize {
    let (size, side) = (grid.patch_size, grid.grid * grid.patch_size);
    let patch = position as usize - 1;
    let (channel, line, column) = (at / (size * size), at / size % size, at % size);
    let row = patch / grid.grid * size + line;
    ((image * 3 + channel) * side + row) * side + patch % grid.grid * size + column
}

pub fn patches_are_the_pixels_that_the_plain_loops_find_and_their_gradients_go_back_there<
    B: Backend,
>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(60), |(
        (grid, patches, dense, seed) in any_grid(),
    )| {
        let positions = positions(grid, &patches);
        let side = grid.grid * grid.patch_size;
        let width = 3 * grid.patch_size * grid.patch_size;
        let rows = positions.len();
        let pixels = noise(seed, grid.images * 3 * side * side);
        let dpatches = noise(seed + 1, rows * width);
        let mut memory = TestMemory::new(backend);
        let positions_at = put_positions(&mut memory, dense, &positions);
        let patches_at = memory.take(rows, width);
        let dpatches_at = memory.put(rows, width, &dpatches);
        let pixels_at = memory.put_dense(&pixels);
        let dpixels_at = memory.put_dense(&vec![f32::NAN; pixels.len()]);
        backend.patchify(&mut memory.queue, pixels_at, grid, positions_at, patches_at);
        backend.patchify_backward(&mut memory.queue, dpatches_at, grid, positions_at, dpixels_at);
        let mut expected = vec![0.0; rows * width];
        let mut expected_dpixels = vec![0.0; pixels.len()];
        for (row, &position) in positions.iter().enumerate().filter(|(_, position)| **position > 0) {
            for at in 0..width {
                let pixel = pixel_of(grid, row / grid.tokens, position, at);
                expected[row * width + at] = pixels[pixel];
                expected_dpixels[pixel] = dpatches[row * width + at];
            }
        }
        prop_assert_eq!(memory.get(patches_at), expected);
        prop_assert_eq!(memory.get(dpixels_at), expected_dpixels);
    });
}

pub fn embedding_adds_bias_and_position_to_patches_and_replaces_class_rows<B: Backend>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(60), |(
        (grid, patches, dense, seed) in any_grid(), width in 1usize..40, with_bias in any::<bool>(),
    )| {
        let positions = positions(grid, &patches);
        let rows = positions.len();
        let tokens = noise(seed, rows * width);
        let [bias, class_token] = [1, 2].map(|i| noise(seed + i, width));
        let position = noise(seed + 3, (1 + grid.grid * grid.grid) * width);
        let mut memory = TestMemory::new(backend);
        let positions_at = put_positions(&mut memory, dense, &positions);
        let tokens_at = memory.put(rows, width, &tokens);
        let borrowed = &mut memory.queue;
        let [bias_vector, class_vector, position_vector] =
            [&bias, &class_token, &position].map(|values| backend.vector(values));
        let bias_vector = with_bias.then_some(&bias_vector);
        backend.embed(borrowed, tokens_at, grid, positions_at, bias_vector, &class_vector, &position_vector);
        let expected: Vec<f64> = (0..rows * width).map(|at| {
            let (row, column) = (at / width, at % width);
            let bias = if with_bias { f64::from(bias[column]) } else { 0.0 };
            let own = match positions[row] {
                0 => f64::from(class_token[column]),
                _ => f64::from(tokens[at]) + bias,
            };
            own + f64::from(position[positions[row] as usize * width + column])
        }).collect();
        assert_near_all("tokens", &memory.get(tokens_at), &expected, SUMS);
    });
}

pub fn gathering_copies_rows_and_scattering_adds_them_back_also_twice<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(60), |(
        rows in prop::collection::vec(0u32..9, 0..12), width in 1usize..40, seed in 0u64..1000,
    )| {
        let (x, dy) = (noise(seed, 9 * width), noise(seed + 1, rows.len() * width));
        let start = noise(seed + 2, 9 * width);
        let mut memory = TestMemory::new(backend);
        let rows_at = memory.put_indices(&rows);
        let x_at = memory.put(9, width, &x);
        let y_at = memory.take(rows.len(), width);
        let dy_at = memory.put(rows.len(), width, &dy);
        let dx_at = memory.put(9, width, &start);
        backend.gather(&mut memory.queue, x_at, rows_at, y_at);
        backend.scatter_add(&mut memory.queue, dy_at, rows_at, dx_at);
        let gathered: Vec<f32> = rows.iter().flat_map(|&row| &x[row as usize * width..][..width]).copied().collect();
        prop_assert_eq!(memory.get(y_at), gathered);
        let mut expected = widen(&start);
        for (index, &row) in rows.iter().enumerate() {
            for column in 0..width {
                expected[row as usize * width + column] += f64::from(dy[index * width + column]);
            }
        }
        assert_near_all("dx", &memory.get(dx_at), &expected, SUMS);
    });
}

pub fn pooling_equals_plain_means_and_its_backward_spreads_them<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(60), |(
        images in 1usize..4, patches in 1usize..20, width in prop_oneof![4 => 1usize..40, 1 => 250usize..300], seed in 0u64..1000,
    )| {
        let tokens = 1 + patches;
        let x = noise(seed, images * tokens * width);
        for pooling in [Pooling::Cls, Pooling::Mean, Pooling::ClsMean] {
            let columns = if pooling == Pooling::ClsMean { 2 * width } else { width };
            let dpooled = noise(seed + 1, images * columns);
            let mut memory = TestMemory::new(backend);
            let x_at = memory.put(images * tokens, width, &x);
            let pooled_at = memory.take(images, columns);
            let dpooled_at = memory.put(images, columns, &dpooled);
            let dx_at = memory.take(images * tokens, width);
            backend.pool(&mut memory.queue, x_at, pooling, pooled_at);
            backend.pool_backward(&mut memory.queue, dpooled_at, pooling, dx_at);
            // How much each token counts in a column of what is pooled.
            let share = |token: usize, column: usize| match (pooling, column < width) {
                (Pooling::Cls, _) | (Pooling::ClsMean, true) => f64::from(u8::from(token == 0)),
                (Pooling::Mean, _) | (Pooling::ClsMean, false) if token == 0 => 0.0,
                (Pooling::Mean, _) | (Pooling::ClsMean, false) => 1.0 / patches as f64,
            };
            let mut pooled = vec![0.0; images * columns];
            let mut dx = vec![0.0; x.len()];
            for image in 0..images {
                for token in 0..tokens {
                    for column in 0..columns {
                        let at = (image * tokens + token) * width + column % width;
                        let share = share(token, column);
                        pooled[image * columns + column] += share * f64::from(x[at]);
                        dx[at] += share * f64::from(dpooled[image * columns + column]);
                    }
                }
            }
            assert_near_all("pooled", &memory.get(pooled_at), &pooled, SUMS);
            assert_near_all("dx", &memory.get(dx_at), &dx, SUMS);
        }
    });
}

pub fn what_goes_column_by_column_equals_plain_loops<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(60), |(
        rows in 0usize..12, width in 1usize..70, seed in 0u64..1000,
    )| {
        let x = noise(seed, rows * width);
        let [offset, slope] = [1, 2].map(|i| noise(seed + i, width));
        let start = noise(seed + 3, rows * width);
        let mut memory = TestMemory::new(backend);
        let x_at = memory.put(rows, width, &x);
        let scaled_at = memory.take(rows, width);
        let dx_at = memory.put(rows, width, &start);
        let sums_at = memory.put_dense(&vec![1.0; 4 * width]);
        let added_at = memory.put(rows, width, &start);
        backend.column_sums(&mut memory.queue, x_at, sums_at);
        backend.add(&mut memory.queue, x_at, added_at);
        backend.scale_columns(&mut memory.queue, x_at, &backend.vector(&slope), scaled_at);
        let (offsets, slopes) = (backend.vector(&offset), backend.vector(&slope));
        backend.add_affine(&mut memory.queue, x_at, all(&offsets), all(&slopes), dx_at);
        let values = memory.get(sums_at);
        let sums: Vec<f64> = values.as_chunks::<2>().0.iter().map(|&pair| whole(pair)).collect();
        for column in 0..width {
            let values = || (0..rows).map(|row| f64::from(x[row * width + column]));
            prop_assert!((sums[column] - values().sum::<f64>()).abs() < 1e-12);
            let squares: f64 = values().map(|v| v * v).sum();
            prop_assert!((sums[width + column] - squares).abs() < 1e-12);
        }
        let scaled: Vec<f64> = (0..x.len()).map(|at| f64::from(x[at]) * f64::from(slope[at % width])).collect();
        assert_near_all("scaled", &memory.get(scaled_at), &scaled, SUMS);
        let dx: Vec<f64> = (0..x.len()).map(|at| f64::from(start[at]) + f64::from(offset[at % width]) + scaled[at]).collect();
        assert_near_all("dx", &memory.get(dx_at), &dx, SUMS);
        let added: Vec<f64> = (0..x.len()).map(|at| f64::from(start[at]) + f64::from(x[at])).collect();
        assert_near_all("added", &memory.get(added_at), &added, SUMS);
    });
}

pub fn sums_of_many_rows_equal_plain_loops<B: Backend>(backend: &B) {
    // More columns than a block of a device has threads, and more rows than it sums alone.
    for (rows, width) in [(255, 150), (256, 35), (257, 150), (700, 35), (400, 150)] {
        let x = noise(3, rows * width);
        let mut memory = TestMemory::new(backend);
        let x_at = memory.put(rows, width, &x);
        let sums_at = memory.put_dense(&vec![1.0; 4 * width]);
        backend.column_sums(&mut memory.queue, x_at, sums_at);
        let values = memory.get(sums_at);
        let (sums, _) = values.as_chunks::<2>();
        for column in 0..width {
            let values = || (0..rows).map(|row| f64::from(x[row * width + column]));
            assert!((whole(sums[column]) - values().sum::<f64>()).abs() < 1e-11);
            let squares: f64 = values().map(|v| v * v).sum();
            assert!((whole(sums[width + column]) - squares).abs() < 1e-11);
        }
    }
}
