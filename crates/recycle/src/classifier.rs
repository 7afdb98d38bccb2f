//! Few-shot classification: features with labels in, answers with probabilities and the nearest examples out. A classifier can be
//! written down and read back, and answers the same then, bit for bit.
//! Knows features and names; knows no images, no backbone and no adapter.

use crate::prototype::probabilities;
use engine::distance::Distance;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// How distances become probabilities: `softmax(−distance / temperature)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistanceSoftmax {
    /// Between a feature and the prototype of a class.
    pub distance: Distance,
    /// How the default was chosen is in docs/experiments/NOTEBOOK.md.
    pub temperature: f32,
}

/// One class of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Score {
    /// Of the class.
    pub label: String,
    /// From 0 to 1; over all classes of an answer they sum to 1.
    pub probability: f32,
    /// Distance of the image to the class's prototype.
    pub distance: f32,
}

/// A support image near to the classified one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Neighbour {
    /// Name of the support image.
    pub image: String,
    /// Of its class.
    pub label: String,
    /// Between its feature and the classified one's.
    pub distance: f32,
}

/// A labelled feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Support {
    /// Name of what the feature is of.
    pub image: String,
    /// Index of its class.
    pub class: usize,
    /// `[feature width]`
    pub feature: Vec<f32>,
}

/// Why features do not make a classifier, or a classifier cannot answer or be stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum ClassifierError {
    /// Index of the first class without a support.
    #[error("class {0} has no example")]
    EmptyClass(usize),
    #[error(
        "a feature has {found} values, and the examples of the classifier have {expected}: it was made with another backbone"
    )]
    Width { found: usize, expected: usize },
    #[error("{0}")]
    Invalid(String),
    /// Its version is not [`VERSION`].
    #[error(
        "the stored classifier has version {0} and this program reads version {VERSION}; make the classifier again from its examples"
    )]
    Version(u64),
    #[error("the stored classifier cannot be used: {0}; make it again from its examples")]
    Stored(String),
}

/// A set of classes that features can be classified into.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    softmax: DistanceSoftmax,
    labels: Vec<String>,
    prototypes: Vec<Vec<f32>>,
    /// With features as they are compared.
    supports: Vec<Support>,
}

impl Classifier {
    /// Builds the prototypes: the mean of the support features of each class.
    ///
    /// # Errors
    /// [`ClassifierError::EmptyClass`], [`ClassifierError::Width`], or [`ClassifierError::Invalid`] where a support is of no class.
    pub fn new(
        labels: Vec<String>,
        mut supports: Vec<Support>,
        softmax: DistanceSoftmax,
    ) -> Result<Self, ClassifierError> {
        for support in &mut supports {
            let feature = std::mem::take(&mut support.feature);
            support.feature = softmax.distance.prepare(feature);
        }
        Self::of_prepared(labels, supports, softmax)
    }

    fn of_prepared(
        labels: Vec<String>,
        supports: Vec<Support>,
        softmax: DistanceSoftmax,
    ) -> Result<Self, ClassifierError> {
        let expected = supports.first().map_or(0, |support| support.feature.len());
        for Support {
            image,
            class,
            feature,
        } in &supports
        {
            if feature.len() != expected {
                let found = feature.len();
                return Err(ClassifierError::Width { found, expected });
            }
            if *class >= labels.len() {
                return Err(ClassifierError::Invalid(format!(
                    "\"{image}\" is of class {class}, and there are {}",
                    labels.len()
                )));
            }
        }
        let prototypes = (0..labels.len())
            .map(|class| {
                let of_class = supports.iter().filter(|support| support.class == class);
                softmax
                    .distance
                    .prototype(of_class.map(|support| support.feature.as_slice()))
                    .ok_or(ClassifierError::EmptyClass(class))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            softmax,
            labels,
            prototypes,
            supports,
        })
    }

    /// The classes, in the order in which they were given.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Values of the features that it classifies.
    pub fn feature_width(&self) -> usize {
        self.prototypes.first().map_or(0, Vec::len)
    }

    /// All classes for `feature`, most probable first, and the `count` nearest supports, nearest first.
    ///
    /// # Errors
    /// [`ClassifierError::Width`]
    pub fn classify(
        &self,
        feature: Vec<f32>,
        count: usize,
    ) -> Result<(Vec<Score>, Vec<Neighbour>), ClassifierError> {
        let expected = self.feature_width();
        if feature.len() != expected {
            return Err(ClassifierError::Width {
                found: feature.len(),
                expected,
            });
        }
        let distance = self.softmax.distance;
        let feature = distance.prepare(feature);
        let distances: Vec<f32> = self
            .prototypes
            .iter()
            .map(|prototype| distance.between(prototype, &feature))
            .collect();
        let probabilities = probabilities(&distances, self.softmax.temperature);
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
        Ok((scores, self.neighbours(&feature, count)))
    }

    fn neighbours(&self, prepared: &[f32], count: usize) -> Vec<Neighbour> {
        let distance = self.softmax.distance;
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

/// Version of the stored form; raised with every change that an earlier program would read wrongly.
pub const VERSION: u64 = 1;
/// What the stored form calls itself.
const FORMAT: &str = "lora-recycle classifier";
/// How far the length of a stored feature may be from one where directions are compared.
const LENGTH_TOLERANCE: f32 = 1e-3;

/// The part of the stored form that every version has.
#[derive(Deserialize)]
struct StoredHeader {
    format: String,
    version: u64,
}

/// The stored form: JSON. Prototypes are not stored, they follow from the supports.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredClassifier {
    format: String,
    version: u64,
    distance: Distance,
    temperature: f32,
    labels: Vec<String>,
    /// With features as they are compared: of length one for [`Distance::Cosine`].
    supports: Vec<Support>,
}

impl Classifier {
    /// The classifier as JSON, for [`Self::from_json`].
    ///
    /// # Errors
    /// [`ClassifierError::Invalid`] where it holds a number that is not finite, which JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, ClassifierError> {
        for support in &self.supports {
            if !is_finite(&support.feature) {
                return Err(ClassifierError::Invalid(format!(
                    "the feature of \"{}\" is not finite",
                    support.image
                )));
            }
        }
        let stored = StoredClassifier {
            format: FORMAT.to_owned(),
            version: VERSION,
            distance: self.softmax.distance,
            temperature: self.softmax.temperature,
            labels: self.labels.clone(),
            supports: self.supports.clone(),
        };
        serde_json::to_vec(&stored).map_err(|error| ClassifierError::Invalid(error.to_string()))
    }

    /// Reads what [`Self::to_json`] wrote; it answers the same, bit for bit. Trusts nothing.
    ///
    /// # Errors
    /// [`ClassifierError::Version`] for another version, [`ClassifierError::Stored`] for what is damaged or no classifier.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ClassifierError> {
        let refuse = |reason: String| ClassifierError::Stored(reason);
        let header: StoredHeader =
            serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if header.format != FORMAT {
            return Err(refuse(format!(
                "it calls itself \"{}\", not \"{FORMAT}\"",
                header.format
            )));
        }
        if header.version != VERSION {
            return Err(ClassifierError::Version(header.version));
        }
        let stored: StoredClassifier =
            serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        stored.check().map_err(refuse)?;
        let softmax = DistanceSoftmax {
            distance: stored.distance,
            temperature: stored.temperature,
        };
        Self::of_prepared(stored.labels, stored.supports, softmax)
            .map_err(|error| refuse(error.to_string()))
    }
}

impl StoredClassifier {
    /// What [`Classifier::of_prepared`] does not check.
    fn check(&self) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("its temperature is {}", self.temperature));
        }
        if self.labels.is_empty() {
            return Err("it has no classes".into());
        }
        let mut seen = BTreeSet::new();
        for label in &self.labels {
            if !seen.insert(label) {
                return Err(format!("it has the class \"{label}\" twice"));
            }
        }
        for Support { image, feature, .. } in &self.supports {
            if feature.is_empty() || !is_finite(feature) {
                return Err(format!("the feature of \"{image}\" is empty or not finite"));
            }
            let length = feature
                .iter()
                .map(|value| value * value)
                .sum::<f32>()
                .sqrt();
            let is_prepared = length == 0.0 || (length - 1.0).abs() <= LENGTH_TOLERANCE;
            if self.distance == Distance::Cosine && !is_prepared {
                return Err(format!(
                    "the feature of \"{image}\" has length {length}, not one"
                ));
            }
        }
        Ok(())
    }
}

fn is_finite(feature: &[f32]) -> bool {
    feature.iter().all(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const PLAIN: DistanceSoftmax = DistanceSoftmax {
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
            PLAIN,
        )
        .unwrap();
        let (scores, nearest) = classifier.classify(vec![0.5, 0.0], 2).unwrap();
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
            PLAIN,
        );
        assert_eq!(result.unwrap_err(), ClassifierError::EmptyClass(1));
    }

    /// Five classes with one to five examples each, of drawn features.
    fn drawn(distance: Distance, width: usize) -> (Classifier, ChaCha8Rng) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut supports = Vec::new();
        for class in 0..5 {
            for index in 0..=class {
                supports.push(Support {
                    image: format!("class {class}/\u{1f41f} {index}.jpg"),
                    class,
                    feature: draw(&mut random, width),
                });
            }
        }
        let labels = ["a/b", "\"quoted\"", "\u{1f41f}", "", "e"].map(String::from);
        let softmax = DistanceSoftmax {
            distance,
            temperature: 0.1,
        };
        (
            Classifier::new(labels.to_vec(), supports, softmax).unwrap(),
            random,
        )
    }

    /// Values over many powers of ten, with all bits of their fractions.
    fn draw(random: &mut ChaCha8Rng, width: usize) -> Vec<f32> {
        (0..width)
            .map(|_| {
                let magnitude = 10f32.powi(random.random_range(-12..3));
                magnitude * random.random_range(-1.0f32..1.0)
            })
            .collect()
    }

    fn bits(answer: &(Vec<Score>, Vec<Neighbour>)) -> Vec<(String, u32, u32)> {
        let scores = answer.0.iter().map(|score| {
            let Score {
                label,
                probability,
                distance,
            } = score;
            (label.clone(), probability.to_bits(), distance.to_bits())
        });
        let nearest = answer.1.iter().map(|near| {
            let name = format!("{} {}", near.image, near.label);
            (name, near.distance.to_bits(), 0)
        });
        scores.chain(nearest).collect()
    }

    #[test]
    fn a_stored_classifier_answers_the_same_bit_for_bit() {
        for distance in [
            Distance::Cosine,
            Distance::SquaredEuclidean,
            Distance::Euclidean,
        ] {
            let (classifier, mut random) = drawn(distance, 384);
            let stored = classifier.to_json().unwrap();
            let back = Classifier::from_json(&stored).unwrap();
            assert_eq!(back, classifier);
            for _ in 0..50 {
                let query = draw(&mut random, 384);
                let answer = classifier.classify(query.clone(), 15).unwrap();
                assert_eq!(bits(&back.classify(query, 15).unwrap()), bits(&answer));
            }
            assert_eq!(back.to_json().unwrap(), stored);
        }
    }

    /// The stored form of a small classifier, changed.
    fn read_changed(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let (classifier, _) = drawn(Distance::Cosine, 3);
        let mut json = serde_json::from_slice(&classifier.to_json().unwrap()).unwrap();
        change(&mut json);
        let read = Classifier::from_json(&serde_json::to_vec(&json).unwrap());
        read.unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let newer = read_changed(|json| {
            json["version"] = 2.into();
            json["new_field"] = true.into();
        });
        assert_eq!(
            newer,
            "the stored classifier has version 2 and this program reads version 1; make the classifier again from its examples"
        );
        type Change = fn(&mut serde_json::Value);
        let changes: [(Change, &str); 13] = [
            (|json| json["format"] = "x".into(), "it calls itself \"x\""),
            (|json| json["more"] = 1.into(), "unknown field `more`"),
            (|json| json["temperature"] = 0.into(), "temperature is 0"),
            (|json| json["temperature"] = 1e39.into(), "out of range"),
            (|json| json["distance"] = "manhattan".into(), "manhattan"),
            (|json| json["labels"] = serde_json::json!([]), "no classes"),
            (|json| json["labels"][1] = "a/b".into(), "twice"),
            (
                |json| json["supports"] = serde_json::json!([]),
                "class 0 has no example",
            ),
            (
                |json| json["supports"][0]["class"] = 5.into(),
                "is of class 5, and there are 5",
            ),
            (|json| json["supports"][0]["class"] = (-1).into(), "-1"),
            (
                |json| json["supports"][1]["feature"] = serde_json::json!([1.0]),
                "a feature has 1 values",
            ),
            (
                |json| json["supports"][1]["feature"][0] = 9.into(),
                "not one",
            ),
            (
                |json| json["supports"][1]["feature"][0] = serde_json::Value::Null,
                "null",
            ),
        ];
        for (index, (change, reason)) in changes.into_iter().enumerate() {
            let found = read_changed(change);
            assert!(
                found.starts_with("the stored classifier cannot be used: ")
                    && found.contains(reason),
                "{index}: {found}"
            );
        }
        let (classifier, _) = drawn(Distance::Cosine, 3);
        let stored = classifier.to_json().unwrap();
        for length in 0..stored.len() {
            assert!(Classifier::from_json(&stored[..length]).is_err());
        }
    }

    #[test]
    fn a_feature_of_another_width_is_refused() {
        let (classifier, _) = drawn(Distance::Cosine, 3);
        assert_eq!(classifier.feature_width(), 3);
        let error = classifier.classify(vec![1.0; 4], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a feature has 4 values, and the examples of the classifier have 3: it was made with another backbone"
        );
    }

    #[test]
    fn what_is_not_finite_is_not_stored() {
        let labels = vec!["a".into()];
        let supports = vec![support("a", 0, [f32::NAN, 0.0])];
        let classifier = Classifier::new(labels, supports, PLAIN).unwrap();
        assert_eq!(
            classifier.to_json().unwrap_err().to_string(),
            "the feature of \"a\" is not finite"
        );
    }
}
