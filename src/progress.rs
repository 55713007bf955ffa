//! How far a run has come, for whoever watches it.
//!
//! In: bytes and lines as they are read, stages as they begin. Out: a bar on a terminal, nothing
//! anywhere else. Invariant: results never depend on it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the bar is drawn anew while nothing is read.
const TICK: Duration = Duration::from_millis(250);

pub struct Progress {
    bar: ProgressBar,
    lines: AtomicU64,
    since: Instant,
}

impl Progress {
    /// Of reading so many bytes. On stderr, if that is a terminal.
    pub fn new(bytes: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let progress = Progress { bar, lines: AtomicU64::new(0), since: Instant::now() };
        progress.show("{prefix:8} {bar:30} {bytes}/{total_bytes}  {msg}  {eta} left", "map");
        progress
    }

    /// More was read; `bytes` as they lie in the store.
    pub fn advance(&self, bytes: u64, lines: u64) {
        let lines = self.lines.fetch_add(lines, Ordering::Relaxed) + lines;
        if self.bar.is_hidden() {
            return;
        }
        let per_second = lines as f64 / self.since.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{:.1} million rows/s", per_second / 1e6));
        self.bar.inc(bytes);
    }

    /// All is read; what comes now has no known end.
    pub fn begin(&self, stage: &'static str) {
        // Nobody watches, so nothing has to tick.
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
