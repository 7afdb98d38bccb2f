//! `adapter`: the registry on the command line. The work is done in `app::registry`; here are flags, tables and questions.

mod alias;
mod import;
mod merge;
mod show;

pub use show::size;

use super::CliError;
use super::options::{Common, block_on, print_json, print_line};
use crate::app::registry::{ExportFormat, Registry, RegistryError, WhenNew};
use clap::{Args, Subcommand, ValueEnum};
use model::adapter::NameStyle;
use serde_json::json;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use store::Attribution;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "An adapter is named name (the newest version), name:version, name@alias, or by its id.

Examples:
  lora-recycle adapter import my-lora/ --name pets
  lora-recycle adapter list
  lora-recycle adapter merge pets birds --method average --name animals
  lora-recycle adapter alias set pets@best pets:2
  lora-recycle adapter export pets@best --out pets-lora/"
)]
pub enum AdapterCommand {
    /// Add an adapter: a PEFT folder, a published .safetensors, a zip or a bundle
    Import(import::Import),
    /// List adapters, newest first
    List(show::List),
    /// Show one adapter
    Show(show::Show),
    /// Write an adapter for other programs
    Export(Export),
    /// Merge adapters of one backbone into a new one
    Merge(merge::Merge),
    /// Names that move: NAME@ALIAS, and the default adapter of a backbone
    #[command(subcommand)]
    Alias(alias::AliasCommand),
    /// Delete adapters for good
    Rm(Remove),
    /// Remove files that nothing refers to, and say what the data folder takes
    Gc,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle adapter export pets --out pets-lora/
  lora-recycle adapter export pets:2 --out pets-v5/ --names v5
  lora-recycle adapter export pets@best --out model/ --format onnx")]
pub struct Export {
    /// name, name:version, name@alias or id
    #[arg(value_name = "REF")]
    reference: String,
    /// Folder for the files; it must be new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Module names of transformers 4 or 5
    #[arg(long, value_enum, default_value = "v4")]
    names: Names,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,
}

/// Whose module names a PEFT folder uses.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Names {
    /// transformers 4
    V4,
    /// transformers 5
    V5,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle adapter rm pets:1
  lora-recycle adapter rm pets:1 pets:2 --yes")]
pub struct Remove {
    /// name, name:version, name@alias or id
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl AdapterCommand {
    /// Runs the command; `backbone` is the one that was named on the command line, if any.
    pub fn run(&self, common: &Common, backbone: Option<&str>) -> Result<(), CliError> {
        match self {
            Self::Import(import) => import.run(common, backbone),
            Self::List(list) => list.run(common, backbone),
            Self::Show(show) => show.run(common),
            Self::Export(export) => export.run(common),
            Self::Merge(merge) => merge.run(common),
            Self::Alias(alias) => alias.run(common),
            Self::Rm(remove) => remove.run(common),
            Self::Gc => collect_garbage(common),
        }
    }
}

/// Runs `work` on the registry, opened alone for changes.
pub fn change<T>(
    common: &Common,
    work: impl AsyncFnOnce(&Registry) -> Result<T, CliError>,
) -> Result<T, CliError> {
    block_on(async {
        let registry = common.open_registry().await??;
        let done = work(&registry).await;
        registry.store().clone().close().await;
        done
    })?
}

/// Runs `work` on the registry, which others may have open; where there is none yet, on what an empty one holds.
pub fn read<T>(
    common: &Common,
    work: impl AsyncFnOnce(&Registry) -> Result<T, CliError>,
) -> Result<T, CliError> {
    block_on(async { work(&common.read_registry(WhenNew::Imagine).await?).await })?
}

/// Who changes things on the command line, as histories show it.
fn attribution(reason: Option<&str>) -> Attribution {
    Attribution {
        actor: "command line".to_owned(),
        reason: reason.unwrap_or_default().to_owned(),
    }
}

impl Export {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        check_empty(&self.out)?;
        let names = match self.names {
            Names::V4 => NameStyle::V4,
            Names::V5 => NameStyle::V5,
        };
        let files = read(common, async |registry| {
            let record = registry.resolve(&self.reference).await?;
            Ok(registry.export(&record, self.format, names).await?)
        })?;
        let failed = |path: &Path, error: std::io::Error| {
            CliError::user(format!("cannot write {}: {error}", path.display()))
                .hint("choose another folder with --out DIR")
        };
        fs::create_dir_all(&self.out).map_err(|error| failed(&self.out, error))?;
        let mut paths = Vec::new();
        for file in &files {
            let path = self.out.join(&file.path);
            fs::write(&path, &file.bytes).map_err(|error| failed(&path, error))?;
            paths.push(path.display().to_string());
        }
        if common.json {
            return print_json(&json!({ "files": paths }));
        }
        paths.iter().try_for_each(|path| print_line(path))
    }
}

/// Refuses a folder that has anything in it: nothing is overwritten.
fn check_empty(folder: &Path) -> Result<(), CliError> {
    let problem = match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(()),
        Ok(false) => "is not empty, and nothing is overwritten".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => format!("cannot be used: {error}"),
    };
    Err(CliError::user(format!("{} {problem}", folder.display()))
        .hint("name a new or empty folder with --out DIR"))
}

impl Remove {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let freed_bytes = change(common, async |registry| {
            let mut records = Vec::new();
            for reference in &self.references {
                let record = registry.resolve(reference).await?;
                if records
                    .iter()
                    .all(|other: &store::AdapterRecord| other.id != record.id)
                {
                    records.push(record);
                }
            }
            let labels: Vec<String> = records.iter().map(|record| record.label()).collect();
            ask_to_delete(&labels, self.yes)?;
            let mut freed_bytes = 0;
            for record in &records {
                let freed = registry.store().delete_adapter(record.id).await;
                freed_bytes += freed.map_err(RegistryError::from)?.bytes;
                eprintln!("deleted {}", record.label());
            }
            Ok(freed_bytes)
        })?;
        if common.json {
            return print_json(&json!({ "freed_bytes": freed_bytes }));
        }
        print_line(&format!("freed {}", show::size(freed_bytes)))
    }
}

/// Asks whether `labels` are to be deleted, unless `yes` says so.
///
/// # Errors
/// Where the answer is no, or nobody can be asked.
pub fn ask_to_delete(labels: &[String], yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            CliError::usage("deleting asks first, and stdin is not a terminal")
                .hint("add --yes to delete without being asked"),
        );
    }
    eprint!("Delete {} for good? [y/N] ", labels.join(", "));
    // Where the question cannot be shown, the answer is still read.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CliError::user(format!("the answer cannot be read: {error}")))?;
    if answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(CliError::user("nothing was deleted"))
}

fn collect_garbage(common: &Common) -> Result<(), CliError> {
    let (freed, at_start, used) = change(common, async |registry| {
        let store = registry.store();
        let freed = store.gc().await.map_err(RegistryError::from)?;
        let used = store.disk_use().await.map_err(RegistryError::from)?;
        Ok((freed, store.freed_at_start(), used))
    })?;
    // Opening the folder alone already removes what nothing refers to.
    let bytes = freed.bytes + at_start.bytes;
    let files = freed.blobs + freed.temporary_files + at_start.blobs + at_start.temporary_files;
    if common.json {
        return print_json(&json!({
            "freed": { "files": files, "bytes": bytes },
            "disk_use": used,
        }));
    }
    print_line(&format!(
        "freed      {} in {files} files",
        show::size(bytes)
    ))?;
    print_line(&format!(
        "adapters   {} in {} files",
        show::size(used.blob_bytes),
        used.blobs
    ))?;
    print_line(&format!("database   {}", show::size(used.database_bytes)))?;
    print_line(&format!("cache      {}", show::size(used.cache_bytes)))?;
    print_line(&format!("backups    {}", show::size(used.backup_bytes)))
}
