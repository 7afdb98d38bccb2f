//! TSV-M (arXiv 2412.00081): the singular vectors of all changes side by side, made orthonormal together.

use super::spaces::{Spaces, decompose, pair_of};
use super::{MergeError, Part};
use crate::adapter::{LowRankPair, Site};
use matrix::Mat;

/// `ΔW_i = U_i S_i V_iᵀ`; with `U = [U_1 … U_n]` and its nearest orthonormal matrix `U⊥` (Procrustes: `P·Qᵀ` of `U = P D Qᵀ`), and
/// `V` likewise, the result is `U⊥ · diag(w_i·S_i) · V⊥ᵀ`. Where all singular vectors are more than the matrix has dimensions, each
/// change gives its first `dimensions / n`. A smaller `rank` keeps the largest of `w_i·S_i`.
pub(super) fn merge(
    site: Site,
    parts: &[Part<'_>],
    rank: Option<usize>,
) -> Result<LowRankPair, MergeError> {
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
    let mut columns: Vec<(usize, usize, f64)> = Vec::new();
    for (index, (part, own)) in parts.iter().zip(&own).enumerate() {
        let values = own.values.iter().take(most).enumerate();
        // The vectors of a change of zero are arbitrary.
        let values = values.filter(|(_, value)| **value > 0.0);
        columns.extend(values.map(|(j, value)| (index, j, value * f64::from(part.weight))));
    }
    if columns.is_empty() {
        columns.push((0, 0, 0.0));
    }
    if columns.len() > dimensions {
        return Err(MergeError::TooMany {
            site,
            adapters: parts.len(),
            dimensions,
        });
    }
    let u = Mat::from_fn(spaces.b.nrows(), columns.len(), |row, column| {
        let (index, j, _) = columns[column];
        own[index].u[(row, j)]
    });
    let v = Mat::from_fn(spaces.a.nrows(), columns.len(), |row, column| {
        let (index, j, _) = columns[column];
        own[index].v[(row, j)]
    });
    let (u, v) = (orthonormal(site, &u)?, orthonormal(site, &v)?);
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by(|&i, &j| columns[j].2.abs().total_cmp(&columns[i].2.abs()));
    order.truncate(rank.unwrap_or(columns.len()));
    let b = Mat::from_fn(u.nrows(), order.len(), |row, j| {
        u[(row, order[j])] * columns[order[j]].2
    });
    let a = Mat::from_fn(v.nrows(), order.len(), |row, j| v[(row, order[j])]);
    let b = matrix::product(spaces.left.as_ref(), b.as_ref());
    let a = matrix::product(spaces.right.as_ref(), a.as_ref());
    Ok(pair_of(b.as_ref(), a.as_ref()))
}

/// The matrix with orthonormal columns that is nearest to `matrix`.
fn orthonormal(site: Site, matrix: &Mat<f64>) -> Result<Mat<f64>, MergeError> {
    let svd = matrix::thin_svd(matrix.as_ref()).ok_or(MergeError::Decomposition { site })?;
    Ok(matrix::product(svd.u.as_ref(), svd.v.transpose()))
}
