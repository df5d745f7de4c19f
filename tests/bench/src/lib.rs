//! The code that the benchmarks share. Rounds alternate between two sides, so that other load on the machine affects
//! both. The result is the median of the ratios of the rounds.

#![forbid(unsafe_code)]

pub mod apps;
pub mod cases;
pub mod client;
pub mod idle;
pub mod log_cases;
pub mod server;

/// The measurements of two sides, one pair for each round.
#[derive(Debug, Default)]
pub struct Rounds {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Rounds {
    /// Adds the measurements of one round.
    pub fn add(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// Returns the median of our side and the median of their side.
    #[must_use]
    pub fn medians(&self) -> (f64, f64) {
        (quartiles(&self.ours)[1], quartiles(&self.theirs)[1])
    }

    /// Returns the quartiles of the ratio of our side to their side.
    #[must_use]
    pub fn ratios(&self) -> [f64; 3] {
        let pairs = self.ours.iter().zip(&self.theirs);
        let ratios: Vec<_> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        quartiles(&ratios)
    }

    /// Returns the cell of a table: the median of the ratios in bold, and the other quartiles in brackets.
    #[must_use]
    pub fn ratio(&self) -> String {
        let [low, ratio, high] = self.ratios();
        format!("**{ratio:.3}** ({low:.2}–{high:.2})")
    }
}

/// Returns the lower quartile, the median and the upper quartile of the values.
#[must_use]
pub fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    [1, 2, 3].map(|quarter| sorted.get(last * quarter / 4).copied().unwrap_or(f64::NAN))
}

/// The measurements of one server in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests a second.
    pub rate: f64,
    /// Microseconds of the server's processor time a request.
    pub cpu: f64,
    /// The median of the latencies that the client saw, in microseconds.
    pub median: f64,
    /// The 99th percentile of the latencies, in microseconds.
    pub p99: f64,
}

/// The samples of two servers, one pair for each round.
#[derive(Debug, Default)]
pub struct Comparison {
    rate: Rounds,
    cpu: Rounds,
    median: Rounds,
    p99: Rounds,
}

impl Comparison {
    /// The titles of the columns that [`Self::cells`] fills.
    pub const COLUMNS: &str = "requests/s | ratio (quartiles) | CPU a request, µs | ratio (quartiles) | p50, µs | p99, µs";

    /// Adds the samples of one round.
    pub fn add(&mut self, ours: Sample, theirs: Sample) {
        self.rate.add(ours.rate, theirs.rate);
        self.cpu.add(ours.cpu, theirs.cpu);
        self.median.add(ours.median, theirs.median);
        self.p99.add(ours.p99, theirs.p99);
    }

    /// Returns the cells of a table's row: the medians of both sides, and their ratios.
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
