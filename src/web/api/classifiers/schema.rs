//! Classifiers, pictures and changes as they are sent.

use crate::app::classifiers::{self, Answering};
use crate::web::api::{AdapterIdentity, BackboneIdentity};
use crate::web::classifier_problem::ClassifierChange;
use recycle::head::HeadChoice;
use serde::Serialize;
use store::{
    AdapterChoice, ChangeRecord, Changed, ClassRecord, ClassifierRecord, Digest, PictureRecord,
    Privacy,
};
use utoipa::ToSchema;
use uuid::Uuid;

/// A classifier without its classes.
#[derive(Serialize, ToSchema)]
pub struct ClassifierSummary {
    id: Uuid,
    #[schema(example = "Trees")]
    name: String,
    backbone: BackboneIdentity,
    adapter: AdapterChoice,
    privacy: Privacy,
    /// What reads the features where a question does not say.
    #[schema(value_type = String, example = "auto")]
    head: HeadChoice,
    /// The share of pictures of known classes that may be refused where a question does not say; null refuses none.
    reject: Option<f32>,
    /// Rises by one with each change; the ETag of the classifier.
    revision: u64,
    /// How many it has.
    class_count: u32,
    /// How many it has in all classes.
    picture_count: u32,
    /// Of its pictures and thumbnails.
    stored_bytes: u64,
    /// Milliseconds since 1970 (UTC).
    created_ms: i64,
    created_by: String,
    /// When it was changed last.
    changed_ms: i64,
    changed_by: String,
    /// When it answered last; written once a minute.
    last_used_ms: Option<i64>,
}

impl From<ClassifierRecord> for ClassifierSummary {
    fn from(record: ClassifierRecord) -> Self {
        let Answering { head, reject } = Answering::of(&record);
        Self {
            head,
            reject,
            id: record.id,
            name: record.name,
            backbone: BackboneIdentity {
                name: record.backbone.into(),
                digest: record.backbone_digest.into(),
            },
            adapter: record.adapter,
            privacy: record.privacy,
            revision: record.revision,
            class_count: record.classes,
            picture_count: record.pictures,
            stored_bytes: record.stored_bytes,
            created_ms: record.created_ms,
            created_by: record.created_by,
            changed_ms: record.changed_ms,
            changed_by: record.changed_by,
            last_used_ms: record.last_used_ms,
        }
    }
}

/// How well one adapter tells the examples of a classifier apart.
#[derive(Serialize, ToSchema)]
pub struct AdapterCandidate {
    /// Null is the bare backbone.
    adapter: Option<AdapterIdentity>,
    /// Examples that it put into their own class when they were left out.
    right: usize,
    /// Examples that were left out, the same for all candidates.
    of: usize,
}

/// The adapter that a classifier chose for itself.
#[derive(Serialize, ToSchema)]
pub struct AutomaticChoice {
    /// What answers; null is the bare backbone.
    chosen: Option<AdapterIdentity>,
    /// The default first. Another is chosen where it is right more often by more than two standard errors. Empty where nothing was compared
    /// yet, or cannot be because fewer than two classes have two pictures; then the default answers.
    candidates: Vec<AdapterCandidate>,
}

impl From<&classifiers::Automatic> for AutomaticChoice {
    fn from(automatic: &classifiers::Automatic) -> Self {
        let candidate = |own: &classifiers::Candidate| AdapterCandidate {
            adapter: own.adapter.as_deref().map(AdapterIdentity::of_record),
            right: own.right,
            of: own.of,
        };
        Self {
            chosen: automatic.chosen.as_deref().map(AdapterIdentity::of_record),
            candidates: automatic.candidates.iter().map(candidate).collect(),
        }
    }
}

/// A classifier.
#[derive(Serialize, ToSchema)]
pub struct Classifier {
    #[serde(flatten)]
    summary: ClassifierSummary,
    /// In their order.
    classes: Vec<ClassRecord>,
    /// The adapter that answers now; null is the bare backbone, or an adapter that cannot be found any more.
    sees_through: Option<AdapterIdentity>,
    /// What it chose, where its adapter is `auto`; null for others.
    automatic: Option<AutomaticChoice>,
    /// What it cannot do because its pictures are not kept.
    limits: Option<&'static str>,
    /// The change that an undo would take back; several of one `undo_group` are one.
    undo: Option<ClassifierChange>,
    /// The change that a redo would make again.
    redo: Option<ClassifierChange>,
}

/// What the privacy `features` costs.
const WITHOUT_PICTURES: &str = "only thumbnails and features of its pictures are kept: they cannot be shown or exported in full, and it stays with its adapter and image size";

impl Classifier {
    pub fn new(
        record: ClassifierRecord,
        classes: Vec<ClassRecord>,
        undo: Option<ChangeRecord>,
        redo: Option<ChangeRecord>,
        sees_through: Option<AdapterIdentity>,
        automatic: Option<AutomaticChoice>,
    ) -> Self {
        Self {
            limits: (record.privacy == Privacy::Features).then_some(WITHOUT_PICTURES),
            summary: record.into(),
            classes,
            sees_through,
            automatic,
            undo: undo.map(Into::into),
            redo: redo.map(Into::into),
        }
    }

    pub fn revision(&self) -> u64 {
        self.summary.revision
    }
}

/// What a change came to.
#[derive(Serialize, ToSchema)]
pub struct ChangedClassifier {
    /// The revision that the classifier is at.
    revision: u64,
    /// Null where nothing was to be changed.
    change: Option<ClassifierChange>,
}

impl From<Changed> for ChangedClassifier {
    fn from(changed: Changed) -> Self {
        Self {
            revision: changed.revision,
            change: changed.change.map(Into::into),
        }
    }
}

/// A picture of a classifier.
#[derive(Serialize, ToSchema)]
pub struct ClassifierPicture {
    id: Uuid,
    /// Id of the class that it is in.
    class: Uuid,
    /// SHA-256 of its bytes as they were sent.
    digest: Digest,
    /// Whether these bytes are kept.
    is_kept: bool,
    /// As whoever sent it called it.
    name: String,
    #[schema(example = "image/jpeg")]
    media_type: String,
    size_bytes: u64,
    /// In pixels.
    width: u32,
    /// In pixels.
    height: u32,
    /// Milliseconds since 1970 (UTC).
    added_ms: i64,
    added_by: String,
}

impl From<PictureRecord> for ClassifierPicture {
    fn from(record: PictureRecord) -> Self {
        Self {
            id: record.id,
            class: record.class,
            digest: record.digest,
            is_kept: record.is_kept,
            name: record.name,
            media_type: record.media_type,
            size_bytes: record.size_bytes,
            width: record.width,
            height: record.height,
            added_ms: record.added_ms,
            added_by: record.added_by,
        }
    }
}
