//! Progress on standard error: bars on a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::plain;
use crate::cli::out::tell;

/// Maximum number of bars of files, in addition to the bar of the total; more files may be in progress.
const BARS_MAX: usize = 6;
/// Interval between two lines if there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub struct Progress {
    bars: MultiProgress,
    /// Counts bytes to send and sent in this run, not those that the store has already.
    total: ProgressBar,
    files: usize,
    finished: AtomicUsize,
    shown: Arc<AtomicUsize>,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Bars,
    Lines,
    Quiet,
}

/// The progress of one file. Clones count for the same file; dropping the last one removes the bar.
#[derive(Clone)]
pub struct FileBar(Arc<FileBarInner>);

struct FileBarInner {
    total: ProgressBar,
    bar: Option<ProgressBar>,
    /// Bytes of this file that are in the store or being sent.
    there: AtomicU64,
    shown: Arc<AtomicUsize>,
}

impl Progress {
    pub fn new(quiet: bool, files: usize, bytes: u64) -> Self {
        let mode = match (quiet, stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Bars,
            (false, false) => Mode::Lines,
        };
        let target = if mode == Mode::Bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        let total = bars.add(
            ProgressBar::new(bytes)
                .with_style(style("{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left{msg}")),
        );
        if mode == Mode::Bars {
            total.enable_steady_tick(Duration::from_millis(200)); // the rate falls while nothing moves
        }
        let (finished, shown) = (AtomicUsize::new(0), Arc::default());
        Self { bars, total, files, finished, shown, mode }
    }

    pub fn start(&self, name: &str, size: u64) -> FileBar {
        let room = self.shown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < BARS_MAX).then_some(n + 1));
        let bar = room.is_ok().then(|| {
            let bar = ProgressBar::new(size).with_style(style("  {bar:20} {percent:>3}% {wide_msg}"));
            self.bars.insert_before(&self.total, bar).with_message(plain(name))
        });
        let (total, shown) = (self.total.clone(), Arc::clone(&self.shown));
        FileBar(Arc::new(FileBarInner { total, bar, there: AtomicU64::new(0), shown }))
    }

    /// Counts a finished file. `line` is the log line of a file that succeeded.
    pub fn finish(&self, line: Option<String>) {
        let finished = self.finished.fetch_add(1, Ordering::Relaxed) + 1;
        self.total.set_message(format!(", {finished} of {} files", self.files));
        if let Some(line) = line.filter(|_| self.mode == Mode::Lines) {
            tell(line);
        }
    }

    /// Writes a line, unless `--quiet` is set.
    pub fn note(&self, line: &str) {
        if self.mode != Mode::Quiet {
            self.error(line);
        }
    }

    /// Writes a line in any case.
    pub fn error(&self, line: &str) {
        if self.mode == Mode::Bars {
            // Above the bars. Fails only if the terminal is gone.
            let _ = self.bars.println(line);
        } else {
            tell(line);
        }
    }

    /// Writes a line every few seconds if lines are shown instead of bars. Never returns.
    pub async fn tell(&self) {
        if self.mode != Mode::Lines {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LINE_EVERY).await;
            let (finished, total) = (self.finished.load(Ordering::Relaxed), &self.total);
            tell(format_args!(
                "{finished} of {} files, {} of {}, {}/s, {} left",
                self.files,
                HumanBytes(total.position()),
                HumanBytes(total.length().unwrap_or(0)),
                HumanBytes(total.per_sec() as u64),
                HumanDuration(total.eta()),
            ));
        }
    }

    pub fn clear(&self) {
        self.total.finish_and_clear();
    }
}

impl FileBar {
    /// Adds bytes that are being sent.
    pub fn add(&self, bytes: u64) {
        self.0.there.fetch_add(bytes, Ordering::Relaxed);
        self.0.total.inc(bytes);
        self.draw();
    }

    /// Subtracts bytes that did not arrive.
    pub fn take_back(&self, bytes: u64) {
        self.0.there.fetch_sub(bytes, Ordering::Relaxed);
        self.0.total.dec(bytes);
        self.draw();
    }

    /// Sets the number of bytes that the store is known to hold. Bytes from before this run are not counted as bytes to
    /// send.
    pub fn set_there(&self, bytes: u64) {
        let before = self.0.there.swap(bytes, Ordering::Relaxed);
        match bytes.checked_sub(before) {
            Some(more) => self.0.total.dec_length(more),
            None => self.0.total.inc_length(before - bytes),
        }
        self.draw();
    }

    fn draw(&self) {
        if let Some(bar) = &self.0.bar {
            bar.set_position(self.0.there.load(Ordering::Relaxed));
        }
    }
}

impl Drop for FileBarInner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.shown.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates stand in this file").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_has_already_is_not_counted_as_work() {
        let progress = Progress::new(true, 2, 300);
        let file = progress.start("reel.mov", 200);
        file.set_there(50);
        file.add(100);
        file.take_back(30);
        assert_eq!((progress.total.position(), progress.total.length()), (70, Some(250)));
        file.set_there(100); // 20 of the bytes sent were lost, and will be sent again
        file.add(100);
        assert_eq!((progress.total.position(), progress.total.length()), (170, Some(270)));
    }

    #[test]
    fn no_more_bars_than_fit_and_their_places_are_given_back() {
        let progress = Progress::new(true, 10, 10);
        let files: Vec<_> = (0..10).map(|n| progress.start(&n.to_string(), 1)).collect();
        assert_eq!(files.iter().filter(|file| file.0.bar.is_some()).count(), BARS_MAX);
        drop(files);
        assert!(progress.start("next", 1).0.bar.is_some());
    }
}
