//! The CPU backend. Operations run on the calling thread; a caller with several threads gives each its own images. Only where there
//! are fewer images than threads do products of weights share the rest.

#![allow(
    unsafe_code,
    reason = "instructions of the processor at hand, and threads that write side by side"
)]

mod activation;
mod attention;
mod buffer;
mod images;
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

pub use buffer::{Buffer, Queue};

use super::backend::{
    AttentionInput, AttentionShape, Backend, BufferLengths, DeviceError, Matrix, Norm, NormOutput,
    PatchGrid, VectorPart, WorkShape,
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

fn part(part: VectorPart<'_, Vec<f32>>, length: usize) -> &[f32] {
    &part.vector[part.start..][..length]
}

/// Rows of a micro-batch that are aimed at: enough to amortise the packing of weights, few enough for the cache.
const ROWS_AIMED_AT: usize = 200;

impl Backend for Cpu {
    type Queue = Queue;
    type Weight = Weight;
    type Vector = Vec<f32>;

    fn is_host(&self) -> bool {
        true
    }

    fn work_shape(&self, threads: usize) -> WorkShape {
        WorkShape {
            queues: threads,
            rows_aimed_at: ROWS_AIMED_AT,
        }
    }

    fn attention_scratch(&self, shape: AttentionShape) -> usize {
        attention::scratch(shape)
    }

    fn spread(&self, threads: usize) -> Self {
        Self { threads }
    }

    fn queue(&self) -> Queue {
        Queue::default()
    }

    fn enter(
        &self,
        queue: &mut Queue,
        slot: usize,
        lengths: BufferLengths,
    ) -> Result<(), DeviceError> {
        queue.enter(slot, lengths);
        Ok(())
    }

    fn clear_gradients(&self, queue: &mut Queue, length: usize) -> Result<(), DeviceError> {
        queue.clear_gradients(length);
        Ok(())
    }

    fn finish(&self, _queue: &mut Queue) -> Result<(), DeviceError> {
        Ok(())
    }

    fn weight(&self, parts: &[&[f32]], inputs: usize) -> Weight {
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

    fn upload(&self, queue: &mut Queue, values: &[f32], target: Matrix) {
        let ([target], []) = views(queue, [target], []);
        target.values.copy_from_slice(values);
    }

    fn upload_indices(&self, queue: &mut Queue, values: &[u32], target: Matrix) {
        let ([target], []) = views(queue, [target], []);
        for (target, &value) in target.values.iter_mut().zip(values) {
            *target = f32::from_bits(value);
        }
    }

    fn download(&self, _queue: &mut Queue, _source: Matrix) {}

    fn downloaded(&self, queue: &Queue, source: Matrix, values: &mut [f32]) {
        let source = view(queue, source);
        for (row, values) in values.chunks_exact_mut(source.columns).enumerate() {
            values.copy_from_slice(source.row(row));
        }
    }

    fn downloaded_indices(&self, queue: &Queue, source: Matrix, values: &mut [u32]) {
        let source = view(queue, source);
        for (row, value) in values.iter_mut().enumerate() {
            *value = source.index(row) as u32;
        }
    }

    fn fill_zero(&self, queue: &mut Queue, target: Matrix) {
        let ([mut target], []) = views(queue, [target], []);
        for row in 0..target.rows {
            target.row(row).fill(0.0);
        }
    }

    fn patchify(
        &self,
        queue: &mut Queue,
        pixels: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        patches: Matrix,
    ) {
        let ([mut patches], ([pixels], positions)) =
            views_with_optional(queue, [patches], [pixels], positions);
        tokens::patchify(pixels.values, grid, positions, &mut patches);
    }

    fn patchify_backward(
        &self,
        queue: &mut Queue,
        dpatches: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        dpixels: Matrix,
    ) {
        let ([dpixels], ([dpatches], positions)) =
            views_with_optional(queue, [dpixels], [dpatches], positions);
        tokens::patchify_backward(dpatches, grid, positions, dpixels.values);
    }

    fn embed(
        &self,
        queue: &mut Queue,
        tokens: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        bias: Option<&Vec<f32>>,
        class_token: &Vec<f32>,
        position_embedding: &Vec<f32>,
    ) {
        let ([mut tokens], ([], positions)) = views_with_optional(queue, [tokens], [], positions);
        let embedding = tokens::TokenEmbedding {
            bias: bias.map(Vec::as_slice),
            class_token,
            position: position_embedding,
        };
        tokens::embed(&mut tokens, grid, positions, &embedding);
    }

    fn linear(&self, queue: &mut Queue, x: Matrix, weight: &Weight, y: Matrix) {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "written by rows there")
        )]
        let ([mut y], [x]) = views(queue, [y], [x]);
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
        queue: &mut Queue,
        dy: Matrix,
        weight: &Weight,
        dx: Matrix,
        add: bool,
    ) {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "written by rows there")
        )]
        let ([mut dx], [dy]) = views(queue, [dx], [dy]);
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
        queue: &mut Queue,
        x: Matrix,
        matrix: VectorPart<'_, Vec<f32>>,
        scale: f32,
        u: Matrix,
    ) {
        let ([mut u], [x]) = views(queue, [u], [x]);
        low_rank::down(x, part(matrix, u.columns * x.columns), scale, &mut u);
    }

    fn low_rank_up(
        &self,
        queue: &mut Queue,
        u: Matrix,
        matrix: VectorPart<'_, Vec<f32>>,
        y: Matrix,
    ) {
        let ([mut y], [u]) = views(queue, [y], [u]);
        low_rank::up(u, part(matrix, u.columns * y.columns), &mut y);
    }

    fn low_rank_gradient(&self, queue: &mut Queue, u: Matrix, x: Matrix, dmatrix: Matrix) {
        let ([mut dmatrix], [u, x]) = views(queue, [dmatrix], [u, x]);
        low_rank::gradient(u, x, &mut dmatrix);
    }

    fn norm(&self, queue: &mut Queue, x: Matrix, norm: Norm<'_, Vec<f32>>, out: NormOutput) {
        let ([mut y, mut statistics], [x]) = views(queue, [out.normed, out.statistics], [x]);
        norm::norm(x, affine(norm), &mut y, &mut statistics);
    }

    fn norm_backward(
        &self,
        queue: &mut Queue,
        dnormed: Matrix,
        x: Matrix,
        statistics: Matrix,
        norm: Norm<'_, Vec<f32>>,
        dx: Matrix,
    ) {
        let ([mut dx], [dnormed, x, statistics]) = views(queue, [dx], [dnormed, x, statistics]);
        norm::norm_backward(dnormed, x, statistics, norm.weight, &mut dx);
    }

    fn residual_norm(
        &self,
        queue: &mut Queue,
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
                    views_with_optional(queue, outs, [x, branch], rows);
                let out = norm::NormedOut {
                    sum: &mut sum,
                    normed: &mut normed,
                    statistics: &mut statistics,
                };
                norm::residual_norm_rows(x, rows, branch, bias, scale, affine(norm), out);
            }
            None => {
                let ([mut sum], ([x, branch], rows)) =
                    views_with_optional(queue, [sum], [x, branch], rows);
                norm::residual_rows(x, rows, branch, bias, scale, &mut sum);
            }
        }
    }

    fn scale_columns(&self, queue: &mut Queue, x: Matrix, scale: &Vec<f32>, y: Matrix) {
        let ([mut y], [x]) = views(queue, [y], [x]);
        norm::scale_columns(x, scale, &mut y);
    }

    fn activation(
        &self,
        queue: &mut Queue,
        x: Matrix,
        bias: &Vec<f32>,
        activation: Activation,
        y: Matrix,
    ) {
        if x == y {
            let ([mut x], []) = views(queue, [x], []);
            match activation {
                Activation::Gelu => activation::gelu_in_place(&mut x, bias),
                Activation::QuickGelu => activation::quick_gelu_in_place(&mut x, bias),
            }
        } else {
            let ([mut y], [x]) = views(queue, [y], [x]);
            match activation {
                Activation::Gelu => activation::gelu_rows(x, bias, &mut y),
                Activation::QuickGelu => activation::quick_gelu_rows(x, bias, &mut y),
            }
        }
    }

    fn activation_backward(
        &self,
        queue: &mut Queue,
        x: Matrix,
        bias: &Vec<f32>,
        activation: Activation,
        dy: Matrix,
    ) {
        let ([mut dy], [x]) = views(queue, [dy], [x]);
        match activation {
            Activation::Gelu => activation::gelu_backward(x, bias, &mut dy),
            Activation::QuickGelu => activation::quick_gelu_backward(x, bias, &mut dy),
        }
    }

    fn attention(
        &self,
        queue: &mut Queue,
        shape: AttentionShape,
        input: AttentionInput<'_, Vec<f32>>,
        context: Matrix,
    ) {
        let outs = [context, input.log_sum, input.scratch];
        let ([mut context, mut log_sum, scratch], [query, key_value]) =
            views(queue, outs, [input.query, input.key_value]);
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
        queue: &mut Queue,
        shape: AttentionShape,
        input: AttentionInput<'_, Vec<f32>>,
        dcontext: Matrix,
        dquery: Matrix,
        dkey_value: Matrix,
    ) {
        let ([mut dquery, mut dkey_value, scratch], [query, key_value, log_sum, dcontext]) = views(
            queue,
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
        queue: &mut Queue,
        shape: AttentionShape,
        class_query: Matrix,
        key_value: Matrix,
        query_bias: &Vec<f32>,
        scratch: Matrix,
        attention: Matrix,
    ) {
        let ([mut attention, scratch], [query, key_value]) =
            views(queue, [attention, scratch], [class_query, key_value]);
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
        queue: &mut Queue,
        attention: Option<Matrix>,
        tokens: usize,
        keep: usize,
        rows: Matrix,
    ) {
        let ([mut rows], ([], attention)) = views_with_optional(queue, [rows], [], attention);
        tokens::choose_rows(attention, tokens, keep, &mut rows);
    }

    fn gather(&self, queue: &mut Queue, x: Matrix, rows: Matrix, y: Matrix) {
        let ([mut y], [x, rows]) = views(queue, [y], [x, rows]);
        tokens::gather(x, rows, &mut y);
    }

    fn scatter_add(&self, queue: &mut Queue, dy: Matrix, rows: Matrix, dx: Matrix) {
        let ([mut dx], [dy, rows]) = views(queue, [dx], [dy, rows]);
        tokens::scatter_add(dy, rows, &mut dx);
    }

    fn column_sums(&self, queue: &mut Queue, x: Matrix, sums: Matrix) {
        let ([mut sums], [x]) = views(queue, [sums], [x]);
        tokens::column_sums(x, &mut sums);
    }

    fn add_affine(
        &self,
        queue: &mut Queue,
        x: Matrix,
        offset: VectorPart<'_, Vec<f32>>,
        slope: VectorPart<'_, Vec<f32>>,
        dx: Matrix,
    ) {
        let (offset, slope) = (part(offset, x.columns), part(slope, x.columns));
        let ([mut dx], [x]) = views(queue, [dx], [x]);
        tokens::add_affine(x, offset, slope, &mut dx);
    }

    fn add(&self, queue: &mut Queue, x: Matrix, y: Matrix) {
        let ([mut y], [x]) = views(queue, [y], [x]);
        tokens::add(x, &mut y);
    }

    fn pool(&self, queue: &mut Queue, tokens: Matrix, pooling: Pooling, pooled: Matrix) {
        let ([mut pooled], [tokens]) = views(queue, [pooled], [tokens]);
        tokens::pool(tokens, pooling, &mut pooled);
    }

    fn pool_backward(&self, queue: &mut Queue, dpooled: Matrix, pooling: Pooling, dtokens: Matrix) {
        let ([mut dtokens], [dpooled]) = views(queue, [dtokens], [dpooled]);
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
        let mut queue = Queue::default();
        let lengths = BufferLengths {
            kept: 64,
            scratch: 0,
            pixels: 0,
        };
        queue.enter(0, lengths);
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
        Cpu::default().scale_columns(&mut queue, x, &vec![1.0; 4], y);
    }
}
