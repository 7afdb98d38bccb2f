//! Merges of the changes' singular vectors: TSV-M sets them apart, Iso-C and Iso-CTS make them equally strong.

use super::spaces::{Decomposition, MergedChange, NEGLIGIBLE, Spaces, decompose};
use super::{MergeError, Part, effective};
use crate::adapter::Site;
use matrix::{Mat, product};

/// What becomes of singular values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spectrum {
    /// They stay.
    Kept,
    /// Their mean takes the place of each.
    Flat,
}

/// TSV-M (arXiv 2412.00081). `ΔW_i = U_i S_i V_iᵀ`; with `U = [U_1 … U_n]` and its nearest orthonormal matrix `U⊥` (Procrustes: `P·Qᵀ`
/// of `U = P D Qᵀ`), and `V` likewise, the result is `U⊥ · diag(w_i·S_i) · V⊥ᵀ`. Where all singular vectors are more than the matrix
/// has dimensions, each change gives its first `dimensions / n`. A smaller `rank` keeps the largest of `w_i·S_i`. A flat spectrum has
/// the mean of `|w_i|·S_i` in place of each of them, with the sign of `w_i`.
pub(super) fn tsv(
    site: Site,
    parts: &[Part<'_>],
    spectrum: Spectrum,
) -> Result<MergedChange, MergeError> {
    let spaces = Spaces::of(parts);
    let dimensions = spaces.left.nrows().min(spaces.right.nrows());
    let own = spaces.cores();
    let own = own.iter().map(|core| decompose(site, core.as_ref()));
    let own = own.collect::<Result<Vec<_>, _>>()?;
    let all: usize = own.iter().map(|own| own.values.len()).sum();
    let most = if all > dimensions {
        (dimensions / parts.len()).max(1)
    } else {
        dimensions
    };
    // The vectors of a change of zero are arbitrary.
    let own: Vec<(Decomposition, f64)> = parts
        .iter()
        .zip(&own)
        .map(|(part, own)| (own.first(most, 0.0), f64::from(part.weight)))
        .collect();
    let all: usize = own.iter().map(|(own, _)| own.values.len()).sum();
    if all > dimensions {
        return Err(MergeError::TooMany {
            site,
            adapters: parts.len(),
            dimensions,
        });
    }
    set_apart(site, spaces, &own, spectrum)
}

/// Iso-C (arXiv 2502.04959): `Σ w_i·ΔW_i = U S Vᵀ` becomes `m·U·Vᵀ`, where `m` is the mean of `S`.
///
/// The paper has matrices of full rank. Of low rank, only singular values that are not zero are counted and made equal, because the
/// vectors of the others are arbitrary. All values are equal, so a smaller `rank` keeps those that were the largest.
pub(super) fn iso_c(site: Site, parts: &[Part<'_>]) -> Result<MergedChange, MergeError> {
    let parts = effective(parts);
    let spaces = Spaces::of(&parts);
    let changes = spaces.weighted_cores(&parts);
    let sum = spaces.total(&changes);
    let mut sum = decompose(site, sum.as_ref())?.first(usize::MAX, rounding(&changes));
    let mean = mean(sum.values.iter().copied());
    sum.values.fill(mean);
    if sum.values.is_empty() {
        return zero(site, spaces);
    }
    Ok(MergedChange {
        bases: Some((spaces.left, spaces.right)),
        core: sum,
    })
}

/// Iso-CTS (arXiv 2502.04959). Of the `R` singular vectors of `Σ w_i·ΔW_i`, the first `k` are the common ones, `U_k` and `V_k`. Each
/// adapter adds the first `t` of `(I − U_k·U_kᵀ)·w_i·ΔW_i`. All left ones side by side are made orthonormal as in [`tsv`], and all right
/// ones, and the result is `m·U⊥·V⊥ᵀ`, where `m` is the mean of their singular values. `k` and `t` are those of [`common_and_own`]; zeros and
/// `rank` are treated as in [`iso_c`].
pub(super) fn iso_cts(site: Site, parts: &[Part<'_>]) -> Result<MergedChange, MergeError> {
    let parts = effective(parts);
    let spaces = Spaces::of(&parts);
    let changes = spaces.weighted_cores(&parts);
    let least = rounding(&changes);
    let sum = decompose(site, spaces.total(&changes).as_ref())?.first(usize::MAX, least);
    let (common, own) = common_and_own(sum.values.len(), changes.len());
    let common = sum.first(common, least);
    let left_over = changes.iter().map(|change| {
        let along = product(common.u.transpose(), change.as_ref());
        let along = product(common.u.as_ref(), along.as_ref());
        let mut rest = change.clone();
        matrix::add_scaled(&mut rest, -1.0, along.as_ref());
        Ok((decompose(site, rest.as_ref())?.first(own, least), 1.0))
    });
    let left_over = left_over.collect::<Result<Vec<_>, _>>()?;
    let mut all = vec![(common, 1.0)];
    all.extend(left_over);
    set_apart(site, spaces, &all, Spectrum::Flat)
}

/// Of `dimensions`, how many are common and how many each of `adapters` has for itself: four fifths are common, as the paper has it, but for
/// what is left over or missing where the others are dealt out.
pub(super) fn common_and_own(dimensions: usize, adapters: usize) -> (usize, usize) {
    let left = dimensions - dimensions * 4 / 5;
    let own = (left as f64 / adapters as f64).round_ties_even() as usize;
    (dimensions.saturating_sub(own * adapters), own)
}

/// The singular vectors of all `changes`, left ones and right ones each made orthonormal together, with the singular values times what
/// stands beside each change.
fn set_apart(
    site: Site,
    spaces: Spaces,
    changes: &[(Decomposition, f64)],
    spectrum: Spectrum,
) -> Result<MergedChange, MergeError> {
    let mut columns: Vec<(usize, usize, f64)> = Vec::new();
    for (index, (own, weight)) in changes.iter().enumerate() {
        let values = own.values.iter().enumerate();
        columns.extend(values.map(|(j, value)| (index, j, value * weight)));
    }
    if spectrum == Spectrum::Flat {
        columns.retain(|(_, _, value)| *value != 0.0);
    }
    if columns.is_empty() {
        return zero(site, spaces);
    }
    let beside = |vectors: fn(&Decomposition) -> &Mat<f64>| {
        let rows = vectors(&changes[0].0).nrows();
        Mat::from_fn(rows, columns.len(), |row, column| {
            let (index, j, _) = columns[column];
            vectors(&changes[index].0)[(row, j)]
        })
    };
    let (u, v) = (beside(|own| &own.u), beside(|own| &own.v));
    let u = orthonormal(site, &u, spectrum)?;
    let v = orthonormal(site, &v, spectrum)?;
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by(|&i, &j| columns[j].2.abs().total_cmp(&columns[i].2.abs()));
    let mean = mean(columns.iter().map(|(_, _, value)| value.abs()));
    let value = |column: usize| match spectrum {
        Spectrum::Kept => columns[column].2,
        Spectrum::Flat => mean.copysign(columns[column].2),
    };
    let ordered = |vectors: &Mat<f64>| {
        Mat::from_fn(vectors.nrows(), order.len(), |row, j| {
            vectors[(row, order[j])]
        })
    };
    Ok(MergedChange {
        bases: Some((spaces.left, spaces.right)),
        core: Decomposition {
            u: ordered(&u),
            values: order.iter().map(|&column| value(column)).collect(),
            v: ordered(&v),
        },
    })
}

/// The matrix with orthonormal columns that is nearest to `matrix`. Where columns depend on each other, several are. For a spectrum that
/// is kept, one of them is taken. A flat one would make arbitrary directions as strong as the others, so these are zero.
fn orthonormal(site: Site, matrix: &Mat<f64>, spectrum: Spectrum) -> Result<Mat<f64>, MergeError> {
    let (u, v) = match spectrum {
        Spectrum::Kept => {
            let svd = matrix::thin_svd(matrix.as_ref());
            let svd = svd.ok_or(MergeError::Decomposition { site })?;
            (svd.u, svd.v)
        }
        Spectrum::Flat => {
            let svd = decompose(site, matrix.as_ref())?;
            (svd.u, svd.v)
        }
    };
    Ok(product(u.as_ref(), v.transpose()))
}

/// Up to which size a singular value of what is made of `changes` is rounding.
fn rounding(changes: &[Mat<f64>]) -> f64 {
    let squares = changes.iter().map(|own| matrix::squared_norm(own.as_ref()));
    squares.fold(0.0, f64::max).sqrt() * NEGLIGIBLE
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// No change.
fn zero(site: Site, spaces: Spaces) -> Result<MergedChange, MergeError> {
    let core = Mat::zeros(spaces.b.nrows(), spaces.a.nrows());
    MergedChange::of(site, spaces.left, core.as_ref(), spaces.right)
}
