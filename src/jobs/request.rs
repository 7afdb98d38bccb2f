//! A request before it is a job, whether over HTTP or on the command line: one type per kind, in its own file; here is what
//! they share.

use super::Services;
use crate::app::registry::RegistryError;
use crate::base64_bytes::Base64Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use store::{AdapterRecord, JobFault, StoreError};
use thiserror::Error;
use utoipa::ToSchema;

/// Longest label in bytes.
pub const LONGEST_LABEL: usize = 256;

/// A picture with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledImage {
    /// Label of its class.
    pub class: String,
    /// For messages.
    pub file_name: String,
    /// As they were sent, not decoded.
    pub bytes: Vec<u8>,
}

/// Labelled pictures of one class, as JSON has them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassPictures {
    /// 1 to 256 bytes, without control characters.
    #[schema(example = "cat", min_length = 1, max_length = 256)]
    label: String,
    /// Image files.
    images: Vec<Base64Bytes>,
}

/// What a request for jobs of one kind says: its fields, and the pictures and files that come along. A form carries the latter as
/// parts, JSON as base64.
pub trait JobRequest: Serialize + DeserializeOwned + Send + 'static {
    /// Where labelled pictures go, if it takes some.
    fn pictures(&mut self) -> Option<&mut Vec<LabelledImage>> {
        None
    }

    /// The files that it takes, by name of field and part.
    fn files(&mut self) -> Vec<(&'static str, &mut Option<Base64Bytes>)> {
        Vec::new()
    }
}

/// A request whose kind is not known yet, or that goes over HTTP as a form.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RequestParts {
    /// All but pictures and files.
    pub fields: Map<String, Value>,
    /// Labelled pictures, class by class.
    pub pictures: Vec<LabelledImage>,
    /// Other files, by the name of their field or part.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl RequestParts {
    /// # Errors
    /// [`RequestError::Invalid`] where its fields cannot be written as JSON, which is a defect.
    pub fn of<R: JobRequest>(mut request: R) -> Result<Self, RequestError> {
        let pictures = request.pictures().map(std::mem::take).unwrap_or_default();
        let files = request.files().into_iter();
        let files = files.filter_map(|(name, file)| Some((name.to_owned(), file.take()?.0)));
        let files = files.collect();
        match serde_json::to_value(request) {
            Ok(Value::Object(fields)) => Ok(Self {
                fields,
                pictures,
                files,
            }),
            Ok(_) => Err(RequestError::invalid(
                "body",
                "the request is not an object",
            )),
            Err(error) => Err(RequestError::invalid("body", error.to_string())),
        }
    }

    /// # Errors
    /// [`RequestError::Invalid`] that names the field or part.
    pub fn into_request<R: JobRequest>(self) -> Result<R, RequestError> {
        let fields = Value::Object(self.fields);
        let mut request: R = serde_path_to_error::deserialize(fields).map_err(|error| {
            let parameter = match error.path().to_string().as_str() {
                "." => "body".to_owned(),
                path => path.to_owned(),
            };
            RequestError::invalid(parameter, error.inner().to_string())
        })?;
        if !self.pictures.is_empty() {
            let Some(pictures) = request.pictures() else {
                return Err(RequestError::invalid(
                    "support",
                    "this kind of job takes no labelled pictures",
                ));
            };
            pictures.extend(self.pictures);
        }
        for (name, bytes) in self.files {
            let mut known = request.files();
            let names: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
            let names = match &names[..] {
                [] => "this kind of job takes no files".to_owned(),
                names => format!("files may be called {}", names.join(", ")),
            };
            match known.iter_mut().find(|(known, _)| *known == name) {
                Some((_, file)) => **file = Some(Base64Bytes(bytes)),
                None => return Err(RequestError::invalid(name, names)),
            }
        }
        Ok(request)
    }
}

/// A label that a class may have: `text` without spaces around it.
///
/// # Errors
/// A sentence that says what a label is.
pub fn class_label(text: &str) -> Result<String, String> {
    let label = text.trim();
    if label.is_empty() || label.len() > LONGEST_LABEL || label.chars().any(char::is_control) {
        return Err(format!(
            "a class needs a name of 1 to {LONGEST_LABEL} bytes without control characters"
        ));
    }
    Ok(label.to_owned())
}

/// Puts pictures in the order of their classes' names.
pub fn sort_by_class(pictures: &mut [LabelledImage]) {
    pictures.sort_by(|a, b| a.class.cmp(&b.class));
}

/// Labelled pictures in JSON: a list with one entry per class. File names do not come along.
pub mod by_class {
    use super::{Base64Bytes, ClassPictures, LabelledImage, class_label, sort_by_class};
    use super::{Deserialize, Deserializer, Serialize, Serializer};
    use serde::de::Error;
    /// One entry per class.
    pub fn serialize<S: Serializer>(
        pictures: &[LabelledImage],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let classes = pictures.chunk_by(|a, b| a.class == b.class);
        let classes = classes.map(|class| ClassPictures {
            label: class[0].class.clone(),
            images: class
                .iter()
                .map(|picture| Base64Bytes(picture.bytes.clone()))
                .collect(),
        });
        classes.collect::<Vec<_>>().serialize(serializer)
    }

    /// Every picture with its label; file names are the places in the list.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<LabelledImage>, D::Error> {
        let mut pictures = Vec::new();
        for class in Vec::<ClassPictures>::deserialize(deserializer)? {
            let label = class_label(&class.label).map_err(D::Error::custom)?;
            let images = class.images.into_iter().enumerate();
            pictures.extend(images.map(|(index, image)| LabelledImage {
                class: label.clone(),
                file_name: index.to_string(),
                bytes: image.0,
            }));
        }
        sort_by_class(&mut pictures);
        Ok(pictures)
    }
}

/// Why a request makes no job.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum RequestError {
    #[error("there is no kind of job \"{kind}\"; there are: {}", known.join(", "))]
    UnknownKind {
        kind: String,
        known: Vec<&'static str>,
    },
    /// A part of the request is missing or wrong.
    #[error("{detail}")]
    Invalid { parameter: String, detail: String },
    /// Synthetic images that are there did not come out, and nobody said that they are to be used.
    #[error("{}", .0.message)]
    FailedImages(JobFault),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        Self::Registry(error.into())
    }
}

impl RequestError {
    /// [`Self::Invalid`]
    pub fn invalid(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid {
            parameter: parameter.into(),
            detail: detail.into(),
        }
    }

    /// The same about another parameter.
    pub fn told_of(self, parameter: &str) -> Self {
        match self {
            Self::Invalid { detail, .. } => Self::invalid(parameter, detail),
            other => other,
        }
    }
}

/// The adapter that `reference` names, which is not among `known` yet.
///
/// # Errors
/// [`RequestError`] where it is unknown or named twice.
pub(super) async fn resolve_once(
    reference: &str,
    known: &[AdapterRecord],
    services: &Services,
) -> Result<AdapterRecord, RequestError> {
    let record = services.registry().resolve(reference).await?;
    if known.iter().any(|other| other.id == record.id) {
        return Err(RequestError::invalid(
            "adapters",
            format!("{} is named twice", record.label()),
        ));
    }
    Ok(record)
}
