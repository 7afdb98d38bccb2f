//! The CUDA device as a [`Backend`].

use super::queue::{Queue, Stored};
use super::tokens::Embedding;
use super::{Cuda, activation, attention, elementwise, linear, moments, norm, tokens};
use crate::backend::{
    AttentionInput, AttentionShape, Backend, BufferLengths, DeviceError, Matrix, Norm, NormOutput,
    PatchGrid, VectorPart, WorkShape,
};
use model::backbone::{Activation, Pooling};

/// Rows of a micro-batch at which the products of a ViT-B fill a large device several times over; more gain nothing.
const MOST_ROWS: usize = 1 << 15;

/// Bytes that a ViT-B keeps for the backward of one row.
const BYTES_PER_ROW: usize = 350 << 10;

impl Backend for Cuda {
    type Queue = Queue;
    type Weight = Stored;
    type Vector = Stored;

    /// One queue, and micro-batches that take half of the memory at most. All of the memory counts, not what is free at the moment, so
    /// that a batch is cut in the same way on every run.
    fn work_shape(&self, _threads: usize) -> WorkShape {
        let fit = self.device.memory / 2 / BYTES_PER_ROW;
        WorkShape {
            queues: 1,
            rows_aimed_at: fit.clamp(1, MOST_ROWS),
        }
    }

    fn attention_scratch(&self, shape: AttentionShape) -> usize {
        attention::scratch(shape)
    }

    fn spread(&self, _threads: usize) -> Self {
        self.clone()
    }

    fn queue(&self) -> Queue {
        Queue::new(&self.device, self.precision)
    }

    fn enter(
        &self,
        queue: &mut Queue,
        slot: usize,
        lengths: BufferLengths,
    ) -> Result<(), DeviceError> {
        queue.enter(slot, lengths)
    }

    fn clear_gradients(&self, queue: &mut Queue, length: usize) -> Result<(), DeviceError> {
        queue.clear_gradients(length)
    }

    fn finish(&self, queue: &mut Queue) -> Result<(), DeviceError> {
        queue.finish()
    }

    fn begin_piece(&self, queue: &mut Queue) {
        queue.begin_piece();
    }

    fn end_piece(&self, queue: &mut Queue) {
        queue.end_piece();
    }

    fn weight(&self, parts: &[&[f32]], inputs: usize) -> Stored {
        Stored::new(&self.device, parts, inputs)
    }

    fn vector(&self, values: &[f32]) -> Stored {
        Stored::new(&self.device, &[values], values.len())
    }

    fn write_vector(&self, vector: &mut Stored, values: &[f32]) {
        vector.write(&self.device, values);
    }

    fn upload(&self, queue: &mut Queue, values: &[f32], target: Matrix) {
        queue.upload(values, target);
    }

    fn upload_indices(&self, queue: &mut Queue, values: &[u32], target: Matrix) {
        let values: Vec<f32> = values.iter().map(|&value| f32::from_bits(value)).collect();
        queue.upload(&values, target);
    }

    fn download(&self, queue: &mut Queue, source: Matrix) {
        queue.download(source);
    }

    fn downloaded(&self, queue: &Queue, source: Matrix, values: &mut [f32]) {
        for (row, values) in queue
            .sent(source)
            .zip(values.chunks_exact_mut(source.columns))
        {
            values.copy_from_slice(row);
        }
    }

    fn downloaded_indices(&self, queue: &Queue, source: Matrix, values: &mut [u32]) {
        for (row, value) in queue.sent(source).zip(values) {
            *value = row[0].to_bits();
        }
    }

    fn fill_zero(&self, queue: &mut Queue, target: Matrix) {
        queue.fill_zero(target);
    }

    fn patchify(
        &self,
        queue: &mut Queue,
        pixels: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        patches: Matrix,
    ) {
        tokens::patchify(queue, pixels, grid, positions, patches);
    }

    fn patchify_backward(
        &self,
        queue: &mut Queue,
        dpatches: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        dpixels: Matrix,
    ) {
        tokens::patchify_backward(queue, dpatches, grid, positions, dpixels);
    }

    fn embed(
        &self,
        queue: &mut Queue,
        tokens: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        bias: Option<&Stored>,
        class_token: &Stored,
        position_embedding: &Stored,
    ) {
        let embedding = Embedding {
            bias,
            class_token,
            position: position_embedding,
        };
        tokens::embed(queue, tokens, grid, positions, &embedding);
    }

    fn linear(&self, queue: &mut Queue, x: Matrix, weight: &Stored, y: Matrix) {
        linear::forward(queue, x, weight, y);
    }

    fn linear_backward(
        &self,
        queue: &mut Queue,
        dy: Matrix,
        weight: &Stored,
        dx: Matrix,
        add: bool,
    ) {
        linear::backward(queue, dy, weight, dx, add);
    }

    fn low_rank_down(
        &self,
        queue: &mut Queue,
        x: Matrix,
        matrix: VectorPart<'_, Stored>,
        scale: f32,
        u: Matrix,
    ) {
        linear::down(queue, x, &matrix, scale, u);
    }

    fn low_rank_up(&self, queue: &mut Queue, u: Matrix, matrix: VectorPart<'_, Stored>, y: Matrix) {
        linear::up(queue, u, &matrix, y);
    }

    fn low_rank_gradient(&self, queue: &mut Queue, u: Matrix, x: Matrix, dmatrix: Matrix) {
        linear::gradient(queue, u, x, dmatrix);
    }

    fn norm(&self, queue: &mut Queue, x: Matrix, norm: Norm<'_, Stored>, out: NormOutput) {
        norm::norm(queue, x, &norm, out);
    }

    fn norm_backward(
        &self,
        queue: &mut Queue,
        dnormed: Matrix,
        x: Matrix,
        statistics: Matrix,
        norm: Norm<'_, Stored>,
        dx: Matrix,
    ) {
        norm::norm_backward(queue, dnormed, x, statistics, &norm, dx);
    }

    fn residual_norm(
        &self,
        queue: &mut Queue,
        x: Matrix,
        rows: Option<Matrix>,
        branch: Matrix,
        bias: &Stored,
        scale: Option<&Stored>,
        sum: Matrix,
        norm: Option<(Norm<'_, Stored>, NormOutput)>,
    ) {
        let summands = norm::Summands {
            x,
            rows,
            branch,
            bias,
            scale,
        };
        norm::residual_norm(queue, &summands, sum, norm);
    }

    fn scale_columns(&self, queue: &mut Queue, x: Matrix, scale: &Stored, y: Matrix) {
        elementwise::scale_columns(queue, x, scale, y);
    }

    fn activation(
        &self,
        queue: &mut Queue,
        x: Matrix,
        bias: &Stored,
        activation: Activation,
        y: Matrix,
    ) {
        activation::forward(queue, x, bias, activation, y);
    }

    fn activation_backward(
        &self,
        queue: &mut Queue,
        x: Matrix,
        bias: &Stored,
        activation: Activation,
        dy: Matrix,
    ) {
        activation::backward(queue, x, bias, activation, dy);
    }

    fn attention(
        &self,
        queue: &mut Queue,
        shape: AttentionShape,
        input: AttentionInput<'_, Stored>,
        context: Matrix,
    ) {
        attention::forward(queue, shape, &input, context);
    }

    fn attention_backward(
        &self,
        queue: &mut Queue,
        shape: AttentionShape,
        input: AttentionInput<'_, Stored>,
        dcontext: Matrix,
        dquery: Matrix,
        dkey_value: Matrix,
    ) {
        attention::backward(queue, shape, &input, dcontext, dquery, dkey_value);
    }

    fn class_attention(
        &self,
        queue: &mut Queue,
        shape: AttentionShape,
        class_query: Matrix,
        key_value: Matrix,
        query_bias: &Stored,
        _scratch: Matrix,
        attention: Matrix,
    ) {
        attention::class_attention(queue, shape, class_query, key_value, query_bias, attention);
    }

    fn choose_rows(
        &self,
        queue: &mut Queue,
        attention: Option<Matrix>,
        tokens: usize,
        keep: usize,
        rows: Matrix,
    ) {
        tokens::choose_rows(queue, attention, tokens, keep, rows);
    }

    fn gather(&self, queue: &mut Queue, x: Matrix, rows: Matrix, y: Matrix) {
        tokens::gather(queue, x, rows, y);
    }

    fn scatter_add(&self, queue: &mut Queue, dy: Matrix, rows: Matrix, dx: Matrix) {
        tokens::scatter_add(queue, dy, rows, dx);
    }

    fn column_sums(&self, queue: &mut Queue, x: Matrix, sums: Matrix) {
        moments::column_sums(queue, x, sums);
    }

    fn add_affine(
        &self,
        queue: &mut Queue,
        x: Matrix,
        offset: VectorPart<'_, Stored>,
        slope: VectorPart<'_, Stored>,
        dx: Matrix,
    ) {
        elementwise::add_affine(queue, x, &offset, &slope, dx);
    }

    fn add(&self, queue: &mut Queue, x: Matrix, y: Matrix) {
        elementwise::add(queue, x, y);
    }

    fn pool(&self, queue: &mut Queue, tokens: Matrix, pooling: Pooling, pooled: Matrix) {
        tokens::pool(queue, tokens, pooling, pooled);
    }

    fn pool_backward(&self, queue: &mut Queue, dpooled: Matrix, pooling: Pooling, dtokens: Matrix) {
        tokens::pool_backward(queue, dpooled, pooling, dtokens);
    }
}
