//! What moves tokens about.

use super::driver::Geometry;
use super::geometry::{by_row, int, threads};
use super::kernels::{
    ChooseRows, Embed, Gather, Patchify, PatchifyBackward, Pool, PoolBackward, Rows, ScatterAdd,
};
use super::queue::{Queue, Stored};
use crate::backend::{Matrix, PatchGrid};
use model::backbone::Pooling;

/// As [`crate::backend::Backend::patchify`].
pub fn patchify(
    queue: &mut Queue,
    pixels: Matrix,
    grid: PatchGrid,
    positions: Option<Matrix>,
    patches: Matrix,
) {
    let kernel = Patchify {
        pixels: queue.values(pixels),
        positions: queue.indices(positions),
        patches: queue.rows_mut(patches),
        tokens: int(grid.tokens),
        patch_size: int(grid.patch_size),
        patch_grid: int(grid.grid),
    };
    queue.launch(by_row(patches.rows, patches.columns), &kernel);
}

/// As [`crate::backend::Backend::patchify_backward`].
pub fn patchify_backward(
    queue: &mut Queue,
    dpatches: Matrix,
    grid: PatchGrid,
    positions: Option<Matrix>,
    dpixels: Matrix,
) {
    if positions.is_some() {
        queue.fill_zero(dpixels);
    }
    let kernel = PatchifyBackward {
        dpatches: queue.rows(dpatches),
        positions: queue.indices(positions),
        dpixels: queue.values_mut(dpixels),
        tokens: int(grid.tokens),
        patch_size: int(grid.patch_size),
        patch_grid: int(grid.grid),
    };
    queue.launch(by_row(dpatches.rows, dpatches.columns), &kernel);
}

/// What [`embed`] adds.
pub struct Embedding<'w> {
    pub bias: Option<&'w Stored>,
    pub class_token: &'w Stored,
    pub position: &'w Stored,
}

/// As [`crate::backend::Backend::embed`].
pub fn embed(
    queue: &mut Queue,
    tokens: Matrix,
    grid: PatchGrid,
    positions: Option<Matrix>,
    embedding: &Embedding<'_>,
) {
    let width = tokens.columns;
    let kernel = Embed {
        tokens: queue.rows_mut(tokens),
        positions: queue.indices(positions),
        bias: queue.optional(embedding.bias, width),
        class_token: queue.vector(embedding.class_token, width),
        position_embedding: queue.vector(embedding.position, (1 + grid.grid * grid.grid) * width),
        tokens_per_image: int(grid.tokens),
        width: int(width),
    };
    queue.launch(by_row(tokens.rows, width), &kernel);
}

/// As [`crate::backend::Backend::choose_rows`].
pub fn choose_rows(
    queue: &mut Queue,
    attention: Option<Matrix>,
    tokens: usize,
    keep: usize,
    rows: Matrix,
) {
    let kernel = ChooseRows {
        attention: attention.map_or(Rows(0, 0), |attention| queue.rows(attention)),
        tokens: int(tokens),
        keep: int(keep),
        rows: queue.indices_mut(rows),
    };
    let geometry = Geometry {
        grid: [rows.rows / (1 + keep), 1, 1],
        threads: threads(tokens - 1),
        shared: (tokens - 1) * size_of::<i32>(),
    };
    queue.launch(geometry, &kernel);
}

/// As [`crate::backend::Backend::gather`].
pub fn gather(queue: &mut Queue, x: Matrix, rows: Matrix, y: Matrix) {
    let kernel = Gather {
        x: queue.rows(x),
        rows: queue.indices(Some(rows)),
        y: queue.rows_mut(y),
        width: int(y.columns),
    };
    queue.launch(by_row(y.rows, y.columns), &kernel);
}

/// As [`crate::backend::Backend::scatter_add`].
pub fn scatter_add(queue: &mut Queue, dy: Matrix, rows: Matrix, dx: Matrix) {
    let kernel = ScatterAdd {
        dy: queue.rows(dy),
        rows: queue.indices(Some(rows)),
        count: int(dy.rows),
        dx: queue.rows_mut(dx),
        width: int(dy.columns),
    };
    queue.launch(by_row(dy.rows, dy.columns), &kernel);
}

/// `POOL_CLASS`, `POOL_MEAN` and `POOL_CLASS_MEAN` of the kernels.
fn kind(pooling: Pooling) -> i32 {
    match pooling {
        Pooling::Cls => 0,
        Pooling::Mean => 1,
        Pooling::ClsMean => 2,
    }
}

/// As [`crate::backend::Backend::pool`].
pub fn pool(queue: &mut Queue, tokens: Matrix, pooling: Pooling, pooled: Matrix) {
    if pooled.rows == 0 {
        return;
    }
    let width = tokens.columns;
    let kernel = Pool {
        tokens: queue.rows(tokens),
        pooled: queue.rows_mut(pooled),
        per_image: int(tokens.rows / pooled.rows),
        width: int(width),
        kind: kind(pooling),
    };
    let own = threads(width);
    let geometry = Geometry {
        grid: [pooled.rows, width.div_ceil(own as usize), 1],
        threads: own,
        shared: 0,
    };
    queue.launch(geometry, &kernel);
}

/// As [`crate::backend::Backend::pool_backward`].
pub fn pool_backward(queue: &mut Queue, dpooled: Matrix, pooling: Pooling, dtokens: Matrix) {
    if dpooled.rows == 0 {
        return;
    }
    let kernel = PoolBackward {
        dpooled: queue.rows(dpooled),
        dtokens: queue.rows_mut(dtokens),
        per_image: int(dtokens.rows / dpooled.rows),
        width: int(dtokens.columns),
        kind: kind(pooling),
    };
    queue.launch(by_row(dtokens.rows, dtokens.columns), &kernel);
}
