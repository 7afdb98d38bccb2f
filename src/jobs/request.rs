//! What somebody asks for before it is a job, whether over HTTP or on the command line.

use super::Services;
use crate::app::registry::RegistryError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use store::{AdapterRecord, JobFault, StoreError};
use thiserror::Error;
use uuid::Uuid;

/// A picture with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledImage {
    pub class: String,
    pub file_name: String,
    /// As they were sent, not decoded.
    pub bytes: Vec<u8>,
}

/// A wish for jobs of one kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobRequest {
    pub kind: String,
    /// All else that was asked for, e.g. `adapter` and `recipe`.
    pub parameters: Map<String, Value>,
    /// By class, in the order of their names.
    pub images: Vec<LabelledImage>,
    /// Other files by the name of their part, e.g. the statistics of a prior.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Jobs that must succeed first.
    pub waits_for: Vec<Uuid>,
}

/// Why a request makes no job.
#[derive(Debug, Error)]
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
    pub fn invalid(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid {
            parameter: parameter.into(),
            detail: detail.into(),
        }
    }

    /// The same said of another parameter.
    pub fn told_of(self, parameter: &str) -> Self {
        match self {
            Self::Invalid { detail, .. } => Self::invalid(parameter, detail),
            other => other,
        }
    }
}

impl JobRequest {
    /// The parameters as `T`, whose field names are their names.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] that names the parameter.
    pub fn parameters<T: serde::de::DeserializeOwned>(&self) -> Result<T, RequestError> {
        serde_path_to_error::deserialize(Value::Object(self.parameters.clone())).map_err(|error| {
            let parameter = match error.path().to_string().as_str() {
                "." => "body".to_owned(),
                path => path.to_owned(),
            };
            RequestError::invalid(parameter, error.inner().to_string())
        })
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
