//! The forward pass of one micro-batch.

use super::Pass;
use super::plan::{LayerPlan, cut};
use super::weights::Layer;
use crate::backend::{AttentionInput, Backend, Matrix, Norm, NormOutput, whole};
use model::adapter::{HeadInput, Target};
use model::backbone::Pooling;

/// What enters a pass, as values of the host.
#[derive(Debug, Clone, Copy)]
pub enum PassInput<'a> {
    /// `[images, 3, side, side]`
    Pixels(&'a [f32]),
    /// `[images, 3·side²]`, in memory of the queue
    Images(Matrix),
    /// `[images, tokens, width]`, the residual stream before the plan's first layer
    Hidden(&'a [f32]),
}

/// Where a pass writes what it is asked for, as values of the host.
#[derive(Debug, Default)]
pub struct ForwardOutput<'a> {
    /// `[images, feature_width]`
    pub features: &'a mut [f32],
    /// `[images, patches before the last layer]`
    pub class_attention: Option<&'a mut [f32]>,
    /// `[images, tokens, width]`, as `inference::Encoded` says
    pub last_hidden_state: Option<&'a mut [f32]>,
    /// `[images, tokens, width]`: the residual stream where the pass ends
    pub stream: Option<&'a mut [f32]>,
    /// For each layer that chooses rows, in order: `[images·(tokens after it)]`
    pub chosen_rows: Option<&'a mut [u32]>,
    /// `[2·layers, 2, width]`: sums and sums of squares of the inputs of each layer's two LayerNorms; added
    pub norm_input_sums: Option<&'a mut [f64]>,
}

/// Which pooling gives what a head reads.
pub fn pooling_of(read: HeadInput, own: Pooling) -> Pooling {
    match read {
        HeadInput::Feature => own,
        HeadInput::Cls => Pooling::Cls,
        HeadInput::ClsMean => Pooling::ClsMean,
    }
}

/// What a layer's attention reads, forward and backward.
pub fn attention_input<'w, B: Backend>(
    weights: &'w Layer<B>,
    plan: &LayerPlan,
    scratch: Matrix,
) -> AttentionInput<'w, B::Vector> {
    AttentionInput {
        query: plan.query,
        key_value: plan.key_value,
        query_bias: &weights.query_bias,
        value_bias: &weights.value_bias,
        log_sum: plan.log_sum,
        scratch,
    }
}

impl<'a, B: Backend> Pass<'a, '_, B> {
    /// Queues what `output` asks for, which [`Self::take_output`] takes; `positions` are the tokens that enter, where they are a choice.
    pub fn forward(
        &mut self,
        source: PassInput<'_>,
        positions: Option<&[u32]>,
        read: HeadInput,
        output: &ForwardOutput<'_>,
    ) {
        let (network, plan, backend) = (self.network, self.plan, self.backend);
        let end = plan.shape.end_layer;
        self.take_in(source, positions);
        if end > plan.first_layer {
            let first = plan.layer(plan.first_layer);
            let norm = network.layers[plan.first_layer].norm1.get();
            let stream = plan.stream[plan.first_layer];
            backend.norm(self.queue, stream, norm, first.norm1);
        }
        for layer in plan.first_layer..end {
            let layer_plan = plan.layer(layer);
            self.sum_up(2 * layer, plan.stream[layer]);
            self.attention_half(layer, layer_plan, output);
            if let (Some(rows), true) = (layer_plan.rows, output.chosen_rows.is_some()) {
                backend.download(self.queue, rows);
            }
            self.sum_up(2 * layer + 1, layer_plan.sum);
            self.mlp_half(layer, layer_plan);
        }
        let stream = plan.stream[end];
        if output.stream.is_some() {
            backend.download(self.queue, stream);
        }
        if let Some(sums) = plan.norm_input_sums {
            backend.download(self.queue, sums);
        }
        if !output.features.is_empty() {
            self.read_out(read, stream, output);
        }
    }

    /// After the queue has finished: what [`Self::forward`] was asked for.
    pub fn take_output(&self, read: HeadInput, output: &mut ForwardOutput<'_>) {
        let (plan, backend) = (self.plan, self.backend);
        let queue = &*self.queue;
        if let Some(mut all) = output.chosen_rows.take() {
            for rows in plan.layers.iter().filter_map(|layer| layer.rows) {
                let (own, rest) = all.split_at_mut(rows.rows);
                backend.downloaded_indices(queue, rows, own);
                all = rest;
            }
        }
        if let Some(values) = &mut output.stream {
            backend.downloaded(queue, plan.stream[plan.shape.end_layer], values);
        }
        if let (Some(sums), Some(matrix)) = (&mut output.norm_input_sums, plan.norm_input_sums) {
            let mut values = vec![0.0; matrix.rows * matrix.columns];
            backend.downloaded(queue, matrix, &mut values);
            let (pairs, _) = values.as_chunks::<2>();
            let computed = plan.first_layer * 4 * self.network.config.width;
            for (sum, &pair) in sums.iter_mut().zip(pairs).skip(computed) {
                *sum += whole(pair);
            }
        }
        if output.features.is_empty() {
            return;
        }
        if let (Some(values), Some(last)) = (&mut output.class_attention, plan.layers.last()) {
            backend.downloaded(queue, plan.class_attention_of(last), values);
        }
        if let Some(values) = &mut output.last_hidden_state {
            backend.downloaded(queue, self.last_hidden_state(), values);
        }
        backend.downloaded(queue, self.feature(read), output.features);
    }

    /// Sums over the inputs of LayerNorm `norm`, where they are asked for.
    fn sum_up(&mut self, norm: usize, x: Matrix) {
        if let Some(sums) = self.plan.norm_input_sums {
            let own = Matrix {
                start: sums.start + norm * sums.stride,
                rows: 1,
                ..sums
            };
            self.backend.column_sums(self.queue, x, own);
        }
    }

    fn take_in(&mut self, source: PassInput<'_>, positions: Option<&[u32]>) {
        let (network, plan, backend) = (self.network, self.plan, self.backend);
        if let (Some(target), Some(positions)) = (plan.positions, positions) {
            backend.upload_indices(self.queue, positions, target);
        }
        let stream = plan.stream[plan.first_layer];
        let pixels = match source {
            PassInput::Pixels(values) => {
                backend.upload(self.queue, values, plan.pixels);
                plan.pixels
            }
            PassInput::Images(images) => images,
            PassInput::Hidden(values) => return backend.upload(self.queue, values, stream),
        };
        let (grid, positions) = (plan.grid, plan.positions);
        let tokens = match network.pre_norm {
            Some(_) => plan.embedded,
            None => stream,
        };
        backend.patchify(self.queue, pixels, grid, positions, plan.patches);
        backend.linear(self.queue, plan.patches, &network.patch, tokens);
        backend.embed(
            self.queue,
            tokens,
            grid,
            positions,
            network.patch_bias.as_ref(),
            &network.class_token,
            network.position(grid.grid),
        );
        if let Some(norm) = &network.pre_norm {
            let out = NormOutput {
                normed: stream,
                statistics: plan.embedded_statistics,
            };
            backend.norm(self.queue, tokens, norm.get(), out);
        }
    }

    fn attention_half(&mut self, layer: usize, plan: &LayerPlan, output: &ForwardOutput<'_>) {
        let (network, backend) = (self.network, self.backend);
        let weights = &network.layers[layer];
        let width = network.config.width;
        let normed = plan.norm1.normed;
        let key_value = plan.key_value;
        backend.linear(self.queue, normed, &weights.key_value, key_value);
        let u = |target: Target| plan.u[target as usize];
        let (key, value) = (
            key_value.columns_from(0, width),
            key_value.columns_from(width, width),
        );
        self.add_low_rank(layer, Target::Key, normed, u(Target::Key), key);
        self.add_low_rank(layer, Target::Value, normed, u(Target::Value), value);
        if let Some(rows) = plan.rows {
            let tokens = plan.attention.tokens;
            let keep = plan.attention.queries - 1;
            if plan.prunes && keep > 0 {
                let query = self.plan.class_query;
                let class = normed.every(tokens);
                backend.linear(self.queue, class, &weights.query, query);
                let rank = self.pair(layer, Target::Query).map_or(0, |own| own.rank);
                let class_u = self.plan.class_u;
                let class_u = cut(class_u, class_u.rows, rank);
                self.add_low_rank(layer, Target::Query, class, Some(class_u), query);
                let attention = self.class_attention(layer, plan, query);
                backend.choose_rows(self.queue, Some(attention), tokens, keep, rows);
            } else {
                backend.choose_rows(self.queue, None, tokens, keep, rows);
            }
            backend.gather(self.queue, normed, rows, plan.query_input);
        }
        let input = plan.query_input;
        backend.linear(self.queue, input, &weights.query, plan.query);
        self.add_low_rank(layer, Target::Query, input, u(Target::Query), plan.query);
        if layer + 1 == network.layers.len() && output.class_attention.is_some() {
            let class = plan.query.every(plan.attention.queries);
            let attention = self.class_attention(layer, plan, class);
            backend.download(self.queue, attention);
        }
        let attention = attention_input(weights, plan, self.plan.attention_scratch);
        backend.attention(self.queue, plan.attention, attention, plan.context);
        backend.linear(self.queue, plan.context, &weights.output, plan.branch);
        self.add_low_rank(
            layer,
            Target::Output,
            plan.context,
            u(Target::Output),
            plan.branch,
        );
        backend.residual_norm(
            self.queue,
            self.plan.stream[layer],
            plan.rows,
            plan.branch,
            &weights.output_bias,
            weights.scale1.as_ref(),
            plan.sum,
            Some((weights.norm2.get(), plan.norm2)),
        );
    }

    fn class_attention(&mut self, layer: usize, plan: &LayerPlan, query: Matrix) -> Matrix {
        let attention = self.plan.class_attention_of(plan);
        self.backend.class_attention(
            self.queue,
            plan.attention,
            query,
            plan.key_value,
            &self.network.layers[layer].query_bias,
            self.plan.attention_scratch,
            attention,
        );
        attention
    }

    fn mlp_half(&mut self, layer: usize, plan: &LayerPlan) {
        let (network, backend) = (self.network, self.backend);
        let weights = &network.layers[layer];
        let u = |target: Target| plan.u[target as usize];
        let normed = plan.norm2.normed;
        backend.linear(self.queue, normed, &weights.mlp_in, plan.hidden);
        self.add_low_rank(layer, Target::MlpIn, normed, u(Target::MlpIn), plan.hidden);
        backend.activation(
            self.queue,
            plan.hidden,
            &weights.mlp_in_bias,
            network.config.activation,
            plan.activated,
        );
        let activated = plan.activated;
        backend.linear(self.queue, activated, &weights.mlp_out, plan.branch);
        self.add_low_rank(
            layer,
            Target::MlpOut,
            activated,
            u(Target::MlpOut),
            plan.branch,
        );
        let next = if layer + 1 < self.plan.shape.end_layer {
            let norm = network.layers[layer + 1].norm1.get();
            Some((norm, self.plan.layer(layer + 1).norm1))
        } else {
            self.end_norm()
        };
        let after_norm = self.plan.shape.residual_after_norm.contains(&layer);
        let stream = self.plan.stream[layer + 1];
        // The next LayerNorm writes where this one's output is.
        let (at_once, later) = if after_norm {
            (None, next)
        } else {
            (next, None)
        };
        backend.residual_norm(
            self.queue,
            if after_norm { normed } else { plan.sum },
            None,
            plan.branch,
            &weights.mlp_out_bias,
            weights.scale2.as_ref(),
            stream,
            at_once,
        );
        if let Some((norm, out)) = later {
            backend.norm(self.queue, stream, norm, out);
        }
    }

    /// The final LayerNorm, where the pass goes that far.
    fn end_norm(&self) -> Option<(Norm<'a, B::Vector>, NormOutput)> {
        let whole = self.plan.shape.end_layer == self.network.layers.len();
        whole.then(|| (self.network.final_norm.get(), self.plan.end_norm))
    }

    fn read_out(&mut self, read: HeadInput, stream: Matrix, output: &ForwardOutput<'_>) {
        let (network, plan, backend) = (self.network, self.plan, self.backend);
        let end_norm = plan.end_norm;
        if plan.first_layer == plan.shape.end_layer {
            let norm = network.final_norm.get();
            backend.norm(self.queue, stream, norm, end_norm);
        }
        if output.last_hidden_state.is_some() {
            let state = self.last_hidden_state();
            backend.download(self.queue, state);
        }
        let pooling = pooling_of(read, network.config.pooling);
        backend.pool(self.queue, end_norm.normed, pooling, plan.pooled);
        if let (Some(projection), HeadInput::Feature) = (&network.projection, read) {
            backend.linear(self.queue, plan.pooled, projection, plan.feature);
        }
        let feature = self.feature(read);
        backend.download(self.queue, feature);
    }

    fn feature(&self, read: HeadInput) -> Matrix {
        match (&self.network.projection, read) {
            (Some(_), HeadInput::Feature) => self.plan.feature,
            _ => self.plan.pooled,
        }
    }

    fn last_hidden_state(&self) -> Matrix {
        match self.network.pre_norm {
            Some(_) => self.plan.stream[self.plan.shape.end_layer],
            None => self.plan.end_norm.normed,
        }
    }
}
