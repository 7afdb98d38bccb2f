//! What happened to a classifier, for programs and in words.

use crate::{parse, parse_json};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Names that a sentence spells out; of more it gives the number.
const SPELLED: usize = 3;

/// Names of classes, the first few spelled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Names {
    /// At most three.
    pub first: Vec<String>,
    /// All of them.
    pub count: usize,
}

impl Names {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut first, mut count) = (Vec::new(), 0);
        for name in names {
            if count < SPELLED {
                first.push(name.to_owned());
            }
            count += 1;
        }
        Self { first, count }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.count.saturating_sub(self.first.len());
        match (self.first.split_last(), more) {
            (None, _) => write!(formatter, "{}", counted(more, "class", "classes")),
            (Some((last, [])), 0) => formatter.write_str(last),
            (Some((last, others)), 0) => write!(formatter, "{} and {last}", others.join(", ")),
            (Some(_), more) => write!(formatter, "{} and {more} more", self.first.join(", ")),
        }
    }
}

/// A change of a classifier. Its `Display` is a sentence without a full stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Name, adapter or head changed.
    SettingsChanged {
        /// The name before and after, where it changed.
        renamed: Option<(String, String)>,
        /// Whether the adapter changed.
        adapter: bool,
        /// Whether the head changed.
        head: bool,
    },
    /// New classes at the end.
    ClassesAdded {
        /// Theirs.
        classes: Names,
    },
    /// A class has another name.
    ClassRenamed {
        /// The name before.
        from: String,
        /// The name after.
        to: String,
    },
    /// The order of the classes changed.
    ClassesReordered,
    /// A class went with its pictures.
    ClassDeleted {
        /// Of the class.
        name: String,
        /// That it had.
        pictures: usize,
    },
    /// The pictures of one class went to another, and the class is gone.
    ClassMerged {
        /// The class that is gone.
        from: String,
        /// The class that has its pictures.
        into: String,
        /// Pictures that moved.
        pictures: usize,
        /// Pictures that both had.
        duplicates: usize,
    },
    /// New pictures.
    PicturesAdded {
        /// How many.
        pictures: usize,
        /// Where they are.
        classes: Names,
    },
    /// Pictures went to another class.
    PicturesMoved {
        /// Pictures that moved.
        pictures: usize,
        /// Where they were.
        from: Names,
        /// Where they are.
        to: String,
        /// Pictures that were there already.
        duplicates: usize,
    },
    /// Pictures are gone.
    PicturesDeleted {
        /// How many.
        pictures: usize,
        /// Where they were.
        from: Names,
    },
    /// An earlier change was taken back.
    Undone {
        /// That change.
        change: Box<Change>,
    },
    /// A change that was taken back was made again.
    Redone {
        /// That change.
        change: Box<Change>,
    },
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn pictures(count: usize) -> String {
    counted(count, "picture", "pictures")
}

/// As the end of a sentence about pictures that arrived.
fn already_there(duplicates: usize) -> String {
    match duplicates {
        0 => String::new(),
        1 => ", 1 was there already".to_owned(),
        many => format!(", {many} were there already"),
    }
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SettingsChanged {
                renamed,
                adapter,
                head,
            } => {
                let mut parts = Vec::new();
                if let Some((from, to)) = renamed {
                    parts.push(format!("renamed the classifier from {from} to {to}"));
                }
                if *adapter {
                    parts.push("changed how it sees".to_owned());
                }
                if *head {
                    parts.push("changed how it decides".to_owned());
                }
                let sentence = parts.join(" and ");
                let mut letters = sentence.chars();
                let first: String = letters
                    .next()
                    .into_iter()
                    .flat_map(char::to_uppercase)
                    .collect();
                write!(formatter, "{first}{}", letters.as_str())
            }
            Self::ClassesAdded { classes } => write!(formatter, "Added {classes}"),
            Self::ClassRenamed { from, to } => write!(formatter, "Renamed {from} to {to}"),
            Self::ClassesReordered => formatter.write_str("Changed the order of the classes"),
            Self::ClassDeleted { name, pictures: 0 } => write!(formatter, "Deleted {name}"),
            Self::ClassDeleted {
                name,
                pictures: count,
            } => write!(formatter, "Deleted {name} with {}", pictures(*count)),
            Self::ClassMerged {
                from,
                into,
                pictures: count,
                duplicates,
            } => write!(
                formatter,
                "Merged {from} into {into} with {}{}",
                pictures(*count),
                already_there(*duplicates)
            ),
            Self::PicturesAdded {
                pictures: count,
                classes,
            } => write!(formatter, "Added {} to {classes}", pictures(*count)),
            Self::PicturesMoved {
                pictures: count,
                from,
                to,
                duplicates,
            } => write!(
                formatter,
                "Moved {} from {from} to {to}{}",
                pictures(*count),
                already_there(*duplicates)
            ),
            Self::PicturesDeleted {
                pictures: count,
                from,
            } => write!(formatter, "Deleted {} from {from}", pictures(*count)),
            Self::Undone { change } => {
                write!(formatter, "Undid: {}", lower_first(&change.to_string()))
            }
            Self::Redone { change } => {
                write!(formatter, "Redid: {}", lower_first(&change.to_string()))
            }
        }
    }
}

/// What can be done with a change that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ChangeState {
    /// It can be undone, after those that are newer.
    Done,
    /// It was undone and can be redone, after those that are older.
    Undone,
    /// Neither: it is too old, or an undoing or redoing itself.
    Closed,
}

#[derive(Debug, Error)]
#[error("\"{0}\" is not a state of a change")]
pub struct ChangeStateError(String);

impl FromStr for ChangeState {
    type Err = ChangeStateError;

    fn from_str(text: &str) -> Result<Self, ChangeStateError> {
        match text {
            "done" => Ok(Self::Done),
            "undone" => Ok(Self::Undone),
            "closed" => Ok(Self::Closed),
            other => Err(ChangeStateError(other.to_owned())),
        }
    }
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeRecord {
    /// The revision that it led to.
    pub revision: u64,
    /// What it was.
    pub change: Change,
    /// When, in milliseconds since 1970 (UTC).
    pub made_ms: i64,
    /// Who made it.
    pub made_by: String,
    /// Whether it can be undone or redone.
    pub state: ChangeState,
}

impl FromRow<'_, SqliteRow> for ChangeRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let revision: i64 = row.try_get("revision")?;
        Ok(Self {
            revision: revision.unsigned_abs(),
            change: parse_json(row.try_get("change")?)?,
            made_ms: row.try_get("made_ms")?,
            made_by: row.try_get("made_by")?,
            state: parse(row.try_get("state")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Names {
        Names::new(names.iter().copied())
    }

    #[test]
    fn changes_are_plain_sentences() {
        let moved = Change::PicturesMoved {
            pictures: 3,
            from: names(&["Oak"]),
            to: "Ash".to_owned(),
            duplicates: 1,
        };
        let settings = |renamed, adapter, head| Change::SettingsChanged {
            renamed,
            adapter,
            head,
        };
        let rename = Some(("Trees".to_owned(), "Leaves".to_owned()));
        for (change, sentence) in [
            (
                moved.clone(),
                "Moved 3 pictures from Oak to Ash, 1 was there already",
            ),
            (
                Change::Undone {
                    change: Box::new(moved),
                },
                "Undid: moved 3 pictures from Oak to Ash, 1 was there already",
            ),
            (
                Change::PicturesAdded {
                    pictures: 1,
                    classes: names(&["Oak", "Ash"]),
                },
                "Added 1 picture to Oak and Ash",
            ),
            (
                Change::ClassesAdded {
                    classes: names(&["Oak", "Ash", "Elm", "Fir", "Yew"]),
                },
                "Added Oak, Ash, Elm and 2 more",
            ),
            (
                Change::ClassDeleted {
                    name: "Oak".to_owned(),
                    pictures: 0,
                },
                "Deleted Oak",
            ),
            (
                settings(rename, true, false),
                "Renamed the classifier from Trees to Leaves and changed how it sees",
            ),
            (settings(None, false, true), "Changed how it decides"),
        ] {
            assert_eq!(change.to_string(), sentence);
            let text = serde_json::to_string(&change).expect("write");
            let read: Change = serde_json::from_str(&text).expect("read");
            assert_eq!(read, change);
        }
    }
}
