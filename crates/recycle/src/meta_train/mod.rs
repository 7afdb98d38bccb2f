//! Meta-training: one adapter learns from few-shot tasks on the synthetic images of many.
//!
//! Each step draws one task, either of one adapter's classes, where the student's scores are to follow the adapter's own answers
//! (`KL(softmax(teacher / T) ‖ softmax(scores / T))`, teacher logits as the pool has them), or mixed over the classes of several
//! adapters, where the labels are the goal (cross-entropy). Scores are minus the distances of the queries to the class
//! prototypes (arXiv 2412.02220). Before that, merge coefficients of the adapters' sum may be learned in the same way, or so that the
//! adapters' heads are sure of what they read (AdaMerging). Layers before the student's first never change: what they make of an image is computed once.

mod batch;
mod learn;
mod loss;
mod member;
mod merge_coefficients;
mod recipe;
mod start;
mod tasks;
mod validation;

pub use loss::{
    EpisodeLabels, EpisodeLoss, EpisodeScores, Goal, entropy_gradients, episode_gradients,
    episode_loss,
};
pub use member::Member;
pub use recipe::{
    CoefficientObjective, EpisodeHead, Keep, MergeCoefficientRecipe, MetaTrainRecipe, Shots,
    Sparsity, Start,
};
pub use validation::Validation;

use super::episode::EpisodeError;
use super::fresh_adapter::{pair_values, set_pair_values};
use super::recipe::RecipeError;
use super::saved_state::{SavedState, SavedStateError};
use super::steps::{StepReport, Steps};
use engine::operation::OperationError;
use engine::optimise::{Adam, AdamSettings};
use engine::session::{Session, SessionOptions};
use member::{IMAGES_AT_ONCE, TaskSource};
use merge_coefficients::CoefficientLearning;
use model::adapter::{Adapter, MergeError, Site};
use model::backbone::Backbone;
use tasks::{Task, Tasks};
use thiserror::Error;
use validation::RealTasks;

/// Why meta-training cannot start or continue.
#[derive(Debug, Error, Clone, PartialEq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum MetaTrainError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error("there is nothing to learn from; name at least one adapter")]
    NoMembers,
    #[error(
        "the images of {label} were made with the backbone {found}, not with {expected}; make them again"
    )]
    OtherBackbone {
        label: String,
        found: String,
        expected: String,
    },
    #[error("the change of {label} at {site} does not fit the backbone")]
    OtherShape { label: String, site: Site },
    #[error(
        "the images of {label} are {found} × {found} pixels, which does not fit the backbone's patch of {patch}"
    )]
    ImageSize {
        label: String,
        found: usize,
        patch: usize,
    },
    #[error(
        "no adapter has two classes with two images each to learn from; make more images of each class"
    )]
    TooFewImages,
    #[error(
        "too few images to hold some out: two classes need four each; make more images of each class, or set held_out to 0"
    )]
    TooFewHeldOut,
    #[error(
        "all tasks are to mix classes of several adapters, but no two pools go together in image size, number of tokens \
         and labels; choose a smaller share_of_mixed_episodes"
    )]
    NothingMixed,
    #[error(
        "no adapter changes the layers and targets that the recipe names, so there is no sum to start from; name others, or start from zero"
    )]
    NothingToSum,
    #[error(
        "{label} has no head, whose certainty the objective entropy learns merge coefficients from; import it with its head, leave it out, \
         or set the objective to episodes"
    )]
    NoHead { label: String },
    #[error("the pictures to validate on are too few: {0}")]
    RealTasks(#[from] EpisodeError),
    #[error("the start cannot be made: {0}")]
    Merge(#[from] MergeError),
    #[error("meta-training diverged: {0}; choose a smaller learning rate")]
    Diverged(OperationError),
    #[error(transparent)]
    Operation(#[from] OperationError),
    #[error(transparent)]
    State(#[from] SavedStateError),
}

/// What meta-training gives.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaTrainOutcome {
    /// After the last step; of the moving average where there is one.
    pub last: Adapter,
    /// That of the lowest validation loss; absent where there is nothing to validate on.
    pub best: Option<Adapter>,
    /// By adapter, then by layer of the backbone; empty where none were learned.
    pub merge_coefficients: Vec<Vec<f32>>,
    /// Loss of each episode.
    pub loss_curve: Vec<f64>,
    /// In the order of their episodes, the first before any step.
    pub validations: Vec<Validation>,
}

impl MetaTrainOutcome {
    /// The adapter that the recipe asks for.
    pub fn chosen(&self, keep: Keep) -> &Adapter {
        match keep {
            Keep::Last => &self.last,
            Keep::BestValidated => self.best.as_ref().unwrap_or(&self.last),
        }
    }
}

/// An image of the newest task, for looking at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskImage<'a> {
    /// Label of the adapter whose image it is.
    pub adapter: &'a str,
    /// Label of its class.
    pub class: &'a str,
    /// Whether it is an example; else it is a query.
    pub is_support: bool,
    /// `[3, side, side]`
    pub levels: &'a [u8],
    /// In pixels.
    pub side: usize,
}

const KIND: &str = "meta-training";

/// What parts of a state were called in earlier versions.
const OLD_PARTS: [(&str, &str); 3] = [
    ("factors", "merge_coefficients"), // old spelling
    ("factors_adam", "merge_coefficients_adam"),
    ("factor_steps", "merge_coefficient_steps"),
];

/// Meta-training under way.
pub struct MetaTraining {
    session: Session,
    recipe: MetaTrainRecipe,
    table: [[f32; 256]; 3],
    normalisation: ([f32; 3], [f32; 3]),
    sources: Vec<TaskSource>,
    tasks: Tasks,
    validation_tasks: Vec<Task>,
    /// In place of those.
    real_tasks: Option<RealTasks>,
    /// The student's first layer, where what comes before it is computed once.
    first_layer: Option<usize>,
    /// Source and first image of each preparation.
    preparations: Vec<(usize, usize)>,
    prepared: usize,
    /// Shapes, scales and the values of `values`.
    student: Adapter,
    values: Vec<f32>,
    /// Moving average of `values`.
    average: Option<Vec<f32>>,
    adam: Adam,
    /// Comes first where it is there.
    coefficients: Option<CoefficientLearning>,
    scoring: EpisodeScores,
    steps_done: u64,
    loss_curve: Vec<f64>,
    validations: Vec<Validation>,
    best: Option<Vec<f32>>,
}

impl MetaTraining {
    /// Starts from the beginning.
    ///
    /// # Errors
    /// [`MetaTrainError`] for a recipe or pools that do not fit the backbone or each other.
    pub fn new(
        backbone: &Backbone,
        members: Vec<Member>,
        recipe: MetaTrainRecipe,
        options: SessionOptions,
    ) -> Result<Self, MetaTrainError> {
        recipe.validate(&backbone.config)?;
        if members.is_empty() {
            return Err(MetaTrainError::NoMembers);
        }
        let mut sources = members
            .into_iter()
            .map(|member| TaskSource::new(member, backbone, &recipe))
            .collect::<Result<Vec<_>, _>>()?;
        let tasks = Tasks::new(&sources, &recipe)?;
        if recipe.learns_from_entropy() {
            let headless = sources.iter().find(|own| own.member.adapter.head.is_none());
            if let Some(source) = headless {
                let label = source.member.label.clone();
                return Err(MetaTrainError::NoHead { label });
            }
            if !tasks.has_one_adapter() {
                return Err(MetaTrainError::TooFewImages);
            }
        }
        let layers = recipe.layers.resolve(backbone.config.layers);
        let layers = layers.map_err(|problem| RecipeError::Problems(vec![problem]))?;
        let mut student = start::fresh_student(&backbone.config, &layers, &recipe);
        let mut coefficients = None;
        if let Some(scale) = start::sum_scale(recipe.start, sources.len()) {
            let sites = student.pairs.keys();
            let learning = CoefficientLearning::new(&sources, sites, backbone.config.layers, scale);
            if learning.is_empty() {
                return Err(MetaTrainError::NothingToSum);
            }
            start::take_sum(&mut student, &sources, recipe.rank, |_, _| scale)?;
            coefficients = recipe.merge_coefficients.map(|_| learning);
        }
        let frozen = layers.first().copied().filter(|&first| first > 0);
        let first_layer = frozen.filter(|_| !recipe.changes_pixels());
        let preparations = sources.iter().enumerate().flat_map(|(index, source)| {
            let needed = source.needs_preparation(first_layer);
            let images = if needed { source.images() } else { 0 };
            (0..images)
                .step_by(IMAGES_AT_ONCE)
                .map(move |first| (index, first))
        });
        let preparations = preparations.collect();
        let values = pair_values(&student);
        let preprocess = &backbone.preprocess;
        let table = preprocess.normalised_levels();
        let mut session = Session::new(backbone, options)?;
        if first_layer.is_none() && !recipe.changes_pixels() {
            member::keep_on_device(&mut session, &mut sources, &table)?;
        }
        Ok(Self {
            session,
            table,
            normalisation: preprocess.normalisation(),
            preparations,
            prepared: 0,
            validation_tasks: tasks.validation(&recipe),
            real_tasks: None,
            average: recipe.moving_average.map(|_| values.clone()),
            adam: Adam::new(AdamSettings::default(), values.len()),
            coefficients,
            scoring: recipe.episode_scores(),
            sources,
            tasks,
            first_layer,
            student,
            values,
            recipe,
            steps_done: 0,
            loss_curve: Vec::new(),
            validations: Vec::new(),
            best: None,
        })
    }

    /// Goes on from `state`, which [`Steps::state`] of the same recipe, pools and backbone gave.
    ///
    /// # Errors
    /// As [`Self::new`], and [`MetaTrainError::State`].
    pub fn resume(
        backbone: &Backbone,
        members: Vec<Member>,
        recipe: MetaTrainRecipe,
        options: SessionOptions,
        state: &[u8],
    ) -> Result<Self, MetaTrainError> {
        let mut training = Self::new(backbone, members, recipe, options)?;
        training.read_state(&SavedState::read(state, KIND)?.with_old_names(&OLD_PARTS))?;
        Ok(training)
    }

    /// The result, once all steps are done.
    pub fn outcome(&self) -> Option<MetaTrainOutcome> {
        self.is_done().then(|| MetaTrainOutcome {
            last: self.with_values(self.result_values()),
            best: self.best.as_ref().map(|best| self.with_values(best)),
            merge_coefficients: self
                .coefficients
                .as_ref()
                .map_or(vec![], CoefficientLearning::by_adapter),
            loss_curve: self.loss_curve.clone(),
            validations: self.validations.clone(),
        })
    }

    /// How many numbers an image's cached prefix has, plain and mirrored together, and how many the student's low-rank pairs have.
    pub fn sizes(&self) -> (usize, usize) {
        let largest = self.sources.iter().map(|source| source.kept).max();
        let prefix = 2 * largest.unwrap_or(0) * self.session.config().width;
        let is_cached = self.first_layer.is_some();
        (if is_cached { prefix } else { 0 }, self.values.len())
    }

    /// The images of the newest task, supports first; none before the first step.
    pub fn newest_task(&self) -> Vec<TaskImage<'_>> {
        let Some(position) = self.newest_position() else {
            return Vec::new();
        };
        let task = self.task(position);
        let part = |is_support: bool| {
            task.classes.iter().flat_map(move |class| {
                let images = if is_support {
                    &class.supports
                } else {
                    &class.queries
                };
                images
                    .iter()
                    .map(move |&image| (class.class, image, is_support))
            })
        };
        let images: Vec<_> = part(true).chain(part(false)).collect();
        images
            .into_iter()
            .map(|(class, image, is_support)| {
                let pooled = &self.tasks.classes[class];
                let source = &self.sources[pooled.source];
                TaskImage {
                    adapter: &source.member.label,
                    class: source.pool().classes().nth(pooled.class).unwrap_or(""),
                    is_support,
                    levels: source.levels(image),
                    side: source.side(),
                }
            })
            .collect()
    }

    /// What the result would be now.
    fn result_values(&self) -> &[f32] {
        self.average.as_ref().unwrap_or(&self.values)
    }

    fn with_values(&self, values: &[f32]) -> Adapter {
        let mut adapter = self.student.clone();
        set_pair_values(&mut adapter, values);
        adapter
    }

    fn read_state(&mut self, state: &SavedState) -> Result<(), SavedStateError> {
        let other = || SavedStateError("it is of another recipe".into());
        let count = self.values.len();
        self.values = state.f32("values", count)?;
        self.adam = Adam::resume(AdamSettings::default(), state.adam("adam", count)?);
        if let Some(average) = &mut self.average {
            *average = state.f32("average", count)?;
        }
        [self.steps_done] = state.u64("counters")?;
        if let (Some(coefficients), Some(recipe)) =
            (&mut self.coefficients, self.recipe.merge_coefficients)
        {
            coefficients.read(state)?;
            if coefficients.steps_done > recipe.steps {
                return Err(other());
            }
        }
        self.loss_curve = state.f64("loss_curve")?;
        let validations = state.f64("validations")?;
        self.validations = Validation::read(&validations).ok_or_else(other)?;
        self.best = match state.has("best") {
            true => Some(state.f32("best", count)?),
            false => None,
        };
        if self.steps_done > self.recipe.episodes || self.loss_curve.len() as u64 != self.steps_done
        {
            return Err(other());
        }
        set_pair_values(&mut self.student, &self.values);
        Ok(())
    }
}

fn diverged(error: OperationError) -> MetaTrainError {
    match error {
        OperationError::NotFinite { .. } => MetaTrainError::Diverged(error),
        error => MetaTrainError::Operation(error),
    }
}

impl Steps for MetaTraining {
    type Error = MetaTrainError;

    fn is_done(&self) -> bool {
        self.has_coefficients() && self.has_begun() && self.steps_done == self.recipe.episodes
    }

    fn step(&mut self) -> Result<StepReport, MetaTrainError> {
        if self.prepared < self.preparations.len() {
            self.prepare()
        } else if !self.has_coefficients() {
            self.learn_coefficients()
        } else if !self.has_begun() {
            let figures = self.validate()?;
            Ok(self.report(figures))
        } else {
            self.learn()
        }
    }

    /// Prepared images are not kept: they are cheap, and are made again.
    fn state(&mut self) -> Result<Vec<u8>, MetaTrainError> {
        let mut state = SavedState::default();
        state.put_f32("values", &self.values);
        state.put_adam("adam", self.adam.state());
        if let Some(average) = &self.average {
            state.put_f32("average", average);
        }
        state.put_u64("counters", &[self.steps_done]);
        state.put_f64("loss_curve", &self.loss_curve);
        state.put_f64("validations", &Validation::flat(&self.validations));
        if let Some(coefficients) = &self.coefficients {
            coefficients.save(&mut state);
        }
        if let Some(best) = &self.best {
            state.put_f32("best", best);
        }
        Ok(state.write(KIND)?)
    }
}
