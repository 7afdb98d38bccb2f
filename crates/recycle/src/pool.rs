//! A pool: the synthetic images of one adapter with all that is known of them, as named files: `manifest.json`,
//! `images.safetensors` (`images` U8, `labels` U32), `kept_tokens.safetensors`, `teacher_logits.safetensors`, `preview-0000.png`
//! and so on. Reading trusts nothing. Where the files are kept is for others to say.

use super::inversion::{InversionOutcome, InversionRecipe, Quality};
use super::labelled_images::{LARGEST_IMAGE_SIZE, LabelledImagesError, check_classes};
use model::adapter::NamedFile;
use model::digest::hex;
use model::image_input::{Levels, encode_png};
use model::tensor::Tensor;
use model::tensor_file::{Stored, TensorError, TensorFile, TensorFileError, write_stored};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use thiserror::Error;

const FORMAT: &str = "lora-recycle-pool";
const VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// Name of the file of images and labels.
pub const IMAGES: &str = "images.safetensors";
/// Name of the file that says which tokens are kept.
pub const KEPT_TOKENS: &str = "kept_tokens.safetensors";
const TEACHER_LOGITS: &str = "teacher_logits.safetensors";
/// Larger manifests are not read.
const LARGEST_MANIFEST: usize = 4 << 20;

/// Name of the file of image `index` as PNG.
pub fn preview_file(index: usize) -> String {
    format!("preview-{index:04}.png")
}

/// Whether `file` is one that [`preview_file`] names: a pool can be read without it.
pub fn is_preview(file: &str) -> bool {
    file.starts_with("preview-")
}

/// Why a pool cannot be read or written.
#[derive(Debug, Error, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum PoolError {
    #[error("the pool has no {0}")]
    Absent(&'static str),
    #[error("manifest.json of the pool is not valid: {0}")]
    Manifest(String),
    #[error("the pool has version {found}; this program reads version {VERSION}")]
    Version { found: u32 },
    #[error("{file} of the pool: {error}")]
    File {
        file: &'static str,
        error: TensorFileError,
    },
    #[error("{file} of the pool: {error}")]
    Tensor {
        file: &'static str,
        error: TensorError,
    },
    #[error("the classes of the pool: {0}")]
    Classes(#[from] LabelledImagesError),
    #[error("the pool contradicts itself: {0}")]
    Contradiction(String),
    #[error("there is no image {index} in the pool; it has {images}")]
    NoSuchImage { index: usize, images: usize },
    #[error("the pool cannot be written: {0}")]
    Write(String),
}

/// The contents of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolManifest {
    /// Always `lora-recycle-pool`.
    pub format: String,
    /// Of the layout of the files.
    pub version: u32,
    /// Of the program that made the pool.
    pub program_version: String,
    /// Of the adapter whose classes the images show.
    pub adapter_digest: String,
    /// Of the adapter's backbone.
    pub backbone_digest: String,
    /// As it was when the pool was made.
    pub recipe: Value,
    /// The numbers of the recipe that decide the images' randomness and count.
    pub seed: u64,
    /// See `seed`.
    pub images_per_class: usize,
    /// Side in pixels.
    pub image_size: usize,
    /// Number of all images.
    pub images: usize,
    /// Patches along one side.
    pub grid: usize,
    /// With the class token.
    pub kept_tokens_per_image: usize,
    /// Optimiser steps that were done.
    pub steps_done: u64,
    /// Whether that is fewer than the recipe names.
    pub stopped_early: bool,
    /// What the images are worth.
    #[serde(flatten)]
    pub quality: Quality,
}

/// Synthetic images of one adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    manifest: PoolManifest,
    /// `[images, 3, S, S]`
    images: Vec<u8>,
    /// `[images]`, numbers of the manifest's classes
    labels: Vec<u32>,
    /// `[images, classes]`
    teacher_logits: Tensor,
    /// `[images, kept]`
    kept_tokens: Vec<u32>,
}

/// Where images come from.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// Of the adapter whose classes they show.
    pub adapter_digest: &'a str,
    /// Of its backbone.
    pub backbone_digest: &'a str,
    /// Of the backbone.
    pub patch_size: usize,
    /// How they were made.
    pub recipe: &'a InversionRecipe,
}

impl Provenance<'_> {
    /// What the same adapter, backbone and recipe always give: SHA-256 over their canonical JSON, in lower-case hexadecimal.
    /// The recipe must name the files of its priors by their digests.
    ///
    /// # Errors
    /// [`PoolError::Write`] where the recipe is not JSON.
    pub fn key(&self) -> Result<String, PoolError> {
        let identity = json!({
            "format": FORMAT,
            "version": VERSION,
            "adapter_digest": self.adapter_digest,
            "backbone_digest": self.backbone_digest,
            "recipe": recipe_value(self.recipe)?,
            "published_residual": self.recipe.published_residual,
        });
        let mut text = String::new();
        canonical(&identity, &mut text);
        Ok(hex(&Sha256::digest(text.as_bytes())))
    }
}

fn recipe_value(recipe: &InversionRecipe) -> Result<Value, PoolError> {
    serde_json::to_value(recipe).map_err(|error| PoolError::Write(error.to_string()))
}

/// Appends `value` without spaces, keys in the order of their bytes.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            text.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

impl Pool {
    /// The pool of an inversion's images.
    ///
    /// # Errors
    /// [`PoolError`] where the parts do not fit together.
    pub fn new(outcome: InversionOutcome, from: Provenance<'_>) -> Result<Self, PoolError> {
        let images = outcome.labels.len();
        let pool = Self {
            manifest: PoolManifest {
                format: FORMAT.into(),
                version: VERSION,
                program_version: env!("CARGO_PKG_VERSION").into(),
                adapter_digest: from.adapter_digest.into(),
                backbone_digest: from.backbone_digest.into(),
                recipe: recipe_value(from.recipe)?,
                seed: from.recipe.seed,
                images_per_class: from.recipe.images_per_class,
                image_size: outcome.image_size,
                images,
                grid: outcome.image_size.checked_div(from.patch_size).unwrap_or(0),
                kept_tokens_per_image: outcome.kept_tokens.len().checked_div(images).unwrap_or(0),
                steps_done: outcome.steps_done,
                stopped_early: outcome.stopped_early,
                quality: outcome.quality,
            },
            images: outcome.images,
            labels: outcome.labels,
            teacher_logits: outcome.teacher_logits,
            kept_tokens: outcome.kept_tokens,
        };
        pool.check()?;
        Ok(pool)
    }

    /// What is known of the images.
    pub fn manifest(&self) -> &PoolManifest {
        &self.manifest
    }

    /// Labels of the classes, in the order that [`Self::labels`] counts.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        let classes = self.manifest.quality.classes.iter();
        classes.map(|class| class.label.as_str())
    }

    /// `[images, 3, S, S]`
    pub fn images(&self) -> &[u8] {
        &self.images
    }

    /// `[images]`
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// `[images, classes]`, of these images with all tokens.
    pub fn teacher_logits(&self) -> &Tensor {
        &self.teacher_logits
    }

    /// `[images, kept]`: positions ascending, 0 the class token, patch p = p + 1.
    pub fn kept_tokens(&self) -> &[u32] {
        &self.kept_tokens
    }

    /// Image `index` as PNG.
    ///
    /// # Errors
    /// [`PoolError::NoSuchImage`], [`PoolError::Write`]
    pub fn preview(&self, index: usize) -> Result<Vec<u8>, PoolError> {
        let side = self.manifest.image_size;
        let images = self.labels.len();
        let length = 3 * side * side;
        let planes = self
            .images
            .get(index.saturating_mul(length)..)
            .and_then(|rest| rest.get(..length));
        let planes = planes.ok_or(PoolError::NoSuchImage { index, images })?;
        preview(planes, side)
    }

    /// All files, in a fixed order. The same pool gives the same bytes.
    ///
    /// # Errors
    /// [`PoolError::Write`]
    pub fn to_files(&self) -> Result<Vec<NamedFile>, PoolError> {
        let mut manifest = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|error| PoolError::Write(error.to_string()))?;
        manifest.push(b'\n');
        let PoolManifest {
            images,
            image_size: side,
            kept_tokens_per_image: kept,
            ..
        } = self.manifest;
        let file = |tensors: &[(&str, &[usize], Stored<'_>)]| {
            write_stored(tensors, &BTreeMap::new()).map_err(PoolError::Write)
        };
        let mut files = vec![
            NamedFile::new(MANIFEST, manifest),
            NamedFile::new(
                IMAGES,
                file(&[
                    ("images", &[images, 3, side, side], Stored::U8(&self.images)),
                    ("labels", &[images], Stored::U32(&self.labels)),
                ])?,
            ),
            NamedFile::new(
                KEPT_TOKENS,
                file(&[(
                    "kept_tokens",
                    &[images, kept],
                    Stored::U32(&self.kept_tokens),
                )])?,
            ),
            NamedFile::new(
                TEACHER_LOGITS,
                file(&[(
                    "teacher_logits",
                    self.teacher_logits.shape(),
                    Stored::F32(self.teacher_logits.data()),
                )])?,
            ),
        ];
        for index in 0..images {
            files.push(NamedFile::new(preview_file(index), self.preview(index)?));
        }
        Ok(files)
    }

    /// Reads [`Self::to_files`]; previews may be missing. Memory stays in proportion to the files.
    ///
    /// # Errors
    /// [`PoolError`] names what is missing, damaged or contradicts itself.
    pub fn from_files(files: &[NamedFile]) -> Result<Self, PoolError> {
        let find = |path: &'static str| {
            let file = files.iter().find(|file| file.path == path);
            file.map(|file| file.bytes.as_slice())
                .ok_or(PoolError::Absent(path))
        };
        let manifest = read_manifest(find(MANIFEST)?)?;
        let (images, side) = (manifest.images, manifest.image_size);
        let levels = read(IMAGES, find(IMAGES)?, |file| {
            let levels = file.read_bytes("images", &[images, 3, side, side])?;
            Ok((levels.to_vec(), file.read_indices("labels", &[images])?))
        })?;
        let kept_tokens = read(KEPT_TOKENS, find(KEPT_TOKENS)?, |file| {
            file.read_indices("kept_tokens", &[images, manifest.kept_tokens_per_image])
        })?;
        let classes = manifest.quality.classes.len();
        let teacher_logits = read(TEACHER_LOGITS, find(TEACHER_LOGITS)?, |file| {
            file.read_shaped("teacher_logits", &[images, classes])
        })?;
        let pool = Self {
            manifest,
            images: levels.0,
            labels: levels.1,
            teacher_logits,
            kept_tokens,
        };
        pool.check()?;
        Ok(pool)
    }

    /// All parts say the same.
    fn check(&self) -> Result<(), PoolError> {
        let manifest = &self.manifest;
        let contradiction = |sentence: String| Err(PoolError::Contradiction(sentence));
        let labels: Vec<String> = self.classes().map(str::to_owned).collect();
        check_classes(&labels, 1)?;
        for digest in [&manifest.adapter_digest, &manifest.backbone_digest] {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if digest.len() != 64 || !digest.bytes().all(is_hex) {
                return contradiction(format!("\"{digest}\" is not a SHA-256 digest"));
            }
        }
        let side = manifest.image_size;
        if !(1..=LARGEST_IMAGE_SIZE).contains(&side)
            || self.images.len() != 3 * side * side * manifest.images
        {
            return contradiction(format!(
                "{} levels are not {} images of {side} × {side} pixels",
                self.images.len(),
                manifest.images
            ));
        }
        let mut counts = vec![0; labels.len()];
        for (index, &label) in self.labels.iter().enumerate() {
            match counts.get_mut(label as usize) {
                Some(count) => *count += 1,
                None => {
                    return contradiction(format!(
                        "image {index} has label {label}, but there are {} classes",
                        labels.len()
                    ));
                }
            }
        }
        for (class, count) in manifest.quality.classes.iter().zip(counts) {
            if class.images != count {
                return contradiction(format!(
                    "class \"{}\" should have {} images and has {count}",
                    class.label, class.images
                ));
            }
        }
        let shape = [manifest.images, labels.len()];
        if self.labels.len() != manifest.images || self.teacher_logits.shape() != shape {
            return contradiction("labels or teacher logits are not one per image".into());
        }
        self.check_kept_tokens()
    }

    fn check_kept_tokens(&self) -> Result<(), PoolError> {
        let PoolManifest {
            grid,
            kept_tokens_per_image: kept,
            images,
            image_size,
            ..
        } = self.manifest;
        let tokens = grid.saturating_mul(grid).saturating_add(1);
        let fits = kept > 0
            && grid > 0
            && grid <= image_size
            && kept.checked_mul(images) == Some(self.kept_tokens.len());
        let ascending = |row: &[u32]| {
            row.first() == Some(&0)
                && row.windows(2).all(|pair| pair[0] < pair[1])
                && row.last().is_some_and(|&last| (last as usize) < tokens)
        };
        if fits && self.kept_tokens.chunks_exact(kept).all(ascending) {
            return Ok(());
        }
        Err(PoolError::Contradiction(format!(
            "the kept tokens of an image must ascend from 0, the class token, and stay below {tokens}"
        )))
    }
}

/// Reads the file [`KEPT_TOKENS`] alone: the patches of each image that are kept, ascending, counted from 0.
///
/// # Errors
/// [`PoolError`] for a file that is damaged.
pub fn read_kept_patches(bytes: &[u8]) -> Result<Vec<Vec<u32>>, PoolError> {
    read(KEPT_TOKENS, bytes, |file| {
        let shape = file.shape("kept_tokens").unwrap_or_default();
        let (images, kept) = match shape[..] {
            [images, kept] => (images, kept),
            _ => (0, 0),
        };
        let tokens = file.read_indices("kept_tokens", &[images, kept])?;
        let rows = tokens.chunks(kept.max(1));
        // Token 0 is the class token, patch p is p + 1.
        Ok(rows
            .map(|row| {
                row.iter()
                    .filter_map(|&token| token.checked_sub(1))
                    .collect()
            })
            .collect())
    })
}

/// `planes` `[3, side, side]` as PNG: an image of a pool, or of an inversion under way.
///
/// # Errors
/// [`PoolError::Write`] where they are not `side` × `side` pixels.
pub fn preview(planes: &[u8], side: usize) -> Result<Vec<u8>, PoolError> {
    let levels = Levels {
        height: side,
        width: side,
        planes: planes.to_vec(),
    };
    encode_png(&levels).map_err(PoolError::Write)
}

fn read_manifest(bytes: &[u8]) -> Result<PoolManifest, PoolError> {
    if bytes.len() > LARGEST_MANIFEST {
        let reason = format!("it has {} bytes, more than {LARGEST_MANIFEST}", bytes.len());
        return Err(PoolError::Manifest(reason));
    }
    let invalid = |error: serde_json::Error| PoolError::Manifest(error.to_string());
    let value: Value = serde_json::from_slice(bytes).map_err(invalid)?;
    if value["format"] != FORMAT {
        return Err(PoolError::Manifest(format!("its format is not {FORMAT}")));
    }
    match value["version"].as_u64() {
        Some(1) => serde_json::from_value(value).map_err(invalid),
        found => Err(PoolError::Version {
            found: found
                .and_then(|found| u32::try_from(found).ok())
                .unwrap_or(0),
        }),
    }
}

fn read<T>(
    file: &'static str,
    bytes: &[u8],
    read: impl FnOnce(&TensorFile<'_>) -> Result<T, TensorError>,
) -> Result<T, PoolError> {
    let parsed = TensorFile::parse(bytes).map_err(|error| PoolError::File { file, error })?;
    read(&parsed).map_err(|error| PoolError::Tensor { file, error })
}
