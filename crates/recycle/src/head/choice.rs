//! The head that is asked for: one that is named, or the usual one.

use super::copies::CopySpec;
use super::settings::{HeadKind, HeadSettings};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which head to use.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HeadChoice {
    /// The usual one, which suits every number of examples.
    #[default]
    Auto,
    /// This one.
    Named(HeadSettings),
}

impl HeadChoice {
    /// The head and its settings.
    pub fn settings(self) -> HeadSettings {
        match self {
            Self::Auto => HeadKind::LdaAugmented.into(),
            Self::Named(settings) => settings,
        }
    }

    /// The head for classes of `examples` examples, the mean where they differ, whose copies are not known.
    pub fn without_copies(examples: f64) -> HeadSettings {
        if examples > 1.0 {
            HeadKind::Lda.into()
        } else {
            HeadKind::NearestMean.into()
        }
    }

    /// The settings for examples of `classes` classes, where `copies` counts those of each example: where the head needs copies and an example
    /// has too few, those of the head without copies.
    pub fn settings_with(
        self,
        copies: impl ExactSizeIterator<Item = usize>,
        classes: usize,
    ) -> HeadSettings {
        let settings = self.settings();
        let per_class = copies.len() as f64 / classes.max(1) as f64;
        match { copies }.any(|own| own < settings.copies as usize) {
            true => Self::without_copies(per_class),
            false => settings,
        }
    }

    /// The copies that it may need of each example.
    pub fn copy_specs(self) -> Vec<CopySpec> {
        self.settings().copy_specs()
    }
}

impl fmt::Display for HeadChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Named(settings) => settings.fmt(formatter),
        }
    }
}

impl FromStr for HeadChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Named),
        }
    }
}

impl TryFrom<String> for HeadChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HeadChoice> for String {
    fn from(choice: HeadChoice) -> Self {
        choice.to_string()
    }
}

#[cfg(feature = "openapi")]
mod schema {
    use super::{HeadChoice, HeadKind};
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
    use utoipa::{PartialSchema, ToSchema};

    /// In JSON it is a text.
    impl PartialSchema for HeadChoice {
        fn schema() -> RefOr<Schema> {
            let names = HeadKind::ALL.map(HeadKind::name).join(", ");
            ObjectBuilder::new()
                .schema_type(Type::String)
                .description(Some(format!(
                    "What reads the features: auto, {names}; optionally with settings, such as `lda:shrinkage=0.3`."
                )))
                .default(Some("auto".into()))
                .examples(["auto", "lda-augmented"])
                .into()
        }
    }

    impl ToSchema for HeadChoice {}
}
