//! What would make a classifier better.

use super::Judged;

/// An example that looks as if it had another label.
#[derive(Debug, Clone, PartialEq)]
pub struct WrongLabel {
    /// Number of the example.
    pub example: usize,
    /// Number of the class that it is labelled with.
    pub class: usize,
    /// Number of the class that it looks like.
    pub looks_like: usize,
    /// How much more probable that class is than its own, 0 to 1.
    pub score: f64,
}

/// An example is named where another class is so much more probable than its own.
pub const LEAST_SCORE: f64 = 0.4;

/// The examples whose label is probably wrong, the surest first.
pub fn wrong_labels(judged: &[Judged], least_score: f64) -> Vec<WrongLabel> {
    let mut found: Vec<WrongLabel> = judged
        .iter()
        .map(|own| WrongLabel {
            example: own.example,
            class: own.class,
            looks_like: own.answered,
            score: own.probabilities[own.answered] - own.probabilities[own.class],
        })
        .filter(|own| own.looks_like != own.class && own.score >= least_score)
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.example.cmp(&b.example)));
    found
}

/// Two classes that are hard to tell apart.
#[derive(Debug, Clone, PartialEq)]
pub struct AlikeClasses {
    /// Numbers of the classes, the smaller first.
    pub classes: (usize, usize),
    /// The share of their examples that are sorted into the other one, 0 to 1.
    pub share: f64,
}

/// Of two classes that are one, half of the examples are sorted into the other.
const LEAST_SHARE_ALIKE: f64 = 0.3;
/// So many mistakes are not chance.
const LEAST_MISTAKES: usize = 3;

/// Pairs of classes that are often taken for each other, the worst first.
pub fn alike_classes(judged: &[Judged], classes: usize) -> Vec<AlikeClasses> {
    let mut counts = vec![0usize; classes];
    let mut mistakes = std::collections::BTreeMap::<(usize, usize), [usize; 2]>::new();
    for own in judged {
        counts[own.class] += 1;
        if own.answered != own.class {
            let pair = (own.class.min(own.answered), own.class.max(own.answered));
            mistakes.entry(pair).or_default()[usize::from(own.class > own.answered)] += 1;
        }
    }
    let mut found: Vec<AlikeClasses> = mistakes
        .into_iter()
        // Mistakes one way alone are wrong labels.
        .filter(|(_, [one, other])| *one > 0 && *other > 0 && one + other >= LEAST_MISTAKES)
        .map(|(classes, [one, other])| AlikeClasses {
            classes,
            share: (one + other) as f64 / (counts[classes.0] + counts[classes.1]) as f64,
        })
        .filter(|own| own.share >= LEAST_SHARE_ALIKE)
        .collect();
    found.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.classes.cmp(&b.classes)));
    found
}

/// The class for which more examples are worth most.
#[derive(Debug, Clone, PartialEq)]
pub struct NeedsMore {
    /// Number of the class.
    pub class: usize,
    /// The share of its examples that are sorted right now, 0 to 1.
    pub share: f64,
    /// What is expected of `count` more: how much this share grows.
    pub gain: f64,
    /// How many more.
    pub count: usize,
}

/// How many more examples are asked for.
const MORE: usize = 2;
/// What is expected below this is not worth saying.
const LEAST_GAIN: f64 = 0.01;

/// The class whose next two examples are expected to bring most. The expectation is a line in the logarithm of the number of examples that
/// a head is fitted to, through what heads of fewer (`halved`) and of more (`judged`) get right over all classes, as far as the class has
/// mistakes left to lose. `kept` are the mean numbers of examples of a class in both. `None` where they are the same.
pub fn needs_more(
    judged: &[Judged],
    halved: &[Judged],
    kept: (f64, f64),
    classes: usize,
) -> Option<NeedsMore> {
    let share = |all: &[Judged]| {
        let right = all.iter().filter(|own| own.answered == own.class).count();
        right as f64 / all.len().max(1) as f64
    };
    let doublings = (kept.0 / kept.1).log2();
    let wrong = 1.0 - share(judged);
    if judged.is_empty() || wrong <= 0.0 || !doublings.is_finite() || doublings <= 0.0 {
        return None;
    }
    let per_doubling = ((share(judged) - share(halved)) / doublings).max(0.0);
    let mut best: Option<NeedsMore> = None;
    for class in 0..classes {
        let own: Vec<&Judged> = judged.iter().filter(|own| own.class == class).collect();
        if own.is_empty() {
            continue;
        }
        let right = own.iter().filter(|own| own.answered == class).count();
        let share = right as f64 / own.len() as f64;
        let more = ((own.len() + MORE) as f64 / own.len() as f64).log2();
        let gain = (per_doubling * more * (1.0 - share) / wrong).min(1.0 - share);
        if gain >= LEAST_GAIN && best.as_ref().is_none_or(|best| gain > best.gain) {
            best = Some(NeedsMore {
                class,
                share,
                gain,
                count: MORE,
            });
        }
    }
    best
}
