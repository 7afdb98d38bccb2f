//! Accuracy on many few-shot tasks, with its confidence interval, and differences of methods on the same tasks.

mod certainty;
mod heads;
mod linear_probe;
mod tuning;

pub use certainty::{Certainty, REFUSED_SHARE, certainty};
pub use heads::{ClassFeatures, head_accuracies};
pub use linear_probe::linear_probe_accuracies;
pub use tuning::{TuningProblem, tuned_accuracy};

use super::episode::{Episode, EpisodeClass};
use super::labelled_images::LabelledImages;
use super::prototype::nearest;
use engine::distance::Distance;
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

/// Share of correctly classified queries of each task by nearest prototype of the pictures' levels themselves, scaled to 0 to 1.
/// `positions[class][image]` are those of `images`.
pub fn pixel_accuracies(
    images: &LabelledImages,
    positions: &[Vec<usize>],
    episodes: &[Episode],
    distance: Distance,
) -> Vec<f64> {
    // The features of one task at a time: those of all pictures together would be many times the pictures.
    let accuracy = |episode: &Episode| {
        let prepared: Vec<Vec<Vec<f32>>> = episode
            .iter()
            .map(|class| {
                let chosen = class.supports.iter().chain(&class.queries);
                let levels = chosen.map(|&image| images.levels(positions[class.class][image]));
                let scaled = levels.map(|own| own.iter().map(|&level| f32::from(level) / 255.0));
                scaled.map(|own| distance.prepare(own.collect())).collect()
            })
            .collect();
        let renumbered = episode.iter().enumerate().map(|(place, class)| {
            let shot = class.supports.len();
            EpisodeClass {
                class: place,
                supports: (0..shot).collect(),
                queries: (shot..shot + class.queries.len()).collect(),
            }
        });
        task_accuracy(&prepared, &renumbered.collect(), distance)
    };
    episodes.par_iter().map(accuracy).collect()
}

/// Mean and confidence interval, from -1 to 1, of how much better `tasks` are than `reference`, task by task; where one has fewer,
/// on the tasks that both have.
pub fn paired_difference(tasks: &[f64], reference: &[f64]) -> Accuracy {
    let differences = tasks.iter().zip(reference).map(|(own, other)| own - other);
    accuracy(&differences.collect::<Vec<_>>())
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
    use crate::episode::{EpisodeShape, draw_episodes};

    #[test]
    fn the_interval_is_1_96_standard_errors() {
        let result = accuracy(&[0.5, 0.7, 0.9, 0.7]);
        assert!((result.mean - 0.7).abs() < 1e-12);
        let deviation = (0.08f64 / 3.0).sqrt();
        assert!((result.ci95 - 1.96 * deviation / 2.0).abs() < 1e-12);
        assert!(accuracy(&[0.5]).ci95.is_infinite());
    }

    #[test]
    fn a_difference_is_taken_task_by_task_on_the_tasks_that_both_have() {
        let difference = paired_difference(&[0.9, 0.5], &[0.7, 0.3, 0.1]);
        assert!((difference.mean - 0.2).abs() < 1e-12);
        // Equal differences have no spread, however much the tasks have.
        assert!(difference.ci95 < 1e-12);
    }

    #[test]
    fn pixels_are_features_too() {
        let names = ["dark", "light", "half"].map(str::to_owned).to_vec();
        let labels: Vec<u32> = (0..12).map(|index| index % 3).collect();
        let levels = labels.iter().flat_map(|&label| {
            let own = [0, 255, 128][label as usize];
            [own, 7, own, own, 3, 9, 255, 255, own, own, own, 1]
        });
        let images = LabelledImages::new(names, 2, levels.collect(), labels).unwrap();
        let positions = images.by_class();
        assert_eq!(positions[1], [1, 4, 7, 10]);
        let shape = EpisodeShape {
            way: 3,
            shot: 1,
            queries: 3,
        };
        let episodes = draw_episodes(&[4; 3], shape, 10, 0).unwrap();
        let tasks = pixel_accuracies(&images, &positions, &episodes, Distance::SquaredEuclidean);
        assert_eq!(tasks, [1.0; 10]);
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
