//! Linear maps and the low-rank path as products.

use super::queue::{Queue, Stored};
use crate::backend::{Matrix, VectorPart};

/// As [`crate::backend::Backend::linear`].
pub fn forward(queue: &mut Queue, x: Matrix, weight: &Stored, y: Matrix) {
    let a = queue.operand(x, false);
    let b = queue.stored_operand(weight, 0, [y.columns, weight.inputs], true);
    queue.product(a, b, x.columns, 1.0, y, false);
}

/// As [`crate::backend::Backend::linear_backward`].
pub fn backward(queue: &mut Queue, dy: Matrix, weight: &Stored, dx: Matrix, add: bool) {
    let a = queue.operand(dy, false);
    let b = queue.stored_operand(weight, 0, [dy.columns, weight.inputs], false);
    queue.product(a, b, dy.columns, 1.0, dx, add);
}

/// As [`crate::backend::Backend::low_rank_down`].
pub fn down(queue: &mut Queue, x: Matrix, part: &VectorPart<'_, Stored>, scale: f32, u: Matrix) {
    let a = queue.operand(x, false);
    let b = queue.stored_operand(part.vector, part.start, [u.columns, x.columns], true);
    queue.product(a, b, x.columns, scale, u, false);
}

/// As [`crate::backend::Backend::low_rank_up`].
pub fn up(queue: &mut Queue, u: Matrix, part: &VectorPart<'_, Stored>, y: Matrix) {
    let a = queue.operand(u, false);
    let b = queue.stored_operand(part.vector, part.start, [u.columns, y.columns], false);
    queue.product(a, b, u.columns, 1.0, y, true);
}

/// As [`crate::backend::Backend::low_rank_gradient`].
pub fn gradient(queue: &mut Queue, u: Matrix, x: Matrix, dmatrix: Matrix) {
    let a = queue.operand(u, true);
    let b = queue.operand(x, false);
    queue.product(a, b, u.rows, 1.0, dmatrix, true);
}
