//! Gets a classifier ready for questions in the background, so that the first one after new pictures does not wait for their features.

use super::Answering;
use crate::app::{App, CopiesWanted};
use std::sync::Arc;
use uuid::Uuid;

impl App {
    /// Encodes what is new of the classifier `id` and fits it, in the background. Calls that come meanwhile are one more round.
    pub fn prepare_classifier(self: &Arc<Self>, id: Uuid) {
        if !self.fits.begin_preparing(id) {
            return;
        }
        let app = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let prepared = async {
                    let record = app.classifiers_store()?.classifier(id).await?;
                    let (head, copies) = (Answering::of(&record).head, CopiesWanted::Soon);
                    let adapter = app.adapter_of(&record, copies).await?;
                    app.fitted(&record, adapter.as_ref(), head, copies).await
                };
                if let Err(error) = prepared.await {
                    // The next question says it to whoever asks.
                    tracing::debug!("preparing classifier {id}: {error}");
                }
                if !app.fits.prepare_again(id) {
                    break;
                }
            }
        });
    }
}
