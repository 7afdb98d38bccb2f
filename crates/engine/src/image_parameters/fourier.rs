//! Levels from 0 to 1 as a sigmoid of an inverse real 2-D Fourier transform with spectrum scaled by 1/frequency.

use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use std::sync::Arc;

/// Size of the frequency scaling, so that a spectrum of unit variance gives pictures of natural contrast.
const AMPLITUDE: f64 = 0.6;

/// The transform of a fixed number of planes of one size.
pub(crate) struct Fourier {
    height: usize,
    width: usize,
    /// `[height, width/2 + 1]`: 1/frequency, with the normalisation of the transform.
    scale: Vec<f32>,
    along_columns: [Arc<dyn Fft<f32>>; 2],
    along_rows: [Arc<dyn Fft<f32>>; 2],
    /// One for each plane.
    work: Vec<Work>,
}

/// Buffers of one plane.
struct Work {
    /// `[width/2 + 1, height]`
    columns: Vec<Complex<f32>>,
    row: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

/// Positions in the pairs of transforms.
const INVERSE: usize = 0;
const FORWARD: usize = 1;

impl Fourier {
    pub fn new(planes: usize, height: usize, width: usize) -> Self {
        let mut planner = FftPlanner::new();
        let mut pair = |length| {
            [
                planner.plan_fft_inverse(length),
                planner.plan_fft_forward(length),
            ]
        };
        let along_columns = pair(height);
        let along_rows = pair(width);
        let scratch_length = along_columns
            .iter()
            .chain(&along_rows)
            .map(|transform| transform.get_inplace_scratch_len())
            .max()
            .unwrap_or(0);
        let half = width / 2 + 1;
        let zero = Complex::new(0.0, 0.0);
        let work = (0..planes)
            .map(|_| Work {
                columns: vec![zero; half * height],
                row: vec![zero; width],
                scratch: vec![zero; scratch_length],
            })
            .collect();
        Self {
            height,
            width,
            scale: frequency_scale(height, width),
            along_columns,
            along_rows,
            work,
        }
    }

    /// Overwrites `levels` `[planes, height, width]` from `spectrum` `[planes, height, width/2 + 1, 2]`.
    pub fn levels(&mut self, spectrum: &[f32], levels: &mut [f32]) {
        let (height, width) = (self.height, self.width);
        let half = width / 2 + 1;
        let (scale, columns_transform, rows_transform) = (
            &self.scale,
            &self.along_columns[INVERSE],
            &self.along_rows[INVERSE],
        );
        let planes = spectrum
            .par_chunks_exact(height * half * 2)
            .zip(levels.par_chunks_exact_mut(height * width))
            .zip(&mut self.work);
        planes.for_each(|((spectrum, levels), work)| {
            for (index, (value, scale)) in spectrum.chunks_exact(2).zip(scale).enumerate() {
                work.columns[index % half * height + index / half] =
                    Complex::new(value[0] * scale, value[1] * scale);
            }
            columns_transform.process_with_scratch(&mut work.columns, &mut work.scratch);
            for (row, levels) in levels.chunks_exact_mut(width).enumerate() {
                // A real row: the other half is the mirrored conjugate; frequencies that are their own mirror are real.
                for column in 0..half {
                    let value = work.columns[column * height + row];
                    let mirror = (width - column) % width;
                    work.row[column] = value;
                    if mirror == column {
                        work.row[column].im = 0.0;
                    } else {
                        work.row[mirror] = value.conj();
                    }
                }
                rows_transform.process_with_scratch(&mut work.row, &mut work.scratch);
                for (level, value) in levels.iter_mut().zip(&work.row) {
                    *level = sigmoid(value.re);
                }
            }
        });
    }

    /// Overwrites `dspectrum` from the gradient at the `levels` that [`Self::levels`] has made, divided by the deviation of their
    /// channel; planes are in the order red, green, blue.
    pub fn backward(
        &mut self,
        dimages: &[f32],
        levels: &[f32],
        deviation: [f32; 3],
        dspectrum: &mut [f32],
    ) {
        let (height, width) = (self.height, self.width);
        let half = width / 2 + 1;
        let (scale, columns_transform, rows_transform) = (
            &self.scale,
            &self.along_columns[FORWARD],
            &self.along_rows[FORWARD],
        );
        let planes = dspectrum
            .par_chunks_exact_mut(height * half * 2)
            .zip(dimages.par_chunks_exact(height * width))
            .zip(levels.par_chunks_exact(height * width))
            .zip(&mut self.work)
            .enumerate();
        planes.for_each(|(plane, (((dspectrum, dimage), levels), work))| {
            let deviation = deviation[plane % 3];
            let rows = dimage.chunks_exact(width).zip(levels.chunks_exact(width));
            for (row, (dvalues, levels)) in rows.enumerate() {
                for ((slot, dvalue), level) in work.row.iter_mut().zip(dvalues).zip(levels) {
                    *slot = Complex::new(dvalue / deviation * level * (1.0 - level), 0.0);
                }
                rows_transform.process_with_scratch(&mut work.row, &mut work.scratch);
                for column in 0..half {
                    work.columns[column * height + row] = work.row[column];
                }
            }
            columns_transform.process_with_scratch(&mut work.columns, &mut work.scratch);
            for (index, (dvalue, scale)) in dspectrum.chunks_exact_mut(2).zip(scale).enumerate() {
                let column = index % half;
                // A frequency and its mirror both follow the one parameter.
                let copies = if (width - column) % width == column {
                    1.0
                } else {
                    2.0
                };
                let slope = work.columns[column * height + index / half];
                dvalue[0] = slope.re * scale * copies;
                dvalue[1] = slope.im * scale * copies;
            }
        });
    }
}

/// `AMPLITUDE / max(frequency, 1/longer side)`, divided by the root of the pixel count (the orthonormal transform).
pub(crate) fn frequency_scale(height: usize, width: usize) -> Vec<f32> {
    let lowest = 1.0 / height.max(width) as f64;
    let normalisation = ((height * width) as f64).sqrt();
    let frequencies = (0..height).flat_map(|row| {
        let vertical = row.min(height - row) as f64 / height as f64;
        (0..=width / 2).map(move |column| vertical.hypot(column as f64 / width as f64))
    });
    frequencies
        .map(|frequency| (AMPLITUDE / frequency.max(lowest) / normalisation) as f32)
        .collect()
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::f64::consts::TAU;
    use test_support::gradient_check::{assert_gradient, assert_near, noise, widen};

    /// The sum over the whole spectrum, cosine by cosine.
    fn plain(spectrum: &[f64], height: usize, width: usize) -> Vec<f64> {
        let half = width / 2 + 1;
        let lowest = 1.0 / height.max(width) as f64;
        let mut values = vec![0.0; height * width];
        for (index, value) in values.iter_mut().enumerate() {
            let (y, x) = ((index / width) as f64, (index % width) as f64);
            for k in 0..height {
                for l in 0..half {
                    let vertical = if 2 * k < height {
                        k as f64
                    } else {
                        k as f64 - height as f64
                    };
                    let frequency = (vertical / height as f64).hypot(l as f64 / width as f64);
                    let angle = TAU * (k as f64 * y / height as f64 + l as f64 * x / width as f64);
                    let copies = if l == 0 || 2 * l == width { 1.0 } else { 2.0 };
                    let part = &spectrum[(k * half + l) * 2..];
                    let wave = part[0] * angle.cos() - part[1] * angle.sin();
                    *value += copies * wave * 0.6 / frequency.max(lowest);
                }
            }
        }
        let root = ((height * width) as f64).sqrt();
        values
            .iter()
            .map(|value| 1.0 / (1.0 + (-value / root).exp()))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn levels_and_gradient_equal_the_plain_sum_on_odd_and_even_sizes(
            height in 1usize..7, width in 1usize..7, seed in 0u64..1000,
        ) {
            let mut fourier = Fourier::new(3, height, width);
            let spectrum = noise(seed, 3 * height * (width / 2 + 1) * 2);
            let mut levels = vec![f32::NAN; 3 * height * width];
            fourier.levels(&spectrum, &mut levels);
            let plane = spectrum.len() / 3;
            let forward = |at: &[f64]| -> Vec<f64> {
                at.chunks(plane).flat_map(|part| plain(part, height, width)).collect()
            };
            for (found, expected) in levels.iter().zip(forward(&widen(&spectrum))) {
                assert_near("level", *found, expected, 1e-5);
            }
            let dimages = noise(seed + 1, levels.len());
            let mut dspectrum = vec![f32::NAN; spectrum.len()];
            let deviation = [0.5, 1.0, 2.0];
            fourier.backward(&dimages, &levels, deviation, &mut dspectrum);
            let weights: Vec<f64> = dimages
                .iter()
                .enumerate()
                .map(|(i, &d)| f64::from(d / deviation[i / (height * width)]))
                .collect();
            assert_gradient("dspectrum", &spectrum, &dspectrum, |at| {
                forward(at).iter().zip(&weights).map(|(a, b)| a * b).sum()
            });
        }
    }
}
