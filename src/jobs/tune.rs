//! Tuning as a job: labelled pictures in, an adapter with its head in the registry out.

use super::made::made_before;
use super::pictures::{PICTURES, Prepared, picture_input, pictures_error, prepare, read_pictures};
use super::{Job, JobContext, JobError, JobRequest, Planned, RequestError, Services};
use crate::app::registry::BARE;
use engine::session::SessionOptions;
use recycle::labelled_images::LabelledImages;
use recycle::tune::{TuneError, TuneOutcome, TuneRecipe, Tuning};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use store::{Digest, Lineage, LogLevel, Name};

/// Most adapters of one request.
const MOST_EPISODES: usize = 1000;

/// Tunes one adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tune {
    /// The adapter becomes its next version.
    pub name: Name,
    pub backbone_digest: Digest,
    pub classes: Vec<String>,
    pub pictures: usize,
    pub recipe: TuneRecipe,
    /// Pictures that could not be used, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// What a request for tuning says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    name: Name,
    /// Name of a registered backbone; the served one where there is none.
    backbone: Option<String>,
    /// Labels of the classes to take; all where there is none.
    #[serde(default, deserialize_with = "labels")]
    classes: Option<Vec<String>>,
    /// Tune that many adapters, each on a random choice of classes.
    #[serde(default, deserialize_with = "number")]
    episodes: Option<usize>,
    /// Classes of each of these choices.
    #[serde(default, deserialize_with = "number")]
    way: Option<usize>,
    #[serde(default)]
    recipe: Value,
}

/// A number, also as text: the parts of a form are text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    use serde::de::Error;
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) if text.trim().is_empty() => Ok(None),
        Value::String(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| D::Error::custom(format!("\"{text}\" is no whole number"))),
        value => serde_json::from_value(value).map_err(D::Error::custom),
    }
}

/// A list, or text with commas.
fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    use serde::de::Error;
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) if text.trim().is_empty() => Ok(None),
        Value::String(text) => Ok(Some(
            text.split(',')
                .map(|label| label.trim().to_owned())
                .collect(),
        )),
        value => serde_json::from_value(value).map_err(D::Error::custom),
    }
}

impl Job for Tune {
    const KIND: &'static str = "tune";

    fn title(&self) -> String {
        const SHOWN: usize = 6;
        let mut classes: Vec<&str> = self
            .classes
            .iter()
            .take(SHOWN)
            .map(String::as_str)
            .collect();
        if self.classes.len() > SHOWN {
            classes.push("…");
        }
        format!("Tune {} on {}", self.name, classes.join(", "))
    }

    async fn plan(
        request: JobRequest,
        services: &Services,
    ) -> Result<Vec<Planned<Self>>, RequestError> {
        let Parameters {
            name,
            backbone,
            classes,
            episodes,
            way,
            recipe,
        } = request.parameters()?;
        if name.as_str() == BARE {
            return Err(RequestError::invalid(
                "name",
                format!("\"{BARE}\" stands for no adapter; choose another name"),
            ));
        }
        if request.images.is_empty() {
            return Err(RequestError::invalid(
                "archive",
                "there are no pictures; send a zip whose folders are classes",
            ));
        }
        let recipe = match recipe {
            Value::Null => TuneRecipe::default(),
            recipe => TuneRecipe::from_json(&recipe)
                .map_err(|error| RequestError::invalid("recipe", error.to_string()))?,
        };
        let backbone = services.backbone_named(backbone.as_deref()).await?;
        recipe
            .validate(&backbone.config)
            .map_err(|error| RequestError::invalid("recipe", error.to_string()))?;
        let waits_for = request.waits_for;
        let images = request.images;
        let digest = super::backbone_digest(&backbone)?;
        let preprocess = backbone.preprocess.clone();
        let plan = move || {
            let Prepared { images, left_out } = prepare(images, classes.as_deref(), &preprocess)?;
            let cuts = cuts(&images, name, episodes, way, recipe)?;
            let planned = cuts.into_iter().map(|(name, images, recipe)| {
                let input = picture_input(PICTURES, &images)?;
                Ok(Planned {
                    job: Self {
                        name,
                        backbone_digest: digest.clone(),
                        classes: images.classes().to_vec(),
                        pictures: images.len(),
                        recipe,
                        left_out: left_out.clone(),
                    },
                    inputs: vec![input],
                    waits_for: waits_for.clone(),
                })
            });
            planned.collect::<Result<Vec<_>, RequestError>>()
        };
        tokio::task::spawn_blocking(plan)
            .await
            .map_err(|error| RequestError::Registry(error.into()))?
    }

    fn run(&self, context: &JobContext) -> Result<Value, JobError> {
        if let Some(made) = made_before(context, &self.name)? {
            return Ok(json!({"adapter": made.label(), "adapter_id": made.id}));
        }
        for sentence in &self.left_out {
            context.log(LogLevel::Warning, sentence)?;
        }
        let services = context.services();
        let backbone = context.block_on(services.backbone(&self.backbone_digest))?;
        let images = read_pictures(context, PICTURES)?;
        let options = SessionOptions {
            threads: context.threads(),
            ..SessionOptions::default()
        };
        let mut tuning = match context.load_checkpoint()? {
            Some(state) => {
                context.log(LogLevel::Info, "going on from the last checkpoint")?;
                Tuning::resume(&backbone, images, self.recipe.clone(), options, &state)?
            }
            None => Tuning::new(&backbone, images, self.recipe.clone(), options)?,
        };
        context.drive(&mut tuning)?;
        let outcome = tuning.outcome().ok_or_else(|| {
            JobError::failure("tune", "tuning ended without a result, which is a defect")
        })?;
        self.store(context, outcome)
    }
}

/// The adapters to tune: one, or one for each random choice of classes.
fn cuts(
    images: &LabelledImages,
    name: Name,
    episodes: Option<usize>,
    way: Option<usize>,
    recipe: TuneRecipe,
) -> Result<Vec<(Name, LabelledImages, TuneRecipe)>, RequestError> {
    let Some(episodes) = episodes else {
        if way.is_some() {
            return Err(RequestError::invalid(
                "way",
                "way is the number of classes of each of several adapters; say with episodes how many adapters to tune",
            ));
        }
        return Ok(vec![(name, images.clone(), recipe)]);
    };
    if !(1..=MOST_EPISODES).contains(&episodes) {
        return Err(RequestError::invalid(
            "episodes",
            format!("episodes is {episodes}; it must lie from 1 to {MOST_EPISODES}"),
        ));
    }
    let choices = images
        .episodes(episodes, way.unwrap_or(DEFAULT_WAY), recipe.seed)
        .map_err(|error| RequestError::invalid("way", error.to_string()))?;
    (0_u64..)
        .zip(choices)
        .map(|(episode, classes)| {
            let name: Name = format!("{name}-{episode:04}")
                .parse()
                .map_err(|error| RequestError::invalid("name", format!("{error}")))?;
            let recipe = TuneRecipe {
                seed: recipe.seed.wrapping_add(episode),
                ..recipe.clone()
            };
            let images = images.subset(&classes).map_err(pictures_error)?;
            Ok((name, images, recipe))
        })
        .collect()
}

const DEFAULT_WAY: usize = 5;

impl Tune {
    fn store(&self, context: &JobContext, outcome: TuneOutcome) -> Result<Value, JobError> {
        let lineage = Lineage {
            parents: Vec::new(),
            recipe: Some(json!({
                "operation": Self::KIND,
                "job": context.id(),
                "recipe": self.recipe,
                "classes": self.classes,
                "pictures": self.pictures,
                "training": outcome.training,
                "held_out": outcome.held_out,
                "stopped_early": outcome.stopped_early,
            })),
        };
        let registry = context.services().registry();
        let store = async {
            let candidate = registry
                .candidate_of_backbone(&self.backbone_digest)
                .await?;
            let name = self.name.clone();
            registry
                .store_made(outcome.adapter, name, candidate, lineage)
                .await
        };
        let record = context.block_on(store)?;
        Ok(json!({
            "adapter": record.label(),
            "adapter_id": record.id,
            "training_accuracy": outcome.training.accuracy,
            "held_out_accuracy": outcome.held_out.map(|held_out| held_out.accuracy),
            "held_out_pictures": outcome.held_out.map(|held_out| held_out.pictures),
        }))
    }
}

impl From<TuneError> for JobError {
    fn from(error: TuneError) -> Self {
        let message = error.to_string();
        match error {
            TuneError::Recipe(_) | TuneError::ImageSize { .. } | TuneError::NothingHeldOut => {
                Self::abort("recipe", message)
            }
            TuneError::Diverged(_) => Self::abort("diverged", message)
                .hint("submit it again with a smaller learning_rate"),
            TuneError::State(_) => {
                Self::abort("checkpoint", message).hint("submit it again, as a new job")
            }
            TuneError::Operation(_) => Self::failure("engine", message),
        }
    }
}
