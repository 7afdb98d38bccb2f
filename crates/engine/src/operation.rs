//! Why an operation refuses its input, and the checks that come before any arithmetic.
//! Knows names, shapes and values; knows nothing of what an operation computes.

use crate::backend::DeviceError;
use model::adapter::ShapeMismatch;
use model::tensor::element_count;
use thiserror::Error;

/// An operation that was handed something it cannot compute; nothing has been written.
#[derive(Debug, Error, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum OperationError {
    #[error("{operation}: {name} has shape {shape:?}; no axis may be zero")]
    Empty {
        operation: &'static str,
        name: &'static str,
        shape: Vec<usize>,
    },
    #[error("{operation}: {name} with shape {shape:?}: {found} values where {expected} are needed")]
    Length {
        operation: &'static str,
        name: &'static str,
        shape: Vec<usize>,
        expected: usize,
        found: usize,
    },
    #[error(
        "{operation}: {left} has shape {left_shape:?}, which does not go with {right} of shape {right_shape:?}"
    )]
    Mismatch {
        operation: &'static str,
        left: &'static str,
        left_shape: Vec<usize>,
        right: &'static str,
        right_shape: Vec<usize>,
    },
    #[error(
        "{operation}: value {index} of {name}, shape {shape:?}, is {value}; all values must be finite numbers"
    )]
    NotFinite {
        operation: &'static str,
        name: &'static str,
        shape: Vec<usize>,
        index: usize,
        value: f32,
    },
    #[error(
        "{operation}: label {index} is {label}, but there are {classes} classes, counted from 0"
    )]
    Label {
        operation: &'static str,
        index: usize,
        label: usize,
        classes: usize,
    },
    #[error("{operation}: class {class} has {found} rows, at least {needed} are needed")]
    ClassSize {
        operation: &'static str,
        class: usize,
        found: usize,
        needed: usize,
    },
    #[error("{operation}: {name} is {value}; {requirement}")]
    Setting {
        operation: &'static str,
        name: &'static str,
        value: f64,
        requirement: &'static str,
    },
    #[error(
        "forward: the kept tokens of image {image} must ascend from 0 (the class token) and stay below {tokens}"
    )]
    Tokens { image: usize, tokens: usize },
    #[error(transparent)]
    Adapter(#[from] ShapeMismatch),
    #[error("images: none are under optimisation")]
    NoImages,
    #[error("gradient of {wanted}: {reason}")]
    NoGradient {
        wanted: &'static str,
        reason: &'static str,
    },
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("backward: no forward pass waits for it; call forward_for first")]
    NoForward,
    #[error("{threads} worker threads cannot start: {reason}")]
    Threads { threads: usize, reason: String },
}

/// The checks of one operation, which give its name to their errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks(pub &'static str);

impl Checks {
    /// `values` has as many values as `shape` asks for.
    pub fn length(
        self,
        name: &'static str,
        values: &[impl Sized],
        shape: &[usize],
    ) -> Result<(), OperationError> {
        let expected = element_count(shape);
        if expected == Some(values.len()) {
            return Ok(());
        }
        Err(OperationError::Length {
            operation: self.0,
            name,
            shape: shape.to_vec(),
            expected: expected.unwrap_or(usize::MAX),
            found: values.len(),
        })
    }

    /// [`Self::length`], with no axis of length zero.
    pub fn filled(
        self,
        name: &'static str,
        values: &[impl Sized],
        shape: &[usize],
    ) -> Result<(), OperationError> {
        if shape.contains(&0) {
            return Err(OperationError::Empty {
                operation: self.0,
                name,
                shape: shape.to_vec(),
            });
        }
        self.length(name, values, shape)
    }

    /// [`Self::filled`], with finite values only.
    pub fn finite(
        self,
        name: &'static str,
        values: &[f32],
        shape: &[usize],
    ) -> Result<(), OperationError> {
        self.filled(name, values, shape)?;
        let finite = values.chunks(4096).all(|chunk| {
            chunk
                .iter()
                .fold(true, |all, value| all & value.is_finite())
        });
        if finite {
            return Ok(());
        }
        let index = values.iter().position(|value| !value.is_finite());
        let index = index.unwrap_or_default();
        Err(OperationError::NotFinite {
            operation: self.0,
            name,
            shape: shape.to_vec(),
            index,
            value: values[index],
        })
    }

    /// `shape` is that of red, green and blue planes.
    pub fn channels(self, name: &'static str, shape: [usize; 4]) -> Result<(), OperationError> {
        let [batch, channels, height, width] = shape;
        if channels == 3 {
            return Ok(());
        }
        Err(OperationError::Mismatch {
            operation: self.0,
            left: name,
            left_shape: shape.to_vec(),
            right: "three channels",
            right_shape: vec![batch, 3, height, width],
        })
    }

    /// `labels` has one label below `classes` for each of `rows` rows.
    pub fn labels(
        self,
        labels: &[usize],
        rows: usize,
        classes: usize,
    ) -> Result<(), OperationError> {
        self.length("labels", labels, &[rows])?;
        match labels.iter().position(|&label| label >= classes) {
            Some(index) => Err(OperationError::Label {
                operation: self.0,
                index,
                label: labels[index],
                classes,
            }),
            None => Ok(()),
        }
    }

    /// `value` is finite and above zero.
    pub fn positive(self, name: &'static str, value: f32) -> Result<(), OperationError> {
        self.setting(
            name,
            value,
            value.is_finite() && value > 0.0,
            "it must be a finite number above zero",
        )
    }

    /// `value` keeps to `requirement`.
    pub fn setting(
        self,
        name: &'static str,
        value: f32,
        holds: bool,
        requirement: &'static str,
    ) -> Result<(), OperationError> {
        if holds {
            return Ok(());
        }
        Err(OperationError::Setting {
            operation: self.0,
            name,
            value: f64::from(value),
            requirement,
        })
    }
}
