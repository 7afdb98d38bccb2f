//! What a client is told about an error of the registry.

use super::explanation::Explanation;
use crate::app::registry::RegistryError;
use axum::http::StatusCode;
use model::adapter::{BundleError, ExportError};
use store::StoreError;

/// Status, code and text of `error`.
pub(super) fn explain(error: &RegistryError) -> Explanation {
    let detail = error.to_string();
    match error {
        RegistryError::Store(error) => explain_store(error),
        RegistryError::Absent => unknown_adapter(detail),
        RegistryError::Name(_) => Explanation::new(
            StatusCode::NOT_FOUND,
            "adapter_not_found",
            "There is no such adapter",
            format!("there is no such adapter: {detail}"),
        )
        .parameter("adapter")
        .hint("an adapter is named name, name:version or name@alias"),
        RegistryError::Refused(_) => Explanation::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "adapter_refused",
            "The adapter is refused",
            detail,
        )
        .parameter("file")
        .hint("the report says what was found, tensor by tensor; dry_run=true gives it without storing anything"),
        RegistryError::Files(_) => Explanation::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "adapter_unreadable",
            "The files cannot be read",
            detail,
        )
        .parameter("file"),
        RegistryError::ReservedName(_) => Explanation::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "reserved_name",
            "The name is reserved",
            detail,
        )
        .parameter("name"),
        RegistryError::OtherBackbone { .. } => Explanation::new(
            StatusCode::CONFLICT,
            "adapter_for_other_backbone",
            "The adapter was made for another backbone",
            detail,
        )
        .parameter("adapter"),
        RegistryError::BackboneGone { .. } | RegistryError::Backbone(_) => Explanation::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "backbone_unavailable",
            "The backbone cannot be read",
            "the adapter's backbone can no longer be read from where it was added",
        )
        .hint("put its folder back; the server's log names it under the request id"),
        RegistryError::Export(ExportError::Write(_)) => internal(),
        RegistryError::Export(_) | RegistryError::Bundle(BundleError::Export(_)) => {
            not_representable(detail)
        }
        RegistryError::Onnx(_) => not_representable(detail),
        RegistryError::Merge(_) => Explanation::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "merge_impossible",
            "The adapters cannot be merged like this",
            detail,
        )
        .parameter("adapters"),
        RegistryError::Bundle(_) | RegistryError::Temporary(_) | RegistryError::Stopped(_) => {
            internal()
        },
        RegistryError::Damaged(_) => damaged(),
    }
}

/// What is logged and never sent, for errors inside the server.
pub(super) fn cause(error: &RegistryError) -> Option<String> {
    let is_own = explain(error).status().is_server_error();
    is_own.then(|| error.to_string())
}

pub(super) fn explain_store(error: &StoreError) -> Explanation {
    let detail = error.to_string();
    let conflict =
        |code, title| Explanation::new(StatusCode::CONFLICT, code, title, detail.clone());
    match error {
        StoreError::UnknownAdapter { .. } => unknown_adapter(detail),
        StoreError::UnknownBackbone { .. } => Explanation::new(
            StatusCode::NOT_FOUND,
            "backbone_not_found",
            "There is no such backbone",
            detail,
        )
        .parameter("backbone")
        .hint("`lora-recycle backbone add DIR --name N` adds one"),
        StoreError::UnknownFile { .. } => Explanation::new(
            StatusCode::NOT_FOUND,
            "file_not_found",
            "The adapter has no such file",
            detail,
        ),
        StoreError::UnknownAlias(_) => Explanation::new(
            StatusCode::NOT_FOUND,
            "alias_not_found",
            "There is no such alias",
            detail,
        )
        .parameter("alias")
        .hint("GET /api/v1/adapter-aliases lists what there is"),
        StoreError::AdapterInUse { .. } => conflict("adapter_in_use", "The adapter is still used"),
        StoreError::BackboneInUse { .. } => {
            conflict("backbone_in_use", "The backbone is still used")
        }
        StoreError::BackboneNameTaken { .. } | StoreError::BackboneExists { .. } => {
            conflict("backbone_exists", "The backbone is already there")
        }
        StoreError::AliasMismatch { .. } => {
            conflict("alias_mismatch", "The alias cannot point there").parameter("adapter")
        }
        StoreError::NothingToRollBack(_) => {
            conflict("nothing_to_roll_back", "There is no move to take back")
        }
        StoreError::RollBackTargetDeleted { .. } => {
            conflict("adapter_deleted", "The adapter before was deleted")
        }
        StoreError::UnknownJob(_) => unknown_job(detail),
        StoreError::JobState { .. } => {
            conflict("job_state", "The state of the job does not allow it")
                .hint("GET /api/v1/jobs/{id} shows it")
        }
        StoreError::JobInputsGone(_) => conflict("job_inputs_gone", "The job's pictures are gone")
            .hint("ask for the job again, with its pictures"),
        StoreError::JobReplaced(_) => conflict("job_replaced", "Another job does the same work"),
        StoreError::JobBlocked { .. } => conflict("job_blocked", "The job waits for a lost one")
            .hint("try the job that it waits for again first"),
        StoreError::UnknownPool(_) => unknown_pool(detail),
        StoreError::UnknownPoolFile { .. } => Explanation::new(
            StatusCode::NOT_FOUND,
            "file_not_found",
            "The pool has no such file",
            detail,
        ),
        StoreError::NoFiles | StoreError::BadFileName(_) | StoreError::DuplicateFile(_) => {
            Explanation::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_files",
                "The files cannot be stored",
                detail,
            )
            .parameter("file")
        }
        StoreError::DiskFull { .. } => Explanation::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "disk_full",
            "The disk is full",
            "the disk (or quota) of the data folder is full; nothing was stored",
        )
        .hint("delete adapters, or free space on the server's disk, and try again"),
        StoreError::QueueFull { .. } => Explanation::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "queue_full",
            "Too many jobs wait",
            detail,
        )
        .hint("GET /api/v1/jobs?state=queued lists them"),
        StoreError::DatabaseBusy => Explanation::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database_busy",
            "The database is locked",
            "another program holds the database; nothing was changed",
        )
        .hint("try again"),
        StoreError::BlobMissing { .. } | StoreError::BlobDamaged { .. } => damaged(),
        StoreError::InUse { .. }
        | StoreError::SharedAccess
        | StoreError::NoDatabase { .. }
        | StoreError::NotAFolder { .. }
        | StoreError::NotAFile { .. }
        | StoreError::PermissionDenied { .. }
        | StoreError::ReadOnlyFileSystem { .. }
        | StoreError::Io { .. }
        | StoreError::ForeignDatabase { .. }
        | StoreError::NewerDatabase { .. }
        | StoreError::OlderDatabase { .. }
        | StoreError::AlteredMigration { .. }
        | StoreError::Migration { .. }
        | StoreError::CorruptDatabase { .. }
        | StoreError::LostDatabase { .. }
        | StoreError::Database(_)
        | StoreError::Interrupted(_) => internal(),
    }
}

fn unknown_adapter(detail: String) -> Explanation {
    Explanation::new(
        StatusCode::NOT_FOUND,
        "adapter_not_found",
        "There is no such adapter",
        detail,
    )
    .parameter("adapter")
    .hint("GET /api/v1/adapters lists what there is; adapter=none asks for the bare backbone")
}

pub(super) fn unknown_job(detail: String) -> Explanation {
    Explanation::new(
        StatusCode::NOT_FOUND,
        "job_not_found",
        "There is no such job",
        detail,
    )
    .parameter("id")
    .hint("GET /api/v1/jobs lists what there is")
}

pub(super) fn unknown_pool(detail: String) -> Explanation {
    Explanation::new(
        StatusCode::NOT_FOUND,
        "pool_not_found",
        "There is no such pool",
        detail,
    )
    .parameter("id")
    .hint("GET /api/v1/pools lists what there is")
}

fn not_representable(detail: String) -> Explanation {
    Explanation::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "not_representable",
        "The format cannot hold this adapter",
        detail,
    )
    .parameter("format")
}

fn damaged() -> Explanation {
    Explanation::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "adapter_damaged",
        "A stored adapter is damaged",
        "a stored file of the adapter is missing or damaged",
    )
    .hint("import the adapter again, or put its files back from a backup; the server's log names them")
}

fn internal() -> Explanation {
    Explanation::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "The server failed",
        "the registry failed; nothing is wrong with the request as far as is known",
    )
    .hint("report the request id to the server's administrator; its log says more")
}
