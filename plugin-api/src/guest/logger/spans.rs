//! Tracks which spans each thread of this library has entered. Each entry for the host contains the innermost of these
//! spans, so entering a span does not call the host.

use std::cell::RefCell;

use tracing_core::span::Id;

use crate::abi::Entry;

thread_local! {
    /// The numbers of the spans that this thread has entered, from the outermost to the innermost.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Returns the number of the innermost span that this thread has entered. Returns [`Entry::REQUEST_SPAN`] if the thread
/// is in no span of this library.
pub(crate) fn current() -> u64 {
    // `try_with` fails while the thread ends, after its thread-locals were destroyed. The thread may still log then.
    ENTERED
        .try_with(|entered| entered.borrow().last().copied())
        .ok()
        .flatten()
        .unwrap_or(Entry::REQUEST_SPAN)
}

/// Enters a span on this thread.
pub(super) fn enter(span: &Id) {
    let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(span.into_u64()));
}

/// Leaves a span on this thread. The span need not be the innermost, because spans may be left in any order.
pub(super) fn exit(span: &Id) {
    let _ = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        // From the end, because a span may be entered several times.
        if let Some(index) = entered.iter().rposition(|&other| other == span.into_u64()) {
            entered.remove(index);
        }
    });
}

/// Returns the parent of an entry, for [`Entry::span`]: the parent that the author has set, or [`Entry::ROOT`] if the
/// author wrote `parent: None`, or else the innermost span of this thread.
pub(super) fn parent_number(is_root: bool, parent: Option<&Id>) -> u64 {
    match parent {
        Some(parent) => parent.into_u64(),
        None if is_root => Entry::ROOT,
        None => current(),
    }
}
