//! `adapter merge`.

use super::{CliError, Common, change};
use crate::app::registry::{MergePart, RegistryError};
use crate::cli::options::{print_json, print_line};
use clap::{Args, ValueEnum};
use model::adapter::{MajoritySign, MergeMethod, MergeOptions};
use serde_json::json;
use store::Name;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle adapter merge pets birds --method cat --name animals
  lora-recycle adapter merge pets:1 birds@best --method svd --rank 8 --weights 0.7,0.3 --name animals
  lora-recycle adapter merge a b c --method ties --density 0.5 --name abc
  lora-recycle adapter merge a b c --method sum --factor 0.33 --rank 16 --name abc
  lora-recycle adapter merge a b c --method tsv --factor 0.6 --name abc")]
pub struct Merge {
    /// name, name:version, name@alias or id
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// How changes become one
    #[arg(long, value_enum)]
    method: MergeMethod,
    /// Name of the result; it becomes the next version
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What each adapter's change is multiplied with, in order [default: 1/n for each of n adapters; 1 from sum on]
    #[arg(
        long,
        value_name = "W1,W2",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    weights: Vec<f32>,
    /// What the merged change is multiplied with
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    factor: f32,
    /// Share of values that ties and dare_linear keep, above 0 and at most 1 [default: 0.2 for ties_changes, knots and
    /// core_space, 1 for compress_then_merge; ties and dare_linear need it]
    #[arg(long, value_name = "SHARE")]
    density: Option<f64>,
    /// Rank of the result [default: the largest rank of the adapters for svd and compress_then_merge, else what is exact]
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// How ties elects the sign of a value
    #[arg(long, value_enum, default_value = "total")]
    majority_sign: Sign,
    /// Seed of dare_linear's choice
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
            factor: self.factor,
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
