//! How good a classifier is by its own examples, what it mixes up, and what would help.

use super::ClassifiersError;
use super::fit::{Means, Snapshot, snapshot};
use crate::app::encoding::Example;
use crate::app::{App, AppError, CopiesWanted};
use crate::inference::EncodeError;
use model::image_input::{ImageLimits, Signature};
use recycle::check::{
    HALVES, Judged, LEAST_SCORE, MOST_PARTS, alike_classes, groups_of, judge, needs_more,
    similar_pairs, wilson, wrong_labels,
};
use recycle::classifier::ClassifierError;
use recycle::head::{HeadChoice, LabelledFeature};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use store::{ClassRecord, PictureRecord};
use utoipa::ToSchema;
use uuid::Uuid;

/// Features of the same picture, shrunk, recompressed or lightened, are at least so alike.
const LEAST_COSINE: f64 = 0.95;
/// Pairs whose pictures are compared; the most alike come first.
const MOST_PAIRS: usize = 2000;
/// Up to this many classes all pairs of classes are told.
const MOST_CLASSES_WHOLE: usize = 15;
/// Otherwise the worst.
const WORST_PAIRS: usize = 20;
const MOST_HINTS: usize = 200;

/// How good a classifier is by its own examples.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = ClassifierCheck)]
pub struct Check {
    /// Of the classifier.
    pub revision: u64,
    /// How many it has.
    pub pictures: usize,
    /// How many have pictures.
    pub classes: usize,
    /// Null where fewer than two classes have two different pictures.
    pub accuracy: Option<Accuracy>,
    /// What a better check needs, a sentence.
    pub missing: Option<String>,
    /// What examples of a class are sorted into: all pairs of classes up to 15 classes, otherwise the 20 worst mistakes.
    pub confusion: Vec<Confusion>,
    /// Ids of pictures that are nearly the same, the most alike first.
    pub near_duplicates: Vec<[Uuid; 2]>,
    /// What would help, what is worth most first.
    pub hints: Vec<Hint>,
}

/// How many examples are sorted right by a classifier that has seen neither them nor their near-duplicates: of each class one of at most
/// five parts after the other is left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Accuracy {
    pub right: usize,
    /// Examples that could be left out.
    pub of: usize,
    pub share: f64,
    /// Of Wilson's 95 % interval.
    pub low: f64,
    /// Of Wilson's 95 % interval.
    pub high: f64,
}

/// Examples of one class by what they are sorted into.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Confusion {
    /// Id of the class that they are in.
    #[serde(rename = "true")]
    pub labelled: Uuid,
    /// Id of the class that they are sorted into.
    pub answered: Uuid,
    pub count: usize,
    /// Ids of the pictures.
    pub images: Vec<Uuid>,
}

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HintKind {
    /// Another class is far more probable than the picture's own.
    WrongLabel,
    /// The same picture, or nearly, is in two classes.
    InTwoClasses,
    /// Two classes are taken for each other.
    AlikeClasses,
    /// Nearly the same picture is in a class twice.
    NearDuplicate,
    /// More pictures of this class are worth most.
    NeedsMore,
}

/// Something that would make a classifier better.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Hint {
    /// What it is about.
    pub kind: HintKind,
    /// For people.
    pub sentence: String,
    /// Ids of the pictures that it is about.
    pub images: Vec<Uuid>,
    /// Ids of the classes that it is about.
    pub classes: Vec<Uuid>,
    /// From 0 to 1; within a kind the larger is the surer.
    pub score: f64,
    /// What to do about it.
    pub change: HintChange,
}

/// A change that follows a hint.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HintChange {
    /// Move the picture to the class.
    Move {
        /// Id of the picture.
        image: Uuid,
        /// Id of the class.
        class: Uuid,
    },
    /// Delete the picture.
    Delete {
        /// Id of the picture.
        image: Uuid,
    },
    /// Merge the class into the other.
    Merge {
        /// Id of the class that goes.
        class: Uuid,
        /// Id of the class that gets its pictures.
        into: Uuid,
    },
    /// Add pictures to the class.
    Add {
        /// Id of the class.
        class: Uuid,
        /// How many.
        count: usize,
    },
}

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
        let (known, classes) = known(&means, snapshot, &filled).await?;
        let alike = alike_pictures(known).await?;
        let limits = *self.limits();
        let (known, pairs) = same_pictures(store, alike, limits).await?;
        let revision = record.revision;
        let found = tokio::task::spawn_blocking(move || found(revision, &known, &classes, &pairs));
        let found = found
            .await
            .map_err(|error| EncodeError::Engine(format!("checking a classifier: {error}")))?;
        Ok(found.map_err(AppError::from)?)
    }
}

/// What can be used of the classifier's pictures, and its classes in the order of their numbers.
async fn known(
    means: &Means,
    snapshot: Snapshot,
    filled: &[ClassRecord],
) -> Result<(Vec<Known>, Vec<ClassRecord>), ClassifiersError> {
    let (examples, _) = means.examples(&snapshot, CopiesWanted::Soon).await?;
    let Snapshot {
        examples: named,
        pictures,
        ..
    } = snapshot;
    // The snapshot may be of a later revision than the classes.
    let classes: Vec<ClassRecord> = named
        .labels
        .iter()
        .filter_map(|label| filled.iter().find(|own| own.name == *label).cloned())
        .collect();
    if classes.len() != named.labels.len() {
        return Err(EncodeError::Engine(
            "the classifier changed while it was checked; try again".into(),
        )
        .into());
    }
    let all = pictures.into_iter().zip(named.places).zip(examples);
    let usable = all.filter_map(|((record, (class, _)), example)| {
        Some(Known {
            record,
            class,
            example: example.ok()?,
        })
    });
    Ok((usable.collect(), classes))
}

/// The pictures again, with those pairs whose features are alike.
async fn alike_pictures(
    known: Vec<Known>,
) -> Result<(Vec<Known>, Vec<(usize, usize)>), ClassifiersError> {
    let compare = move || {
        let features: Vec<&[f32]> = known
            .iter()
            .map(|own| own.example.feature.as_slice())
            .collect();
        let mut pairs = similar_pairs(&features, LEAST_COSINE);
        pairs.truncate(MOST_PAIRS);
        (known, pairs)
    };
    let compared = tokio::task::spawn_blocking(compare).await;
    Ok(compared.map_err(|error| EncodeError::Engine(format!("comparing pictures: {error}")))?)
}

/// Of these pairs, those whose pictures are nearly the same.
async fn same_pictures(
    store: &store::Store,
    (known, pairs): (Vec<Known>, Vec<(usize, usize)>),
    limits: ImageLimits,
) -> Result<(Vec<Known>, Vec<(usize, usize)>), ClassifiersError> {
    let wanted: HashSet<usize> = pairs
        .iter()
        .flat_map(|&(one, other)| [one, other])
        .collect();
    let mut thumbnails = Vec::with_capacity(wanted.len());
    for index in wanted {
        thumbnails.push((
            index,
            store.read_thumbnail(&known[index].record.thumbnail).await?,
        ));
    }
    let compare = move || {
        let signatures: HashMap<usize, Signature> = thumbnails
            .iter()
            .filter_map(|(index, jpeg)| Some((*index, Signature::of(jpeg, &limits).ok()?)))
            .collect();
        let is_same = |(one, other): &(usize, usize)| {
            let is_file = known[*one].record.digest == known[*other].record.digest;
            let both = signatures.get(one).zip(signatures.get(other));
            is_file || both.is_some_and(|(one, other)| one.is_near(*other))
        };
        let same = pairs.into_iter().filter(is_same).collect();
        (known, same)
    };
    let compared = tokio::task::spawn_blocking(compare).await;
    Ok(compared.map_err(|error| EncodeError::Engine(format!("comparing pictures: {error}")))?)
}

fn found(
    revision: u64,
    known: &[Known],
    classes: &[ClassRecord],
    pairs: &[(usize, usize)],
) -> Result<Check, ClassifierError> {
    let groups = groups_of(known.len(), pairs);
    let copies: Vec<Vec<&[f32]>> = known
        .iter()
        .map(|own| {
            own.example
                .copies
                .iter()
                .flatten()
                .map(Vec::as_slice)
                .collect()
        })
        .collect();
    let mut settings = HeadChoice::default().settings();
    if copies
        .iter()
        .any(|own| own.len() < settings.copies as usize)
    {
        settings = HeadChoice::without_copies(known.len() as f64 / classes.len() as f64);
    }
    let examples: Vec<LabelledFeature<'_>> = known
        .iter()
        .zip(&copies)
        .map(|(own, copies)| LabelledFeature {
            class: own.class,
            feature: &own.example.feature,
            copies: if settings.copies > 0 { copies } else { &[] },
        })
        .collect();
    let invalid = |error: recycle::head::HeadError| ClassifierError::Invalid(error.to_string());
    let judged =
        judge(&settings, classes.len(), &examples, &groups, MOST_PARTS).map_err(invalid)?;
    let halved = judge(&settings, classes.len(), &examples, &groups, HALVES).map_err(invalid)?;
    let judged_classes: HashSet<usize> = judged.judged.iter().map(|own| own.class).collect();
    let alone: Vec<&str> = (0..classes.len())
        .filter(|class| !judged_classes.contains(class))
        .map(|class| classes[class].name.as_str())
        .collect();
    let teller = Teller {
        known,
        classes,
        pairs,
    };
    let more = needs_more(
        &judged.judged,
        &halved.judged,
        (judged.kept_per_class, halved.kept_per_class),
        classes.len(),
    );
    let mut hints = teller.pictures(&judged.judged);
    hints.extend(
        alike_classes(&judged.judged, classes.len())
            .into_iter()
            .map(|own| {
                let (one, other) = own.classes;
                let [one, other] = [one, other].map(|class| &classes[class]);
                Hint {
                    kind: HintKind::AlikeClasses,
                    sentence: format!(
                        "{} and {} are taken for each other in {} of their pictures",
                        one.name,
                        other.name,
                        percent(own.share)
                    ),
                    images: Vec::new(),
                    classes: vec![one.id, other.id],
                    score: own.share.min(1.0),
                    change: HintChange::Merge {
                        class: other.id,
                        into: one.id,
                    },
                }
            }),
    );
    hints.extend(teller.duplicates());
    hints.extend(more.map(|own| {
        let class = &classes[own.class];
        Hint {
            kind: HintKind::NeedsMore,
            sentence: format!(
                "{} of the pictures of {} are sorted right; {} more may make it {}",
                percent(own.share),
                class.name,
                own.count,
                percent((own.share + own.gain).min(1.0))
            ),
            images: Vec::new(),
            classes: vec![class.id],
            score: own.gain,
            change: HintChange::Add {
                class: class.id,
                count: own.count,
            },
        }
    }));
    hints.truncate(MOST_HINTS);
    let right = judged
        .judged
        .iter()
        .filter(|own| own.answered == own.class)
        .count();
    let of = judged.judged.len();
    let (low, high) = wilson(right, of);
    let accuracy = (judged_classes.len() > 1).then(|| Accuracy {
        right,
        of,
        share: right as f64 / of.max(1) as f64,
        low,
        high,
    });
    Ok(Check {
        revision,
        pictures: known.len(),
        classes: classes.len(),
        accuracy,
        missing: (!alone.is_empty()).then(|| missing(&alone)),
        confusion: teller.confusion(&judged.judged),
        near_duplicates: pairs
            .iter()
            .map(|&(one, other)| [known[one].record.id, known[other].record.id])
            .collect(),
        hints,
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

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Puts what was found into words and changes.
struct Teller<'a> {
    known: &'a [Known],
    classes: &'a [ClassRecord],
    pairs: &'a [(usize, usize)],
}

impl Teller<'_> {
    /// Pictures that are in two classes, then those whose label is probably wrong.
    fn pictures(&self, judged: &[Judged]) -> Vec<Hint> {
        let by_example: HashMap<usize, &Judged> =
            judged.iter().map(|own| (own.example, own)).collect();
        let mut told: HashSet<usize> = HashSet::new();
        let mut hints = Vec::new();
        for &(one, other) in self.pairs {
            let [first, second] = [one, other].map(|index| &self.known[index]);
            if first.class == second.class || told.contains(&one) || told.contains(&other) {
                continue;
            }
            told.extend([one, other]);
            // What a head that has seen neither says about both: the more probable class keeps its picture.
            let probability = |class: usize| {
                let of = |index| {
                    by_example
                        .get(&index)
                        .map_or(0.0, |own: &&Judged| own.probabilities[class])
                };
                of(one) + of(other)
            };
            let (stays, goes) = match probability(first.class) >= probability(second.class) {
                true => (first, second),
                false => (second, first),
            };
            hints.push(Hint {
                kind: HintKind::InTwoClasses,
                sentence: format!(
                    "{} in {} is nearly the same picture as {} in {}",
                    goes.record.name,
                    self.classes[goes.class].name,
                    stays.record.name,
                    self.classes[stays.class].name
                ),
                images: vec![goes.record.id, stays.record.id],
                classes: vec![self.classes[goes.class].id, self.classes[stays.class].id],
                score: 1.0,
                change: HintChange::Delete {
                    image: goes.record.id,
                },
            });
        }
        for own in wrong_labels(judged, LEAST_SCORE) {
            if !told.insert(own.example) {
                continue;
            }
            let picture = &self.known[own.example].record;
            let [class, looks_like] = [own.class, own.looks_like].map(|class| &self.classes[class]);
            hints.push(Hint {
                kind: HintKind::WrongLabel,
                sentence: format!(
                    "{} is in {} and looks like {}",
                    picture.name, class.name, looks_like.name
                ),
                images: vec![picture.id],
                classes: vec![class.id, looks_like.id],
                score: own.score,
                change: HintChange::Move {
                    image: picture.id,
                    class: looks_like.id,
                },
            });
        }
        hints
    }

    /// Pictures that are in a class twice: the later one can go.
    fn duplicates(&self) -> Vec<Hint> {
        let mut gone: HashSet<usize> = HashSet::new();
        let mut hints = Vec::new();
        for &(one, other) in self.pairs {
            let [first, second] = [one, other].map(|index| &self.known[index]);
            if first.class != second.class || gone.contains(&one) || !gone.insert(other) {
                continue;
            }
            let class = &self.classes[first.class];
            hints.push(Hint {
                kind: HintKind::NearDuplicate,
                sentence: format!(
                    "{} in {} is nearly the same picture as {}, and teaches nothing new",
                    second.record.name, class.name, first.record.name
                ),
                images: vec![second.record.id, first.record.id],
                classes: vec![class.id],
                score: 1.0,
                change: HintChange::Delete {
                    image: second.record.id,
                },
            });
        }
        hints
    }

    fn confusion(&self, judged: &[Judged]) -> Vec<Confusion> {
        let mut cells: BTreeMap<(usize, usize), Vec<Uuid>> = BTreeMap::new();
        for own in judged {
            let images = cells.entry((own.class, own.answered)).or_default();
            images.push(self.known[own.example].record.id);
        }
        let mut cells: Vec<((usize, usize), Vec<Uuid>)> = cells.into_iter().collect();
        if self.classes.len() > MOST_CLASSES_WHOLE {
            cells.retain(|((class, answered), _)| class != answered);
            cells.sort_by_key(|(_, images)| std::cmp::Reverse(images.len()));
            cells.truncate(WORST_PAIRS);
        }
        let cell = |((class, answered), images): ((usize, usize), Vec<Uuid>)| Confusion {
            labelled: self.classes[class].id,
            answered: self.classes[answered].id,
            count: images.len(),
            images,
        };
        cells.into_iter().map(cell).collect()
    }
}
