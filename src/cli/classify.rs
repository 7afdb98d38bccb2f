//! `classify`: pictures into classes that a folder of examples or a stored classifier defines.

use super::options::{Common, block_on, print_answers, print_line, progress_bar, show};
use super::sorted_table::SortedTable;
use super::{CliError, classifier, images};
use crate::app::classifiers::Answering;
use crate::app::registry::{RegistryError, WhenNew};
use crate::app::table::text_cell;
use crate::app::{Answer, App, ClassifyOptions, CopiesWanted, Fault, NamedImage, RefusedSupport};
use crate::inference::EncoderInfo;
use clap::Args;
use recycle::head::HeadChoice;
use std::path::{Path, PathBuf};
use store::{ClassifierRecord, Store, StoreError};
use uuid::Uuid;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classify --support pets/ new.jpg
  lora-recycle classify --support pets/ --json holiday/ | jq '.[].label'
  lora-recycle classify --support pets/ --adapter meta@champion new.jpg
  lora-recycle classify --support pets/ --transductive holiday/
  lora-recycle classify --classifier Pets --csv holiday/ > holiday.csv
  lora-recycle classify --classifier Pets --out holiday.csv holiday/          for thousands: goes on where it was stopped")]
pub struct Classify {
    /// Folder whose sub-folders are the classes, each with a few example pictures
    #[arg(
        long,
        value_name = "DIR",
        env = "LORA_RECYCLE_SUPPORT",
        required_unless_present = "classifier"
    )]
    support: Option<PathBuf>,
    /// Classifier that `classifier create` made, by name or id, in place of a folder of examples; it has its own adapter
    #[arg(long, value_name = "NAME", conflicts_with_all = ["support", "adapter"])]
    classifier: Option<String>,
    /// Print a table with commas on stdout
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Write the table with commas to this file picture by picture, with a classifier; where it has answers already, only the pictures
    /// without one are classified
    #[arg(long, value_name = "FILE", requires = "classifier", conflicts_with_all = ["json", "csv", "transductive"])]
    out: Option<PathBuf>,
    /// How many of the most similar example pictures are named
    #[arg(
        long,
        value_name = "N",
        env = "LORA_RECYCLE_NEAREST",
        default_value_t = 3
    )]
    nearest: usize,
    /// Adapter that the pictures go through: name, name:version or name@alias; "none" is the bare backbone [default: the
    /// backbone's default adapter, if it has one]
    #[arg(long, value_name = "NAME", env = "LORA_RECYCLE_ADAPTER")]
    adapter: Option<String>,
    /// What reads the features: auto, nearest-mean, lda or lda-augmented [default: auto, or what the classifier is set to]
    #[arg(long, value_name = "HEAD", env = "LORA_RECYCLE_HEAD")]
    head: Option<HeadChoice>,
    /// Classify all pictures together, which helps where they are many and examples are few; a picture's answer then depends on
    /// the others
    #[arg(long)]
    transductive: bool,
    /// Say "none of these" for pictures unlike all examples; the share of pictures of the known classes that may be refused
    /// by mistake, such as 0.05
    #[arg(long, value_name = "SHARE", env = "LORA_RECYCLE_REJECT", value_parser = share)]
    reject: Option<f32>,
    /// Pictures to classify; a folder stands for all files in it
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

impl Classify {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        let options = ClassifyOptions {
            nearest: self.nearest,
            attention: false,
            head: self.head.unwrap_or_default(),
            copies: CopiesWanted::Always,
            transductive: self.transductive,
            reject: self.reject,
        };
        if let Some(problem) = options.problem() {
            return Err(CliError::user(problem));
        }
        if let (Some(name), Some(path)) = (&self.classifier, &self.out) {
            return block_on(self.sort_into(common, name, path, options))?;
        }
        let (encoder, answers) = block_on(async {
            match (&self.classifier, &self.support) {
                (Some(name), _) => self.ask_stored(common, name, options).await,
                (None, Some(support)) => self.ask_folder(common, support, options).await,
                (None, None) => Err(CliError::usage("name a folder with --support")),
            }
        })??;
        if common.json {
            print_answers(&answers, &encoder)?;
        } else if self.csv {
            print_line(COLUMNS)?;
            answers
                .iter()
                .try_for_each(|answer| print_line(&csv_row(answer)))?;
        } else {
            for answer in &answers {
                match answer {
                    Answer::Classified {
                        image,
                        label,
                        scores,
                        ..
                    } => {
                        let label = label.as_deref().unwrap_or("(none of these)");
                        let percent = scores
                            .first()
                            .map_or(0.0, |score| 100.0 * score.probability);
                        print_line(&format!("{image}\t{label}\t{percent:.1} %"))?;
                    }
                    Answer::Failed { image, error } => {
                        eprintln!("error: {image}: {}", error.message);
                    }
                }
            }
        }
        if answers
            .iter()
            .all(|answer| matches!(answer, Answer::Failed { .. }))
        {
            return Err(CliError::user("none of the pictures could be used"));
        }
        Ok(())
    }

    /// The answers of the examples in a folder, and what encoded them.
    async fn ask_folder(
        &self,
        common: &Common,
        support: &Path,
        options: ClassifyOptions,
    ) -> Result<(EncoderInfo, Vec<Answer>), CliError> {
        let classes = images::read_classes(support)?;
        let (queries, unreadable) = read_queries(&images::expand(&self.images)?);
        let app = common.open_app().await?;
        let served = app.adapter(self.adapter.as_deref()).await?;
        let encoder = app.encoder_info().clone();
        eprintln!("answered by {}, {encoder}", app.answering(served.as_ref()));
        let answers = app.classify(classes, queries, options, served.as_ref());
        let result = answers.await?;
        warn(&result.refused);
        Ok((encoder, in_order(result.answers, unreadable)))
    }

    /// The answers of the classifier `name`, and what encoded them. Pictures are read a few at a time, unless all answer together.
    async fn ask_stored(
        &self,
        common: &Common,
        name: &str,
        options: ClassifyOptions,
    ) -> Result<(EncoderInfo, Vec<Answer>), CliError> {
        let paths = images::expand(&self.images)?;
        let Opened { app, store, id } = open_stored(common, name).await?;
        let encoder = app.encoder_info().clone();
        let at_once = if options.transductive {
            paths.len().max(1)
        } else {
            AT_ONCE
        };
        let mut all = Vec::with_capacity(paths.len());
        for chunk in paths.chunks(at_once) {
            let (queries, unreadable) = read_queries(chunk);
            let record = store.classifier(id).await?;
            let options = self.options_of(&record, options);
            let answers = app.classify_with(&record, queries, options).await?;
            if all.is_empty() {
                let answering = app.answering(answers.adapter.as_ref());
                eprintln!("answered by {answering}, {encoder}");
                warn(&answers.classification.refused);
            }
            all.extend(in_order(answers.classification.answers, unreadable));
        }
        Ok((encoder, all))
    }

    /// As [`Self::ask_stored`], into the table `path` as answers come.
    async fn sort_into(
        &self,
        common: &Common,
        name: &str,
        path: &Path,
        options: ClassifyOptions,
    ) -> Result<(), CliError> {
        let mut paths = images::expand(&self.images)?;
        let Opened { app, store, id } = open_stored(common, name).await?;
        let begun = store.classifier(id).await?;
        let columns = format!("{COLUMNS},revision");
        let mut table = SortedTable::open(path, &columns, begun.revision)?;
        let all = paths.len();
        paths.retain(|path| !table.has(&path.display().to_string()));
        if paths.len() < all {
            eprintln!("{} of {all} pictures are there already", all - paths.len());
        }
        let bar = progress_bar();
        let options = self.options_of(&begun, options);
        let (mut done, mut failed) = (0, 0);
        for chunk in paths.chunks(AT_ONCE) {
            let (queries, unreadable) = read_queries(chunk);
            let answers = app.classify_with(&begun, queries, options).await?;
            if answers.revision != begun.revision
                || store.classifier(id).await?.revision != begun.revision
            {
                bar.finish_and_clear();
                return Err(CliError::user(format!(
                    "the classifier \"{name}\" was changed meanwhile; {done} pictures are in {}",
                    path.display()
                ))
                .hint(
                    "run it again with another file, or delete this one to sort all pictures again",
                ));
            }
            if done == 0 {
                eprintln!(
                    "answered by {}, {}",
                    app.answering(answers.adapter.as_ref()),
                    app.encoder_info()
                );
                warn(&answers.classification.refused);
            }
            let answers = in_order(answers.classification.answers, unreadable);
            let is_failed = |answer: &&Answer| matches!(answer, Answer::Failed { .. });
            failed += answers.iter().filter(is_failed).count();
            let line = |answer| format!("{},{}\n", csv_row(answer), begun.revision);
            table.write(&answers.iter().map(line).collect::<String>())?;
            done += chunk.len();
            let _ = show(&bar, "sorting pictures", done, paths.len());
        }
        bar.finish_and_clear();
        let refused = match failed {
            0 => String::new(),
            failed => format!(", {failed} could not be used"),
        };
        eprintln!("{done} pictures sorted into {}{refused}", path.display());
        Ok(())
    }

    /// The options with what the classifier is set to where the command line does not say.
    fn options_of(&self, record: &ClassifierRecord, options: ClassifyOptions) -> ClassifyOptions {
        let Answering { head, reject } = Answering::of(record).asked(self.head, self.reject);
        ClassifyOptions {
            head,
            reject,
            ..options
        }
    }
}

struct Opened {
    app: App,
    store: Store,
    id: Uuid,
}

/// The classifier `name` on its opened backbone.
async fn open_stored(common: &Common, name: &str) -> Result<Opened, CliError> {
    // Alone, features of the classifier's pictures can be kept for the next time; beside a server it has them.
    let registry = match common.open_registry().await? {
        Err(RegistryError::Store(StoreError::InUse { .. })) => {
            common.read_registry(WhenNew::Imagine).await?
        }
        opened => opened?,
    };
    let store = registry.store().clone();
    let id = classifier::find(&store, name).await?.id;
    let app = common.open_app_with(registry).await?;
    Ok(Opened { app, store, id })
}

/// The first line of a table.
const COLUMNS: &str = "image,label,probability,novelty,error";

/// Pictures that are in memory at a time.
const AT_ONCE: usize = 64;

fn warn(refused: &[RefusedSupport]) {
    for refused in refused {
        eprintln!("warning: {}: {}", refused.image, refused.error.message);
    }
}

/// One line of the table, with commas.
fn csv_row(answer: &Answer) -> String {
    match answer {
        Answer::Classified {
            image,
            label,
            scores,
            novelty,
            ..
        } => {
            let probability = scores.first().map_or(0.0, |score| score.probability);
            let label = label.as_deref().unwrap_or_default();
            let novelty = novelty.map_or_else(String::new, |novelty| novelty.to_string());
            format!(
                "{},{},{probability},{novelty},",
                text_cell(image),
                text_cell(label)
            )
        }
        Answer::Failed { image, error } => {
            format!("{},,,,{}", text_cell(image), text_cell(&error.message))
        }
    }
}

/// A share above 0 and below 1.
fn share(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("it must be a number above 0 and below 1".into()),
    }
}

/// Pictures that were read, and those that were not with their place on the command line.
type Queries = (Vec<NamedImage>, Vec<(usize, Answer)>);

fn read_queries(paths: &[PathBuf]) -> Queries {
    let mut read = Vec::new();
    let mut unreadable = Vec::new();
    for (place, path) in paths.iter().enumerate() {
        match std::fs::read(path) {
            Ok(bytes) => read.push(NamedImage {
                name: path.display().to_string(),
                bytes,
            }),
            Err(error) => unreadable.push((
                place,
                Answer::Failed {
                    image: path.display().to_string(),
                    error: Fault {
                        code: "file_unreadable".into(),
                        message: error.to_string(),
                    },
                },
            )),
        }
    }
    (read, unreadable)
}

fn in_order(mut answers: Vec<Answer>, unreadable: Vec<(usize, Answer)>) -> Vec<Answer> {
    for (place, answer) in unreadable {
        answers.insert(place, answer);
    }
    answers
}
