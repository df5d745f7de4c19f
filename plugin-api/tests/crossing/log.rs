//! The log of these tests.

use std::sync::Mutex;

use plugin_api::host::{self, Callsite, Fields, Interest, Logger, Panic, Parent};

/// Keeps what comes of both apps, which are of one library here.
pub(super) struct Log(Mutex<Vec<String>>);

pub(super) static LOG: Log = Log(Mutex::new(Vec::new()));

impl Log {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// These came, in this order, whatever came between them.
    pub(super) fn has(&self, expected: &[&str]) {
        // A failed assertion logs.
        let lines = self.0.lock().unwrap().clone();
        let mut rest = lines.iter();
        for part in expected {
            let found = rest.any(|line| line.contains(part));
            assert!(found, "{part} is not among {lines:#?}");
        }
    }
}

/// The values, but for what tells where.
fn shown(fields: Fields<'_>) -> String {
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
        let place = match entry.parent {
            Parent::Span(_) => " in a span",
            _ => "",
        };
        self.add(format!("event{place} {}", shown(entry.fields)));
    }

    fn new_span(&self, callsite: &'static String, entry: host::Entry<'_>) -> u64 {
        self.add(format!("new {callsite} {}", shown(entry.fields)));
        1
    }

    fn record(&self, _: u64, fields: Fields<'_>) {
        self.add(format!("record {}", shown(fields)));
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
        // A failed assertion of this test comes here too.
        eprintln!("{} at {:?}", panic.message, panic.location);
        self.add(format!("panic {:?}", panic.message));
    }
}
