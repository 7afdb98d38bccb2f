//! Images in a request body: base64 inside JSON, or the parts of a form.

use crate::app::NamedImage;
use crate::base64_bytes::deserialize_text;
use crate::web::ApiError;
use crate::web::limits::Admission;
use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

/// What a part with the label of a picture is called.
pub const LABEL: &str = "label";

const WANTED: &str = "application/json or multipart/form-data";

/// How a body carries its images.
pub enum BodyKind {
    Json,
    Form,
}

impl BodyKind {
    /// # Errors
    /// [`ApiError::UnsupportedMediaType`] where the content type is neither.
    pub fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let found = headers
            .get(header::CONTENT_TYPE)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let essence = found.as_deref().unwrap_or_default();
        let essence = essence.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else if essence.eq_ignore_ascii_case("multipart/form-data") {
            Ok(Self::Form)
        } else {
            Err(ApiError::UnsupportedMediaType {
                found,
                wanted: WANTED,
            })
        }
    }
}

/// Refuses a body that is not a form.
///
/// # Errors
/// [`ApiError::UnsupportedMediaType`]
pub fn require_form(headers: &HeaderMap) -> Result<(), ApiError> {
    match BodyKind::of(headers)? {
        BodyKind::Form => Ok(()),
        BodyKind::Json => Err(ApiError::UnsupportedMediaType {
            found: Some("application/json".into()),
            wanted: "multipart/form-data",
        }),
    }
}

/// An image inside JSON.
#[derive(ToSchema)]
#[schema(value_type = String, content_encoding = "base64", example = "data:image/png;base64,iVBORw0KGgo=")]
pub struct Base64Image(Result<Vec<u8>, String>);

impl Base64Image {
    fn named(
        self,
        index: usize,
        parameter: impl FnOnce() -> String,
    ) -> Result<NamedImage, ApiError> {
        match self.0 {
            Ok(bytes) => Ok(NamedImage {
                name: index.to_string(),
                bytes,
            }),
            Err(detail) => Err(ApiError::InvalidBase64 {
                parameter: parameter(),
                detail,
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Base64Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer, "an image file").map(Self)
    }
}

/// The images of the JSON list at `parameter`.
pub fn named_images(
    images: Vec<Base64Image>,
    parameter: &str,
) -> Result<Vec<NamedImage>, ApiError> {
    images
        .into_iter()
        .enumerate()
        .map(|(index, image)| image.named(index, || format!("{parameter}[{index}]")))
        .collect()
}

/// Receives a JSON body.
pub async fn receive_json<T>(admission: &Admission, request: Request) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    let limit_bytes = admission.limits.max_body_bytes;
    let most_values = admission.limits.max_json_values;
    let body = async {
        Bytes::from_request(request, &())
            .await
            .map_err(|rejection| {
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    ApiError::BodyTooLarge { limit_bytes }
                } else {
                    ApiError::BodyUnreadable(rejection.body_text())
                }
            })
    };
    let body = admission.receive(body).await?;
    // Decoding a large body takes long enough to hold up other requests of this worker.
    tokio::task::spawn_blocking(move || {
        check_values(&body, most_values)?;
        parse_json(&body)
    })
    .await
    .map_err(|error| ApiError::Internal(format!("parsing stopped: {error}")))?
}

/// Counts the values of a body before any of them is kept: its commas and opening brackets outside strings. What is no JSON is for the parser to say.
fn check_values(body: &[u8], limit: usize) -> Result<(), ApiError> {
    let (mut values, mut in_string, mut is_escaped) = (1_usize, false, false);
    for &byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
        if values > limit {
            return Err(ApiError::TooMany {
                parameter: "body",
                what: "JSON values",
                found: values,
                limit,
            });
        }
    }
    Ok(())
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let malformed = |error: &serde_json::Error| ApiError::Malformed {
        format: "JSON",
        detail: error.to_string(),
    };
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        if error.inner().is_data() {
            let parameter = match error.path().to_string().as_str() {
                "." => "body".to_owned(),
                path => path.to_owned(),
            };
            ApiError::InvalidParameter {
                parameter,
                detail: error.inner().to_string(),
            }
        } else {
            malformed(error.inner())
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

/// An image of a form and the place it was sent to.
pub struct Part<P> {
    pub place: P,
    file_name: Option<String>,
    bytes: Vec<u8>,
}

impl<P> Part<P> {
    pub fn into_place_and_bytes(self) -> (P, Vec<u8>) {
        (self.place, self.bytes)
    }

    /// The part, and what was known of its name.
    pub fn without_place(self) -> (Part<()>, P) {
        let part = Part {
            place: (),
            file_name: self.file_name,
            bytes: self.bytes,
        };
        (part, self.place)
    }

    /// A part that is text, called `name` in errors.
    ///
    /// # Errors
    /// [`ApiError::InvalidParameter`] where it is not one.
    pub fn into_text(self, name: &str) -> Result<String, ApiError> {
        match String::from_utf8(self.bytes) {
            Ok(text) => Ok(text),
            Err(_) => Err(ApiError::InvalidParameter {
                parameter: name.to_owned(),
                detail: "the part is not UTF-8 text".into(),
            }),
        }
    }

    /// The image, called by its file name or else by `index`.
    pub fn named(self, index: usize) -> NamedImage {
        NamedImage {
            name: self.file_name.unwrap_or_else(|| index.to_string()),
            bytes: self.bytes,
        }
    }
}

/// Receives a form whose parts are files and all have one name; `what` says in errors what they are.
pub async fn receive_files(
    admission: &Admission,
    request: Request,
    part_name: &str,
    what: &str,
) -> Result<Vec<NamedImage>, ApiError> {
    let parts = receive_form(admission, request, |name| {
        if name == part_name {
            return Ok(());
        }
        Err(ApiError::InvalidParameter {
            detail: format!("a part is named \"{name}\"; the name for {what} is {part_name}"),
            parameter: name,
        })
    })
    .await?;
    Ok(parts
        .into_iter()
        .enumerate()
        .map(|(index, part)| part.named(index))
        .collect())
}

/// The parts of a form, to be received one after the other.
///
/// # Errors
/// [`ApiError::Malformed`]
pub async fn open_form(request: Request) -> Result<Multipart, ApiError> {
    let opened = Multipart::from_request(request, &()).await;
    opened.map_err(|rejection| ApiError::Malformed {
        format: "multipart/form-data",
        detail: rejection.body_text(),
    })
}

/// Receives the parts of a form; `place` says what the part's name means, or refuses it.
pub async fn receive_form<P>(
    admission: &Admission,
    request: Request,
    place: impl Fn(String) -> Result<P, ApiError>,
) -> Result<Vec<Part<P>>, ApiError> {
    let limit_bytes = admission.limits.max_body_bytes;
    let failed = |error| form_error(error, limit_bytes);
    let parts = async {
        let mut form = open_form(request).await?;
        let mut parts = Vec::new();
        let mut labels = 0;
        while let Some(field) = form.next_field().await.map_err(failed)? {
            let name = field.name().ok_or_else(nameless)?;
            // A picture and its label count as one.
            labels += usize::from(name == LABEL);
            let place = place(decode_name(name))?;
            let others = parts.len() + 1 - labels;
            admission.check_images("body", others.max(labels))?;
            parts.push(Part {
                place,
                file_name: file_name(&field)?,
                bytes: collect(field).await.map_err(failed)?,
            });
        }
        Ok(parts)
    };
    admission.receive(parts).await
}

/// What is wrong with a form that breaks off, is too large or none.
pub fn form_error(error: MultipartError, limit_bytes: usize) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit_bytes },
        StatusCode::BAD_REQUEST => ApiError::Malformed {
            format: "multipart/form-data",
            detail: error.body_text(),
        },
        _ => ApiError::BodyUnreadable(error.body_text()),
    }
}

pub fn nameless() -> ApiError {
    ApiError::InvalidParameter {
        parameter: "body".into(),
        detail: "a part of the form has no name, or not in the form name=\"…\" with plain UTF-8"
            .into(),
    }
}

async fn collect(mut field: Field<'_>) -> Result<Vec<u8>, MultipartError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Most bytes of a file's name, as of a name in a file system.
const LONGEST_FILE_NAME: usize = 255;

fn file_name(field: &Field<'_>) -> Result<Option<String>, ApiError> {
    let name = field.file_name().filter(|name| !name.is_empty());
    let name = name.map(decode_name);
    match name {
        Some(name) if name.len() > LONGEST_FILE_NAME => Err(ApiError::InvalidParameter {
            parameter: "filename".into(),
            detail: format!(
                "a file name has {} bytes, at most {LONGEST_FILE_NAME} are allowed",
                name.len()
            ),
        }),
        name => Ok(name),
    }
}

/// Undoes what browsers do to names in a form: they escape quotes and line ends, and nothing else, so that a "50%" in a name stays.
pub fn decode_name(name: &str) -> String {
    name.replace("%22", "\"")
        .replace("%0D", "\r")
        .replace("%0A", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_strings_alone() {
        let values = |text: &str, limit| check_values(text.as_bytes(), limit).is_ok();
        for (text, count) in [
            ("7", 1),
            (r#"{"a": [1, 2, 3], "b": "[,{,\\\",,"}"#, 6),
            ("[[[[", 5),
        ] {
            assert!(values(text, count), "{text}");
            assert!(!values(text, count - 1), "{text}");
        }
    }

    #[test]
    fn names_are_unescaped_as_browsers_escape_them() {
        assert_eq!(
            decode_name("a %22b%22%0D%0A 50% %41 ü"),
            "a \"b\"\r\n 50% %41 ü"
        );
    }
}
