//! Which adapter tells a classifier's own examples apart best: each candidate is asked about examples that were left out.

use super::ClassifiersError;
use super::choice::{Asked, Automatic, Candidate, Decision};
use super::fit::{Means, Snapshot, snapshot};
use crate::app::encoding::{Example, MOST_COPIES_AT_ONCE};
use crate::app::registry::{BARE, RegistryError, ServedAdapter};
use crate::app::{App, AppError, CopiesWanted, Fault};
use crate::inference::EncodeError;
use recycle::classifier::ClassifierError;
use recycle::head::{FittedHead, HeadKind, HeadSettings, LabelledFeature, LeftOut, leave_out};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{AdapterChoice, ClassifierRecord, Privacy, StoreError};
use uuid::Uuid;

/// Adapters with an alias that are tried, those first whose alias moved last.
const MOST_PUBLISHED: usize = 4;

/// All that a choice needs, so that it can be made in the background.
struct Trial {
    classifier: Uuid,
    asked: Asked,
    snapshot: Snapshot,
    /// One per candidate, the default first.
    means: Vec<Means>,
}

impl App {
    /// The adapter that answers for `record`, which chooses for itself. Where many features are still missing it is chosen in the background,
    /// and until then the last choice answers, or the default.
    pub(super) async fn automatic_adapter(
        &self,
        record: &ClassifierRecord,
        wanted: CopiesWanted,
    ) -> Result<Option<ServedAdapter>, ClassifiersError> {
        let asked = self.asked(record).await?;
        if let Some(decision) = self.current_decision(record.id, &asked) {
            return self.still_there(&decision.automatic).await;
        }
        let turn = self.fits.turn(record.id).acquire().await;
        // Nobody closes it.
        let turn = turn.map_err(|_| EncodeError::Stopped)?;
        if let Some(decision) = self.current_decision(record.id, &asked) {
            return self.still_there(&decision.automatic).await;
        }
        let Some(trial) = self.trial(record, asked.clone()).await? else {
            let chosen = self.adapter(None).await?;
            let automatic = Arc::new(Automatic {
                chosen: chosen.as_ref().map(|own| Arc::clone(&own.record)),
                candidates: Vec::new(),
            });
            let decision = Decision { asked, automatic };
            self.fits.keep_decision(record.id, decision);
            return Ok(chosen);
        };
        let waits = wanted == CopiesWanted::Always || trial.missing().await? <= MOST_COPIES_AT_ONCE;
        if waits {
            let decision = trial.decide().await?;
            self.fits.keep_decision(record.id, decision.clone());
            return self.still_there(&decision.automatic).await;
        }
        drop(turn);
        self.decide_later(trial);
        match self.fits.decision(record.id) {
            Some(last) => self.still_there(&last.automatic).await,
            None => Ok(self.adapter(None).await?),
        }
    }

    /// What `record` chose last, and whether that is of its present examples; `None` where it does not choose for itself, or sees through another backbone.
    ///
    /// # Errors
    /// [`ClassifiersError`] of the store.
    pub async fn automatic(
        &self,
        record: &ClassifierRecord,
    ) -> Result<Option<(Arc<Automatic>, bool)>, ClassifiersError> {
        let is_of_backbone = record.backbone_digest.as_str() == self.backbone.digest;
        if record.adapter != AdapterChoice::Auto || !is_of_backbone {
            return Ok(None);
        }
        let asked = self.asked(record).await?;
        Ok(Some(match self.fits.decision(record.id) {
            Some(Decision {
                asked: last,
                automatic,
            }) => (automatic, last == asked),
            None => {
                let chosen = self.adapter(None).await?.map(|own| own.record);
                let candidates = Vec::new();
                (Arc::new(Automatic { chosen, candidates }), false)
            }
        }))
    }

    /// Whether `record` answers with an earlier choice, or with the default, until it has made another one in the background.
    pub(super) fn is_choosing(&self, record: &ClassifierRecord) -> bool {
        record.adapter == AdapterChoice::Auto && self.fits.is_choosing(record.id)
    }

    fn current_decision(&self, classifier: Uuid, asked: &Asked) -> Option<Decision> {
        let decision = self.fits.decision(classifier);
        decision.filter(|decision| decision.asked == *asked)
    }

    /// The chosen adapter; the default where it was deleted meanwhile.
    async fn still_there(
        &self,
        automatic: &Automatic,
    ) -> Result<Option<ServedAdapter>, ClassifiersError> {
        let Some(chosen) = &automatic.chosen else {
            return Ok(None);
        };
        let id = chosen.id.to_string();
        match self.adapter(Some(&id)).await {
            Err(AppError::Registry(RegistryError::Store(StoreError::UnknownAdapter {
                ..
            }))) => Ok(self.adapter(None).await?),
            served => Ok(served?),
        }
    }

    async fn asked(&self, record: &ClassifierRecord) -> Result<Asked, ClassifiersError> {
        let store = self.classifiers_store()?;
        let backbone = &record.backbone_digest;
        let default = store.default_adapter(backbone).await?.map(|own| own.id);
        let mut published = store.published_adapters(backbone).await?;
        published.retain(|&id| Some(id) != default);
        published.truncate(MOST_PUBLISHED);
        Ok(Asked {
            revision: record.revision,
            default,
            published,
        })
    }

    /// `None` where nothing can be compared: fewer than two classes have two pictures, there is one candidate, or pictures are not kept.
    async fn trial(
        &self,
        record: &ClassifierRecord,
        asked: Asked,
    ) -> Result<Option<Trial>, ClassifiersError> {
        let store = self.classifiers_store()?;
        let classes = store.classes(record.id).await?;
        let with_two = classes.iter().filter(|class| class.pictures >= 2).count();
        let is_bare_alone = asked.default.is_none() && asked.published.is_empty();
        if with_two < 2 || is_bare_alone || record.privacy == Privacy::Features {
            return Ok(None);
        }
        let snapshot = snapshot(store, record.id).await?;
        let mut candidates = vec![self.adapter(None).await?];
        if asked.default.is_some() {
            candidates.push(self.adapter(Some(BARE)).await?);
        }
        for id in &asked.published {
            candidates.push(self.adapter(Some(&id.to_string())).await?);
        }
        let means = candidates
            .into_iter()
            .map(|adapter| self.means(store, record, adapter.as_ref(), Vec::new()))
            .collect();
        Ok(Some(Trial {
            classifier: record.id,
            asked: Asked {
                revision: snapshot.record.revision,
                ..asked
            },
            snapshot,
            means,
        }))
    }

    /// Decides unless something else is encoded in the background; whoever asks next begins again then.
    fn decide_later(&self, trial: Trial) {
        self.fits.begin_choosing(trial.classifier);
        let Ok(permit) = Arc::clone(&self.fits.background).try_acquire_owned() else {
            return;
        };
        let fits = Arc::clone(&self.fits);
        tokio::spawn(async move {
            let _permit = permit;
            let classifier = trial.classifier;
            match trial.decide().await {
                Ok(decision) => fits.keep_decision(classifier, decision),
                // A picture may be gone by now, the encoder busy or stopped.
                Err(error) => tracing::debug!(%error, "a classifier did not choose its adapter"),
            }
        });
    }
}

impl Trial {
    /// Pictures that are still to be encoded, of all candidates together.
    async fn missing(&self) -> Result<usize, ClassifiersError> {
        let mut missing = 0;
        for means in &self.means {
            missing += means.missing(&self.snapshot).await?;
        }
        Ok(missing)
    }

    async fn decide(self) -> Result<Decision, ClassifiersError> {
        let Self {
            asked,
            snapshot,
            means,
            ..
        } = self;
        let mut features = Vec::with_capacity(means.len());
        for own in &means {
            let (examples, _) = own.examples(&snapshot, CopiesWanted::Always).await?;
            let plain = |example: Result<Example, Fault>| Some(example.ok()?.feature);
            features.push(examples.into_iter().map(plain).collect());
        }
        let classes = snapshot.examples.places.iter().map(|(class, _)| *class);
        let classes: Vec<usize> = classes.collect();
        let compared = tokio::task::spawn_blocking(move || compared(&classes, &features)).await;
        let right = compared
            .map_err(|error| EncodeError::Engine(format!("comparing adapters: {error}")))?
            .map_err(AppError::from)?;
        let best = best(&right);
        let candidates: Vec<Candidate> = means
            .into_iter()
            .zip(&right)
            .map(|(means, right)| Candidate {
                adapter: means.adapter.map(|own| own.record),
                right: right.iter().filter(|right| **right).count(),
                of: right.len(),
            })
            .collect();
        let chosen = candidates.get(best).and_then(|own| own.adapter.clone());
        let automatic = Arc::new(Automatic { chosen, candidates });
        Ok(Decision { asked, automatic })
    }
}

/// Of each candidate, which left-out examples it tells right; the same examples of all. `features` are those of each candidate, `None` where
/// a picture cannot be used.
fn compared(
    classes: &[usize],
    features: &[Vec<Option<Vec<f32>>>],
) -> Result<Vec<Vec<bool>>, ClassifierError> {
    let is_usable = |place: &usize| features.iter().all(|own| own[*place].is_some());
    let usable: Vec<usize> = (0..classes.len()).filter(is_usable).collect();
    // Classes whose pictures cannot be used take no part.
    let mut numbers = BTreeMap::new();
    for &place in &usable {
        let next = numbers.len();
        numbers.entry(classes[place]).or_insert(next);
    }
    // The head of the answers; where too few are left for a metric, the one without.
    for kind in [HeadKind::Lda, HeadKind::NearestMean] {
        let mut all = Vec::with_capacity(features.len());
        for own in features {
            let examples: Vec<LabelledFeature<'_>> = usable
                .iter()
                .filter_map(|&place| {
                    Some(LabelledFeature {
                        class: *numbers.get(&classes[place])?,
                        feature: own[place].as_deref()?,
                        copies: &[],
                    })
                })
                .collect();
            all.push(right(&kind.into(), numbers.len(), &examples)?);
        }
        let counts = |own: &Vec<bool>| own.len();
        let is_fair = all.iter().map(counts).min() == all.iter().map(counts).max();
        if is_fair && all.first().is_some_and(|own| !own.is_empty()) {
            return Ok(all);
        }
    }
    Ok(vec![Vec::new(); features.len()])
}

/// Whether the own class is the nearest, of each example that is left out.
fn right(
    settings: &HeadSettings,
    classes: usize,
    examples: &[LabelledFeature<'_>],
) -> Result<Vec<bool>, ClassifierError> {
    let whole = FittedHead::fit(settings, classes, examples)?;
    let left_out = leave_out(settings, &whole, examples)?;
    Ok(left_out.iter().map(is_right).collect())
}

fn is_right(left_out: &LeftOut) -> bool {
    let own = left_out.squared_distances[left_out.class];
    let others = left_out.squared_distances.iter().enumerate();
    let mut others = others.filter(|(class, _)| *class != left_out.class);
    others.all(|(_, &other)| own < other)
}

/// The place of the candidate that is right most often, of those that gain more than two standard errors over the first; else the first.
fn best(right: &[Vec<bool>]) -> usize {
    let count = |place: usize| right[place].iter().filter(|right| **right).count();
    let gainful = (1..right.len()).filter(|&place| gains(&right[0], &right[place]));
    gainful.fold(0, |best, place| {
        if count(place) > count(best) {
            place
        } else {
            best
        }
    })
}

/// Whether the mean gain of `after` over `before` on the same examples is above two standard errors: with `won` and `lost` examples that
/// is `(won − lost)² > 4·(won + lost)`, in whole numbers. One standard error would let an adapter that is no better take the place in every
/// third classifier.
fn gains(before: &[bool], after: &[bool]) -> bool {
    let pairs = || before.iter().zip(after);
    let won = pairs()
        .filter(|(before, after)| !**before && **after)
        .count();
    let lost = pairs()
        .filter(|(before, after)| **before && !**after)
        .count();
    won > lost && (won - lost).pow(2) > 4 * (won + lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many examples in a row that are right, then wrong, and so on.
    fn runs(lengths: &[usize]) -> Vec<bool> {
        let run = |(index, &length): (usize, &usize)| vec![index % 2 == 0; length];
        lengths.iter().enumerate().flat_map(run).collect()
    }

    #[test]
    fn a_candidate_takes_the_place_of_the_default_only_above_two_standard_errors() {
        let default = runs(&[10, 10]);
        assert!(!gains(&default, &default));
        // Four more right is exactly two standard errors.
        assert!(!gains(&default, &runs(&[14, 6])));
        assert!(gains(&default, &runs(&[15, 5])));
        // Nine won and one lost: 64 against 40. Eight won and two lost: 36 against 40.
        assert!(gains(&default, &runs(&[9, 1, 9, 1])));
        assert!(!gains(&default, &runs(&[8, 2, 8, 2])));
        assert!(!gains(&default, &runs(&[0, 20])));
    }

    #[test]
    fn the_best_of_those_that_gain_is_chosen_and_the_first_of_equals() {
        let default = runs(&[10, 10]);
        let [few, more] = [runs(&[15, 5]), runs(&[18, 2])];
        assert_eq!(best(&[default.clone(), few.clone(), more.clone()]), 2);
        assert_eq!(best(&[default.clone(), more.clone(), few, more]), 1);
        assert_eq!(best(&[default.clone(), runs(&[11, 9]), runs(&[0, 20])]), 0);
        assert_eq!(best(&[default]), 0);
    }

    fn right_of(all: &[bool]) -> usize {
        all.iter().filter(|right| **right).count()
    }

    #[test]
    fn candidates_are_asked_about_the_same_examples_those_that_all_could_read() {
        let classes = [0, 0, 0, 2, 2, 2, 5];
        let told = [0.0, 0.1, 0.2, 9.0, 9.1, 9.2, 40.0];
        let mixed = [0.0, 9.0, 0.2, 9.1, 0.1, 9.2, 40.0];
        let features = |values: [f32; 7]| -> Vec<Option<Vec<f32>>> {
            values.iter().map(|&value| Some(vec![value, 1.0])).collect()
        };
        let mut first = features(mixed);
        first[6] = None;
        let all = compared(&classes, &[first, features(told)]).expect("compared");
        assert_eq!(all[1], [true; 6]);
        assert_eq!(all[0].len(), 6);
        assert!(right_of(&all[1]) > right_of(&all[0]));
    }
}
