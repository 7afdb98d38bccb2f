//! Which layers of a backbone carry a LoRA: `all`, `last-6`, `last-6-at-most`, or a list.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A choice of layers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Layers {
    /// Every layer.
    #[default]
    All,
    /// This many of the last layers.
    Last(usize),
    /// This many of the last layers; all of a backbone that has fewer. What a preset names, which must suit every backbone.
    LastAtMost(usize),
    /// By 0-based number.
    List(Vec<usize>),
}

/// As it is written in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(String),
    List(Vec<usize>),
}

#[cfg(feature = "openapi")]
mod document {
    use super::Layers;
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
    use utoipa::{PartialSchema, ToSchema};

    impl PartialSchema for Layers {
        fn schema() -> RefOr<Schema> {
            let word = ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some("^(all|last-[0-9]+(-at-most)?|[0-9]+(, *[0-9]+)*)$"))
                .examples(["all", "last-6", "last-6-at-most"]);
            let number = ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(0));
            let list = ArrayBuilder::new().items(number).min_items(Some(1));
            OneOfBuilder::new()
                .description(Some(
                    "Layers of a backbone, in words or by their 0-based numbers.",
                ))
                .item(word)
                .item(list)
                .into()
        }
    }

    impl ToSchema for Layers {}
}

impl TryFrom<Written> for Layers {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Word(word) => word.parse(),
            Written::List(list) => Ok(Self::List(list)),
        }
    }
}

impl From<Layers> for Written {
    fn from(layers: Layers) -> Self {
        match layers {
            Layers::List(list) => Self::List(list),
            Layers::All | Layers::Last(_) | Layers::LastAtMost(_) => Self::Word(layers.to_string()),
        }
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("all"),
            Self::Last(count) => write!(formatter, "last-{count}"),
            Self::LastAtMost(count) => write!(formatter, "last-{count}-at-most"),
            Self::List(list) => {
                let numbers: Vec<String> = list.iter().map(usize::to_string).collect();
                formatter.write_str(&numbers.join(","))
            }
        }
    }
}

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || {
            format!(
                "layers is \"{text}\"; it must be all, last-N, last-N-at-most or numbers such as 0,1,2"
            )
        };
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(count) = text.strip_prefix("last-") {
            let layers = match count.strip_suffix("-at-most") {
                Some(most) => most.parse().map(Self::LastAtMost),
                None => count.parse().map(Self::Last),
            };
            return layers.map_err(|_| problem());
        }
        let numbers = text.split(',').map(|number| number.trim().parse());
        numbers
            .collect::<Result<_, _>>()
            .map(Self::List)
            .map_err(|_| problem())
    }
}

impl Layers {
    /// 0-based numbers of the chosen ones of `count` layers, ascending.
    ///
    /// # Errors
    /// A sentence where it chooses none, or layers that are not there.
    pub fn resolve(&self, count: usize) -> Result<Vec<usize>, String> {
        match self {
            Self::All => Ok((0..count).collect()),
            Self::LastAtMost(0) => Err(format!("layers is {self}; choose at least one")),
            Self::LastAtMost(most) => Ok((count.saturating_sub(*most)..count).collect()),
            Self::Last(last) if (1..=count).contains(last) => Ok((count - last..count).collect()),
            Self::Last(_) => Err(format!("layers is {self}; the backbone has {count} layers")),
            Self::List(list) => {
                let mut sorted = list.clone();
                sorted.sort_unstable();
                sorted.dedup();
                match sorted.last() {
                    None => Err("layers is empty; name at least one".into()),
                    Some(&largest) if largest >= count => Err(format!(
                        "layers has {largest}; the backbone has {count} layers, counted from 0"
                    )),
                    Some(_) => Ok(sorted),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_lists_are_read_and_written() {
        for (text, layers, resolved) in [
            ("\"all\"", Layers::All, vec![0, 1, 2, 3]),
            ("\"last-2\"", Layers::Last(2), vec![2, 3]),
            ("\"last-2-at-most\"", Layers::LastAtMost(2), vec![2, 3]),
            (
                "\"last-6-at-most\"",
                Layers::LastAtMost(6),
                vec![0, 1, 2, 3],
            ),
            ("[3,0]", Layers::List(vec![3, 0]), vec![0, 3]),
        ] {
            let read: Layers = serde_json::from_str(text).unwrap();
            assert_eq!(read, layers);
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(read.resolve(4).unwrap(), resolved);
        }
        assert_eq!("1, 3".parse(), Ok(Layers::List(vec![1, 3])));
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_number_of_layers() {
        assert_eq!(
            "first-2".parse::<Layers>().unwrap_err(),
            "layers is \"first-2\"; it must be all, last-N, last-N-at-most or numbers such as 0,1,2"
        );
        assert!("last-2-at-least".parse::<Layers>().is_err());
        assert_eq!(
            Layers::Last(5).resolve(4).unwrap_err(),
            "layers is last-5; the backbone has 4 layers"
        );
        assert_eq!(
            Layers::LastAtMost(0).resolve(4).unwrap_err(),
            "layers is last-0-at-most; choose at least one"
        );
        assert_eq!(
            Layers::List(vec![4]).resolve(4).unwrap_err(),
            "layers has 4; the backbone has 4 layers, counted from 0"
        );
        assert!(Layers::Last(0).resolve(4).is_err());
        assert!(Layers::List(vec![]).resolve(4).is_err());
    }
}
