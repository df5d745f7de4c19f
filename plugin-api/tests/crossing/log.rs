//! The log of these tests.

use std::sync::Mutex;

use plugin_api::host::{self, Callsite, Fields, Interest, Logger, Panic, Parent};

/// Collects a line of text for each call of the logger. All apps of these tests share it, because here they belong to
/// one library.
pub(super) struct Log(Mutex<Vec<String>>);

pub(super) static LOG: Log = Log(Mutex::new(Vec::new()));

impl Log {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// Asserts that lines with these parts were logged in this order. Other lines may be between them.
    pub(super) fn assert_contains(&self, expected: &[&str]) {
        // A copy, because a failed assertion panics, and the panic hook logs: the lock must not be held then.
        let lines = self.0.lock().unwrap().clone();
        let mut remaining = lines.iter();
        for part in expected {
            let is_found = remaining.any(|line| line.contains(part));
            assert!(is_found, "{part} is not among {lines:#?}");
        }
    }
}

/// Returns the fields as text: the index and the value of each.
fn fields_text(fields: Fields<'_>) -> String {
    format!("{:?}", fields.collect::<Vec<_>>())
}

impl Logger for &'static Log {
    type Callsite = String;

    fn register(&self, callsite: &Callsite<'_>) -> (&'static String, Interest) {
        let name = format!("{:?}", callsite.name);
        (Box::leak(Box::new(name)), Interest::Always)
    }

    fn enabled(&self, _: &'static String, _: Parent) -> bool {
        true
    }

    fn event(&self, _: &'static String, entry: host::Entry<'_>) {
        let context = match entry.parent {
            Parent::Span(_) => " in a span",
            _ => "",
        };
        self.add(format!("event{context} {}", fields_text(entry.fields)));
    }

    fn new_span(&self, callsite: &'static String, entry: host::Entry<'_>) -> u64 {
        self.add(format!("new {callsite} {}", fields_text(entry.fields)));
        1
    }

    fn record(&self, _: u64, fields: Fields<'_>) {
        self.add(format!("record {}", fields_text(fields)));
    }

    fn follows_from(&self, _: u64, _: u64) {}

    fn clone_span(&self, _: u64) {}

    fn close_span(&self, _: u64) -> bool {
        self.add("close".to_owned());
        true
    }

    fn request_span(&self) -> Option<u64> {
        None
    }

    fn span_callsite(&self, _: u64) -> Option<&'static String> {
        None
    }

    fn panicked(&self, panic: &Panic<'_>) {
        // Print the panic, because a failed assertion of a test arrives here too, and must be visible.
        eprintln!("{} at {:?}", panic.message, panic.location);
        self.add(format!("panic {:?}", panic.message));
    }
}
