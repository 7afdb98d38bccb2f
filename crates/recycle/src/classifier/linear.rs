//! A classifier as one linear map of the feature, for programs that compute the feature and nothing else.

use super::{Classifier, Reader};
use engine::distance::Distance;

/// The probabilities of a classifier are `softmax(weight · u + offset)`, with `u` the feature scaled to length one.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearClassifier {
    /// The classes.
    pub labels: Vec<String>,
    /// `[classes, width]`, row by row; the mean over classes is zero, and the temperature is in it.
    pub weight: Vec<f32>,
    /// `[classes]`, likewise
    pub offset: Vec<f32>,
}

impl Classifier {
    /// The linear map with the classifier's probabilities, up to the rounding of `f32`; `None` where it compares features by another distance
    /// than the cosine.
    pub fn linear(&self) -> Option<LinearClassifier> {
        let classes = self.labels.len();
        let temperature = f64::from(self.temperature);
        let (mut weight, mut offset): (Vec<f64>, Vec<f64>) = match &self.reader {
            Reader::NearestMean(prototypes) if self.distance == Distance::Cosine => {
                let values = prototypes.iter().flatten();
                let weight = values.map(|&value| f64::from(value) / temperature);
                (weight.collect(), vec![0.0; classes])
            }
            Reader::NearestMean(_) => return None,
            Reader::Metric(_, head) => {
                // The squared distance to a class has −2(w·u + b) in it.
                let (weight, offset) = head.linear();
                let scaled = |value: &f32| 2.0 * f64::from(*value) / temperature;
                (
                    weight.iter().flatten().map(scaled).collect(),
                    offset.iter().map(scaled).collect(),
                )
            }
        };
        // What all classes have in common changes no probability, and would cost digits.
        let width = weight.len() / classes.max(1);
        for column in 0..width {
            centre(&mut weight, column, width);
        }
        centre(&mut offset, 0, 1);
        let rounded = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        Some(LinearClassifier {
            labels: self.labels.clone(),
            weight: rounded(weight),
            offset: rounded(offset),
        })
    }
}

/// Takes their mean from the values at `first`, `first + step`, ….
fn centre(values: &mut [f64], first: usize, step: usize) {
    let column = || values.iter().skip(first).step_by(step);
    let mean = column().sum::<f64>() / column().count().max(1) as f64;
    for value in values.iter_mut().skip(first).step_by(step) {
        *value -= mean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::{ClassifierSettings, Support};
    use crate::head::HeadChoice;
    use crate::prototype::softmax;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_linear_map_has_the_probabilities_of_the_classifier() {
        let random = &mut ChaCha8Rng::seed_from_u64(7);
        let mut feature = |class: usize| -> Vec<f32> {
            let own = |place| if place == class { 3.0 } else { 0.0 };
            (0..12)
                .map(|place| own(place) + random.random_range(-1.0..1.0))
                .collect()
        };
        let labels: Vec<String> = (0..4).map(|class| class.to_string()).collect();
        let supports: Vec<Support> = (0..20)
            .map(|number| Support {
                image: number.to_string(),
                class: number % 4,
                feature: feature(number % 4),
                copies: Vec::new(),
            })
            .collect();
        for head in ["nearest-mean", "lda"] {
            let settings = ClassifierSettings {
                head: head.parse::<HeadChoice>().expect(head),
                distance: Distance::Cosine,
            };
            let classifier =
                Classifier::new(labels.clone(), supports.clone(), settings).expect("classifier");
            let linear = classifier.linear().expect("linear");
            for class in 0..4 {
                let feature = feature(class);
                let unit = Distance::Cosine.prepare(feature.clone());
                let rows = linear.weight.chunks_exact(unit.len());
                let logits: Vec<f32> = rows
                    .zip(&linear.offset)
                    .map(|(row, offset)| {
                        row.iter().zip(&unit).map(|(a, b)| a * b).sum::<f32>() + offset
                    })
                    .collect();
                let probabilities = softmax(&logits);
                for score in classifier.classify(feature, 0).expect("scores").scores {
                    let class: usize = score.label.parse().expect("class");
                    let found = probabilities[class];
                    let off = (found - f64::from(score.probability)).abs();
                    assert!(off < 1e-5, "{head}: {found} and {}", score.probability);
                }
            }
        }
        let settings = ClassifierSettings {
            head: "nearest-mean".parse::<HeadChoice>().expect("head"),
            distance: Distance::Euclidean,
        };
        let other = Classifier::new(labels, supports, settings).expect("classifier");
        assert_eq!(other.linear(), None);
    }
}
