//! Who learns how far an evaluation is, and what it has finished.

use super::{MethodEntry, MethodKind, MethodRun};
use crate::app::AppError;
use crate::inference::EncodeError;
use std::ops::ControlFlow;

/// Receives what is done, how much of it, and of how much; says whether to continue. A closure over these keeps nothing.
pub trait EvaluationProgress: Sync {
    /// Takes a report; with [`ControlFlow::Break`] the evaluation ends.
    fn report(&self, phase: &'static str, done: usize, total: usize) -> ControlFlow<()>;

    /// All lines of the report that are finished, for [`Evaluation::finished`](super::Evaluation::finished) of a later run.
    fn keep(&self, _finished: &[MethodRun]) {}
}

impl<F> EvaluationProgress for F
where
    F: Fn(&'static str, usize, usize) -> ControlFlow<()> + Sync,
{
    fn report(&self, phase: &'static str, done: usize, total: usize) -> ControlFlow<()> {
        self(phase, done, total)
    }
}

/// Tells `progress`, and ends where it says so.
pub(super) fn report_progress(
    progress: &dyn EvaluationProgress,
    phase: &'static str,
    done: usize,
    total: usize,
) -> Result<(), AppError> {
    match progress.report(phase, done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EncodeError::Stopped.into()),
    }
}

/// Passes of all pictures through the backbone, counted together so that the time left is that of all.
pub(super) struct Passes<'a> {
    pub progress: &'a dyn EvaluationProgress,
    started: usize,
    all: usize,
}

impl<'a> Passes<'a> {
    /// Those that `entries` need.
    pub fn new(entries: &[MethodEntry], progress: &'a dyn EvaluationProgress) -> Self {
        let kinds = entries.iter().map(|entry| entry.method.kind);
        let is_bare = |kind| matches!(kind, MethodKind::Bare | MethodKind::Linear);
        let own = kinds.clone();
        let own = own.filter(|kind| *kind == MethodKind::Adapter || kind.merge().is_some());
        Self::of(
            own.count() + usize::from(kinds.clone().any(is_bare)),
            progress,
        )
    }

    pub fn of(all: usize, progress: &'a dyn EvaluationProgress) -> Self {
        Self {
            progress,
            started: 0,
            all,
        }
    }

    pub fn next(&mut self) -> EncodingPass<'a> {
        self.started += 1;
        EncodingPass {
            progress: self.progress,
            before: self.started - 1,
            all: self.all,
        }
    }
}

/// One of several passes.
#[derive(Clone, Copy)]
pub(in crate::app) struct EncodingPass<'a> {
    progress: &'a dyn EvaluationProgress,
    before: usize,
    all: usize,
}

impl EncodingPass<'_> {
    /// A pass that is not reported.
    pub const SILENT: EncodingPass<'static> = EncodingPass {
        progress: &|_: &'static str, _: usize, _: usize| ControlFlow::Continue(()),
        before: 0,
        all: 1,
    };

    pub fn report_progress(self, done: usize, of: usize) -> Result<(), AppError> {
        let (done, total) = (self.before * of + done, self.all * of);
        report_progress(self.progress, "encoding pictures", done, total)
    }
}
