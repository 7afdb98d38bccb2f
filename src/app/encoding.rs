//! From encoded pictures to features: decoding and encoding in chunks, copies of examples, and what is known already.

use super::feature_cache::{FeatureCache, FeatureKey};
use super::{AppError, CopiesWanted, Fault, NamedImage, ServedAdapter};
use crate::inference::{EncodeError, EncodeRow, Encoded, EncoderService, Outputs};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::backbone::Backbone;
use model::image_input::{ImageLimits, load_pixels};
use model::tensor::Tensor;
use rayon::prelude::*;
use recycle::head::copies::{CopySpec, with_its_copies};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::AdapterRecord;
use tokio::sync::Semaphore;

/// Rows that are decoded and encoded together; bounds the memory of a large request.
const CHUNK: usize = 64;

/// More copies than these are not waited for: they are encoded in the background, and a head without copies answers until then.
pub(super) const MOST_COPIES_AT_ONCE: usize = 600;

/// A picture with its features, and those of its copies.
pub(super) struct Example {
    pub feature: Vec<f32>,
    /// `None` where they are still to be encoded.
    pub copies: Option<Vec<Vec<f32>>>,
}

/// An encoder with what a picture needs to become its input.
#[derive(Clone)]
pub(super) struct PictureEncoder {
    pub backbone: Arc<Backbone>,
    pub limits: ImageLimits,
    pub encoder: EncoderService,
    features: Arc<FeatureCache>,
    /// One set of copies at a time is encoded in the background.
    background: Arc<Semaphore>,
    /// Pictures of all requests that are decoded at a time, one for each core: it bounds the memory for that.
    decoding: Arc<Semaphore>,
    decoders: usize,
}

type Results<T> = Vec<Result<T, Fault>>;

impl PictureEncoder {
    pub fn new(backbone: Arc<Backbone>, limits: ImageLimits, encoder: EncoderService) -> Self {
        let decoders = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            features: Arc::new(FeatureCache::new(backbone.config.feature_width())),
            background: Arc::new(Semaphore::new(1)),
            decoding: Arc::new(Semaphore::new(decoders)),
            decoders,
            backbone,
            limits,
            encoder,
        }
    }

    /// Encodes `images`; while one chunk is encoded the next is decoded.
    ///
    /// # Errors
    /// [`AppError::Encode`]; an unusable image is part of the result.
    pub async fn encode(
        &self,
        images: Vec<NamedImage>,
        adapter: Option<&ServedAdapter>,
    ) -> Result<Results<Encoded>, AppError> {
        let encoded = self.encode_with_copies(images, &[], adapter).await?;
        let plain = encoded.into_iter().map(|own| own.map(|(plain, _)| plain));
        Ok(plain.collect())
    }

    /// Features of labelled `images` and of their copies `specs`. What was encoded before is not encoded again.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub async fn examples(
        &self,
        images: Vec<NamedImage>,
        specs: &[CopySpec],
        adapter: Option<&ServedAdapter>,
        wanted: CopiesWanted,
    ) -> Result<Results<Example>, AppError> {
        let (images, keys) = self.keys(images, adapter).await?;
        let known = |key: &FeatureKey| self.known(key, specs);
        let mut found: Vec<Option<Example>> = keys.iter().map(known).collect();
        let is_missing =
            |own: &Option<Example>| own.as_ref().is_none_or(|own| own.copies.is_none());
        let missing = found.iter().filter(|own| is_missing(own)).count();
        let waits = wanted == CopiesWanted::Always || missing * specs.len() <= MOST_COPIES_AT_ONCE;
        let now = if waits { specs } else { &[] };
        let mut places = Vec::new();
        let mut left = Vec::new();
        let mut later = Vec::new();
        for (place, image) in images.into_iter().enumerate() {
            let own = &found[place];
            if own.is_none() || (waits && is_missing(own)) {
                places.push(place);
                if !waits {
                    later.push(image.clone());
                }
                left.push(image);
            } else if is_missing(own) {
                later.push(image);
            }
        }
        let encoded = self.encode_with_copies(left, now, adapter).await?;
        let mut faults: Vec<Option<Fault>> = vec![None; found.len()];
        for (place, result) in places.into_iter().zip(encoded) {
            match result {
                Ok((plain, copies)) => {
                    self.keep(&keys[place], &plain.feature, now, &copies);
                    found[place] = Some(Example {
                        feature: plain.feature,
                        copies: (now.len() == specs.len()).then_some(copies),
                    });
                }
                Err(fault) => faults[place] = Some(fault),
            }
        }
        if !later.is_empty() {
            self.encode_later(later, specs.to_vec(), adapter.cloned());
        }
        let results = found.into_iter().zip(faults).map(|own| match own {
            (_, Some(fault)) => Ok(Err(fault)),
            (Some(example), None) => Ok(Ok(example)),
            (None, None) => Err(AppError::Encode(EncodeError::Stopped)),
        });
        results.collect()
    }

    /// Encodes the copies of `images` unless others are being encoded; the next request for the same pictures finds them.
    fn encode_later(
        &self,
        images: Vec<NamedImage>,
        specs: Vec<CopySpec>,
        adapter: Option<ServedAdapter>,
    ) {
        let Ok(permit) = self.background.clone().try_acquire_owned() else {
            return;
        };
        let own = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            for chunk in chunks(images, &specs) {
                // The encoder is busy or stopped; a later request tries again.
                if let Err(error) = own.encode_and_keep(chunk, &specs, adapter.as_ref()).await {
                    tracing::debug!(%error, "copies were not encoded");
                    return;
                }
            }
        });
    }

    async fn encode_and_keep(
        &self,
        images: Vec<NamedImage>,
        specs: &[CopySpec],
        adapter: Option<&ServedAdapter>,
    ) -> Result<(), AppError> {
        let (images, keys) = self.keys(images, adapter).await?;
        let encoded = self.encode_with_copies(images, specs, adapter).await?;
        for (key, result) in keys.iter().zip(encoded) {
            if let Ok((plain, copies)) = result {
                self.keep(key, &plain.feature, specs, &copies);
            }
        }
        Ok(())
    }

    /// The keys of `images`, which come back beside them: digests are taken off the async workers.
    async fn keys(
        &self,
        images: Vec<NamedImage>,
        adapter: Option<&ServedAdapter>,
    ) -> Result<(Vec<NamedImage>, Vec<FeatureKey>), AppError> {
        let adapter: Option<Arc<str>> = adapter.map(|own| own.record.digest.as_str().into());
        let digests = move || {
            let key = |image: &NamedImage| FeatureKey {
                picture: Sha256::digest(&image.bytes).into(),
                adapter: adapter.clone(),
                copy: None,
            };
            let keys = images.par_iter().map(key).collect();
            (images, keys)
        };
        let keys = tokio::task::spawn_blocking(digests).await;
        Ok(keys.map_err(|error| EncodeError::Engine(format!("hashing stopped: {error}")))?)
    }

    fn known(&self, key: &FeatureKey, specs: &[CopySpec]) -> Option<Example> {
        let copies = specs
            .iter()
            .map(|&spec| self.features.find(&key.of_copy(spec)));
        Some(Example {
            feature: self.features.find(key)?,
            copies: copies.collect(),
        })
    }

    fn keep(&self, key: &FeatureKey, feature: &[f32], specs: &[CopySpec], copies: &[Vec<f32>]) {
        self.features.add(key.clone(), feature);
        for (&spec, copy) in specs.iter().zip(copies) {
            self.features.add(key.of_copy(spec), copy);
        }
    }

    /// The features of `images` and of their copies `specs`.
    async fn encode_with_copies(
        &self,
        images: Vec<NamedImage>,
        specs: &[CopySpec],
        adapter: Option<&ServedAdapter>,
    ) -> Result<Results<(Encoded, Vec<Vec<f32>>)>, AppError> {
        let parts: Vec<Results<_>> = stream::iter(chunks(images, specs))
            .map(|chunk| self.encode_chunk(chunk, specs, adapter))
            .buffered(2)
            .try_collect()
            .await?;
        Ok(parts.into_iter().flatten().collect())
    }

    async fn encode_chunk(
        &self,
        images: Vec<NamedImage>,
        specs: &[CopySpec],
        adapter: Option<&ServedAdapter>,
    ) -> Result<Results<(Encoded, Vec<Vec<f32>>)>, AppError> {
        let backbone = Arc::clone(&self.backbone);
        let limits = self.limits;
        let copied = specs.to_vec();
        let copied: Arc<[CopySpec]> = copied.into();
        // Picture by picture, so that those of another request come between.
        let decode = |image: NamedImage| {
            let (copied, backbone) = (Arc::clone(&copied), Arc::clone(&backbone));
            let decoding = Arc::clone(&self.decoding);
            async move {
                let permit = decoding.acquire_owned().await;
                let work = move || {
                    let rows = rows_of(&image, &copied, &limits, &backbone);
                    drop(permit);
                    rows
                };
                tokio::task::spawn_blocking(work).await
            }
        };
        let pixels: Vec<Result<Vec<Tensor>, Fault>> = stream::iter(images)
            .map(decode)
            .buffered(self.decoders)
            .try_collect()
            .await
            .map_err(|error| EncodeError::Engine(format!("decoding stopped: {error}")))?;
        let mut rows = Vec::new();
        let mut faults = Vec::new();
        for pixels in pixels {
            faults.push(match pixels {
                Ok(of_image) => {
                    rows.extend(of_image.into_iter().map(|pixels| EncodeRow {
                        pixels: Arc::new(pixels),
                        adapter: adapter.map(|served| Arc::clone(&served.adapter)),
                        pinned: adapter.is_some_and(|served| served.record.is_default),
                    }));
                    None
                }
                Err(fault) => Some(fault),
            });
        }
        let encoded = self.encoder.encode(rows, Outputs::default()).await?;
        check_finite(&encoded, adapter.map(|own| own.record.as_ref()))?;
        let mut encoded = encoded.into_iter();
        let results = faults.into_iter().map(|fault| match fault {
            Some(fault) => Ok(Err(fault)),
            None => {
                let plain = encoded.next().ok_or(EncodeError::Stopped)?;
                let copies = encoded.by_ref().take(specs.len());
                let copies: Vec<Vec<f32>> = copies.map(|own| own.feature).collect();
                Ok(Ok((plain, copies)))
            }
        });
        results.collect()
    }
}

/// Refuses features that are not finite: everything that is compared with them would be wrong.
///
/// # Errors
/// [`AppError::AdapterNotFinite`], or [`AppError::Encode`] where it is the bare backbone.
pub(super) fn check_finite(
    encoded: &[Encoded],
    adapter: Option<&AdapterRecord>,
) -> Result<(), AppError> {
    if encoded.iter().all(Encoded::is_finite) {
        return Ok(());
    }
    Err(match adapter {
        Some(record) => AppError::AdapterNotFinite {
            adapter: record.label(),
        },
        None => EncodeError::Engine("the backbone gives numbers that are not finite".into()).into(),
    })
}

/// The pixels of a picture and of its copies.
fn rows_of(
    image: &NamedImage,
    specs: &[CopySpec],
    limits: &ImageLimits,
    backbone: &Backbone,
) -> Result<Vec<Tensor>, Fault> {
    let pixels = load_pixels(&image.bytes, limits, &backbone.preprocess);
    let pixels = pixels.map_err(|error| Fault {
        code: error.code().to_owned(),
        message: error.to_string(),
    })?;
    let normalisation = backbone.preprocess.normalisation();
    with_its_copies(pixels, specs, normalisation).map_err(|error| Fault {
        code: "image_not_copied".into(),
        message: error.to_string(),
    })
}

/// `images` in chunks that have about [`CHUNK`] rows with their copies `specs`.
fn chunks(
    images: Vec<NamedImage>,
    specs: &[CopySpec],
) -> impl Iterator<Item = Vec<NamedImage>> + use<> {
    let at_once = (CHUNK / (1 + specs.len())).max(1);
    let mut images = images.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<NamedImage> = images.by_ref().take(at_once).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}
