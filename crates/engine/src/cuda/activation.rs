//! GELU and QuickGELU with the bias before them.

use super::geometry::{by_row, int};
use super::kernels::{ActivationBackward, ActivationForward};
use super::queue::{Queue, Stored};
use crate::backend::Matrix;
use model::backbone::Activation;

fn variant(activation: Activation) -> usize {
    match activation {
        Activation::Gelu => 0,
        Activation::QuickGelu => 1,
    }
}

/// As [`crate::backend::Backend::activation`].
pub fn forward(queue: &mut Queue, x: Matrix, bias: &Stored, activation: Activation, y: Matrix) {
    let kernel = ActivationForward {
        x: queue.rows(x),
        bias: queue.vector(bias, x.columns),
        y: queue.rows_mut(y),
        columns: int(x.columns),
    };
    queue.launch_variant(variant(activation), by_row(x.rows, x.columns), &kernel);
}

/// As [`crate::backend::Backend::activation_backward`].
pub fn backward(queue: &mut Queue, x: Matrix, bias: &Stored, activation: Activation, dy: Matrix) {
    let kernel = ActivationBackward {
        x: queue.rows(x),
        bias: queue.vector(bias, x.columns),
        dy: queue.rows_mut(dy),
        columns: int(x.columns),
    };
    queue.launch_variant(variant(activation), by_row(x.rows, x.columns), &kernel);
}
