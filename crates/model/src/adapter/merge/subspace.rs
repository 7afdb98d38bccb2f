//! Merges of the changes' coordinates in spaces that the low-rank pairs share.

use super::spaces::{Spaces, compressed, coordinates, decompose, from_rows, pair_of};
use super::ties::Ties;
use super::{MergeError, Part};
use crate::adapter::{LowRankPair, Site};
use matrix::{Mat, product};

/// The weighted sum of the changes, or the nearest change of `rank` to it.
pub(super) fn sum(
    site: Site,
    parts: &[Part<'_>],
    rank: Option<usize>,
) -> Result<LowRankPair, MergeError> {
    let spaces = Spaces::of(parts);
    let mut core = Mat::zeros(spaces.b.nrows(), spaces.a.nrows());
    for (part, own) in parts.iter().zip(spaces.cores()) {
        matrix::add_scaled(&mut core, f64::from(part.weight), own.as_ref());
    }
    let Spaces { left, right, .. } = &spaces;
    compressed(site, left.as_ref(), core.as_ref(), right.as_ref(), rank)
}

/// TIES on the changes themselves, `[out, in]`, one in memory at a time: it works value by value, which no smaller form allows.
pub(super) fn ties_of_changes(
    site: Site,
    parts: &[Part<'_>],
    ties: &Ties<'_>,
    rank: Option<usize>,
) -> Result<LowRankPair, MergeError> {
    let merged = ties.merge(|index| parts[index].pair.delta().data().to_vec());
    let change = from_rows(&merged, parts[0].pair.inputs());
    let (b, a) = decompose(site, change.as_ref())?.split(rank);
    Ok(pair_of(b.as_ref(), a.as_ref()))
}

/// KnOTS-TIES (arXiv 2410.19735): `[ΔW_1 … ΔW_n] = U S [V_1 … V_n]ᵀ`; the `S·V_iᵀ`, which share a basis, are merged by TIES, and
/// the result is `U` times that.
pub(super) fn knots(
    site: Site,
    parts: &[Part<'_>],
    ties: &Ties<'_>,
    rank: Option<usize>,
) -> Result<LowRankPair, MergeError> {
    let spaces = Spaces::of(parts);
    // Right matrices with orthonormal columns change neither U nor S, so the cores stand in for the changes.
    let cores = spaces.cores();
    let u = decompose(site, beside(&cores).as_ref())?.u;
    // S·V_iᵀ = Uᵀ·ΔW_i in coordinates of the outputs' space, [rank of U, in].
    let right = spaces.right.transpose();
    let inner = |index: usize| product(u.transpose(), cores[index].as_ref());
    let merged = ties.merge(|index| coordinates(&product(inner(index).as_ref(), right)));
    let a = from_rows(&merged, spaces.right.nrows());
    let b = product(spaces.left.as_ref(), u.as_ref());
    let qr = matrix::thin_qr(a.transpose());
    compressed(site, b.as_ref(), qr.r.transpose(), qr.q.as_ref(), rank)
}

/// Core Space (arXiv 2509.17786): the left singular vectors of all `B` side by side and of all `Aᵀ` side by side are the reference
/// bases, in which every change is a small matrix without loss; TIES merges these. Sums and TSV-M are the same in these bases as
/// outside, because the bases are orthonormal.
pub(super) fn core_space(
    site: Site,
    parts: &[Part<'_>],
    ties: &Ties<'_>,
    rank: Option<usize>,
) -> Result<LowRankPair, MergeError> {
    let spaces = Spaces::of(parts);
    let left = decompose(site, spaces.b.as_ref())?.u;
    let right = decompose(site, spaces.a.as_ref())?.u;
    let cores = spaces.cores();
    in_bases(site, &spaces, &cores, (&left, &right), ties, rank)
}

/// Compress-then-Merge (arXiv 2606.03723): every change is projected to shared spaces of `rank` dimensions, and the coordinates,
/// `[rank, rank]`, are merged by TIES.
///
/// The paper's abstract leaves the choice of the spaces open. Here they are those that keep most of the changes' squares: the first
/// left singular vectors of `[ΔW_1 … ΔW_n]`, and of `[ΔW_1ᵀ … ΔW_nᵀ]`.
pub(super) fn compress_then_merge(
    site: Site,
    parts: &[Part<'_>],
    ties: &Ties<'_>,
    rank: usize,
) -> Result<LowRankPair, MergeError> {
    let spaces = Spaces::of(parts);
    let cores = spaces.cores();
    let transposed: Vec<Mat<f64>> = cores.iter().map(|own| own.transpose().to_owned()).collect();
    let shared = |changes: &[Mat<f64>]| {
        let u = decompose(site, beside(changes).as_ref())?.u;
        Ok(u.subcols(0, rank.min(u.ncols())).to_owned())
    };
    let (left, right) = (shared(&cores)?, shared(&transposed)?);
    in_bases(site, &spaces, &cores, (&left, &right), ties, Some(rank))
}

/// TIES on the changes, whose `cores` in `spaces` are given, in coordinates of `left` `[k, ·]` and `right` `[l, ·]`, bases within
/// `spaces`.
fn in_bases(
    site: Site,
    spaces: &Spaces,
    cores: &[Mat<f64>],
    (left, right): (&Mat<f64>, &Mat<f64>),
    ties: &Ties<'_>,
    rank: Option<usize>,
) -> Result<LowRankPair, MergeError> {
    let inner = |index: usize| product(left.transpose(), cores[index].as_ref());
    let merged = ties.merge(|index| coordinates(&product(inner(index).as_ref(), right.as_ref())));
    let core = from_rows(&merged, right.ncols());
    let left = product(spaces.left.as_ref(), left.as_ref());
    let right = product(spaces.right.as_ref(), right.as_ref());
    compressed(site, left.as_ref(), core.as_ref(), right.as_ref(), rank)
}

/// `[M_1 … M_n]`
fn beside(matrices: &[Mat<f64>]) -> Mat<f64> {
    let columns = matrices[0].ncols();
    Mat::from_fn(
        matrices[0].nrows(),
        columns * matrices.len(),
        |row, column| matrices[column / columns][(row, column % columns)],
    )
}
