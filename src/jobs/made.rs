//! Adapters that a job has made, found again by the job's id.

use super::{JobContext, JobError};
use serde::Deserialize;
use store::{AdapterFilter, AdapterRecord, Name};
use uuid::Uuid;

/// What the lineage of such an adapter says about its job.
#[derive(Deserialize)]
struct MadeBy {
    job: Uuid,
}

/// The adapter called `name` that an earlier run of this job stored before it could say so.
pub(super) fn made_before(
    context: &JobContext,
    name: &Name,
) -> Result<Option<AdapterRecord>, JobError> {
    let filter = AdapterFilter {
        name: Some(name.clone()),
        ..AdapterFilter::default()
    };
    let adapters = context.block_on(context.store().list_adapters(&filter))?;
    Ok(adapters.into_iter().find(|adapter| {
        let recipe = adapter.lineage.recipe.as_ref();
        let made_by = recipe.and_then(|recipe| MadeBy::deserialize(recipe).ok());
        made_by.is_some_and(|made_by| made_by.job == context.id())
    }))
}
