//! `classifier set`: name, adapter and how a classifier answers.

use super::place::{Place, find};
use crate::app::classifiers::AnsweringPatch;
use crate::cli::CliError;
use crate::cli::options::{Common, print_json, print_line};
use clap::Args;
use recycle::head::HeadChoice;
use serde_json::json;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier set Trees --adapter auto       let it choose what tells its examples apart best
  lora-recycle classifier set Trees --reject 0.05        set pictures aside that are unlike all its classes
  lora-recycle classifier set Trees --reject 0           set none aside
  lora-recycle classifier set Trees --name Leaves")]
pub struct Set {
    /// The classifier
    #[arg(value_name = "NAME")]
    classifier: String,
    /// Its new name
    #[arg(long = "name", value_name = "TEXT")]
    new_name: Option<String>,
    /// Adapter that it sees through, as for create; "default" is the backbone's default, whenever that moves
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// What reads the features: auto, nearest-mean, lda or lda-augmented
    #[arg(long, value_name = "HEAD")]
    head: Option<HeadChoice>,
    /// Share of pictures of its classes that may be refused, so that those of none of them are; 0 refuses none
    #[arg(long, value_name = "SHARE")]
    reject: Option<f32>,
}

/// The word for the backbone's default adapter.
const DEFAULT: &str = "default";

impl Set {
    pub async fn run(&self, common: &Common) -> Result<(), CliError> {
        if (&self.new_name, &self.adapter, self.head, self.reject) == (&None, &None, None, None) {
            return Err(CliError::user("there is nothing to set")
                .hint("give --name, --adapter, --head or --reject"));
        }
        let adapter = self.adapter.as_deref();
        let adapter = adapter.map(|name| (name != DEFAULT).then_some(name));
        let answering = AnsweringPatch {
            head: self.head,
            reject: self.reject.map(|share| (share != 0.0).then_some(share)),
        };
        let place = Place::open(common).await?;
        let id = find(place.store(), &self.classifier).await?.id;
        let app = place.app(common).await?;
        let name = self.new_name.as_deref();
        place
            .set(app.as_ref(), id, name, adapter, answering)
            .await?;
        let record = place.store().classifier(id).await?;
        if common.json {
            return print_json(&json!(record));
        }
        let change = place.store().undo_and_redo(id).await?.0;
        let change = change.filter(|change| change.revision == record.revision);
        let words = change.map(|record| record.change.to_string());
        print_line(&words.unwrap_or_else(|| "There was nothing to change".to_owned()))
    }
}
