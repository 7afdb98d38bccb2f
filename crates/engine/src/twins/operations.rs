//! Linear maps, LayerNorm, activations and the choice of tokens, against plain loops.

use super::{SUMS, TestMemory, all, assert_near_all, dot, exact_distribution};
use crate::backend::{Backend, Norm, NormOutput};
use model::backbone::Activation;
use proptest::prelude::*;
use test_support::gradient_check::{assert_gradient, noise, widen};

fn plain_linear(x: &[f64], weight: &[f64], inputs: usize) -> Vec<f64> {
    let rows = x.chunks(inputs);
    let products = rows.flat_map(|x| weight.chunks(inputs).map(move |w| dot(x, w)));
    products.collect()
}

fn plain_norm(x: &[f64], weight: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
    let width = weight.len();
    let mut out = Vec::new();
    for x in x.chunks(width) {
        let mean = x.iter().sum::<f64>() / width as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        for ((x, weight), bias) in x.iter().zip(weight).zip(bias) {
            out.push((x - mean) / (variance + epsilon).sqrt() * weight + bias);
        }
    }
    out
}

fn plain_activation(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Gelu => x * exact_distribution(x),
    }
}

pub fn linear_maps_and_their_backward_equal_plain_loops<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(40), |(
        rows in 0usize..20, inputs in 1usize..70, outputs in 1usize..300, seed in any::<u16>(), add in any::<bool>(),
        threads in 1usize..4,
    )| {
        let backend = &backend.spread(threads);
        let seed = u64::from(seed);
        let (x, w) = (noise(seed, rows * inputs), noise(seed + 1, outputs * inputs));
        let (dy, start) = (noise(seed + 2, rows * outputs), noise(seed + 3, rows * inputs));
        let weight = backend.weight(&[&w], inputs);
        let mut memory = TestMemory::new(backend);
        let x_at = memory.put(rows, inputs, &x);
        let dy_at = memory.put(rows, outputs, &dy);
        let y_at = memory.take(rows, outputs);
        let dx_at = memory.put(rows, inputs, &start);
        backend.linear(&mut memory.queue, x_at, &weight, y_at);
        backend.linear_backward(&mut memory.queue, dy_at, &weight, dx_at, add);
        assert_near_all("y", &memory.get(y_at), &plain_linear(&widen(&x), &widen(&w), inputs), SUMS);
        let expected: Vec<f64> = (0..rows * inputs).map(|at| {
            let (row, column) = (at / inputs, at % inputs);
            let products = (0..outputs).map(|o| f64::from(dy[row * outputs + o]) * f64::from(w[o * inputs + column]));
            products.sum::<f64>() + if add { f64::from(start[at]) } else { 0.0 }
        }).collect();
        assert_near_all("dx", &memory.get(dx_at), &expected, SUMS);
    });
}

pub fn thin_products_equal_plain_loops<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(40), |(
        rows in 0usize..12, width in 1usize..70, rank in 1usize..10, seed in any::<u16>(),
    )| {
        let seed = u64::from(seed);
        let (x, factor) = (noise(seed, rows * width), noise(seed + 1, rank * width));
        let (u, y) = (noise(seed + 2, rows * rank), noise(seed + 3, rows * width));
        let dfactor = noise(seed + 4, rank * width);
        let mut memory = TestMemory::new(backend);
        let x_at = memory.put(rows, width, &x);
        let u_at = memory.put(rows, rank, &u);
        let out_at = memory.take(rows, rank);
        let y_at = memory.put(rows, width, &y);
        let d_at = memory.put(rank, width, &dfactor);
        let vector = backend.vector(&factor);
        backend.low_rank_down(&mut memory.queue, x_at, all(&vector), 0.7, out_at);
        backend.low_rank_up(&mut memory.queue, u_at, all(&vector), y_at);
        backend.low_rank_gradient(&mut memory.queue, u_at, x_at, d_at);
        let down: Vec<f64> = plain_linear(&widen(&x), &widen(&factor), width).iter().map(|v| v * f64::from(0.7f32)).collect();
        assert_near_all("down", &memory.get(out_at), &down, SUMS);
        let up: Vec<f64> = (0..rows * width).map(|at| f64::from(y[at]) + (0..rank).map(|r| {
            f64::from(u[at / width * rank + r]) * f64::from(factor[r * width + at % width])
        }).sum::<f64>()).collect();
        assert_near_all("up", &memory.get(y_at), &up, SUMS);
        let gradient: Vec<f64> = (0..rank * width).map(|at| f64::from(dfactor[at]) + (0..rows).map(|row| {
            f64::from(u[row * rank + at / width]) * f64::from(x[row * width + at % width])
        }).sum::<f64>()).collect();
        assert_near_all("gradient", &memory.get(d_at), &gradient, SUMS);
    });
}

pub fn layer_norm_behind_a_residual_sum_equals_the_plain_formula<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(40), |(
        rows in 0usize..6, width in 2usize..70, seed in any::<u16>(), scaled in any::<bool>(), chosen in any::<bool>(),
    )| {
        let seed = u64::from(seed);
        let x = noise(seed, (rows + 3) * width);
        let branch = noise(seed + 1, rows * width);
        let [bias, scale, weight, shift] = std::array::from_fn(|i| noise(seed + 2 + i as u64, width));
        let index: Vec<u32> = (0..rows as u32).map(|row| row + 3 - row % 2).collect();
        let mut memory = TestMemory::new(backend);
        let x_at = memory.put(rows + 3, width, &x);
        let index_at = memory.put_indices(&index);
        let branch_at = memory.put(rows, width, &branch);
        let sum_at = memory.take(rows, width);
        let out = NormOutput { normed: memory.take(rows, width), statistics: memory.take_dense(rows, 2) };
        let [bias_vector, scale_vector, weight_vector, shift_vector] =
            [&bias, &scale, &weight, &shift].map(|values| backend.vector(values));
        let norm = Norm { weight: &weight_vector, bias: &shift_vector, epsilon: 1e-6 };
        backend.residual_norm(&mut memory.queue, x_at, chosen.then_some(index_at), branch_at, &bias_vector,
            scaled.then_some(&scale_vector), sum_at, Some((norm, out)));
        let sum: Vec<f64> = (0..rows * width).map(|at| {
            let (row, column) = (at / width, at % width);
            let source = if chosen { index[row] as usize } else { row };
            let factor = if scaled { f64::from(scale[column]) } else { 1.0 };
            f64::from(x[source * width + column]) + factor * (f64::from(branch[at]) + f64::from(bias[column]))
        }).collect();
        assert_near_all("sum", &memory.get(sum_at), &sum, SUMS);
        // Two values that are nearly equal make a tiny variance, which magnifies what f32 has rounded.
        let rounded = widen(&memory.get(sum_at));
        let normed = plain_norm(&rounded, &widen(&weight), &widen(&shift), f64::from(1e-6f32));
        assert_near_all("normed", &memory.get(out.normed), &normed, 2e-5);
    });
}

pub fn layer_norm_and_its_gradient_equal_plain_loops<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(40), |(
        rows in 0usize..5, width in 1usize..50, seed in any::<u16>(),
    )| {
        let run = NormRun::new(backend, rows, width, u64::from(seed));
        let normed = plain_norm(&widen(&run.x), &widen(&run.weight), &widen(&run.bias), f64::from(NormRun::EPSILON));
        assert_near_all("normed", &run.normed, &normed, 2e-6);
        // A gradient is a small difference of what the reciprocal deviation, 32 at most, has magnified.
        assert_near_all("dx", &run.dx, &run.plain_dx(), 1e-5);
        let added: Vec<f64> = run.dx.iter().zip(&run.start).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
        assert_near_all("added dx", &run.added_dx, &added, 2e-7);
    });
}

pub fn activations_equal_the_plain_formulas_and_their_slopes<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(40), |(
        rows in 0usize..4, width in 1usize..40, seed in any::<u16>(), quick in any::<bool>(), in_place in any::<bool>(),
    )| {
        let seed = u64::from(seed);
        let activation = if quick { Activation::QuickGelu } else { Activation::Gelu };
        let x: Vec<f32> = noise(seed, rows * width).iter().map(|v| 4.0 * v).collect();
        let (bias, dy) = (noise(seed + 1, width), noise(seed + 2, rows * width));
        let mut memory = TestMemory::new(backend);
        let x_at = memory.put(rows, width, &x);
        let dy_at = memory.put(rows, width, &dy);
        let vector = backend.vector(&bias);
        backend.activation_backward(&mut memory.queue, x_at, &vector, activation, dy_at);
        let y_at = if in_place { x_at } else { memory.take(rows, width) };
        backend.activation(&mut memory.queue, x_at, &vector, activation, y_at);
        let plain = |x: &[f64]| -> Vec<f64> {
            x.iter().enumerate().map(|(at, x)| plain_activation(x + f64::from(bias[at % width]), activation)).collect()
        };
        assert_near_all("y", &memory.get(y_at), &plain(&widen(&x)), 5e-7);
        let found = memory.get(dy_at);
        // Element by element: one difference a value.
        for at in 0..x.len() {
            let wide = f64::from(x[at]) + f64::from(bias[at % width]);
            let slope = (plain_activation(wide + 1e-5, activation) - plain_activation(wide - 1e-5, activation)) / 2e-5;
            prop_assert!((f64::from(found[at]) - f64::from(dy[at]) * slope).abs() < 2e-6, "dy[{at}]");
        }
    });
}

pub fn chosen_rows_are_those_with_the_most_attention<B: Backend>(backend: &B) {
    proptest!(ProptestConfig::with_cases(40), |(
        attention in prop::collection::vec(0u8..6, 1..30), images in 1usize..4, keep in 0usize..30,
    )| {
        let patches = attention.len();
        let keep = keep.min(patches);
        // Few levels, so that equals are common.
        let values: Vec<f32> = (0..images * patches).map(|i| f32::from(attention[(i * 7 + i / patches) % patches])).collect();
        let mut memory = TestMemory::new(backend);
        let attention_at = memory.put(images, patches, &values);
        let rows_at = memory.put_indices(&vec![0; images * (1 + keep)]);
        backend.choose_rows(&mut memory.queue, Some(attention_at), patches + 1, keep, rows_at);
        let mut found = vec![0; images * (1 + keep)];
        backend.download(&mut memory.queue, rows_at);
        backend.finish(&mut memory.queue).unwrap();
        backend.downloaded_indices(&memory.queue, rows_at, &mut found);
        let expected = (0..images).flat_map(|image| {
            let own = &values[image * patches..][..patches];
            let mut order: Vec<usize> = (0..patches).collect();
            order.sort_by(|&a, &b| own[b].total_cmp(&own[a]));
            let mut kept: Vec<usize> = order[..keep].to_vec();
            kept.sort_unstable();
            let first = image * (patches + 1);
            std::iter::once(first).chain(kept.into_iter().map(move |patch| first + 1 + patch)).map(|row| row as u32).collect::<Vec<_>>()
        });
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    });
}

/// LayerNorm of drawn values and its gradient, written to zeros and added to other values.
struct NormRun {
    x: Vec<f32>,
    dnormed: Vec<f32>,
    start: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    normed: Vec<f32>,
    dx: Vec<f32>,
    added_dx: Vec<f32>,
}

impl NormRun {
    const EPSILON: f32 = 1e-3;

    fn new<B: Backend>(backend: &B, rows: usize, width: usize, seed: u64) -> Self {
        let [x, dnormed, start] = std::array::from_fn(|i| noise(seed + i as u64, rows * width));
        let (weight, bias) = (noise(seed + 3, width), noise(seed + 4, width));
        let vectors = [&weight, &bias].map(|values| backend.vector(values));
        let norm = || Norm {
            weight: &vectors[0],
            bias: &vectors[1],
            epsilon: Self::EPSILON,
        };
        let mut memory = TestMemory::new(backend);
        let zeros = vec![0.0; rows * width];
        let [x_at, dnormed_at, dx_at, added_at] =
            [&x, &dnormed, &zeros, &start].map(|values| memory.put(rows, width, values));
        let out = NormOutput {
            normed: memory.take(rows, width),
            statistics: memory.take_dense(rows, 2),
        };
        backend.norm(&mut memory.queue, x_at, norm(), out);
        for dx in [dx_at, added_at] {
            let borrowed = &mut memory.queue;
            backend.norm_backward(borrowed, dnormed_at, x_at, out.statistics, norm(), dx);
        }
        Self {
            normed: memory.get(out.normed),
            dx: memory.get(dx_at),
            added_dx: memory.get(added_at),
            x,
            dnormed,
            start,
            weight,
            bias,
        }
    }

    /// `(g − mean(g) − x̂·mean(g∘x̂)) / deviation` with `g = weight∘dnormed` and `x̂` the normed values before weight and bias.
    fn plain_dx(&self) -> Vec<f64> {
        let width = self.weight.len();
        let mut dx = Vec::new();
        let rows = self.x.chunks(width).zip(self.dnormed.chunks(width));
        for (x, dnormed) in rows {
            let x = widen(x);
            let mean = x.iter().sum::<f64>() / width as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let deviation = (variance + f64::from(Self::EPSILON)).sqrt();
            let unit: Vec<f64> = x.iter().map(|x| (x - mean) / deviation).collect();
            let pairs = dnormed.iter().zip(&self.weight);
            let g: Vec<f64> = pairs.map(|(d, w)| f64::from(*d) * f64::from(*w)).collect();
            let (mean, along) = (g.iter().sum::<f64>(), dot(&g, &unit));
            for (g, unit) in g.iter().zip(&unit) {
                dx.push((g - (mean + unit * along) / width as f64) / deviation);
            }
        }
        dx
    }
}

pub fn layer_norm_backward_is_the_slope_of_the_plain_formula<B: Backend>(backend: &B) {
    for width in [2, 3, 16, 17, 31, 48] {
        let run = NormRun::new(backend, 3, width, width as u64);
        let (weight, bias, weights) = (widen(&run.weight), widen(&run.bias), widen(&run.dnormed));
        assert_gradient("dx", &run.x, &run.dx, |x| {
            let normed = plain_norm(x, &weight, &bias, f64::from(NormRun::EPSILON));
            dot(&normed, &weights)
        });
    }
}
