//! The printed tables: a title, and a row for each value.

use std::{fmt::Display, time::Duration};

/// A table with two columns.
#[derive(Debug)]
pub(crate) struct Table(String);

impl Table {
    pub(crate) fn new(title: impl Display) -> Self {
        Self(format!("## {title}\n\n| | |\n|---|---|\n"))
    }

    pub(crate) fn row(&mut self, name: &str, value: impl Display) {
        self.0 += &format!("| {name} | {value} |\n");
    }

    /// Adds a row with the median, the 95th percentile and the largest of these times.
    pub(crate) fn times(&mut self, name: &str, times: &mut [Duration]) {
        times.sort();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let (median, p95, slowest) = (at(50), at(95), at(100));
        self.row(
            &format!("{name}: median, p95, slowest"),
            format!("{median:.1}, {p95:.1}, {slowest:.1} ms"),
        );
    }

    pub(crate) fn print(self) {
        println!("{}", self.0);
    }
}
