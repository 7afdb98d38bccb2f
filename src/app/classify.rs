//! Classification from a few examples, in three steps: encode the examples, fit a classifier to them, answer with it.

use super::encoding::Example;
use super::{
    Answer, App, AppError, Attention, Certainty, Classification, ClassifyOptions,
    DEFAULT_CLASSIFIER, Fault, FittedClassifier, MOST_CLASSES, NamedImage, Neighbour,
    RefusedSupport, ServedAdapter, SupportClass,
};
use crate::inference::Encoded;
use futures_util::future::try_join;
use recycle::classifier::{
    ClassifiedFeature, Classifier, ClassifierError, ClassifierSettings, Support,
};
use recycle::head::HeadChoice;
use std::collections::BTreeSet;
use uuid::Uuid;

/// What became of each image, in order.
pub(super) type EncodedImages = Vec<Result<Encoded, Fault>>;

impl App {
    /// Classifies `queries` into `classes`; nothing is stored. Decoding and encoding run off the async workers, examples and queries
    /// at the same time.
    ///
    /// # Errors
    /// [`AppError`]; an unusable query or support image is not an error but part of the result.
    pub async fn classify(
        &self,
        classes: Vec<SupportClass>,
        queries: Vec<NamedImage>,
        options: ClassifyOptions,
        adapter: Option<&ServedAdapter>,
    ) -> Result<Classification, AppError> {
        let names = names(&queries);
        let fitted = self.fit(classes, options, adapter);
        let encoded = self.pictures.encode(queries, adapter);
        let (fitted, encoded) = try_join(fitted, encoded).await?;
        Ok(Classification {
            answers: answers(&fitted.classifier, &[], names, encoded, options)?,
            refused: fitted.refused,
            is_provisional: fitted.is_provisional,
        })
    }

    /// Encodes the examples of `classes` and fits a classifier to them, for [`Self::answer`].
    ///
    /// # Errors
    /// [`AppError`]; an unusable image is not an error as long as its class has another.
    pub async fn fit(
        &self,
        classes: Vec<SupportClass>,
        options: ClassifyOptions,
        adapter: Option<&ServedAdapter>,
    ) -> Result<FittedClassifier, AppError> {
        let (examples, images) = Examples::of(classes)?;
        let specs = options.head.copy_specs();
        let encoded = self
            .pictures
            .examples(images, &specs, adapter, options.copies)
            .await?;
        let lacks_copies = |own: &Example| own.copies.is_none();
        let is_provisional = encoded.iter().flatten().any(lacks_copies);
        examples.fit(encoded, options.head, is_provisional)
    }

    /// Classifies `queries` with a classifier that was made with the same backbone and adapter.
    ///
    /// # Errors
    /// [`AppError`], among them [`AppError::Classifier`] for one of another backbone; an unusable query is part of the result.
    pub async fn answer(
        &self,
        classifier: &Classifier,
        queries: Vec<NamedImage>,
        options: ClassifyOptions,
        adapter: Option<&ServedAdapter>,
    ) -> Result<Vec<Answer>, AppError> {
        let names = names(&queries);
        let encoded = self.pictures.encode(queries, adapter).await?;
        answers(classifier, &[], names, encoded, options)
    }
}

/// The labelled images of all classes in one list, without their bytes.
pub(super) struct Examples {
    pub labels: Vec<String>,
    /// Of each image, the index of its class and the image's name.
    pub places: Vec<(usize, String)>,
    /// Of each image, where a store has it; else empty.
    pub ids: Vec<Uuid>,
}

impl Examples {
    /// The examples of `classes` and their images.
    fn of(classes: Vec<SupportClass>) -> Result<(Self, Vec<NamedImage>), AppError> {
        check_classes(&classes)?;
        let labels = classes.iter().map(|class| class.label.clone()).collect();
        let mut places = Vec::new();
        let mut images = Vec::new();
        for (class, SupportClass { images: own, .. }) in classes.into_iter().enumerate() {
            for image in own {
                places.push((class, image.name.clone()));
                images.push(image);
            }
        }
        let ids = Vec::new();
        let own = Self {
            labels,
            places,
            ids,
        };
        Ok((own, images))
    }

    /// A classifier fitted to the images that could be used.
    ///
    /// # Errors
    /// [`AppError::EmptyClass`], [`AppError::Classifier`].
    pub fn fit(
        self,
        encoded: Vec<Result<Example, Fault>>,
        head: HeadChoice,
        is_provisional: bool,
    ) -> Result<FittedClassifier, AppError> {
        let Self {
            labels,
            places,
            ids,
        } = self;
        let usable = ids.into_iter().zip(&encoded);
        let ids = usable.filter_map(|(id, result)| result.is_ok().then_some(id));
        let ids: Vec<Uuid> = ids.collect();
        let mut supports = Vec::new();
        let mut refused = Vec::new();
        for ((class, image), result) in places.into_iter().zip(encoded) {
            match result {
                Ok(encoded) => supports.push(Support {
                    image,
                    class,
                    feature: encoded.feature,
                    copies: encoded.copies.unwrap_or_default(),
                }),
                Err(error) => refused.push(RefusedSupport {
                    image,
                    label: labels[class].clone(),
                    error,
                }),
            }
        }
        let settings = ClassifierSettings {
            head,
            ..DEFAULT_CLASSIFIER
        };
        match Classifier::new(labels.clone(), supports, settings) {
            Ok(classifier) => Ok(FittedClassifier {
                classifier,
                refused,
                ids,
                is_provisional,
            }),
            Err(ClassifierError::EmptyClass(class)) => Err(AppError::EmptyClass {
                label: labels[class].clone(),
                refused,
            }),
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn names(images: &[NamedImage]) -> Vec<String> {
    images.iter().map(|image| image.name.clone()).collect()
}

/// `ids` are those of the classifier's examples, in their order, or empty.
pub(super) fn answers(
    classifier: &Classifier,
    ids: &[Uuid],
    names: Vec<String>,
    encoded: EncodedImages,
    options: ClassifyOptions,
) -> Result<Vec<Answer>, AppError> {
    let features = encoded.iter().flatten();
    let features: Vec<&[f32]> = features.map(|own| own.feature.as_slice()).collect();
    let moved = match options.transductive {
        true => classifier.moved_towards(&features)?,
        false => None,
    };
    let is_moved = moved.is_some();
    let classifier = moved.as_ref().unwrap_or(classifier);
    let queries = names.into_iter().zip(encoded);
    queries
        .map(|(image, result)| match result {
            Ok(encoded) => answer(classifier, ids, image, encoded, options, is_moved),
            Err(error) => Ok(Answer::Failed { image, error }),
        })
        .collect()
}

/// Refuses fewer than two classes.
pub(super) fn check_at_least_two(classes: usize) -> Result<(), AppError> {
    if classes < 2 {
        return Err(AppError::BadClasses(format!(
            "a classification needs at least 2 classes, got {classes}"
        )));
    }
    Ok(())
}

fn check_classes(classes: &[SupportClass]) -> Result<(), AppError> {
    let bad = |problem: String| Err(AppError::BadClasses(problem));
    check_at_least_two(classes.len())?;
    if classes.len() > MOST_CLASSES {
        return bad(format!(
            "at most {MOST_CLASSES} classes can be told apart at once, got {}",
            classes.len()
        ));
    }
    let mut seen = BTreeSet::new();
    for (index, class) in classes.iter().enumerate() {
        let label = class.label.trim();
        if label.is_empty() {
            return bad(format!("class {index} has no label"));
        }
        if !seen.insert(label) {
            return bad(format!("the label \"{label}\" appears twice"));
        }
    }
    Ok(())
}

fn answer(
    classifier: &Classifier,
    ids: &[Uuid],
    image: String,
    encoded: Encoded,
    options: ClassifyOptions,
    transductive: bool,
) -> Result<Answer, AppError> {
    let attention = options.attention.then(|| attention(encoded.cls_attention));
    let ClassifiedFeature {
        scores,
        nearest,
        nearest_in_class,
        closest_elsewhere,
        novelty,
    } = classifier.classify(encoded.feature, options.nearest)?;
    let is_beyond = |novelty: f32| options.reject.is_some_and(|share| novelty > 1.0 - share);
    let rejected = novelty.is_some_and(is_beyond);
    let certainty = match scores.first() {
        Some(best) if !rejected => Certainty::of(best.probability),
        _ => Certainty::None,
    };
    let neighbour = |near| Neighbour::new(near, ids);
    let neighbours = |near: Vec<_>| near.into_iter().map(neighbour).collect();
    let label = scores.first().map(|score| score.label.clone());
    Ok(Answer::Classified {
        image,
        label: label.filter(|_| !rejected),
        scores,
        certainty,
        nearest: neighbours(nearest),
        nearest_in_class: neighbours(nearest_in_class),
        closest_elsewhere: closest_elsewhere.map(neighbour),
        head: classifier.head(),
        calibration: classifier.calibration(),
        novelty,
        novelty_calibration: classifier.novelty_calibration(),
        transductive,
        rejected,
        attention,
    })
}

fn attention(mut values: Vec<f32>) -> Attention {
    let side = values.len().isqrt();
    let largest = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    for value in &mut values {
        *value /= largest;
    }
    Attention {
        rows: side,
        columns: side,
        values,
    }
}
