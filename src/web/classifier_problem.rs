//! What a client is told about an error of a stored classifier, and what has changed where it was not expected to.

use super::explanation::Explanation;
use super::registry_problem;
use crate::app::classifiers::ClassifiersError;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use store::{Change, ChangeRecord, ClassifierError};
use utoipa::ToSchema;

/// A change that was made to a classifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClassifierChange {
    /// The revision that it led to.
    revision: u64,
    /// The change in words.
    #[schema(example = "Moved 3 pictures from Oak to Ash")]
    summary: String,
    #[schema(value_type = Object)]
    change: Change,
    /// Milliseconds since 1970 (UTC).
    made_ms: i64,
    made_by: String,
}

impl From<ChangeRecord> for ClassifierChange {
    fn from(record: ChangeRecord) -> Self {
        Self {
            revision: record.revision,
            summary: record.change.to_string(),
            change: record.change,
            made_ms: record.made_ms,
            made_by: record.made_by,
        }
    }
}

/// What was changed since the client looked, where that is why it is refused.
pub(super) fn changes(error: &ClassifiersError) -> Vec<ClassifierChange> {
    match error {
        ClassifiersError::Store(ClassifierError::RevisionConflict { changes, .. }) => {
            changes.iter().cloned().map(Into::into).collect()
        }
        _ => Vec::new(),
    }
}

/// Status, code and text of `error`. Those of `app` have their own.
pub(super) fn explain(error: &ClassifiersError) -> Explanation {
    let detail = error.to_string();
    let conflict =
        |code, title| Explanation::new(StatusCode::CONFLICT, code, title, detail.clone());
    match error {
        ClassifiersError::Store(error) => explain_store(error),
        ClassifiersError::App(_) => Explanation::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The server failed",
            "the server failed; nothing is wrong with the request as far as is known",
        ),
        ClassifiersError::OtherBackbone { .. } => conflict(
            "classifier_for_other_backbone",
            "The classifier was made with another backbone",
        )
        .hint("start a server with that backbone (--backbone NAME)"),
        ClassifiersError::AdapterGone { .. } => {
            conflict("classifier_adapter_gone", "The classifier's adapter is gone").hint(
                "PATCH the classifier with another adapter, or import the adapter again under another name",
            )
        }
        ClassifiersError::BadShare(_) => invalid(detail, "reject"),
        ClassifiersError::BundleRefused(_) => Explanation::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "classifier_refused",
            "The classifier cannot be imported",
            detail,
        )
        .parameter("file"),
        ClassifiersError::PicturesNotKept(_) => {
            conflict("pictures_not_kept", "The pictures are not kept").parameter("adapter")
        }
    }
}

fn invalid(detail: String, parameter: &str) -> Explanation {
    Explanation::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid_parameter",
        "A part of the request is missing or wrong",
        detail,
    )
    .parameter(parameter)
}

fn explain_store(error: &ClassifierError) -> Explanation {
    let detail = error.to_string();
    let missing = |code, title| {
        Explanation::new(StatusCode::NOT_FOUND, code, title, detail.clone()).parameter("id")
    };
    let conflict =
        |code, title| Explanation::new(StatusCode::CONFLICT, code, title, detail.clone());
    let invalid = |parameter: &str| invalid(detail.clone(), parameter);
    match error {
        ClassifierError::Store(error) => registry_problem::explain_store(error),
        ClassifierError::UnknownClassifier(_) => unknown_classifier(detail),
        ClassifierError::UnknownClass(_) => missing("class_not_found", "There is no such class")
            .hint("GET /api/v1/classifiers/{id} lists them"),
        ClassifierError::UnknownPicture(_) => {
            missing("picture_not_found", "There is no such picture")
                .hint("GET /api/v1/classifiers/{id}/images lists them")
        }
        ClassifierError::UnknownBatch(_) => missing("batch_not_found", "There is no such batch"),
        ClassifierError::OriginalNotKept(_) => {
            missing("picture_not_kept", "The picture itself is not kept")
                .hint("its thumbnail is there")
        }
        ClassifierError::RevisionConflict { .. } => Explanation::new(
            StatusCode::PRECONDITION_FAILED,
            "classifier_changed",
            "The classifier was changed meanwhile",
            detail,
        )
        .parameter("If-Match")
        .hint("get the classifier again and repeat the change; `changes` says what was changed"),
        ClassifierError::EmptyTitle { .. }
        | ClassifierError::TitleTooLong { .. }
        | ClassifierError::ControlCharacter { .. } => invalid("name"),
        ClassifierError::ClassNameTaken(_) => {
            conflict("class_exists", "There is a class with this name").parameter("name")
        }
        ClassifierError::TooManyClasses(_) => invalid("classes"),
        ClassifierError::TooManyPictures(_) | ClassifierError::EmptyPicture => invalid("images"),
        ClassifierError::HeadTooLong(_) => invalid("head"),
        ClassifierError::BadOrder(_) => invalid("order"),
        ClassifierError::MergeIntoItself => invalid("into"),
        ClassifierError::BadBatchSize(_) | ClassifierError::NoSuchPosition { .. } => {
            invalid("pictures")
        }
        ClassifierError::NothingToUndo => conflict("nothing_to_undo", "There is nothing to undo"),
        ClassifierError::NothingToRedo => conflict("nothing_to_redo", "There is nothing to redo"),
    }
}

pub(super) fn unknown_classifier(detail: String) -> Explanation {
    Explanation::new(
        StatusCode::NOT_FOUND,
        "classifier_not_found",
        "There is no such classifier",
        detail,
    )
    .parameter("id")
    .hint("GET /api/v1/classifiers lists what there is")
}

/// What is logged and never sent, for errors inside the server.
pub(super) fn cause(error: &ClassifiersError) -> Option<String> {
    let is_own = explain(error).status().is_server_error();
    is_own.then(|| error.to_string())
}
