//! Classifiers as the model test has them in memory.

use crate::classifier_fixtures::{create, original, thumbnail};
use std::collections::{BTreeMap, BTreeSet};
use store::{Digest, Privacy, Store};
use uuid::Uuid;

#[derive(Clone, PartialEq, Debug)]
pub struct Class {
    pub id: Uuid,
    pub name: &'static str,
    /// Contents by id, that is in the order in which they were added.
    pub pictures: BTreeMap<Uuid, u8>,
}

impl Class {
    pub fn has(&self, content: u8) -> bool {
        self.pictures.values().any(|&one| one == content)
    }
}

/// A classifier at one of its revisions.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    pub name: String,
    pub classes: Vec<Class>,
}

impl State {
    pub fn all(&self) -> Vec<Uuid> {
        let pictures = self.classes.iter().flat_map(|class| class.pictures.keys());
        pictures.copied().collect()
    }

    /// Takes pictures out of every class but `but`, by id.
    pub fn take(&mut self, ids: &[Uuid], but: Option<usize>) -> BTreeMap<Uuid, u8> {
        let mut taken = BTreeMap::new();
        for (index, class) in self.classes.iter_mut().enumerate() {
            if Some(index) != but {
                for id in ids {
                    taken.extend(class.pictures.remove_entry(id));
                }
            }
        }
        taken
    }

    /// Puts pictures into a class; of those that it has, and of the same one twice, the later are lost.
    pub fn put(&mut self, pictures: BTreeMap<Uuid, u8>, to: usize) {
        for (id, content) in pictures {
            if !self.classes[to].has(content) {
                self.classes[to].pictures.insert(id, content);
            }
        }
    }
}

/// What a classifier should be.
pub struct Model {
    pub id: Uuid,
    pub privacy: Privacy,
    pub revision: u64,
    pub present: State,
    /// States that undoing goes back to, the last one first to come, and the group of the changes after each.
    pub past: Vec<(State, Option<Uuid>)>,
    /// States that redoing goes to, the last one first to come, and the group of the changes that lead there.
    pub future: Vec<(State, Option<Uuid>)>,
    /// Contents of the rows of its batches.
    pub batches: BTreeMap<Uuid, Vec<u8>>,
}

impl Model {
    pub fn blobs(&self) -> BTreeSet<Digest> {
        let kept = self.past.iter().chain(&self.future);
        let states = kept.map(|(state, _)| state).chain([&self.present]);
        let classes = states.flat_map(|state| &state.classes);
        let kept: BTreeSet<u8> = classes
            .flat_map(|class| class.pictures.values().copied())
            .collect();
        let in_batches: BTreeSet<u8> = self.batches.values().flatten().copied().collect();
        let mut blobs = BTreeSet::new();
        for &content in kept.union(&in_batches) {
            blobs.insert(Digest::of(&thumbnail(content)));
            if self.privacy == Privacy::Pictures {
                blobs.insert(Digest::of(&original(content)));
            }
        }
        blobs
    }
}

pub async fn new_model(store: &Store, privacy: Privacy) -> Model {
    let record = create(store, "new", privacy).await;
    Model {
        id: record.id,
        privacy,
        revision: 1,
        present: State {
            name: "new".to_owned(),
            classes: Vec::new(),
        },
        past: Vec::new(),
        future: Vec::new(),
        batches: BTreeMap::new(),
    }
}
