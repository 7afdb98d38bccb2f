//! Bytes inside JSON: base64, as text.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use utoipa::ToSchema;

/// Padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file in JSON: its bytes in standard base64, with or without a `data:` prefix.
#[derive(Clone, PartialEq, Eq, Default, ToSchema)]
#[schema(value_type = String, content_encoding = "base64")]
pub struct Base64Bytes(pub Vec<u8>);

impl fmt::Debug for Base64Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer, "a file")?
            .map(Self)
            .map_err(|detail| D::Error::custom(format!("it is not valid base64: {detail}")))
    }
}

/// Reads text and decodes it, without copying the text; `what` says in errors whose bytes they are. The inner error says what is
/// wrong with the base64.
///
/// # Errors
/// Where text is missing.
pub fn deserialize_text<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
) -> Result<Result<Vec<u8>, String>, D::Error> {
    struct Base64Visitor(&'static str);
    impl Visitor<'_> for Base64Visitor {
        type Value = Result<Vec<u8>, String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a string with the base64 of {}", self.0)
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(decode(text))
        }
    }
    deserializer.deserialize_str(Base64Visitor(what))
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut text = text;
    if text
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("data:"))
    {
        let Some((kind, data)) = text.split_once(',') else {
            return Err("the data: URI has no comma".into());
        };
        if !kind.to_ascii_lowercase().ends_with(";base64") {
            return Err("the data: URI is not base64-encoded".into());
        }
        text = data;
    }
    // Many encoders break lines.
    let unbroken: String;
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        unbroken = text.split_ascii_whitespace().collect();
        text = &unbroken;
    }
    BASE64.decode(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_comes_with_and_without_prefix_padding_and_line_breaks() {
        for text in [
            "aGVsbG8=",
            "aGVsbG8",
            "aGVs\r\nbG8=\n",
            "data:image/png;base64,aGVsbG8=",
            "DATA:;BASE64,aGVsbG8",
        ] {
            assert_eq!(decode(text).as_deref(), Ok(b"hello".as_slice()), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused_with_the_reason() {
        assert!(decode("aGV!bG8=").unwrap_err().contains('3'));
        assert!(
            decode("data:image/png,abc")
                .unwrap_err()
                .contains("not base64")
        );
        assert!(decode("data:image/png").unwrap_err().contains("comma"));
        assert!(decode("ä").is_err());
        assert!(decode("dataä").is_err());
    }

    #[test]
    fn bytes_come_back_as_they_were_written() {
        let bytes = Base64Bytes((0..=255).collect());
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!(serde_json::from_str::<Base64Bytes>(&text).unwrap(), bytes);
        let error = serde_json::from_str::<Base64Bytes>("\"!\"").unwrap_err();
        assert!(error.to_string().contains("not valid base64"), "{error}");
    }
}
