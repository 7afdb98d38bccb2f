//! How an image becomes the pixels that a backbone expects, read from Hugging Face's `preprocessor_config.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Resampling filter; the numbers are Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resample {
    /// The value of the nearest pixel.
    Nearest = 0,
    /// A windowed sinc over three pixels to each side.
    Lanczos = 1,
    /// A triangle over one pixel to each side.
    Bilinear = 2,
    /// Cubic pieces over two pixels to each side, with `a` = −0.5.
    Bicubic = 3,
    /// The mean of the pixels that are covered.
    Box = 4,
    /// A windowed sinc over one pixel to each side.
    Hamming = 5,
}

/// Size of the image after the resize step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeTarget {
    /// Height and width, the aspect ratio is not kept.
    Exact {
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
    },
    /// The shorter side becomes this long, the aspect ratio is kept.
    ShortestEdge(usize),
}

/// Steps from an RGB image to normalised pixels, in this order: resize, centre crop, rescale, normalise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// `None` where the picture keeps its size.
    pub resize: Option<ResizeTarget>,
    /// Filter of the resize step.
    pub resample: Resample,
    /// `(height, width)` of the centre crop; zero-padded where the image is smaller.
    pub centre_crop: Option<(usize, usize)>,
    /// Factor on the 0..=255 levels.
    pub rescale: f32,
    /// Red, green, blue; of rescaled levels.
    pub mean: [f32; 3],
    /// Red, green, blue; of rescaled levels.
    pub standard_deviation: [f32; 3],
}

impl Preprocess {
    /// Side in pixels of the square image that comes out, or `None` where the configuration does not fix a square.
    pub fn image_size(&self) -> Option<usize> {
        match (self.centre_crop, self.resize) {
            (Some((height, width)), _) if height == width => Some(height),
            (None, Some(ResizeTarget::Exact { height, width })) if height == width => Some(height),
            _ => None,
        }
    }

    /// The same steps for a square image of `image_size` pixels.
    pub fn with_image_size(&self, image_size: usize) -> Self {
        let mut changed = self.clone();
        match (&mut changed.resize, &mut changed.centre_crop) {
            (Some(ResizeTarget::ShortestEdge(edge)), Some(crop)) => {
                *edge = *edge * image_size / crop.0.max(1);
                *crop = (image_size, image_size);
            }
            (resize, crop) => {
                *resize = Some(ResizeTarget::Exact {
                    height: image_size,
                    width: image_size,
                });
                *crop = None;
            }
        }
        changed
    }

    /// Mean and standard deviation, with which pixels are normalised.
    pub fn normalisation(&self) -> ([f32; 3], [f32; 3]) {
        (self.mean, self.standard_deviation)
    }

    /// The normalised value of each of the 256 levels, by channel.
    pub fn normalised_levels(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            let (mean, deviation) = (self.mean[channel], self.standard_deviation[channel]);
            std::array::from_fn(|level| (level as f32 * self.rescale - mean) / deviation)
        })
    }

    /// Reads a `preprocessor_config.json`.
    ///
    /// # Errors
    /// Every problem found, one sentence each.
    pub fn from_json(text: &[u8]) -> Result<Self, Vec<String>> {
        let root: Value = serde_json::from_slice(text).map_err(|error| {
            vec![format!(
                "preprocessor_config.json is not valid JSON: {error}"
            )]
        })?;
        let mut problems = Vec::new();
        let flag = |key: &str, default: bool| match root.get(key) {
            Some(Value::Bool(value)) => *value,
            _ => default,
        };
        let resize = flag("do_resize", true)
            .then(|| resize_target(root.get("size"), &mut problems))
            .flatten();
        let centre_crop = flag("do_center_crop", false)
            .then(|| crop_size(root.get("crop_size"), &mut problems))
            .flatten();
        let resample = match root.get("resample").unwrap_or(&Value::from(3)).as_u64() {
            Some(0) => Resample::Nearest,
            Some(1) => Resample::Lanczos,
            Some(2) => Resample::Bilinear,
            Some(3) => Resample::Bicubic,
            Some(4) => Resample::Box,
            Some(5) => Resample::Hamming,
            _ => {
                problems.push("resample is not one of Pillow's filters 0 to 5".into());
                Resample::Bicubic
            }
        };
        let rescale = if flag("do_rescale", true) {
            match root.get("rescale_factor") {
                None => 1.0 / 255.0,
                Some(value) => match value.as_f64() {
                    Some(factor) if factor.is_finite() && factor > 0.0 => factor as f32,
                    _ => {
                        problems.push(format!("rescale_factor is {value}, not a positive number"));
                        1.0
                    }
                },
            }
        } else {
            1.0
        };
        let (mean, standard_deviation) = if flag("do_normalize", true) {
            (
                channels(&root, "image_mean", [0.5; 3], &mut problems),
                channels(&root, "image_std", [0.5; 3], &mut problems),
            )
        } else {
            ([0.0; 3], [1.0; 3])
        };
        if standard_deviation.iter().any(|&value| value <= 0.0) {
            problems.push("image_std has a value that is not positive".into());
        }
        if problems.is_empty() {
            Ok(Self {
                resize,
                resample,
                centre_crop,
                rescale,
                mean,
                standard_deviation,
            })
        } else {
            Err(problems)
        }
    }
}

/// Largest side that a preprocessing configuration may ask for, in pixels.
const LARGEST_SIDE: u64 = 4096;

fn side(value: Option<&Value>) -> Option<usize> {
    value
        .and_then(Value::as_u64)
        .filter(|side| (1..=LARGEST_SIDE).contains(side))
        .map(|side| side as usize)
}

fn resize_target(size: Option<&Value>, problems: &mut Vec<String>) -> Option<ResizeTarget> {
    let target = match size {
        None => None,
        Some(number @ Value::Number(_)) => side(Some(number)).map(ResizeTarget::ShortestEdge),
        Some(object) if object.get("shortest_edge").is_some() => {
            side(object.get("shortest_edge")).map(ResizeTarget::ShortestEdge)
        }
        Some(object) => side(object.get("height"))
            .zip(side(object.get("width")))
            .map(|(height, width)| ResizeTarget::Exact { height, width }),
    };
    if target.is_none() {
        problems.push(format!(
            "size is {}, not a height and width, a shortest_edge or a number from 1 to {LARGEST_SIDE}",
            size.unwrap_or(&Value::Null)
        ));
    }
    target
}

fn crop_size(size: Option<&Value>, problems: &mut Vec<String>) -> Option<(usize, usize)> {
    let crop = match size {
        Some(number @ Value::Number(_)) => side(Some(number)).map(|side| (side, side)),
        Some(object) => side(object.get("height")).zip(side(object.get("width"))),
        None => None,
    };
    if crop.is_none() {
        problems.push(format!(
            "crop_size is {}, not a height and width or a number from 1 to {LARGEST_SIDE}",
            size.unwrap_or(&Value::Null)
        ));
    }
    crop
}

fn channels(root: &Value, key: &str, default: [f32; 3], problems: &mut Vec<String>) -> [f32; 3] {
    let Some(value) = root.get(key) else {
        return default;
    };
    let numbers: Vec<f32> = value
        .as_array()
        .map(|items| {
            items
                .iter()
                .filter_map(Value::as_f64)
                .map(|v| v as f32)
                .collect()
        })
        .unwrap_or_default();
    match <[f32; 3]>::try_from(numbers) {
        Ok(numbers) if numbers.iter().all(|number| number.is_finite()) => numbers,
        _ => {
            problems.push(format!("{key} is {value}, not three numbers"));
            default
        }
    }
}
