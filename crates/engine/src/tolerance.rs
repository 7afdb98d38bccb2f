//! How far results in `f32` may be from the reference values of the golden folders.

/// Allowed error of a forward pass, relative to the tensor's largest absolute value: about 160 rounding steps of a value of
/// that size, what different orders of summation over a few layers cost.
pub const FORWARD: f32 = 2e-5;

/// Allowed relative error of a loss: a mean over images, so that rounding errors of single ones cancel in part.
pub const LOSS: f32 = 1e-5;

/// Allowed error of a gradient, relative to the tensor's largest absolute value: the backward pass rounds once more what the
/// forward pass has rounded.
pub const GRADIENT: f32 = 1e-4;
