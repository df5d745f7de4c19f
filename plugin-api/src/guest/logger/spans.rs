//! The spans that each thread of this library is in. The host is told the innermost one with each entry.

use std::cell::RefCell;

use tracing_core::span::Id;

use crate::abi::Entry;

thread_local! {
    /// From the outermost inwards.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The innermost span that this thread is in, as [`Entry::span`] has it.
pub(crate) fn current() -> u64 {
    // A thread may log while it ends, when its thread-locals are gone.
    ENTERED
        .try_with(|entered| entered.borrow().last().copied())
        .ok()
        .flatten()
        .unwrap_or(Entry::CURRENT)
}

pub(super) fn enter(span: &Id) {
    let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(span.into_u64()));
}

/// Spans need not be left in the order in which they were entered.
pub(super) fn exit(span: &Id) {
    let _ = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        if let Some(at) = entered.iter().rposition(|&other| other == span.into_u64()) {
            entered.remove(at);
        }
    });
}

/// The span of an entry: the one that the author names, or none, or the innermost of this thread.
pub(super) fn span_of(is_root: bool, parent: Option<&Id>) -> u64 {
    match parent {
        Some(parent) => parent.into_u64(),
        None if is_root => Entry::ROOT,
        None => current(),
    }
}
