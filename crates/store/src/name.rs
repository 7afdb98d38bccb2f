//! Names that people type: of adapters, aliases, backbones and tags, and references to one adapter version.
//! This module deals only with text and does not know what is stored.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The most characters of a name.
pub const LONGEST_NAME: usize = 100;

/// ASCII letters, digits, `-`, `_` and `.`, starting with a letter or digit: fit for a URL, a file name and a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name or a reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum NameError {
    #[error("a name is empty; give at least one letter or digit")]
    Empty,
    #[error(
        "the name \"{start}…\" has {characters} characters; at most {LONGEST_NAME} are allowed"
    )]
    TooLong { start: String, characters: usize },
    #[error(
        "the name \"{name}\" has the character {character:?}; use letters (a-z, A-Z), digits, '-', '_' and '.'"
    )]
    BadCharacter { name: String, character: char },
    #[error("the name \"{0}\" must start with a letter or a digit")]
    BadStart(String),
    #[error(
        "\"{version}\" in \"{reference}\" is not a version; write name:version with a whole number from 1, for example \"meta:3\""
    )]
    BadVersion { reference: String, version: String },
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let characters = text.chars().count();
        if characters > LONGEST_NAME {
            return Err(NameError::TooLong {
                start: text.chars().take(20).collect(),
                characters,
            });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(character) = text.chars().find(|&c| !allowed(c)) {
            return Err(NameError::BadCharacter {
                name: text.to_owned(),
                character,
            });
        }
        match text.chars().next() {
            None => Err(NameError::Empty),
            Some(first) if !first.is_ascii_alphanumeric() => {
                Err(NameError::BadStart(text.to_owned()))
            }
            Some(_) => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which version of an adapter is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// `name`
    Newest,
    /// `name:version`
    Version(u32),
    /// `name@alias`
    Alias(Name),
}

/// One adapter version as people write it: `name`, `name:version` or `name@alias`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdapterReference {
    /// The name of the adapter.
    pub name: Name,
    /// Which of its versions.
    pub selector: Selector,
}

impl FromStr for AdapterReference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some((name, version)) = text.split_once(':') {
            let bad_version = || NameError::BadVersion {
                reference: text.to_owned(),
                version: version.to_owned(),
            };
            // Only the plain spelling: "+3" and "03" parse as numbers, but no version is ever shown like that.
            let number = version.parse::<u32>().map_err(|_| bad_version())?;
            if number == 0 || number.to_string() != version {
                return Err(bad_version());
            }
            return Ok(Self {
                name: name.parse()?,
                selector: Selector::Version(number),
            });
        }
        match text.split_once('@') {
            Some((name, alias)) => Ok(Self {
                name: name.parse()?,
                selector: Selector::Alias(alias.parse()?),
            }),
            None => Ok(Self {
                name: text.parse()?,
                selector: Selector::Newest,
            }),
        }
    }
}

impl TryFrom<String> for AdapterReference {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<AdapterReference> for String {
    fn from(reference: AdapterReference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for AdapterReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Selector::Newest => write!(formatter, "{}", self.name),
            Selector::Version(version) => write!(formatter, "{}:{version}", self.name),
            Selector::Alias(alias) => write!(formatter, "{}@{alias}", self.name),
        }
    }
}

/// The candidates that `wanted` may be a misspelling or a part of (or that may be a part of it), nearest first, at most three.
pub(super) fn near(wanted: &str, candidates: impl IntoIterator<Item = String>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    // A third of the characters may be wrong, and two in a short name.
    let allowed = (wanted.chars().count() / 3).max(2);
    let mut ranked: Vec<(usize, String)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = edit_distance(&wanted, &lower);
            // Two short names have nothing in common when every character would have to change.
            let is_typo =
                distance <= allowed && distance < wanted.chars().count().max(lower.chars().count());
            let is_part =
                !wanted.is_empty() && (lower.contains(&wanted) || wanted.contains(&lower));
            (is_typo || is_part).then_some((distance, candidate))
        })
        .collect();
    ranked.sort();
    ranked.dedup();
    ranked.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein distance in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    // row[j]: distance of the part of `left` read so far to the first j characters of `right`
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_names_are_refused_with_the_reason() {
        let longest = "a".repeat(LONGEST_NAME);
        for good in ["a", "9", "meta-LoRA_2.1", &longest] {
            assert_eq!(
                good.parse::<Name>().map(|name| name.to_string()),
                Ok(good.to_owned())
            );
        }
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert!(matches!(
            "a".repeat(101).parse::<Name>(),
            Err(NameError::TooLong {
                characters: 101,
                ..
            })
        ));
        for start in ["..", "-rf", "_x", ".hidden"] {
            assert_eq!(
                start.parse::<Name>(),
                Err(NameError::BadStart(start.to_owned()))
            );
        }
        for (bad, character) in [
            ("a b", ' '),
            ("a/b", '/'),
            ("größe", 'ö'),
            ("a\n", '\n'),
            ("a@b", '@'),
            ("a:1", ':'),
        ] {
            assert_eq!(
                bad.parse::<Name>(),
                Err(NameError::BadCharacter {
                    name: bad.to_owned(),
                    character
                })
            );
        }
    }

    #[test]
    fn references_read_back_as_they_were_written() {
        for text in ["meta", "meta:3", "meta@champion", "a.b-c_d:4294967295"] {
            let reference: AdapterReference = text.parse().expect(text);
            assert_eq!(reference.to_string(), text);
        }
        for version in ["0", "", "x", "03", "+3", "-1", "4294967296", "3@champion"] {
            let text = format!("meta:{version}");
            assert_eq!(
                text.parse::<AdapterReference>(),
                Err(NameError::BadVersion {
                    reference: text.clone(),
                    version: version.to_owned()
                })
            );
        }
        for text in [
            "",
            ":3",
            "@champion",
            "meta@",
            "meta@a@b",
            "meta@champion/../x",
        ] {
            assert!(text.parse::<AdapterReference>().is_err(), "{text} parsed");
        }
    }

    #[test]
    fn near_names_are_slips_and_parts_and_the_nearest_comes_first() {
        let names = || ["meta", "metal", "meta-champion", "flowers"].map(str::to_owned);
        assert_eq!(near("mta", names()), ["meta", "metal"]);
        assert_eq!(near("META", names()), ["meta", "metal", "meta-champion"]);
        assert_eq!(near("flower", names()), ["flowers"]);
        assert_eq!(near("zzzzzz", names()), Vec::<String>::new());
        assert_eq!(near("zz", ["ab".to_owned()]), Vec::<String>::new());
    }

    #[test]
    fn edit_distance_counts_insertions_deletions_and_replacements() {
        for (left, right, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
            ("abc", "ac", 1),
        ] {
            assert_eq!(edit_distance(left, right), distance, "{left} {right}");
            assert_eq!(edit_distance(right, left), distance, "{right} {left}");
        }
    }
}
