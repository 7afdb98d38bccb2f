//! What the files and the summary of a stored pool hold, for whoever shows it.

use crate::store::{PoolRecord, Store, StoreError};
use image::{ImageFormat, RgbImage};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::io::Cursor;
use thiserror::Error;
use utoipa::ToSchema;

/// `images`, u8 `[images, 3, height, width]`.
pub const IMAGES_FILE: &str = "images.safetensors";
/// `kept_tokens`, i32 `[images, kept]`: indices of patches, row by row from the top left.
pub const KEPT_TOKENS_FILE: &str = "kept_tokens.safetensors";

/// How the synthetic images of one class came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolClass {
    pub label: String,
    pub images: usize,
    /// Share of the images that the adapter with its head takes for this class, 0 to 1.
    pub teacher_accuracy: f64,
    /// Mean probability that it gives this class, 0 to 1.
    pub teacher_confidence: f64,
}

/// What is in a pool and how well it came out, as its `summary` in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolSummary {
    /// Side in pixels.
    pub image_size: usize,
    pub images: usize,
    pub classes: Vec<PoolClass>,
    /// On the images as they are stored, 0 to 1.
    pub teacher_accuracy: f64,
    pub teacher_cross_entropy: f64,
    /// Of the bare backbone by leave-one-out nearest prototype: near 0 the images teach nothing.
    pub bare_cross_entropy: Option<f64>,
    /// Patches of each image that are kept; null where all are.
    pub kept_tokens_per_image: Option<usize>,
    /// Patches along a side.
    pub grid: usize,
}

#[derive(Debug, Error)]
pub enum PoolFileError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the pool has no picture {0}")]
    NoImage(usize),
    #[error("the file {file} of the pool cannot be read: {detail}")]
    Unreadable { file: &'static str, detail: String },
}

/// Picture `index` of `pool` as PNG.
///
/// # Errors
/// [`PoolFileError`]
pub async fn pool_image(
    store: &Store,
    pool: &PoolRecord,
    index: usize,
) -> Result<Vec<u8>, PoolFileError> {
    let bytes = store.read_pool_file(pool, IMAGES_FILE).await?;
    tokio::task::spawn_blocking(move || png_of(&bytes, index))
        .await
        .map_err(StoreError::from)?
}

fn unreadable(file: &'static str) -> impl Fn(&dyn std::fmt::Display) -> PoolFileError {
    move |detail| PoolFileError::Unreadable {
        file,
        detail: detail.to_string(),
    }
}

fn png_of(bytes: &[u8], index: usize) -> Result<Vec<u8>, PoolFileError> {
    let broken = unreadable(IMAGES_FILE);
    let file = SafeTensors::deserialize(bytes).map_err(|error| broken(&error))?;
    let tensor = file.tensor("images").map_err(|error| broken(&error))?;
    let (Dtype::U8, &[images, 3, height, width]) = (tensor.dtype(), tensor.shape()) else {
        return Err(broken(&"images is not u8 [images, 3, height, width]"));
    };
    if index >= images {
        return Err(PoolFileError::NoImage(index));
    }
    let plane = height * width;
    let planes = &tensor.data()[index * 3 * plane..(index + 1) * 3 * plane];
    let pixels: Vec<u8> = (0..plane)
        .flat_map(|pixel| [0, 1, 2].map(|channel| planes[channel * plane + pixel]))
        .collect();
    let side = |side: usize| u32::try_from(side).map_err(|error| broken(&error));
    let picture = RgbImage::from_raw(side(width)?, side(height)?, pixels)
        .ok_or_else(|| broken(&"images has no pixels"))?;
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| broken(&error))?;
    Ok(png.into_inner())
}

/// The patches of each picture that are kept; `None` where all are.
///
/// # Errors
/// [`PoolFileError`]
pub async fn pool_kept_tokens(
    store: &Store,
    pool: &PoolRecord,
) -> Result<Option<Vec<Vec<i32>>>, PoolFileError> {
    let bytes = match store.read_pool_file(pool, KEPT_TOKENS_FILE).await {
        Err(StoreError::UnknownPoolFile { .. }) => return Ok(None),
        bytes => bytes?,
    };
    kept_tokens(&bytes).map(Some)
}

fn kept_tokens(bytes: &[u8]) -> Result<Vec<Vec<i32>>, PoolFileError> {
    let broken = unreadable(KEPT_TOKENS_FILE);
    let file = SafeTensors::deserialize(bytes).map_err(|error| broken(&error))?;
    let tensor = file.tensor("kept_tokens").map_err(|error| broken(&error))?;
    let (Dtype::I32, &[images, kept]) = (tensor.dtype(), tensor.shape()) else {
        return Err(broken(&"kept_tokens is not i32 [images, kept]"));
    };
    let (values, _) = tensor.data().as_chunks::<4>();
    let values: Vec<i32> = values
        .iter()
        .map(|value| i32::from_le_bytes(*value))
        .collect();
    Ok((0..images)
        .map(|image| values[image * kept..(image + 1) * kept].to_vec())
        .collect())
}
