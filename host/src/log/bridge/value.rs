//! Converts the values of the fields of plugins for `tracing`.

use std::{error::Error, fmt};

use plugin_api::host::Value;
use tracing::field::{self, DebugValue};

/// The value of a field of a plugin. The value in each variant has a type that implements `tracing`'s trait `Value`.
pub(super) enum FieldValue<'a> {
    Bool(bool),
    U64(u64),
    I64(i64),
    U128(u128),
    I128(i128),
    F64(f64),
    Str(&'a str),
    Debug(DebugValue<DebugText<'a>>),
    Error(Box<dyn Error + 'static>),
}

impl FieldValue<'_> {
    /// Returns the value as `tracing`'s trait `Value`.
    pub(super) fn as_tracing(&self) -> &dyn field::Value {
        match self {
            Self::Bool(value) => value,
            Self::U64(value) => value,
            Self::I64(value) => value,
            Self::U128(value) => value,
            Self::I128(value) => value,
            Self::F64(value) => value,
            Self::Str(value) => value,
            Self::Debug(value) => value,
            Self::Error(value) => value,
        }
    }
}

impl<'a> From<Value<'a>> for FieldValue<'a> {
    fn from(value: Value<'a>) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::U64(value) => Self::U64(value),
            Value::I64(value) => Self::I64(value),
            Value::U128(value) => Self::U128(value),
            Value::I128(value) => Self::I128(value),
            Value::F64(value) => Self::F64(value),
            Value::Str(value) => Self::Str(value),
            Value::Debug(text) => Self::Debug(field::debug(DebugText(text))),
            Value::Error(text, causes) => {
                // Builds the chain from the last cause to the first, because each error owns its source.
                let causes: Vec<_> = causes.iter().collect();
                let source = causes.into_iter().rev().fold(None, |source, text| {
                    Some(Box::new(ErrorText {
                        text: text.to_owned(),
                        source,
                    }))
                });
                Self::Error(Box::new(ErrorText {
                    text: text.to_owned(),
                    source,
                }))
            }
            _ => Self::Str("(a kind of value that this host does not know)"),
        }
    }
}

/// The text that the `Debug` of a value has written in the plugin. The `Debug` of this type writes the same text.
pub(super) struct DebugText<'a>(&'a str);

impl fmt::Debug for DebugText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// An error of a plugin: the text of the error, and of its sources.
#[derive(Debug)]
struct ErrorText {
    text: String,
    source: Option<Box<ErrorText>>,
}

impl fmt::Display for ErrorText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Error for ErrorText {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
