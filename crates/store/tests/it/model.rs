//! Random operations on the registry against a model in memory, with restarts. A failure prints the seed and one line per step;
//! `LORA_RECYCLE_TEST_SEED=n` runs that seed alone.

use crate::seeds::{Trace, seeds};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use store::{AdapterFilter, AdapterReference, AliasKey, Digest, Store, StoreError};
use test_support::store::{backbone_digest, by, files_on_disk, name, new_adapter, open};
use uuid::Uuid;

const STEPS: usize = 150;
const NAMES: [&str; 3] = ["meta", "flowers", "birds"];
const ALIASES: [&str; 2] = ["champion", "candidate"];
/// Few contents, so that adapters share files.
const CONTENTS: u8 = 10;

#[derive(Clone, PartialEq, Debug)]
struct ModelAdapter {
    id: Uuid,
    name: &'static str,
    version: u32,
    contents: Vec<u8>,
}

struct ModelMove {
    from: Option<Uuid>,
    to: Option<Uuid>,
    /// Index of the move that was taken back.
    undoes: Option<usize>,
}

/// What the registry should be.
#[derive(Default)]
struct Model {
    last_version: BTreeMap<&'static str, u32>,
    /// Oldest first.
    adapters: Vec<ModelAdapter>,
    aliases: BTreeMap<AliasKey, Uuid>,
    /// Oldest first.
    moves: BTreeMap<AliasKey, Vec<ModelMove>>,
    /// Blobs that were put there without the registry knowing.
    planted: BTreeSet<Digest>,
}

impl Model {
    fn is_alive(&self, id: Uuid) -> bool {
        self.adapters.iter().any(|adapter| adapter.id == id)
    }

    fn resolve(&self, text: &str) -> Option<Uuid> {
        if let Some((name, version)) = text.split_once(':') {
            let version: u32 = version.parse().expect("version");
            let found = self
                .adapters
                .iter()
                .find(|adapter| adapter.name == name && adapter.version == version);
            return found.map(|adapter| adapter.id);
        }
        if let Some((name, alias)) = text.split_once('@') {
            return self
                .aliases
                .get(&test_support::store::alias(name, alias))
                .copied();
        }
        let versions = self.adapters.iter().filter(|adapter| adapter.name == text);
        versions
            .max_by_key(|adapter| adapter.version)
            .map(|adapter| adapter.id)
    }

    /// The move that a roll-back takes back, by its index.
    fn to_undo(&self, key: &AliasKey) -> Option<usize> {
        let moves = self.moves.get(key)?;
        let undone: BTreeSet<usize> = moves.iter().filter_map(|step| step.undoes).collect();
        (0..moves.len())
            .rev()
            .find(|index| moves[*index].undoes.is_none() && !undone.contains(index))
    }

    fn point(&mut self, key: &AliasKey, to: Option<Uuid>, undoes: Option<usize>) {
        let from = match to {
            Some(id) => self.aliases.insert(key.clone(), id),
            None => self.aliases.remove(key),
        };
        self.moves
            .entry(key.clone())
            .or_default()
            .push(ModelMove { from, to, undoes });
    }

    fn referenced(&self) -> BTreeSet<Digest> {
        self.adapters
            .iter()
            .flat_map(|adapter| &adapter.contents)
            .map(|&content| Digest::of(&bytes(content)))
            .collect()
    }

    /// What a clean-up should remove.
    fn orphans(&self) -> usize {
        self.planted.difference(&self.referenced()).count()
    }
}

fn bytes(content: u8) -> Vec<u8> {
    vec![content; 100 + usize::from(content)]
}

pub fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder
        .join("blobs")
        .join(&digest.as_str()[..2])
        .join(digest.as_str())
}

struct Run {
    random: ChaCha8Rng,
    folder: tempfile::TempDir,
    store: Store,
    model: Model,
    trace: Trace,
}

impl Run {
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())].clone()
    }

    fn log(&mut self, line: String) {
        self.trace.lines.push(line);
    }

    /// Adds what came of the step to its line.
    fn came(&mut self, result: &str) {
        if let Some(line) = self.trace.lines.last_mut() {
            line.push_str(" -> ");
            line.push_str(result);
        }
    }

    fn any_adapter(&mut self) -> Option<ModelAdapter> {
        let adapters = self.model.adapters.clone();
        (!adapters.is_empty()).then(|| self.pick(&adapters))
    }

    fn any_key(&mut self) -> AliasKey {
        if self.random.random_bool(0.25) {
            return AliasKey::BackboneDefault(backbone_digest());
        }
        let (adapter, alias) = (self.pick(&NAMES), self.pick(&ALIASES));
        test_support::store::alias(adapter, alias)
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => self.import().await,
            30..50 => self.move_alias().await,
            50..55 => self.remove_alias().await,
            55..67 => self.roll_back().await,
            67..82 => self.delete().await,
            82..87 => self.resolve().await,
            87..91 => self.plant(),
            91..94 => self.gc().await,
            _ => self.restart().await,
        }
        self.check().await;
    }

    async fn import(&mut self) {
        let name = self.pick(&NAMES);
        let contents: Vec<u8> = (0..self.random.random_range(1..=3))
            .map(|_| self.random.random_range(0..CONTENTS))
            .collect();
        self.log(format!("import {name} with {contents:?}"));
        let files: Vec<(String, Vec<u8>)> = contents
            .iter()
            .enumerate()
            .map(|(index, &content)| (format!("file-{index}"), bytes(content)))
            .collect();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(file, bytes)| (&file[..], &bytes[..]))
            .collect();
        let stored = self
            .store
            .import_adapter(new_adapter(name, &files))
            .await
            .expect("import");
        self.came(&format!("{} {}", stored.label(), stored.id));
        let version = self.model.last_version.entry(name).or_default();
        *version += 1;
        let version = *version;
        assert_eq!(stored.version, version);
        self.model.adapters.push(ModelAdapter {
            id: stored.id,
            name,
            version,
            contents,
        });
    }

    async fn move_alias(&mut self) {
        let Some(adapter) = self.any_adapter() else {
            return;
        };
        let key = self.any_key();
        self.log(format!(
            "move {key} to {}:{}",
            adapter.name, adapter.version
        ));
        let result = self.store.move_alias(&key, adapter.id, &by("model")).await;
        let fits = match &key {
            AliasKey::Alias { adapter: owner, .. } => owner.as_str() == adapter.name,
            AliasKey::BackboneDefault(_) => true,
        };
        if !fits {
            self.came("refused: other name");
            assert!(
                matches!(result, Err(StoreError::AliasMismatch { .. })),
                "{result:?}"
            );
            return;
        }
        let moved = result.expect("move").is_some();
        self.came(if moved { "moved" } else { "was there" });
        assert_eq!(moved, self.model.aliases.get(&key) != Some(&adapter.id));
        if moved {
            self.model.point(&key, Some(adapter.id), None);
        }
    }

    async fn remove_alias(&mut self) {
        let key = self.any_key();
        self.log(format!("remove {key}"));
        let result = self.store.remove_alias(&key, &by("model")).await;
        if self.model.aliases.contains_key(&key) {
            result.expect("remove");
            self.model.point(&key, None, None);
        } else {
            self.came("not set");
            assert!(
                matches!(result, Err(StoreError::UnknownAlias(_))),
                "{result:?}"
            );
        }
    }

    async fn roll_back(&mut self) {
        let key = self.any_key();
        self.log(format!("roll back {key}"));
        let result = self.store.roll_back_alias(&key, &by("model")).await;
        let Some(index) = self.model.to_undo(&key) else {
            self.came("nothing to take back");
            assert!(
                matches!(result, Err(StoreError::NothingToRollBack(_))),
                "{result:?}"
            );
            return;
        };
        let target = self.model.moves[&key][index].from;
        if target.is_some_and(|id| !self.model.is_alive(id)) {
            self.came("refused: deleted");
            assert!(
                matches!(result, Err(StoreError::RollBackTargetDeleted { .. })),
                "{result:?}"
            );
            return;
        }
        let done = result.expect("roll back");
        self.came(
            &done
                .to
                .as_ref()
                .map_or("removed".to_owned(), |to| to.label.clone()),
        );
        assert_eq!(done.to.map(|to| to.id), target);
        self.model.point(&key, target, Some(index));
    }

    async fn delete(&mut self) {
        let Some(adapter) = self.any_adapter() else {
            return;
        };
        self.log(format!("delete {}:{}", adapter.name, adapter.version));
        let result = self.store.delete_adapter(adapter.id).await;
        let uses: Vec<AliasKey> = self
            .model
            .aliases
            .iter()
            .filter(|(_, id)| **id == adapter.id)
            .map(|(key, _)| key.clone())
            .collect();
        if !uses.is_empty() {
            self.came("refused: in use");
            match result {
                Err(StoreError::AdapterInUse { aliases, .. }) => {
                    assert_eq!(BTreeSet::from_iter(aliases), BTreeSet::from_iter(uses));
                }
                other => panic!("{other:?}"),
            }
            return;
        }
        let before = self.model.referenced();
        self.model.adapters.retain(|kept| kept.id != adapter.id);
        let after = self.model.referenced();
        let freed = result.expect("delete");
        self.came(&format!("freed {} blobs", freed.blobs));
        assert_eq!(freed.blobs, before.difference(&after).count() as u64);
        // A planted blob that an adapter came to use went with it.
        self.model
            .planted
            .retain(|digest| !before.contains(digest) || after.contains(digest));
    }

    async fn resolve(&mut self) {
        let name = self.pick(&NAMES);
        let text = match self.random.random_range(0..3) {
            0 => name.to_owned(),
            1 => format!("{name}:{}", self.random.random_range(1..8)),
            _ => format!("{name}@{}", self.pick(&ALIASES)),
        };
        self.log(format!("resolve {text}"));
        let reference: AdapterReference = text.parse().expect("reference");
        let found = match self.store.resolve(&reference).await {
            Ok(adapter) => Some(adapter.id),
            Err(StoreError::UnknownAdapter { reference, .. }) if reference == text => None,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, self.model.resolve(&text));
    }

    fn plant(&mut self) {
        let content = self.random.random_range(0..CONTENTS + 5);
        let digest = Digest::of(&bytes(content));
        self.log(format!("plant the blob of content {content}"));
        let path = blob_path(self.folder.path(), &digest);
        fs::create_dir_all(path.parent().expect("shard")).expect("shard");
        fs::write(path, bytes(content)).expect("plant");
        self.model.planted.insert(digest);
    }

    async fn gc(&mut self) {
        self.log("gc".to_owned());
        let freed = self.store.gc().await.expect("gc");
        self.came(&format!("freed {} blobs", freed.blobs));
        assert_eq!(freed.blobs, self.model.orphans() as u64);
        self.model.planted.clear();
    }

    async fn restart(&mut self) {
        self.log("restart".to_owned());
        self.store.clone().close().await;
        // The lock goes with the last handle; a reader stands in while the folder is closed.
        self.store = Store::open(self.folder.path(), store::Access::Shared)
            .await
            .expect("reader");
        self.store = open(self.folder.path()).await;
        let freed = self.store.freed_at_start();
        self.came(&format!("freed {} blobs", freed.blobs));
        assert_eq!(freed.blobs, self.model.orphans() as u64);
        self.model.planted.clear();
    }

    /// Everything that can be seen is as the model says.
    async fn check(&self) {
        let listed = self
            .store
            .list_adapters(&AdapterFilter::default())
            .await
            .expect("list");
        let seen: Vec<ModelAdapter> = listed
            .iter()
            .rev()
            .map(|adapter| ModelAdapter {
                id: adapter.id,
                name: NAMES
                    .into_iter()
                    .find(|known| name(known) == adapter.name)
                    .expect("a known name"),
                version: adapter.version,
                contents: adapter
                    .files
                    .iter()
                    .map(|file| {
                        (0..CONTENTS)
                            .find(|&c| Digest::of(&bytes(c)) == file.digest)
                            .expect("a known content")
                    })
                    .collect(),
            })
            .collect();
        assert_eq!(seen, self.model.adapters);
        let aliases: BTreeMap<AliasKey, Uuid> = self
            .store
            .list_aliases()
            .await
            .expect("aliases")
            .into_iter()
            .map(|(key, to)| (key, to.id))
            .collect();
        assert_eq!(aliases, self.model.aliases);
        for (key, moves) in &self.model.moves {
            let history = self.store.alias_history(key).await.expect("history");
            let numbers: Vec<i64> = history.iter().rev().map(|step| step.number).collect();
            let seen = history.iter().rev().map(|step| {
                let end = |end: &Option<store::PointedAdapter>| end.as_ref().map(|end| end.id);
                (end(&step.from), end(&step.to), step.undoes)
            });
            let expected = moves
                .iter()
                .map(|step| (step.from, step.to, step.undoes.map(|index| numbers[index])));
            assert_eq!(
                seen.collect::<Vec<_>>(),
                expected.collect::<Vec<_>>(),
                "history of {key}"
            );
        }
        let expected: BTreeSet<PathBuf> = self
            .model
            .referenced()
            .union(&self.model.planted)
            .map(|digest| blob_path(self.folder.path(), digest))
            .collect();
        assert_eq!(
            BTreeSet::from_iter(files_on_disk(self.folder.path())),
            expected
        );
    }
}

#[tokio::test]
async fn random_operations_and_restarts_agree_with_a_model_in_memory() {
    for seed in seeds() {
        let folder = tempfile::tempdir().expect("folder");
        let mut run = Run {
            random: ChaCha8Rng::seed_from_u64(seed),
            store: open(folder.path()).await,
            folder,
            model: Model::default(),
            trace: Trace {
                seed,
                lines: Vec::new(),
            },
        };
        for _ in 0..STEPS {
            run.step().await;
        }
    }
}
