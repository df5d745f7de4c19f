//! Bytes in messages, which are JSON: written as base64.

/// Bytes in JSON, as base64.
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

/// Bytes in JSON, as base64, or an error.
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
        let bytes = text.map(|text| BASE64_STANDARD.decode(text));
        match bytes {
            Ok(bytes) => bytes.map(Ok).map_err(D::Error::custom),
            Err(error) => Ok(Err(error)),
        }
    }
}
