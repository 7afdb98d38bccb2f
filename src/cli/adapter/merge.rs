//! `adapter merge`.

use super::{CliError, Common, change};
use crate::app::registry::{MergePart, RegistryError};
use crate::cli::options::{print_json, print_line};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Args, Command, ValueEnum};
use model::adapter::{
    DefaultWeight, Density, MajoritySign, MergeMethod, MergeMethodFacts, MergeOptions, Merging,
};
use serde_json::json;
use std::ffi::OsStr;
use store::Name;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle adapter merge pets birds --method average --name animals
  lora-recycle adapter merge pets:1 birds@best --method peft-svd --rank 8 --weights 0.7,0.3 --name animals
  lora-recycle adapter merge a b c --method peft-ties --density 0.5 --name abc
  lora-recycle adapter merge a b c --method sum --scale 0.33 --rank 16 --name abc
  lora-recycle adapter merge a b c --method tsv --scale 0.6 --name abc
  lora-recycle adapter merge a b c --method pico+knots --rank 16 --name abc")]
pub struct Merge {
    /// name, name:version, name@alias or id
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// How the changes are merged
    #[arg(long, value_parser = MergingParser, help = method_help())]
    method: Merging,
    /// Name of the result; it becomes the next version
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What each adapter's change is multiplied with, in order
    #[arg(
        long,
        help = weights_help(),
        value_name = "W1,W2",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    weights: Vec<f32>,
    /// What the merged change is multiplied with
    #[arg(long, alias = "factor", value_name = "X", default_value_t = 1.0)] // old spelling
    scale: f32,
    /// Share of values that is kept
    #[arg(long, value_name = "SHARE", help = density_help())]
    density: Option<f64>,
    /// Rank of the result [default: the largest rank of the adapters for peft-svd and compress-then-merge, else what is exact]
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// How ties elects the sign of a value
    #[arg(long, value_enum, default_value = "total")]
    majority_sign: Sign,
    /// Seed of peft-dare-linear's choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sign {
    /// The sign of the sum
    Total,
    /// The sign that more adapters have
    Frequency,
}

/// Reads a method with or without Pico before it. Help lists those without.
#[derive(Clone)]
struct MergingParser;

impl TypedValueParser for MergingParser {
    type Value = Merging;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Merging, clap::Error> {
        let parser = |text: &str| text.parse::<Merging>();
        parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let all = MergeMethod::value_variants().iter();
        Some(Box::new(all.filter_map(ValueEnum::to_possible_value)))
    }
}

fn method_help() -> String {
    format!(
        "How the changes are merged; pico+ before {} is Pico before it, as in pico+knots",
        names(|own| own.takes_pico)
    )
}

/// Names of the methods for which something holds.
fn names(holds: impl Fn(&MergeMethodFacts) -> bool) -> String {
    let all = MergeMethod::ALL.iter().map(|method| method.facts());
    let names: Vec<&str> = all.filter(|own| holds(own)).map(|own| own.name).collect();
    names.join(", ")
}

fn weights_help() -> String {
    format!(
        "What each adapter's change is multiplied with, in order [default: 1/n for each of n adapters with {}; 1 with the others]",
        names(|own| own.default_weight == DefaultWeight::Mean)
    )
}

fn density_help() -> String {
    let mut shares: Vec<f64> = Vec::new();
    for method in MergeMethod::ALL {
        if let Density::Default(share) = method.facts().density
            && !shares.contains(&share)
        {
            shares.push(share);
        }
    }
    let defaults: Vec<String> = shares
        .into_iter()
        .map(|share| {
            let names = names(|own| own.density == Density::Default(share));
            format!("{share} for {names}")
        })
        .collect();
    format!(
        "Share of values that is kept, above 0 and at most 1 [default: {}; {} need it]",
        defaults.join("; "),
        names(|own| own.density == Density::Required)
    )
}

impl Merge {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let count = self.references.len();
        if !self.weights.is_empty() && self.weights.len() != count {
            return Err(CliError::usage(format!(
                "there are {} weights for {count} adapters",
                self.weights.len()
            ))
            .hint("give one weight for each adapter, or none"));
        }
        let name: Name = self.name.parse().map_err(RegistryError::from)?;
        let parts: Vec<MergePart> = self
            .references
            .iter()
            .enumerate()
            .map(|(index, reference)| MergePart {
                reference: reference.clone(),
                weight: self.weights.get(index).copied(),
            })
            .collect();
        let options = MergeOptions {
            scale: self.scale,
            rank: self.rank,
            density: self.density,
            majority_sign: match self.majority_sign {
                Sign::Total => MajoritySign::Total,
                Sign::Frequency => MajoritySign::Frequency,
            },
            seed: self.seed,
            ..MergeOptions::new(self.method)
        };
        let merged = change(common, async |registry| {
            Ok(registry.merge(&parts, options, name).await?)
        })?;
        if common.json {
            return print_json(&json!({ "adapter": merged.record, "notes": merged.notes }));
        }
        for note in &merged.notes {
            eprintln!("note: {note}");
        }
        print_line(&format!(
            "{}\trank {}\t{}",
            merged.record.label(),
            merged.record.rank,
            merged.record.targets
        ))
    }
}
