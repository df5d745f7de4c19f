//! Reads the key-value pairs of a record of `log`.

use std::{error::Error, fmt};

use log::{
    Record,
    kv::{self, Key, VisitSource, VisitValue},
};

use crate::guest::logger::values::Values;

/// Returns the keys of a record, in order.
pub(super) fn collect_keys(record: &Record<'_>) -> Vec<Box<str>> {
    let mut keys = KeyCollector(Vec::new());
    // Only the source itself can fail, and it is the author's code. The keys before the error are used.
    let _ = record.key_values().visit(&mut keys);
    keys.0
}

/// Returns whether the keys of a record are `keys`, in this order.
pub(super) fn has_keys(record: &Record<'_>, keys: &[Box<str>]) -> bool {
    let mut comparison = KeyComparison { keys, count: 0 };
    record.key_values().visit(&mut comparison).is_ok() && comparison.count == keys.len()
}

/// Adds the values of a record's pairs to `values`, in order.
pub(super) fn collect_values(record: &Record<'_>, values: &mut Values) {
    // The message is field 0.
    let mut collector = ValueCollector { values, index: 1 };
    // Only the source itself can fail, and it is the author's code. The values before the error are used.
    let _ = record.key_values().visit(&mut collector);
}

struct KeyCollector(Vec<Box<str>>);

impl<'a> VisitSource<'a> for KeyCollector {
    fn visit_pair(&mut self, key: Key<'a>, _: kv::Value<'a>) -> Result<(), kv::Error> {
        self.0.push(key.as_str().into());
        Ok(())
    }
}

/// Compares the keys of a record with `keys`. The first difference ends the visit with an error.
struct KeyComparison<'k> {
    keys: &'k [Box<str>],
    /// The number of keys of the record that were visited.
    count: usize,
}

impl<'a> VisitSource<'a> for KeyComparison<'_> {
    fn visit_pair(&mut self, key: Key<'a>, _: kv::Value<'a>) -> Result<(), kv::Error> {
        let is_equal = self
            .keys
            .get(self.count)
            .is_some_and(|other| **other == *key.as_str());
        self.count += 1;
        if is_equal {
            Ok(())
        } else {
            Err(kv::Error::msg("other keys"))
        }
    }
}

struct ValueCollector<'v> {
    values: &'v mut Values,
    /// The index of the next field.
    index: usize,
}

impl<'a> VisitSource<'a> for ValueCollector<'_> {
    fn visit_pair(&mut self, _: Key<'a>, value: kv::Value<'a>) -> Result<(), kv::Error> {
        let index = self.index;
        self.index += 1;
        value.visit(TypedValueCollector {
            values: self.values,
            index,
        })
    }
}

/// Adds one value to `values`, with the type of the value.
struct TypedValueCollector<'v> {
    values: &'v mut Values,
    index: usize,
}

impl<'a> VisitValue<'a> for TypedValueCollector<'_> {
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        self.values.push_debug(self.index, format_args!("{value}"));
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.values.push_bool(self.index, value);
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.values.push_u64(self.index, value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.values.push_i64(self.index, value);
        Ok(())
    }

    fn visit_u128(&mut self, value: u128) -> Result<(), kv::Error> {
        self.values.push_u128(self.index, value);
        Ok(())
    }

    fn visit_i128(&mut self, value: i128) -> Result<(), kv::Error> {
        self.values.push_i128(self.index, value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.values.push_f64(self.index, value);
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.values.push_str(self.index, value);
        Ok(())
    }

    fn visit_borrowed_error(&mut self, error: &'a (dyn Error + 'static)) -> Result<(), kv::Error> {
        self.visit_error(error)
    }

    fn visit_error(&mut self, error: &(dyn Error + 'static)) -> Result<(), kv::Error> {
        self.values.push_error(self.index, error);
        Ok(())
    }
}

/// Formats key-value pairs as `a=1 b=2`.
pub(super) struct FormattedPairs<'a>(pub(super) &'a dyn kv::Source);

impl fmt::Debug for FormattedPairs<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct PairFormatter<'a, 'f> {
            formatter: &'a mut fmt::Formatter<'f>,
            /// Empty for the first pair.
            separator: &'static str,
        }

        impl<'kvs> VisitSource<'kvs> for PairFormatter<'_, '_> {
            fn visit_pair(
                &mut self,
                key: Key<'kvs>,
                value: kv::Value<'kvs>,
            ) -> Result<(), kv::Error> {
                write!(self.formatter, "{}{key}={value}", self.separator)?;
                self.separator = " ";
                Ok(())
            }
        }

        let mut visitor = PairFormatter {
            formatter,
            separator: "",
        };
        self.0.visit(&mut visitor).map_err(|_| fmt::Error)
    }
}
