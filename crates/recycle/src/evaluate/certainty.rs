//! How sure answers are, measured: calibration of the probabilities, and whether novelty tells known classes from unknown ones.

use super::{Accuracy, ClassFeatures, accuracy};
use crate::classifier::{Classifier, ClassifierError, ClassifierSettings, Support};
use crate::episode::Episode;
use rand::SeedableRng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Bins of equal width of the calibration error.
const BINS: usize = 15;

/// Share of known images that novelty may refuse when [`Certainty::known_refused`] is counted.
pub const REFUSED_SHARE: f32 = 0.05;

/// How sure the answers to the queries of all tasks are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certainty {
    /// Expected calibration error of the highest probability, in 15 bins of equal width, over all queries; from 0 to 1.
    pub calibration_error: f64,
    /// Mean negative log-likelihood of the right class, in nats.
    pub log_loss: f64,
    /// Area under the curve by the highest probability, mean over tasks: a known image has a higher one than an unknown image.
    pub confidence_auroc: Accuracy,
    /// The same by novelty; `None` where no task has it.
    pub novelty_auroc: Option<Accuracy>,
    /// Share of images of known classes whose novelty is above `1 −` [`REFUSED_SHARE`].
    pub known_refused: Option<f64>,
    /// The same of images of unknown classes.
    pub unknown_refused: Option<f64>,
}

/// What one task says.
#[derive(Default)]
struct Answers {
    /// Highest probability, whether its class is right, probability of the right class.
    known: Vec<(f32, bool, f32)>,
    unknown: Vec<f32>,
    known_novelty: Vec<f32>,
    unknown_novelty: Vec<f32>,
}

/// Classifiers as they are served, fitted to each task, answer its queries and as many images of classes that are not in the task.
///
/// # Errors
/// [`ClassifierError`], also where all classes are in every task, so that none is unknown.
pub fn certainty(
    features: &ClassFeatures,
    episodes: &[Episode],
    settings: ClassifierSettings,
    seed: u64,
) -> Result<Certainty, ClassifierError> {
    let tasks: Vec<Answers> = episodes
        .par_iter()
        .enumerate()
        .map(|(index, episode)| task(features, episode, settings, seed ^ (index as u64) << 20))
        .collect::<Result<_, _>>()?;
    let known = || tasks.iter().flat_map(|task| &task.known);
    let count = known().count() as f64;
    let mut bins = [(0usize, 0f64, 0usize); BINS];
    for &(confidence, is_right, _) in known() {
        let bin = ((confidence * BINS as f32) as usize).min(BINS - 1);
        bins[bin].0 += 1;
        bins[bin].1 += f64::from(confidence);
        bins[bin].2 += usize::from(is_right);
    }
    let gaps = bins
        .iter()
        .map(|&(_, confidence, right)| (confidence - right as f64).abs());
    let losses = known().map(|&(_, _, right)| -f64::from(right.max(f32::MIN_POSITIVE)).ln());
    let confidence = tasks.iter().map(|task| {
        let known: Vec<f32> = task.known.iter().map(|own| own.0).collect();
        auroc(&known, &task.unknown)
    });
    let with_novelty: Vec<&Answers> = tasks
        .iter()
        .filter(|task| !task.known_novelty.is_empty())
        .collect();
    let novelty = with_novelty
        .iter()
        .map(|task| auroc(&task.unknown_novelty, &task.known_novelty));
    let novelty: Vec<f64> = novelty.collect();
    let refused = |of: fn(&Answers) -> &Vec<f32>| {
        let all = with_novelty.iter().flat_map(|task| of(task));
        let refused = all
            .clone()
            .filter(|&&novelty| novelty > 1.0 - REFUSED_SHARE);
        (!with_novelty.is_empty()).then(|| refused.count() as f64 / all.count() as f64)
    };
    Ok(Certainty {
        calibration_error: gaps.sum::<f64>() / count,
        log_loss: losses.sum::<f64>() / count,
        confidence_auroc: accuracy(&confidence.collect::<Vec<_>>()),
        novelty_auroc: (!novelty.is_empty()).then(|| accuracy(&novelty)),
        known_refused: refused(|task| &task.known_novelty),
        unknown_refused: refused(|task| &task.unknown_novelty),
    })
}

fn task(
    features: &ClassFeatures,
    episode: &Episode,
    settings: ClassifierSettings,
    seed: u64,
) -> Result<Answers, ClassifierError> {
    let places = features.places(&settings.head.settings())?;
    let mut supports = Vec::new();
    for (label, class) in episode.iter().enumerate() {
        for &image in &class.supports {
            let copies = features.copies_of(class.class, image, &places);
            supports.push(Support {
                image: String::new(),
                class: label,
                feature: features.plain[class.class][image].clone(),
                copies: copies.into_iter().map(<[f32]>::to_vec).collect(),
            });
        }
    }
    let labels = (0..episode.len()).map(|label| label.to_string()).collect();
    let classifier = Classifier::new(labels, supports, settings)?;
    let mut answers = Answers::default();
    for (label, class) in episode.iter().enumerate() {
        for &image in &class.queries {
            let feature = features.plain[class.class][image].clone();
            let answer = classifier.classify(feature, 0)?;
            let label = label.to_string();
            let right = answer.scores.iter().find(|score| score.label == label);
            let best = &answer.scores[0];
            let right = right.map_or(0.0, |score| score.probability);
            answers
                .known
                .push((best.probability, best.label == label, right));
            answers.known_novelty.extend(answer.novelty);
        }
    }
    let in_task = |class: &usize| episode.iter().any(|own| own.class == *class);
    let others = (0..features.plain.len()).filter(|class| !in_task(class));
    let others = others.flat_map(|class| (0..features.plain[class].len()).map(move |i| (class, i)));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let others = others.sample(&mut random, answers.known.len());
    if others.is_empty() {
        return Err(ClassifierError::Invalid(
            "every class is in every task, so none is unknown; choose a smaller way".into(),
        ));
    }
    for (class, image) in others {
        let answer = classifier.classify(features.plain[class][image].clone(), 0)?;
        answers.unknown.push(answer.scores[0].probability);
        answers.unknown_novelty.extend(answer.novelty);
    }
    Ok(answers)
}

/// Share of pairs in which the one of `higher` is above that of `lower`; equal ones count half.
fn auroc(higher: &[f32], lower: &[f32]) -> f64 {
    let mut sum = 0.0;
    for a in higher {
        for b in lower {
            sum += match a.total_cmp(b) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    sum / (higher.len() * lower.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episode::{EpisodeShape, draw_episodes};
    use crate::head::{HeadChoice, HeadKind};
    use engine::distance::Distance;
    use rand::RngExt;

    #[test]
    fn the_area_under_the_curve_counts_pairs() {
        assert_eq!(auroc(&[2.0, 3.0], &[1.0, 2.0]), 3.5 / 4.0);
        assert_eq!(auroc(&[1.0], &[1.0]), 0.5);
    }

    #[test]
    fn far_classes_are_novel_and_right_answers_are_certain() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        // Six classes, each near to an axis of its own.
        let mut near = |class: usize| -> Vec<f32> {
            (0..8)
                .map(|axis| f32::from(u8::from(axis == class)) + random.random_range(-0.1f32..0.1))
                .collect()
        };
        let plain: Vec<Vec<Vec<f32>>> = (0..6)
            .map(|class| (0..12).map(|_| near(class)).collect())
            .collect();
        let features = ClassFeatures {
            copies: plain
                .iter()
                .map(|own| vec![Vec::new(); own.len()])
                .collect(),
            plain,
            specs: Vec::new(),
        };
        let shape = EpisodeShape {
            way: 3,
            shot: 4,
            queries: 5,
        };
        let episodes = draw_episodes(&[12; 6], shape, 20, 1).unwrap();
        for head in [HeadKind::NearestMean, HeadKind::Lda] {
            let settings = ClassifierSettings {
                head: HeadChoice::Named(head.into()),
                distance: Distance::Cosine,
            };
            let found = certainty(&features, &episodes, settings, 0).unwrap();
            assert!(found.novelty_auroc.unwrap().mean > 0.99, "{found:?}");
            assert!(found.unknown_refused.unwrap() > 0.95, "{found:?}");
            assert!(found.known_refused.unwrap() < 0.2, "{found:?}");
            assert!(
                found.log_loss < 0.1 && found.calibration_error < 0.1,
                "{found:?}"
            );
        }
        let all = draw_episodes(&[12; 6], EpisodeShape { way: 6, ..shape }, 1, 1).unwrap();
        let settings = ClassifierSettings {
            head: HeadChoice::Named(HeadKind::Lda.into()),
            distance: Distance::Cosine,
        };
        assert!(certainty(&features, &all, settings, 0).is_err());
    }
}
