//! Warps, colours, priors on pixels and spectra, against plain loops, or against the losses and the fast transform that have theirs.

use super::{SUMS, TestMemory, assert_near_all};
use crate::augment::{Affine, Colour, colour_lines};
use crate::backend::{Matrix, whole};
use crate::image_backend::{ImageBackend, SpectrumOperands, WARP_VALUES};
use crate::image_parameters::{ImageParameters, Parametrisation};
use crate::loss::{mean_norm, total_variation};
use crate::resnet::{BatchNormPrior, ResNet};
use crate::tolerance::{GRADIENT, LOSS};
use proptest::prelude::*;
use test_support::gradient_check::{noise, widen};
use test_support::reference::bytes;

/// A dozen products of values below 1 whose weights are rounded to `f32` first, each in an order of its own.
const TAPS: f64 = 4e-6;

const NORMALISATION: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// `(place, weight)` of the two pixels around a position of an axis that is mirrored at its ends.
fn plain_taps(position: f64, side: usize) -> [(usize, f64); 2] {
    let length = side as f64;
    let folded = (position + 0.5).rem_euclid(2.0 * length);
    let inside = folded.min(2.0 * length - folded) - 0.5;
    let inside = inside.clamp(0.0, length - 1.0);
    let along = inside - inside.floor();
    let first = inside as usize;
    [(first, 1.0 - along), ((first + 1).min(side - 1), along)]
}

/// `(target, source, weight)` of each pixel of a plane that another is made of.
fn plain_warp(change: &Affine, [height, width]: [usize; 2]) -> Vec<(usize, usize, f64)> {
    let (sine, cosine) = f64::from(change.angle_radians).sin_cos();
    let scale = f64::from(change.scale);
    let [down, right] = change.shift.map(f64::from);
    let (middle_y, middle_x) = ((height - 1) as f64 / 2.0, (width - 1) as f64 / 2.0);
    let mut all = Vec::new();
    for to in 0..height * width {
        let (y, x) = (
            (to / width) as f64 - middle_y,
            (to % width) as f64 - middle_x,
        );
        let from_y = scale * (sine * x + cosine * y) + down * height as f64 + middle_y;
        let from_x = scale * (cosine * x - sine * y) + right * width as f64 + middle_x;
        for (row, along_y) in plain_taps(from_y, height) {
            for (column, along_x) in plain_taps(from_x, width) {
                all.push((to, row * width + column, along_y * along_x));
            }
        }
    }
    all
}

fn any_affine() -> impl Strategy<Value = Affine> {
    (-4.0f32..4.0, 0.3f32..2.5, -1.2f32..1.2, -1.2f32..1.2).prop_map(
        |(angle_radians, scale, down, right)| Affine {
            angle_radians,
            scale,
            shift: [down, right],
        },
    )
}

pub fn warped_images_are_sampled_as_by_the_plain_loops_and_the_adjoint_is_their_transpose<
    B: ImageBackend,
>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(40), |(
        changes in prop::collection::vec(any_affine(), 0..4), height in 1usize..20, width in 1usize..20, seed in 0u64..1000,
    )| {
        let (images, area) = (changes.len(), height * width);
        let (source, dtarget) = (noise(seed, images * 3 * area), noise(seed + 1, images * 3 * area));
        let mut memory = TestMemory::new(backend);
        let source_at = memory.put_rows(images, 3 * area, &source);
        let dtarget_at = memory.put_rows(images, 3 * area, &dtarget);
        let [target_at, dsource_at] = [(); 2].map(|()| memory.take_dense(images, 3 * area));
        let maps = memory.take_dense(images, WARP_VALUES);
        let size = [height, width];
        backend.upload_warps(&mut memory.queue, &changes, size, maps);
        backend.warp(&mut memory.queue, source_at, size, maps, target_at);
        backend.warp_adjoint(&mut memory.queue, dtarget_at, size, maps, dsource_at);
        let mut target = vec![0.0; source.len()];
        let mut dsource = vec![0.0; source.len()];
        for (image, change) in changes.iter().enumerate() {
            for (to, from, weight) in plain_warp(change, size) {
                for channel in 0..3 {
                    let plane = (3 * image + channel) * area;
                    target[plane + to] += weight * f64::from(source[plane + from]);
                    dsource[plane + from] += weight * f64::from(dtarget[plane + to]);
                }
            }
        }
        assert_near_all("target", &memory.get(target_at), &target, TAPS);
        assert_near_all("dsource", &memory.get(dsource_at), &dsource, TAPS);
    });
}

pub fn recoloured_images_follow_their_line_and_its_gain_is_the_gradient<B: ImageBackend>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(60), |(
        images in 0usize..4, area in 1usize..300, seed in 0u64..1000,
    )| {
        let numbers = noise(seed, images * 7);
        let changes: Vec<Colour> = numbers.chunks(7).map(|own| Colour {
            gain: [1.0 + own[0], 1.0 + own[1], 1.0 + own[2]],
            offset: [own[3], own[4], own[5]],
            invert: own[6] > 0.0,
        }).collect();
        let source = noise(seed + 1, images * 3 * area);
        let mut memory = TestMemory::new(backend);
        let source_at = memory.put_rows(images, 3 * area, &source);
        let [target_at, dsource_at] = [(); 2].map(|()| memory.take_dense(images, 3 * area));
        let own = colour_lines(&changes, NORMALISATION);
        let lines_at = memory.put_rows(images, 6, own.as_flattened());
        backend.recolour(&mut memory.queue, source_at, lines_at, target_at);
        backend.recolour_adjoint(&mut memory.queue, source_at, lines_at, dsource_at);
        let (mut target, mut dsource) = (Vec::new(), Vec::new());
        for (index, value) in widen(&source).into_iter().enumerate() {
            let (change, channel) = (&changes[index / (3 * area)], index / area % 3);
            let (mean, deviation) = (f64::from(NORMALISATION.0[channel]), f64::from(NORMALISATION.1[channel]));
            let (gain, offset) = (f64::from(change.gain[channel]), f64::from(change.offset[channel]));
            let level = value * deviation + mean;
            let level = if change.invert { 1.0 - level } else { level };
            target.push((gain * (level - 0.5) + 0.5 + offset - mean) / deviation);
            dsource.push(if change.invert { -gain } else { gain } * value);
        }
        assert_near_all("target", &memory.get(target_at), &target, SUMS);
        assert_near_all("dsource", &memory.get(dsource_at), &dsource, SUMS);
    });
}

pub fn total_variation_and_mean_norm_are_those_of_the_losses_with_their_gradients<
    B: ImageBackend,
>(
    backend: &B,
) {
    let check = |shape: [usize; 4], seed: u64, dark: bool, gradient: bool| {
        let [images, _, height, width] = shape;
        let mut pixels = noise(seed, images * 3 * height * width);
        if dark {
            pixels[..3 * height * width].fill(0.0);
        }
        let start = noise(seed + 1, pixels.len());
        let mut memory = TestMemory::new(backend);
        let columns = 3 * height * width;
        let pixels_at = memory.put_rows(images, columns, &pixels);
        let [first_at, second_at] = [(); 2].map(|()| memory.put_rows(images, columns, &start));
        let [variation_at, norm_at] = [(); 2].map(|()| memory.take_dense(1, 2));
        let weights = backend.total_variation_weights(images, [height, width], 0.7);
        let queue = &mut memory.queue;
        let given = |at: Matrix| gradient.then_some(at);
        backend.total_variation(
            queue,
            pixels_at,
            [height, width],
            &weights,
            given(first_at),
            variation_at,
        );
        backend.mean_norm(queue, pixels_at, 0.3, given(second_at), norm_at);
        type Prior = fn(
            &[f32],
            [usize; 4],
            f32,
            Option<&mut [f32]>,
        ) -> Result<f32, crate::operation::OperationError>;
        let priors: [(Prior, f32, Matrix, Matrix); 2] = [
            (total_variation, 0.7, first_at, variation_at),
            (mean_norm, 0.3, second_at, norm_at),
        ];
        for (prior, weight, dpixels_at, loss_at) in priors {
            let mut dpixels = start.clone();
            let dpixels_given = gradient.then_some(dpixels.as_mut_slice());
            let expected = prior(&pixels, shape, weight, dpixels_given).unwrap();
            let found = memory.get(loss_at);
            let found = whole([found[0], found[1]]);
            // The losses are rounded to f32.
            assert!(
                (found - f64::from(expected)).abs() <= 1e-7 * f64::from(expected),
                "{found} {expected}"
            );
            assert_near_all("dpixels", &memory.get(dpixels_at), &widen(&dpixels), SUMS);
        }
    };
    proptest!(ProptestConfig::with_cases(60), |(
        images in 1usize..4, height in 1usize..12, width in 1usize..12, seed in 0u64..1000, dark: bool, gradient: bool,
    )| check([images, 3, height, width], seed, dark, gradient));
    // More values of an image than a block of a device squares, and more images than it has threads.
    check([2, 3, 37, 41], 5, false, true);
    check([300, 3, 1, 2], 5, true, true);
}

pub fn a_spectrum_makes_the_images_and_gradients_of_the_fast_transform<B: ImageBackend>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(40), |(
        images in 1usize..4, height in 1usize..15, width in 1usize..15, seed in 0u64..1000,
    )| {
        let (size, shape) = ([height, width], [images, 3, height, width]);
        let mut own = ImageParameters::new(Parametrisation::Fourier, shape, NORMALISATION).unwrap();
        let (count, pixels) = (own.count(), shape.iter().product());
        let parameters = noise(seed, count);
        let dimages = noise(seed + 1, pixels);
        let mut memory = TestMemory::new(backend);
        let operands = SpectrumOperands {
            parameters: memory.put_rows(1, count, &parameters),
            levels: memory.take_dense(images, pixels / images),
            images: memory.take_dense(images, pixels / images),
            scratch: memory.take_dense(1, backend.spectrum_scratch(images, size)),
        };
        let gradients = SpectrumOperands {
            parameters: memory.take_dense(1, count),
            images: memory.put_rows(images, pixels / images, &dimages),
            ..operands
        };
        let mut spectrum = backend.spectrum(images, size, NORMALISATION);
        backend.spectrum_images(&mut memory.queue, &mut spectrum, operands);
        backend.spectrum_backward(&mut memory.queue, &mut spectrum, gradients);
        let (mut expected, mut dexpected) = (vec![0.0; pixels], vec![0.0; count]);
        own.images(&parameters, &mut expected).unwrap();
        own.backward(&dimages, &mut dexpected).unwrap();
        // Sums of up to two hundred products in another order, divided by deviations of a fifth.
        assert_near_all("images", &memory.get(operands.images), &widen(&expected), 3e-6);
        assert_near_all("dparameters", &memory.get(gradients.parameters), &widen(&dexpected), 5e-6);
    });
}

pub fn the_batch_norm_prior_of_a_resnet_is_that_of_the_images_one_by_one<B: ImageBackend>(
    backend: &B,
) {
    for file in [
        "reference/resnet-basic.safetensors",
        "golden/resnet-tiny/model.safetensors",
    ] {
        let network = || ResNet::read(&bytes(file)).unwrap();
        let mut own = BatchNormPrior::new(network());
        let mut prior = backend.batch_norm_prior(network());
        for (images, size, gradient) in [
            (1, [33, 29], true),
            (3, [16, 40], true),
            (2, [20, 17], false),
            (4, [1, 2], true),
        ] {
            let [height, width] = size;
            let (shape, columns) = ([images, 3, height, width], 3 * height * width);
            let pixels = noise(7, images * columns);
            // Of the order of the gradient, so that rounding of their sum hides nothing.
            let start: Vec<f32> = noise(8, pixels.len()).iter().map(|v| 0.01 * v).collect();
            let length = backend.batch_norm_scratch(&prior, images, size);
            let mut memory = TestMemory::of(backend, length + 3 * pixels.len() + 1000);
            let pixels_at = memory.put_rows(images, columns, &pixels);
            let dpixels_at = memory.put_rows(images, columns, &start);
            let loss_at = memory.take_dense(1, 2);
            let scratch = memory.take_dense(1, length);
            let given = gradient.then_some(dpixels_at);
            let queue = &mut memory.queue;
            backend.batch_norm(
                queue, &mut prior, pixels_at, size, 0.1, given, scratch, loss_at,
            );
            let mut dpixels = start.clone();
            let given = gradient.then_some(dpixels.as_mut_slice());
            let expected = own.loss(&pixels, shape, 0.1, given).unwrap();
            let found = memory.get(loss_at);
            let found = whole([found[0], found[1]]);
            let (expected, allowed) = (f64::from(expected), f64::from(LOSS));
            assert!(
                (found - expected).abs() <= allowed * expected,
                "{file} {shape:?}: {found} {expected}"
            );
            let gained = |all: &[f32]| -> Vec<f64> {
                all.iter()
                    .zip(&start)
                    .map(|(a, b)| f64::from(*a) - f64::from(*b))
                    .collect()
            };
            let (found, expected) = (gained(&memory.get(dpixels_at)), gained(&dpixels));
            let largest = expected.iter().fold(0f64, |a, b| a.max(b.abs()));
            let allowed = f64::from(GRADIENT) * largest;
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (found - expected).abs() <= allowed,
                    "{file} {shape:?} [{index}]: {found} {expected}, largest {largest}"
                );
            }
            assert_eq!(largest > 0.0, gradient);
        }
    }
}
