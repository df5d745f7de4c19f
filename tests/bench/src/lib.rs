//! What the benchmarks have in common: rounds that alternate between two sides, so that what else
//! the machine does meets both, and the median of the ratios.

#![forbid(unsafe_code)]

pub mod apps;
pub mod cases;
pub mod client;
pub mod idle;
pub mod log_cases;
pub mod server;

/// The measurements of two sides, round by round.
#[derive(Debug, Default)]
pub struct Rounds {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Rounds {
    /// Takes down a round.
    pub fn add(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// The medians of both sides.
    #[must_use]
    pub fn medians(&self) -> (f64, f64) {
        (quartiles(&self.ours)[1], quartiles(&self.theirs)[1])
    }

    /// Ours to theirs: the quarter, the half and three quarters of the rounds are below.
    #[must_use]
    pub fn ratios(&self) -> [f64; 3] {
        let pairs = self.ours.iter().zip(&self.theirs);
        let ratios: Vec<_> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        quartiles(&ratios)
    }

    /// The ratio as a table has it: the median, and the quartiles around it.
    #[must_use]
    pub fn ratio(&self) -> String {
        let [low, ratio, high] = self.ratios();
        format!("**{ratio:.3}** ({low:.2}–{high:.2})")
    }
}

/// A quarter, a half and three quarters of the values are below these.
#[must_use]
pub fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    [1, 2, 3].map(|quarter| sorted.get(last * quarter / 4).copied().unwrap_or(f64::NAN))
}

/// What a round of requests took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests a second.
    pub rate: f64,
    /// Microseconds of the server's processor time a request.
    pub cpu: f64,
    /// Half of the requests took at most so many microseconds, as the client saw it.
    pub median: f64,
    /// 99 of 100 requests took at most so many microseconds.
    pub p99: f64,
}

/// The samples of two servers, round by round.
#[derive(Debug, Default)]
pub struct Comparison {
    rate: Rounds,
    cpu: Rounds,
    median: Rounds,
    p99: Rounds,
}

impl Comparison {
    /// What the cells of [`Self::cells`] are.
    pub const COLUMNS: &str = "requests/s | ratio (quartiles) | CPU a request, µs | ratio (quartiles) | p50, µs | p99, µs";

    /// Takes down a round.
    pub fn add(&mut self, ours: Sample, theirs: Sample) {
        self.rate.add(ours.rate, theirs.rate);
        self.cpu.add(ours.cpu, theirs.cpu);
        self.median.add(ours.median, theirs.median);
        self.p99.add(ours.p99, theirs.p99);
    }

    /// The cells of a table's row: ours, theirs, and the ratios.
    #[must_use]
    pub fn cells(&self) -> String {
        let sides = |rounds: &Rounds, digits| {
            let (ours, theirs) = rounds.medians();
            format!("{ours:.digits$} · {theirs:.digits$}")
        };
        [
            sides(&self.rate, 0),
            self.rate.ratio(),
            sides(&self.cpu, 1),
            self.cpu.ratio(),
            sides(&self.median, 0),
            sides(&self.p99, 0),
        ]
        .join(" | ")
    }
}
