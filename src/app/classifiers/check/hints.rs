//! What was found by a check, in words and as changes that can be made.

use super::Known;
use super::report::{Confusion, Hint, HintChange, HintKind};
use recycle::check::{AlikeClasses, Judged, LEAST_SCORE, NeedsMore, alike_classes, wrong_labels};
use std::collections::{BTreeMap, HashMap, HashSet};
use store::ClassRecord;
use uuid::Uuid;

/// Up to this many classes all pairs of classes are told.
const MOST_CLASSES_WHOLE: usize = 15;
/// Otherwise the worst.
const WORST_PAIRS: usize = 20;
const MOST_HINTS: usize = 200;

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Puts what was found into words and changes.
pub(super) struct Teller<'a> {
    pub known: &'a [Known],
    /// By number.
    pub classes: &'a [ClassRecord],
    /// Examples that are nearly the same picture, the most alike first.
    pub pairs: &'a [(usize, usize)],
    /// What heads that have not seen them make of the examples.
    pub judged: &'a [Judged],
}

impl Teller<'_> {
    /// All hints, what is worth most first. `more` is the class for which more pictures are worth most.
    pub fn hints(&self, more: Option<NeedsMore>) -> Vec<Hint> {
        let mut hints = self.pictures();
        let alike = alike_classes(self.judged, self.classes.len());
        hints.extend(alike.iter().map(|own| self.alike(own)));
        hints.extend(self.duplicates());
        hints.extend(more.map(|own| self.more(&own)));
        hints.truncate(MOST_HINTS);
        hints
    }

    /// Pictures that are in two classes, then those whose label is probably wrong.
    fn pictures(&self) -> Vec<Hint> {
        let judged = self.judged.iter().map(|own| (own.example, own));
        let by_example: HashMap<usize, &Judged> = judged.collect();
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
        for own in wrong_labels(self.judged, LEAST_SCORE) {
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

    fn alike(&self, own: &AlikeClasses) -> Hint {
        let [one, other] = [own.classes.0, own.classes.1].map(|class| &self.classes[class]);
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
    }

    fn more(&self, own: &NeedsMore) -> Hint {
        let class = &self.classes[own.class];
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
    }

    /// All pairs of classes where they are few, otherwise the worst mistakes.
    pub fn confusion(&self) -> Vec<Confusion> {
        let mut cells: BTreeMap<(usize, usize), Vec<Uuid>> = BTreeMap::new();
        for own in self.judged {
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
