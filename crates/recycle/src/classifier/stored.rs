//! The form in which a classifier is written down, and reading it without trust.

use super::{Classifier, ClassifierError, Reader, Support, check_supports, is_finite, prototypes};
use crate::head::{Calibration, FittedHead, HeadKind, NoveltyScale};
use engine::distance::Distance;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Version of the stored form; raised with every change that an earlier program would read wrongly.
pub const VERSION: u64 = 2;
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

/// The stored form: JSON. Prototypes are not stored, they follow from the supports; other heads are, as they are linear in the feature.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredClassifier {
    format: String,
    version: u64,
    distance: Distance,
    head: HeadKind,
    /// None for the nearest mean.
    linear: Option<FittedHead>,
    temperature: f32,
    calibration: Calibration,
    novelty: Option<NoveltyScale>,
    labels: Vec<String>,
    /// With features as they are compared: of length one for [`Distance::Cosine`].
    supports: Vec<Support>,
}

impl Classifier {
    /// The classifier as JSON, for [`Self::from_json`].
    ///
    /// # Errors
    /// [`ClassifierError::Invalid`] with what JSON cannot hold.
    pub fn to_json(&self) -> Result<Vec<u8>, ClassifierError> {
        let linear = match &self.reader {
            Reader::NearestMean(_) => None,
            Reader::Metric(_, head) => Some(head.clone()),
        };
        let stored = StoredClassifier {
            format: FORMAT.to_owned(),
            version: VERSION,
            distance: self.distance,
            head: self.head(),
            linear,
            temperature: self.temperature,
            calibration: self.calibration,
            novelty: self.novelty,
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
        check_supports(&stored.labels, &stored.supports)
            .map_err(|error| refuse(error.to_string()))?;
        let prototypes = prototypes(&stored.labels, &stored.supports, stored.distance)
            .map_err(|error| refuse(error.to_string()))?;
        let reader = match (stored.head, stored.linear) {
            (HeadKind::NearestMean, None) => Reader::NearestMean(prototypes),
            (HeadKind::Lda | HeadKind::LdaAugmented, Some(head))
                if head.sizes() == (stored.labels.len(), prototypes[0].len()) =>
            {
                Reader::Metric(stored.head, head)
            }
            _ => return Err(refuse("its head does not fit its classes".into())),
        };
        Ok(Self {
            distance: stored.distance,
            labels: stored.labels,
            reader,
            temperature: stored.temperature,
            calibration: stored.calibration,
            novelty: stored.novelty,
            supports: stored.supports,
        })
    }
}

impl StoredClassifier {
    /// What [`check_supports`] does not check.
    fn check(&self) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("its temperature is {}", self.temperature));
        }
        let is_scale = |value: f64| value.is_finite() && value > 0.0;
        if let Some(scale) = self.novelty
            && !(scale.mean.is_finite() && is_scale(scale.deviation) && is_scale(scale.degrees))
        {
            return Err("its scale of novelty is not finite".into());
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
