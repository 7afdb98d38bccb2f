//! The spaces that the LoRA matrices of several adapters span, and changes in their coordinates: QR of the stacked matrices, so that what
//! follows works on matrices as small as the sum of the ranks. A change itself, `[out, in]`, is never made.

use super::{MergeError, Part, unscaled_pair};
use crate::adapter::{LowRankPair, Site};
use matrix::{Mat, MatRef, ThinSvd, product};

/// Values below this share of the largest are rounding, not rank: LoRA matrices, and what TIES gives, are `f32`.
pub(super) const NEGLIGIBLE: f64 = 1e-6;

/// Orthonormal bases of all LoRA matrices at one site, and each adapter's change in them.
pub(super) struct Spaces {
    /// `[out, k]`, spans the columns of all `B`.
    pub left: Mat<f64>,
    /// `[in, l]`, spans the rows of all `A`.
    pub right: Mat<f64>,
    /// `[k, Σ ranks]`: all `B` side by side, in coordinates of `left`.
    pub b: Mat<f64>,
    /// `[l, Σ ranks]`: all `Aᵀ` side by side, in coordinates of `right`.
    pub a: Mat<f64>,
    /// Rank and scale of each adapter.
    parts: Vec<(usize, f64)>,
}

impl Spaces {
    pub fn of(parts: &[Part<'_>]) -> Self {
        let (outputs, inputs) = (parts[0].pair.outputs(), parts[0].pair.inputs());
        // Column j of both matrices: row of the stacked A, column of the stacked B.
        let columns: Vec<(&LowRankPair, usize)> = parts
            .iter()
            .flat_map(|part| (0..part.pair.rank()).map(move |j| (part.pair, j)))
            .collect();
        let b = Mat::from_fn(outputs, columns.len(), |row, column| {
            let (pair, j) = columns[column];
            f64::from(pair.b.row(row)[j])
        });
        let a = Mat::from_fn(inputs, columns.len(), |row, column| {
            let (pair, j) = columns[column];
            f64::from(pair.a.row(j)[row])
        });
        let (b, a) = (matrix::thin_qr(b.as_ref()), matrix::thin_qr(a.as_ref()));
        let parts = parts.iter().map(|part| part.pair);
        Self {
            left: b.q,
            right: a.q,
            b: b.r,
            a: a.r,
            parts: parts
                .map(|pair| (pair.rank(), f64::from(pair.scale)))
                .collect(),
        }
    }

    /// All `B` side by side, as in `b`, each times its adapter's scale and weight.
    pub fn weighted_b(&self, parts: &[Part<'_>]) -> Mat<f64> {
        let scales = parts.iter().flat_map(|part| {
            let scale = f64::from(part.weight) * f64::from(part.pair.scale);
            std::iter::repeat_n(scale, part.pair.rank())
        });
        let scales: Vec<f64> = scales.collect();
        let scaled = |row, column| self.b[(row, column)] * scales[column];
        Mat::from_fn(self.b.nrows(), self.b.ncols(), scaled)
    }

    /// The change of each adapter times its weight, as in [`Self::cores`].
    pub fn weighted_cores(&self, parts: &[Part<'_>]) -> Vec<Mat<f64>> {
        let weighted = parts.iter().zip(self.cores());
        let weighted =
            weighted.map(|(part, core)| matrix::scaled(f64::from(part.weight), core.as_ref()));
        weighted.collect()
    }

    /// The sum of `cores`.
    pub fn total(&self, cores: &[Mat<f64>]) -> Mat<f64> {
        let mut total = Mat::zeros(self.b.nrows(), self.a.nrows());
        for core in cores {
            matrix::add_scaled(&mut total, 1.0, core.as_ref());
        }
        total
    }

    /// The change of each adapter, `[k, l]`: `left · core · rightᵀ` is `scale·B·A`.
    pub fn cores(&self) -> Vec<Mat<f64>> {
        let mut start = 0;
        let core = |&(rank, scale): &(usize, f64)| {
            let b = self.b.subcols(start, rank);
            let a = self.a.subcols(start, rank);
            start += rank;
            matrix::scaled(scale, product(b, a.transpose()).as_ref())
        };
        self.parts.iter().map(core).collect()
    }
}

/// A singular value decomposition without what is only rounding; at least one value is left.
pub(super) struct Decomposition {
    /// `[rows, rank]`
    pub u: Mat<f64>,
    /// Descending.
    pub values: Vec<f64>,
    /// `[columns, rank]`
    pub v: Mat<f64>,
}

/// # Errors
/// [`MergeError::Decomposition`] for values that are not finite.
pub(super) fn decompose(site: Site, matrix: MatRef<'_, f64>) -> Result<Decomposition, MergeError> {
    let ThinSvd { u, values, v } =
        matrix::thin_svd(matrix).ok_or(MergeError::Decomposition { site })?;
    let largest = values.first().copied().unwrap_or(0.0);
    if !largest.is_finite() {
        return Err(MergeError::Decomposition { site });
    }
    let counted = values
        .iter()
        .take_while(|&&value| value > largest * NEGLIGIBLE);
    let rank = counted.count().clamp(1, values.len().max(1));
    Ok(Decomposition {
        u: u.subcols(0, rank).to_owned(),
        v: v.subcols(0, rank).to_owned(),
        values: values[..rank].to_vec(),
    })
}

impl Decomposition {
    /// Only the first `most` values of those above `least`; there may be none.
    pub fn first(&self, most: usize, least: f64) -> Self {
        let above = self.values.iter().take_while(|&&value| value > least);
        let rank = above.count().min(most);
        Self {
            u: self.u.subcols(0, rank).to_owned(),
            v: self.v.subcols(0, rank).to_owned(),
            values: self.values[..rank].to_vec(),
        }
    }

    /// `(U·S, V)` of the first `rank` values, all where it is not given: the nearest matrix of that rank, split as PEFT splits it.
    pub fn split(&self, rank: Option<usize>) -> (Mat<f64>, Mat<f64>) {
        let rank = rank.unwrap_or(self.values.len()).min(self.values.len());
        let scaled = |row, j| self.u[(row, j)] * self.values[j];
        let b = Mat::from_fn(self.u.nrows(), rank, scaled);
        (b, self.v.subcols(0, rank).to_owned())
    }
}

/// A merged change whose rank is still open: `left · U · diag(values) · Vᵀ · rightᵀ`, with `U`, `values` and `V` those of `core`.
pub(super) struct MergedChange {
    /// `[out, k]` and `[in, l]`, both with orthonormal columns; `None` where `core` is the change itself.
    pub bases: Option<(Mat<f64>, Mat<f64>)>,
    /// `[k, l]`, the strongest directions first.
    pub core: Decomposition,
}

impl MergedChange {
    /// `left · core · rightᵀ`, where `left` and `right` have orthonormal columns.
    ///
    /// # Errors
    /// As [`decompose`].
    pub fn of(
        site: Site,
        left: Mat<f64>,
        core: MatRef<'_, f64>,
        right: Mat<f64>,
    ) -> Result<Self, MergeError> {
        Ok(Self {
            bases: Some((left, right)),
            core: decompose(site, core)?,
        })
    }

    /// Its Frobenius norm.
    pub fn norm(&self) -> f64 {
        // Of directions that were made orthonormal together, some may be zero, so the values alone do not give it.
        let (b, a) = self.core.split(None);
        matrix::squared_norm(product(b.as_ref(), a.transpose()).as_ref()).sqrt()
    }

    /// Multiplies the change by `by`.
    pub fn scale(&mut self, by: f64) {
        self.core.values.iter_mut().for_each(|value| *value *= by);
    }

    /// Its low-rank pair, or that of the nearest change of `rank` to it.
    pub fn pair(&self, rank: Option<usize>) -> LowRankPair {
        let (b, a) = self.core.split(rank);
        match &self.bases {
            Some((left, right)) => {
                let b = product(left.as_ref(), b.as_ref());
                let a = product(right.as_ref(), a.as_ref());
                pair_of(b.as_ref(), a.as_ref())
            }
            None => pair_of(b.as_ref(), a.as_ref()),
        }
    }
}

/// `B` from `b` `[out, rank]`, `A` from the transpose of `a` `[in, rank]`.
fn pair_of(b: MatRef<'_, f64>, a: MatRef<'_, f64>) -> LowRankPair {
    let rank = b.ncols();
    unscaled_pair([rank, a.nrows()], columns(a), [b.nrows(), rank], rows(b))
}

/// The values of `matrix`, column by column.
fn columns(matrix: MatRef<'_, f64>) -> Vec<f32> {
    let columns = (0..matrix.ncols()).flat_map(|j| (0..matrix.nrows()).map(move |i| (i, j)));
    columns.map(|place| matrix[place] as f32).collect()
}

/// The values of `matrix`, row by row.
fn rows(matrix: MatRef<'_, f64>) -> Vec<f32> {
    columns(matrix.transpose())
}

/// The values of a change in coordinates, row by row. What is only rounding becomes 0, because TIES counts every other value.
pub(super) fn coordinates(matrix: &Mat<f64>) -> Vec<f32> {
    let mut values = rows(matrix.as_ref());
    let largest = values
        .iter()
        .fold(0f32, |largest, value| largest.max(value.abs()));
    for value in &mut values {
        if value.abs() < largest * NEGLIGIBLE as f32 {
            *value = 0.0;
        }
    }
    values
}

/// A matrix from its values, row by row.
pub(super) fn from_rows(values: &[f32], columns: usize) -> Mat<f64> {
    Mat::from_fn(values.len() / columns, columns, |row, column| {
        f64::from(values[row * columns + column])
    })
}
