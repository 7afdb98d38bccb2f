//! How every command and the server open the data folder, so that the first one to come finds what any later one does.

use super::{EMBEDDED_SOURCE, Registry, RegistryError, Shipped, embedded_identity};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Access, DATABASE_FILE, Store, StoreError};

/// How long another process may take to make the folder, or to bring it up to date.
const OTHERS_MAY_TAKE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a command that only reads does where there is no data folder yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenNew {
    /// Makes it.
    Begin,
    /// Reads what would be in it, and makes none.
    Imagine,
}

impl Registry {
    /// Opens the registry for changes, alone. Registers the embedded backbone, and puts into a new folder the adapter that comes with the
    /// program, as `shipped` says.
    ///
    /// # Errors
    /// [`RegistryError`]: the folder is in use or unusable.
    pub async fn open_or_begin(
        data_folder: &Path,
        shipped: Shipped,
    ) -> Result<Self, RegistryError> {
        let store = Store::open(data_folder, Access::Exclusive).await?;
        let (name, digest) = embedded_identity()?;
        store.add_backbone(&name, &digest, EMBEDDED_SOURCE).await?;
        let registry = Self::over(store);
        if registry.store().is_new().await? {
            registry.begin_with(shipped).await?;
            registry.store().note_begun().await?;
        }
        Ok(registry)
    }

    /// Opens the registry for reading; another process may have it open. A new folder is begun first as by [`Self::open_or_begin`], or
    /// imagined, as `when_new` says. Where the folder can be neither made nor written, it is imagined, with a warning.
    ///
    /// # Errors
    /// [`RegistryError`]: the folder is unusable.
    pub async fn open_to_read(
        data_folder: &Path,
        shipped: Shipped,
        when_new: WhenNew,
    ) -> Result<Self, RegistryError> {
        if let Some(registry) = Self::open_existing(data_folder, shipped).await? {
            return Ok(registry);
        }
        if when_new == WhenNew::Imagine {
            return Self::imagine(shipped).await;
        }
        match bring_up_to_date(data_folder, shipped).await {
            Ok(()) => Ok(Self::open(data_folder, Access::Shared).await?),
            Err(error) if cannot_be_written(&error) => {
                tracing::warn!("nothing is kept: {error}");
                Self::imagine(shipped).await
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Self::open_to_read`], `None` where there is no data folder.
    ///
    /// # Errors
    /// [`RegistryError`]: the folder is unusable.
    pub async fn open_existing(
        data_folder: &Path,
        shipped: Shipped,
    ) -> Result<Option<Self>, RegistryError> {
        if !data_folder.join(DATABASE_FILE).is_file() {
            return Ok(None);
        }
        // What an older program left, or what somebody makes just now or died while making.
        let unready = match Self::open(data_folder, Access::Shared).await {
            Ok(registry) if registry.store().is_new().await? => None,
            Ok(registry) => return Ok(Some(registry)),
            Err(error @ RegistryError::Store(StoreError::OlderDatabase { .. })) => Some(error),
            Err(error) => return Err(error),
        };
        match (bring_up_to_date(data_folder, shipped).await, unready) {
            (Ok(()), _) => Self::open(data_folder, Access::Shared).await.map(Some),
            (Err(RegistryError::Store(StoreError::InUse { .. })), Some(older)) => Err(older),
            // Whoever holds it may work on it for long without having begun it; it can be read as it is.
            (Err(RegistryError::Store(StoreError::InUse { .. })), None) => {
                Self::open(data_folder, Access::Shared).await.map(Some)
            }
            (Err(error), Some(older)) if cannot_be_written(&error) => Err(older),
            (Err(error), _) => Err(error),
        }
    }

    /// A new registry in a temporary folder.
    async fn imagine(shipped: Shipped) -> Result<Self, RegistryError> {
        let folder = tempfile::tempdir().map_err(RegistryError::Temporary)?;
        let mut registry = Self::open_or_begin(folder.path(), shipped).await?;
        registry._temporary = Some(Arc::new(folder));
        Ok(registry)
    }
}

/// Makes the folder, or brings its database up to date, unless another process does so meanwhile.
async fn bring_up_to_date(data_folder: &Path, shipped: Shipped) -> Result<(), RegistryError> {
    let deadline = Instant::now() + OTHERS_MAY_TAKE;
    loop {
        match Registry::open_or_begin(data_folder, shipped).await {
            Ok(registry) => {
                registry.store.close().await;
                return Ok(());
            }
            Err(error @ RegistryError::Store(StoreError::InUse { .. })) => {
                if is_ready(data_folder).await {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(error);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the folder can be read as it is.
async fn is_ready(data_folder: &Path) -> bool {
    match Store::open(data_folder, Access::Shared).await {
        Ok(store) => {
            let is_new = store.is_new().await;
            store.close().await;
            is_new.is_ok_and(|is_new| !is_new)
        }
        Err(_) => false,
    }
}

fn cannot_be_written(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Store(
            StoreError::PermissionDenied { .. } | StoreError::ReadOnlyFileSystem { .. }
        )
    )
}
