//! Adapters that a job has made, found again by the job's id.

use super::{JobContext, JobError};
use store::{AdapterFilter, AdapterRecord, Name};

/// The adapter called `name` that an earlier run of this job stored before it could say so.
pub(super) fn made_before(
    context: &JobContext,
    name: &Name,
) -> Result<Option<AdapterRecord>, JobError> {
    let filter = AdapterFilter {
        name: Some(name.clone()),
        ..AdapterFilter::default()
    };
    let id = context.id().to_string();
    let adapters = context.block_on(context.store().list_adapters(&filter))?;
    Ok(adapters.into_iter().find(|adapter| {
        let recipe = adapter.lineage.recipe.as_ref();
        recipe.is_some_and(|recipe| recipe["job"] == id.as_str())
    }))
}
