//! `adapter import`: adds an adapter, or says why not, tensor by tensor.

use super::{CliError, Common, change, read};
use crate::app::registry::{ImportOptions, RegistryError, SHIPPED_WORD, shipped_package};
use crate::cli::options::{print_json, print_line};
use clap::Args;
use model::adapter::{FileLimits, ImportReport, Package, TensorStatus};
use serde_json::json;
use std::path::PathBuf;
use store::Name;

#[derive(Debug, Args)]
#[command(
    after_help = "The backbone is found by the adapter's shapes; --backbone NAME says which one where several fit.

Examples:
  lora-recycle adapter import my-lora/ --name pets --tag demo
  lora-recycle adapter import pets.zip --name pets --notes \"from the lab\"
  lora-recycle adapter import my-lora/ --dry-run        only look, store nothing
  lora-recycle adapter import shipped --name signs-and-shapes"
)]
pub struct Import {
    /// A PEFT folder, a published .safetensors, a zip or a bundle; or the word shipped for the one that comes with the program
    path: PathBuf,
    /// Name of the adapter; it becomes the next version
    #[arg(long, value_name = "NAME", required_unless_present = "dry_run")]
    name: Option<String>,
    /// Only look, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// A word to find it by; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A text to remember
    #[arg(long, value_name = "TEXT", default_value = "")]
    notes: String,
}

impl Import {
    pub fn run(&self, common: &Common, backbone: Option<&str>) -> Result<(), CliError> {
        let package = if self.path.as_os_str() == SHIPPED_WORD {
            shipped_package()
        } else {
            Package::read(&self.path, &FileLimits::default()).map_err(RegistryError::from)?
        };
        let backbone: Option<Name> = backbone
            .map(str::parse)
            .transpose()
            .map_err(RegistryError::from)?;
        let name: Option<Name> = match &self.name {
            Some(name) => Some(name.parse().map_err(RegistryError::from)?),
            None => None,
        };
        let Some(name) = name.filter(|_| !self.dry_run) else {
            let report = read(common, async |registry| {
                Ok(registry.check(package, backbone.as_ref()).await?)
            })?;
            print_report(common, &report, None)?;
            return refuse(&report);
        };
        let options = ImportOptions {
            backbone,
            tags: self
                .tags
                .iter()
                .map(|tag| tag.parse())
                .collect::<Result<_, _>>()
                .map_err(RegistryError::from)?,
            notes: self.notes.clone(),
        };
        let imported = change(common, async |registry| {
            match registry.import(package, name, options).await {
                Ok(stored) => Ok((Some(stored.record), stored.report)),
                Err(RegistryError::Refused(report)) => Ok((None, *report)),
                Err(error) => Err(error.into()),
            }
        })?;
        let (record, report) = imported;
        let label = record.as_ref().map(|record| record.label());
        if common.json {
            print_json(&json!({ "adapter": record, "report": report }))?;
        } else {
            print_report(common, &report, label.as_deref())?;
        }
        refuse(&report)
    }
}

fn refuse(report: &ImportReport) -> Result<(), CliError> {
    match report.errors.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" (and {more} more, see the report)"),
            };
            Err(
                CliError::user(format!("the adapter is refused: {first}{more}"))
                    .hint("nothing was stored; `lora-recycle backbone list` shows the backbones that adapters are matched with"),
            )
        }
    }
}

fn print_report(
    common: &Common,
    report: &ImportReport,
    label: Option<&str>,
) -> Result<(), CliError> {
    if common.json {
        return print_json(&json!({ "adapter": null, "report": report }));
    }
    for tensor in &report.tensors {
        let shape = tensor
            .shape
            .as_ref()
            .map_or_else(|| "-".to_owned(), |shape| format!("{shape:?}"));
        print_line(&format!(
            "{:<10} {shape:<14} {}{}",
            word(tensor.status),
            tensor.name,
            tensor
                .detail
                .as_ref()
                .map_or_else(String::new, |detail| format!("  ({detail})"))
        ))?;
    }
    if let Some(head) = &report.head {
        print_line(&format!("head       {} classes", head.classes))?;
    }
    for fit in &report.backbones {
        let verdict = match fit.reasons.first() {
            None => "fits".to_owned(),
            Some(reason) => format!("does not fit: {reason}"),
        };
        print_line(&format!("backbone   {} {verdict}", fit.name))?;
    }
    for warning in &report.warnings {
        print_line(&format!("warning    {warning}"))?;
    }
    for error in &report.errors {
        print_line(&format!("error      {error}"))?;
    }
    if let Some(digest) = &report.adapter_digest {
        print_line(&format!("digest     {digest}"))?;
    }
    match label {
        Some(label) => print_line(&format!("stored     {label}")),
        None => Ok(()),
    }
}

fn word(status: TensorStatus) -> &'static str {
    match status {
        TensorStatus::Used => "used",
        TensorStatus::Renamed => "renamed",
        TensorStatus::Ignored => "ignored",
        TensorStatus::Missing => "missing",
        TensorStatus::Misshapen => "misshapen",
        TensorStatus::NotFinite => "not finite",
        TensorStatus::WrongDtype => "wrong type",
        TensorStatus::Refused => "refused",
    }
}
