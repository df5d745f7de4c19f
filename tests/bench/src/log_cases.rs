//! The cases of `scripts/bench log`. This file is compiled both into the benchmark program (the host side) and into the
//! plugin `bench_log`.

#![allow(
    unreachable_pub,
    reason = "the plugin includes this file as a private module"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use tracing::{debug, info, info_span};

/// A kind of log line.
#[derive(Debug)]
pub struct Case {
    /// The name in the printed table, and in the path of the plugin.
    pub name: &'static str,
    /// Logs this number of lines, and returns the time that they took in all.
    pub run: fn(u64) -> Duration,
}

/// All cases. The first case is an empty loop, whose time is included in the others.
pub const CASES: [Case; 5] = [
    Case {
        name: "empty",
        run: |count| measure(count, |_| ()),
    },
    Case {
        name: "disabled",
        run: |count| {
            measure(count, |number| {
                debug!(number, user = "somebody", "not seen")
            })
        },
    },
    Case {
        name: "plain",
        run: |count| measure(count, |_| info!("a line without fields")),
    },
    Case {
        name: "fields",
        run: |count| {
            measure(count, |number| {
                info!(
                    number,
                    user = "somebody",
                    ok = true,
                    took = 0.25,
                    "a line with fields"
                );
            })
        },
    },
    Case {
        name: "spans",
        run: |count| {
            let _cart = info_span!("cart", user = 7).entered();
            let _pay = info_span!("pay", by = "card").entered();
            measure(count, |number| {
                info!(number, user = "somebody", "a line in two spans")
            })
        },
    },
];

/// Calls `work` with the numbers below `count`, and returns the time of all calls.
fn measure(count: u64, work: impl Fn(u64)) -> Duration {
    let began = Instant::now();
    for number in 0..count {
        // `black_box`, so that the compiler can neither remove the loop nor compute values in advance.
        work(black_box(number));
    }
    began.elapsed()
}
