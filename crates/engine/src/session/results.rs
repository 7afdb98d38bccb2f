//! Answers of a session, allocated once and filled by micro-batches side by side.

use super::checks::Checked;
use super::device_session::MicroBatch;
use super::{Input, Wanted};
use crate::backend::Backend;
use crate::vit::{Differentiate, ForwardOutput, LowRank};
use model::adapter::Site;
use model::backbone::BackboneConfig;
use model::tensor::Tensor;
use std::collections::BTreeMap;

/// What a forward pass gives.
#[derive(Debug, Default)]
pub struct Output {
    /// `[batch, feature_width]`; what [`Input::read`] says
    pub features: Tensor,
    /// `[batch, patches]`: attention of the class token over the patches that enter the last layer, mean over heads
    pub class_attention: Option<Tensor>,
    /// `[batch, tokens, width]`: after the final LayerNorm, for CLIP before it
    pub last_hidden_state: Option<Tensor>,
    /// `[batch·tokens]`: positions of the tokens that are left at the end, ascending: 0 the class token, patch p = p + 1
    pub kept_tokens: Option<Vec<u32>>,
    /// `[2·layers, 2, width]`: over all tokens that enter a layer's two LayerNorms, the sum of the values and of their
    /// squares
    pub norm_input_sums: Option<Vec<f64>>,
    /// `[2·layers]`: how many tokens each of these sums runs over
    pub norm_input_counts: Vec<usize>,
    chosen_rows: Vec<u32>,
    sums: Vec<f64>,
}

/// Gives `tensor` this shape, with memory that it already has where that is enough.
fn reshape(tensor: &mut Tensor, shape: &[usize]) {
    if tensor.shape() != shape {
        *tensor = Tensor::zeros(shape);
    }
}

fn reshape_wanted(tensor: &mut Option<Tensor>, wanted: bool, shape: &[usize]) {
    if wanted {
        reshape(tensor.get_or_insert_default(), shape);
    } else {
        *tensor = None;
    }
}

/// Takes the first `length` values away from `rest`.
fn take<'a, T>(rest: &mut &'a mut [T], length: usize) -> &'a mut [T] {
    let (own, others) = std::mem::take(rest).split_at_mut(length);
    *rest = others;
    own
}

impl Output {
    pub(super) fn prepare(
        &mut self,
        checked: &Checked,
        wanted: Wanted,
        config: &BackboneConfig,
        micro_batches: &[MicroBatch],
    ) {
        let batch = checked.batch;
        let last_in = checked.tokens_at(checked.end_layer.saturating_sub(1));
        let last_out = checked.tokens_at(checked.end_layer);
        reshape(&mut self.features, &[batch, checked.feature_width]);
        let shape = [batch, last_in - 1];
        reshape_wanted(&mut self.class_attention, wanted.class_attention, &shape);
        let shape = [batch, last_out, config.width];
        reshape_wanted(
            &mut self.last_hidden_state,
            wanted.last_hidden_state,
            &shape,
        );
        self.kept_tokens = wanted.kept_tokens.then(Vec::new);
        self.chosen_rows.clear();
        if wanted.kept_tokens {
            let chosen = micro_batches.iter().map(chosen_length).sum();
            self.chosen_rows.resize(chosen, 0);
        }
        let length = 4 * config.layers * config.width;
        self.norm_input_sums = wanted.norm_input_sums.then(|| vec![0.0; length]);
        self.sums.clear();
        self.norm_input_counts.clear();
        if wanted.norm_input_sums {
            self.sums.resize(length * micro_batches.len(), 0.0);
            let first = checked.first_layer();
            self.norm_input_counts
                .extend((0..2 * config.layers).map(|norm| {
                    let tokens = match (norm / 2, norm % 2) {
                        (layer, _) if layer < first => 0,
                        (layer, 0) => checked.tokens_at(layer),
                        (layer, _) => checked.tokens_after[layer],
                    };
                    batch * tokens
                }));
        }
    }

    /// The places of each micro-batch.
    pub(super) fn split<'a>(&'a mut self, micro_batches: &[MicroBatch]) -> Vec<ForwardOutput<'a>> {
        let batch = self.features.shape()[0];
        let per_image = |tensor: &Tensor| tensor.data().len() / batch;
        let feature_width = per_image(&self.features);
        let attention_width = self.class_attention.as_ref().map(per_image);
        let state_width = self.last_hidden_state.as_ref().map(per_image);
        let sums_length = self.norm_input_sums.as_ref().map(Vec::len);
        let wants_tokens = self.kept_tokens.is_some();
        let mut features = self.features.data_mut();
        let mut attention = match &mut self.class_attention {
            Some(tensor) => tensor.data_mut(),
            None => &mut [],
        };
        let mut state = match &mut self.last_hidden_state {
            Some(tensor) => tensor.data_mut(),
            None => &mut [],
        };
        let mut chosen = self.chosen_rows.as_mut_slice();
        let mut sums = self.sums.as_mut_slice();
        micro_batches
            .iter()
            .map(|micro_batch| {
                let images = micro_batch.images.len();
                ForwardOutput {
                    features: take(&mut features, images * feature_width),
                    class_attention: attention_width.map(|own| take(&mut attention, images * own)),
                    last_hidden_state: state_width.map(|own| take(&mut state, images * own)),
                    stream: None,
                    chosen_rows: wants_tokens
                        .then(|| take(&mut chosen, chosen_length(micro_batch))),
                    norm_input_sums: sums_length.map(|length| take(&mut sums, length)),
                }
            })
            .collect()
    }

    /// Joins what is not simply side by side: sums in the order of the micro-batches, and positions.
    pub(super) fn join(
        &mut self,
        checked: &Checked,
        micro_batches: &[MicroBatch],
        input: &Input<'_>,
    ) {
        if let Some(total) = &mut self.norm_input_sums {
            for part in self.sums.chunks_exact(total.len()) {
                for (total, part) in total.iter_mut().zip(part) {
                    *total += part;
                }
            }
        }
        let Some(kept) = &mut self.kept_tokens else {
            return;
        };
        let mut chosen = self.chosen_rows.as_slice();
        for micro_batch in micro_batches {
            let images = micro_batch.images.clone();
            let mut positions: Vec<u32> = match input.tokens {
                Some(all) if checked.sparse => {
                    all[images.start * checked.tokens..images.end * checked.tokens].to_vec()
                }
                _ => images
                    .clone()
                    .flat_map(|_| 0..checked.tokens as u32)
                    .collect(),
            };
            for layer in &micro_batch.plan.layers {
                let Some(rows) = layer.rows else {
                    continue;
                };
                let (own, rest) = chosen.split_at(rows.rows);
                chosen = rest;
                if layer.prunes {
                    positions = own.iter().map(|&row| positions[row as usize]).collect();
                }
            }
            kept.extend(positions);
        }
    }
}

/// Indices of rows that a micro-batch reports.
fn chosen_length(micro_batch: &MicroBatch) -> usize {
    let layers = micro_batch.plan.layers.iter();
    layers
        .filter_map(|layer| layer.rows)
        .map(|rows| rows.rows)
        .sum()
}

/// Gradients of one low-rank pair, shaped like it.
#[derive(Debug, Clone, PartialEq)]
pub struct PairGradients {
    /// `[rank, in]`
    pub da: Tensor,
    /// `[out, rank]`
    pub db: Tensor,
}

/// What a backward pass gives.
#[derive(Debug, Default)]
pub struct Gradients {
    /// `[batch, 3, side, side]`; zero where no token represents a patch
    pub pixels: Option<Tensor>,
    /// By site, as [`model::adapter::Adapter`] has them.
    pub pairs: BTreeMap<Site, PairGradients>,
    pub(super) dfeatures: Vec<f32>,
    staging: Vec<f32>,
}

impl Gradients {
    pub(super) fn prepare<B: Backend>(
        &mut self,
        checked: &Checked,
        differentiate: Differentiate,
        low_rank: Option<&LowRank<B>>,
    ) {
        let shape = [checked.batch, 3, checked.side, checked.side];
        reshape_wanted(&mut self.pixels, differentiate.pixels, &shape);
        let ranks = match low_rank {
            Some(low_rank) if differentiate.pairs => low_rank.ranks(),
            _ => BTreeMap::new(),
        };
        let fits = self.pairs.len() == ranks.len()
            && ranks.iter().all(|(site, &rank)| {
                let own = self.pairs.get(site);
                own.is_some_and(|own| own.da.shape()[0] == rank)
            });
        if !fits {
            self.pairs.clear();
        }
        if let Some(low_rank) = low_rank {
            for &site in ranks.keys() {
                if let Some(pair) = low_rank.layers[site.layer].get(site.target) {
                    let own = self.pairs.entry(site).or_insert_with(|| PairGradients {
                        da: Tensor::zeros([pair.rank, pair.da.columns]),
                        db: Tensor::zeros([pair.db_transposed.columns, pair.rank]),
                    });
                    own.da.data_mut().fill(0.0);
                    own.db.data_mut().fill(0.0);
                }
            }
        }
    }

    /// The places of each micro-batch's pixels.
    pub(super) fn split<'a>(
        &'a mut self,
        micro_batches: &[MicroBatch],
    ) -> Vec<Option<&'a mut [f32]>> {
        let Some(pixels) = &mut self.pixels else {
            return micro_batches.iter().map(|_| None).collect();
        };
        let per_image = pixels.data().len() / pixels.shape()[0];
        let mut rest = pixels.data_mut();
        micro_batches
            .iter()
            .map(|micro_batch| Some(take(&mut rest, micro_batch.images.len() * per_image)))
            .collect()
    }

    /// Adds the gradients of the low-rank pairs that one queue has sent.
    pub(super) fn add<B: Backend>(&mut self, backend: &B, queue: &B::Queue, low_rank: &LowRank<B>) {
        let all = low_rank.gradients();
        self.staging.resize(all.columns, 0.0);
        backend.downloaded(queue, all, &mut self.staging);
        for (site, own) in &mut self.pairs {
            let Some(pair) = low_rank.layers[site.layer].get(site.target) else {
                continue;
            };
            let rank = pair.rank;
            let da = own.da.data_mut().iter_mut();
            for (total, value) in da.zip(&self.staging[pair.da.start..]) {
                *total += value;
            }
            let columns = pair.db_transposed.columns;
            let db_transposed = &self.staging[pair.db_transposed.start..];
            for (row, totals) in own.db.data_mut().chunks_exact_mut(rank).enumerate() {
                for (r, total) in totals.iter_mut().enumerate() {
                    *total += db_transposed[r * columns + row];
                }
            }
        }
    }
}
