//! From what a request calls an adapter to tensors in memory: resolving, the default of a backbone, and a cache of loaded ones.

use super::{Registry, RegistryError};
use model::adapter::Adapter;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use store::{AdapterRecord, Digest};
use uuid::Uuid;

/// What requests write in place of an adapter to get the bare backbone where it has a default adapter.
pub const BARE: &str = "none";

/// Adapters kept in memory beside those that requests hold.
const MOST_LOADED: usize = 64;
/// Most bytes of the tensors of these.
const MOST_LOADED_BYTES: usize = 512 << 20;

/// An adapter that answers requests.
#[derive(Debug, Clone)]
pub struct ServedAdapter {
    /// What is known of it.
    pub record: Arc<AdapterRecord>,
    /// Its tensors.
    pub adapter: Arc<Adapter>,
}

/// Adapters in memory, the least recently used dropped first; when each was last used waits here to be written.
#[derive(Debug, Default)]
pub(super) struct LoadedAdapters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts uses; the order of last uses.
    clock: u64,
    adapters: HashMap<Uuid, (u64, Arc<Adapter>)>,
    unwritten_uses_ms: HashMap<Uuid, i64>,
}

impl State {
    /// Of the tensors of all adapters in memory.
    fn bytes(&self) -> usize {
        let adapters = self.adapters.values();
        adapters.map(|(_, own)| bytes_of(own)).sum()
    }
}

fn bytes_of(adapter: &Adapter) -> usize {
    let pairs = adapter.pairs.values();
    let pairs: usize = pairs
        .map(|pair| pair.a.data().len() + pair.b.data().len())
        .sum();
    let head = adapter.head.as_ref();
    size_of::<f32>() * (pairs + head.map_or(0, |own| own.weight.data().len()))
}

impl LoadedAdapters {
    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The adapter where it is loaded; counts as a use.
    fn get(&self, id: Uuid) -> Option<Arc<Adapter>> {
        let mut state = self.locked();
        state.clock += 1;
        let clock = state.clock;
        state.unwritten_uses_ms.insert(id, now_ms());
        let (used, adapter) = state.adapters.get_mut(&id)?;
        *used = clock;
        Some(Arc::clone(adapter))
    }

    /// Keeps `adapter`, or gives the one that another request loaded meanwhile: one adapter is one address in memory.
    fn insert(&self, id: Uuid, adapter: Adapter) -> Arc<Adapter> {
        let mut state = self.locked();
        state.clock += 1;
        let clock = state.clock;
        let is_new = !state.adapters.contains_key(&id);
        while is_new
            && (state.adapters.len() >= MOST_LOADED
                || state.bytes() + bytes_of(&adapter) > MOST_LOADED_BYTES)
            && let Some(oldest) = state
                .adapters
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(&id, _)| id)
        {
            state.adapters.remove(&oldest);
        }
        let entry = state
            .adapters
            .entry(id)
            .or_insert_with(|| (clock, Arc::new(adapter)));
        Arc::clone(&entry.1)
    }
}

impl Registry {
    /// The adapter that answers a request for `wanted` on a backbone: the named one, or the backbone's default where none is
    /// named. `None` is the bare backbone.
    ///
    /// # Errors
    /// [`RegistryError::Store`] with near names, [`RegistryError::OtherBackbone`] naming both backbones.
    pub async fn for_request(
        &self,
        wanted: Option<&str>,
        backbone: &str,
        backbone_digest: &str,
    ) -> Result<Option<ServedAdapter>, RegistryError> {
        let record = match wanted {
            Some(BARE) => return Ok(None),
            Some(wanted) => self.resolve(wanted).await?,
            None => {
                let Ok(digest) = backbone_digest.parse::<Digest>() else {
                    return Ok(None);
                };
                match self.store.default_adapter(&digest).await? {
                    Some(record) => record,
                    None => return Ok(None),
                }
            }
        };
        if record.backbone_digest.as_str() != backbone_digest {
            return Err(RegistryError::OtherBackbone {
                adapter: record.label(),
                adapter_backbone: record.backbone.to_string(),
                adapter_backbone_digest: record.backbone_digest.to_string(),
                backbone: backbone.to_owned(),
                backbone_digest: backbone_digest.to_owned(),
            });
        }
        let adapter = match self.loaded.get(record.id) {
            Some(adapter) => adapter,
            None => {
                let adapter = self.load(&record).await?;
                self.loaded.insert(record.id, adapter)
            }
        };
        Ok(Some(ServedAdapter {
            record: Arc::new(record),
            adapter,
        }))
    }

    /// Drops an adapter from memory, because it was deleted.
    pub fn forget(&self, id: Uuid) {
        let mut state = self.loaded.locked();
        state.adapters.remove(&id);
        state.unwritten_uses_ms.remove(&id);
    }

    /// Writes when adapters were last used. Called now and then: a write for each request would be slow.
    ///
    /// # Errors
    /// [`RegistryError`] of the store; the times are kept for the next call then.
    pub async fn write_uses(&self) -> Result<(), RegistryError> {
        let uses: Vec<(Uuid, i64)> = self.loaded.locked().unwritten_uses_ms.drain().collect();
        if uses.is_empty() {
            return Ok(());
        }
        let written = self.store.mark_used(&uses).await;
        if written.is_err() {
            let mut state = self.loaded.locked();
            for (id, used_ms) in uses {
                state.unwritten_uses_ms.entry(id).or_insert(used_ms);
            }
        }
        Ok(written?)
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::adapter::{LowRankPair, Site};
    use model::backbone::Target;
    use model::tensor::Tensor;

    fn adapter(mebibytes: usize) -> Adapter {
        let site = Site {
            layer: 0,
            target: Target::Query,
        };
        let pair = LowRankPair {
            a: Tensor::zeros([mebibytes, 1 << 18]),
            b: Tensor::zeros([1, mebibytes]),
            scale: 1.0,
        };
        Adapter {
            pairs: [(site, pair)].into(),
            head: None,
        }
    }

    #[test]
    fn large_adapters_in_memory_displace_the_least_recently_used() {
        let loaded = LoadedAdapters::default();
        let ids: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
        for &id in &ids[..3] {
            loaded.insert(id, adapter(160));
        }
        assert!(loaded.get(ids[0]).is_some());
        loaded.insert(ids[3], adapter(160));
        let kept: Vec<bool> = ids.iter().map(|&id| loaded.get(id).is_some()).collect();
        assert_eq!(kept, [true, false, true, true]);
        assert!(loaded.locked().bytes() <= MOST_LOADED_BYTES);
        // One that is larger than the limit answers all the same, alone.
        let large = Uuid::new_v4();
        loaded.insert(large, adapter(600));
        assert!(loaded.get(large).is_some());
        assert_eq!(loaded.locked().adapters.len(), 1);
    }
}
