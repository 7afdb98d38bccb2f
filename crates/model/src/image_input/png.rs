//! Pixels to PNG, for people to look at.

use super::Levels;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// `levels` as an RGB PNG file.
///
/// # Errors
/// A sentence where the encoder refuses the size.
pub fn encode_png(levels: &Levels) -> Result<Vec<u8>, String> {
    let plane = levels.height * levels.width;
    if levels.planes.len() != 3 * plane {
        return Err(format!(
            "{} levels do not make {} × {} pixels",
            levels.planes.len(),
            levels.width,
            levels.height
        ));
    }
    let interleaved: Vec<u8> = (0..plane)
        .flat_map(|i| [0, 1, 2].map(|channel| levels.planes[channel * plane + i]))
        .collect();
    let side = |side: usize| u32::try_from(side).map_err(|error| error.to_string());
    let (width, height) = (side(levels.width)?, side(levels.height)?);
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&interleaved, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}
