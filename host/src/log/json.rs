//! The JSON format: each line is one object, for programs. `docs/REFERENCE.md` describes the schema.
//!
//! Values have the JSON types of their Rust types. A number that has no portable form in JSON is written as a string:
//! an integer of more than 64 bits, an infinity or NaN.

use std::{cell::RefCell, fmt};

use plugin_api::level::Level;
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use tracing::Event;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::{
    event::{Buffers, LineContext, for_each_span},
    fields::{self, SpanFields, Value},
    worker,
};

/// Formats events as JSON.
#[derive(Clone, Copy, Debug)]
pub struct JsonFormat;

impl JsonFormat {
    /// Appends the line of `event` to `buffers.line`, without a line end.
    ///
    /// # Errors
    ///
    /// Never fails, because formatting into memory does not fail.
    pub fn write<S>(
        self,
        buffers: &mut Buffers,
        event: &Event<'_>,
        context: &LineContext<'_>,
        spans: Option<Scope<'_, S>>,
    ) -> fmt::Result
    where
        S: for<'span> LookupSpan<'span>,
    {
        let Buffers { line, scratch } = buffers;
        let mut json = serde_json::Serializer::new(&mut line.0);
        write_object(&mut json, scratch, event, context, spans).map_err(|_| fmt::Error)
    }
}

/// Writes the object of one event. Every object has all keys, except that an event outside of a trace has no `trace_id`
/// and no `span_id`.
fn write_object<S>(
    json: &mut serde_json::Serializer<&mut Vec<u8>>,
    scratch: &mut String,
    event: &Event<'_>,
    context: &LineContext<'_>,
    spans: Option<Scope<'_, S>>,
) -> serde_json::Result<()>
where
    S: for<'span> LookupSpan<'span>,
{
    let metadata = event.metadata();
    let mut map = json.serialize_map(None)?;
    map.serialize_entry(
        "timestamp",
        &DisplayText(humantime::format_rfc3339_micros(context.time)),
    )?;
    map.serialize_entry("level", &DisplayText(Level::of(metadata)))?;
    map.serialize_entry("target", metadata.target())?;
    // Formats the message into the scratch buffer first, because serde needs a complete string.
    scratch.clear();
    // Ignores the result, because formatting into memory does not fail.
    let _ = fields::write_message(scratch, event);
    map.serialize_entry("message", scratch)?;
    map.serialize_entry("plugin", &context.origin.map(|origin| origin.plugin))?;
    map.serialize_entry(
        "generation",
        &context.origin.map(|origin| origin.generation),
    )?;
    map.serialize_entry("worker", &worker::number())?;
    map.serialize_entry(
        "request_id",
        &context.request.map(|request| request.id.as_str()),
    )?;
    if let Some(trace) = context.request.and_then(|request| request.trace.as_ref()) {
        map.serialize_entry("trace_id", trace.trace_id())?;
        map.serialize_entry("span_id", trace.span_id())?;
    }
    map.serialize_entry("fields", &EventFields(event, RefCell::new(scratch)))?;
    map.serialize_entry("spans", &Spans(RefCell::new(spans)))?;
    map.serialize_entry("thread", &context.thread)?;
    map.serialize_entry("module", &metadata.module_path())?;
    map.serialize_entry("file", &metadata.file())?;
    map.serialize_entry("line", &metadata.line())?;
    SerializeMap::end(map)
}

/// Serializes a value as the string that its `Display` writes.
struct DisplayText<T>(T);

impl<T: fmt::Display> Serialize for DisplayText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Serializes the fields of an event, except the message, as a map. The second field is the scratch buffer for values.
/// The buffer is in a cell, because `serialize` gets `&self`.
struct EventFields<'a, 'e>(&'a Event<'e>, RefCell<&'a mut String>);

impl Serialize for EventFields<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut failed = None;
        // `visit` cannot stop early, so the first error is stored, and later fields are ignored.
        fields::visit(&mut self.1.borrow_mut(), self.0, |field, value| {
            if failed.is_none() {
                failed = map.serialize_entry(fields::name(field), &value).err();
            }
        });
        failed.map_or_else(|| map.end(), Err)
    }
}

/// Serializes the spans of an event as a list. The scope is an iterator. The scope is in a cell, because `serialize`
/// gets `&self` and must move the scope out.
struct Spans<'a, S>(RefCell<Option<Scope<'a, S>>>);

impl<L> Serialize for Spans<'_, L>
where
    L: for<'span> LookupSpan<'span>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        let mut failed = None;
        // The error of the serializer is stored in `failed`. `for_each_span` needs a `fmt::Error` to stop, so its
        // result has no more information and is ignored.
        let _ = for_each_span(self.0.take(), |name, fields| {
            failed = list.serialize_element(&Span { name, fields }).err();
            failed.as_ref().map_or(Ok(()), |_| Err(fmt::Error))
        });
        failed.map_or_else(|| list.end(), Err)
    }
}

/// The object of one span.
#[derive(Serialize)]
struct Span<'a> {
    name: &'a str,
    fields: &'a SpanFields,
}

impl Serialize for SpanFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Bool(value) => serializer.serialize_bool(value),
            Self::U64(value) => serializer.serialize_u64(value),
            Self::I64(value) => serializer.serialize_i64(value),
            Self::U128(value) => match u64::try_from(value) {
                Ok(value) => serializer.serialize_u64(value),
                Err(_) => serializer.collect_str(&value),
            },
            Self::I128(value) => match i64::try_from(value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.collect_str(&value),
            },
            Self::F64(value) if value.is_finite() => serializer.serialize_f64(value),
            Self::F64(value) => serializer.collect_str(&value),
            Self::Str(text) => serializer.serialize_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error, info, info_span};

    use crate::log::{
        lines::{Format, tests::lines},
        origin::{self, Origin},
    };

    fn json(emit: impl FnOnce()) -> Vec<serde_json::Value> {
        let parse = |line: String| serde_json::from_str(&line).unwrap();
        lines(Format::Json, emit).into_iter().map(parse).collect()
    }

    #[test]
    fn every_key_is_there() {
        let origin = Origin {
            plugin: "shop",
            generation: 3,
        };
        let lines = json(|| {
            let span = info_span!("cart", user = 7, total = tracing::field::Empty).entered();
            span.record("total", 1.5);
            span.record("user", 8);
            origin::scope(
                origin,
                || info!(target: "shop::cart", sku = 12, "item {}", 1),
            );
        });
        let line = &lines[0];
        assert_eq!(line["level"], "info");
        assert_eq!(line["target"], "shop::cart");
        assert_eq!(line["message"], "item 1");
        assert_eq!(
            (&line["plugin"], &line["generation"]),
            (&"shop".into(), &3.into())
        );
        assert_eq!(line["request_id"], serde_json::Value::Null);
        assert_eq!(line["fields"], serde_json::json!({ "sku": 12 }));
        assert_eq!(
            line["spans"],
            serde_json::json!([{ "name": "cart", "fields": { "user": 8, "total": 1.5 } }])
        );
        assert!(line["file"].as_str().unwrap().ends_with("json.rs"));
        assert!(line["line"].is_u64() && line["thread"].is_string());
        let time = line["timestamp"].as_str().unwrap();
        assert!(
            time.len() == 27 && humantime::parse_rfc3339(time).is_ok(),
            "{time}"
        );
    }

    #[test]
    fn every_key_is_there_once() {
        let lines = lines(Format::Json, || {
            info!(a = 1, b = 2, a = tracing::field::Empty, a = 3, "text");
            info!(b.c = 1, "b.c" = 2, r#type = 1, "type" = 2, "text");
            info!(message = "field", "text");
            info!(message = "text");
            let _span = info_span!("s", message = "field", a = 1, a = 2).entered();
            info!("in a span");
        });
        let expected = [
            (r#""fields":{"b":2,"a":3}"#, "text"),
            (r#""fields":{"b.c":2,"type":2}"#, "text"),
            (r#""fields":{"message":"field"}"#, "text"),
            (r#""fields":{}"#, "text"),
            (
                r#""spans":[{"name":"s","fields":{"message":"field","a":2}}]"#,
                "in a span",
            ),
        ];
        for (line, (part, message)) in lines.iter().zip(expected) {
            assert!(line.contains(part), "{line}");
            assert!(
                line.contains(&format!(r#""message":"{message}","#)),
                "{line}"
            );
        }
    }

    #[test]
    fn values_keep_their_types() {
        let lines = json(|| {
            error!(
                yes = true, less = -1, big = u64::MAX, huge = u128::MAX, small = 3_u128,
                deep = i128::MIN, half = 0.5, nan = f64::NAN, text = "a\n\"b\"", shown = %'c', debugged = ?Some(1),
                r#type = "raw"
            );
        });
        let expected = serde_json::json!({
            "yes": true, "less": -1, "big": u64::MAX, "huge": u128::MAX.to_string(), "small": 3,
            "deep": i128::MIN.to_string(), "half": 0.5, "nan": "NaN", "text": "a\n\"b\"", "shown": "c",
            "debugged": "Some(1)", "type": "raw"
        });
        assert_eq!(lines[0]["fields"], expected);
        assert_eq!(lines[0]["message"], "");
    }
}
