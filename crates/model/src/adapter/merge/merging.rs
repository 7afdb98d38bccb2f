//! A merge method with what may come before it: the name of a merge on the command line, in requests and in files.

use super::method::{MergeMethod, MergeMethodFacts, UnknownMergeMethod};
use std::borrow::Cow;
use std::str::FromStr;

/// Comes before the name of a method that Pico comes before.
const PICO_FIRST: &str = "pico+";

/// A merge method, with Pico before it or not: `knots`, `pico+knots`. Pico before the sum is `pico` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct Merging {
    method: MergeMethod,
    is_after_pico: bool,
}

impl Merging {
    /// `method` as it is.
    pub const fn plain(method: MergeMethod) -> Self {
        Self {
            method,
            is_after_pico: false,
        }
    }

    /// Pico, then `method`.
    ///
    /// # Errors
    /// [`UnknownMerging::NotAfterPico`] for a method that Pico cannot come before.
    pub const fn after_pico(method: MergeMethod) -> Result<Self, UnknownMerging> {
        match method {
            MergeMethod::Sum => Ok(Self::plain(MergeMethod::Pico)),
            method if method.facts().takes_pico => Ok(Self {
                method,
                is_after_pico: true,
            }),
            method => Err(UnknownMerging::NotAfterPico(method)),
        }
    }

    /// All with Pico before them, but for `pico` itself.
    pub fn all_after_pico() -> impl Iterator<Item = Self> {
        let all = MergeMethod::ALL.iter();
        let all = all.filter_map(|&method| Self::after_pico(method).ok());
        all.filter(|own| own.is_after_pico)
    }

    /// The method without what comes before it; that of `pico` is [`MergeMethod::Pico`].
    pub const fn method(self) -> MergeMethod {
        self.method
    }

    /// What is computed: the method that merges, and whether Pico comes before it.
    pub(super) const fn steps(self) -> (MergeMethod, bool) {
        match self.method {
            MergeMethod::Pico => (MergeMethod::Sum, true),
            method => (method, self.is_after_pico),
        }
    }

    /// As people and programs write it.
    pub const fn name(self) -> &'static str {
        let facts = self.method.facts();
        match self.is_after_pico {
            true => facts.name_after_pico,
            false => facts.name,
        }
    }

    /// What people read in place of the name.
    pub fn title(self) -> Cow<'static, str> {
        let title = self.method.facts().title;
        match self.is_after_pico {
            true => format!("Pico, then {title}").into(),
            false => title.into(),
        }
    }
}

impl From<MergeMethod> for Merging {
    fn from(method: MergeMethod) -> Self {
        Self::plain(method)
    }
}

impl From<Merging> for &'static str {
    fn from(merging: Merging) -> Self {
        merging.name()
    }
}

/// Why a text does not say how to merge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownMerging {
    /// No method has the name.
    #[error("{0}; there are {all}; and pico+ before {after}", all = names(|_| true), after = names(|own| own.takes_pico))]
    Method(#[from] UnknownMergeMethod),
    /// PEFT's methods treat `A` and `B`, not changes; the others are Pico at another scale.
    #[error(
        "Pico cannot come before {name}; it comes before {after}, such as in pico+knots, and pico alone is Pico before sum",
        name = .0.name(),
        after = names(|own| own.takes_pico)
    )]
    NotAfterPico(MergeMethod),
}

/// Names of the methods for which something holds.
fn names(holds: impl Fn(&MergeMethodFacts) -> bool) -> String {
    let all = MergeMethod::ALL.iter().map(|method| method.facts());
    let names: Vec<&str> = all.filter(|own| holds(own)).map(|own| own.name).collect();
    names.join(", ")
}

impl FromStr for Merging {
    type Err = UnknownMerging;

    fn from_str(text: &str) -> Result<Self, UnknownMerging> {
        match text.strip_prefix(PICO_FIRST) {
            Some(method) => Self::after_pico(method.parse()?),
            None => Ok(Self::plain(text.parse()?)),
        }
    }
}

impl TryFrom<String> for Merging {
    type Error = UnknownMerging;

    fn try_from(text: String) -> Result<Self, UnknownMerging> {
        text.parse()
    }
}

/// In JSON it is its name.
#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Merging {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let plain = MergeMethod::ALL.iter().map(|&method| Self::plain(method));
        utoipa::openapi::schema::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some(
                "How the changes are merged. `pico+` is Pico (arXiv 2604.16826) before the method; `pico` alone is Pico before the sum.",
            ))
            .enum_values(Some(plain.chain(Self::all_after_pico()).map(Self::name)))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Merging {
    fn name() -> Cow<'static, str> {
        "MergeMethod".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pico_comes_before_merges_of_changes_and_the_sum_after_it_is_pico_itself() {
        let knots: Merging = "pico+knots".parse().unwrap();
        assert_eq!(Merging::after_pico(MergeMethod::Knots), Ok(knots));
        assert_eq!(
            (knots.name(), &*knots.title()),
            ("pico+knots", "Pico, then KnOTS")
        );
        assert_eq!(knots.steps(), (MergeMethod::Knots, true));
        assert_eq!("pico+core".parse(), "pico+core-space".parse::<Merging>());
        let pico = Merging::plain(MergeMethod::Pico);
        assert_eq!("pico+sum".parse(), Ok(pico));
        assert_eq!(
            (pico.name(), pico.steps()),
            ("pico", (MergeMethod::Sum, true))
        );
        for own in Merging::all_after_pico() {
            let read: Merging = serde_json::from_value(own.name().into()).unwrap();
            assert_eq!(read, own);
            assert_eq!(serde_json::to_value(own).unwrap(), own.name());
        }
        assert_eq!(Merging::all_after_pico().count(), 9);
    }

    #[test]
    fn what_pico_cannot_come_before_is_refused_with_what_it_can() {
        for name in [
            "average",
            "pico",
            "peft-linear",
            "peft-svd",
            "peft-ties",
            "peft-dare-linear",
        ] {
            let refused = format!("pico+{name}").parse::<Merging>().unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!(
                    "Pico cannot come before {name}; it comes before sum, ties, knots, tsv, core-space, compress-then-merge, iso-c, \
                     iso-cts, tsv-iso, wudi, such as in pico+knots, and pico alone is Pico before sum"
                )
            );
        }
        let unknown = "pico+glue".parse::<Merging>().unwrap_err().to_string();
        assert!(
            unknown.contains("called \"glue\"; there are average, sum, "),
            "{unknown}"
        );
    }
}
