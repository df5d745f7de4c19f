//! Serializes bytes in messages as base64, because the messages are JSON.

/// Serializes `Option<Vec<u8>>` as base64 or `null`.
pub(super) mod base64_option {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::orders) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes));
        text.serialize(serializer)
    }

    pub(in crate::orders) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let bytes = text.map(|text| BASE64_STANDARD.decode(text));
        bytes.transpose().map_err(D::Error::custom)
    }
}

/// Serializes `Result<Vec<u8>, String>` as base64 or the error.
pub(super) mod base64_result {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::orders) fn serialize<S: Serializer>(
        bytes: &Result<Vec<u8>, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes));
        text.serialize(serializer)
    }

    pub(in crate::orders) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Result<Vec<u8>, String>, D::Error> {
        let text = Result::<String, String>::deserialize(deserializer)?;
        // The outer result is the error of the JSON, and the inner result is the value of the message.
        let bytes = text.map(|text| BASE64_STANDARD.decode(text));
        match bytes {
            Ok(bytes) => bytes.map(Ok).map_err(D::Error::custom),
            Err(error) => Ok(Err(error)),
        }
    }
}
