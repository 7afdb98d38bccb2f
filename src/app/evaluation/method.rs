//! What an evaluation compares.

use model::adapter::{MergeMethod, Merging, UnknownMerging};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// The kinds that do not merge; those before and after the merges, as they are shown.
macro_rules! method_kinds {
    ({ $($(#[$first_doc:meta])* $first:ident = $first_name:literal, $first_title:literal;)+ } merges
     { $($(#[$last_doc:meta])* $last:ident = $last_name:literal, $last_title:literal;)+ }) => {
        /// A way to classify the pictures of a task.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum MethodKind {
            $($(#[$first_doc])* $first,)+
            /// Features of a merge of several adapters, read by a head.
            Merge(Merging),
            $($(#[$last_doc])* $last,)+
        }

        impl MethodKind {
            /// All of them but merges after Pico, in the order in which they are shown.
            pub fn all() -> impl Iterator<Item = Self> {
                let merges = MergeMethod::ALL.iter().map(|&method| Merging::plain(method).into());
                [$(Self::$first),+].into_iter().chain(merges).chain([$(Self::$last),+])
            }

            /// As people and programs write it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$first => $first_name,)+
                    Self::Merge(merging) => merging.name(),
                    $(Self::$last => $last_name,)+
                }
            }

            /// What people read in place of the name.
            pub fn title(self) -> Cow<'static, str> {
                match self {
                    $(Self::$first => $first_title.into(),)+
                    Self::Merge(merging) => format!("Merge: {}", merging.title()).into(),
                    $(Self::$last => $last_title.into(),)+
                }
            }
        }
    };
}

method_kinds! {
    {
        /// Features of an adapter, read by a head.
        Adapter = "adapter", "Adapter";
        /// Features of the bare backbone, read by a head.
        Bare = "bare", "Bare model";
    }
    merges
    {
        /// A linear classifier on features of the bare backbone, tuned for each task.
        Linear = "linear", "Classifier tuned for each task";
        /// A LoRA and a head, tuned for each task.
        Tune = "tune", "Adapter tuned for each task";
        /// Nearest prototype on the pictures' levels.
        Pixels = "pixels", "Pictures alone";
    }
}

impl MethodKind {
    /// The mean of the adapters' changes.
    pub const AVERAGE: Self = Self::Merge(Merging::plain(MergeMethod::Average));
    /// The scaled sum of the adapters' changes.
    pub const SUM: Self = Self::Merge(Merging::plain(MergeMethod::Sum));

    /// [`Self::all`], then the merges after Pico.
    fn all_and_after_pico() -> impl Iterator<Item = Self> {
        Self::all().chain(Merging::all_after_pico().map(Self::Merge))
    }

    /// How it merges the adapters of the pool, where it does.
    pub fn merge(self) -> Option<Merging> {
        match self {
            Self::Merge(merging) => Some(merging),
            Self::Adapter | Self::Bare | Self::Linear | Self::Tune | Self::Pixels => None,
        }
    }

    /// Whether its merge has a scale to choose.
    pub fn takes_scale(self) -> bool {
        self.merge()
            .is_some_and(|merging| merging.method().facts().takes_scale)
    }

    /// [`Self::title`] by name. Stored results of earlier versions have the old names.
    pub fn titles() -> BTreeMap<&'static str, Cow<'static, str>> {
        let old = MergeMethod::ALL.iter().flat_map(|&method| {
            let names = method.facts().old_names.iter();
            names.map(move |name| (*name, Self::from(Merging::plain(method)).title()))
        });
        // A new name goes before an old one: linear.
        old.chain(Self::all_and_after_pico().map(|kind| (kind.name(), kind.title())))
            .collect()
    }
}

impl FromStr for MethodKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(known) = Self::all().find(|kind| kind.name() == text) {
            return Ok(known);
        }
        text.parse().map(Self::Merge).map_err(|error| match error {
            UnknownMerging::NotAfterPico(_) => error.to_string(),
            UnknownMerging::Method(_) => {
                let names: Vec<&str> = Self::all().map(Self::name).collect();
                let names = names.join(", ");
                format!("there is no method \"{text}\"; there are {names}, and pico+ before a merge, as in pico+knots")
            }
        })
    }
}

impl From<Merging> for MethodKind {
    fn from(merging: Merging) -> Self {
        Self::Merge(merging)
    }
}

impl TryFrom<String> for MethodKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MethodKind> for &'static str {
    fn from(kind: MethodKind) -> Self {
        kind.name()
    }
}

/// A method, and the scale of its merge where that is given: `tsv`, `sum:0.33`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Method {
    /// What is measured.
    pub kind: MethodKind,
    /// `None` where the merge has a scale of its own, or none.
    pub scale: Option<f64>,
}

/// In JSON it is its name.
impl PartialSchema for MethodKind {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A way to classify the pictures of a task."))
            .enum_values(Some(Self::all_and_after_pico().map(Self::name)))
            .into()
    }
}

impl ToSchema for MethodKind {}

/// In JSON it is a text.
impl PartialSchema for Method {
    fn schema() -> RefOr<Schema> {
        let names: Vec<&str> = MethodKind::all().map(MethodKind::name).collect();
        let names = names.join(", ");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!(
                "One of {names}; a merge other than average optionally with its scale, such as `sum:0.33`. Before a merge of weight changes, \
                 `pico+` is Pico, as in `pico+knots:1.4`."
            )))
            .examples(["adapter", "sum:0.33"])
            .into()
    }
}

impl ToSchema for Method {}

impl From<MethodKind> for Method {
    fn from(kind: MethodKind) -> Self {
        Self { kind, scale: None }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scale {
            Some(scale) => write!(formatter, "{}:{scale}", self.kind.name()),
            None => formatter.write_str(self.kind.name()),
        }
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

impl TryFrom<String> for Method {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, scale)) = text.split_once(':') else {
            return text.parse().map(MethodKind::into);
        };
        let kind: MethodKind = name.parse()?;
        if !kind.takes_scale() {
            return Err(format!("{name} has no scale"));
        }
        match scale.parse::<f64>() {
            Ok(scale) if scale.is_finite() => Ok(Self {
                kind,
                scale: Some(scale),
            }),
            _ => Err(format!(
                "\"{scale}\" is not a scale for {name}, such as 0.33"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_read_with_its_scale_and_refused_with_what_there_is() {
        let sum = Method {
            kind: MethodKind::SUM,
            scale: Some(0.25),
        };
        assert_eq!("sum:0.25".parse(), Ok(sum));
        assert_eq!(sum.to_string(), "sum:0.25");
        assert_eq!("pixels".parse(), Ok(Method::from(MethodKind::Pixels)));
        assert_eq!(
            "bare:1".parse::<Method>(),
            Err("bare has no scale".to_owned())
        );
        assert!("sum:x".parse::<Method>().unwrap_err().contains("0.33"));
        let error = "mean".parse::<Method>().unwrap_err();
        assert!(error.contains("adapter, bare, average, sum"), "{error}");
    }

    #[test]
    fn pico_before_a_merge_is_part_of_the_name_and_refused_where_it_makes_no_sense() {
        let method: Method = "pico+knots:1.4".parse().unwrap();
        assert_eq!(method.to_string(), "pico+knots:1.4");
        assert_eq!(method.kind.title(), "Merge: Pico, then KnOTS");
        assert_eq!(
            MethodKind::titles()["pico+knots"],
            "Merge: Pico, then KnOTS"
        );
        // The sum after Pico is Pico alone.
        assert_eq!("pico+sum:2".parse::<Method>(), "pico:2".parse());
        let error = "pico+peft-linear".parse::<Method>().unwrap_err();
        assert!(
            error.starts_with("Pico cannot come before peft-linear; it comes before sum, ties, "),
            "{error}"
        );
        let error = "pico+bare".parse::<Method>().unwrap_err();
        assert!(
            error.contains("there is no method \"pico+bare\""),
            "{error}"
        );
    }

    #[test]
    fn names_of_earlier_versions_are_read_and_the_new_ones_are_written() {
        for (old, new) in [
            ("core", "core-space"),
            ("ctm:1.4", "compress-then-merge:1.4"), // old spelling
            ("ties", "ties"),
            // Never a merge in a comparison.
            ("linear", "linear"),
        ] {
            let method: Method = old.parse().unwrap();
            assert_eq!(method.to_string(), new);
            let read: Method = serde_json::from_value(old.into()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), new);
        }
        assert_eq!("linear".parse(), Ok(MethodKind::Linear));
        let kind: MethodKind = serde_json::from_value("ctm".into()).unwrap(); // old spelling
        let merging = Merging::plain(MergeMethod::CompressThenMerge);
        assert_eq!(kind, MethodKind::Merge(merging));
        let titles = MethodKind::titles();
        assert_eq!(titles["core"], titles["core-space"]);
        assert_eq!(titles["linear"], "Classifier tuned for each task");
    }
}
