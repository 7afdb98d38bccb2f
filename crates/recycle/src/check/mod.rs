//! How good a classifier is by its own examples, and which of them look wrong: from features alone, before anybody sorts a new picture.
//! Knows features, class numbers and groups of near-duplicates; knows no pictures and no words.

mod duplicates;
mod hints;

pub use duplicates::{groups_of, similar_pairs};
pub use hints::{
    AlikeClasses, LEAST_SCORE, NeedsMore, WrongLabel, alike_classes, needs_more, wrong_labels,
};

use crate::head::{FittedHead, HeadError, HeadSettings, LabelledFeature, LeftOut, temperature};
use std::collections::{HashMap, HashSet};

/// Examples of a class are left out in at most this many parts.
pub const MOST_PARTS: usize = 5;
/// Parts where it is asked what fewer examples would give.
pub const HALVES: usize = 2;

/// What a head that has not seen an example makes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Number of the example.
    pub example: usize,
    /// Number of the class that it is labelled with.
    pub class: usize,
    /// Number of the most probable class.
    pub answered: usize,
    /// Of each class; calibrated on all examples that were left out.
    pub probabilities: Vec<f64>,
}

/// What heads say about examples that they have not seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// By number of the example; those that cannot be left out are not among them.
    pub judged: Vec<Judged>,
    /// Examples that a head was fitted to, the mean over classes and heads.
    pub kept_per_class: f64,
}

/// Scores examples by heads that are fitted without them and without their near-duplicates: of each class with two groups or more, one part
/// of at most `parts` after the other is left out. `groups[i]` names the near-duplicates that example `i` is one of; a group that lies in
/// several classes is left out of all of them at once. Classes that would have nothing left stay in all heads and are not judged.
///
/// # Errors
/// [`HeadError`]
///
/// # Panics
/// Where `groups` is not as long as `examples`.
pub fn judge(
    settings: &HeadSettings,
    classes: usize,
    examples: &[LabelledFeature<'_>],
    groups: &[usize],
    parts: usize,
) -> Result<Judgement, HeadError> {
    assert_eq!(examples.len(), groups.len(), "one group for each example");
    let part_of = parts_of(classes, examples, groups, parts);
    let mut left_out: Vec<(usize, LeftOut)> = Vec::new();
    let (mut heads, mut kept_in_all) = (0usize, 0usize);
    // Of the heads that judge: that of all examples may have a metric where theirs have none.
    let mut usual = None;
    for part in 0..parts {
        let is_out = |index: &usize| part_of[*index] == Some(part);
        let (out, kept): (Vec<usize>, Vec<usize>) = (0..examples.len()).partition(is_out);
        if out.is_empty() {
            continue;
        }
        let chosen = |places: &[usize]| -> Vec<LabelledFeature<'_>> {
            places.iter().map(|&index| examples[index]).collect()
        };
        let head = FittedHead::fit(settings, classes, &chosen(&kept))?;
        usual.get_or_insert(head.usual_temperature());
        heads += 1;
        kept_in_all += kept.len();
        let measured = LeftOut::of(&head, &chosen(&out))?;
        left_out.extend(out.into_iter().zip(measured));
    }
    left_out.sort_by_key(|(index, _)| *index);
    let (indices, left_out): (Vec<usize>, Vec<LeftOut>) = left_out.into_iter().unzip();
    let temperature = usual.map_or(1.0, |usual| temperature(&left_out, usual));
    let judged = indices.into_iter().zip(left_out).map(|(example, own)| {
        let probabilities = own.probabilities(temperature);
        Judged {
            example,
            class: own.class,
            answered: largest(&probabilities),
            probabilities,
        }
    });
    Ok(Judgement {
        judged: judged.collect(),
        kept_per_class: kept_in_all as f64 / (heads.max(1) * classes.max(1)) as f64,
    })
}

/// The part in which each example is left out; none where its class would have nothing left then. The groups of a class are spread over
/// the parts.
fn parts_of(
    classes: usize,
    examples: &[LabelledFeature<'_>],
    groups: &[usize],
    parts: usize,
) -> Vec<Option<usize>> {
    let mut part_of_group: HashMap<usize, usize> = HashMap::new();
    let mut seen = vec![0usize; classes];
    for (example, &group) in examples.iter().zip(groups) {
        part_of_group.entry(group).or_insert_with(|| {
            seen[example.class] += 1;
            (seen[example.class] - 1) % parts
        });
    }
    // Groups of classes that lie in one part alone stay, and so does what lies in them of other classes: a copy must not speak for the
    // class that it was left in.
    let mut stays: HashSet<usize> = HashSet::new();
    loop {
        let mut parts_of_class = vec![HashSet::new(); classes];
        for (example, group) in examples.iter().zip(groups) {
            let part = (!stays.contains(group)).then(|| part_of_group[group]);
            parts_of_class[example.class].insert(part);
        }
        let more: HashSet<usize> = examples
            .iter()
            .zip(groups)
            .filter(|(example, group)| {
                let parts = &parts_of_class[example.class];
                !stays.contains(group) && parts.len() == 1
            })
            .map(|(_, group)| *group)
            .collect();
        if more.is_empty() {
            break;
        }
        stays.extend(more);
    }
    let part = |group: &usize| (!stays.contains(group)).then(|| part_of_group[group]);
    groups.iter().map(part).collect()
}

fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// Wilson's 95 % interval of a share, from how many of how many.
///
/// `(p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)`, `z = 1.96`.
pub fn wilson(right: usize, of: usize) -> (f64, f64) {
    const Z: f64 = 1.96;
    if of == 0 {
        return (0.0, 1.0);
    }
    let n = of as f64;
    let share = right as f64 / n;
    let middle = share + Z * Z / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (
        ((middle - reach) / scale).max(0.0),
        ((middle + reach) / scale).min(1.0),
    )
}

#[cfg(test)]
mod tests;
