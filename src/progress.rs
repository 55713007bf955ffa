//! The progress of a run, for people.
//!
//! In: bytes and lines as they are read, stages as they begin. Out: a progress bar on a terminal,
//! otherwise nothing.
//! Invariant: results never depend on it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The redraw interval while nothing is read.
const TICK: Duration = Duration::from_millis(250);

pub struct Progress {
    bar: ProgressBar,
    lines: AtomicU64,
    since: Instant,
}

impl Progress {
    /// The progress of reading this many bytes, shown on stderr if it is a terminal.
    pub fn new(bytes: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let progress = Progress { bar, lines: AtomicU64::new(0), since: Instant::now() };
        progress.show("{prefix:8} {bar:30} {bytes}/{total_bytes}  {msg}  {eta} left", "map");
        progress
    }

    /// Adds what was read; `bytes` as stored, that is, compressed.
    pub fn advance(&self, bytes: u64, lines: u64) {
        let lines = self.lines.fetch_add(lines, Ordering::Relaxed) + lines;
        if self.bar.is_hidden() {
            return;
        }
        let per_second = lines as f64 / self.since.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{:.1} million rows/s", per_second / 1e6));
        self.bar.inc(bytes);
    }

    /// Starts a stage of unknown length.
    pub fn begin(&self, stage: &'static str) {
        // Nobody watches, so no timer is needed.
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_message("");
        self.show("{prefix:8} {spinner} {elapsed}", stage);
        self.bar.enable_steady_tick(TICK);
    }

    fn show(&self, template: &str, stage: &'static str) {
        let style = ProgressStyle::with_template(template).expect("a template of ours");
        self.bar.set_style(style);
        self.bar.set_prefix(stage);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
