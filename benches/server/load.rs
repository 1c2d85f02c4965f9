//! Repeated requests, and statistics of their times.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Times of single requests, and the elapsed time of all of them.
pub struct Times {
    sorted: Vec<Duration>,
    elapsed: Duration,
}

impl Times {
    pub fn new(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self { sorted: times, elapsed }
    }

    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    pub fn per_second(&self) -> f64 {
        self.sorted.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The time that `percent` of the requests did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.sorted[(self.sorted.len() * percent / 100).min(self.sorted.len() - 1)]
    }
}

/// Repeats `ask` in `tasks` tasks at once, each of which waits for its answer, for the time `lasting`. Each call of `ask`
/// gets a number that is unique in this run.
pub async fn keep_asking<F>(tasks: usize, lasting: Duration, ask: impl Fn(usize) -> F + Send + Sync + 'static) -> Times
where
    F: Future<Output = ()> + Send,
{
    let (ask, next) = (Arc::new(ask), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (ask, next) = (Arc::clone(&ask), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < lasting {
                    let one = Instant::now();
                    ask(next.fetch_add(1, Ordering::Relaxed)).await;
                    times.push(one.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    Times::new(times, begun.elapsed())
}

pub fn median<T: PartialOrd + Copy>(figures: &[T]) -> T {
    let mut sorted = figures.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("figures can be compared"));
    sorted[sorted.len() / 2]
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
