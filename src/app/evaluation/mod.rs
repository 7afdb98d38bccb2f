//! Methods compared on the same few-shot tasks: adapters, merges of adapters, and what one would do without them. Features of every
//! picture are computed once for each method.

mod cache;
mod cost;
mod leave_out;
mod merging;
mod method;
mod progress;
mod recipe;
mod report;
mod request;
mod tuning;

pub use cache::EvaluationCache;
pub use method::{Method, MethodKind};
pub(super) use progress::EncodingPass;
pub use progress::EvaluationProgress;
pub use recipe::EvaluationRecipe;
pub use report::{
    CertaintyReport, Difference, EvaluationReport, LeaveOneOutReport, LeftOut, MergeReport,
    MethodReport, MethodRun, ScaleSource, TriedScale, TuningReport,
};

use super::registry::{RegistryError, ServedAdapter};
use super::{App, AppError};
use crate::inference::{EncodeError, EncodeRow, Outputs};
use cache::CachedMerges;
use engine::operation::OperationError;
use model::adapter::{Adapter, MergeError};
use model::tensor::Tensor;
use progress::Passes;
use rayon::prelude::*;
use recycle::classifier::ClassifierSettings;
use recycle::episode::{Episode, EpisodeError, draw_episodes};
use recycle::evaluate::{
    ClassFeatures, TuningProblem, certainty, head_accuracies, linear_probe_accuracies,
    pixel_accuracies, task_accuracies,
};
use recycle::head::copies::{CopySpec, with_its_copies};
use recycle::head::{HeadChoice, HeadError, HeadKind};
use recycle::labelled_images::{LabelledImages, LabelledImagesError, normalise};
use report::pairwise;
use std::sync::Arc;
use thiserror::Error;

/// What to compare, and with whom.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// The methods and the tasks that they are compared on.
    pub recipe: EvaluationRecipe,
    /// References of the adapters that the method `adapter` stands for, each separately.
    pub adapters: Vec<String>,
    /// Further adapters that `adapter` stands for, which are not in the registry yet.
    pub candidates: Vec<UnregisteredAdapter>,
    /// References of the adapters that are merged.
    pub pool: Vec<String>,
    /// Pictures of other classes than those that are compared on: `tune` takes the best learning rate on them.
    pub validation: Option<LabelledImages>,
    /// Of `tune`.
    pub threads: usize,
    /// What an interrupted run of the same evaluation has [kept](EvaluationProgress::keep).
    pub finished: Vec<MethodRun>,
    /// Of an earlier evaluation of the same pictures and pool; this one leaves its results here, too. For a single one, none.
    pub cache: Option<EvaluationCache>,
}

/// An adapter that is not in the registry.
#[derive(Debug, Clone)]
pub struct UnregisteredAdapter {
    /// What the report calls it.
    pub label: String,
    /// Its tensors.
    pub adapter: Arc<Adapter>,
}

/// Pictures that are encoded together.
const CHUNK: usize = 64;

/// Why methods cannot be compared.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
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
    #[error(transparent)]
    Head(#[from] HeadError),
}

impl From<RegistryError> for EvaluationError {
    fn from(error: RegistryError) -> Self {
        AppError::from(error).into()
    }
}

/// The adapters of a request, found.
struct Sources {
    pool: Vec<ServedAdapter>,
    /// Of each adapter of the pool, to choose scales on; empty where none is chosen.
    synthetic: Vec<LabelledImages>,
    /// Those of the whole pool that have been made.
    merges: CachedMerges,
}

impl Sources {
    /// The pool without the adapter at `left_out`.
    fn all_but(&self, left_out: usize) -> Vec<&ServedAdapter> {
        let kept = self.pool.iter().enumerate();
        let kept = kept.filter(|(index, _)| *index != left_out);
        kept.map(|(_, own)| own).collect()
    }
}

/// One line of the report, to be computed.
struct MethodEntry {
    method: Method,
    /// Label and adapter, of the method `adapter`.
    adapter: Option<(String, Arc<Adapter>)>,
}

impl MethodEntry {
    /// The head of each line that it gives the report.
    fn heads(&self, recipe: &EvaluationRecipe) -> Vec<Option<HeadChoice>> {
        match self.method.kind {
            MethodKind::Adapter | MethodKind::Bare | MethodKind::Merge(_) => {
                recipe.heads.iter().copied().map(Some).collect()
            }
            MethodKind::Linear | MethodKind::Tune | MethodKind::Pixels => vec![None],
        }
    }
}

impl MethodRun {
    /// One line for each head of `recipe`.
    fn by_heads(
        self,
        features: &ClassFeatures,
        tasks: &EvaluationTasks<'_>,
        recipe: &EvaluationRecipe,
    ) -> Result<Vec<Self>, EvaluationError> {
        let lines = recipe.heads.iter().map(|&head| {
            let certainty = recipe.certainty.then(|| {
                let settings = ClassifierSettings {
                    head,
                    distance: recipe.distance,
                };
                certainty(features, tasks.episodes, settings, recipe.seed)
            });
            let certainty = certainty.transpose().map_err(AppError::from)?;
            Ok(Self {
                head: Some(head),
                certainty: certainty.map(CertaintyReport::from),
                accuracies: accuracies(features, tasks.episodes, head, recipe)?,
                ..self.clone()
            })
        });
        lines.collect()
    }
}

/// Share of correctly classified queries of each task by one head.
fn accuracies(
    features: &ClassFeatures,
    episodes: &[Episode],
    head: HeadChoice,
    recipe: &EvaluationRecipe,
) -> Result<Vec<f64>, EvaluationError> {
    let settings = head.settings();
    if settings == HeadKind::NearestMean.into() {
        let features = &features.plain;
        return Ok(task_accuracies(features, episodes, recipe.distance));
    }
    Ok(head_accuracies(features, episodes, &settings)?)
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
        progress: &dyn EvaluationProgress,
    ) -> Result<EvaluationReport, EvaluationError> {
        request.check()?;
        let recipe = &request.recipe;
        let positions = images.by_class();
        let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
        let episodes = draw_episodes(&sizes, recipe.shape(), recipe.tasks, recipe.seed)?;
        let chooses = |&method: &Method| recipe.chooses_scale(method);
        let methods = request.methods();
        let chooses_scale = methods.iter().any(chooses) || recipe.leave_one_out;
        let sources = self.pool_of(request, chooses_scale).await?;
        let entries = self.entries(request, &methods).await?;
        let tasks = EvaluationTasks {
            images,
            positions: &positions,
            episodes: &episodes,
            specs: &recipe.copy_specs(),
            cache: request.cache.as_ref(),
        };
        let mut runs = request.finished.clone();
        let (mut finished, mut lines) = (0, 0);
        for entry in &entries {
            let heads = entry.heads(recipe);
            let kept = runs.get(lines..lines + heads.len());
            // Lines of an earlier version know no heads.
            if kept.is_none_or(|kept| kept.iter().map(|run| run.head).ne(heads.iter().copied())) {
                break;
            }
            (finished, lines) = (finished + 1, lines + heads.len());
        }
        runs.truncate(lines);
        let left = entries.get(finished..).unwrap_or_default();
        let mut passes = Passes::new(left, progress);
        let mut bare = None;
        for entry in left {
            let own = self.run(entry, &tasks, request, &sources, &mut bare, &mut passes);
            runs.extend(own.await?);
            progress.keep(&runs);
        }
        let leave_one_out = match recipe.leave_one_out {
            true => {
                // Choosing the scale takes longest, so it is not done again where the sum is compared.
                Some(match runs.iter().find(|run| run.is_sum_of_chosen_scale()) {
                    Some(sum) => {
                        self.left_out(&tasks, request, &sources, sum, progress)
                            .await?
                    }
                    None => self.leave_one_out(images, request, None, progress).await?,
                })
            }
            false => None,
        };
        let against = recipe.against.unwrap_or(MethodKind::Bare);
        let against = runs
            .iter()
            .find(|run| run.kind == against)
            .unwrap_or(&runs[0]);
        // Of several heads each method is compared with the other through the same one.
        let beside = |own: &MethodRun| {
            let same = |run: &&MethodRun| run.kind == against.kind && run.head == own.head;
            runs.iter().find(same).unwrap_or(against)
        };
        Ok(EvaluationReport {
            shape: recipe.shape(),
            tasks: recipe.tasks,
            seed: recipe.seed,
            distance: recipe.distance,
            classes: positions.len(),
            images: images.len(),
            backbone: self.backbone_name.clone(),
            backbone_digest: self.backbone.digest.clone(),
            encoder: Some(self.encoder_info().clone()),
            pool: sources.pool.iter().map(|own| own.record.label()).collect(),
            against: against.kind,
            methods: runs.iter().map(|run| run.report(beside(run))).collect(),
            pairwise: pairwise(&runs),
            leave_one_out,
        })
    }

    /// Every line of the report, in order.
    async fn entries(
        &self,
        request: &Evaluation,
        methods: &[Method],
    ) -> Result<Vec<MethodEntry>, EvaluationError> {
        let found = self.found(&request.adapters).await?;
        let found = found
            .into_iter()
            .map(|own| (own.record.label(), own.adapter));
        let candidates = request.candidates.iter();
        let candidates = candidates.map(|own| (own.label.clone(), own.adapter.clone()));
        let adapters: Vec<_> = candidates.chain(found).collect();
        let mut entries = Vec::new();
        for &method in methods {
            let entry = |adapter| MethodEntry { method, adapter };
            if method.kind == MethodKind::Adapter {
                entries.extend(adapters.iter().cloned().map(|own| entry(Some(own))));
            } else {
                entries.push(entry(None));
            }
        }
        Ok(entries)
    }

    /// One line for each head, or one where the method has its own classifier. `bare` holds the bare backbone's features once they are
    /// known.
    async fn run(
        &self,
        entry: &MethodEntry,
        tasks: &EvaluationTasks<'_>,
        request: &Evaluation,
        sources: &Sources,
        bare: &mut Option<Arc<ClassFeatures>>,
        passes: &mut Passes<'_>,
    ) -> Result<Vec<MethodRun>, EvaluationError> {
        let MethodEntry { method, adapter } = entry;
        let mut run = MethodRun::of(method.kind);
        match method.kind {
            MethodKind::Merge(definition) => {
                let merged =
                    self.merged_pool(request, sources, *method, definition, passes.progress);
                let (adapter, merge) = merged.await?;
                run.merge = Some(merge);
                let adapter = Arc::new(adapter);
                let features = self.features_of(tasks, Some(&adapter), passes.next());
                return run.by_heads(&*features.await?, tasks, &request.recipe);
            }
            MethodKind::Adapter => {
                let (label, adapter) = adapter.as_ref().ok_or_else(|| {
                    EvaluationError::Request("the method adapter has no adapter".into())
                })?;
                run.adapter = Some(label.clone());
                let features = self.features_of(tasks, Some(adapter), passes.next());
                return run.by_heads(&*features.await?, tasks, &request.recipe);
            }
            MethodKind::Bare | MethodKind::Linear => {
                let features = match bare {
                    Some(features) => features,
                    None => bare.insert(self.features_of(tasks, None, passes.next()).await?),
                };
                if method.kind == MethodKind::Bare {
                    return run.by_heads(features, tasks, &request.recipe);
                }
                run.accuracies = linear_probe_accuracies(&features.plain, tasks.episodes)?;
            }
            MethodKind::Pixels => {
                let distance = request.recipe.distance;
                run.accuracies =
                    pixel_accuracies(tasks.images, tasks.positions, tasks.episodes, distance);
            }
            MethodKind::Tune => {
                let (accuracies, tuning) = self.tuned(tasks, request, passes.progress)?;
                run.tuning = Some(tuning);
                run.accuracies = accuracies;
            }
        }
        Ok(vec![run])
    }

    /// The adapters of the pool, with their synthetic images where a scale is chosen on them: what is missing is said before
    /// anything is computed.
    async fn pool_of(
        &self,
        request: &Evaluation,
        chooses_scale: bool,
    ) -> Result<Sources, EvaluationError> {
        let pool = self.found(&request.pool).await?;
        let synthetic = match chooses_scale {
            true => self.synthetic_images(&pool).await?,
            false => Vec::new(),
        };
        let merges = request.cache.as_ref().map(|cache| cache.merges.clone());
        Ok(Sources {
            pool,
            synthetic,
            merges: merges.unwrap_or_default(),
        })
    }

    async fn found(&self, references: &[String]) -> Result<Vec<ServedAdapter>, EvaluationError> {
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            match self.adapter(Some(reference)).await? {
                Some(served) => found.push(served),
                None => {
                    return Err(EvaluationError::Request(format!(
                        "\"{reference}\" is the bare backbone, not an adapter; the method bare measures it"
                    )));
                }
            }
        }
        Ok(found)
    }

    async fn features_of(
        &self,
        tasks: &EvaluationTasks<'_>,
        adapter: Option<&Arc<Adapter>>,
        pass: EncodingPass<'_>,
    ) -> Result<Arc<ClassFeatures>, AppError> {
        let cache = tasks.cache;
        if let Some(features) = cache.and_then(|cache| cache.features(adapter.map(Arc::as_ref))) {
            pass.report_progress(tasks.images.len(), tasks.images.len())?;
            return Ok(features);
        }
        let levels = (tasks.images.all_levels(), tasks.images.image_size());
        let features = self
            .features_by_class(levels, (tasks.positions, tasks.specs), adapter, pass)
            .await?;
        let features = Arc::new(features);
        if let Some(cache) = cache {
            cache.add_features(adapter.map(Arc::as_ref), features.clone());
        }
        Ok(features)
    }

    /// Features of the pictures at `positions` among `levels` `[N, 3, side, side]`, and of their copies `specs`.
    pub(super) async fn features_by_class(
        &self,
        (levels, side): (&[u8], usize),
        (positions, specs): (&[Vec<usize>], &[CopySpec]),
        adapter: Option<&Arc<Adapter>>,
        pass: EncodingPass<'_>,
    ) -> Result<ClassFeatures, AppError> {
        let order: Vec<usize> = positions.iter().flatten().copied().collect();
        let preprocess = &self.backbone.preprocess;
        let table = preprocess.normalised_levels();
        let length = 3 * side * side;
        let mut features = Vec::with_capacity(order.len() * (1 + specs.len()));
        let mut done = 0;
        for chunk in order.chunks((CHUNK / (1 + specs.len())).max(1)) {
            pass.report_progress(done, order.len())?;
            done += chunk.len();
            let row = |pixels| EncodeRow {
                pixels: Arc::new(pixels),
                adapter: adapter.cloned(),
                pinned: false,
            };
            let rows = chunk.par_iter().map(|index| {
                let mut pixels = Tensor::zeros([3, side, side]);
                let own = &levels[index * length..(index + 1) * length];
                normalise(own, &table, pixels.data_mut());
                with_its_copies(pixels, specs, preprocess.normalisation())
            });
            let rows = rows.collect::<Result<Vec<_>, _>>();
            let rows = rows.map_err(|error| EncodeError::Engine(error.to_string()))?;
            let rows = rows.into_iter().flatten().map(row).collect();
            let encoded = self.encoder().encode(rows, Outputs::default());
            features.extend(encoded.await?.into_iter().map(|own| own.feature));
        }
        let mut features = features.into_iter();
        let mut all = ClassFeatures {
            specs: specs.to_vec(),
            ..ClassFeatures::default()
        };
        for class in positions {
            let images = class.iter().map(|_| {
                let plain = features.next().unwrap_or_default();
                (plain, features.by_ref().take(specs.len()).collect())
            });
            let (plain, copies): (Vec<_>, Vec<_>) = images.unzip();
            all.plain.push(plain);
            all.copies.push(copies);
        }
        Ok(all)
    }
}

/// Pictures and the tasks drawn from them.
#[derive(Clone, Copy)]
struct EvaluationTasks<'a> {
    images: &'a LabelledImages,
    positions: &'a [Vec<usize>],
    episodes: &'a [Episode],
    /// Copies of each picture that its heads need.
    specs: &'a [CopySpec],
    cache: Option<&'a EvaluationCache>,
}
