//! What of a picture stays nearly the same when it is shrunk, recompressed or lightened: to tell whether two files are the same picture.

use super::resize::resize;
use super::{ImageError, ImageLimits, decode};
use crate::backbone::Resample;

const SIDE: u32 = 16;
const VALUES: usize = 3 * (SIDE * SIDE) as usize;
/// Pictures that correlate less are two. Chosen on planted copies (METHOD, "Hints").
const LEAST_CORRELATION: f64 = 0.94;
/// Most levels of 255 by which the mean colours of nearly the same pictures differ.
const MOST_LEVELS: f64 = 24.0;

/// A picture of 16×16 pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Red, green and blue of each pixel minus the mean of all, divided by their length; zeros where all are equal.
    deviations: Vec<f32>,
    /// The mean of each, which tells pictures of one colour apart.
    colour: [f64; 3],
}

impl Signature {
    /// That of an encoded picture.
    ///
    /// # Errors
    /// [`ImageError`] where it cannot be read.
    pub fn of(bytes: &[u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let small = resize(decode(bytes, limits)?, SIDE, SIDE, Resample::Box)?;
        let mut colour = [0.0; 3];
        for pixel in small.pixels() {
            for (sum, level) in colour.iter_mut().zip(pixel.0) {
                *sum += f64::from(level);
            }
        }
        let mean = colour.iter().sum::<f64>() / VALUES as f64;
        let levels = small.pixels().flat_map(|pixel| pixel.0);
        let deviations: Vec<f64> = levels.map(|level| f64::from(level) - mean).collect();
        let length = deviations.iter().map(|value| value.powi(2)).sum::<f64>();
        let scale = match length > 0.0 {
            true => length.sqrt().recip(),
            false => 0.0,
        };
        Ok(Self {
            deviations: deviations
                .iter()
                .map(|value| (value * scale) as f32)
                .collect(),
            colour: colour.map(|sum| sum / f64::from(SIDE * SIDE)),
        })
    }

    /// Whether both are nearly the same picture.
    pub fn is_near(&self, other: &Self) -> bool {
        let mut colours = self.colour.iter().zip(other.colour);
        if colours.any(|(one, other)| (one - other).abs() > MOST_LEVELS) {
            return false;
        }
        let is_flat = |own: &Self| own.deviations.iter().all(|value| *value == 0.0);
        if is_flat(self) && is_flat(other) {
            return true;
        }
        let both = self.deviations.iter().zip(&other.deviations);
        let correlation: f64 = both
            .map(|(one, other)| f64::from(*one) * f64::from(*other))
            .sum();
        correlation >= LEAST_CORRELATION
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
        assert!(signature(dog).is_near(&signature(&small)));
        assert!(!signature(dog).is_near(&signature(cow)));
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
        assert!(plain([200, 10, 10]).is_near(&plain([210, 15, 10])));
        assert!(!plain([200, 10, 10]).is_near(&plain([10, 10, 200])));
        assert!(plain([90; 3]).is_near(&plain([100; 3])));
        assert!(!plain([90; 3]).is_near(&plain([140; 3])));
    }
}
