//! Images as levels of one byte: what is judged, shown and stored is the same.

use crate::labelled_images::normalise;
use model::backbone::Preprocess;
use model::tensor::Tensor;

/// Normalised values to levels and back, as a backbone's preprocessing says.
#[derive(Debug, Clone)]
pub(super) struct Quantiser {
    mean: [f32; 3],
    standard_deviation: [f32; 3],
    rescale: f32,
    table: [[f32; 256]; 3],
}

impl Quantiser {
    pub fn new(preprocess: &Preprocess) -> Self {
        Self {
            mean: preprocess.mean,
            standard_deviation: preprocess.standard_deviation,
            rescale: preprocess.rescale,
            table: preprocess.normalised_levels(),
        }
    }

    /// The nearest levels of `images` `[batch, 3, side, side]`, of `plane` pixels a channel.
    pub fn quantise(&self, images: &[f32], plane: usize) -> Vec<u8> {
        let planes = images.chunks_exact(plane).enumerate();
        planes
            .flat_map(|(index, values)| {
                let (mean, deviation) = (self.mean[index % 3], self.standard_deviation[index % 3]);
                let level = move |value: &f32| (value * deviation + mean) / self.rescale;
                // The cast clamps to 0..=255.
                values.iter().map(move |value| level(value).round() as u8)
            })
            .collect()
    }

    /// `levels` of images of `side` × `side` pixels, normalised: `[batch, 3, side, side]`.
    pub fn pixels(&self, levels: &[u8], side: usize) -> Tensor {
        let image = 3 * side * side;
        let mut pixels = Tensor::zeros([levels.len() / image, 3, side, side]);
        let targets = pixels.data_mut().chunks_exact_mut(image);
        for (levels, target) in levels.chunks_exact(image).zip(targets) {
            normalise(levels, &self.table, target);
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::backbone::embedded;

    #[test]
    fn every_level_survives_normalising_and_values_out_of_range_are_clamped() {
        let levels = Quantiser::new(&embedded().unwrap().preprocess);
        let all: Vec<u8> = (0..3 * 16 * 16).map(|i| (i % 256) as u8).collect();
        let pixels = levels.pixels(&all, 16);
        assert_eq!(levels.quantise(pixels.data(), 256), all);
        assert_eq!(levels.quantise(&[-9.0, 9.0, 0.0], 1), [0, 255, 104]);
    }
}
