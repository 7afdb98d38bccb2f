//! Adam.

use super::geometry::{by_value, count, int};
use super::kernels::{AdamStep, Values};
use super::queue::{Queue, Stored};
use crate::image_backend::{AdamOperands, ChannelLimits};
use crate::optimise::AdamSettings;

/// As [`crate::image_backend::ImageBackend::adam`].
pub fn adam(
    queue: &mut Queue,
    operands: AdamOperands,
    settings: &AdamSettings,
    limits: Option<ChannelLimits<'_, Stored>>,
) {
    let AdamOperands {
        values,
        gradient,
        first,
        second,
        rates,
        flags,
    } = operands;
    let length = values.rows * values.columns;
    for other in [gradient, first, second] {
        assert_eq!(other.rows * other.columns, length, "{other:?}");
    }
    assert_eq!((rates.rows, rates.columns), (1, 2));
    let shares = settings.shares();
    let (limits, plane) = match limits {
        Some(own) => (queue.vector(own.limits, 6), own.plane),
        None => (Values(0), 1),
    };
    let kernel = AdamStep {
        values: queue.values_mut(values),
        gradient: queue.values(gradient),
        first: queue.values_mut(first),
        second: queue.values_mut(second),
        count: count(length),
        step: queue.values(rates),
        first_share: shares.first,
        decay: shares.decay,
        second_share: shares.second,
        epsilon: shares.epsilon,
        weight_decay: shares.weight_decay,
        flags: queue.ints(flags),
        limits,
        plane: int(plane),
        channels: 3,
    };
    queue.launch(by_value(length), &kernel);
}
