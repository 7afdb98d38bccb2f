//! Accuracy on many few-shot tasks, with its confidence interval.

use super::episode::Episode;
use super::prototype::{Distance, nearest};
use rayon::prelude::*;

/// A mean over tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// From 0 to 1.
    pub mean: f64,
    /// Half-width of the 95 % confidence interval of the mean: `1.96·s/√n` over tasks.
    pub ci95: f64,
}

/// Share of correctly classified queries of each task by nearest prototype; `features[class][image]` as the encoder gave them.
pub fn task_accuracies(
    features: &[Vec<Vec<f32>>],
    episodes: &[Episode],
    distance: Distance,
) -> Vec<f64> {
    let prepared: Vec<Vec<Vec<f32>>> = features
        .iter()
        .map(|class| {
            class
                .iter()
                .map(|feature| distance.prepare(feature.clone()))
                .collect()
        })
        .collect();
    episodes
        .par_iter()
        .map(|episode| task_accuracy(&prepared, episode, distance))
        .collect()
}

fn task_accuracy(prepared: &[Vec<Vec<f32>>], episode: &Episode, distance: Distance) -> f64 {
    let prototypes: Vec<Vec<f32>> = episode
        .iter()
        .filter_map(|class| {
            let images = class.supports.iter();
            distance.prototype(images.map(|&image| prepared[class.class][image].as_slice()))
        })
        .collect();
    let mut correct = 0;
    let mut total = 0;
    for (label, class) in episode.iter().enumerate() {
        for &image in &class.queries {
            let query = &prepared[class.class][image];
            let distances: Vec<f32> = prototypes
                .iter()
                .map(|prototype| distance.between(prototype, query))
                .collect();
            correct += usize::from(nearest(&distances) == Some(label));
            total += 1;
        }
    }
    f64::from(correct as u32) / f64::from(total as u32)
}

/// Mean and confidence interval over tasks.
///
/// With fewer than two tasks there is no spread to estimate; the interval is then infinite.
pub fn accuracy(tasks: &[f64]) -> Accuracy {
    let count = tasks.len() as f64;
    let mean = tasks.iter().sum::<f64>() / count;
    let ci95 = if tasks.len() < 2 {
        f64::INFINITY
    } else {
        let squares: f64 = tasks.iter().map(|task| (task - mean) * (task - mean)).sum();
        1.96 * (squares / (count - 1.0)).sqrt() / count.sqrt()
    };
    Accuracy { mean, ci95 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recycle::episode::{EpisodeShape, draw_episodes};

    #[test]
    fn the_interval_is_1_96_standard_errors() {
        let result = accuracy(&[0.5, 0.7, 0.9, 0.7]);
        assert!((result.mean - 0.7).abs() < 1e-12);
        let deviation = (0.08f64 / 3.0).sqrt();
        assert!((result.ci95 - 1.96 * deviation / 2.0).abs() < 1e-12);
        assert!(accuracy(&[0.5]).ci95.is_infinite());
    }

    #[test]
    fn separable_classes_are_always_right_and_equal_features_are_chance() {
        let shape = EpisodeShape {
            way: 4,
            shot: 1,
            queries: 3,
        };
        let episodes = draw_episodes(&[8; 4], shape, 20, 3).unwrap();
        let separable: Vec<Vec<Vec<f32>>> = (0..4)
            .map(|class| {
                let mut feature = vec![0.0; 4];
                feature[class] = 1.0;
                vec![feature; 8]
            })
            .collect();
        let equal = vec![vec![vec![1.0, 2.0]; 8]; 4];
        for distance in [Distance::Cosine, Distance::SquaredEuclidean] {
            assert_eq!(
                accuracy(&task_accuracies(&separable, &episodes, distance)).mean,
                1.0
            );
            assert_eq!(
                accuracy(&task_accuracies(&equal, &episodes, distance)).mean,
                0.25
            );
        }
    }
}
