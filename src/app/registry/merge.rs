//! Several stored adapters into one, which remembers them.

use super::{Registry, RegistryError};
use model::adapter::{Adapter, MergeInput, MergeOptions, Merged, merge};
use serde_json::json;
use store::{AdapterRecord, Lineage, Name};

/// An adapter to merge.
#[derive(Debug, Clone)]
pub struct MergePart {
    /// `name`, `name:version`, `name@alias` or an id.
    pub reference: String,
    /// [`model::adapter::MergeMethod::default_weight`] where it is not given.
    pub weight: Option<f32>,
}

/// A stored merge and notes on it.
#[derive(Debug, Clone)]
pub struct MergedAndStored {
    /// The new version.
    pub record: AdapterRecord,
    /// One sentence each.
    pub notes: Vec<String>,
}

impl Registry {
    /// Merges adapters of one backbone and stores the result as the next version of `name`.
    ///
    /// # Errors
    /// [`RegistryError`]: an adapter is unknown, for another backbone than the first, or they do not go together.
    pub async fn merge(
        &self,
        parts: &[MergePart],
        options: MergeOptions,
        name: Name,
    ) -> Result<MergedAndStored, RegistryError> {
        super::import::check_name(&name)?;
        let share = options.method.method().default_weight(parts.len());
        let mut records: Vec<AdapterRecord> = Vec::with_capacity(parts.len());
        let mut inputs = Vec::with_capacity(parts.len());
        for part in parts {
            let record = self.resolve(&part.reference).await?;
            if records.iter().any(|other| other.id == record.id) {
                return Err(model::adapter::MergeError::Twice(record.label()).into());
            }
            if let Some(first) = records.first() {
                check_backbone(&record, first)?;
            }
            let adapter = self.load(&record).await?;
            inputs.push((record.label(), adapter, part.weight.unwrap_or(share)));
            records.push(record);
        }
        let Some(first) = records.first() else {
            return Err(model::adapter::MergeError::Nothing.into());
        };
        let candidate = self.candidate_of(first).await?;
        let weights: Vec<f32> = inputs.iter().map(|(_, _, weight)| *weight).collect();
        let Merged { adapter, notes } =
            tokio::task::spawn_blocking(move || merged(&inputs, &options)).await??;
        let lineage = Lineage {
            parents: records.iter().map(AdapterRecord::as_parent).collect(),
            recipe: Some(json!({
                "operation": "merge",
                "method": options.method,
                "weights": weights,
                "options": options,
                "notes": notes,
            })),
        };
        let record = self.store_made(adapter, name, candidate, lineage).await?;
        Ok(MergedAndStored { record, notes })
    }
}

/// Both are for the same backbone.
///
/// # Errors
/// [`RegistryError::OtherBackbone`]
pub fn check_backbone(adapter: &AdapterRecord, first: &AdapterRecord) -> Result<(), RegistryError> {
    if adapter.backbone_digest == first.backbone_digest {
        return Ok(());
    }
    Err(RegistryError::OtherBackbone {
        adapter: adapter.label(),
        adapter_backbone: adapter.backbone.to_string(),
        adapter_backbone_digest: adapter.backbone_digest.to_string(),
        backbone: first.backbone.to_string(),
        backbone_digest: first.backbone_digest.to_string(),
    })
}

fn merged(
    inputs: &[(String, Adapter, f32)],
    options: &MergeOptions,
) -> Result<Merged, RegistryError> {
    let inputs: Vec<MergeInput<'_>> = inputs
        .iter()
        .map(|(name, adapter, weight)| MergeInput {
            name,
            adapter,
            weight: *weight,
        })
        .collect();
    Ok(merge(&inputs, options)?)
}
