//! Methods compared on the same few-shot tasks: adapters, merges of adapters, and what one would do without them. Features of every
//! picture are computed once for each method.

mod leave_out;
mod merging;
mod method;
mod recipe;
mod report;
mod tuning;

pub use leave_out::{LeaveOneOut, LeftOut};
pub use method::{Method, MethodKind};
pub use recipe::EvaluationRecipe;
pub use report::{
    Difference, EvaluationReport, FactorSource, MergeReport, MethodReport, TriedFactor,
    TuningReport,
};

use super::registry::{RegistryError, ServedAdapter};
use super::{App, AppError};
use crate::adapter::{Adapter, MergeError};
use crate::engine::operation::OperationError;
use crate::inference::{EncodeError, EncodeRow, Outputs};
use crate::recycle::episode::{Episode, EpisodeError, EpisodeShape, draw_episodes};
use crate::recycle::evaluate::{
    TuningProblem, linear_probe_accuracies, pixel_accuracies, task_accuracies,
};
use crate::recycle::labelled_images::{LabelledImages, LabelledImagesError, normalise};
use crate::recycle::prototype::Distance;
use crate::tensor::Tensor;
use report::{Run, pairwise};
use std::ops::ControlFlow;
use std::sync::Arc;
use thiserror::Error;

/// What to compare, and on which tasks.
#[derive(Debug, Clone)]
pub struct Evaluation {
    pub shape: EpisodeShape,
    /// How many.
    pub tasks: usize,
    /// The same seed draws the same tasks.
    pub seed: u64,
    pub distance: Distance,
    pub methods: Vec<Method>,
    /// References of the adapters that the method `adapter` stands for, each on its own.
    pub adapters: Vec<String>,
    /// Further adapters that `adapter` stands for, which are not in the registry yet.
    pub candidates: Vec<Candidate>,
    /// References of the adapters that are merged.
    pub pool: Vec<String>,
    /// Rank of merges; what is exact where it is not given.
    pub merge_rank: Option<usize>,
    /// Chooses the factor of every merge on synthetic tasks, not of the sum alone.
    pub choose_factors: bool,
    /// The method that differences are taken to; `bare` where it is compared, else the first.
    pub against: Option<MethodKind>,
    pub tuning: TaskTuning,
}

/// An adapter that is not in the registry.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// What the report calls it.
    pub label: String,
    pub adapter: Arc<Adapter>,
}

/// How `tune` tunes a LoRA for each task.
#[derive(Debug, Clone)]
pub struct TaskTuning {
    /// Most tasks: each takes seconds to minutes.
    pub tasks: usize,
    pub steps: u64,
    /// The best of a few on tasks of `validation` where it is not given, else 1e-3.
    pub learning_rate: Option<f64>,
    /// Pictures of other classes than those that are compared on.
    pub validation: Option<LabelledImages>,
    pub threads: usize,
}

/// Pictures that are encoded together.
const CHUNK: usize = 64;

/// Why methods cannot be compared.
#[derive(Debug, Error)]
pub enum EvaluationError {
    /// What is asked for contradicts itself or misses something; says what to do.
    #[error("{0}")]
    Request(String),
    #[error(transparent)]
    Episode(#[from] EpisodeError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    Tuning(#[from] TuningProblem),
    #[error(transparent)]
    Images(#[from] LabelledImagesError),
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl From<RegistryError> for EvaluationError {
    fn from(error: RegistryError) -> Self {
        AppError::from(error).into()
    }
}

/// Told what is done, how much of it, and of how much; says whether to go on.
pub type Progress<'a> = &'a (dyn Fn(&'static str, usize, usize) -> ControlFlow<()> + Sync);

/// Tells `progress`, and ends where it says so.
fn told(
    progress: Progress<'_>,
    phase: &'static str,
    done: usize,
    total: usize,
) -> Result<(), AppError> {
    match progress(phase, done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EncodeError::Stopped.into()),
    }
}

/// For those who tell nobody.
const UNTOLD: Progress<'static> = &|_, _, _| ControlFlow::Continue(());

/// The adapters of a request, found.
struct Sources {
    adapters: Vec<ServedAdapter>,
    pool: Vec<ServedAdapter>,
    /// Of each adapter of the pool, to choose factors on; empty where none is chosen.
    synthetic: Vec<LabelledImages>,
}

impl Sources {
    /// The pool without the adapter at `left_out`.
    fn all_but(&self, left_out: usize) -> Vec<&ServedAdapter> {
        let kept = self.pool.iter().enumerate();
        let kept = kept.filter(|(index, _)| *index != left_out);
        kept.map(|(_, own)| own).collect()
    }
}

impl Evaluation {
    /// Whether the factor of this merge is chosen on synthetic tasks.
    fn chooses_factor(&self, method: Method) -> bool {
        let is_meant = method.kind == MethodKind::Sum || self.choose_factors;
        is_meant && method.kind.takes_factor() && method.factor.is_none()
    }

    /// Checks everything that needs no backbone and no picture.
    ///
    /// # Errors
    /// [`EvaluationError::Request`]
    pub fn check(&self) -> Result<(), EvaluationError> {
        let refuse = |sentence: String| Err(EvaluationError::Request(sentence));
        if self.tasks == 0 {
            return refuse("there must be at least 1 task".into());
        }
        if self.methods.is_empty() {
            return refuse("there is no method to compare; name at least one, such as bare".into());
        }
        for (place, method) in self.methods.iter().enumerate() {
            let name = method.kind.name();
            if self.methods[..place].contains(method) {
                return refuse(format!("the method {name} stands twice; leave one out"));
            }
            let is_named = !self.adapters.is_empty() || !self.candidates.is_empty();
            if method.kind == MethodKind::Adapter && !is_named {
                return refuse("the method adapter needs an adapter; name it with --adapter, or adapters in a request".into());
            }
            if method.kind.merge().is_some() && self.pool.is_empty() {
                return refuse(format!(
                    "{name} merges adapters; name them with --pool A B C, or pool in a request"
                ));
            }
            if method.kind == MethodKind::Tune && (self.tuning.tasks == 0 || self.tuning.steps == 0)
            {
                return refuse("tune needs at least 1 task and 1 step".into());
            }
        }
        match self.against {
            Some(against) if !self.methods.iter().any(|method| method.kind == against) => {
                refuse(format!(
                    "differences are to be taken to {}, which is not among the methods; add it",
                    against.name()
                ))
            }
            _ => Ok(()),
        }
    }
}

impl App {
    /// Compares methods on tasks drawn from `images`, which are prepared for this backbone.
    ///
    /// # Errors
    /// [`EvaluationError`] says what is missing before anything is computed, as far as that can be known.
    pub async fn evaluate(
        &self,
        images: &LabelledImages,
        request: &Evaluation,
        progress: Progress<'_>,
    ) -> Result<EvaluationReport, EvaluationError> {
        request.check()?;
        let positions = images.by_class();
        let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
        let episodes = draw_episodes(&sizes, request.shape, request.tasks, request.seed)?;
        let chooses = |&method: &Method| request.chooses_factor(method);
        let sources = Sources {
            adapters: self.found(&request.adapters).await?,
            ..self
                .pool_of(request, request.methods.iter().any(chooses))
                .await?
        };
        let mut bare = None;
        let mut passes = Passes::new(request, progress);
        let mut runs: Vec<Run> = Vec::new();
        let tasks = Tasks {
            images,
            positions: &positions,
            episodes: &episodes,
        };
        for &method in &request.methods {
            let run = |accuracies| Run {
                kind: method.kind,
                adapter: None,
                accuracies,
                merge: None,
                tuning: None,
            };
            match (method.kind, method.kind.merge()) {
                (_, Some(definition)) => {
                    let (adapter, merge) = self
                        .merged_pool(request, &sources, method, definition, progress)
                        .await?;
                    let adapter = Arc::new(adapter);
                    let accuracies = self.by_prototypes(&tasks, request, &adapter, passes.next());
                    runs.push(Run {
                        merge: Some(merge),
                        ..run(accuracies.await?)
                    });
                }
                (MethodKind::Adapter, _) => {
                    let found = sources.adapters.iter();
                    let found = found.map(|own| (own.record.label(), &own.adapter));
                    let candidates = request.candidates.iter();
                    let candidates = candidates.map(|own| (own.label.clone(), &own.adapter));
                    for (label, adapter) in candidates.chain(found) {
                        let accuracies =
                            self.by_prototypes(&tasks, request, adapter, passes.next());
                        runs.push(Run {
                            adapter: Some(label),
                            ..run(accuracies.await?)
                        });
                    }
                }
                (MethodKind::Pixels, _) => {
                    let distance = request.distance;
                    runs.push(run(pixel_accuracies(
                        images, &positions, &episodes, distance,
                    )));
                }
                (MethodKind::Tune, _) => {
                    let (accuracies, tuning) = self.tuned(&tasks, request, progress)?;
                    runs.push(Run {
                        tuning: Some(tuning),
                        ..run(accuracies)
                    });
                }
                (kind, _) => {
                    if bare.is_none() {
                        let levels = (images.all_levels(), images.image_size());
                        let features =
                            self.features_by_class(levels, &positions, None, passes.next());
                        bare = Some(features.await?);
                    }
                    let features = bare.as_deref().unwrap_or_default();
                    runs.push(run(if kind == MethodKind::Linear {
                        linear_probe_accuracies(features, &episodes)?
                    } else {
                        task_accuracies(features, &episodes, request.distance)
                    }));
                }
            }
        }
        let against = request.against.unwrap_or(MethodKind::Bare);
        let against = runs
            .iter()
            .find(|run| run.kind == against)
            .unwrap_or(&runs[0]);
        Ok(EvaluationReport {
            shape: request.shape,
            tasks: request.tasks,
            seed: request.seed,
            distance: request.distance,
            classes: positions.len(),
            images: images.len(),
            backbone: self.backbone_name.clone(),
            backbone_digest: self.backbone.digest.clone(),
            pool: sources.pool.iter().map(|own| own.record.label()).collect(),
            against: against.kind,
            methods: runs.iter().map(|run| run.report(against)).collect(),
            pairwise: pairwise(&runs),
        })
    }

    /// The adapters of the pool, with their synthetic images where a factor is chosen on them: what is missing is said before
    /// anything is computed.
    async fn pool_of(
        &self,
        request: &Evaluation,
        chooses_factor: bool,
    ) -> Result<Sources, EvaluationError> {
        let pool = self.found(&request.pool).await?;
        let synthetic = match chooses_factor {
            true => self.synthetic_images(&pool).await?,
            false => Vec::new(),
        };
        Ok(Sources {
            adapters: Vec::new(),
            pool,
            synthetic,
        })
    }

    async fn found(&self, references: &[String]) -> Result<Vec<ServedAdapter>, EvaluationError> {
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            match self.adapter(Some(reference)).await? {
                Some(served) => found.push(served),
                None => {
                    return Err(EvaluationError::Request(format!(
                        "\"{reference}\" is the bare backbone, not an adapter; the method bare stands for it"
                    )));
                }
            }
        }
        Ok(found)
    }

    async fn by_prototypes(
        &self,
        tasks: &Tasks<'_>,
        request: &Evaluation,
        adapter: &Arc<Adapter>,
        pass: Pass<'_>,
    ) -> Result<Vec<f64>, EvaluationError> {
        let levels = (tasks.images.all_levels(), tasks.images.image_size());
        let features = self
            .features_by_class(levels, tasks.positions, Some(adapter), pass)
            .await?;
        Ok(task_accuracies(&features, tasks.episodes, request.distance))
    }

    /// `features[class][image]` of the pictures at `positions` among `levels` `[N, 3, side, side]`.
    pub(super) async fn features_by_class(
        &self,
        (levels, side): (&[u8], usize),
        positions: &[Vec<usize>],
        adapter: Option<&Arc<Adapter>>,
        pass: Pass<'_>,
    ) -> Result<Vec<Vec<Vec<f32>>>, AppError> {
        let order: Vec<usize> = positions.iter().flatten().copied().collect();
        let table = self.backbone.preprocess.normalised_levels();
        let length = 3 * side * side;
        let mut features = Vec::with_capacity(order.len());
        for chunk in order.chunks(CHUNK) {
            pass.told(features.len(), order.len())?;
            let rows = chunk.iter().map(|index| {
                let mut pixels = Tensor::zeros([3, side, side]);
                let own = &levels[index * length..(index + 1) * length];
                normalise(own, &table, pixels.data_mut());
                EncodeRow {
                    pixels: Arc::new(pixels),
                    adapter: adapter.cloned(),
                    pinned: false,
                }
            });
            let encoded = self.encoder.encode(rows.collect(), Outputs::default());
            features.extend(encoded.await?.into_iter().map(|own| own.feature));
        }
        let mut features = features.into_iter();
        let of_class = |own: &Vec<usize>| features.by_ref().take(own.len()).collect();
        Ok(positions.iter().map(of_class).collect())
    }
}

/// Passes of all pictures through the backbone, counted together so that the time left is that of all.
struct Passes<'a> {
    progress: Progress<'a>,
    begun: usize,
    all: usize,
}

impl<'a> Passes<'a> {
    fn new(request: &Evaluation, progress: Progress<'a>) -> Self {
        let is_bare = |kind| matches!(kind, MethodKind::Bare | MethodKind::Linear);
        let kinds = request.methods.iter().map(|method| method.kind);
        let passes = kinds.clone().map(|kind| match kind {
            MethodKind::Adapter => request.adapters.len() + request.candidates.len(),
            kind => usize::from(kind.merge().is_some()),
        });
        Self {
            progress,
            begun: 0,
            all: passes.sum::<usize>() + usize::from(kinds.clone().any(is_bare)),
        }
    }

    fn next(&mut self) -> Pass<'a> {
        self.begun += 1;
        Pass {
            progress: self.progress,
            before: self.begun - 1,
            all: self.all,
        }
    }
}

/// One of several passes.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    progress: Progress<'a>,
    before: usize,
    all: usize,
}

impl Pass<'_> {
    /// A pass that nobody is told of.
    pub const UNTOLD: Pass<'static> = Pass {
        progress: UNTOLD,
        before: 0,
        all: 1,
    };

    fn told(self, done: usize, of: usize) -> Result<(), AppError> {
        let (done, total) = (self.before * of + done, self.all * of);
        told(self.progress, "encoding pictures", done, total)
    }
}

/// Pictures and the tasks drawn from them.
#[derive(Clone, Copy)]
struct Tasks<'a> {
    images: &'a LabelledImages,
    positions: &'a [Vec<usize>],
    episodes: &'a [Episode],
}
