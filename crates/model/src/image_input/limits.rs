//! What an image may cost, checked before decoding work is done.

use super::ImageError;

/// What is refused before any decoding work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// Largest encoded size in bytes.
    pub max_bytes: usize,
    /// Largest width × height.
    pub max_pixels: u64,
    /// Largest memory that a decoder may take, in bytes; counts the decoded samples, the RGB copy and the decoder's buffers.
    pub max_decode_bytes: u64,
}

/// Most pixels of a side; also the most that a JPEG can have.
const LONGEST_SIDE: u32 = 65_535;

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 20,
            max_pixels: 50_000_000,
            max_decode_bytes: 512 << 20,
        }
    }
}

impl ImageLimits {
    pub(super) fn check_encoded(&self, bytes: &[u8]) -> Result<(), ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        if bytes.len() > self.max_bytes {
            return Err(ImageError::TooLarge {
                found_bytes: bytes.len(),
                limit_bytes: self.max_bytes,
            });
        }
        Ok(())
    }

    /// Width × height, where both are fine. A longer side costs more than its pixels: resampling keeps a kernel for each.
    pub(super) fn check_pixels(&self, width: u32, height: u32) -> Result<u64, ImageError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(ImageError::NoPixels { width, height });
        }
        if width.max(height) > LONGEST_SIDE {
            return Err(ImageError::SideTooLong {
                width,
                height,
                limit: LONGEST_SIDE,
            });
        }
        if pixels > self.max_pixels {
            return Err(ImageError::TooManyPixels {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(pixels)
    }

    /// What is left of the memory once `needed_bytes` are taken.
    pub(super) fn check_memory(&self, needed_bytes: u64) -> Result<u64, ImageError> {
        self.max_decode_bytes
            .checked_sub(needed_bytes)
            .ok_or(ImageError::TooMuchMemory {
                needed_bytes,
                limit_bytes: self.max_decode_bytes,
            })
    }
}
