//! Few-shot classification: support features in, answers with probabilities and nearest support images out.

use recycle::prototype::{Distance, probabilities};
use serde::{Deserialize, Serialize};

/// Temperature of the probabilities; chosen on validation classes, see docs/experiments/NOTEBOOK.md.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub distance: Distance,
    /// Divides distances before the softmax.
    pub temperature: f32,
}

/// One class of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Score {
    pub label: String,
    /// From 0 to 1; over all classes of an answer they sum to 1.
    pub probability: f32,
    /// Distance of the image to the class's prototype.
    pub distance: f32,
}

/// A support image near to the classified one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Neighbour {
    pub image: String,
    pub label: String,
    pub distance: f32,
}

/// A labelled feature.
#[derive(Debug, Clone)]
pub struct Support {
    pub image: String,
    /// Index of its class.
    pub class: usize,
    pub feature: Vec<f32>,
}

/// A set of classes that features can be classified into.
#[derive(Debug, Clone)]
pub struct Classifier {
    metric: Metric,
    labels: Vec<String>,
    prototypes: Vec<Vec<f32>>,
    supports: Vec<Support>,
}

impl Classifier {
    /// Builds the prototypes: the mean of the support features of each class.
    ///
    /// # Errors
    /// The index of the first class without a support image.
    pub fn new(
        labels: Vec<String>,
        mut supports: Vec<Support>,
        metric: Metric,
    ) -> Result<Self, usize> {
        for support in &mut supports {
            let feature = std::mem::take(&mut support.feature);
            support.feature = metric.distance.prepare(feature);
        }
        let prototypes = (0..labels.len())
            .map(|class| {
                let of_class = supports.iter().filter(|support| support.class == class);
                metric
                    .distance
                    .prototype(of_class.map(|support| support.feature.as_slice()))
                    .ok_or(class)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            metric,
            labels,
            prototypes,
            supports,
        })
    }

    /// All classes for `feature`, most probable first, and the `count` nearest support images, nearest first.
    pub fn classify(&self, feature: Vec<f32>, count: usize) -> (Vec<Score>, Vec<Neighbour>) {
        let distance = self.metric.distance;
        let feature = distance.prepare(feature);
        let distances: Vec<f32> = self
            .prototypes
            .iter()
            .map(|prototype| distance.between(prototype, &feature))
            .collect();
        let probabilities = probabilities(&distances, self.metric.temperature);
        let mut order: Vec<usize> = (0..distances.len()).collect();
        order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
        let scores = order
            .into_iter()
            .map(|class| Score {
                label: self.labels[class].clone(),
                probability: probabilities[class],
                distance: distances[class],
            })
            .collect();
        (scores, self.neighbours(&feature, count))
    }

    fn neighbours(&self, prepared: &[f32], count: usize) -> Vec<Neighbour> {
        let distance = self.metric.distance;
        let mut near: Vec<(f32, &Support)> = self
            .supports
            .iter()
            .map(|support| (distance.between(&support.feature, prepared), support))
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        near.into_iter()
            .take(count)
            .map(|(distance, support)| Neighbour {
                image: support.image.clone(),
                label: self.labels[support.class].clone(),
                distance,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: Metric = Metric {
        distance: Distance::SquaredEuclidean,
        temperature: 1.0,
    };

    fn support(image: &str, class: usize, feature: [f32; 2]) -> Support {
        Support {
            image: image.into(),
            class,
            feature: feature.to_vec(),
        }
    }

    #[test]
    fn the_nearest_prototype_wins_and_the_nearest_support_images_are_named() {
        let classifier = Classifier::new(
            vec!["left".into(), "right".into()],
            vec![
                support("a", 0, [-1.0, 0.0]),
                support("b", 0, [-3.0, 0.0]),
                support("c", 1, [2.0, 0.0]),
            ],
            METRIC,
        )
        .unwrap();
        let (scores, nearest) = classifier.classify(vec![0.5, 0.0], 2);
        assert_eq!(scores[0].label, "right");
        assert!((scores[0].probability + scores[1].probability - 1.0).abs() < 1e-6);
        // Mean of class 0 is (-2, 0).
        assert_eq!(scores[1].distance, 6.25);
        let names: Vec<&str> = nearest.iter().map(|n| n.image.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn a_class_without_support_images_is_named() {
        let result = Classifier::new(
            vec!["full".into(), "empty".into()],
            vec![support("a", 0, [0.0, 1.0])],
            METRIC,
        );
        assert_eq!(result.unwrap_err(), 1);
    }
}
