//! What the benchmarks have in common: rounds that alternate between two sides, so that what else
//! the machine does meets both, and the median of the ratios.

pub mod log_cases;

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
        (median(&self.ours), median(&self.theirs))
    }

    /// Ours to theirs: the quarter, the half and three quarters of the rounds are below.
    #[must_use]
    pub fn ratios(&self) -> [f64; 3] {
        let pairs = self.ours.iter().zip(&self.theirs);
        let ratios: Vec<_> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        [1, 2, 3].map(|quarter| quantile(&ratios, quarter))
    }
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 2)
}

fn quantile(values: &[f64], quarter: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * quarter / 4).copied().unwrap_or(f64::NAN)
}
