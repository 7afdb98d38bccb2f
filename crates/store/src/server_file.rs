//! `server.json`: where the server that holds the data folder can be reached, for commands that want to change something
//! meanwhile. A file that a dead server left means nothing: the lock is free then, or its holder is another process.

use super::error::StoreError;
use super::{Store, folder};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    /// As the server was told; it may mean all addresses of the machine.
    pub address: SocketAddr,
    /// Of the server.
    pub process_id: u32,
}

fn path(data_folder: &Path) -> PathBuf {
    data_folder.join("server.json")
}

impl ServerFile {
    /// The server that the process `holder` of the lock on `data_folder` runs; `None` where it is not a server.
    pub fn read(data_folder: &Path, holder: Option<u32>) -> Option<Self> {
        let text = fs::read(path(data_folder)).ok()?;
        let found: Self = serde_json::from_slice(&text).ok()?;
        (Some(found.process_id) == holder).then_some(found)
    }
}

impl Store {
    /// Tells others where this process listens.
    ///
    /// # Errors
    /// [`StoreError`] of the folder.
    pub fn announce_server(&self, address: SocketAddr) -> Result<(), StoreError> {
        self.inner.database.writer()?;
        let file = ServerFile {
            address,
            process_id: std::process::id(),
        };
        let path = path(self.folder());
        let failed = |error| StoreError::io("write", &path, error);
        let text = serde_json::to_vec(&file).map_err(|error| failed(error.into()))?;
        // Renamed, so that nobody reads half of it.
        let temporary = path.with_extension("json.tmp");
        fs::write(&temporary, text).map_err(failed)?;
        fs::rename(&temporary, &path).map_err(failed)?;
        folder::sync_folder(self.folder())
    }

    /// Takes [`Self::announce_server`] back.
    ///
    /// # Errors
    /// [`StoreError`] of the folder.
    pub fn withdraw_server(&self) -> Result<(), StoreError> {
        let path = path(self.folder());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}
