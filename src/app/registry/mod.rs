//! The registry as command line and server use it: adapters between the store's rows and files and the tensors that are served.
//! Knows the store and the adapter formats; knows no HTTP and no terminal.

mod error;
mod serve;

pub use error::RegistryError;
pub use serve::{BARE, ServedAdapter};

use crate::adapter::{Adapter, Candidate, NamedFile, import};
use crate::backbone::{BackboneConfig, EMBEDDED_NAME, embedded};
use crate::store::{Access, AdapterRecord, BackboneRecord, DATABASE_FILE, Digest, Name, Store};
use serve::LoadedAdapters;
use std::path::Path;
use std::sync::Arc;

/// Where the embedded backbone comes from, as its row says.
pub const EMBEDDED_SOURCE: &str = "embedded";

/// The open registry; clones share it.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Store,
    loaded: Arc<LoadedAdapters>,
}

impl Registry {
    /// Opens the registry in `data_folder`. With exclusive access the embedded backbone is registered if it is not yet.
    ///
    /// # Errors
    /// [`RegistryError`]: the folder is in use or unusable.
    pub async fn open(data_folder: &Path, access: Access) -> Result<Self, RegistryError> {
        let store = Store::open(data_folder, access).await?;
        if access == Access::Exclusive {
            let (name, digest) = embedded_identity()?;
            store.add_backbone(&name, &digest, EMBEDDED_SOURCE).await?;
        }
        Ok(Self {
            store,
            loaded: Arc::default(),
        })
    }

    /// Opens the registry for reading where there is one; another process may have it open.
    ///
    /// # Errors
    /// [`RegistryError`]: the folder is unusable.
    pub async fn open_to_read(data_folder: &Path) -> Result<Option<Self>, RegistryError> {
        if !data_folder.join(DATABASE_FILE).is_file() {
            return Ok(None);
        }
        Self::open(data_folder, Access::Shared).await.map(Some)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All registered backbones, as candidates for an import. One whose folder is gone is left out with a warning.
    ///
    /// # Errors
    /// [`RegistryError`] of the store.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, RegistryError> {
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
    pub async fn candidate_of(&self, adapter: &AdapterRecord) -> Result<Candidate, RegistryError> {
        candidate(
            &self
                .store
                .backbone_by_digest(&adapter.backbone_digest)
                .await?,
        )
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
            Err(report) => Err(RegistryError::Refused(report)),
        }
    }
}

fn embedded_identity() -> Result<(Name, Digest), RegistryError> {
    let name = EMBEDDED_NAME.parse()?;
    let digest = embedded()?.digest.parse().map_err(|error| {
        RegistryError::Damaged(format!("the embedded backbone's digest: {error}"))
    })?;
    Ok((name, digest))
}

fn candidate(record: &BackboneRecord) -> Result<Candidate, RegistryError> {
    let config = if record.source == EMBEDDED_SOURCE {
        embedded()?.config
    } else {
        folder_config(Path::new(&record.source))?
    };
    Ok(Candidate {
        name: record.name.to_string(),
        digest: record.digest.to_string(),
        config,
    })
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
