//! Products and decompositions of dense `f64` matrices. faer's kernels are generic and slow to compile. Called through these functions, they are
//! compiled once, in this crate, and not again whenever a crate that uses them changes.

pub use faer::{Mat, MatRef};

/// A singular value decomposition, `M = U · diag(values) · Vᵀ`.
#[derive(Debug, Clone)]
pub struct ThinSvd {
    /// `[rows, k]`, `k` the smaller of rows and columns
    pub u: Mat<f64>,
    /// `[k]`, descending
    pub values: Vec<f64>,
    /// `[columns, k]`
    pub v: Mat<f64>,
}

/// A QR decomposition, `M = Q · R`.
#[derive(Debug, Clone)]
pub struct ThinQr {
    /// `[rows, k]`, orthonormal columns; `k` as in [`ThinSvd`]
    pub q: Mat<f64>,
    /// `[k, columns]`, upper triangular
    pub r: Mat<f64>,
}

/// `a · b`
///
/// # Panics
/// If the number of columns of `a` is not the number of rows of `b`.
pub fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    a * b
}

/// `factor · matrix`
pub fn scaled(factor: f64, matrix: MatRef<'_, f64>) -> Mat<f64> {
    faer::Scale(factor) * matrix
}

/// Adds `factor · matrix` to `sum`.
///
/// # Panics
/// If the shapes differ.
pub fn add_scaled(sum: &mut Mat<f64>, factor: f64, matrix: MatRef<'_, f64>) {
    *sum += scaled(factor, matrix);
}

/// The sum of the squares of all values.
pub fn squared_norm(matrix: MatRef<'_, f64>) -> f64 {
    matrix.squared_norm_l2()
}

/// The singular value decomposition; `None` if it does not converge, as for values that are not finite.
pub fn thin_svd(matrix: MatRef<'_, f64>) -> Option<ThinSvd> {
    let svd = matrix.thin_svd().ok()?;
    Some(ThinSvd {
        u: svd.U().to_owned(),
        values: svd.S().column_vector().iter().copied().collect(),
        v: svd.V().to_owned(),
    })
}

/// The QR decomposition by Householder reflections.
pub fn thin_qr(matrix: MatRef<'_, f64>) -> ThinQr {
    let qr = matrix.qr();
    ThinQr {
        q: qr.compute_thin_Q(),
        r: qr.thin_R().to_owned(),
    }
}

/// Only the upper triangle `R` of the QR decomposition.
pub fn thin_r(matrix: MatRef<'_, f64>) -> Mat<f64> {
    matrix.qr().thin_R().to_owned()
}

/// `M = U · diag(values) · Uᵀ` of a symmetric `M`
#[derive(Debug, Clone)]
pub struct SymmetricEigen {
    /// `[n]`, ascending
    pub values: Vec<f64>,
    /// `[n, n]`, one eigenvector in each column
    pub vectors: Mat<f64>,
}

/// Eigenvalues and eigenvectors of a symmetric matrix, of which the lower triangle is read; `None` where the decomposition does not
/// converge, as for values that are not finite.
pub fn symmetric_eigen(matrix: MatRef<'_, f64>) -> Option<SymmetricEigen> {
    let eigen = matrix.self_adjoint_eigen(faer::Side::Lower).ok()?;
    Some(SymmetricEigen {
        values: eigen.S().column_vector().iter().copied().collect(),
        vectors: eigen.U().to_owned(),
    })
}
