//! An adapter that a classifier chose for itself, and what it was chosen for.

use std::sync::Arc;
use store::AdapterRecord;
use uuid::Uuid;

/// What decides a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub revision: u64,
    pub default: Option<Uuid>,
    pub published: Vec<Uuid>,
}

/// How well one adapter tells the examples apart.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// `None` is the bare backbone.
    pub adapter: Option<Arc<AdapterRecord>>,
    /// Left-out examples whose own class was the nearest.
    pub right: usize,
    /// Left-out examples.
    pub of: usize,
}

/// The adapter that a classifier chose for itself.
#[derive(Debug, Clone)]
pub struct Automatic {
    /// `None` is the bare backbone.
    pub chosen: Option<Arc<AdapterRecord>>,
    /// The default first; none where nothing could be compared, and then the default is chosen.
    pub candidates: Vec<Candidate>,
}

/// A choice and what it was made for.
#[derive(Debug, Clone)]
pub(super) struct Decision {
    pub asked: Asked,
    pub automatic: Arc<Automatic>,
}
