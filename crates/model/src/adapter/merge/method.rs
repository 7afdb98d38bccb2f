//! Every method of merging in one table: what it is called and what it takes. A new method is one row here; the compiler names the
//! places that have to compute it.

use std::str::FromStr;

/// Facts about a method besides its mathematics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MergeMethodFacts {
    /// On the command line, in requests and in files.
    pub name: &'static str,
    /// Names of earlier versions: still read, no longer shown.
    pub old_names: &'static [&'static str],
    /// What people read in place of the name.
    pub title: &'static str,
    /// One line for people who choose among methods; `None` where a page does not offer it.
    pub choice: Option<&'static str>,
    /// Of an adapter for which no weight is given.
    pub default_weight: DefaultWeight,
    /// Whether it keeps only a share of the values, and which where none is given.
    pub density: Density,
    /// Whether the rank of the result can be chosen.
    pub takes_rank: bool,
    /// Whether a comparison may multiply the result with a scale.
    pub takes_scale: bool,
    /// Whether Pico may come before it.
    pub takes_pico: bool,
    /// Its name where Pico does.
    pub name_after_pico: &'static str,
}

/// The weight of each of n adapters where none is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultWeight {
    /// 1/n
    Mean,
    /// 1, as papers that sum and then scale have it.
    One,
}

/// The share of values that a method keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Density {
    /// It keeps all of them, always.
    Unused,
    /// Where none is given.
    Default(f64),
    /// It must be given.
    Required,
}

macro_rules! merge_methods {
    ($($(#[$description:meta])+ $method:ident = $name:literal $(or $old:literal)* { $($fact:tt)+ })+) => {
        /// How the changes are merged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
        pub enum MergeMethod {
            $(
                $(#[$description])+
                #[cfg_attr(feature = "clap", value(name = $name $(, alias = $old)*))]
                $method,
            )+
        }

        impl MergeMethod {
            /// In the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$method),+];

            /// What there is to know of it.
            pub const fn facts(self) -> &'static MergeMethodFacts {
                match self {
                    $(Self::$method => &MergeMethodFacts {
                        name: $name,
                        old_names: &[$($old),*],
                        name_after_pico: concat!("pico+", $name),
                        $($fact)+
                    },)+
                }
            }
        }
    };
}

// TIES and KnOTS keep a fifth in their papers; the few coordinates of Compress-then-Merge are all kept.
merge_methods! {
    /// The weighted mean of the changes, exactly, with the sum of the ranks (PEFT's cat)
    Average = "average" or "cat" { // old spelling
        title: "average",
        choice: Some("Average: what each adapter changes, in equal parts"),
        default_weight: DefaultWeight::Mean,
        density: Density::Unused,
        takes_rank: false,
        takes_scale: false,
        takes_pico: false,
    }
    /// The sum of the changes, exactly or compressed to a rank; most often to be scaled down
    Sum = "sum" {
        title: "scaled sum",
        choice: Some("Scaled sum: all changes added up, times one number"),
        default_weight: DefaultWeight::One,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// TIES (arXiv 2306.01708) on the changes themselves; of full rank where no rank is given
    Ties = "ties" or "ties_changes" { // old spelling
        title: "TIES",
        choice: Some("TIES: only the largest changes, and where adapters disagree, the stronger side"),
        default_weight: DefaultWeight::One,
        density: Density::Default(0.2),
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// KnOTS-TIES (arXiv 2410.19735): TIES on the changes in a basis that they share
    Knots = "knots" {
        title: "KnOTS",
        choice: Some("KnOTS: as TIES, after the changes are laid side by side in one common frame"),
        default_weight: DefaultWeight::One,
        density: Density::Default(0.2),
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// TSV-M (arXiv 2412.00081): the singular vectors of all changes, made orthonormal together
    Tsv = "tsv" {
        title: "TSV",
        choice: Some("TSV: the main directions of each adapter, set apart so that they disturb each other less"),
        default_weight: DefaultWeight::One,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// Core Space (arXiv 2509.17786): TIES on small matrices in reference bases of all low-rank pairs
    CoreSpace = "core-space" or "core_space" or "core" { // old spelling
        title: "Core Space",
        choice: Some("Core Space: as TIES, within the small space that all adapters use"),
        default_weight: DefaultWeight::One,
        density: Density::Default(0.2),
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// Compress-then-Merge (arXiv 2606.03723): TIES in shared spaces of the result's rank
    CompressThenMerge = "compress-then-merge" or "compress_then_merge" or "ctm" { // old spelling
        title: "Compress-then-Merge",
        choice: Some("Compress, then merge: as TIES, after the changes are cut down to what they share most"),
        default_weight: DefaultWeight::One,
        density: Density::Default(1.0),
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// Iso-C (arXiv 2502.04959): the sum of the changes, all its directions equally strong
    IsoC = "iso-c" {
        title: "Iso-C",
        choice: Some("Iso-C: the sum, with all its directions made equally strong"),
        default_weight: DefaultWeight::One,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// Iso-CTS (arXiv 2502.04959): as iso-c, with directions of each adapter in place of the weakest
    IsoCts = "iso-cts" {
        title: "Iso-CTS",
        choice: Some("Iso-CTS: as Iso-C, but each adapter has some directions to itself"),
        default_weight: DefaultWeight::One,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// TSV-M with all directions equally strong
    TsvIso = "tsv-iso" {
        title: "TSV-iso",
        choice: Some("TSV-iso: as TSV, with all directions made equally strong"),
        default_weight: DefaultWeight::One,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// WUDI-Merging (arXiv 2503.08099), solved exactly: nearest to each adapter on the inputs that this adapter changes
    Wudi = "wudi" {
        title: "WUDI",
        choice: Some("WUDI: on what an adapter reacts to, as close to that adapter as can be"),
        default_weight: DefaultWeight::One,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: true,
    }
    /// Pico (arXiv 2604.16826) before the sum: directions into which many adapters write are made weaker; pico+knots is Pico before knots
    Pico = "pico" {
        title: "Pico",
        choice: Some("Pico: the sum, without too much of what all adapters change alike"),
        default_weight: DefaultWeight::One,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: false,
    }
    /// PEFT's linear: sums the LoRA matrices A and B, each times √weight, a rough approximation. Needs equal ranks
    PeftLinear = "peft-linear" or "linear" {
        title: "PEFT's linear",
        choice: None,
        default_weight: DefaultWeight::Mean,
        density: Density::Unused,
        takes_rank: false,
        takes_scale: true,
        takes_pico: false,
    }
    /// PEFT's svd: the nearest change of a given rank to the weighted sum of the changes
    PeftSvd = "peft-svd" or "svd" {
        title: "PEFT's svd",
        choice: None,
        default_weight: DefaultWeight::Mean,
        density: Density::Unused,
        takes_rank: true,
        takes_scale: true,
        takes_pico: false,
    }
    /// PEFT's ties: TIES on the LoRA matrices A and B, each by itself. Needs equal ranks and a density
    PeftTies = "peft-ties" {
        title: "PEFT's ties",
        choice: None,
        default_weight: DefaultWeight::Mean,
        density: Density::Required,
        takes_rank: false,
        takes_scale: true,
        takes_pico: false,
    }
    /// PEFT's dare_linear: drops values at random, scales up the rest, then as peft-linear. Needs equal ranks and a density
    PeftDareLinear = "peft-dare-linear" or "dare_linear" {
        title: "PEFT's dare_linear",
        choice: None,
        default_weight: DefaultWeight::Mean,
        density: Density::Required,
        takes_rank: false,
        takes_scale: true,
        takes_pico: false,
    }
}

impl MergeMethod {
    /// As people and programs write it.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Weight of each of `count` adapters where none is given.
    pub fn default_weight(self, count: usize) -> f32 {
        match self.facts().default_weight {
            DefaultWeight::Mean => 1.0 / count.max(1) as f32,
            DefaultWeight::One => 1.0,
        }
    }

    /// Share of values that is kept where none is given; `None` where it must be given or has no meaning.
    pub(super) const fn default_density(self) -> Option<f64> {
        match self.facts().density {
            Density::Default(share) => Some(share),
            Density::Unused | Density::Required => None,
        }
    }

    /// Whether a density must be given.
    pub fn needs_density(self) -> bool {
        self.facts().density == Density::Required
    }
}

/// A name that no method has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no way to merge called \"{0}\"")]
pub struct UnknownMergeMethod(pub String);

impl FromStr for MergeMethod {
    type Err = UnknownMergeMethod;

    fn from_str(text: &str) -> Result<Self, UnknownMergeMethod> {
        let is_meant =
            |facts: &MergeMethodFacts| facts.name == text || facts.old_names.contains(&text);
        let mut all = Self::ALL.iter().copied();
        all.find(|method| is_meant(method.facts()))
            .ok_or_else(|| UnknownMergeMethod(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Merging;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_old_or_new_means_one_method_and_the_new_one_is_written() {
        let mut names = BTreeSet::new();
        for &method in MergeMethod::ALL {
            let facts = method.facts();
            for name in [facts.name].iter().chain(facts.old_names) {
                assert!(names.insert(*name), "{name} appears twice");
                assert_eq!(name.parse(), Ok(method));
                let read: Merging = serde_json::from_value((*name).into()).unwrap();
                assert_eq!(read, Merging::plain(method), "{name}");
            }
            let written = serde_json::to_value(Merging::plain(method)).unwrap();
            assert_eq!(written, facts.name);
        }
        assert_eq!(
            "glue".parse::<MergeMethod>(),
            Err(UnknownMergeMethod("glue".into()))
        );
    }

    #[test]
    fn names_of_earlier_versions_mean_what_they_meant() {
        use MergeMethod as Method;
        for (name, method) in [
            ("cat", Method::Average),
            ("linear", Method::PeftLinear),
            ("svd", Method::PeftSvd),
            ("dare_linear", Method::PeftDareLinear),
            ("ties_changes", Method::Ties),    // old spelling
            ("core_space", Method::CoreSpace), // old spelling
            ("core", Method::CoreSpace),
            ("compress_then_merge", Method::CompressThenMerge),
            ("ctm", Method::CompressThenMerge), // old spelling
        ] {
            assert_eq!(name.parse(), Ok(method), "{name}");
        }
    }
}
