//! The contract of long computations: the driver asks for a step at a time, and between steps reports progress, keeps
//! what it needs to resume after an interruption, or stops. Knows nothing of jobs, files or threads.

/// The progress of a computation, for people and curves.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// What it is doing, a short phrase: `inverting`, `checking the images`.
    pub phase: &'static str,
    /// Steps of this phase that are done.
    pub step: u64,
    /// Steps of this phase in all.
    pub total: u64,
    /// Losses and other figures of this step by name, e.g. `("cross_entropy", 0.31)`.
    pub figures: Vec<(&'static str, f64)>,
}

/// A computation that goes step by step. The same recipe and seed give the same bits, also when it is interrupted after any step
/// and made again from [`Self::state`].
pub trait Steps {
    /// Why a step failed.
    type Error: std::error::Error;

    /// Whether all steps are done.
    fn is_done(&self) -> bool;

    /// Does the next step; a step takes seconds at most.
    ///
    /// # Errors
    /// Where it cannot go on; it must not be asked for further steps then.
    fn step(&mut self) -> Result<StepReport, Self::Error>;

    /// Everything that the computation needs to go on, besides its recipe and data.
    ///
    /// # Errors
    /// Where it cannot be written down.
    fn state(&mut self) -> Result<Vec<u8>, Self::Error>;
}
