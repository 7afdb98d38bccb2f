//! Few-shot classification: features with labels in, answers with probabilities and the nearest examples out. A classifier can be
//! written down and read back, and answers the same then, bit for bit.
//! Knows features and names; knows no images, no backbone and no adapter.

mod linear;
mod stored;

pub use linear::LinearClassifier;
pub use stored::VERSION;

use crate::head::{
    Calibration, FittedHead, HeadChoice, HeadError, HeadKind, HeadSettings, LabelledFeature,
    NoveltyScale, Squares, leave_out, temperature,
};
use crate::prototype::probabilities;
use engine::distance::Distance;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How features are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassifierSettings {
    /// What reads the features.
    pub head: HeadChoice,
    /// How the head `nearest-mean` compares them.
    pub distance: Distance,
}

/// One class of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Score {
    /// Of the class.
    pub label: String,
    /// From 0 to 1; over all classes of an answer they sum to 1.
    pub probability: f32,
    /// Distance of the image to the class's mean, as the head measures it.
    pub distance: f32,
}

/// A support image near to the classified one.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// Its index among the supports, in the order in which they were given.
    pub support: usize,
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
    /// Features of its copies, those that the head asks for; empty where they are not known.
    #[serde(skip)]
    pub copies: Vec<Vec<f32>>,
}

/// What a classifier says to a feature.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifiedFeature {
    /// All classes, most probable first.
    pub scores: Vec<Score>,
    /// The nearest supports, nearest first.
    pub nearest: Vec<Neighbour>,
    /// The nearest supports of the most probable class, nearest first.
    pub nearest_in_class: Vec<Neighbour>,
    /// The nearest support of all, where it is of another class than the most probable one.
    pub closest_elsewhere: Option<Neighbour>,
    /// From 0 to 1: the share of images of known classes that are nearer to their class. `None` where there are too few examples
    /// to tell.
    pub novelty: Option<f32>,
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
    distance: Distance,
    labels: Vec<String>,
    reader: Reader,
    temperature: f32,
    calibration: Calibration,
    novelty: Option<NoveltyScale>,
    /// With features as they are compared, and without copies.
    supports: Vec<Support>,
}

/// What reads features.
#[derive(Debug, Clone, PartialEq)]
enum Reader {
    /// The prototype of each class.
    NearestMean(Vec<Vec<f32>>),
    Metric(HeadKind, FittedHead),
}

impl Classifier {
    /// Fits the head to the supports. Where it needs copies and a support has none, the head without copies takes its place.
    ///
    /// # Errors
    /// [`ClassifierError::EmptyClass`], [`ClassifierError::Width`], or [`ClassifierError::Invalid`] where a support is of no class or
    /// its feature is not finite.
    pub fn new(
        labels: Vec<String>,
        mut supports: Vec<Support>,
        settings: ClassifierSettings,
    ) -> Result<Self, ClassifierError> {
        check_supports(&labels, &supports)?;
        let copies = supports.iter().map(|support| support.copies.len());
        let head = settings.head.settings_with(copies, labels.len());
        let fitted = Fitted::of(&labels, &supports, head, settings.distance)?;
        for support in &mut supports {
            let feature = std::mem::take(&mut support.feature);
            support.feature = settings.distance.prepare(feature);
            support.copies = Vec::new();
        }
        let reader = match fitted.head {
            Some(head) => Reader::Metric(fitted.kind, head),
            None => Reader::NearestMean(prototypes(&labels, &supports, settings.distance)?),
        };
        Ok(Self {
            distance: settings.distance,
            labels,
            reader,
            temperature: fitted.temperature,
            calibration: fitted.calibration,
            novelty: fitted.novelty,
            supports,
        })
    }

    /// The classes, in the order in which they were given.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Values of the features that it classifies.
    pub fn feature_width(&self) -> usize {
        self.supports.first().map_or(0, |own| own.feature.len())
    }

    /// What reads the features.
    pub fn head(&self) -> HeadKind {
        match &self.reader {
            Reader::NearestMean(_) => HeadKind::NearestMean,
            Reader::Metric(kind, _) => *kind,
        }
    }

    /// Where the temperature of its probabilities comes from.
    pub fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// Where the scale of novelty comes from; [`Calibration::None`] where there is no novelty.
    pub fn novelty_calibration(&self) -> Calibration {
        self.novelty
            .map_or(Calibration::None, |scale| scale.calibration)
    }

    /// All classes for `feature`, and the `count` nearest supports, of all and of the most probable class.
    ///
    /// # Errors
    /// [`ClassifierError::Width`], or [`ClassifierError::Invalid`] where it is not finite.
    pub fn classify(
        &self,
        feature: Vec<f32>,
        count: usize,
    ) -> Result<ClassifiedFeature, ClassifierError> {
        let expected = self.feature_width();
        if feature.len() != expected {
            return Err(ClassifierError::Width {
                found: feature.len(),
                expected,
            });
        }
        let (distances, logits) = self.distances(&feature)?;
        let probabilities = probabilities(&logits, self.temperature);
        let nearest = distances.iter().copied().fold(f32::INFINITY, f32::min);
        let mut order: Vec<usize> = (0..distances.len()).collect();
        order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
        let winner = order.first().copied();
        let scores = order
            .into_iter()
            .map(|class| Score {
                label: self.labels[class].clone(),
                probability: probabilities[class],
                distance: distances[class],
            })
            .collect();
        let ranked = self.ranked(&self.distance.prepare(feature));
        let is_winners = |own: &&(f32, usize)| Some(self.supports[own.1].class) == winner;
        let of_winner = ranked.iter().filter(is_winners);
        let elsewhere = ranked.first().filter(|own| !is_winners(own));
        let neighbour = |own: &(f32, usize)| self.neighbour(*own);
        Ok(ClassifiedFeature {
            scores,
            nearest: ranked.iter().take(count).map(neighbour).collect(),
            nearest_in_class: of_winner.take(count).map(neighbour).collect(),
            closest_elsewhere: elsewhere.map(neighbour),
            novelty: self.novelty.map(|scale| scale.share_nearer(nearest) as f32),
        })
    }

    /// The classifier with its class means moved towards `features`, which are to be classified together; `None` where its head has no
    /// metric, as `nearest-mean`, or learned none.
    ///
    /// # Errors
    /// As [`Self::classify`].
    pub fn moved_towards(&self, features: &[&[f32]]) -> Result<Option<Self>, ClassifierError> {
        let Reader::Metric(kind, head) = &self.reader else {
            return Ok(None);
        };
        let mut per_class = vec![0; self.labels.len()];
        for support in &self.supports {
            per_class[support.class] += 1;
        }
        let moved = head.moved_towards(features, &per_class)?;
        Ok(moved.map(|head| Self {
            reader: Reader::Metric(*kind, head),
            ..self.clone()
        }))
    }

    /// To each class, and what the temperature divides: for the distance of a metric its square.
    fn distances(&self, feature: &[f32]) -> Result<(Vec<f32>, Vec<f32>), ClassifierError> {
        match &self.reader {
            Reader::NearestMean(prototypes) => {
                let feature = self.distance.prepare(feature.to_vec());
                let to = |prototype: &Vec<f32>| self.distance.between(prototype, &feature);
                let distances: Vec<f32> = prototypes.iter().map(to).collect();
                Ok((distances.clone(), distances))
            }
            Reader::Metric(_, head) => {
                let squares = head.squared_distances(&[feature])?;
                let squares: Vec<f64> = squares.row(0).iter().copied().collect();
                // In `f64` up to here: of large squares the small differences count.
                let nearest = squares.iter().copied().fold(f64::INFINITY, f64::min);
                let distances = squares.iter().map(|square| square.sqrt() as f32);
                let above = squares.iter().map(|square| (square - nearest) as f32);
                Ok((distances.collect(), above.collect()))
            }
        }
    }

    /// All supports by their distance to a prepared feature, each as its index, nearest first.
    fn ranked(&self, prepared: &[f32]) -> Vec<(f32, usize)> {
        let distance = |own: &Support| self.distance.between(&own.feature, prepared);
        let supports = self.supports.iter().enumerate();
        let mut ranked: Vec<(f32, usize)> = supports
            .map(|(index, own)| (distance(own), index))
            .collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        ranked
    }

    fn neighbour(&self, (distance, support): (f32, usize)) -> Neighbour {
        let Support { image, class, .. } = &self.supports[support];
        Neighbour {
            support,
            image: image.clone(),
            label: self.labels[*class].clone(),
            distance,
        }
    }
}

/// A head and what it learned about its own certainty.
struct Fitted {
    kind: HeadKind,
    /// `None` for the nearest mean.
    head: Option<FittedHead>,
    temperature: f32,
    calibration: Calibration,
    novelty: Option<NoveltyScale>,
}

impl Fitted {
    fn of(
        labels: &[String],
        supports: &[Support],
        settings: HeadSettings,
        distance: Distance,
    ) -> Result<Self, ClassifierError> {
        let copies: Vec<Vec<&[f32]>> = supports
            .iter()
            .map(|support| support.copies.iter().map(Vec::as_slice).collect())
            .collect();
        let examples: Vec<LabelledFeature<'_>> = supports
            .iter()
            .zip(&copies)
            .map(|(support, copies)| LabelledFeature {
                class: support.class,
                feature: &support.feature,
                copies: &copies[..copies.len().min(settings.copies as usize)],
            })
            .collect();
        let is_nearest_mean = settings.kind == HeadKind::NearestMean;
        let head = FittedHead::fit(&settings, labels.len(), &examples)?;
        let usual = head.usual_temperature();
        // Other distances than the cosine are not those of a head.
        let left_out = match is_nearest_mean && distance != Distance::Cosine {
            true => Vec::new(),
            false => leave_out(&settings, &head, &examples)?,
        };
        let calibration = match left_out.is_empty() {
            true => Calibration::None,
            false => Calibration::Supports,
        };
        // The squared distance of two directions is twice their cosine distance.
        let (temperature, per) = match is_nearest_mean {
            true => (temperature(&left_out, usual) / 2.0, Squares::HalvedToCosine),
            false => (temperature(&left_out, usual), Squares::Rooted),
        };
        let novelty = match NoveltyScale::of(&left_out, per) {
            None if !is_nearest_mean => {
                NoveltyScale::from_copies(&settings, labels.len(), &examples)?
            }
            novelty => novelty,
        };
        Ok(Self {
            kind: settings.kind,
            head: (!is_nearest_mean).then_some(head),
            temperature: temperature as f32,
            calibration,
            novelty,
        })
    }
}

fn check_supports(labels: &[String], supports: &[Support]) -> Result<(), ClassifierError> {
    let expected = supports.first().map_or(0, |support| support.feature.len());
    for Support {
        image,
        class,
        feature,
        copies,
    } in supports
    {
        for feature in std::iter::once(feature).chain(copies) {
            if feature.len() != expected {
                let found = feature.len();
                return Err(ClassifierError::Width { found, expected });
            }
            if !is_finite(feature) {
                return Err(ClassifierError::Invalid(format!(
                    "the feature of \"{image}\" is not finite"
                )));
            }
        }
        if *class >= labels.len() {
            return Err(ClassifierError::Invalid(format!(
                "\"{image}\" is of class {class}, and there are {}",
                labels.len()
            )));
        }
    }
    Ok(())
}

/// The mean of each class's features, which are prepared.
fn prototypes(
    labels: &[String],
    supports: &[Support],
    distance: Distance,
) -> Result<Vec<Vec<f32>>, ClassifierError> {
    (0..labels.len())
        .map(|class| {
            let of_class = supports.iter().filter(|support| support.class == class);
            distance
                .prototype(of_class.map(|support| support.feature.as_slice()))
                .ok_or(ClassifierError::EmptyClass(class))
        })
        .collect()
}

impl From<HeadError> for ClassifierError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::EmptyClass(class) => Self::EmptyClass(class),
            HeadError::Feature => Self::Invalid(error.to_string()),
        }
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

    fn nearest_mean(distance: Distance) -> ClassifierSettings {
        ClassifierSettings {
            head: HeadChoice::Named(HeadKind::NearestMean.into()),
            distance,
        }
    }

    fn support(image: &str, class: usize, feature: [f32; 2]) -> Support {
        Support {
            image: image.into(),
            class,
            feature: feature.to_vec(),
            copies: Vec::new(),
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
            nearest_mean(Distance::SquaredEuclidean),
        )
        .unwrap();
        let ClassifiedFeature {
            scores, nearest, ..
        } = classifier.classify(vec![0.5, 0.0], 2).unwrap();
        assert_eq!(scores[0].label, "right");
        assert!((scores[0].probability + scores[1].probability - 1.0).abs() < 1e-6);
        // Mean of class 0 is (-2, 0).
        assert_eq!(scores[1].distance, 6.25);
        let names: Vec<&str> = nearest.iter().map(|n| n.image.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn the_nearest_examples_of_the_winner_are_named_and_a_closer_one_of_another_class() {
        let supports = vec![
            support("a", 0, [-1.0, 0.0]),
            support("b", 0, [-3.0, 0.0]),
            support("c", 1, [2.0, 0.0]),
            support("d", 1, [2.5, 0.0]),
        ];
        let labels = vec!["left".into(), "right".into()];
        let settings = nearest_mean(Distance::SquaredEuclidean);
        let classifier = Classifier::new(labels, supports, settings).unwrap();
        let places = |near: &[Neighbour]| near.iter().map(|own| own.support).collect::<Vec<_>>();
        // The means are at -2 and 2.25; the example at -1 is the nearest of all.
        let far = classifier.classify(vec![0.4, 0.0], 1).unwrap();
        assert_eq!(far.scores[0].label, "right");
        assert_eq!(places(&far.nearest), [0]);
        assert_eq!(places(&far.nearest_in_class), [2]);
        assert_eq!(far.closest_elsewhere.unwrap().image, "a");
        let inside = classifier.classify(vec![2.4, 0.0], 5).unwrap();
        assert_eq!(places(&inside.nearest), [3, 2, 0, 1]);
        assert_eq!(places(&inside.nearest_in_class), [3, 2]);
        assert_eq!(inside.closest_elsewhere, None);
        let none = classifier.classify(vec![0.4, 0.0], 0).unwrap();
        assert!(none.nearest.is_empty() && none.nearest_in_class.is_empty());
        assert!(none.closest_elsewhere.is_some());
    }

    #[test]
    fn a_class_without_support_images_is_named() {
        let result = Classifier::new(
            vec!["full".into(), "empty".into()],
            vec![support("a", 0, [0.0, 1.0])],
            nearest_mean(Distance::SquaredEuclidean),
        );
        assert_eq!(result.unwrap_err(), ClassifierError::EmptyClass(1));
    }

    /// Five classes with one to five examples each, of drawn features.
    fn drawn(settings: ClassifierSettings, width: usize) -> (Classifier, ChaCha8Rng) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut supports = Vec::new();
        for class in 0..5 {
            for index in 0..=class {
                supports.push(Support {
                    image: format!("class {class}/\u{1f41f} {index}.jpg"),
                    class,
                    feature: draw(&mut random, width),
                    copies: (0..6).map(|_| draw(&mut random, width)).collect(),
                });
            }
        }
        let labels = ["a/b", "\"quoted\"", "\u{1f41f}", "", "e"].map(String::from);
        (
            Classifier::new(labels.to_vec(), supports, settings).unwrap(),
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

    fn bits(answer: &ClassifiedFeature) -> Vec<(String, u32, u32)> {
        let scores = answer.scores.iter().map(|score| {
            let Score {
                label,
                probability,
                distance,
            } = score;
            (label.clone(), probability.to_bits(), distance.to_bits())
        });
        let nearest = answer.nearest.iter().map(|near| {
            let name = format!("{} {}", near.image, near.label);
            (name, near.distance.to_bits(), 0)
        });
        let novelty = answer.novelty.map(f32::to_bits).unwrap_or_default();
        let novelty = std::iter::once((String::new(), novelty, 0));
        scores.chain(nearest).chain(novelty).collect()
    }

    #[test]
    fn a_stored_classifier_answers_the_same_bit_for_bit() {
        let distances = [
            Distance::Cosine,
            Distance::SquaredEuclidean,
            Distance::Euclidean,
        ];
        let heads = [HeadKind::Lda, HeadKind::LdaAugmented].map(|head| ClassifierSettings {
            head: HeadChoice::Named(head.into()),
            distance: Distance::Cosine,
        });
        for settings in distances.map(nearest_mean).into_iter().chain(heads) {
            let (classifier, mut random) = drawn(settings, 384);
            assert_eq!(HeadChoice::Named(classifier.head().into()), settings.head);
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
        let (classifier, _) = drawn(nearest_mean(Distance::Cosine), 3);
        let mut json = serde_json::from_slice(&classifier.to_json().unwrap()).unwrap();
        change(&mut json);
        let read = Classifier::from_json(&serde_json::to_vec(&json).unwrap());
        read.unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let newer = read_changed(|json| {
            json["version"] = 3.into();
            json["new_field"] = true.into();
        });
        assert_eq!(
            newer,
            "the stored classifier has version 3 and this program reads version 2; make the classifier again from its examples"
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
        let (classifier, _) = drawn(nearest_mean(Distance::Cosine), 3);
        let stored = classifier.to_json().unwrap();
        for length in 0..stored.len() {
            assert!(Classifier::from_json(&stored[..length]).is_err());
        }
    }

    #[test]
    fn a_feature_of_another_width_is_refused() {
        let (classifier, _) = drawn(nearest_mean(Distance::Cosine), 3);
        assert_eq!(classifier.feature_width(), 3);
        let error = classifier.classify(vec![1.0; 4], 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a feature has 4 values, and the examples of the classifier have 3: it was made with another backbone"
        );
    }

    #[test]
    fn an_example_that_is_not_finite_is_refused() {
        let labels = vec!["a".into()];
        let supports = vec![support("a", 0, [f32::NAN, 0.0])];
        let refused = Classifier::new(labels, supports, nearest_mean(Distance::Cosine));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "the feature of \"a\" is not finite"
        );
    }
}
