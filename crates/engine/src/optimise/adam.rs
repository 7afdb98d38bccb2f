//! Adam as PyTorch computes it, for one tensor, with a state that survives a restart bit for bit.

use crate::operation::{Checks, OperationError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Everything of Adam but the learning rate, which a schedule may change from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamSettings {
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of its square.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Adds this share of the value to its gradient.
    pub weight_decay: f64,
}

impl AdamSettings {
    /// `[−learning rate/(1 − β₁ⁿ), √(1 − β₂ⁿ)]` of step n, counted from 1.
    pub(crate) fn rates(&self, step: u64, learning_rate: f64) -> [f32; 2] {
        let step = step as f64;
        [
            -(learning_rate / (1.0 - self.beta1.powf(step))) as f32,
            (1.0 - self.beta2.powf(step)).sqrt() as f32,
        ]
    }

    /// The settings as a step takes them.
    pub(crate) fn shares(&self) -> AdamShares {
        AdamShares {
            first: (1.0 - self.beta1) as f32,
            decay: self.beta2 as f32,
            second: (1.0 - self.beta2) as f32,
            epsilon: self.epsilon as f32,
            weight_decay: self.weight_decay as f32,
        }
    }

    /// One step of `values` down `gradient`, all of one length, with what [`Self::rates`] gives.
    pub(crate) fn step(
        &self,
        values: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        [step_size, root_correction]: [f32; 2],
    ) {
        // The scalars are f64 and the elements f32, in the order of PyTorch's single-tensor step.
        let shares = self.shares();
        let means = first.iter_mut().zip(second);
        for ((value, &slope), (first, second)) in values.iter_mut().zip(gradient).zip(means) {
            let slope = slope + shares.weight_decay * *value;
            *first += shares.first * (slope - *first);
            *second = *second * shares.decay + shares.second * slope * slope;
            let root = second.sqrt() / root_correction + shares.epsilon;
            *value += step_size * *first / root;
        }
    }
}

/// What multiplies in a step of Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamShares {
    /// 1 − β₁
    pub first: f32,
    /// β₂
    pub decay: f32,
    /// 1 − β₂
    pub second: f32,
    /// Added to the root of the mean square.
    pub epsilon: f32,
    /// Share of the value that is added to its gradient.
    pub weight_decay: f32,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// What Adam remembers between steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdamState {
    /// For the correction of the means' bias.
    pub steps_done: u64,
    /// Running mean of the gradient, one a value.
    pub first: Vec<f32>,
    /// Running mean of the squared gradient, one a value.
    pub second: Vec<f32>,
}

/// Bytes that are not a saved [`AdamState`].
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("saved Adam state: {found} bytes do not hold {values} values; start the optimiser again")]
pub struct AdamStateError {
    /// Length of what was read.
    pub found: usize,
    /// Parameters that the optimiser has.
    pub values: usize,
}

impl AdamState {
    /// Little-endian: steps done (u64), then the two means (f32).
    pub fn to_bytes(&self) -> Vec<u8> {
        let means = self.first.iter().chain(&self.second);
        let mut bytes = self.steps_done.to_le_bytes().to_vec();
        bytes.extend(means.flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// The state of an optimiser of `values` values.
    ///
    /// # Errors
    /// [`AdamStateError`] when the bytes are of another length.
    pub fn from_bytes(bytes: &[u8], values: usize) -> Result<Self, AdamStateError> {
        let error = AdamStateError {
            found: bytes.len(),
            values,
        };
        let expected = values
            .checked_mul(8)
            .and_then(|length| length.checked_add(8));
        let Some((steps, means)) = bytes
            .split_first_chunk::<8>()
            .filter(|_| expected == Some(bytes.len()))
        else {
            return Err(error);
        };
        let mut means = means
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(Self {
            steps_done: u64::from_le_bytes(*steps),
            first: means.by_ref().take(values).collect(),
            second: means.collect(),
        })
    }
}

/// The optimiser of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam {
    settings: AdamSettings,
    state: AdamState,
}

impl Adam {
    /// A new optimiser of `values` values.
    pub fn new(settings: AdamSettings, values: usize) -> Self {
        let state = AdamState {
            steps_done: 0,
            first: vec![0.0; values],
            second: vec![0.0; values],
        };
        Self { settings, state }
    }

    /// Goes on from `state`.
    pub fn resume(settings: AdamSettings, state: AdamState) -> Self {
        Self { settings, state }
    }

    /// What is kept to resume later.
    pub fn state(&self) -> &AdamState {
        &self.state
    }

    /// One step of `values` down `gradient`.
    ///
    /// # Errors
    /// Other lengths than at the start, a gradient or learning rate that is not finite; nothing is changed then.
    pub fn step(
        &mut self,
        values: &mut [f32],
        gradient: &[f32],
        learning_rate: f64,
    ) -> Result<(), OperationError> {
        let checks = Checks("Adam");
        let count = self.state.first.len();
        checks.length("values", values, &[count])?;
        checks.finite("gradient", gradient, &[count])?;
        checks.length("second moments", &self.state.second, &[count])?;
        checks.setting(
            "the learning rate",
            learning_rate as f32,
            learning_rate.is_finite(),
            "it must be a finite number",
        )?;
        self.state.steps_done += 1;
        let rates = self.settings.rates(self.state.steps_done, learning_rate);
        let AdamState { first, second, .. } = &mut self.state;
        self.settings.step(values, gradient, first, second, rates);
        Ok(())
    }
}
