//! Pools that are never written to the disk: they end with the process.

use super::Digest;
use super::pool::PoolRecord;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Pools with their files' bytes by name.
type Pools = HashMap<Uuid, (PoolRecord, HashMap<String, Vec<u8>>)>;

#[derive(Debug, Default)]
pub(super) struct MemoryPools {
    by_id: Mutex<Pools>,
}

impl MemoryPools {
    fn locked(&self) -> MutexGuard<'_, Pools> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(&self, record: PoolRecord, files: HashMap<String, Vec<u8>>) {
        self.locked().insert(record.id, (record, files));
    }

    pub fn find(&self, key: &Digest) -> Option<PoolRecord> {
        let pools = self.locked();
        let mut records = pools.values().map(|(record, _)| record);
        records.find(|record| record.key == *key).cloned()
    }

    pub fn get(&self, id: Uuid) -> Option<PoolRecord> {
        self.locked().get(&id).map(|(record, _)| record.clone())
    }

    pub fn all(&self) -> Vec<PoolRecord> {
        let pools = self.locked();
        pools.values().map(|(record, _)| record.clone()).collect()
    }

    /// The bytes of a file; `None` where the pool is not here or has no such file.
    pub fn read(&self, id: Uuid, name: &str) -> Option<Vec<u8>> {
        let pools = self.locked();
        pools
            .get(&id)
            .and_then(|(_, files)| files.get(name))
            .cloned()
    }

    /// Whether it was here.
    pub fn remove(&self, id: Uuid) -> Option<PoolRecord> {
        self.locked().remove(&id).map(|(record, _)| record)
    }
}
