//! A dense row-major `f32` array with its shape: the one value that rooms hand to each other.
//! Knows no files, no models and no arithmetic.

use thiserror::Error;

/// The number of values does not fit the shape.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("shape {shape:?} needs {expected} values, got {found}")]
pub struct ShapeError {
    /// The shape that was asked for.
    pub shape: Vec<usize>,
    /// The product of its axes; the largest number where that overflows.
    pub expected: usize,
    /// Values that were given.
    pub found: usize,
}

/// Dense row-major array; the last axis varies fastest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// Wraps `data` of the given `shape`.
    ///
    /// # Errors
    /// [`ShapeError`] when the product of `shape` is not `data.len()`.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Self, ShapeError> {
        let shape = shape.into();
        let expected = element_count(&shape);
        if expected != Some(data.len()) {
            return Err(ShapeError {
                shape,
                expected: expected.unwrap_or(usize::MAX),
                found: data.len(),
            });
        }
        Ok(Self { shape, data })
    }

    /// A tensor of `shape` filled with zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.iter().product()];
        Self { shape, data }
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All values, the last axis varying fastest.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// As [`Self::data`], to be written; the shape stays.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// As [`Self::data`], without a copy.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Row `index` along the first axis, e.g. image `index` of `[batch, 3, H, W]`.
    ///
    /// # Panics
    /// When the tensor has no axes or `index` is past the first axis.
    pub fn row(&self, index: usize) -> &[f32] {
        let stride = self.data.len() / self.shape[0];
        &self.data[index * stride..(index + 1) * stride]
    }

    /// The index of the first NaN or infinity.
    pub fn first_non_finite(&self) -> Option<usize> {
        self.data.iter().position(|value| !value.is_finite())
    }
}

/// Product of `shape`, or `None` where it overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &axis| product.checked_mul(axis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_length_names_shape_and_both_counts() {
        let error = Tensor::new([2, 3], vec![0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "shape [2, 3] needs 6 values, got 5");
    }

    #[test]
    fn overflowing_shape_is_an_error_not_a_panic() {
        assert!(Tensor::new([usize::MAX, 2], vec![]).is_err());
    }
}
