//! What an evaluation compares.

use model::adapter::MergeMethod;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A way to classify the pictures of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    /// Nearest prototype on the features of an adapter.
    Adapter,
    /// Nearest prototype on the features of the bare backbone.
    Bare,
    /// Nearest prototype on the features of a merge of several adapters.
    Average,
    Sum,
    Ties,
    Knots,
    Tsv,
    Core,
    Ctm,
    /// A linear classifier on features of the bare backbone, tuned for each task.
    Linear,
    /// A LoRA and a head, tuned for each task.
    Tune,
    /// Nearest prototype on the pictures' levels.
    Pixels,
}

impl MethodKind {
    const ALL: [Self; 12] = [
        Self::Adapter,
        Self::Bare,
        Self::Average,
        Self::Sum,
        Self::Ties,
        Self::Knots,
        Self::Tsv,
        Self::Core,
        Self::Ctm,
        Self::Linear,
        Self::Tune,
        Self::Pixels,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Bare => "bare",
            Self::Average => "average",
            Self::Sum => "sum",
            Self::Ties => "ties",
            Self::Knots => "knots",
            Self::Tsv => "tsv",
            Self::Core => "core",
            Self::Ctm => "ctm",
            Self::Linear => "linear",
            Self::Tune => "tune",
            Self::Pixels => "pixels",
        }
    }

    /// How it merges the adapters of the pool, where it does.
    pub fn merge(self) -> Option<MergeMethod> {
        match self {
            Self::Average => Some(MergeMethod::Cat),
            Self::Sum => Some(MergeMethod::Sum),
            Self::Ties => Some(MergeMethod::TiesChanges),
            Self::Knots => Some(MergeMethod::Knots),
            Self::Tsv => Some(MergeMethod::Tsv),
            Self::Core => Some(MergeMethod::CoreSpace),
            Self::Ctm => Some(MergeMethod::CompressThenMerge),
            Self::Adapter | Self::Bare | Self::Linear | Self::Tune | Self::Pixels => None,
        }
    }

    /// Whether its merge has a factor to choose.
    pub fn takes_factor(self) -> bool {
        self.merge().is_some() && self != Self::Average
    }
}

impl FromStr for MethodKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no method \"{text}\"; there are {names}")
        })
    }
}

/// A method, and the factor of its merge where that is given: `tsv`, `sum:0.33`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Method {
    pub kind: MethodKind,
    pub factor: Option<f64>,
}

/// In JSON it is a text.
impl PartialSchema for Method {
    fn schema() -> RefOr<Schema> {
        let names = MethodKind::ALL.map(MethodKind::name).join(", ");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!(
                "One of {names}; of a merge besides average perhaps with its factor, such as `sum:0.33`."
            )))
            .examples(["adapter", "sum:0.33"])
            .into()
    }
}

impl ToSchema for Method {}

impl From<MethodKind> for Method {
    fn from(kind: MethodKind) -> Self {
        Self { kind, factor: None }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.factor {
            Some(factor) => write!(formatter, "{}:{factor}", self.kind.name()),
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
        let Some((name, factor)) = text.split_once(':') else {
            return text.parse().map(MethodKind::into);
        };
        let kind: MethodKind = name.parse()?;
        if !kind.takes_factor() {
            return Err(format!("{name} has no factor"));
        }
        match factor.parse::<f64>() {
            Ok(factor) if factor.is_finite() => Ok(Self {
                kind,
                factor: Some(factor),
            }),
            _ => Err(format!(
                "\"{factor}\" is no factor for {name}, such as 0.33"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_read_with_its_factor_and_refused_with_what_there_is() {
        let sum = Method {
            kind: MethodKind::Sum,
            factor: Some(0.25),
        };
        assert_eq!("sum:0.25".parse(), Ok(sum));
        assert_eq!(sum.to_string(), "sum:0.25");
        assert_eq!("pixels".parse(), Ok(Method::from(MethodKind::Pixels)));
        assert_eq!(
            "bare:1".parse::<Method>(),
            Err("bare has no factor".to_owned())
        );
        assert!("sum:x".parse::<Method>().unwrap_err().contains("0.33"));
        let error = "mean".parse::<Method>().unwrap_err();
        assert!(error.contains("adapter, bare, average, sum"), "{error}");
    }
}
