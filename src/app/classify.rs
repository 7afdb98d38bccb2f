//! Classification from a few examples, in three steps: encode the examples, fit a classifier to them, answer with it.

use super::{
    Answer, App, AppError, Attention, Classification, ClassifyOptions, Fault, FittedClassifier,
    MOST_CLASSES, NamedImage, RefusedSupport, ServedAdapter, SupportClass,
};
use crate::inference::Encoded;
use recycle::classifier::{Classifier, ClassifierError, DistanceSoftmax, Support};
use std::collections::BTreeSet;

/// What became of each image, in order.
type EncodedImages = Vec<Result<Encoded, Fault>>;

impl App {
    /// Classifies `queries` into `classes`; nothing is stored. Decoding and encoding run off the async workers, examples and queries
    /// in the same batches.
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
        let (examples, mut images) = Examples::of(classes)?;
        let names = names(&queries);
        images.extend(queries);
        let mut encoded = self.encode(images, adapter).await?;
        let queries = encoded.split_off(examples.places.len());
        let FittedClassifier {
            classifier,
            refused,
        } = examples.fit(encoded, self.softmax)?;
        Ok(Classification {
            answers: answers(&classifier, names, queries, options)?,
            refused,
        })
    }

    /// Encodes the examples of `classes` and fits a classifier to them, for [`Self::answer`].
    ///
    /// # Errors
    /// [`AppError`]; an unusable image is not an error as long as its class has another.
    pub async fn fit(
        &self,
        classes: Vec<SupportClass>,
        adapter: Option<&ServedAdapter>,
    ) -> Result<FittedClassifier, AppError> {
        let (examples, images) = Examples::of(classes)?;
        let encoded = self.encode(images, adapter).await?;
        examples.fit(encoded, self.softmax)
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
        let encoded = self.encode(queries, adapter).await?;
        answers(classifier, names, encoded, options)
    }
}

/// The labelled images of all classes in one list, without their bytes.
struct Examples {
    labels: Vec<String>,
    /// Of each image, the index of its class and the image's name.
    places: Vec<(usize, String)>,
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
        Ok((Self { labels, places }, images))
    }

    /// A classifier fitted to the images that could be used.
    fn fit(
        self,
        encoded: EncodedImages,
        softmax: DistanceSoftmax,
    ) -> Result<FittedClassifier, AppError> {
        let Self { labels, places } = self;
        let mut supports = Vec::new();
        let mut refused = Vec::new();
        for ((class, image), result) in places.into_iter().zip(encoded) {
            match result {
                Ok(encoded) => supports.push(Support {
                    image,
                    class,
                    feature: encoded.feature,
                }),
                Err(error) => refused.push(RefusedSupport {
                    image,
                    label: labels[class].clone(),
                    error,
                }),
            }
        }
        match Classifier::new(labels.clone(), supports, softmax) {
            Ok(classifier) => Ok(FittedClassifier {
                classifier,
                refused,
            }),
            Err(ClassifierError::EmptyClass(class)) => Err(AppError::EmptyClass {
                label: labels[class].clone(),
                refused,
            }),
            Err(error) => Err(error.into()),
        }
    }
}

fn names(images: &[NamedImage]) -> Vec<String> {
    images.iter().map(|image| image.name.clone()).collect()
}

fn answers(
    classifier: &Classifier,
    names: Vec<String>,
    encoded: EncodedImages,
    options: ClassifyOptions,
) -> Result<Vec<Answer>, AppError> {
    let queries = names.into_iter().zip(encoded);
    queries
        .map(|(image, result)| match result {
            Ok(encoded) => answer(classifier, image, encoded, options),
            Err(error) => Ok(Answer::Failed { image, error }),
        })
        .collect()
}

fn check_classes(classes: &[SupportClass]) -> Result<(), AppError> {
    let bad = |problem: String| Err(AppError::BadClasses(problem));
    if classes.len() < 2 {
        return bad(format!(
            "a classification needs at least 2 classes, got {}",
            classes.len()
        ));
    }
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
    image: String,
    encoded: Encoded,
    options: ClassifyOptions,
) -> Result<Answer, AppError> {
    let attention = options.attention.then(|| attention(encoded.cls_attention));
    let (scores, nearest) = classifier.classify(encoded.feature, options.nearest)?;
    let label = scores
        .first()
        .map(|score| score.label.clone())
        .unwrap_or_default();
    Ok(Answer::Classified {
        image,
        label,
        scores,
        nearest,
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
