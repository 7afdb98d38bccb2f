//! Batches over HTTP: many pictures that a job sorts.

pub(in crate::web) mod download;
pub(in crate::web) mod manage;
pub(in crate::web) mod pictures;
mod receive;
mod schema;

use super::{classifier_id, id_of, store};
use crate::app::App;
use crate::web::ApiError;
use store::{BatchRecord, ClassifierError};

/// The batch of an address.
async fn found(app: &App, id: &str, batch: &str) -> Result<BatchRecord, ApiError> {
    let classifier = classifier_id(id)?;
    let batch = id_of(batch, ClassifierError::UnknownBatch)?;
    let record = store(app)?.batch(batch).await?;
    if record.classifier == classifier {
        Ok(record)
    } else {
        Err(ClassifierError::UnknownBatch(batch).into())
    }
}
