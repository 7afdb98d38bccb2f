//! Features of a classifier's pictures: under which key the store has them, and reading and keeping them there.

use super::ClassifiersError;
use crate::app::encoding::{Example, PictureEncoder};
use crate::app::registry::ServedAdapter;
use model::image_input::PIXELS_VERSION;
use recycle::head::copies::{COLOUR_LIMITS, CopySpec, LIMITS};
use sha2::{Digest as _, Sha256};
use store::{
    ClassifierRecord, Digest, FeatureSpace, PictureRecord, Privacy, Store, StoreError, Variant,
};

/// What is known of a picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    pub feature: Option<Vec<f32>>,
    /// `None` where one of them is not known.
    pub copies: Option<Vec<Vec<f32>>>,
}

impl Known {
    pub fn is_whole(&self) -> bool {
        self.feature.is_some() && self.copies.is_some()
    }
}

/// How features of pictures are made now: everything that decides them but the picture and what of it is encoded.
#[derive(Debug, Clone)]
pub(super) struct Spaces {
    original: FeatureSpace,
}

impl Spaces {
    pub fn of(
        backbone: Digest,
        pictures: &PictureEncoder,
        adapter: Option<&ServedAdapter>,
    ) -> Self {
        let size = pictures.backbone.image_size();
        Self {
            original: FeatureSpace {
                variant: Variant::Original,
                backbone,
                adapter: adapter.map(|served| served.record.digest.clone()),
                image_size: u32::try_from(size).unwrap_or(u32::MAX),
                preprocessing: preprocessing(pictures),
            },
        }
    }

    fn of_copy(&self, spec: CopySpec) -> FeatureSpace {
        // Everything but the number that decides what a copy is like.
        let settings = format!(
            "negative={} mirrored={} strength={}% {LIMITS:?} {COLOUR_LIMITS:?}",
            spec.negative, spec.mirrored, spec.strength_percent
        );
        FeatureSpace {
            variant: Variant::Copy {
                number: spec.index,
                settings: Digest::of(settings.as_bytes()),
            },
            ..self.original.clone()
        }
    }

    /// That of the picture itself, then those of its copies.
    fn all(&self, specs: &[CopySpec]) -> Vec<FeatureSpace> {
        let copies = specs.iter().map(|&spec| self.of_copy(spec));
        std::iter::once(self.original.clone())
            .chain(copies)
            .collect()
    }

    /// What else than backbone and adapter decides the features of pictures and of their copies, a line for each.
    pub fn described(&self, specs: &[CopySpec]) -> Vec<String> {
        let line = |space: FeatureSpace| {
            let FeatureSpace {
                variant,
                image_size,
                preprocessing,
                ..
            } = space;
            format!("{variant:?} at {image_size} px, preprocessing {preprocessing}")
        };
        self.all(specs).into_iter().map(line).collect()
    }

    /// What the store has of `pictures` and their copies `specs`.
    pub async fn known(
        &self,
        store: &Store,
        classifier: &ClassifierRecord,
        pictures: &[PictureRecord],
        specs: &[CopySpec],
    ) -> Result<Vec<Known>, ClassifiersError> {
        let digests: Vec<Digest> = pictures.iter().map(|own| own.digest.clone()).collect();
        let mut known: Vec<Known> = Vec::with_capacity(digests.len());
        for (index, space) in self.all(specs).iter().enumerate() {
            let found = match classifier.privacy {
                Privacy::Pictures => store.cached_features(space, &digests).await?,
                Privacy::Features => {
                    let kept = store.kept_features(classifier.id, space, &digests);
                    kept.await?
                }
            };
            if index == 0 {
                let plain = |feature| Known {
                    feature,
                    copies: Some(Vec::with_capacity(specs.len())),
                };
                known.extend(found.into_iter().map(plain));
                continue;
            }
            for (own, copy) in known.iter_mut().zip(found) {
                own.copies = own.copies.take().zip(copy).map(|(mut copies, copy)| {
                    copies.push(copy);
                    copies
                });
            }
        }
        Ok(known)
    }

    /// The features of `example`, whose copies are `specs` where it has them, each with its key.
    pub fn keyed(&self, example: &Example, specs: &[CopySpec]) -> Vec<(FeatureSpace, Vec<f32>)> {
        let copies = example.copies.iter().flatten();
        let values = std::iter::once(&example.feature).chain(copies);
        self.all(specs).into_iter().zip(values.cloned()).collect()
    }

    /// Keeps what was computed in the cache of the store. That it cannot be kept costs time at the next start and nothing else.
    pub async fn keep(&self, store: &Store, found: &[(Digest, &Example)], specs: &[CopySpec]) {
        for (index, space) in self.all(specs).iter().enumerate() {
            let value = |example: &Example| match index.checked_sub(1) {
                None => Some(example.feature.clone()),
                Some(copy) => example.copies.as_ref()?.get(copy).cloned(),
            };
            let features: Vec<(Digest, Vec<f32>)> = found
                .iter()
                .filter_map(|(digest, example)| Some((digest.clone(), value(example)?)))
                .collect();
            match store.cache_features(space, &features).await {
                Ok(()) => {}
                // A command that reads beside a server.
                Err(StoreError::SharedAccess) => return,
                Err(error) => {
                    tracing::warn!(%error, "features could not be kept");
                    return;
                }
            }
        }
    }
}

/// Which pixels are made of a picture: the version of the code, and the backbone's own numbers.
fn preprocessing(pictures: &PictureEncoder) -> u32 {
    let described = format!("{PIXELS_VERSION} {:?}", pictures.backbone.preprocess);
    let digest: [u8; 32] = Sha256::digest(described.as_bytes()).into();
    let [first, second, third, fourth, ..] = digest;
    u32::from_be_bytes([first, second, third, fourth])
}
