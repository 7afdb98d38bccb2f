//! Changes of images, the optimiser and flags, against plain loops.

use super::{TestMemory, assert_near_all};
use crate::augment::RollFlip;
use crate::backend::{BufferLengths, Matrix, PatchGrid, Region};
use crate::image_backend::{AdamOperands, ChannelLimits, ImageBackend};
use crate::optimise::AdamSettings;
use proptest::prelude::*;
use test_support::gradient_check::{noise, widen};

pub fn rolled_images_are_those_of_the_plain_loops_and_the_adjoint_takes_them_back<
    B: ImageBackend,
>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(60), |(
        images in 0usize..4, height in 1usize..20, width in 1usize..20, down in -50i32..50, right in -50i32..50, flip: bool,
        seed in 0u64..1000,
    )| {
        let length = 3 * height * width;
        let source = noise(seed, images * length);
        let mut memory = TestMemory::new(backend);
        let source_at = memory.put_rows(images, length, &source);
        let [target_at, back_at] = [(); 2].map(|()| memory.take_dense(images, length));
        let draw = memory.put_indices(&RollFlip { down, right, flip }.numbers());
        let size = [height, width];
        backend.roll_flip(&mut memory.queue, source_at, size, draw, target_at);
        backend.roll_flip_adjoint(&mut memory.queue, target_at, size, draw, back_at);
        let mut expected = vec![f32::NAN; source.len()];
        for (index, &value) in source.iter().enumerate() {
            let (plane, y, x) = (index / (height * width), index / width % height, index % width);
            let wrap = |place: usize, by: i32, side: usize| (place as i32 + by).rem_euclid(side as i32) as usize;
            let (to_y, to_x) = (wrap(y, down, height), wrap(x, right, width));
            let to_x = if flip { width - 1 - to_x } else { to_x };
            expected[(plane * height + to_y) * width + to_x] = value;
        }
        prop_assert_eq!(memory.get(target_at), expected);
        prop_assert_eq!(memory.get(back_at), source);
    });
}

pub fn adam_equals_the_plain_formula_and_clamps_by_channel_unless_something_is_flagged<
    B: ImageBackend,
>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(60), |(
        images in 0usize..3, plane in 1usize..150, seed in 0u64..1000, clamped: bool, flagged: bool, decayed: bool,
    )| {
        let count = images * 3 * plane;
        let [values, gradient, first] = [0, 1, 2].map(|i| noise(seed + i, count));
        let second: Vec<f32> = noise(seed + 3, count).iter().map(|v| v.abs()).collect();
        let settings = AdamSettings { weight_decay: if decayed { 0.1 } else { 0.0 }, ..AdamSettings::default() };
        let limits = [[-0.5, 0.5], [-0.1, 0.9], [0.0, 0.25f32]];
        let rates = settings.rates(3, 0.1);
        let mut memory = TestMemory::new(backend);
        let operands = AdamOperands {
            values: memory.put_rows(images, 3 * plane, &values),
            gradient: memory.put_rows(images, 3 * plane, &gradient),
            first: memory.put_rows(images, 3 * plane, &first),
            second: memory.put_rows(images, 3 * plane, &second),
            rates: memory.put_rows(1, 2, &rates),
            flags: memory.put_indices(&[u32::from(flagged)]),
        };
        let vector = backend.vector(limits.as_flattened());
        let own = clamped.then_some(ChannelLimits { limits: &vector, plane });
        backend.adam(&mut memory.queue, operands, &settings, own);
        let found = [operands.values, operands.first, operands.second].map(|at| memory.get(at));
        if flagged {
            prop_assert_eq!(found, [values, first, second]);
            return Ok(());
        }
        let mut expected = [values, first, second].map(|own| widen(&own));
        let [values, first, second] = &mut expected;
        for (index, slope) in widen(&gradient).into_iter().enumerate() {
            let slope = slope + settings.weight_decay * values[index];
            first[index] = 0.9 * first[index] + 0.1 * slope;
            second[index] = 0.999 * second[index] + 0.001 * slope * slope;
            let mean = first[index] / (1.0 - 0.9f64.powi(3));
            let square = second[index] / (1.0 - 0.999f64.powi(3));
            values[index] -= 0.1 * mean / (square.sqrt() + 1e-8);
            if clamped {
                let [black, white] = limits[index / plane % 3];
                values[index] = values[index].clamp(f64::from(black), f64::from(white));
            }
        }
        for ((name, found), expected) in ["values", "first", "second"].iter().zip(found).zip(&expected) {
            // A dozen roundings of values of the order of the largest, which itself is divided by a root as small as a thousandth.
            assert_near_all(name, &found, expected, 2e-6);
        }
    });
}

pub fn flags_tell_values_that_are_not_finite_apart<B: ImageBackend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(60), |(
        rows in 0usize..5, columns in 1usize..400, places in prop::collection::vec(0usize..2000, 0..3),
        kind in 0usize..3,
    )| {
        let mut values = vec![f32::MAX; rows * columns];
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][kind];
        let mut expected = 4u32;
        for place in places {
            if let Some(value) = values.get_mut(place) {
                *value = bad;
                expected |= 2;
            }
        }
        let mut memory = TestMemory::new(backend);
        let x = memory.put_rows(rows, columns, &values);
        let finite = memory.put_rows(1, 3, &[-f32::MAX, 0.0, 1e-40]);
        let flags = memory.put_indices(&[4]);
        backend.flag_not_finite(&mut memory.queue, x, 2, flags);
        backend.flag_not_finite(&mut memory.queue, finite, 8, flags);
        prop_assert_eq!(memory.get(flags)[0].to_bits(), expected);
    });
}

pub fn images_stay_while_micro_batches_come_and_go<B: ImageBackend>(backend: &B) {
    let mut queue = backend.queue();
    let images = Matrix {
        region: Region::Images,
        start: 0,
        rows: 3,
        columns: 5,
        stride: 5,
    };
    let read = |queue: &mut B::Queue| {
        let mut values = [f32::NAN; 15];
        backend.download(queue, images);
        backend.finish(queue).unwrap();
        backend.downloaded(queue, images, &mut values);
        values.to_vec()
    };
    backend.lay_out_images(&mut queue, 15).unwrap();
    assert_eq!(read(&mut queue), [0.0; 15]);
    let values = noise(1, 15);
    backend.upload(&mut queue, &values, images);
    for (slot, length) in [(0, 100), (1, 1000), (0, 5000)] {
        let lengths = BufferLengths {
            kept: length,
            scratch: length,
            pixels: length,
        };
        backend.enter(&mut queue, slot, lengths).unwrap();
        backend.clear_gradients(&mut queue, length).unwrap();
        assert_eq!(read(&mut queue), values);
    }
    backend.lay_out_images(&mut queue, 15).unwrap();
    assert_eq!(read(&mut queue), [0.0; 15]);
}

pub fn stored_levels_become_the_pixels_of_the_table_mirrored_where_asked<B: ImageBackend>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(60), |(
        pictures in 1usize..5, side in 1usize..14, chosen in prop::collection::vec((0u32..5, any::<bool>()), 0..6), mirrored: bool,
        seed in 0u64..1000,
    )| {
        let image = 3 * side * side;
        let levels: Vec<u8> = noise(seed, pictures * image).iter().map(|v| (128.0 + 127.0 * v) as u8).collect();
        let table = noise(seed + 1, 3 * 256);
        let indices: Vec<u32> = chosen.iter().map(|own| own.0 % pictures as u32).collect();
        let flips: Vec<u32> = chosen.iter().map(|own| u32::from(own.1)).collect();
        let mut memory = TestMemory::new(backend);
        let indices_at = memory.put_indices(&indices);
        let flips_at = memory.put_indices(&flips);
        let flips_at = mirrored.then_some(flips_at);
        let pixels_at = memory.take_dense(indices.len(), image);
        let parts = [&levels[..image], &levels[image..]];
        let (kept, vector) = (backend.levels(&parts).unwrap(), backend.vector(&table));
        backend.normalise_levels(&mut memory.queue, &kept, indices_at, flips_at, &vector, side, pixels_at);
        let mut expected = Vec::new();
        for (&index, &flip) in indices.iter().zip(&flips) {
            for at in 0..image {
                let (line, column) = (at / side, at % side);
                let from = if mirrored && flip == 1 { side - 1 - column } else { column };
                let level = levels[index as usize * image + line * side + from];
                expected.push(table[at / (side * side) * 256 + usize::from(level)]);
            }
        }
        prop_assert_eq!(memory.get(pixels_at), expected);
    });
}

pub fn patches_come_from_some_of_the_images_that_stay_and_their_gradients_go_back_there<
    B: ImageBackend,
>(
    backend: &B,
) {
    let (image, grid) = (
        3 * 4 * 4,
        PatchGrid {
            images: 2,
            tokens: 5,
            patch_size: 2,
            grid: 2,
        },
    );
    let mut memory = TestMemory::new(backend);
    let all = Matrix {
        region: Region::Images,
        start: 0,
        rows: 5,
        columns: image,
        stride: image,
    };
    let pixels = noise(1, 5 * image);
    backend
        .lay_out_images(&mut memory.queue, 2 * 5 * image)
        .unwrap();
    backend.upload(&mut memory.queue, &pixels, all);
    let some = |start: usize| Matrix {
        start: start + 2 * image,
        rows: 2,
        ..all
    };
    let patches = memory.take(10, 12);
    backend.patchify(&mut memory.queue, some(0), grid, None, patches);
    backend.patchify_backward(&mut memory.queue, patches, grid, None, some(5 * image));
    let gradients = Matrix {
        start: 5 * image,
        ..all
    };
    let mut expected = pixels;
    expected[..2 * image].fill(0.0);
    expected[4 * image..].fill(0.0);
    assert_eq!(memory.get(gradients), expected);
}
