//! Merges of the changes' coordinates in spaces that the low-rank pairs share.

use super::spaces::{Decomposition, MergedChange, Spaces, coordinates, decompose, from_rows};
use super::ties::Ties;
use super::{MergeError, Part, effective};
use crate::adapter::Site;
use matrix::{Mat, product};

/// The weighted sum of the changes.
pub(super) fn sum(site: Site, parts: &[Part<'_>]) -> Result<MergedChange, MergeError> {
    let spaces = Spaces::of(parts);
    let core = spaces.total(&spaces.weighted_cores(parts));
    MergedChange::of(site, spaces.left, core.as_ref(), spaces.right)
}

/// TIES on the changes themselves, `[out, in]`, one in memory at a time: it works value by value, which no smaller form allows.
pub(super) fn ties_of_changes(
    site: Site,
    parts: &[Part<'_>],
    ties: &Ties<'_>,
) -> Result<MergedChange, MergeError> {
    let merged = ties.merge(|index| parts[index].pair.delta().data().to_vec());
    let change = from_rows(&merged, parts[0].pair.inputs());
    Ok(MergedChange {
        bases: None,
        core: decompose(site, change.as_ref())?,
    })
}

/// KnOTS-TIES (arXiv 2410.19735): `[ΔW_1 … ΔW_n] = U S [V_1 … V_n]ᵀ`; the `S·V_iᵀ`, which share a basis, are merged by TIES, and
/// the result is `U` times that.
pub(super) fn knots(
    site: Site,
    parts: &[Part<'_>],
    ties: &Ties<'_>,
) -> Result<MergedChange, MergeError> {
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
    MergedChange::of(site, b, qr.r.transpose(), qr.q)
}

/// Core Space (arXiv 2509.17786): the left singular vectors of all `B` side by side and of all `Aᵀ` side by side are the reference
/// bases, in which every change is a small matrix without loss; TIES merges these. Sums and TSV-M are the same in these bases as
/// outside, because the bases are orthonormal.
pub(super) fn core_space(
    site: Site,
    parts: &[Part<'_>],
    ties: &Ties<'_>,
) -> Result<MergedChange, MergeError> {
    let spaces = Spaces::of(parts);
    let left = decompose(site, spaces.b.as_ref())?.u;
    let right = decompose(site, spaces.a.as_ref())?.u;
    let cores = spaces.cores();
    in_bases(site, &spaces, &cores, (&left, &right), ties)
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
) -> Result<MergedChange, MergeError> {
    let spaces = Spaces::of(parts);
    let cores = spaces.cores();
    let transposed: Vec<Mat<f64>> = cores.iter().map(|own| own.transpose().to_owned()).collect();
    let shared = |changes: &[Mat<f64>]| {
        let u = decompose(site, beside(changes).as_ref())?.u;
        Ok(u.subcols(0, rank.min(u.ncols())).to_owned())
    };
    let (left, right) = (shared(&cores)?, shared(&transposed)?);
    in_bases(site, &spaces, &cores, (&left, &right), ties)
}

/// WUDI-Merging (arXiv 2503.08099): the `W` that minimises `Σ ‖(W − Δ_i)·Δ_iᵀ‖² / ‖Δ_i‖²` over the changes `Δ_i = w_i·ΔW_i`, and of
/// several the smallest: `(Σ c_i·Δ_i·Δ_iᵀ·Δ_i)·(Σ c_i·Δ_iᵀ·Δ_i)⁺` with `c_i = 1/‖Δ_i‖²`. The paper goes there in 300 steps of Adam.
///
/// With `Δ_i = U_i S_i V_iᵀ` and `Ŝ_i = S_i/‖Δ_i‖` the sum is `‖W·H − T‖²`, where `H = [V_1·Ŝ_1 …]` and `T = [U_1·S_1·Ŝ_1 …]`. So the
/// result is `T·H⁺`, which does not square how unlike the singular values are, as the first form does.
pub(super) fn wudi(site: Site, parts: &[Part<'_>]) -> Result<MergedChange, MergeError> {
    let parts = effective(parts);
    let spaces = Spaces::of(&parts);
    let mut changes = Vec::new();
    let mut columns: Vec<(usize, usize, f64)> = Vec::new();
    for (index, core) in spaces.weighted_cores(&parts).iter().enumerate() {
        let own = decompose(site, core.as_ref())?.first(usize::MAX, 0.0);
        let squares = own.values.iter().map(|value| value * value);
        let norm = squares.sum::<f64>().sqrt();
        let values = own.values.iter().enumerate();
        columns.extend(values.map(|(j, value)| (index, j, value / norm)));
        changes.push(own);
    }
    let Spaces { left, right, .. } = &spaces;
    let mut core = Mat::zeros(left.ncols(), right.ncols());
    if !columns.is_empty() {
        let inputs = Mat::from_fn(right.ncols(), columns.len(), |row, column| {
            let (index, j, share) = columns[column];
            changes[index].v[(row, j)] * share
        });
        let outputs = Mat::from_fn(left.ncols(), columns.len(), |row, column| {
            let (index, j, share) = columns[column];
            changes[index].u[(row, j)] * changes[index].values[j] * share
        });
        let Decomposition { u, values, v } = decompose(site, inputs.as_ref())?;
        let inverse = Mat::from_fn(columns.len(), values.len(), |row, j| {
            v[(row, j)] / values[j]
        });
        core = product(
            product(outputs.as_ref(), inverse.as_ref()).as_ref(),
            u.transpose(),
        );
    }
    MergedChange::of(site, spaces.left, core.as_ref(), spaces.right)
}

/// TIES on the changes, whose `cores` in `spaces` are given, in coordinates of `left` `[k, ·]` and `right` `[l, ·]`, bases within
/// `spaces`.
fn in_bases(
    site: Site,
    spaces: &Spaces,
    cores: &[Mat<f64>],
    (left, right): (&Mat<f64>, &Mat<f64>),
    ties: &Ties<'_>,
) -> Result<MergedChange, MergeError> {
    let inner = |index: usize| product(left.transpose(), cores[index].as_ref());
    let merged = ties.merge(|index| coordinates(&product(inner(index).as_ref(), right.as_ref())));
    let core = from_rows(&merged, right.ncols());
    let left = product(spaces.left.as_ref(), left.as_ref());
    let right = product(spaces.right.as_ref(), right.as_ref());
    MergedChange::of(site, left, core.as_ref(), right)
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
