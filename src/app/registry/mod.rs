//! The registry as command line and server use it: adapters between the store's rows and files and the tensors that are served.
//! Knows the store and the adapter formats; knows no HTTP and no terminal.

mod error;
mod export;
mod import;
mod merge;
mod open;
mod pool;
mod serve;
mod shipped;

pub use error::RegistryError;
pub use export::ExportFormat;
pub use import::{ImportOptions, StoredAdapter, check_name};
pub use merge::{MergePart, MergedAndStored, check_backbone};
pub use open::WhenNew;
pub use serve::{BARE, ServedAdapter};
pub use shipped::{SHIPPED_NAME, SHIPPED_WORD, Shipped, shipped_package};

use model::adapter::{Adapter, BackboneCandidate, NamedFile, import};
use model::backbone::{
    Backbone, BackboneConfig, EMBEDDED_DIGEST, EMBEDDED_NAME, embedded, embedded_config,
    load_folder,
};
use serve::LoadedAdapters;
use std::path::Path;
use std::sync::Arc;
use store::{Access, AdapterRecord, AdapterReference, BackboneRecord, Digest, Name, Store};
use tempfile::TempDir;
use uuid::Uuid;

/// Where the embedded backbone comes from, as its row says.
pub const EMBEDDED_SOURCE: &str = "embedded";

/// The open registry; clones share it.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Store,
    loaded: Arc<LoadedAdapters>,
    /// Where it has its own folder, which is deleted with it.
    _temporary: Option<Arc<TempDir>>,
}

impl Registry {
    /// Opens the registry in `data_folder`. With exclusive access the embedded backbone is registered if it is not yet, and a new
    /// folder begins without adapters.
    ///
    /// # Errors
    /// [`RegistryError`]: the folder is in use or unusable.
    pub async fn open(data_folder: &Path, access: Access) -> Result<Self, RegistryError> {
        match access {
            Access::Exclusive => Self::open_or_begin(data_folder, Shipped::None).await,
            Access::Shared => Ok(Self::over(Store::open(data_folder, access).await?)),
        }
    }

    fn over(store: Store) -> Self {
        Self {
            store,
            loaded: Arc::default(),
            _temporary: None,
        }
    }

    /// The data folder that it stands in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All registered backbones, as candidates for an import. One whose folder is gone is left out with a warning.
    ///
    /// # Errors
    /// [`RegistryError`] of the store.
    pub async fn candidates(&self) -> Result<Vec<BackboneCandidate>, RegistryError> {
        let mut candidates = Vec::new();
        for record in self.store.list_backbones().await? {
            match candidate(&record) {
                Ok(candidate) => candidates.push(candidate),
                Err(error) => {
                    tracing::warn!(backbone = %record.name, %error, "a backbone cannot be read");
                }
            }
        }
        Ok(candidates)
    }

    /// The backbone that `adapter` was made for.
    ///
    /// # Errors
    /// [`RegistryError`] where it cannot be read.
    pub async fn candidate_of(
        &self,
        adapter: &AdapterRecord,
    ) -> Result<BackboneCandidate, RegistryError> {
        self.candidate_of_backbone(&adapter.backbone_digest).await
    }

    /// The backbone with this digest, without its weights.
    ///
    /// # Errors
    /// [`RegistryError`] where it is unknown or cannot be read.
    pub async fn candidate_of_backbone(
        &self,
        digest: &Digest,
    ) -> Result<BackboneCandidate, RegistryError> {
        candidate(&self.store.backbone_by_digest(digest).await?)
    }

    /// The stored files of `adapter`, each verified against its digest.
    ///
    /// # Errors
    /// [`RegistryError`] of the store.
    pub async fn files(&self, adapter: &AdapterRecord) -> Result<Vec<NamedFile>, RegistryError> {
        let mut files = Vec::with_capacity(adapter.files.len());
        for file in &adapter.files {
            let bytes = self.store.read_file(adapter, &file.name).await?;
            files.push(NamedFile::new(file.name.clone(), bytes));
        }
        Ok(files)
    }

    /// Reads `adapter` from its files, checked as at its import.
    ///
    /// # Errors
    /// [`RegistryError`] where a file is damaged.
    pub async fn load(&self, adapter: &AdapterRecord) -> Result<Adapter, RegistryError> {
        let files = self.files(adapter).await?;
        let candidate = self.candidate_of(adapter).await?;
        let read = move || import(&files, &[candidate]);
        match tokio::task::spawn_blocking(read).await? {
            Ok(imported) => Ok(imported.adapter),
            Err(report) => Err(RegistryError::Damaged(format!(
                "the stored adapter {} is no longer readable: {}",
                adapter.label(),
                report.errors.join("; ")
            ))),
        }
    }

    /// The adapter that `reference` means: `name`, `name:version`, `name@alias`, an id or a digest.
    ///
    /// # Errors
    /// [`RegistryError::Name`]; [`RegistryError::Store`] with near names.
    pub async fn resolve(&self, reference: &str) -> Result<AdapterRecord, RegistryError> {
        if let Ok(id) = Uuid::parse_str(reference) {
            return Ok(self.store.adapter(id).await?);
        }
        if let Ok(digest) = reference.parse::<Digest>() {
            return Ok(self.store.adapter_by_digest(&digest).await?);
        }
        let reference: AdapterReference = reference.parse()?;
        Ok(self.store.resolve(&reference).await?)
    }

    /// The backbone with this digest and all its weights.
    ///
    /// # Errors
    /// [`RegistryError`] where it is unknown or cannot be read.
    pub async fn backbone(&self, digest: &Digest) -> Result<Backbone, RegistryError> {
        let record = self.store.backbone_by_digest(digest).await?;
        tokio::task::spawn_blocking(move || load_backbone(&record)).await?
    }

    /// Registers the backbone in `folder`, which stays where it is.
    ///
    /// # Errors
    /// [`RegistryError`]: the folder holds no backbone that can be used, or name or backbone are already there.
    pub async fn add_backbone(
        &self,
        folder: &Path,
        name: &Name,
    ) -> Result<BackboneRecord, RegistryError> {
        let unreadable = |problem: String| RegistryError::BackboneGone {
            folder: folder.to_path_buf(),
            problem,
        };
        let folder =
            std::fs::canonicalize(folder).map_err(|error| unreadable(error.to_string()))?;
        let Some(source) = folder.to_str().map(str::to_owned) else {
            return Err(unreadable("its path is not UTF-8; rename it".into()));
        };
        let backbone = tokio::task::spawn_blocking(move || load_folder(&folder)).await??;
        let digest = parse_digest(&backbone.digest)?;
        Ok(self.store.add_backbone(name, &digest, &source).await?)
    }
}

fn embedded_identity() -> Result<(Name, Digest), RegistryError> {
    Ok((EMBEDDED_NAME.parse()?, parse_digest(EMBEDDED_DIGEST)?))
}

fn parse_digest(digest: &str) -> Result<Digest, RegistryError> {
    digest
        .parse()
        .map_err(|error| RegistryError::Damaged(format!("the backbone's digest: {error}")))
}

/// The whole backbone with its weights.
fn load_backbone(record: &BackboneRecord) -> Result<Backbone, RegistryError> {
    let backbone = if record.source == EMBEDDED_SOURCE {
        embedded()?
    } else {
        load_folder(Path::new(&record.source))?
    };
    if backbone.digest != record.digest.as_str() {
        return Err(RegistryError::BackboneGone {
            folder: record.source.clone().into(),
            problem: format!(
                "its weights are no longer those that were added as {}",
                record.name
            ),
        });
    }
    Ok(backbone)
}

fn candidate(record: &BackboneRecord) -> Result<BackboneCandidate, RegistryError> {
    let config = if record.source == EMBEDDED_SOURCE {
        config_of_embedded()?
    } else {
        folder_config(Path::new(&record.source))?
    };
    Ok(BackboneCandidate {
        name: record.name.to_string(),
        digest: record.digest.to_string(),
        config,
    })
}

fn config_of_embedded() -> Result<BackboneConfig, RegistryError> {
    embedded_config().map_err(|problems| RegistryError::Damaged(problems.join("; ")))
}

/// The configuration alone: weights are large, and only an encoder needs them.
fn folder_config(folder: &Path) -> Result<BackboneConfig, RegistryError> {
    let path = folder.join("config.json");
    let unreadable = |problem: String| RegistryError::BackboneGone {
        folder: folder.to_path_buf(),
        problem,
    };
    let text = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
    BackboneConfig::from_json(&text).map_err(|problems| unreadable(problems.join("; ")))
}
