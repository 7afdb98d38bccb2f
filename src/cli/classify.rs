//! `classify`: pictures into classes that a folder of examples defines.

use super::options::{Common, block_on, print_answers, print_line};
use super::{CliError, images};
use crate::app::{Answer, ClassifyOptions, CopiesWanted, Fault, NamedImage};
use clap::Args;
use recycle::head::HeadChoice;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classify --support pets/ new.jpg
  lora-recycle classify --support pets/ --json holiday/ | jq '.[].label'
  lora-recycle classify --support pets/ --adapter meta@champion new.jpg
  lora-recycle classify --support pets/ --transductive holiday/")]
pub struct Classify {
    /// Folder whose sub-folders are the classes, each with a few example pictures
    #[arg(long, value_name = "DIR", env = "LORA_RECYCLE_SUPPORT")]
    support: PathBuf,
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
    /// What reads the features: auto, nearest-mean, lda or lda-augmented
    #[arg(
        long,
        value_name = "HEAD",
        env = "LORA_RECYCLE_HEAD",
        default_value = "auto"
    )]
    head: HeadChoice,
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
        let classes = images::read_classes(&self.support)?;
        let (queries, unreadable) = read_queries(&self.images)?;
        let options = ClassifyOptions {
            nearest: self.nearest,
            attention: false,
            head: self.head,
            copies: CopiesWanted::Always,
            transductive: self.transductive,
            reject: self.reject,
        };
        if let Some(problem) = options.problem() {
            return Err(CliError::user(problem));
        }
        let (encoder, result) = block_on(async {
            let app = common.open_app().await?;
            let served = app.adapter(self.adapter.as_deref()).await?;
            let encoder = app.encoder_info().clone();
            eprintln!("answered by {}, {encoder}", app.answering(served.as_ref()));
            let answers = app.classify(classes, queries, options, served.as_ref());
            Ok::<_, CliError>((encoder, answers.await?))
        })??;
        for refused in &result.refused {
            eprintln!("warning: {}: {}", refused.image, refused.error.message);
        }
        let answers = in_order(result.answers, unreadable);
        if common.json {
            print_answers(&answers, &encoder)?;
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

fn read_queries(paths: &[PathBuf]) -> Result<Queries, CliError> {
    let mut read = Vec::new();
    let mut unreadable = Vec::new();
    for (place, path) in images::expand(paths)?.into_iter().enumerate() {
        match std::fs::read(&path) {
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
    Ok((read, unreadable))
}

fn in_order(mut answers: Vec<Answer>, unreadable: Vec<(usize, Answer)>) -> Vec<Answer> {
    for (place, answer) in unreadable {
        answers.insert(place, answer);
    }
    answers
}
