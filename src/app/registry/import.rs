//! From files in a request to a stored adapter, or to the report that says why not.

use super::serve::BARE;
use super::{Registry, RegistryError, candidate};
use model::adapter::{
    Adapter, BackboneCandidate, ExportOptions, FileLimits, ImportReport, NameStyle, NamedFile,
    Package, Target, Unpacked, export_peft,
};
use std::collections::{BTreeMap, BTreeSet};
use store::{AdapterHead, AdapterRecord, Digest, FileRole, Lineage, Name, NewAdapter, NewFile};
use uuid::Uuid;

/// Names that mean something else: the bare backbone, and the address `/api/v1/adapters/merge`.
const RESERVED: [&str; 2] = [BARE, "merge"];

/// What an import may say besides the name.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The backbone that the adapter is for; without it, the one that it fits.
    pub backbone: Option<Name>,
    /// Words to find it by.
    pub tags: BTreeSet<Name>,
    /// A text of people's own.
    pub notes: String,
}

/// A stored adapter and what its import found.
#[derive(Debug, Clone)]
pub struct StoredAdapter {
    /// The new version.
    pub record: AdapterRecord,
    /// What the import found, without errors.
    pub report: ImportReport,
}

impl Registry {
    /// Looks at `package` without storing anything. The report has errors where the adapter would be refused.
    ///
    /// # Errors
    /// [`RegistryError`] of the store; an adapter that would be refused is not an error.
    pub async fn check(
        &self,
        package: Package,
        backbone: Option<&Name>,
    ) -> Result<ImportReport, RegistryError> {
        let candidates = self.candidates_named(backbone).await?;
        let unpack = move || package.unpack(&candidates, &FileLimits::default());
        Ok(match tokio::task::spawn_blocking(unpack).await? {
            Ok(unpacked) => unpacked.imported.report,
            Err(report) => *report,
        })
    }

    /// Stores the adapter in `package` as the next version of `name`.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] with the report, [`RegistryError::ReservedName`], or of the store.
    pub async fn import(
        &self,
        package: Package,
        name: Name,
        options: ImportOptions,
    ) -> Result<StoredAdapter, RegistryError> {
        let candidates = self.candidates_named(options.backbone.as_ref()).await?;
        self.store_package(package, name, options, candidates, Lineage::default())
            .await
    }

    /// Stores an adapter that was made here as the next version of `name`.
    ///
    /// # Errors
    /// [`RegistryError::ReservedName`], or of the store.
    pub async fn store_made(
        &self,
        adapter: Adapter,
        name: Name,
        backbone: BackboneCandidate,
        lineage: Lineage,
    ) -> Result<AdapterRecord, RegistryError> {
        let (title, for_export) = (name.to_string(), backbone.clone());
        let export = move || {
            let options = ExportOptions {
                title: &title,
                backbone: &for_export,
                base_model: None,
                names: NameStyle::V4,
            };
            export_peft(&adapter, &options)
        };
        let files = tokio::task::spawn_blocking(export).await??;
        let options = ImportOptions::default();
        let candidates = vec![backbone];
        let stored = self
            .store_package(Package::of(files), name, options, candidates, lineage)
            .await?;
        Ok(stored.record)
    }

    async fn store_package(
        &self,
        package: Package,
        name: Name,
        options: ImportOptions,
        candidates: Vec<BackboneCandidate>,
        lineage: Lineage,
    ) -> Result<StoredAdapter, RegistryError> {
        check_name(&name)?;
        let unpack = move || package.unpack(&candidates, &FileLimits::default());
        let unpacked = tokio::task::spawn_blocking(unpack)
            .await?
            .map_err(RegistryError::Refused)?;
        let report = unpacked.imported.report.clone();
        let new = new_adapter(unpacked, name, options, lineage)?;
        let record = self.store().import_adapter(new).await?;
        Ok(StoredAdapter { record, report })
    }

    async fn candidates_named(
        &self,
        backbone: Option<&Name>,
    ) -> Result<Vec<BackboneCandidate>, RegistryError> {
        match backbone {
            Some(name) => Ok(vec![candidate(&self.store().backbone(name).await?)?]),
            None => self.candidates().await,
        }
    }
}

/// Refuses names that mean something else where an adapter is named, ids and digests among them.
///
/// # Errors
/// [`RegistryError::ReservedName`]
pub fn check_name(name: &Name) -> Result<(), RegistryError> {
    let text = name.as_str();
    let is_identity = Uuid::parse_str(text).is_ok() || text.parse::<Digest>().is_ok();
    if RESERVED.contains(&text) || is_identity {
        return Err(RegistryError::ReservedName(name.clone()));
    }
    Ok(())
}

fn new_adapter(
    unpacked: Unpacked,
    name: Name,
    options: ImportOptions,
    lineage: Lineage,
) -> Result<NewAdapter, RegistryError> {
    let damaged = |error: String| RegistryError::Damaged(error);
    let Unpacked { imported, files } = unpacked;
    let backbone_digest: Digest = super::parse_digest(&imported.backbone.digest)?;
    Ok(NewAdapter {
        name,
        backbone_digest,
        rank: u32::try_from(imported.adapter.largest_rank())
            .map_err(|error| damaged(error.to_string()))?,
        targets: targets(&imported.adapter),
        head: imported.adapter.head.as_ref().map(|head| AdapterHead {
            classes: u32::try_from(head.weight.shape()[0]).unwrap_or(u32::MAX),
            labels: head.labels.clone(),
        }),
        tags: options.tags,
        notes: options.notes,
        report: serde_json::to_value(&imported.report)
            .map_err(|error| damaged(format!("the report is not JSON: {error}")))?,
        lineage,
        files: files.into_iter().map(new_file).collect(),
    })
}

fn new_file(file: NamedFile) -> NewFile {
    let role = match file.path.rsplit_once('.') {
        Some((_, "safetensors")) => FileRole::Weights,
        Some((_, "json")) => FileRole::Config,
        _ => FileRole::Other,
    };
    NewFile {
        role,
        name: file.path,
        bytes: file.bytes,
    }
}

/// For people, for example "query, value in 12 layers".
fn targets(adapter: &Adapter) -> String {
    let mut layers_of: BTreeMap<Target, BTreeSet<usize>> = BTreeMap::new();
    for site in adapter.pairs.keys() {
        layers_of.entry(site.target).or_default().insert(site.layer);
    }
    let mut groups: Vec<(Vec<&str>, &BTreeSet<usize>)> = Vec::new();
    for (target, layers) in &layers_of {
        match groups.iter_mut().find(|(_, of_group)| *of_group == layers) {
            Some((names, _)) => names.push(target.name()),
            None => groups.push((vec![target.name()], layers)),
        }
    }
    let sentences: Vec<String> = groups
        .iter()
        .map(|(names, layers)| {
            let unit = if layers.len() == 1 { "layer" } else { "layers" };
            format!("{} in {} {unit}", names.join(", "), layers.len())
        })
        .collect();
    sentences.join("; ")
}
