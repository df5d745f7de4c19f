//! The key-value pairs of `log` records.

use std::{error::Error, fmt};

use log::{
    Record,
    kv::{self, Key, VisitSource, VisitValue},
};

use crate::guest::logger::values::Values;

/// The keys of a record.
pub(super) fn keys(record: &Record<'_>) -> Vec<Box<str>> {
    let mut keys = Keys(Vec::new());
    // Collecting does not fail. Of a source that fails, the keys before its error count.
    let _ = record.key_values().visit(&mut keys);
    keys.0
}

/// Whether these are the keys of a record, in their order.
pub(super) fn has_keys(record: &Record<'_>, keys: &[Box<str>]) -> bool {
    let mut same = SameKeys { keys, seen: 0 };
    record.key_values().visit(&mut same).is_ok() && same.seen == keys.len()
}

/// Collects the values of a record, in the order of its keys. The message comes before them.
pub(super) fn collect(record: &Record<'_>, values: &mut Values) {
    // Collecting does not fail. Of a source that fails, the values before its error count.
    let _ = record.key_values().visit(&mut Pairing { values, index: 1 });
}

struct Keys(Vec<Box<str>>);

impl<'a> VisitSource<'a> for Keys {
    fn visit_pair(&mut self, key: Key<'a>, _: kv::Value<'a>) -> Result<(), kv::Error> {
        self.0.push(key.as_str().into());
        Ok(())
    }
}

struct SameKeys<'k> {
    keys: &'k [Box<str>],
    seen: usize,
}

impl<'a> VisitSource<'a> for SameKeys<'_> {
    fn visit_pair(&mut self, key: Key<'a>, _: kv::Value<'a>) -> Result<(), kv::Error> {
        let same = self
            .keys
            .get(self.seen)
            .is_some_and(|other| **other == *key.as_str());
        self.seen += 1;
        if same {
            Ok(())
        } else {
            Err(kv::Error::msg("other keys"))
        }
    }
}

/// Collects the values of pairs, in order.
struct Pairing<'v> {
    values: &'v mut Values,
    index: usize,
}

impl<'a> VisitSource<'a> for Pairing<'_> {
    fn visit_pair(&mut self, _: Key<'a>, value: kv::Value<'a>) -> Result<(), kv::Error> {
        let index = self.index;
        self.index += 1;
        value.visit(Pair {
            values: self.values,
            index,
        })
    }
}

/// Collects one value, with its type.
struct Pair<'v> {
    values: &'v mut Values,
    index: usize,
}

impl<'a> VisitValue<'a> for Pair<'_> {
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

/// Pairs, printed as `a=1 b=2`.
pub(super) struct Pairs<'a>(pub(super) &'a dyn kv::Source);

impl fmt::Debug for Pairs<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Each<'a, 'f>(&'a mut fmt::Formatter<'f>, &'static str);

        impl<'kvs> VisitSource<'kvs> for Each<'_, '_> {
            fn visit_pair(
                &mut self,
                key: Key<'kvs>,
                value: kv::Value<'kvs>,
            ) -> Result<(), kv::Error> {
                write!(self.0, "{}{key}={value}", self.1)?;
                self.1 = " ";
                Ok(())
            }
        }

        self.0
            .visit(&mut Each(formatter, ""))
            .map_err(|_| fmt::Error)
    }
}
