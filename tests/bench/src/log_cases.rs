//! The cases of `scripts/bench log`: the same source, compiled into the program and the plugin.

#![allow(
    unreachable_pub,
    reason = "the plugin has it as a module of its own, which it shows to nobody"
)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use tracing::{debug, info, info_span};

/// Something to log, over and over.
#[derive(Debug)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// Does it so many times, and says how long that took.
    pub run: fn(u64) -> Duration,
}

/// All of them. The first is the loop itself.
pub const CASES: [Case; 5] = [
    Case {
        name: "empty",
        run: |count| timed(count, |_| ()),
    },
    Case {
        name: "disabled",
        run: |count| {
            timed(count, |number| {
                debug!(number, user = "somebody", "not seen")
            })
        },
    },
    Case {
        name: "plain",
        run: |count| timed(count, |_| info!("a line without fields")),
    },
    Case {
        name: "fields",
        run: |count| {
            timed(count, |number| {
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
            timed(count, |number| {
                info!(number, user = "somebody", "a line in two spans")
            })
        },
    },
];

fn timed(count: u64, work: impl Fn(u64)) -> Duration {
    let began = Instant::now();
    for number in 0..count {
        work(black_box(number));
    }
    began.elapsed()
}
