//! What of a picture stays nearly the same when it is shrunk, recompressed or lightened: to tell whether two files are the same picture.

use super::resize::resize;
use super::{ImageError, ImageLimits, decode};
use crate::backbone::Resample;

const COLUMNS: u32 = 9;
const ROWS: u32 = 8;
/// So few of the 64 bits of nearly the same pictures differ.
const MOST_BITS: u32 = 8;
/// And so few of 255 levels their mean colours.
const MOST_LEVELS: u8 = 24;

/// A picture in few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Whether each of 8×8 parts is brighter than the one to its right (a "dHash").
    bits: u64,
    /// The mean, which tells pictures of one colour apart.
    colour: [u8; 3],
}

impl Signature {
    /// That of an encoded picture.
    ///
    /// # Errors
    /// [`ImageError`] where it cannot be read.
    pub fn of(bytes: &[u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let small = resize(decode(bytes, limits)?, COLUMNS, ROWS, Resample::Box)?;
        // Rec. 601
        let brightness = |x: u32, y: u32| {
            let [red, green, blue] = small.get_pixel(x, y).0.map(u32::from);
            299 * red + 587 * green + 114 * blue
        };
        let mut bits = 0;
        for y in 0..ROWS {
            for x in 0..COLUMNS - 1 {
                bits = (bits << 1) | u64::from(brightness(x, y) > brightness(x + 1, y));
            }
        }
        let mut sums = [0u32; 3];
        for pixel in small.pixels() {
            for (sum, level) in sums.iter_mut().zip(pixel.0) {
                *sum += u32::from(level);
            }
        }
        let mean = |sum: u32| u8::try_from(sum / (COLUMNS * ROWS)).unwrap_or(u8::MAX);
        Ok(Self {
            bits,
            colour: sums.map(mean),
        })
    }

    /// Whether both are nearly the same picture.
    pub fn is_near(self, other: Self) -> bool {
        let colours = self.colour.iter().zip(other.colour);
        (self.bits ^ other.bits).count_ones() <= MOST_BITS
            && colours
                .into_iter()
                .all(|(one, other)| one.abs_diff(other) <= MOST_LEVELS)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Levels, encode_png, thumbnail};
    use super::*;

    fn signature(bytes: &[u8]) -> Signature {
        Signature::of(bytes, &ImageLimits::default()).unwrap()
    }

    #[test]
    fn a_small_copy_is_near_and_another_picture_is_not() {
        let dog = include_bytes!("../../../../assets/examples/mammal/dog.jpg");
        let cow = include_bytes!("../../../../assets/examples/mammal/cow.jpg");
        let small = thumbnail(dog, &ImageLimits::default()).unwrap().jpeg;
        assert!(signature(dog).is_near(signature(&small)));
        assert!(!signature(dog).is_near(signature(cow)));
        assert!(Signature::of(b"no picture", &ImageLimits::default()).is_err());
    }

    #[test]
    fn pictures_of_one_colour_are_told_apart_by_it() {
        let plain = |levels: [u8; 3]| {
            let planes: Vec<u8> = levels.iter().flat_map(|level| [*level; 64]).collect();
            let levels = Levels {
                height: 8,
                width: 8,
                planes,
            };
            signature(&encode_png(&levels).unwrap())
        };
        assert!(plain([200, 10, 10]).is_near(plain([210, 15, 10])));
        assert!(!plain([200, 10, 10]).is_near(plain([10, 10, 200])));
    }
}
