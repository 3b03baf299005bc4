//! What the benchmarks share: interleaved samples, medians, and a table of ratios. Nothing here asserts a time.

#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::time::{Duration, Instant};

/// Samples of several candidates, taken in turns so that a busy machine is busy for all of them.
pub struct Race {
    names: Vec<&'static str>,
    samples: Vec<Vec<f64>>,
}

impl Race {
    pub fn new(names: &[&'static str]) -> Self {
        Self { names: names.to_vec(), samples: vec![Vec::new(); names.len()] }
    }

    pub fn add(&mut self, name: &str, took: Duration) {
        let index = self.names.iter().position(|n| *n == name).expect("BUG: an unknown candidate");
        self.samples[index].push(took.as_secs_f64() * 1000.0);
    }

    /// Median milliseconds.
    pub fn median(&self, name: &str) -> f64 {
        let index = self.names.iter().position(|n| *n == name).expect("BUG: an unknown candidate");
        median(&self.samples[index])
    }

    pub fn print(&self, title: &str) {
        println!("\n{title}");
        println!("  {:<38} {:>10} {:>10} {:>10} {:>5}", "", "median ms", "fastest", "slowest", "runs");
        for (name, samples) in self.names.iter().zip(&self.samples) {
            let fastest = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let slowest = samples.iter().copied().fold(0.0, f64::max);
            println!("  {name:<38} {:>10.2} {fastest:>10.2} {slowest:>10.2} {:>5}", median(samples), samples.len());
        }
    }
}

pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// One line that sets a figure beside its budget.
pub fn verdict(what: &str, figure: f64, unit: &str, budget: f64, wanted: Wanted) {
    let met = match wanted {
        Wanted::AtMost => figure <= budget,
        Wanted::AtLeast => figure >= budget,
    };
    let (word, sign) = (if met { "met" } else { "MISSED" }, if matches!(wanted, Wanted::AtMost) { "<=" } else { ">=" });
    println!("  -> {what}: {figure:.2}{unit}   budget {sign} {budget}{unit}   {word}");
}

#[derive(Clone, Copy)]
pub enum Wanted {
    AtMost,
    AtLeast,
}

/// Time that this thread had on a processor: what else runs on the machine does not count.
pub fn timed_alone<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let started = now();
    let result = work();
    (result, now() - started)
}

pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed())
}

/// `JACKIN_BENCH_RUNS`, or as many as the benchmark finds right.
pub fn runs(otherwise: usize) -> usize {
    std::env::var("JACKIN_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0).unwrap_or(otherwise)
}

/// Cargo passes `--bench`; any other word names the parts to run.
pub fn chosen(part: &str) -> bool {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    words.is_empty() || words.iter().any(|w| part.contains(w.as_str()))
}
