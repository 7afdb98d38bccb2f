//! Who is told how far an evaluation is, and what it has finished.

use super::{Entry, MethodKind, Run};
use crate::app::AppError;
use crate::inference::EncodeError;
use std::ops::ControlFlow;

/// Told what is done, how much of it, and of how much; says whether to go on. A closure of these is one that keeps nothing.
pub trait Progress: Sync {
    fn tell(&self, phase: &'static str, done: usize, total: usize) -> ControlFlow<()>;

    /// All lines of the report that are finished, for [`Evaluation::finished`](super::Evaluation::finished) of a later run.
    fn keep(&self, _finished: &[Run]) {}
}

impl<F> Progress for F
where
    F: Fn(&'static str, usize, usize) -> ControlFlow<()> + Sync,
{
    fn tell(&self, phase: &'static str, done: usize, total: usize) -> ControlFlow<()> {
        self(phase, done, total)
    }
}

/// Tells `progress`, and ends where it says so.
pub(super) fn told(
    progress: &dyn Progress,
    phase: &'static str,
    done: usize,
    total: usize,
) -> Result<(), AppError> {
    match progress.tell(phase, done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EncodeError::Stopped.into()),
    }
}

/// Passes of all pictures through the backbone, counted together so that the time left is that of all.
pub(super) struct Passes<'a> {
    pub progress: &'a dyn Progress,
    begun: usize,
    all: usize,
}

impl<'a> Passes<'a> {
    /// Those that `entries` need.
    pub fn new(entries: &[Entry], progress: &'a dyn Progress) -> Self {
        let kinds = entries.iter().map(|entry| entry.method.kind);
        let is_bare = |kind| matches!(kind, MethodKind::Bare | MethodKind::Linear);
        let own = kinds.clone();
        let own = own.filter(|kind| *kind == MethodKind::Adapter || kind.merge().is_some());
        Self::of(
            own.count() + usize::from(kinds.clone().any(is_bare)),
            progress,
        )
    }

    pub fn of(all: usize, progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            begun: 0,
            all,
        }
    }

    pub fn next(&mut self) -> Pass<'a> {
        self.begun += 1;
        Pass {
            progress: self.progress,
            before: self.begun - 1,
            all: self.all,
        }
    }
}

/// One of several passes.
#[derive(Clone, Copy)]
pub(in crate::app) struct Pass<'a> {
    progress: &'a dyn Progress,
    before: usize,
    all: usize,
}

impl Pass<'_> {
    /// A pass that nobody is told of.
    pub const UNTOLD: Pass<'static> = Pass {
        progress: &|_: &'static str, _: usize, _: usize| ControlFlow::Continue(()),
        before: 0,
        all: 1,
    };

    pub fn told(self, done: usize, of: usize) -> Result<(), AppError> {
        let (done, total) = (self.before * of + done, self.all * of);
        told(self.progress, "encoding pictures", done, total)
    }
}
