//! `adapter list` and `adapter show`.

use super::{CliError, Common, read};
use crate::app::registry::RegistryError;
use crate::cli::options::{print_json, print_line};
use clap::Args;
use store::{AdapterFilter, AdapterRecord, Name};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle adapter list
  lora-recycle adapter list --search pets --tag demo
  lora-recycle adapter list --backbone dinov2-s8 --json")]
pub struct List {
    /// Part of the name, the targets, the notes, a tag or a label
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only adapters with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle adapter show pets
  lora-recycle adapter show pets:2 --json
  lora-recycle adapter show pets@best")]
pub struct Show {
    /// name, name:version, name@alias or id
    #[arg(value_name = "REF")]
    reference: String,
}

impl List {
    pub fn run(&self, common: &Common, backbone: Option<&str>) -> Result<(), CliError> {
        let parse = |text: &String| text.parse::<Name>().map_err(RegistryError::from);
        let tag = self.tag.as_ref().map(parse).transpose()?;
        let backbone: Option<Name> = backbone
            .map(str::parse)
            .transpose()
            .map_err(RegistryError::from)?;
        let records = read(common, async |registry| {
            let store = registry.store();
            let backbone_digest = match &backbone {
                Some(name) => {
                    let record = store.backbone(name).await.map_err(RegistryError::from)?;
                    Some(record.digest)
                }
                None => None,
            };
            let filter = AdapterFilter {
                search: self.search.clone(),
                tag,
                backbone_digest,
                ..AdapterFilter::default()
            };
            Ok(store
                .list_adapters(&filter)
                .await
                .map_err(RegistryError::from)?)
        })?;
        if common.json {
            return print_json(&records);
        }
        if records.is_empty() {
            eprintln!("there is no such adapter; `lora-recycle adapter import` adds one");
        }
        records.iter().try_for_each(|record| {
            print_line(&format!(
                "{}\t{}\trank {}\t{}\t{}\t{}",
                record.label(),
                record.backbone,
                record.rank,
                record.targets,
                size(record.size_bytes()),
                marks(record)
            ))
        })
    }
}

/// Aliases, default and tags in a few words.
fn marks(record: &AdapterRecord) -> String {
    let aliases = record.aliases.iter().map(|alias| format!("@{alias}"));
    let default = record.is_default.then(|| "default".to_owned());
    let tags = record.tags.iter().map(|tag| format!("#{tag}"));
    let marks: Vec<String> = aliases.chain(default).chain(tags).collect();
    marks.join(" ")
}

impl Show {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let record = read(common, async |registry| {
            Ok(registry.resolve(&self.reference).await?)
        })?;
        if common.json {
            return print_json(&record);
        }
        let line = |key: &str, value: &str| print_line(&format!("{key:<10} {value}"));
        line("name", &record.label())?;
        line("id", &record.id.to_string())?;
        line("digest", record.digest.as_str())?;
        line(
            "backbone",
            &format!("{} ({})", record.backbone, record.backbone_digest),
        )?;
        line("rank", &record.rank.to_string())?;
        line("targets", &record.targets)?;
        if let Some(head) = &record.head {
            line(
                "head",
                &format!("{} classes {}", head.classes, head.labels.join(", ")),
            )?;
        }
        line("marks", &marks(&record))?;
        line("notes", &record.notes)?;
        for parent in &record.lineage.parents {
            line(
                "made from",
                &format!("{} ({})", parent.label, parent.digest),
            )?;
        }
        if let Some(recipe) = &record.lineage.recipe {
            line("recipe", &recipe.to_string())?;
        }
        for file in &record.files {
            line(
                "file",
                &format!("{} ({})", file.name, size(file.size_bytes)),
            )?;
        }
        Ok(())
    }
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
