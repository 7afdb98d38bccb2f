//! Where every activation of a pass is. Backward decides what is kept: a layer's input, its queries, keys and values,
//! the sum after attention and the MLP's hidden values before the activation; the rest is made again or never needed.

use crate::backend::{
    AttentionShape, Backend, BufferLengths, Matrix, NormOutput, PatchGrid, Region,
};
use model::adapter::{Site, Target};
use model::backbone::{Architecture, BackboneConfig};
use std::collections::BTreeMap;

/// What gradients are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Differentiate {
    /// At the normalised pixels.
    pub pixels: bool,
    /// The adapter's low-rank pairs.
    pub pairs: bool,
}

/// Where a pass begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassStart {
    /// Square images of this many patches per side.
    Pixels {
        /// Patches per side.
        grid: usize,
    },
    /// The residual stream before a layer.
    Hidden {
        /// The first layer of the pass.
        layer: usize,
    },
}

/// Everything that decides where activations are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassShape {
    /// Images of the micro-batch.
    pub images: usize,
    /// Where the pass begins.
    pub start: PassStart,
    /// Tokens per image at the start, class token included.
    pub tokens: usize,
    /// Whether the tokens at the start are a choice.
    pub sparse: bool,
    /// Tokens after each layer.
    pub tokens_after: Vec<usize>,
    /// After the last layer's attention only the class token goes on, since nothing else is read.
    pub class_only_end: bool,
    /// Width after pooling: that of a token, or twice that.
    pub pooled_width: usize,
    /// Width of the features, after the projection where there is one.
    pub feature_width: usize,
    /// Decides what is kept.
    pub differentiate: Differentiate,
    /// Rank of the adapter's low-rank pairs by site.
    pub ranks: BTreeMap<Site, usize>,
    /// The pass ends before this layer; the number of layers for a whole pass.
    pub end_layer: usize,
    /// Whether the inputs of all LayerNorms are summed up.
    pub norm_input_sums: bool,
    /// Layers whose residual is taken after the second LayerNorm, see [`crate::session::Session::published_residual`].
    pub residual_after_norm: Vec<usize>,
}

/// Where one layer's activations are.
pub struct LayerPlan {
    pub rows_in: usize,
    pub rows_out: usize,
    pub attention: AttentionShape,
    /// Rows that go on after attention, where not all do.
    pub rows: Option<Matrix>,
    /// Whether attention decides on `rows`.
    pub prunes: bool,
    pub norm1: NormOutput,
    /// Normed rows that queries are made of.
    pub query_input: Matrix,
    pub query: Matrix,
    pub key_value: Matrix,
    pub log_sum: Matrix,
    pub context: Matrix,
    pub branch: Matrix,
    pub sum: Matrix,
    pub norm2: NormOutput,
    pub hidden: Matrix,
    pub activated: Matrix,
    /// `[rows, rank]` by target
    pub u: [Option<Matrix>; 6],
}

/// Scratch of a backward pass that is shared by its layers; cut to a layer's rows with [`cut`].
pub struct BackwardPlan {
    pub dx: [Matrix; 2],
    pub dbranch: Matrix,
    pub dhidden: Matrix,
    pub activated: Matrix,
    pub normed: Matrix,
    pub query_input: Matrix,
    pub dnormed: Matrix,
    pub dquery_input: Matrix,
    pub dcontext: Matrix,
    pub dquery: Matrix,
    pub dkey_value: Matrix,
    pub du: Matrix,
    pub statistics: Matrix,
    pub attention: Matrix,
}

/// Where every activation of a pass is.
pub struct Plan {
    /// What the plan was made for.
    pub shape: PassShape,
    /// The first layer that the pass computes.
    pub first_layer: usize,
    /// Layers from here on are differentiated.
    pub first_kept: usize,
    /// How the images are cut; of no meaning where the pass begins inside the backbone.
    pub grid: PatchGrid,
    /// `[images·tokens, 1]` indices, for a choice of tokens
    pub positions: Option<Matrix>,
    /// `[images, 3·side²]`
    pub pixels: Matrix,
    /// `[2·images, 1]` indices: which picture of a set each image is, then whether it is mirrored; for pictures that stay on the device
    pub pictures: Matrix,
    /// As `pixels`, where gradients at them are asked for.
    pub dpixels: Option<Matrix>,
    /// `[images·tokens, 3·patch²]`
    pub patches: Matrix,
    /// Input of the LayerNorm before the layers, and its statistics (CLIP).
    pub embedded: Matrix,
    /// `[images·tokens, 2]`
    pub embedded_statistics: Matrix,
    /// The residual stream before each layer and after the last.
    pub stream: Vec<Matrix>,
    /// By layer; layers before the first one are absent, so index with `layer - first_layer`.
    pub layers: Vec<LayerPlan>,
    /// Of the rows that the features are read from.
    pub end_norm: NormOutput,
    /// `[images, pooled width]`
    pub pooled: Matrix,
    /// `[images, feature width]`
    pub feature: Matrix,
    /// `[images, width]`: queries of the class tokens, where their attention is asked for.
    pub class_query: Matrix,
    /// `[images, rank]`: the low-rank part of those queries.
    pub class_u: Matrix,
    /// `[images, tokens − 1]`, mean over heads.
    pub class_attention: Matrix,
    /// `[2·layers, 4·width]`, a row for each LayerNorm, as [`Backend::column_sums`] writes it.
    pub norm_input_sums: Option<Matrix>,
    /// One row of [`Backend::attention_scratch`] values.
    pub attention_scratch: Matrix,
    /// Present where something is differentiated.
    pub backward: Option<BackwardPlan>,
    /// Values of each buffer that the pass needs.
    pub lengths: BufferLengths,
}

/// The first `rows` rows of a shared matrix, as `columns` wide.
pub fn cut(shared: Matrix, rows: usize, columns: usize) -> Matrix {
    Matrix {
        rows,
        columns,
        stride: columns,
        ..shared
    }
}

/// Hands out memory of a region from its start on.
struct Bump {
    region: Region,
    next: usize,
}

impl Bump {
    fn take(&mut self, rows: usize, columns: usize) -> Matrix {
        let start = self.next;
        self.next += (rows * columns).next_multiple_of(16);
        Matrix {
            region: self.region,
            start,
            rows,
            columns,
            stride: columns,
        }
    }
}

impl Plan {
    /// Lays out a pass on `backend`; `shape` has been checked.
    pub fn new<B: Backend>(backend: &B, shape: PassShape, config: &BackboneConfig) -> Self {
        let first_layer = match shape.start {
            PassStart::Pixels { .. } => 0,
            PassStart::Hidden { layer } => layer,
        };
        let end = shape.end_layer;
        let first_kept = if shape.differentiate.pixels {
            0
        } else if shape.differentiate.pairs {
            let first = shape.ranks.keys().next().map_or(end, |site| site.layer);
            first.max(first_layer)
        } else {
            usize::MAX
        };
        let images = shape.images;
        let pre_norm = config.architecture == Architecture::Clip;
        let (width, heads) = (config.width, config.heads);
        let grid = match shape.start {
            PassStart::Pixels { grid } => grid,
            PassStart::Hidden { .. } => 0,
        };
        let mut kept = Bump {
            region: Region::Kept,
            next: 0,
        };
        let mut scratch = Bump {
            region: Region::Scratch,
            next: 0,
        };

        let rows_before = |layer: usize| {
            images
                * match layer.checked_sub(first_layer + 1) {
                    None => shape.tokens,
                    Some(_) if layer == config.layers && shape.class_only_end => 1,
                    Some(_) => shape.tokens_after[layer - 1],
                }
        };
        let most_rows = images * shape.tokens;
        let most_rank: usize = shape.ranks.values().copied().max().unwrap_or(0);

        // Shared by all layers of the forward pass.
        let streams = [
            scratch.take(most_rows, width),
            scratch.take(most_rows, width),
        ];
        let normed = scratch.take(most_rows, width);
        let query_input = scratch.take(most_rows, width);
        let query = scratch.take(most_rows, width);
        let key_value = scratch.take(most_rows, 2 * width);
        let log_sum = scratch.take(most_rows, heads);
        let context = scratch.take(most_rows, width);
        let branch = scratch.take(most_rows, width);
        let hidden = scratch.take(most_rows, config.mlp_width);
        let activated = if first_kept == usize::MAX {
            hidden
        } else {
            scratch.take(most_rows, config.mlp_width)
        };
        let statistics = [scratch.take(most_rows, 2), scratch.take(most_rows, 2)];
        let u: [Matrix; 6] = std::array::from_fn(|_| scratch.take(most_rows, most_rank));
        let class_query = scratch.take(images, width);
        let class_u = scratch.take(images, most_rank);
        let class_attention = scratch.take(images, shape.tokens);
        let largest_attention = AttentionShape {
            images,
            queries: shape.tokens,
            tokens: shape.tokens,
            heads,
            head_width: config.head_width(),
        };
        let attention_length = backend.attention_scratch(largest_attention);
        let attention_scratch = scratch.take(1, attention_length);
        // The patches are gone before the first layer writes its hidden values.
        let patch_inputs = 3 * config.patch_size * config.patch_size;
        let patches = if patch_inputs <= config.mlp_width {
            cut(hidden, most_rows, patch_inputs)
        } else {
            scratch.take(most_rows, patch_inputs)
        };
        let positions = shape.sparse.then(|| kept.take(most_rows, 1));
        let norm_input_sums = shape
            .norm_input_sums
            .then(|| kept.take(2 * config.layers, 4 * width));
        let mut images_of = Bump {
            region: Region::Pixels,
            next: 0,
        };
        let per_image = 3 * (grid * config.patch_size).pow(2);
        let pixels_matrix = images_of.take(images, per_image);
        let dpixels = shape
            .differentiate
            .pixels
            .then(|| images_of.take(images, per_image));
        let pictures = images_of.take(2 * images, 1);
        let differentiated = first_kept != usize::MAX;
        let pixels = shape.differentiate.pixels;
        let embedded = place(&mut kept, pixels && pre_norm, streams[1], most_rows, width);
        let embedded_statistics = place(&mut kept, pixels && pre_norm, statistics[0], most_rows, 2);

        let mut stream = Vec::with_capacity(end + 1);
        for layer in 0..=end {
            let rows = rows_before(layer.max(first_layer));
            stream.push(if differentiated && layer >= first_kept {
                kept.take(rows, width)
            } else {
                cut(streams[0], rows, width)
            });
        }
        let mut layers = Vec::with_capacity(end.saturating_sub(first_layer));
        for layer in first_layer..end {
            let keep = differentiated && layer >= first_kept;
            let (rows_in, rows_out) = (rows_before(layer), rows_before(layer + 1));
            let trained = |target: Target| {
                shape.differentiate.pairs && shape.ranks.contains_key(&Site { layer, target })
            };
            let prunes = shape.tokens_after[layer] * images != rows_in;
            let norm1 = NormOutput {
                normed: cut(normed, rows_in, width),
                statistics: place(&mut kept, keep, statistics[0], rows_in, 2),
            };
            let norm2 = NormOutput {
                normed: cut(normed, rows_out, width),
                statistics: place(&mut kept, keep, statistics[1], rows_out, 2),
            };
            let targets_u = std::array::from_fn(|index| {
                let target = Target::ALL[index];
                let rank = *shape.ranks.get(&Site { layer, target })?;
                let rows = match target {
                    Target::Key | Target::Value => rows_in,
                    _ => rows_out,
                };
                Some(place(
                    &mut kept,
                    keep && trained(target),
                    u[index],
                    rows,
                    rank,
                ))
            });
            layers.push(LayerPlan {
                rows_in,
                rows_out,
                attention: AttentionShape {
                    images,
                    queries: rows_out / images,
                    tokens: rows_in / images,
                    heads,
                    head_width: config.head_width(),
                },
                rows: (rows_in != rows_out).then(|| {
                    // Kept even where nothing is differentiated: the answer names the rows.
                    kept.take(rows_out, 1)
                }),
                prunes,
                norm1,
                query_input: if rows_in == rows_out {
                    norm1.normed
                } else {
                    cut(query_input, rows_out, width)
                },
                query: place(&mut kept, keep, query, rows_out, width),
                key_value: place(&mut kept, keep, key_value, rows_in, 2 * width),
                log_sum: place(&mut kept, keep, log_sum, rows_out, heads),
                context: place(
                    &mut kept,
                    keep && trained(Target::Output),
                    context,
                    rows_out,
                    width,
                ),
                branch: cut(branch, rows_out, width),
                sum: place(&mut kept, keep, streams[1], rows_out, width),
                norm2,
                hidden: place(&mut kept, keep, hidden, rows_out, config.mlp_width),
                activated: if keep {
                    cut(activated, rows_out, config.mlp_width)
                } else {
                    cut(hidden, rows_out, config.mlp_width)
                },
                u: targets_u,
            });
        }
        let end_rows = rows_before(end);
        let end_norm = NormOutput {
            normed: cut(normed, end_rows, width),
            statistics: if differentiated {
                kept.take(end_rows, 2)
            } else {
                cut(statistics[0], end_rows, 2)
            },
        };
        let mut scratch_length = scratch.next;
        let backward = differentiated.then(|| {
            // Forward's scratch is dead by then.
            let mut scratch = Bump {
                region: Region::Scratch,
                next: 0,
            };
            let trains = |target: Target| {
                shape.differentiate.pairs && shape.ranks.keys().any(|site| site.target == target)
            };
            let chooses = layers.iter().any(|layer| layer.rows.is_some());
            let when = |needed: bool| if needed { most_rows } else { 0 };
            let plan = BackwardPlan {
                dx: [
                    scratch.take(most_rows, width),
                    scratch.take(when(chooses), width),
                ],
                dbranch: scratch.take(most_rows, width),
                dhidden: scratch.take(most_rows, config.mlp_width.max(patch_inputs)),
                activated: scratch.take(when(trains(Target::MlpOut)), config.mlp_width),
                normed: scratch.take(most_rows, width),
                query_input: scratch.take(when(chooses), width),
                dnormed: scratch.take(most_rows, width),
                dquery_input: scratch.take(when(chooses), width),
                dcontext: scratch.take(most_rows, width),
                dquery: scratch.take(most_rows, width),
                dkey_value: scratch.take(most_rows, 2 * width),
                du: scratch.take(most_rows, most_rank),
                statistics: scratch.take(most_rows, 2),
                attention: scratch.take(1, attention_length),
            };
            scratch_length = scratch_length.max(scratch.next);
            plan
        });
        // After both, since backward reads the one and writes the other.
        let mut scratch = Bump {
            region: Region::Scratch,
            next: scratch_length,
        };
        let pooled = scratch.take(images, shape.pooled_width);
        let feature = scratch.take(images, shape.feature_width);
        let scratch_length = scratch.next;
        Self {
            first_layer,
            first_kept,
            grid: PatchGrid {
                images,
                tokens: shape.tokens,
                patch_size: config.patch_size,
                grid,
            },
            positions,
            pixels: pixels_matrix,
            pictures,
            dpixels,
            patches,
            embedded,
            embedded_statistics,
            stream,
            layers,
            end_norm,
            pooled,
            feature,
            class_query,
            class_u,
            class_attention,
            norm_input_sums,
            attention_scratch,
            backward,
            lengths: BufferLengths {
                kept: kept.next,
                scratch: scratch_length,
                pixels: images_of.next,
            },
            shape,
        }
    }

    /// Where [`Backend::class_attention`] of a layer is written.
    pub fn class_attention_of(&self, layer: &LayerPlan) -> Matrix {
        let shared = self.class_attention;
        cut(shared, shared.rows, layer.attention.tokens - 1)
    }

    /// Where the activations of `layer` are, which must not lie before the first one.
    pub fn layer(&self, layer: usize) -> &LayerPlan {
        &self.layers[layer - self.first_layer]
    }
}

/// Separate memory where backward needs the values, else the shared matrix.
fn place(kept: &mut Bump, keep: bool, shared: Matrix, rows: usize, columns: usize) -> Matrix {
    if keep {
        kept.take(rows, columns)
    } else {
        cut(shared, rows, columns)
    }
}
