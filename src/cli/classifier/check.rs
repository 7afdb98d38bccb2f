//! `classifier check`: how good a classifier is by its own examples, and what would make it better.

use super::place::{Place, find};
use crate::cli::CliError;
use crate::cli::options::{Common, print_json, print_line};
use clap::Args;
use serde_json::Value;
use std::collections::HashMap;

#[derive(Debug, Args)]
#[command(
    after_help = "Each example is sorted by a classifier that has seen neither it nor its near-duplicates.

Examples:
  lora-recycle classifier check Trees
  lora-recycle classifier check Trees --json      with the ids that the hints are about"
)]
pub struct Check {
    /// The classifier
    name: String,
}

impl Check {
    pub async fn run(&self, common: &Common) -> Result<(), CliError> {
        let place = Place::open(common).await?;
        let id = find(place.store(), &self.name).await?.id;
        let app = place.app(common).await?;
        let check = place.check(app.as_ref(), id).await?;
        if common.json {
            return print_json(&check);
        }
        let classes = place.store().classes(id).await?;
        let names: HashMap<String, String> = classes
            .into_iter()
            .map(|class| (class.id.to_string(), class.name))
            .collect();
        for line in lines(&check, &names) {
            print_line(&line)?;
        }
        Ok(())
    }
}

fn lines(check: &Value, names: &HashMap<String, String>) -> Vec<String> {
    let mut lines = Vec::new();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let percent = |value: &Value| format!("{:.0}", 100.0 * value.as_f64().unwrap_or_default());
    match &check["accuracy"] {
        Value::Null => lines.push("It cannot be checked yet.".to_owned()),
        accuracy => lines.push(format!(
            "{} of {} examples are sorted right by the others: {} % (95 % interval {} to {} %)",
            number(&accuracy["right"]),
            number(&accuracy["of"]),
            percent(&accuracy["share"]),
            percent(&accuracy["low"]),
            percent(&accuracy["high"]),
        )),
    }
    lines.extend(check["missing"].as_str().map(str::to_owned));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| {
        let id = value.as_str().unwrap_or_default();
        names.get(id).cloned().unwrap_or_default()
    };
    for cell in list(&check["confusion"]) {
        if cell["true"] != cell["answered"] {
            lines.push(format!(
                "{} of {} sorted into {}",
                number(&cell["count"]),
                name(&cell["true"]),
                name(&cell["answered"])
            ));
        }
    }
    for hint in list(&check["hints"]) {
        let sentence = hint["sentence"].as_str().unwrap_or_default();
        lines.push(format!("hint: {sentence}"));
    }
    lines
}
