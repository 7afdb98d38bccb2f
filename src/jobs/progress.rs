//! From the reports of single steps to what is shown: rate, time left, and not more often than eyes can follow.

use recycle::steps::StepReport;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use store::Progress;

/// Reports that come faster are left out, but for the first and the last of a phase.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);
/// The rate is that of this many of the last reports shown.
const MARKS: usize = 20;

/// Decides which reports of one run are shown.
#[derive(Debug)]
pub(super) struct Reporter {
    interval: Duration,
    phase: String,
    /// When some of the last steps of this phase were done.
    marks: VecDeque<(Instant, u64)>,
    /// The newest report where it has not been shown.
    pending: Option<StepReport>,
}

impl Default for Reporter {
    fn default() -> Self {
        Self {
            interval: SHORTEST_INTERVAL,
            phase: String::new(),
            marks: VecDeque::new(),
            pending: None,
        }
    }
}

impl Reporter {
    /// Takes a report and returns what is to be shown now.
    pub fn take(&mut self, report: &StepReport, now: Instant) -> Vec<Progress> {
        let mut due = Vec::new();
        if report.phase != self.phase {
            due.extend(self.take_pending(now));
            self.phase = report.phase.to_owned();
            self.marks.clear();
        }
        let is_due = self
            .marks
            .back()
            .is_none_or(|(last, _)| now.duration_since(*last) >= self.interval);
        if is_due || report.step >= report.total {
            self.pending = None;
            due.push(self.progress(report, now));
        } else {
            self.pending = Some(report.clone());
        }
        due
    }

    /// Reports that were held back, for the end of a run.
    pub fn take_pending(&mut self, now: Instant) -> Option<Progress> {
        let report = self.pending.take()?;
        Some(self.progress(&report, now))
    }

    /// Reports half as often from now on.
    pub fn slow_down(&mut self) {
        self.interval *= 2;
    }

    fn progress(&mut self, report: &StepReport, now: Instant) -> Progress {
        let rate_per_second = self
            .marks
            .front()
            .map(|(since, step)| {
                let seconds = now.duration_since(*since).as_secs_f64();
                report.step.saturating_sub(*step) as f64 / seconds
            })
            .filter(|rate| rate.is_finite() && *rate > 0.0);
        self.marks.push_back((now, report.step));
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
        let left = report.total.saturating_sub(report.step);
        Progress {
            phase: report.phase.to_owned(),
            step: report.step,
            total: report.total,
            rate_per_second,
            eta_seconds: rate_per_second.map(|rate| left as f64 / rate),
            // JSON has no other numbers.
            figures: report
                .figures
                .iter()
                .filter(|(_, value)| value.is_finite())
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phase: &'static str, step: u64, total: u64) -> StepReport {
        StepReport {
            phase,
            step,
            total,
            figures: vec![("loss", 1.0 / step as f64), ("ratio", f64::NAN)],
        }
    }

    #[test]
    fn steps_that_come_fast_are_thinned_but_first_and_last_of_each_phase_are_told() {
        let mut reporter = Reporter::default();
        let start = Instant::now();
        let mut due = Vec::new();
        // 100 steps per second; the second phase ends before its total.
        for step in 1..=300 {
            let now = start + Duration::from_millis(10 * step);
            due.extend(reporter.take(&report("first", step, 300), now));
        }
        for step in 1..=20 {
            let now = start + Duration::from_millis(3000 + 10 * step);
            due.extend(reporter.take(&report("second", step, 300), now));
        }
        due.extend(reporter.take_pending(start + Duration::from_secs(4)));
        let seen: Vec<(&str, u64)> = due
            .iter()
            .map(|progress| (progress.phase.as_str(), progress.step))
            .collect();
        assert_eq!(
            seen,
            [
                ("first", 1),
                ("first", 51),
                ("first", 101),
                ("first", 151),
                ("first", 201),
                ("first", 251),
                ("first", 300),
                ("second", 1),
                ("second", 20),
            ]
        );
        assert_eq!(due[0].rate_per_second, None);
        let middle = &due[3];
        assert!((middle.rate_per_second.unwrap() - 100.0).abs() < 1e-6);
        assert!((middle.eta_seconds.unwrap() - 1.49).abs() < 1e-6);
        assert_eq!(middle.figures.keys().collect::<Vec<_>>(), ["loss"]);
        assert_eq!(due[6].eta_seconds, Some(0.0));
    }
}
