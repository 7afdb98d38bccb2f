//! The CPU backend. Operations run on the calling thread; a caller with several threads gives each its own images. Only where there
//! are fewer images than threads do products of weights share the rest.

#![allow(
    unsafe_code,
    reason = "instructions of the processor at hand, and threads that write side by side"
)]

mod activation;
mod attention;
mod buffer;
mod low_rank;
mod norm;
#[cfg(target_arch = "x86_64")]
mod operand;
mod packed;
#[cfg(target_arch = "x86_64")]
mod panels;
mod product;
mod simd;
#[cfg(target_arch = "x86_64")]
mod tile;
mod tokens;

pub use buffer::Buffer;

use super::backend::{
    AttentionInput, AttentionShape, Backend, Matrix, Memory, Norm, NormOutput, PatchGrid,
};
use buffer::{view, views, views_with_optional};
use model::backbone::{Activation, Pooling};
use operand::Operand;
use product::spread_product;

/// Computes on the processor, with the best vector instructions that it has.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// Threads of the calling pool that a product with frozen weights may use.
    threads: usize,
}

impl Default for Cpu {
    fn default() -> Self {
        Self { threads: 1 }
    }
}

/// A frozen linear map `[out, inputs]`.
pub enum Weight {
    /// Cut into panels that fit the vector registers.
    #[cfg(target_arch = "x86_64")]
    Panels(panels::Panels),
    /// Row-major, for processors that panels are not made for.
    Rows {
        /// `[out, inputs]`
        values: Vec<f32>,
        /// Length of a row.
        inputs: usize,
    },
}

fn affine<'a>(norm: Norm<'a, Vec<f32>>) -> norm::NormParameters<'a> {
    norm::NormParameters {
        weight: norm.weight,
        bias: norm.bias,
        epsilon: norm.epsilon,
    }
}

impl Backend for Cpu {
    type Buffer = Buffer;
    type Weight = Weight;
    type Vector = Vec<f32>;

    fn spread(&self, threads: usize) -> Self {
        Self { threads }
    }

    fn buffer(&self) -> Buffer {
        Buffer::default()
    }

    fn reserve(&self, buffer: &mut Buffer, length: usize) {
        buffer.reserve(length);
    }

    fn weight(&self, parts: &[&[f32]], inputs: usize, _with_backward: bool) -> Weight {
        #[cfg(target_arch = "x86_64")]
        if let Some(panels) = panels::Panels::new(parts, inputs) {
            return Weight::Panels(panels);
        }
        Weight::Rows {
            values: parts.concat(),
            inputs,
        }
    }

    fn vector(&self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn write_vector(&self, vector: &mut Vec<f32>, values: &[f32]) {
        vector.copy_from_slice(values);
    }

    fn upload(&self, memory: &mut Memory<'_, Buffer>, values: &[f32], target: Matrix) {
        let ([target], []) = views(memory, [target], []);
        target.values.copy_from_slice(values);
    }

    fn upload_indices(&self, memory: &mut Memory<'_, Buffer>, values: &[u32], target: Matrix) {
        let ([target], []) = views(memory, [target], []);
        for (target, &value) in target.values.iter_mut().zip(values) {
            *target = f32::from_bits(value);
        }
    }

    fn download(&self, memory: &Memory<'_, Buffer>, source: Matrix, values: &mut [f32]) {
        let source = view(memory, source);
        for (row, values) in values.chunks_exact_mut(source.columns).enumerate() {
            values.copy_from_slice(source.row(row));
        }
    }

    fn download_indices(&self, memory: &Memory<'_, Buffer>, source: Matrix, values: &mut [u32]) {
        let source = view(memory, source);
        for (row, value) in values.iter_mut().enumerate() {
            *value = source.index(row) as u32;
        }
    }

    fn fill_zero(&self, memory: &mut Memory<'_, Buffer>, target: Matrix) {
        let ([mut target], []) = views(memory, [target], []);
        for row in 0..target.rows {
            target.row(row).fill(0.0);
        }
    }

    fn patchify(
        &self,
        memory: &mut Memory<'_, Buffer>,
        pixels: &[f32],
        grid: PatchGrid,
        positions: Option<Matrix>,
        patches: Matrix,
    ) {
        let ([mut patches], ([], positions)) =
            views_with_optional(memory, [patches], [], positions);
        tokens::patchify(pixels, grid, positions, &mut patches);
    }

    fn patchify_backward(
        &self,
        memory: &Memory<'_, Buffer>,
        dpatches: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        dpixels: &mut [f32],
    ) {
        let positions = positions.map(|positions| view(memory, positions));
        tokens::patchify_backward(view(memory, dpatches), grid, positions, dpixels);
    }

    fn embed(
        &self,
        memory: &mut Memory<'_, Buffer>,
        tokens: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        bias: Option<&Vec<f32>>,
        class_token: &Vec<f32>,
        position_embedding: &Vec<f32>,
    ) {
        let ([mut tokens], ([], positions)) = views_with_optional(memory, [tokens], [], positions);
        let embedding = tokens::TokenEmbedding {
            bias: bias.map(Vec::as_slice),
            class_token,
            position: position_embedding,
        };
        tokens::embed(&mut tokens, grid, positions, &embedding);
    }

    fn linear(&self, memory: &mut Memory<'_, Buffer>, x: Matrix, weight: &Weight, y: Matrix) {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "written by rows there")
        )]
        let ([mut y], [x]) = views(memory, [y], [x]);
        match weight {
            #[cfg(target_arch = "x86_64")]
            Weight::Panels(panels) => panels.forward(self.threads, x, &mut y),
            Weight::Rows { values, inputs } => spread_product(
                self.threads,
                [x.rows, y.columns, x.columns],
                Operand::rows(x.values, x.stride),
                Operand::transposed(values, *inputs),
                y.values,
                y.stride,
                false,
            ),
        }
    }

    fn linear_backward(
        &self,
        memory: &mut Memory<'_, Buffer>,
        dy: Matrix,
        weight: &Weight,
        dx: Matrix,
        add: bool,
    ) {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "written by rows there")
        )]
        let ([mut dx], [dy]) = views(memory, [dx], [dy]);
        match weight {
            #[cfg(target_arch = "x86_64")]
            Weight::Panels(panels) => panels.backward(self.threads, dy, &mut dx, add),
            Weight::Rows { values, inputs } => spread_product(
                self.threads,
                [dy.rows, dx.columns, dy.columns],
                Operand::rows(dy.values, dy.stride),
                Operand::rows(values, *inputs),
                dx.values,
                dx.stride,
                add,
            ),
        }
    }

    fn low_rank_down(
        &self,
        memory: &mut Memory<'_, Buffer>,
        x: Matrix,
        matrix: &Vec<f32>,
        scale: f32,
        u: Matrix,
    ) {
        let ([mut u], [x]) = views(memory, [u], [x]);
        low_rank::down(x, matrix, scale, &mut u);
    }

    fn low_rank_up(
        &self,
        memory: &mut Memory<'_, Buffer>,
        u: Matrix,
        matrix: &Vec<f32>,
        y: Matrix,
    ) {
        let ([mut y], [u]) = views(memory, [y], [u]);
        low_rank::up(u, matrix, &mut y);
    }

    fn low_rank_gradient(
        &self,
        memory: &mut Memory<'_, Buffer>,
        u: Matrix,
        x: Matrix,
        dmatrix: Matrix,
    ) {
        let ([mut dmatrix], [u, x]) = views(memory, [dmatrix], [u, x]);
        low_rank::gradient(u, x, &mut dmatrix);
    }

    fn norm(
        &self,
        memory: &mut Memory<'_, Buffer>,
        x: Matrix,
        norm: Norm<'_, Vec<f32>>,
        out: NormOutput,
    ) {
        let ([mut y, mut statistics], [x]) = views(memory, [out.normed, out.statistics], [x]);
        norm::norm(x, affine(norm), &mut y, &mut statistics);
    }

    fn norm_backward(
        &self,
        memory: &mut Memory<'_, Buffer>,
        dnormed: Matrix,
        x: Matrix,
        statistics: Matrix,
        norm: Norm<'_, Vec<f32>>,
        dx: Matrix,
    ) {
        let ([mut dx], [dnormed, x, statistics]) = views(memory, [dx], [dnormed, x, statistics]);
        norm::norm_backward(dnormed, x, statistics, norm.weight, &mut dx);
    }

    fn residual_norm(
        &self,
        memory: &mut Memory<'_, Buffer>,
        x: Matrix,
        rows: Option<Matrix>,
        branch: Matrix,
        bias: &Vec<f32>,
        scale: Option<&Vec<f32>>,
        sum: Matrix,
        norm: Option<(Norm<'_, Vec<f32>>, NormOutput)>,
    ) {
        let scale = scale.map(Vec::as_slice);
        match norm {
            Some((norm, out)) => {
                let outs = [sum, out.normed, out.statistics];
                let ([mut sum, mut normed, mut statistics], ([x, branch], rows)) =
                    views_with_optional(memory, outs, [x, branch], rows);
                let out = norm::NormedOut {
                    sum: &mut sum,
                    normed: &mut normed,
                    statistics: &mut statistics,
                };
                norm::residual_norm_rows(x, rows, branch, bias, scale, affine(norm), out);
            }
            None => {
                let ([mut sum], ([x, branch], rows)) =
                    views_with_optional(memory, [sum], [x, branch], rows);
                norm::residual_rows(x, rows, branch, bias, scale, &mut sum);
            }
        }
    }

    fn scale_columns(
        &self,
        memory: &mut Memory<'_, Buffer>,
        x: Matrix,
        scale: &Vec<f32>,
        y: Matrix,
    ) {
        let ([mut y], [x]) = views(memory, [y], [x]);
        norm::scale_columns(x, scale, &mut y);
    }

    fn activation(
        &self,
        memory: &mut Memory<'_, Buffer>,
        x: Matrix,
        bias: &Vec<f32>,
        activation: Activation,
        y: Matrix,
    ) {
        if x == y {
            let ([mut x], []) = views(memory, [x], []);
            match activation {
                Activation::Gelu => activation::gelu_in_place(&mut x, bias),
                Activation::QuickGelu => activation::quick_gelu_in_place(&mut x, bias),
            }
        } else {
            let ([mut y], [x]) = views(memory, [y], [x]);
            match activation {
                Activation::Gelu => activation::gelu_rows(x, bias, &mut y),
                Activation::QuickGelu => activation::quick_gelu_rows(x, bias, &mut y),
            }
        }
    }

    fn activation_backward(
        &self,
        memory: &mut Memory<'_, Buffer>,
        x: Matrix,
        bias: &Vec<f32>,
        activation: Activation,
        dy: Matrix,
    ) {
        let ([mut dy], [x]) = views(memory, [dy], [x]);
        match activation {
            Activation::Gelu => activation::gelu_backward(x, bias, &mut dy),
            Activation::QuickGelu => activation::quick_gelu_backward(x, bias, &mut dy),
        }
    }

    fn attention(
        &self,
        memory: &mut Memory<'_, Buffer>,
        shape: AttentionShape,
        input: AttentionInput<'_, Vec<f32>>,
        context: Matrix,
    ) {
        let outs = [context, input.log_sum, input.scratch];
        let ([mut context, mut log_sum, scratch], [query, key_value]) =
            views(memory, outs, [input.query, input.key_value]);
        let input = attention::AttentionViews {
            shape,
            query,
            key_value,
            query_bias: input.query_bias,
            value_bias: input.value_bias,
        };
        attention::forward(&input, &mut context, &mut log_sum, scratch.values);
    }

    fn attention_backward(
        &self,
        memory: &mut Memory<'_, Buffer>,
        shape: AttentionShape,
        input: AttentionInput<'_, Vec<f32>>,
        dcontext: Matrix,
        dquery: Matrix,
        dkey_value: Matrix,
    ) {
        let ([mut dquery, mut dkey_value, scratch], [query, key_value, log_sum, dcontext]) = views(
            memory,
            [dquery, dkey_value, input.scratch],
            [input.query, input.key_value, input.log_sum, dcontext],
        );
        let input = attention::AttentionViews {
            shape,
            query,
            key_value,
            query_bias: input.query_bias,
            value_bias: input.value_bias,
        };
        attention::backward(
            &input,
            log_sum,
            dcontext,
            &mut dquery,
            &mut dkey_value,
            scratch.values,
        );
    }

    fn class_attention(
        &self,
        memory: &mut Memory<'_, Buffer>,
        shape: AttentionShape,
        class_query: Matrix,
        key_value: Matrix,
        query_bias: &Vec<f32>,
        scratch: Matrix,
        attention: Matrix,
    ) {
        let ([mut attention, scratch], [query, key_value]) =
            views(memory, [attention, scratch], [class_query, key_value]);
        let input = attention::AttentionViews {
            shape: AttentionShape {
                queries: 1,
                ..shape
            },
            query,
            key_value,
            query_bias,
            value_bias: &[],
        };
        attention::class_attention(&input, &mut attention, scratch.values);
    }

    fn choose_rows(
        &self,
        memory: &mut Memory<'_, Buffer>,
        attention: Option<Matrix>,
        tokens: usize,
        keep: usize,
        rows: Matrix,
    ) {
        let ([mut rows], ([], attention)) = views_with_optional(memory, [rows], [], attention);
        tokens::choose_rows(attention, tokens, keep, &mut rows);
    }

    fn gather(&self, memory: &mut Memory<'_, Buffer>, x: Matrix, rows: Matrix, y: Matrix) {
        let ([mut y], [x, rows]) = views(memory, [y], [x, rows]);
        tokens::gather(x, rows, &mut y);
    }

    fn scatter_add(&self, memory: &mut Memory<'_, Buffer>, dy: Matrix, rows: Matrix, dx: Matrix) {
        let ([mut dx], [dy, rows]) = views(memory, [dx], [dy, rows]);
        tokens::scatter_add(dy, rows, &mut dx);
    }

    fn column_sums(&self, memory: &mut Memory<'_, Buffer>, x: Matrix, sums: &mut [f64]) {
        tokens::column_sums(view(memory, x), sums);
    }

    fn add_affine(
        &self,
        memory: &mut Memory<'_, Buffer>,
        x: Matrix,
        offset: &[f32],
        slope: &[f32],
        dx: Matrix,
    ) {
        let ([mut dx], [x]) = views(memory, [dx], [x]);
        tokens::add_affine(x, offset, slope, &mut dx);
    }

    fn pool(
        &self,
        memory: &mut Memory<'_, Buffer>,
        tokens: Matrix,
        pooling: Pooling,
        pooled: Matrix,
    ) {
        let ([mut pooled], [tokens]) = views(memory, [pooled], [tokens]);
        tokens::pool(tokens, pooling, &mut pooled);
    }

    fn pool_backward(
        &self,
        memory: &mut Memory<'_, Buffer>,
        dpooled: Matrix,
        pooling: Pooling,
        dtokens: Matrix,
    ) {
        let ([mut dtokens], [dpooled]) = views(memory, [dtokens], [dpooled]);
        tokens::pool_backward(dpooled, pooling, &mut dtokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Region;

    #[test]
    #[should_panic(expected = "overlaps")]
    fn an_output_that_overlaps_an_input_is_refused() {
        let mut buffers: [Buffer; 3] = Default::default();
        buffers[0].reserve(64);
        let [kept, scratch, gradients] = &mut buffers;
        let mut memory = Memory {
            kept,
            scratch,
            gradients,
        };
        let x = Matrix {
            region: Region::Kept,
            start: 0,
            rows: 4,
            columns: 4,
            stride: 7,
        };
        let y = Matrix {
            start: x.start + 2,
            ..x
        };
        Cpu::default().scale_columns(&mut memory, x, &vec![1.0; 4], y);
    }
}
