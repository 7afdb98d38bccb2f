//! Fitted classifiers in memory, one for each classifier, adapter and head, as long as the classifier is at the same revision.

use super::choice::Decision;
use crate::app::FittedClassifier;
use lru::LruCache;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::Digest;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Values of the features of all that are kept: 256 MiB. The one that was used last stays, however large it is.
const MOST_VALUES: usize = 64 << 20;

/// Adapters that classifiers chose for themselves; those are forgotten that were asked for least recently, and chosen again.
const MOST_DECISIONS: usize = 1000;

/// Classifiers share these turns by their ids, so that one that takes long seldom keeps another waiting.
const TURNS: usize = 16;

/// What a fitted classifier is of, but for its revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FitKey {
    pub classifier: Uuid,
    /// `None` is the bare backbone.
    pub adapter: Option<Digest>,
    pub head: String,
}

#[derive(Debug, Clone)]
struct Kept {
    revision: u64,
    values: usize,
    fitted: Arc<FittedClassifier>,
}

/// What is kept in memory of all classifiers.
#[derive(Debug)]
pub struct ClassifierFits {
    fits: Mutex<LruCache<FitKey, Kept>>,
    decisions: Mutex<LruCache<Uuid, Decision>>,
    /// Classifiers that answer with their last choice until another one is made in the background.
    choosing: Mutex<LruCache<Uuid, ()>>,
    unwritten_uses_ms: Mutex<HashMap<Uuid, i64>>,
    /// Classifiers that are being prepared, and whether they changed since that began.
    preparing: Mutex<HashMap<Uuid, bool>>,
    turns: [Semaphore; TURNS],
    /// Copies of the pictures of one classifier at a time are encoded in the background.
    pub(super) background: Arc<Semaphore>,
}

impl Default for ClassifierFits {
    fn default() -> Self {
        Self {
            fits: Mutex::new(LruCache::unbounded()),
            decisions: Mutex::new(LruCache::unbounded()),
            choosing: Mutex::new(LruCache::unbounded()),
            unwritten_uses_ms: Mutex::default(),
            preparing: Mutex::default(),
            turns: std::array::from_fn(|_| Semaphore::new(1)),
            background: Arc::new(Semaphore::new(1)),
        }
    }
}

impl ClassifierFits {
    pub(super) fn find(&self, key: &FitKey, revision: u64) -> Option<Arc<FittedClassifier>> {
        let mut fits = locked(&self.fits);
        let kept = fits.get(key).filter(|kept| kept.revision == revision)?;
        Some(Arc::clone(&kept.fitted))
    }

    /// Keeps a classifier with `values` values in its features, in place of one of another revision.
    pub(super) fn keep(
        &self,
        key: FitKey,
        revision: u64,
        values: usize,
        fitted: &Arc<FittedClassifier>,
    ) {
        let mut fits = locked(&self.fits);
        let kept = Kept {
            revision,
            values,
            fitted: Arc::clone(fitted),
        };
        fits.put(key, kept);
        while fits.len() > 1
            && fits.iter().map(|(_, kept)| kept.values).sum::<usize>() > MOST_VALUES
        {
            fits.pop_lru();
        }
    }

    pub(super) fn drop_fit(&self, key: &FitKey) {
        locked(&self.fits).pop(key);
    }

    /// The adapter that the classifier chose last.
    pub(super) fn decision(&self, classifier: Uuid) -> Option<Decision> {
        locked(&self.decisions).get(&classifier).cloned()
    }

    pub(super) fn keep_decision(&self, classifier: Uuid, decision: Decision) {
        locked(&self.choosing).pop(&classifier);
        let mut decisions = locked(&self.decisions);
        decisions.put(classifier, decision);
        if decisions.len() > MOST_DECISIONS {
            decisions.pop_lru();
        }
    }

    pub(super) fn begin_choosing(&self, classifier: Uuid) {
        let mut choosing = locked(&self.choosing);
        choosing.put(classifier, ());
        if choosing.len() > MOST_DECISIONS {
            choosing.pop_lru();
        }
    }

    /// Whether the classifier's next choice is still to be made in the background.
    pub(super) fn is_choosing(&self, classifier: Uuid) -> bool {
        locked(&self.choosing).contains(&classifier)
    }

    /// Whose permit it takes to fit the classifier, or to let it choose: whoever asks for the same one waits and finds it.
    pub(super) fn turn(&self, classifier: Uuid) -> &Semaphore {
        let place = classifier.as_u128() % TURNS as u128;
        &self.turns[usize::try_from(place).unwrap_or(0)]
    }

    /// Whether nobody prepares the classifier yet; whoever does is told to look once more.
    pub(super) fn begin_preparing(&self, id: Uuid) -> bool {
        match locked(&self.preparing).entry(id) {
            Entry::Occupied(mut changed) => {
                changed.insert(true);
                false
            }
            Entry::Vacant(place) => {
                place.insert(false);
                true
            }
        }
    }

    /// Whether the classifier changed since it was prepared; if not, nobody prepares it any more.
    pub(super) fn prepare_again(&self, id: Uuid) -> bool {
        let mut preparing = locked(&self.preparing);
        match preparing.insert(id, false) {
            Some(true) => true,
            _ => {
                preparing.remove(&id);
                false
            }
        }
    }

    pub(super) fn note_use(&self, id: Uuid, at_ms: i64) {
        locked(&self.unwritten_uses_ms).insert(id, at_ms);
    }

    /// When classifiers answered since the last call.
    pub(super) fn take_uses(&self) -> Vec<(Uuid, i64)> {
        locked(&self.unwritten_uses_ms).drain().collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic between two calls leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::DEFAULT_CLASSIFIER;
    use recycle::classifier::{Classifier, Support};

    fn key(number: u128) -> FitKey {
        FitKey {
            classifier: Uuid::from_u128(number),
            adapter: None,
            head: "auto".to_owned(),
        }
    }

    fn fitted() -> Arc<FittedClassifier> {
        let support = |class| Support {
            image: String::new(),
            class,
            feature: vec![class as f32, 1.0],
            copies: Vec::new(),
        };
        let labels = vec!["a".to_owned(), "b".to_owned()];
        let supports = vec![support(0), support(1)];
        Arc::new(FittedClassifier {
            classifier: Classifier::new(labels, supports, DEFAULT_CLASSIFIER).expect("classifier"),
            refused: Vec::new(),
            ids: Vec::new(),
            is_provisional: false,
        })
    }

    #[test]
    fn changes_while_a_classifier_is_prepared_are_one_more_round() {
        let fits = ClassifierFits::default();
        let id = Uuid::from_u128(1);
        assert!(fits.begin_preparing(id));
        assert!(!fits.begin_preparing(id));
        assert!(!fits.begin_preparing(id));
        assert!(fits.prepare_again(id));
        assert!(!fits.prepare_again(id));
        assert!(fits.begin_preparing(id));
    }

    #[test]
    fn another_revision_is_another_classifier_and_takes_the_place_of_the_first() {
        let fits = ClassifierFits::default();
        fits.keep(key(1), 3, 4, &fitted());
        assert!(fits.find(&key(1), 3).is_some());
        assert!(fits.find(&key(1), 4).is_none());
        fits.keep(key(1), 4, 4, &fitted());
        assert!(fits.find(&key(1), 3).is_none());
        assert_eq!(locked(&fits.fits).len(), 1);
    }

    #[test]
    fn of_too_many_values_those_go_that_were_used_least_recently_but_the_last_one_stays() {
        let fits = ClassifierFits::default();
        for number in 1..=3 {
            fits.keep(key(number), 1, MOST_VALUES / 2, &fitted());
            fits.find(&key(1), 1);
        }
        assert!(fits.find(&key(1), 1).is_some());
        assert!(fits.find(&key(2), 1).is_none());
        assert!(fits.find(&key(3), 1).is_some());
        fits.keep(key(4), 1, 2 * MOST_VALUES, &fitted());
        assert!(fits.find(&key(4), 1).is_some());
        assert_eq!(locked(&fits.fits).len(), 1);
    }
}
