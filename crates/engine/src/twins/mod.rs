//! Plain twins of the operations, as simple loops in `f64`, and the comparison of each operation of a backend with its twin on zero,
//! one, odd and other sizes. Backward operations are compared with the slopes of the twins, linear ones with separate loops.
//! Every backend is judged by the same twins within the same tolerances: it gets a line under [`judge`].

mod attention;
mod images;
mod operations;
mod pixels;
mod tokens;

use crate::backend::{Backend, BufferLengths, Matrix, Region, VectorPart};

/// A module `$name` with one test for each comparison, on the backend that `$backend` makes.
macro_rules! judge {
    ($name:ident, $backend:expr) => {
        mod $name {
            judge! { @tests $backend;
                operations {
                    linear_maps_and_their_backward_equal_plain_loops
                    thin_products_equal_plain_loops
                    layer_norm_behind_a_residual_sum_equals_the_plain_formula
                    layer_norm_and_its_gradient_equal_plain_loops
                    layer_norm_backward_is_the_slope_of_the_plain_formula
                    activations_equal_the_plain_formulas_and_their_slopes
                    chosen_rows_are_those_with_the_most_attention
                }
                attention {
                    attention_its_gradients_and_the_class_tokens_attention_equal_plain_loops
                    gradients_of_attention_are_the_slopes_of_the_plain_formula
                    scores_of_thousands_neither_overflow_nor_vanish
                }
                tokens {
                    patches_are_the_pixels_that_the_plain_loops_find_and_their_gradients_go_back_there
                    embedding_adds_bias_and_position_to_patches_and_replaces_class_rows
                    gathering_copies_rows_and_scattering_adds_them_back_also_twice
                    pooling_equals_plain_means_and_its_backward_spreads_them
                    what_goes_column_by_column_equals_plain_loops
                    sums_of_many_rows_equal_plain_loops
                }
                images {
                    rolled_images_are_those_of_the_plain_loops_and_the_adjoint_takes_them_back
                    adam_equals_the_plain_formula_and_clamps_by_channel_unless_something_is_flagged
                    flags_tell_values_that_are_not_finite_apart
                    images_stay_while_micro_batches_come_and_go
                    patches_come_from_some_of_the_images_that_stay_and_their_gradients_go_back_there
                    stored_levels_become_the_pixels_of_the_table_mirrored_where_asked
                }
                pixels {
                    warped_images_are_sampled_as_by_the_plain_loops_and_the_adjoint_is_their_transpose
                    recoloured_images_follow_their_line_and_its_gain_is_the_gradient
                    total_variation_and_mean_norm_are_those_of_the_losses_with_their_gradients
                    a_spectrum_makes_the_images_and_gradients_of_the_fast_transform
                    the_batch_norm_prior_of_a_resnet_is_that_of_the_images_one_by_one
                }
            }
        }
    };
    (@tests $backend:expr; $($module:ident { $($test:ident)+ })+) => {$($(
        #[test]
        fn $test() {
            super::$module::$test(&$backend);
        }
    )+)+};
}

judge!(cpu, crate::cpu::Cpu::default());
judge!(cuda, super::tested_cuda());

/// The CUDA backend on the emulated device or the chosen real one, in FP32 as the tolerances are.
fn tested_cuda() -> crate::cuda::Cuda {
    use crate::cuda::{Cuda, CudaOptions, Precision, libraries};
    static DEVICE: std::sync::OnceLock<Cuda> = std::sync::OnceLock::new();
    let open = || {
        if !test_support::emulator::is_real_device_chosen() {
            libraries::preload(&test_support::emulator::folder());
        }
        let options = CudaOptions {
            precision: Precision::Fp32,
            ..CudaOptions::default()
        };
        Cuda::new(options).unwrap()
    };
    DEVICE.get_or_init(open).clone()
}

/// The queue of a test, its memory handed out from its start on.
struct TestMemory<'b, B: Backend> {
    backend: &'b B,
    queue: B::Queue,
    next: usize,
}

/// All of a vector.
fn all<V>(vector: &V) -> VectorPart<'_, V> {
    VectorPart { vector, start: 0 }
}

impl<'b, B: Backend> TestMemory<'b, B> {
    fn new(backend: &'b B) -> Self {
        Self::of(backend, 1 << 16)
    }

    fn of(backend: &'b B, length: usize) -> Self {
        let mut queue = backend.queue();
        let lengths = BufferLengths {
            kept: length,
            scratch: 0,
            pixels: 0,
        };
        backend.enter(&mut queue, 0, lengths).unwrap();
        Self {
            backend,
            queue,
            next: 0,
        }
    }

    /// An uninitialised matrix with a gap after each row, so that strides count.
    fn take(&mut self, rows: usize, columns: usize) -> Matrix {
        let stride = columns + 3;
        let start = self.next;
        self.next += rows * stride;
        Matrix {
            region: Region::Kept,
            start,
            rows,
            columns,
            stride,
        }
    }

    fn put(&mut self, rows: usize, columns: usize, values: &[f32]) -> Matrix {
        let (backend, matrix) = (self.backend, self.take(rows, columns));
        for row in 0..rows {
            let target = Matrix {
                start: matrix.start + row * matrix.stride,
                rows: 1,
                ..matrix
            };
            backend.upload(&mut self.queue, &values[row * columns..][..columns], target);
        }
        matrix
    }

    /// One row without a gap.
    fn put_dense(&mut self, values: &[f32]) -> Matrix {
        let columns = values.len().max(1);
        let matrix = self.take_dense(usize::from(!values.is_empty()), columns);
        let backend = self.backend;
        backend.upload(&mut self.queue, values, matrix);
        matrix
    }

    /// As [`Self::take`], without gaps and at an even place.
    fn take_dense(&mut self, rows: usize, columns: usize) -> Matrix {
        self.next = self.next.next_multiple_of(2);
        Matrix {
            stride: columns,
            ..self.take(rows, columns)
        }
    }

    /// Rows without gaps.
    fn put_rows(&mut self, rows: usize, columns: usize, values: &[f32]) -> Matrix {
        let (backend, matrix) = (self.backend, self.take_dense(rows, columns));
        backend.upload(&mut self.queue, values, matrix);
        matrix
    }

    fn put_indices(&mut self, values: &[u32]) -> Matrix {
        let matrix = Matrix {
            stride: 1,
            ..self.take(values.len(), 1)
        };
        let backend = self.backend;
        backend.upload_indices(&mut self.queue, values, matrix);
        matrix
    }

    fn get(&mut self, matrix: Matrix) -> Vec<f32> {
        let mut values = vec![0.0; matrix.rows * matrix.columns];
        let backend = self.backend;
        backend.download(&mut self.queue, matrix);
        backend.finish(&mut self.queue).unwrap();
        backend.downloaded(&self.queue, matrix, &mut values);
        values
    }
}

/// Within `tolerance` of the largest value, which is at least 1 for values of that order.
fn assert_near_all(name: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(1.0f64, |a, b| a.max(b.abs()));
    for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() <= tolerance * largest,
            "{name}[{i}]: {found}, plain {expected}"
        );
    }
}

/// A few dozen products of values below 1 in f32: some units of the last place of their sum.
const SUMS: f64 = 2e-6;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Φ by Simpson's rule in f64.
pub fn exact_distribution(x: f64) -> f64 {
    let steps = 2000;
    let width = x / f64::from(steps);
    let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let inner: f64 = (1..steps)
        .map(|i| density(f64::from(i) * width) * if i % 2 == 1 { 4.0 } else { 2.0 })
        .sum();
    0.5 + width / 3.0 * (density(0.0) + inner + density(x))
}
