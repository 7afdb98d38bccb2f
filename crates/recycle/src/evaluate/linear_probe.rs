//! The linear probe: for each task a linear classifier on frozen features, tuned on its support images.

use crate::episode::Episode;
use crate::head_pass::count_correct;
use engine::distance::Distance;
use engine::loss::{LinearHeadGradients, cross_entropy, linear_head, linear_head_backward};
use engine::operation::OperationError;
use engine::optimise::{Adam, AdamSettings};
use rayon::prelude::*;

/// Length of a feature as the classifier reads it, as in tuning.
const FEATURE_LENGTH: f32 = 20.0;
const STEPS: usize = 100;
const LEARNING_RATE: f64 = 1e-2;

/// Share of correctly classified queries of each task; `features[class][image]` as the encoder gave them. Weight and bias begin at
/// zero and take 100 steps of Adam (1e-2) down the cross-entropy of the supports; features have length 20, as heads are tuned.
///
/// # Errors
/// [`OperationError`] for features that are not finite.
pub fn linear_probe_accuracies(
    features: &[Vec<Vec<f32>>],
    episodes: &[Episode],
) -> Result<Vec<f64>, OperationError> {
    let tasks = episodes.par_iter();
    tasks
        .map(|episode| task_accuracy(features, episode))
        .collect()
}

fn task_accuracy(features: &[Vec<Vec<f32>>], episode: &Episode) -> Result<f64, OperationError> {
    let classes = episode.len();
    let (mut supports, mut support_labels) = (Vec::new(), Vec::new());
    let (mut queries, mut query_labels) = (Vec::new(), Vec::new());
    let scaled = |into: &mut Vec<f32>, feature: &[f32]| {
        let unit = Distance::Cosine.prepare(feature.to_vec());
        into.extend(unit.iter().map(|value| value * FEATURE_LENGTH));
    };
    for (label, class) in episode.iter().enumerate() {
        for &image in &class.supports {
            scaled(&mut supports, &features[class.class][image]);
            support_labels.push(label);
        }
        for &image in &class.queries {
            scaled(&mut queries, &features[class.class][image]);
            query_labels.push(label);
        }
    }
    let width = supports.len() / support_labels.len();
    let mut head = vec![0.0; classes * (width + 1)];
    let mut dhead = head.clone();
    let mut logits = vec![0.0; support_labels.len() * classes];
    let mut dlogits = logits.clone();
    let mut adam = Adam::new(AdamSettings::default(), head.len());
    for _ in 0..STEPS {
        let (weight, bias) = head.split_at(classes * width);
        linear_head(&supports, width, weight, Some(bias), &mut logits)?;
        cross_entropy(&logits, &support_labels, classes, Some(&mut dlogits))?;
        let (dweight, dbias) = dhead.split_at_mut(classes * width);
        let gradients = LinearHeadGradients {
            dfeatures: None,
            dweight: Some(dweight),
            dbias: Some(dbias),
        };
        linear_head_backward(&supports, width, weight, &dlogits, gradients)?;
        adam.step(&mut head, &dhead, LEARNING_RATE)?;
    }
    let (weight, bias) = head.split_at(classes * width);
    let mut logits = vec![0.0; query_labels.len() * classes];
    linear_head(&queries, width, weight, Some(bias), &mut logits)?;
    let correct = count_correct(&logits, &query_labels, classes);
    Ok(correct as f64 / query_labels.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episode::{EpisodeShape, draw_episodes};

    #[test]
    fn a_probe_reads_the_one_direction_that_tells_classes_apart() {
        // The common part is far longer than what tells the classes apart.
        let features: Vec<Vec<Vec<f32>>> = (0..3)
            .map(|class| {
                let feature = |image: usize| {
                    let mut feature = vec![5.0, 0.1 * (image % 2) as f32, 0.0, 0.0, 0.0];
                    feature[2 + class] = 0.4;
                    feature
                };
                (0..6).map(feature).collect()
            })
            .collect();
        let shape = EpisodeShape {
            way: 3,
            shot: 2,
            queries: 4,
        };
        let episodes = draw_episodes(&[6; 3], shape, 5, 1).unwrap();
        let tasks = linear_probe_accuracies(&features, &episodes).unwrap();
        assert_eq!(tasks, [1.0; 5]);
        let mut broken = features;
        broken[0] = vec![vec![f32::NAN; 5]; 6];
        assert!(linear_probe_accuracies(&broken, &episodes).is_err());
    }
}
