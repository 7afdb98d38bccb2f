//! Tuning as a job: labelled pictures in, an adapter with its head in the registry out.

use super::labelled::all_pictures;
use super::made::made_before;
use super::pictures::{PICTURES, Prepared, picture_input, pictures_error, prepare, read_pictures};
use super::{
    ClassPictures, Job, JobContext, JobError, JobRequest, LabelledImage, Planned, RequestError,
    Services, by_class,
};
use crate::app::registry::BARE;
use crate::base64_bytes::Base64Bytes;
use recycle::labelled_images::LabelledImages;
use recycle::over_preset::OverPreset;
use recycle::tune::{Recognition, TuneError, TuneOutcome, TuneRecipe, Tuning};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{AdapterRecord, Digest, Lineage, LogLevel, Name};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most adapters of one request.
const MOST_EPISODES: usize = 1000;

/// Most bytes of the decoded pictures of all adapters of one request.
const MOST_BYTES: usize = 512 << 20;

/// Tunes one adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = TuneJob)]
pub struct Tune {
    /// The adapter becomes its next version.
    pub name: Name,
    /// Of the backbone that the adapter changes.
    pub backbone_digest: Digest,
    /// Labels, in the order in which the head counts them.
    pub classes: Vec<String>,
    /// Pictures that could be used.
    pub pictures: usize,
    /// How it is tuned.
    pub recipe: TuneRecipe,
    /// Pictures that could not be used, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// What to tune on labelled pictures, which come as `pictures`, as a zip, or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TuneRequest {
    /// Name of the adapter; it becomes the next version. Of several, names are `NAME-0000` and so on.
    pub name: Name,
    /// Name of a registered backbone; left out, the one that answers requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
    /// Labels of the classes to take; left out, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Tune this many adapters, each on a random choice of classes; left out, one on all classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub episodes: Option<usize>,
    /// Classes of each of these choices, 5 where it is left out; only with `episodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 2)]
    pub way: Option<usize>,
    /// How it is tuned; every field may be left out.
    #[serde(default)]
    pub recipe: TuneRecipeRequest,
    /// Jobs that must succeed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Uuid>,
    /// Labelled pictures, at least two classes with one usable picture each.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "by_class")]
    #[schema(value_type = Vec<ClassPictures>)]
    pub pictures: Vec<LabelledImage>,
    /// Instead of or beside `pictures`: a zip whose folders are classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub archive: Option<Base64Bytes>,
}

/// The recipe of a [`TuneRequest`].
pub type TuneRecipeRequest = OverPreset<TuneRecipe>;

impl TuneRequest {
    /// With all defaults, and no pictures yet.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            backbone: None,
            classes: None,
            episodes: None,
            way: None,
            recipe: OverPreset::default(),
            waits_for: Vec::new(),
            pictures: Vec::new(),
            archive: None,
        }
    }
}

impl JobRequest for TuneRequest {
    fn pictures(&mut self) -> Option<&mut Vec<LabelledImage>> {
        Some(&mut self.pictures)
    }

    fn files(&mut self) -> Vec<(&'static str, &mut Option<Base64Bytes>)> {
        vec![("archive", &mut self.archive)]
    }
}

/// The adapter that tuning made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TuneResult {
    /// `name:version`
    #[schema(example = "pets:1")]
    pub adapter: String,
    /// Of the adapter.
    pub adapter_id: Uuid,
    /// Share of the pictures it learned from that it recognises.
    #[serde(default)]
    #[schema(required = true)]
    pub training_accuracy: Option<f64>,
    /// Share of the held-out pictures that it recognises; null where none were held out.
    #[serde(default)]
    #[schema(required = true)]
    pub held_out_accuracy: Option<f64>,
    /// How many were held out.
    #[serde(default)]
    #[schema(required = true)]
    pub held_out_pictures: Option<usize>,
}

/// What the lineage of the adapter says about its tuning, as far as the result repeats it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tuned {
    training: Option<Recognition>,
    held_out: Option<Recognition>,
}

impl TuneResult {
    fn of(made: &AdapterRecord) -> Self {
        let lineage = made.lineage.recipe.clone();
        let tuned = lineage.and_then(|lineage| serde_json::from_value::<Tuned>(lineage).ok());
        let Tuned { training, held_out } = tuned.unwrap_or_default();
        Self {
            adapter: made.label(),
            adapter_id: made.id,
            training_accuracy: training.map(|training| training.accuracy),
            held_out_accuracy: held_out.map(|held_out| held_out.accuracy),
            held_out_pictures: held_out.map(|held_out| held_out.pictures),
        }
    }
}

impl Job for Tune {
    type Request = TuneRequest;
    type Outcome = TuneResult;

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
        request: TuneRequest,
        services: &Services,
    ) -> Result<Vec<Planned<Self>>, RequestError> {
        let TuneRequest {
            name,
            backbone,
            classes,
            episodes,
            way,
            recipe: OverPreset(mut recipe),
            waits_for,
            pictures,
            archive,
        } = request;
        if name.as_str() == BARE {
            return Err(RequestError::invalid(
                "name",
                format!("\"{BARE}\" means no adapter; choose another name"),
            ));
        }
        let pictures = all_pictures(pictures, archive).await?;
        if pictures.is_empty() {
            return Err(RequestError::invalid(
                "archive",
                "there are no pictures; send a zip whose folders are classes",
            ));
        }
        let backbone = services.backbone_named(backbone.as_deref()).await?;
        recipe.arithmetic = services.devices().planned(recipe.arithmetic);
        recipe
            .validate(&backbone.config)
            .map_err(|error| RequestError::invalid("recipe", error.to_string()))?;
        let digest = super::backbone_digest(&backbone)?;
        let preprocess = backbone.preprocess.clone();
        let plan = move || {
            let Prepared { images, left_out } = prepare(pictures, classes.as_deref(), &preprocess)?;
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

    fn run(&self, context: &JobContext) -> Result<TuneResult, JobError> {
        if let Some(made) = made_before(context, &self.name)? {
            return Ok(TuneResult::of(&made));
        }
        for sentence in &self.left_out {
            context.log(LogLevel::Warning, sentence)?;
        }
        let services = context.services();
        let backbone = context.block_on(services.backbone(&self.backbone_digest))?;
        let images = read_pictures(context, PICTURES)?;
        let options = context.session_options(self.recipe.arithmetic)?;
        let mut tuning = match context.load_checkpoint()? {
            Some(state) => {
                context.log(LogLevel::Info, "resuming from the last checkpoint")?;
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
            format!("episodes is {episodes}; it must be from 1 to {MOST_EPISODES}"),
        ));
    }
    let choices = images
        .episodes(episodes, way.unwrap_or(DEFAULT_WAY), recipe.seed)
        .map_err(|error| RequestError::invalid("way", error.to_string()))?;
    // Each adapter has its own copy of its pictures while it waits.
    let of_picture = images.all_levels().len() / images.len().max(1);
    let mut pictures = 0_usize;
    for classes in &choices {
        let own = images
            .labels()
            .iter()
            .filter(|&&label| classes.contains(&(label as usize)));
        pictures += own.count();
    }
    let bytes = pictures.saturating_mul(of_picture);
    if bytes > MOST_BYTES {
        return Err(RequestError::invalid(
            "episodes",
            format!(
                "the pictures of {episodes} adapters take {} MiB, more than the {} MiB allowed at a time; ask for fewer episodes, or for fewer classes in each",
                bytes >> 20,
                MOST_BYTES >> 20
            ),
        ));
    }
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
    fn store(&self, context: &JobContext, outcome: TuneOutcome) -> Result<TuneResult, JobError> {
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
        Ok(TuneResult::of(&context.block_on(store)?))
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
            TuneError::Operation(error) => Self::engine(&error),
        }
    }
}
