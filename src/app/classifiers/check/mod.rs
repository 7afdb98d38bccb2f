//! How good a classifier is by its own examples, what it mixes up, and what would help.

mod hints;
mod report;

pub use report::Check;

use super::fit::{Means, Snapshot, snapshot};
use super::{Answering, ClassifiersError};
use crate::app::encoding::Example;
use crate::app::{App, AppError, CopiesWanted};
use crate::inference::EncodeError;
use hints::Teller;
use model::image_input::{ImageLimits, Signature};
use recycle::check::{HALVES, MOST_PARTS, groups_of, judge, needs_more, similar_pairs, wilson};
use recycle::classifier::ClassifierError;
use recycle::head::{HeadChoice, LabelledFeature};
use report::Accuracy;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::{ClassRecord, PictureRecord, Store};
use uuid::Uuid;

/// Features of the same picture, shrunk, recompressed or lightened, are at least so alike.
const LEAST_COSINE: f64 = 0.95;
/// Pairs whose pictures are compared; the most alike come first.
const MOST_PAIRS: usize = 2000;

/// A picture that can be used, with what is known of it.
struct Known {
    record: PictureRecord,
    class: usize,
    example: Example,
}

impl App {
    /// Checks the classifier `id` by its own examples. Features that are missing are encoded first.
    ///
    /// # Errors
    /// [`ClassifiersError`]
    pub async fn check_classifier(&self, id: Uuid) -> Result<Check, ClassifiersError> {
        let store = self.classifiers_store()?;
        let record = store.classifier(id).await?;
        let classes = store.classes(id).await?;
        let filled: Vec<ClassRecord> = classes.into_iter().filter(|own| own.pictures > 0).collect();
        if filled.len() < 2 {
            let pictures = filled.iter().map(|own| own.pictures as usize).sum();
            return Ok(Check {
                revision: record.revision,
                pictures,
                classes: filled.len(),
                accuracy: None,
                missing: Some(
                    "Two classes with two pictures each are the least that can be checked.".into(),
                ),
                confusion: Vec::new(),
                near_duplicates: Vec::new(),
                hints: Vec::new(),
            });
        }
        let adapter = self.adapter_of(&record, CopiesWanted::Soon).await?;
        let specs = HeadChoice::default().copy_specs();
        let means = self.means(store, &record, adapter.as_ref(), specs);
        let snapshot = snapshot(store, id).await?;
        let (revision, classes) = (snapshot.record.revision, snapshot.classes.clone());
        let known = Arc::new(known(&means, snapshot).await?);
        let pairs = same_pictures(store, &known, *self.limits()).await?;
        let head = Answering::of(&record).head;
        let check = blocking(move || found(revision, head, &known, &classes, &pairs)).await?;
        Ok(check.map_err(AppError::from)?)
    }
}

/// What `work` gives, off the async workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EncodeError> {
    let stopped = |error| EncodeError::Engine(format!("checking a classifier: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

/// What can be used of the classifier's pictures.
async fn known(means: &Means, snapshot: Snapshot) -> Result<Vec<Known>, ClassifiersError> {
    let (examples, _) = means.examples(&snapshot, CopiesWanted::Soon).await?;
    let places = snapshot.examples.places;
    let all = snapshot.pictures.into_iter().zip(places).zip(examples);
    let usable = all.filter_map(|((record, (class, _)), example)| {
        Some(Known {
            record,
            class,
            example: example.ok()?,
        })
    });
    Ok(usable.collect())
}

/// Pairs that are nearly the same picture, the most alike first: those whose features are alike, and then the pictures themselves.
async fn same_pictures(
    store: &Store,
    known: &Arc<Vec<Known>>,
    limits: ImageLimits,
) -> Result<Vec<(usize, usize)>, ClassifiersError> {
    let all = Arc::clone(known);
    let alike = move || {
        let features = all.iter().map(|own| own.example.feature.as_slice());
        let mut pairs = similar_pairs(&features.collect::<Vec<_>>(), LEAST_COSINE);
        pairs.truncate(MOST_PAIRS);
        pairs
    };
    let pairs = blocking(alike).await?;
    let both = |&(one, other): &(usize, usize)| [one, other];
    let wanted: HashSet<usize> = pairs.iter().flat_map(both).collect();
    let mut thumbnails = Vec::with_capacity(wanted.len());
    for index in wanted {
        let thumbnail = store.read_thumbnail(&known[index].record.thumbnail);
        thumbnails.push((index, thumbnail.await?));
    }
    let all = Arc::clone(known);
    let same = move || {
        let signatures: HashMap<usize, Signature> = thumbnails
            .iter()
            .filter_map(|(index, jpeg)| Some((*index, Signature::of(jpeg, &limits).ok()?)))
            .collect();
        let is_same = |(one, other): &(usize, usize)| {
            let is_file = all[*one].record.digest == all[*other].record.digest;
            let both = signatures.get(one).zip(signatures.get(other));
            is_file || both.is_some_and(|(one, other)| one.is_near(other))
        };
        pairs.into_iter().filter(is_same).collect()
    };
    Ok(blocking(same).await?)
}

fn found(
    revision: u64,
    head: HeadChoice,
    known: &[Known],
    classes: &[ClassRecord],
    pairs: &[(usize, usize)],
) -> Result<Check, ClassifierError> {
    let groups = groups_of(known.len(), pairs);
    let copies: Vec<Vec<&[f32]>> = known
        .iter()
        .map(|own| {
            let copies = own.example.copies.iter().flatten();
            copies.map(Vec::as_slice).collect()
        })
        .collect();
    let counts = copies.iter().map(Vec::len);
    let settings = head.settings_with(counts, classes.len());
    let examples: Vec<LabelledFeature<'_>> = known
        .iter()
        .zip(&copies)
        .map(|(own, copies)| LabelledFeature {
            class: own.class,
            feature: &own.example.feature,
            copies: if settings.copies > 0 { copies } else { &[] },
        })
        .collect();
    let judge = |parts| judge(&settings, classes.len(), &examples, &groups, parts);
    let (whole, halved) = (judge(MOST_PARTS)?, judge(HALVES)?);
    let more = needs_more(
        &whole.judged,
        &halved.judged,
        (whole.kept_per_class, halved.kept_per_class),
        classes.len(),
    );
    let judged = whole.judged;
    let judged_classes: HashSet<usize> = judged.iter().map(|own| own.class).collect();
    let alone: Vec<&str> = (0..classes.len())
        .filter(|class| !judged_classes.contains(class))
        .map(|class| classes[class].name.as_str())
        .collect();
    let right = judged
        .iter()
        .filter(|own| own.answered == own.class)
        .count();
    let of = judged.len();
    let (low, high) = wilson(right, of);
    let accuracy = (judged_classes.len() > 1).then(|| Accuracy {
        right,
        of,
        share: right as f64 / of.max(1) as f64,
        low,
        high,
    });
    let teller = Teller {
        known,
        classes,
        pairs,
        judged: &judged,
    };
    Ok(Check {
        revision,
        pictures: known.len(),
        classes: classes.len(),
        accuracy,
        missing: (!alone.is_empty()).then(|| missing(&alone)),
        confusion: teller.confusion(),
        near_duplicates: pairs
            .iter()
            .map(|&(one, other)| [known[one].record.id, known[other].record.id])
            .collect(),
        hints: teller.hints(more),
    })
}

fn missing(alone: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = alone
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let more = match alone.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("A class needs two different pictures to be checked: {shown}{more}.")
}
