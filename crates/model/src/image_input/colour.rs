//! Decoded samples of whatever colour type become 8-bit RGB, with Pillow's arithmetic.

use image::ColorType;

/// Bytes that [`to_rgb`] allocates for one pixel.
pub(super) fn conversion_bytes(colour: ColorType) -> u64 {
    let channels = u64::from(colour.channel_count());
    let narrowed = if sample_bytes(colour) == 1 {
        0
    } else {
        channels
    };
    let rgb = if channels == 3 { 0 } else { 3 };
    narrowed + rgb
}

fn sample_bytes(colour: ColorType) -> usize {
    usize::from(colour.bytes_per_pixel() / colour.channel_count())
}

/// Interleaved native-endian samples to interleaved RGB; alpha is laid over white.
pub(super) fn to_rgb(samples: Vec<u8>, colour: ColorType) -> Vec<u8> {
    let levels = to_8_bits(samples, sample_bytes(colour));
    match colour.channel_count() {
        1 => levels.iter().flat_map(|&level| [level; 3]).collect(),
        2 => levels
            .chunks_exact(2)
            .flat_map(|pixel| [over_white(pixel[0], pixel[1]); 3])
            .collect(),
        4 => levels
            .chunks_exact(4)
            .flat_map(|pixel| {
                let over = |level| over_white(level, pixel[3]);
                [over(pixel[0]), over(pixel[1]), over(pixel[2])]
            })
            .collect(),
        _ => levels,
    }
}

fn to_8_bits(samples: Vec<u8>, sample_bytes: usize) -> Vec<u8> {
    match sample_bytes {
        // The high byte, as Pillow reads 16-bit colour.
        2 => samples
            .chunks_exact(2)
            .map(|b| (u16::from_ne_bytes([b[0], b[1]]) >> 8) as u8)
            .collect(),
        // Floating point runs from 0 to 1; NaN becomes black.
        4 => samples
            .chunks_exact(4)
            .map(|b| (f32::from_ne_bytes([b[0], b[1], b[2], b[3]]) * 255.0).round() as u8)
            .collect(),
        _ => samples,
    }
}

/// `level` at opacity `alpha` over white, divided by 255 with rounding as Pillow does it.
fn over_white(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    let sum = 255 * (255 - alpha) + level * alpha + 128;
    (((sum >> 8) + sum) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_laid_over_white() {
        assert_eq!(to_rgb(vec![0, 0], ColorType::La8), [255; 3]);
        assert_eq!(to_rgb(vec![7, 255], ColorType::La8), [7; 3]);
        assert_eq!(
            to_rgb(vec![10, 20, 30, 128], ColorType::Rgba8),
            [132, 137, 142]
        );
    }

    #[test]
    fn floating_point_is_clamped_and_nan_is_black() {
        let samples: Vec<u8> = [-1.0f32, 2.0, f32::NAN]
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect();
        assert_eq!(to_rgb(samples, ColorType::Rgb32F), [0, 255, 0]);
    }
}
