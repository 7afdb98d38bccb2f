//! The nearest change of a given rank to a weighted sum of changes, from the factors alone: QR of the stacked factors, then the SVD
//! of a matrix as small as the sum of the ranks. The change itself, `[out, in]`, is never made.

use super::{MergeError, Part, factors};
use crate::adapter::{Factors, Site};
use faer::Mat;

/// `B = U·S`, `A = Vᵀ`, as PEFT splits the singular values. The rank is at most what the factors can carry.
pub(super) fn merge(site: Site, parts: &[Part<'_>], rank: usize) -> Result<Factors, MergeError> {
    let failed = || MergeError::Decomposition { site };
    let (outputs, inputs) = (parts[0].factors.outputs(), parts[0].factors.inputs());
    // Column j of both matrices: row of the stacked A, column of the stacked B.
    let columns: Vec<(&Part<'_>, usize)> = parts
        .iter()
        .flat_map(|part| (0..part.factors.rank()).map(move |j| (part, j)))
        .collect();
    let b = Mat::from_fn(outputs, columns.len(), |row, column| {
        let (part, j) = columns[column];
        let factor = f64::from(part.weight) * f64::from(part.factors.scale);
        f64::from(part.factors.b.row(row)[j]) * factor
    });
    let a = Mat::from_fn(inputs, columns.len(), |row, column| {
        let (part, j) = columns[column];
        f64::from(part.factors.a.row(j)[row])
    });
    let (b, a) = (b.qr(), a.qr());
    let core = b.thin_R() * a.thin_R().transpose();
    let svd = core.thin_svd().map_err(|_| failed())?;
    let (u, values, v) = (svd.U(), svd.S().column_vector(), svd.V());
    let rank = rank.min(values.nrows());
    let left = b.compute_thin_Q() * u.subcols(0, rank);
    let right = a.compute_thin_Q() * v.subcols(0, rank);
    let mut b = Vec::with_capacity(outputs * rank);
    for row in 0..outputs {
        b.extend((0..rank).map(|j| (left[(row, j)] * values[j]) as f32));
    }
    let mut a = Vec::with_capacity(rank * inputs);
    for j in 0..rank {
        a.extend((0..inputs).map(|row| right[(row, j)] as f32));
    }
    Ok(factors([rank, inputs], a, [outputs, rank], b))
}
