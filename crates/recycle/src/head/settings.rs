//! Which head, with which settings, as people write it: `lda-augmented`, `lda:shrinkage=0.3`.

use super::copies::CopySpec;
use super::metric::Shrinkage;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A kind of head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// The nearest class mean, by the distance of the features themselves.
    NearestMean,
    /// Linear discriminant analysis: the metric of the covariance within the classes of the examples.
    Lda,
    /// The same with changed copies of the examples, so that one example of a class is enough.
    LdaAugmented,
}

impl HeadKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NearestMean, Self::Lda, Self::LdaAugmented];

    /// As people and programs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NearestMean => "nearest-mean",
            Self::Lda => "lda",
            Self::LdaAugmented => "lda-augmented",
        }
    }
}

/// A head with everything that decides what it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSettings {
    /// Where the metric comes from.
    pub kind: HeadKind,
    /// Of the covariance.
    pub shrinkage: Shrinkage,
    /// Copies of each example.
    pub copies: u32,
    /// Whether every other copy is a negative.
    pub negatives: bool,
    /// Whether two of four copies are mirrored.
    pub mirrored: bool,
    /// Limits of the changes, in percent of the usual ones.
    pub strength_percent: u32,
    /// Whether class means are taken over the copies, too.
    pub means_of_copies: bool,
    /// Whether a query stands for the mean of itself and its copies, which are encoded, too.
    pub queries_of_copies: bool,
}

/// `a` of the covariance where nothing else is asked for. Chosen on validation classes of letters, clothes and textures:
/// docs/experiments/NOTEBOOK.md, "Heads".
pub const USUAL_SHRINKAGE: f64 = 0.3;

impl From<HeadKind> for HeadSettings {
    fn from(kind: HeadKind) -> Self {
        Self {
            kind,
            shrinkage: Shrinkage::Fixed(USUAL_SHRINKAGE),
            copies: match kind {
                HeadKind::LdaAugmented => 6,
                HeadKind::NearestMean | HeadKind::Lda => 0,
            },
            negatives: true,
            mirrored: false,
            strength_percent: 100,
            means_of_copies: false,
            queries_of_copies: false,
        }
    }
}

impl HeadSettings {
    /// The copies that it needs of each example.
    pub fn copy_specs(&self) -> Vec<CopySpec> {
        let spec = |index| CopySpec {
            index,
            negative: self.negatives && index % 2 == 1,
            mirrored: self.mirrored && index % 4 >= 2,
            strength_percent: self.strength_percent,
        };
        (0..self.copies).map(spec).collect()
    }
}

impl fmt::Display for HeadSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::from(self.kind);
        formatter.write_str(self.kind.name())?;
        if self.shrinkage != usual.shrinkage {
            write!(formatter, ":shrinkage={}", self.shrinkage)?;
        }
        if self.copies != usual.copies {
            write!(formatter, ":copies={}", self.copies)?;
        }
        if self.strength_percent != usual.strength_percent {
            write!(formatter, ":strength={}", self.strength_percent)?;
        }
        for (name, value, usual) in [
            ("negatives", self.negatives, usual.negatives),
            ("mirrored", self.mirrored, usual.mirrored),
            ("means", self.means_of_copies, usual.means_of_copies),
            ("queries", self.queries_of_copies, usual.queries_of_copies),
        ] {
            if value != usual {
                write!(formatter, ":{name}={value}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for HeadSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let kind = HeadKind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| {
            let names = HeadKind::ALL.map(HeadKind::name).join(", ");
            format!("there is no head \"{name}\"; there are auto, {names}")
        })?;
        let mut settings = Self::from(kind);
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                format!("\"{part}\" in \"{text}\" is no setting; write it as shrinkage=0.5")
            })?;
            let refuse =
                |what: &str| format!("{key} is \"{value}\" in \"{text}\"; it must be {what}");
            let flag = || value.parse::<bool>().map_err(|_| refuse("true or false"));
            let number = |most: u32| match value.parse::<u32>() {
                Ok(number) if number <= most => Ok(number),
                _ => Err(refuse(&format!("a whole number up to {most}"))),
            };
            match key {
                "shrinkage" => settings.shrinkage = value.parse()?,
                "copies" => settings.copies = number(MOST_COPIES)?,
                "strength" => settings.strength_percent = number(300)?,
                "negatives" => settings.negatives = flag()?,
                "mirrored" => settings.mirrored = flag()?,
                "means" => settings.means_of_copies = flag()?,
                "queries" => settings.queries_of_copies = flag()?,
                _ => {
                    return Err(format!(
                        "a head has no setting \"{key}\"; there are shrinkage, copies, strength, negatives, mirrored, means, queries"
                    ));
                }
            }
        }
        Ok(settings)
    }
}

/// Most copies of one example.
pub const MOST_COPIES: u32 = 32;
