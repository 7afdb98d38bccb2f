//! From the pictures of a classifier to what answers: features from the store, what is not there encoded and kept, and the fit in memory.

use super::features::{Known, Spaces};
use super::kept_fits::{ClassifierFits, FitKey};
use super::{ClassifiersError, at_one_revision};
use crate::app::classify::{Examples, check_at_least_two};
use crate::app::encoding::{Example, MOST_COPIES_AT_ONCE, PictureEncoder};
use crate::app::registry::ServedAdapter;
use crate::app::{App, CopiesWanted, Fault, FittedClassifier, NamedImage};
use crate::inference::EncodeError;
use recycle::head::HeadChoice;
use recycle::head::copies::CopySpec;
use std::collections::HashMap;
use std::sync::Arc;
use store::{ClassRecord, ClassifierRecord, PictureFilter, PictureRecord, Privacy, Store};
use uuid::Uuid;

/// Pictures that are read and encoded together; bounds the memory for their files.
const CHUNK: usize = 32;

/// What fitting needs besides the classifier.
#[derive(Clone)]
pub(super) struct Means {
    store: Store,
    pictures: PictureEncoder,
    pub adapter: Option<ServedAdapter>,
    spaces: Spaces,
    specs: Vec<CopySpec>,
}

/// A classifier at one revision.
pub(super) struct Snapshot {
    pub record: ClassifierRecord,
    /// Those with pictures, in the order of their numbers.
    pub classes: Vec<ClassRecord>,
    pub examples: Examples,
    pub pictures: Vec<PictureRecord>,
}

impl App {
    /// The classifier `record` with what answers for it at its present revision.
    pub(super) async fn fitted(
        &self,
        record: &ClassifierRecord,
        adapter: Option<&ServedAdapter>,
        head: HeadChoice,
        copies: CopiesWanted,
    ) -> Result<Arc<FittedClassifier>, ClassifiersError> {
        let key = FitKey {
            classifier: record.id,
            adapter: adapter.map(|served| served.record.digest.clone()),
            head: head.to_string(),
        };
        if let Some(fitted) = self.fits.find(&key, record.revision) {
            return Ok(fitted);
        }
        let turn = self.fits.turn(record.id).acquire().await;
        // Nobody closes it.
        let _turn = turn.map_err(|_| EncodeError::Stopped)?;
        let store = self.classifiers_store()?;
        let snapshot = snapshot(store, record.id).await?;
        let revision = snapshot.record.revision;
        if let Some(fitted) = self.fits.find(&key, revision) {
            return Ok(fitted);
        }
        let means = self.means(store, record, adapter, head.copy_specs());
        let (encoded, later) = means.examples(&snapshot, copies).await?;
        let values = encoded.iter().flatten();
        let values =
            values.map(|own| own.feature.len() * (1 + own.copies.iter().flatten().count()));
        let values = values.sum();
        let examples = snapshot.examples;
        let is_provisional = !later.is_empty();
        let fit = move || examples.fit(encoded, head, is_provisional);
        let fitted = tokio::task::spawn_blocking(fit).await;
        let fitted = fitted
            .map_err(|error| EncodeError::Engine(format!("fitting a classifier: {error}")))??;
        let fitted = Arc::new(fitted);
        self.fits.keep(key.clone(), revision, values, &fitted);
        if !later.is_empty() {
            means.complete_later(later, key, Arc::clone(&self.fits));
        }
        Ok(fitted)
    }

    /// What features of the classifier's pictures and of their copies `specs` need.
    pub(super) fn means(
        &self,
        store: &Store,
        record: &ClassifierRecord,
        adapter: Option<&ServedAdapter>,
        specs: Vec<CopySpec>,
    ) -> Means {
        Means {
            store: store.clone(),
            pictures: self.pictures.clone(),
            adapter: adapter.cloned(),
            spaces: Spaces::of(record.backbone_digest.clone(), &self.pictures, adapter),
            specs,
        }
    }

    /// The classifier `record` with the features of its pictures and of all their copies, in the order of the snapshot.
    pub(super) async fn all_examples(
        &self,
        record: &ClassifierRecord,
        adapter: Option<&ServedAdapter>,
    ) -> Result<(Snapshot, Vec<Result<Example, Fault>>), ClassifiersError> {
        let store = self.classifiers_store()?;
        let snapshot = snapshot(store, record.id).await?;
        let means = self.means(store, record, adapter, HeadChoice::default().copy_specs());
        let (examples, _) = means.examples(&snapshot, CopiesWanted::Always).await?;
        Ok((snapshot, examples))
    }
}

/// What the classifier `id` is now. Classes without pictures take no part.
pub(super) async fn snapshot(store: &Store, id: Uuid) -> Result<Snapshot, ClassifiersError> {
    let all = PictureFilter::default();
    let read = || async {
        Ok((
            store.classes(id).await?,
            store.list_pictures(id, &all).await?,
        ))
    };
    let (record, (classes, mut pictures)) = at_one_revision(store, id, read).await?;
    let filled = classes.into_iter().filter(|class| class.pictures > 0);
    let filled: Vec<ClassRecord> = filled.collect();
    check_at_least_two(filled.len())?;
    let places = filled.iter().enumerate();
    let places: HashMap<Uuid, usize> = places.map(|(place, class)| (class.id, place)).collect();
    let class_of = |picture: &PictureRecord| {
        let place = places.get(&picture.class);
        place.copied().unwrap_or(usize::MAX)
    };
    // Class by class, as a request carries them; within a class as they were added.
    pictures.sort_by_cached_key(|picture| (class_of(picture), picture.id));
    let named = pictures.iter().map(|own| (class_of(own), own.name.clone()));
    let examples = Examples {
        places: named.collect(),
        ids: pictures.iter().map(|own| own.id).collect(),
        labels: filled.iter().map(|class| class.name.clone()).collect(),
    };
    Ok(Snapshot {
        record,
        classes: filled,
        examples,
        pictures,
    })
}

impl Means {
    /// How many pictures are still to be encoded, they or their copies.
    pub async fn missing(&self, snapshot: &Snapshot) -> Result<usize, ClassifiersError> {
        let Snapshot {
            record, pictures, ..
        } = snapshot;
        let known = self
            .spaces
            .known(&self.store, record, pictures, &self.specs);
        Ok(known.await?.iter().filter(|own| !own.is_whole()).count())
    }

    /// The features of all pictures, and those pictures whose copies are still to be encoded.
    pub async fn examples(
        &self,
        snapshot: &Snapshot,
        wanted: CopiesWanted,
    ) -> Result<(Vec<Result<Example, Fault>>, Vec<PictureRecord>), ClassifiersError> {
        let Snapshot {
            record, pictures, ..
        } = snapshot;
        let known = self
            .spaces
            .known(&self.store, record, pictures, &self.specs)
            .await?;
        if record.privacy == Privacy::Features {
            return Ok((known.into_iter().map(kept).collect(), Vec::new()));
        }
        let missing = known.iter().filter(|own| !own.is_whole()).count();
        let waits =
            wanted == CopiesWanted::Always || missing * self.specs.len() <= MOST_COPIES_AT_ONCE;
        let now = if waits { self.specs.as_slice() } else { &[] };
        let mut found: Vec<Option<Result<Example, Fault>>> = Vec::new();
        let (mut left, mut later) = (Vec::new(), Vec::new());
        for (place, (own, picture)) in known.into_iter().zip(pictures).enumerate() {
            let is_whole = own.is_whole();
            if !is_whole && !waits {
                later.push(picture.clone());
            }
            match own.feature {
                Some(feature) if is_whole || !waits => found.push(Some(Ok(Example {
                    feature,
                    copies: own.copies,
                }))),
                _ => {
                    left.push(place);
                    found.push(None);
                }
            }
        }
        for chunk in left.chunks(CHUNK) {
            let of_chunk: Vec<&PictureRecord> =
                chunk.iter().map(|&place| &pictures[place]).collect();
            let encoded = self.encode(&of_chunk, now).await?;
            for (&place, mut result) in chunk.iter().zip(encoded) {
                if let Ok(example) = &mut result
                    && !waits
                {
                    example.copies = None;
                }
                found[place] = Some(result);
            }
        }
        let all: Option<Vec<_>> = found.into_iter().collect();
        Ok((all.ok_or(EncodeError::Stopped)?, later))
    }

    /// The features of these pictures and of their copies `specs`, computed from their files and kept.
    async fn encode(
        &self,
        pictures: &[&PictureRecord],
        specs: &[CopySpec],
    ) -> Result<Vec<Result<Example, Fault>>, ClassifiersError> {
        let mut images = Vec::with_capacity(pictures.len());
        for picture in pictures {
            images.push(NamedImage {
                name: picture.name.clone(),
                bytes: self.store.read_picture(picture).await?,
            });
        }
        let encoded = self
            .pictures
            .examples(images, specs, self.adapter.as_ref(), CopiesWanted::Always)
            .await?;
        let found: Vec<_> = pictures
            .iter()
            .zip(&encoded)
            .filter_map(|(picture, result)| Some((picture.digest.clone(), result.as_ref().ok()?)))
            .collect();
        self.spaces.keep(&self.store, &found, specs).await;
        Ok(encoded)
    }

    /// Encodes the copies of these pictures unless those of others are being encoded; the next question is answered with them.
    fn complete_later(self, pictures: Vec<PictureRecord>, key: FitKey, fits: Arc<ClassifierFits>) {
        let Ok(permit) = Arc::clone(&fits.background).try_acquire_owned() else {
            // Whoever asks next begins again.
            fits.drop_fit(&key);
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            for chunk in pictures.chunks(CHUNK / 4) {
                let chunk: Vec<&PictureRecord> = chunk.iter().collect();
                // A picture may be gone by now, the encoder busy or stopped; a later question begins again.
                if let Err(error) = self.encode(&chunk, &self.specs).await {
                    tracing::debug!(%error, "copies of a classifier's pictures were not encoded");
                    break;
                }
            }
            fits.drop_fit(&key);
        });
    }
}

/// An example of which only the features are kept.
fn kept(known: Known) -> Result<Example, Fault> {
    match known.feature {
        Some(feature) => Ok(Example {
            feature,
            copies: known.copies,
        }),
        None => Err(Fault {
            code: "features_not_kept".into(),
            message: "its features were computed for another image size or by another version of the program, and the picture itself is not kept; add it again".into(),
        }),
    }
}
