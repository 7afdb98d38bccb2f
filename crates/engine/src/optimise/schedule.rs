//! The learning rate of meta-training: cycles of a linear warm-up and a cosine descent.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Learning rate by step; every cycle starts from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CyclicSchedule {
    /// Steps of one cycle.
    pub cycle_steps: u64,
    /// First steps of a cycle, in which the rate rises from `lowest` to `highest`; the rest falls back along half a cosine.
    pub warm_up_steps: u64,
    /// Learning rate at the beginning of a cycle, and towards its end.
    pub lowest: f64,
    /// Learning rate at the end of the warm-up.
    pub highest: f64,
}

impl Default for CyclicSchedule {
    fn default() -> Self {
        Self {
            cycle_steps: 100,
            warm_up_steps: 25,
            lowest: 1e-5,
            highest: 1e-3,
        }
    }
}

impl CyclicSchedule {
    /// Learning rate of step `step`, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let position = step % self.cycle_steps.max(1);
        let share = if position < self.warm_up_steps {
            position as f64 / self.warm_up_steps as f64
        } else {
            // A cycle that is all warm-up never comes here, so the length is at least 1.
            let length = self.cycle_steps.saturating_sub(self.warm_up_steps).max(1);
            let done = (position - self.warm_up_steps) as f64 / length as f64;
            (1.0 + (PI * done).cos()) / 2.0
        };
        self.lowest + (self.highest - self.lowest) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_for_25_steps_falls_for_75_and_starts_anew() {
        let rate = |step| CyclicSchedule::default().learning_rate(step);
        // The top of the warm-up, a third (cos 60° = 1/2) and two thirds (cos 120° = −1/2) of the descent.
        let expected = [
            (0, 1e-5),
            (5, 1e-5 + 0.2 * 9.9e-4),
            (25, 1e-3),
            (50, 1e-5 + 0.75 * 9.9e-4),
            (75, 1e-5 + 0.25 * 9.9e-4),
            (100, 1e-5),
            (125, 1e-3),
        ];
        for (step, expected) in expected {
            assert!(
                (rate(step) - expected).abs() < 1e-12,
                "step {step}: {}",
                rate(step)
            );
        }
        assert!(rate(99) > 1e-5 && rate(99) < 1.1e-5);
    }

    #[test]
    fn a_cycle_without_descent_or_without_steps_has_finite_rates() {
        for (cycle_steps, warm_up_steps) in [(0, 0), (1, 0), (1, 1), (3, 5)] {
            let schedule = CyclicSchedule {
                cycle_steps,
                warm_up_steps,
                ..CyclicSchedule::default()
            };
            assert!((0..9).all(|step| schedule.learning_rate(step).is_finite()));
        }
    }
}
