//! Random changes of classifiers against a model in memory, with undoing, restarts and clean-ups. A failure prints the seed and one line
//! per step; `LORA_RECYCLE_TEST_SEED=n` runs that seed alone.

use crate::classifier_fixtures::{BY, new_classes, new_picture, original, thumbnail};
use crate::classifiers_state::{Class, Model, State, new_model};
use crate::model::blob_path;
use crate::seeds::{Trace, seeds};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use store::{
    Author, BatchLabel, Changed, ClassifierError, ClassifierPatch, Digest, MOST_UNDO, NewBatch,
    NewBatchRow, PictureFilter, Privacy, Store, Verdict,
};
use test_support::store::{files_on_disk, open};
use uuid::Uuid;

const STEPS: usize = 300;
/// Few, so that names are taken and come back.
const NAMES: [&str; 5] = ["Oak", "Ash", "Elm", "Fir", "Yew"];
/// Few, so that classes and classifiers share pictures.
const CONTENTS: u8 = 12;

struct Run {
    random: ChaCha8Rng,
    folder: tempfile::TempDir,
    store: Store,
    models: Vec<Model>,
    trace: Trace,
}

impl Run {
    fn below(&mut self, count: usize) -> usize {
        self.random.random_range(0..count.max(1))
    }

    fn log(&mut self, line: String) {
        self.trace.lines.push(line);
    }

    fn any_name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())]
    }

    /// None, or one of two.
    fn any_group(&mut self) -> Option<Uuid> {
        let number = self.random.random_range(0..3);
        (number > 0).then(|| Uuid::from_u128(number))
    }

    /// The index of a class of this classifier.
    fn any_class(&mut self, at: usize) -> Option<usize> {
        let count = self.models[at].present.classes.len();
        (count > 0).then(|| self.below(count))
    }

    fn some_pictures(&mut self, at: usize) -> Vec<Uuid> {
        let share = self.random.random_range(0.0..0.6);
        let mut all = self.models[at].present.all();
        all.retain(|_| self.random.random_bool(share));
        all
    }

    /// Compares what a change came to, and goes on from `next`.
    fn settle(&mut self, at: usize, result: Result<Changed, ClassifierError>, next: State) {
        self.settle_in(at, result, next, None);
    }

    /// As [`Self::settle`], for a change that belongs to a group.
    fn settle_in(
        &mut self,
        at: usize,
        result: Result<Changed, ClassifierError>,
        next: State,
        group: Option<Uuid>,
    ) {
        let changed = result.expect("a change that is allowed");
        let model = &mut self.models[at];
        if next == model.present {
            assert_eq!((changed.revision, &changed.change), (model.revision, &None));
            return;
        }
        model.revision += 1;
        assert_eq!(changed.revision, model.revision);
        let change = changed.change.expect("a change");
        assert_eq!(change.revision, model.revision);
        let before = std::mem::replace(&mut model.present, next);
        let goes_on = |last: &(State, Option<Uuid>)| group.is_some() && last.1 == group;
        if !model.past.last().is_some_and(goes_on) {
            model.past.push((before, group));
        }
        let old = model.past.len().saturating_sub(MOST_UNDO as usize);
        model.past.drain(..old);
        model.future.clear();
        self.log(format!("  -> {}", change.change));
    }

    async fn step(&mut self) {
        let at = self.below(self.models.len());
        match self.random.random_range(0..100) {
            0..10 => self.add_class(at).await,
            10..16 => self.rename_class(at).await,
            16..20 => self.reorder(at).await,
            20..24 => self.delete_class(at).await,
            24..28 => self.merge(at).await,
            28..46 => self.add_pictures(at).await,
            46..54 => self.move_pictures(at).await,
            54..58 => self.delete_pictures(at).await,
            58..61 => self.rename(at).await,
            61..74 => self.replay(at, true).await,
            74..83 => self.replay(at, false).await,
            83..85 => self.add_batch(at).await,
            85..87 => self.delete_batch(at).await,
            87..88 => self.forget(at).await,
            88..89 => self.replace(at).await,
            89..91 => self.conflict(at).await,
            91..94 => {
                self.log("gc".to_owned());
                assert_eq!(self.store.gc().await.expect("gc").blobs, 0);
            }
            _ => self.restart().await,
        }
        self.check().await;
    }

    async fn add_class(&mut self, at: usize) {
        let name = self.any_name();
        let group = self.any_group();
        self.log(format!("{at}: add class {name} in the group {group:?}"));
        let model = &self.models[at];
        let new = new_classes(&[name]);
        let by = Author { group, ..BY.into() };
        let result = self.store.add_classes(model.id, None, &new, by).await;
        let mut next = model.present.clone();
        if next.classes.iter().any(|class| class.name == name) {
            assert!(matches!(result, Err(ClassifierError::ClassNameTaken(_))));
            return;
        }
        let added = result.expect("add");
        next.classes.push(Class {
            id: added.classes[0].id,
            name,
            pictures: BTreeMap::new(),
        });
        self.settle_in(at, Ok(added.changed), next, group);
    }

    async fn rename_class(&mut self, at: usize) {
        let Some(class) = self.any_class(at) else {
            return;
        };
        let name = self.any_name();
        self.log(format!("{at}: rename class {class} to {name}"));
        let model = &self.models[at];
        let mut next = model.present.clone();
        let id = next.classes[class].id;
        let result = self.store.rename_class(model.id, None, id, name, BY).await;
        let mut others = next.classes.iter().filter(|other| other.id != id);
        if others.any(|other| other.name == name) {
            assert!(matches!(result, Err(ClassifierError::ClassNameTaken(_))));
            return;
        }
        next.classes[class].name = name;
        self.settle(at, result, next);
    }

    async fn reorder(&mut self, at: usize) {
        let Some(by) = self.any_class(at) else { return };
        self.log(format!("{at}: rotate the classes by {by}"));
        let model = &self.models[at];
        let mut next = model.present.clone();
        next.classes.rotate_left(by);
        let order: Vec<Uuid> = next.classes.iter().map(|class| class.id).collect();
        let result = self.store.reorder_classes(model.id, None, &order, BY).await;
        self.settle(at, result, next);
    }

    async fn delete_class(&mut self, at: usize) {
        let Some(class) = self.any_class(at) else {
            return;
        };
        self.log(format!("{at}: delete class {class}"));
        let model = &self.models[at];
        let mut next = model.present.clone();
        let gone = next.classes.remove(class);
        let result = self.store.delete_class(model.id, None, gone.id, BY).await;
        self.settle(at, result, next);
    }

    async fn merge(&mut self, at: usize) {
        let (Some(class), Some(into)) = (self.any_class(at), self.any_class(at)) else {
            return;
        };
        if class == into {
            return;
        }
        self.log(format!("{at}: merge class {class} into {into}"));
        let model = &self.models[at];
        let mut next = model.present.clone();
        let (from, to) = (next.classes[class].id, next.classes[into].id);
        let result = self.store.merge_class(model.id, None, from, to, BY).await;
        let pictures = std::mem::take(&mut next.classes[class].pictures);
        next.put(pictures, into);
        next.classes.remove(class);
        self.settle(at, result, next);
    }

    async fn add_pictures(&mut self, at: usize) {
        let mut asked = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let Some(class) = self.any_class(at) else {
                return;
            };
            asked.push((class, self.random.random_range(0..CONTENTS)));
        }
        let group = self.any_group();
        self.log(format!(
            "{at}: add contents to classes {asked:?} in the group {group:?}"
        ));
        let model = &self.models[at];
        let mut next = model.present.clone();
        let picture =
            |&(class, content): &(usize, u8)| new_picture(next.classes[class].id, content);
        let new = asked.iter().map(picture).collect();
        let by = Author { group, ..BY.into() };
        let result = self.store.add_pictures(model.id, None, new, by).await;
        let added = result.expect("add");
        for ((class, content), picture) in asked.into_iter().zip(added.pictures) {
            assert_eq!(picture.is_new, !next.classes[class].has(content));
            let there = next.classes[class].pictures.insert(picture.id, content);
            assert_eq!(there.is_none(), picture.is_new);
        }
        self.settle_in(at, Ok(added.changed), next, group);
    }

    async fn move_pictures(&mut self, at: usize) {
        let Some(to) = self.any_class(at) else { return };
        let ids = self.some_pictures(at);
        self.log(format!("{at}: move {ids:?} to class {to}"));
        let model = &self.models[at];
        let mut next = model.present.clone();
        let class = next.classes[to].id;
        let result = self
            .store
            .move_pictures(model.id, None, &ids, class, BY)
            .await;
        let taken = next.take(&ids, Some(to));
        next.put(taken, to);
        self.settle(at, result, next);
    }

    async fn delete_pictures(&mut self, at: usize) {
        let ids = self.some_pictures(at);
        self.log(format!("{at}: delete {ids:?}"));
        let model = &self.models[at];
        let mut next = model.present.clone();
        next.take(&ids, None);
        let result = self.store.delete_pictures(model.id, None, &ids, BY).await;
        self.settle(at, result, next);
    }

    async fn rename(&mut self, at: usize) {
        let name = self.any_name().to_owned();
        self.log(format!("{at}: rename to {name}"));
        let model = &self.models[at];
        let mut next = model.present.clone();
        next.name.clone_from(&name);
        let patch = ClassifierPatch {
            name: Some(name),
            ..ClassifierPatch::default()
        };
        let result = self
            .store
            .update_classifier(model.id, None, patch, BY)
            .await;
        self.settle(at, result, next);
    }

    async fn replay(&mut self, at: usize, back: bool) {
        self.log(format!("{at}: {}", if back { "undo" } else { "redo" }));
        let model = &mut self.models[at];
        let result = if back {
            self.store.undo_classifier(model.id, None, BY).await
        } else {
            self.store.redo_classifier(model.id, None, BY).await
        };
        let (from, to) = if back {
            (&mut model.past, &mut model.future)
        } else {
            (&mut model.future, &mut model.past)
        };
        let Some((state, group)) = from.pop() else {
            assert!(matches!(
                result,
                Err(ClassifierError::NothingToUndo | ClassifierError::NothingToRedo)
            ));
            return;
        };
        to.push((std::mem::replace(&mut model.present, state), group));
        model.revision += 1;
        assert_eq!(result.expect("replay").revision, model.revision);
    }

    async fn add_batch(&mut self, at: usize) {
        let content = self.random.random_range(0..CONTENTS);
        self.log(format!("{at}: batch with content {content}"));
        let model = &mut self.models[at];
        let new = NewBatch {
            id: None,
            classifier: model.id,
            job: Uuid::now_v7(),
            name: "batch".to_owned(),
            pictures: 1,
        };
        let batch = self.store.create_batch(&new, BY).await.expect("batch").id;
        let row = NewBatchRow {
            position: 0,
            name: "picture".to_owned(),
            original: (model.privacy == Privacy::Pictures).then(|| original(content)),
            thumbnail: Some(thumbnail(content)),
            verdict: Verdict::Sorted {
                best: BatchLabel {
                    class: Uuid::nil(),
                    name: "Oak".to_owned(),
                    probability: 1.0,
                },
                others: Vec::new(),
                confidence: 1.0,
                novelty: None,
                rejected: false,
            },
        };
        let added = self.store.add_batch_rows(batch, vec![row]).await;
        added.expect("row");
        model.batches.insert(batch, vec![content]);
    }

    async fn delete_batch(&mut self, at: usize) {
        let Some((batch, _)) = self.models[at].batches.pop_first() else {
            return;
        };
        self.log(format!("{at}: delete batch {batch}"));
        self.store.delete_batch(batch).await.expect("delete");
    }

    async fn forget(&mut self, at: usize) {
        self.log(format!("{at}: forget what was deleted"));
        let model = &mut self.models[at];
        let forgotten = self.store.forget_deleted(model.id, None).await;
        forgotten.expect("forget");
        model.past.clear();
        model.future.clear();
    }

    /// Deletes a classifier and makes another one in its place.
    async fn replace(&mut self, at: usize) {
        self.log(format!("{at}: delete the classifier"));
        let old = &self.models[at];
        let deleted = self.store.delete_classifier(old.id, None).await;
        deleted.expect("delete");
        self.models[at] = new_model(&self.store, old.privacy).await;
    }

    async fn conflict(&mut self, at: usize) {
        let model = &self.models[at];
        let (id, revision) = (model.id, model.revision);
        let seen = revision.saturating_sub(self.random.random_range(1..4));
        self.log(format!("{at}: delete it as it was at {seen}"));
        match self.store.delete_classifier(id, Some(seen)).await {
            Err(ClassifierError::RevisionConflict {
                expected,
                present,
                changes,
            }) => {
                assert_eq!((expected, present), (seen, revision));
                let told: Vec<u64> = changes.iter().map(|done| done.revision).collect();
                let since = (seen + 1).max(2)..=revision;
                assert_eq!(told, since.collect::<Vec<_>>());
            }
            other => panic!("{other:?}"),
        }
    }

    async fn restart(&mut self) {
        self.log("restart".to_owned());
        self.store.clone().close().await;
        // The lock goes with the last handle; a reader stands in while the folder is closed.
        self.store = Store::open(self.folder.path(), store::Access::Shared)
            .await
            .expect("reader");
        self.store = open(self.folder.path()).await;
        assert_eq!(self.store.freed_at_start().blobs, 0);
    }

    /// Everything that can be seen is as the model says.
    async fn check(&self) {
        let mut blobs = BTreeSet::new();
        for model in &self.models {
            let record = self.store.classifier(model.id).await.expect("classifier");
            assert_eq!(record.revision, model.revision);
            assert_eq!(record.pictures as usize, model.present.all().len());
            let mut seen = State {
                name: record.name,
                classes: Vec::new(),
            };
            for class in self.store.classes(model.id).await.expect("classes") {
                let filter = PictureFilter {
                    class: Some(class.id),
                    ..PictureFilter::default()
                };
                let listed = self.store.list_pictures(model.id, &filter).await;
                let pictures = listed.expect("pictures").into_iter().map(|picture| {
                    let content = (0..CONTENTS)
                        .find(|&one| Digest::of(&original(one)) == picture.digest)
                        .expect("a known content");
                    (picture.id, content)
                });
                seen.classes.push(Class {
                    id: class.id,
                    name: NAMES
                        .into_iter()
                        .find(|name| *name == class.name)
                        .expect("a known name"),
                    pictures: pictures.collect(),
                });
                assert_eq!(
                    class.pictures as usize,
                    seen.classes.last().expect("pushed").pictures.len()
                );
            }
            assert_eq!(seen, model.present);
            blobs.extend(model.blobs());
        }
        let expected: BTreeSet<PathBuf> = blobs
            .iter()
            .map(|digest| blob_path(self.folder.path(), digest))
            .collect();
        assert_eq!(
            BTreeSet::from_iter(files_on_disk(self.folder.path())),
            expected
        );
    }
}

#[tokio::test]
async fn random_changes_undoing_and_restarts_agree_with_a_model_in_memory() {
    for seed in seeds() {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(folder.path()).await;
        let models = vec![
            new_model(&store, Privacy::Pictures).await,
            new_model(&store, Privacy::Features).await,
        ];
        let mut run = Run {
            random: ChaCha8Rng::seed_from_u64(seed),
            store,
            folder,
            models,
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
