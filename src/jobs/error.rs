//! Why a job did not do its work; the variant decides what happens next.

use crate::app::AppError;
use crate::app::registry::RegistryError;
use engine::backend::DeviceError;
use engine::operation::OperationError;
use std::time::Duration;
use store::{JobFault, StoreError};
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum JobError {
    /// Somebody has to fix something first: the job fails at once.
    #[error("{}", .0.message)]
    Abort(JobFault),
    /// Passes by itself: tried again after this time, while attempts are left.
    #[error("{}", .0.message)]
    Retry(JobFault, Duration),
    /// Anything else: tried again after a time that grows, while attempts are left. A panic is one.
    #[error("{}", .0.message)]
    Failure(JobFault),
    /// The run had to end: [`super::JobContext::interrupted`]. What comes next is not the job's to decide.
    #[error("the run was interrupted")]
    Interrupted,
}

impl JobError {
    /// Somebody has to fix something first.
    pub fn abort(code: &str, message: impl Into<String>) -> Self {
        Self::Abort(fault(code, message.into()))
    }

    /// May go better the next time.
    pub fn failure(code: &str, message: impl Into<String>) -> Self {
        Self::Failure(fault(code, message.into()))
    }

    /// The engine refuses. It has halved what it computes at a time where its device has no room, so that only less work helps there.
    pub fn engine(error: &OperationError) -> Self {
        let message = error.to_string();
        match error {
            OperationError::Device(DeviceError::OutOfMemory { .. }) => {
                Self::abort("no_room", message).hint(
                    "ask for fewer or smaller images at a time, close other programs that use the device and try the job again, \
                     or make it again with --job-device cpu",
                )
            }
            _ => Self::failure("engine", message),
        }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        match &mut self {
            Self::Abort(fault) | Self::Retry(fault, _) | Self::Failure(fault) => {
                fault.hint = Some(hint.into());
            }
            Self::Interrupted => {}
        }
        self
    }
}

fn fault(code: &str, message: String) -> JobFault {
    JobFault {
        code: code.to_owned(),
        message,
        hint: None,
    }
}

/// How long a database that another program holds is left alone.
const BUSY_DELAY: Duration = Duration::from_secs(10);

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::DiskFull { .. } => Self::abort("disk_full", message)
                .hint("free space on the disk of the data folder, then try the job again"),
            StoreError::DatabaseBusy => Self::Retry(fault("database_busy", message), BUSY_DELAY),
            StoreError::UnknownAdapter { .. } | StoreError::UnknownAlias(_) => {
                Self::abort("adapter_not_found", message)
            }
            StoreError::UnknownBackbone { .. } => Self::abort("backbone_not_found", message),
            StoreError::UnknownPool(_) | StoreError::UnknownPoolFile { .. } => {
                Self::abort("pool_not_found", message)
            }
            StoreError::PermissionDenied { .. }
            | StoreError::ReadOnlyFileSystem { .. }
            | StoreError::BlobMissing { .. }
            | StoreError::BlobDamaged { .. }
            | StoreError::CorruptDatabase { .. } => Self::abort("data_folder", message),
            StoreError::InUse { .. }
            | StoreError::QueueFull { .. }
            | StoreError::SharedAccess
            | StoreError::NoDatabase { .. }
            | StoreError::NotAFolder { .. }
            | StoreError::NotAFile { .. }
            | StoreError::Io { .. }
            | StoreError::ForeignDatabase { .. }
            | StoreError::NewerDatabase { .. }
            | StoreError::OlderDatabase { .. }
            | StoreError::AlteredMigration { .. }
            | StoreError::Migration { .. }
            | StoreError::LostDatabase { .. }
            | StoreError::Database(_)
            | StoreError::Interrupted(_)
            | StoreError::UnknownFile { .. }
            | StoreError::BackboneNameTaken { .. }
            | StoreError::BackboneExists { .. }
            | StoreError::BackboneInUse { .. }
            | StoreError::AdapterInUse { .. }
            | StoreError::AliasMismatch { .. }
            | StoreError::NothingToRollBack(_)
            | StoreError::RollBackTargetDeleted { .. }
            | StoreError::UnknownJob(_)
            | StoreError::JobState { .. }
            | StoreError::JobInputsGone(_)
            | StoreError::JobReplaced(_)
            | StoreError::JobBlocked { .. }
            | StoreError::NoFiles
            | StoreError::BadFileName(_)
            | StoreError::DuplicateFile(_) => Self::failure("store", message),
        }
    }
}

impl From<AppError> for JobError {
    fn from(error: AppError) -> Self {
        let message = error.to_string();
        match error {
            AppError::Registry(error) => error.into(),
            AppError::Encode(_) => Self::failure("encoder", message),
            AppError::AdapterNotFinite { .. } => Self::abort("adapter_not_finite", message),
            AppError::BadClasses(_)
            | AppError::EmptyClass { .. }
            | AppError::Classifier(_)
            | AppError::UnknownBackbone(_)
            | AppError::Backbone(_)
            | AppError::ImageSize { .. } => Self::abort("backbone", message),
        }
    }
}

impl From<RegistryError> for JobError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::Store(error) => error.into(),
            RegistryError::Name(_)
            | RegistryError::Files(_)
            | RegistryError::Refused(_)
            | RegistryError::OtherBackbone { .. }
            | RegistryError::BackboneGone { .. }
            | RegistryError::Backbone(_)
            | RegistryError::Export(_)
            | RegistryError::Bundle(_)
            | RegistryError::Merge(_)
            | RegistryError::Onnx(_)
            | RegistryError::ReservedName(_)
            | RegistryError::Damaged(_)
            | RegistryError::Absent => Self::abort("registry", message),
            RegistryError::Temporary(_) => Self::failure("temporary_files", message),
            RegistryError::Stopped(_) => Self::failure("stopped", message),
        }
    }
}
