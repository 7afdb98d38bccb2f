//! Few-shot tasks, also called episodes, drawn at random; the same seed gives the same tasks.

use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The size of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EpisodeShape {
    /// Classes in a task.
    pub way: usize,
    /// Support images per class.
    pub shot: usize,
    /// Query images per class.
    pub queries: usize,
}

/// One class of a task. Images are named by their index within the class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpisodeClass {
    /// Index of the class among all classes.
    pub class: usize,
    /// The labelled examples.
    pub supports: Vec<usize>,
    /// The images to classify.
    pub queries: Vec<usize>,
}

/// A task: `way` classes, no image twice.
pub type Episode = Vec<EpisodeClass>;

/// Why no task can be drawn.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum EpisodeError {
    #[error(
        "a task needs a way of at least 2, and at least 1 shot and 1 query; asked for are way {}, {} shots and {} queries",
        .0.way, .0.shot, .0.queries
    )]
    Shape(EpisodeShape),
    #[error(
        "{way}-way tasks need {way} classes with {images} images each (shot + queries); {usable} classes have that many"
    )]
    TooFewClasses {
        way: usize,
        images: usize,
        usable: usize,
    },
}

/// Draws `count` tasks from classes with `class_sizes` images; classes with too few images are left out.
///
/// # Errors
/// [`EpisodeError`] where the shape is impossible or too few classes have enough images.
pub fn draw_episodes(
    class_sizes: &[usize],
    shape: EpisodeShape,
    count: usize,
    seed: u64,
) -> Result<Vec<Episode>, EpisodeError> {
    if shape.way < 2 || shape.shot == 0 || shape.queries == 0 {
        return Err(EpisodeError::Shape(shape));
    }
    let images = shape.shot.saturating_add(shape.queries);
    let usable: Vec<usize> = (0..class_sizes.len())
        .filter(|&class| class_sizes[class] >= images)
        .collect();
    if usable.len() < shape.way {
        return Err(EpisodeError::TooFewClasses {
            way: shape.way,
            images,
            usable: usable.len(),
        });
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    Ok((0..count)
        .map(|_| draw(&usable, class_sizes, shape, &mut random))
        .collect())
}

fn draw(
    usable: &[usize],
    class_sizes: &[usize],
    shape: EpisodeShape,
    random: &mut impl Rng,
) -> Episode {
    sample(random, usable.len(), shape.way)
        .into_iter()
        .map(|place| {
            let class = usable[place];
            let images = sample(random, class_sizes[class], shape.shot + shape.queries).into_vec();
            let (supports, queries) = images.split_at(shape.shot);
            EpisodeClass {
                class,
                supports: supports.to_vec(),
                queries: queries.to_vec(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SHAPE: EpisodeShape = EpisodeShape {
        way: 3,
        shot: 2,
        queries: 4,
    };

    #[test]
    fn tasks_have_distinct_classes_and_images_and_leave_small_classes_out() {
        let sizes = [6, 5, 9, 30, 6];
        for episode in draw_episodes(&sizes, SHAPE, 200, 7).unwrap() {
            let classes: BTreeSet<usize> = episode.iter().map(|class| class.class).collect();
            assert_eq!(classes.len(), 3);
            assert!(!classes.contains(&1), "class 1 has too few images");
            for class in &episode {
                let images: BTreeSet<usize> = class
                    .supports
                    .iter()
                    .chain(&class.queries)
                    .copied()
                    .collect();
                assert_eq!(images.len(), 6);
                assert!(images.iter().all(|&image| image < sizes[class.class]));
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_tasks_and_another_seed_others() {
        let sizes = [20; 8];
        let first = draw_episodes(&sizes, SHAPE, 5, 1).unwrap();
        assert_eq!(first, draw_episodes(&sizes, SHAPE, 5, 1).unwrap());
        assert_ne!(first, draw_episodes(&sizes, SHAPE, 5, 2).unwrap());
    }

    #[test]
    fn too_few_classes_or_an_impossible_shape_is_an_error_that_says_what_is_needed() {
        let error = draw_episodes(&[6, 6, 5], SHAPE, 1, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "3-way tasks need 3 classes with 6 images each (shot + queries); 2 classes have that many"
        );
        let none = EpisodeShape { shot: 0, ..SHAPE };
        assert_eq!(
            draw_episodes(&[9; 9], none, 1, 0),
            Err(EpisodeError::Shape(none))
        );
        let endless = EpisodeShape {
            shot: usize::MAX,
            ..SHAPE
        };
        let error = draw_episodes(&[9; 9], endless, 1, 0).unwrap_err();
        assert!(error.to_string().contains("0 classes have that many"));
    }
}
