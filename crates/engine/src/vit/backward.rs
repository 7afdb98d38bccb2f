//! The backward pass of one micro-batch, from the gradient of the features to the pixels and the adapter's low-rank pairs.

use super::Pass;
use super::forward::{attention_input, pooling_of};
use super::plan::{BackwardPlan, LayerPlan, cut};
use super::weights::Layer;
use crate::backend::{Backend, Matrix, Norm, NormOutput, VectorPart};
use model::adapter::{HeadInput, Target};

/// Gradients at the inputs of each layer's two LayerNorms: `offset + slope∘x`, each `[2·layers, width]`.
#[derive(Debug, Clone, Copy)]
pub struct NormInputGradients<'a> {
    /// Two rows per layer: for its first LayerNorm, then for its second.
    pub offset: &'a [f32],
    /// As `offset`.
    pub slope: &'a [f32],
}

/// [`NormInputGradients`] in a backend's memory.
#[derive(Debug)]
pub struct NormInputVectors<B: Backend> {
    offset: B::Vector,
    slope: B::Vector,
}

impl<B: Backend> NormInputVectors<B> {
    /// Copies them there.
    pub fn new(backend: &B, gradients: NormInputGradients<'_>) -> Self {
        Self {
            offset: backend.vector(gradients.offset),
            slope: backend.vector(gradients.slope),
        }
    }

    /// Takes over other values for the same backbone.
    pub fn write(&mut self, backend: &B, gradients: NormInputGradients<'_>) {
        backend.write_vector(&mut self.offset, gradients.offset);
        backend.write_vector(&mut self.slope, gradients.slope);
    }
}

impl<B: Backend> Pass<'_, '_, B> {
    /// Queues the backward pass: adds the gradients of the adapter's low-rank pairs to theirs, and overwrites the plan's `dpixels` where
    /// the plan has them; they are added to `dimages` in memory of the queue, or else sent.
    pub fn backward(
        &mut self,
        dfeatures: &[f32],
        read: HeadInput,
        norm_inputs: Option<&NormInputVectors<B>>,
        dimages: Option<Matrix>,
    ) {
        let plan = self.plan;
        let Some(scratch) = &plan.backward else {
            return;
        };
        let end = plan.shape.end_layer;
        let width = self.network.config.width;
        let mut dx = cut(scratch.dx[0], plan.stream[end].rows, width);
        self.enter_end(dfeatures, read, scratch, dx);
        for layer in (plan.first_kept..end).rev() {
            let stops = layer == plan.first_kept && plan.dpixels.is_none();
            dx = self.layer_backward(layer, scratch, dx, stops, norm_inputs);
        }
        let Some(dpixels) = plan.dpixels else {
            return;
        };
        let (network, backend) = (self.network, self.backend);
        if let Some(norm) = &network.pre_norm {
            let dtokens = cut(scratch.dnormed, dx.rows, width);
            backend.fill_zero(self.queue, dtokens);
            backend.norm_backward(
                self.queue,
                dx,
                plan.embedded,
                plan.embedded_statistics,
                norm.get(),
                dtokens,
            );
            dx = dtokens;
        }
        let dpatches = cut(scratch.dhidden, dx.rows, plan.patches.columns);
        backend.linear_backward(self.queue, dx, &network.patch, dpatches, false);
        backend.patchify_backward(self.queue, dpatches, plan.grid, plan.positions, dpixels);
        match dimages {
            Some(dimages) => backend.add(self.queue, dpixels, dimages),
            None => backend.download(self.queue, dpixels),
        }
    }

    /// After the queue has finished: the gradients at the pixels.
    pub fn take_dpixels(&self, values: &mut [f32]) {
        if let Some(dpixels) = self.plan.dpixels {
            self.backend.downloaded(self.queue, dpixels, values);
        }
    }

    /// From the gradient of the features to that of the residual stream after the last layer.
    fn enter_end(
        &mut self,
        dfeatures: &[f32],
        read: HeadInput,
        scratch: &BackwardPlan,
        dx: Matrix,
    ) {
        let (network, plan, backend) = (self.network, self.plan, self.backend);
        let dpooled = match (&network.projection, read) {
            (Some(projection), HeadInput::Feature) => {
                backend.upload(self.queue, dfeatures, plan.feature);
                let (dfeature, dpooled) = (plan.feature, plan.pooled);
                backend.linear_backward(self.queue, dfeature, projection, dpooled, false);
                dpooled
            }
            _ => {
                backend.upload(self.queue, dfeatures, plan.pooled);
                plan.pooled
            }
        };
        let dnormed = cut(scratch.dnormed, dx.rows, dx.columns);
        let pooling = pooling_of(read, network.config.pooling);
        backend.pool_backward(self.queue, dpooled, pooling, dnormed);
        backend.fill_zero(self.queue, dx);
        backend.norm_backward(
            self.queue,
            dnormed,
            plan.stream[plan.shape.end_layer],
            plan.end_norm.statistics,
            network.final_norm.get(),
            dx,
        );
    }

    /// Turns `dx` after a layer into the gradient before it. A layer that `stops` gives only the gradients of its low-rank pairs.
    fn layer_backward(
        &mut self,
        layer: usize,
        scratch: &BackwardPlan,
        dx: Matrix,
        stops: bool,
        norm_inputs: Option<&NormInputVectors<B>>,
    ) -> Matrix {
        let weights = &self.network.layers[layer];
        let plan = self.plan.layer(layer);
        self.mlp_backward(layer, weights, plan, scratch, dx);
        self.add_norm_input_gradient(2 * layer + 1, plan.sum, norm_inputs, dx);
        let dnormed = self.attention_backward(layer, weights, plan, scratch, dx, stops);
        if stops {
            return dx;
        }
        let backend = self.backend;
        let stream = self.plan.stream[layer];
        let dx_in = match plan.rows {
            None => dx,
            Some(rows) => {
                let other = scratch.dx[usize::from(dx.start == scratch.dx[0].start)];
                let dx_in = cut(other, plan.rows_in, dx.columns);
                backend.fill_zero(self.queue, dx_in);
                backend.scatter_add(self.queue, dx, rows, dx_in);
                dx_in
            }
        };
        let (statistics, norm) = (plan.norm1.statistics, weights.norm1.get());
        backend.norm_backward(self.queue, dnormed, stream, statistics, norm, dx_in);
        self.add_norm_input_gradient(2 * layer, stream, norm_inputs, dx_in);
        dx_in
    }

    fn add_norm_input_gradient(
        &mut self,
        norm: usize,
        x: Matrix,
        gradients: Option<&NormInputVectors<B>>,
        dx: Matrix,
    ) {
        if let Some(NormInputVectors { offset, slope }) = gradients {
            let row = |vector| VectorPart {
                vector,
                start: norm * x.columns,
            };
            self.backend
                .add_affine(self.queue, x, row(offset), row(slope), dx);
        }
    }

    /// Adds the MLP's part to `dx`, which then is the gradient at the sum after attention.
    fn mlp_backward(
        &mut self,
        layer: usize,
        weights: &Layer<B>,
        plan: &LayerPlan,
        scratch: &BackwardPlan,
        dx: Matrix,
    ) {
        let (network, backend) = (self.network, self.backend);
        let (rows, width, mlp_width) = (dx.rows, dx.columns, network.config.mlp_width);
        let activation = network.config.activation;
        let dbranch = self.scaled(dx, weights.scale2.as_ref(), scratch);
        let dhidden = cut(scratch.dhidden, rows, mlp_width);
        backend.linear_backward(self.queue, dbranch, &weights.mlp_out, dhidden, false);
        let bias = &weights.mlp_in_bias;
        let activated = self.trains(layer, &[Target::MlpOut]).then(|| {
            let activated = cut(scratch.activated, rows, mlp_width);
            backend.activation(self.queue, plan.hidden, bias, activation, activated);
            activated
        });
        self.low_rank_backward(layer, Target::MlpOut, dbranch, activated, dhidden);
        backend.activation_backward(self.queue, plan.hidden, bias, activation, dhidden);
        let dnormed = cut(scratch.dnormed, rows, width);
        backend.linear_backward(self.queue, dhidden, &weights.mlp_in, dnormed, false);
        let normed = self
            .trains(layer, &[Target::MlpIn])
            .then(|| self.remake_norm(plan.sum, weights.norm2.get(), scratch));
        self.low_rank_backward(layer, Target::MlpIn, dhidden, normed, dnormed);
        if self.plan.shape.residual_after_norm.contains(&layer) {
            backend.add(self.queue, dx, dnormed);
            backend.fill_zero(self.queue, dx);
        }
        let (statistics, norm) = (plan.norm2.statistics, weights.norm2.get());
        backend.norm_backward(self.queue, dnormed, plan.sum, statistics, norm, dx);
    }

    /// From the gradient at the sum after attention to that of the first LayerNorm's output.
    fn attention_backward(
        &mut self,
        layer: usize,
        weights: &Layer<B>,
        plan: &LayerPlan,
        scratch: &BackwardPlan,
        dx: Matrix,
        stops: bool,
    ) -> Matrix {
        let (backend, width) = (self.backend, dx.columns);
        let (rows_in, rows_out) = (plan.rows_in, plan.rows_out);
        let dbranch = self.scaled(dx, weights.scale1.as_ref(), scratch);
        let dcontext = cut(scratch.dcontext, rows_out, width);
        backend.linear_backward(self.queue, dbranch, &weights.output, dcontext, false);
        let context = self
            .trains(layer, &[Target::Output])
            .then_some(plan.context);
        self.low_rank_backward(layer, Target::Output, dbranch, context, dcontext);
        let dquery = cut(scratch.dquery, rows_out, width);
        let dkey_value = cut(scratch.dkey_value, rows_in, 2 * width);
        let attention = attention_input(weights, plan, scratch.attention);
        backend.attention_backward(
            self.queue,
            plan.attention,
            attention,
            dcontext,
            dquery,
            dkey_value,
        );
        let dnormed = cut(scratch.dnormed, rows_in, width);
        if !stops {
            let weight = &weights.key_value;
            backend.linear_backward(self.queue, dkey_value, weight, dnormed, false);
        }
        let normed = self
            .trains(layer, &[Target::Query, Target::Key, Target::Value])
            .then(|| self.remake_norm(self.plan.stream[layer], weights.norm1.get(), scratch));
        let dkey = dkey_value.columns_from(0, width);
        let dvalue = dkey_value.columns_from(width, width);
        self.low_rank_backward(layer, Target::Key, dkey, normed, dnormed);
        self.low_rank_backward(layer, Target::Value, dvalue, normed, dnormed);
        match plan.rows {
            None => {
                if !stops {
                    let weight = &weights.query;
                    backend.linear_backward(self.queue, dquery, weight, dnormed, true);
                }
                self.low_rank_backward(layer, Target::Query, dquery, normed, dnormed);
            }
            Some(rows) => {
                let dinput = cut(scratch.dquery_input, rows_out, width);
                backend.linear_backward(self.queue, dquery, &weights.query, dinput, false);
                let chosen = normed.map(|normed| {
                    let chosen = cut(scratch.query_input, rows_out, width);
                    backend.gather(self.queue, normed, rows, chosen);
                    chosen
                });
                self.low_rank_backward(layer, Target::Query, dquery, chosen, dinput);
                if !stops {
                    backend.scatter_add(self.queue, dinput, rows, dnormed);
                }
            }
        }
        dnormed
    }

    fn scaled(&mut self, dx: Matrix, scale: Option<&B::Vector>, scratch: &BackwardPlan) -> Matrix {
        let Some(scale) = scale else {
            return dx;
        };
        let scaled = cut(scratch.dbranch, dx.rows, dx.columns);
        self.backend.scale_columns(self.queue, dx, scale, scaled);
        scaled
    }

    /// Whether gradients of any of these low-rank pairs are asked for.
    fn trains(&self, layer: usize, targets: &[Target]) -> bool {
        self.plan.shape.differentiate.pairs
            && targets
                .iter()
                .any(|&target| self.pair(layer, target).is_some())
    }

    /// A LayerNorm's output, which forward has not kept.
    fn remake_norm(
        &mut self,
        x: Matrix,
        norm: Norm<'_, B::Vector>,
        scratch: &BackwardPlan,
    ) -> Matrix {
        let out = NormOutput {
            normed: cut(scratch.normed, x.rows, x.columns),
            statistics: cut(scratch.statistics, x.rows, 2),
        };
        self.backend.norm(self.queue, x, norm, out);
        out.normed
    }

    /// Backward of `y += scale·B(A x)`: adds to `dx`, and with `x` to the pair's gradients.
    fn low_rank_backward(
        &mut self,
        layer: usize,
        target: Target,
        dy: Matrix,
        x: Option<Matrix>,
        dx: Matrix,
    ) {
        let (Some(low_rank), Some(scratch)) = (self.low_rank, &self.plan.backward) else {
            return;
        };
        let u = self.plan.layer(layer).u[target as usize];
        let (Some(pair), Some(u)) = (low_rank.layers[layer].get(target), u) else {
            return;
        };
        let backend = self.backend;
        let queue = &mut *self.queue;
        let du = cut(scratch.du, dy.rows, pair.rank);
        let (b, scale) = (low_rank.matrix_of(pair.db_transposed), pair.scale);
        backend.low_rank_down(queue, dy, b, scale, du);
        if let Some(x) = x {
            backend.low_rank_gradient(queue, u, dy, pair.db_transposed);
            backend.low_rank_gradient(queue, du, x, pair.da);
        }
        backend.low_rank_up(queue, du, low_rank.matrix_of(pair.da), dx);
    }
}
