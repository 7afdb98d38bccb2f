//! Merges of a pool's adapters for an evaluation, and the choice of their scale without real data.

use super::progress::report_progress;
use super::report::{MergeReport, ScaleSource, TriedScale};
use super::{EncodingPass, Evaluation, EvaluationError, EvaluationProgress, Method, Sources};
use crate::app::App;
use crate::app::registry::ServedAdapter;
use model::adapter::{Adapter, MergeInput, MergeOptions, Merging, merge};
use recycle::episode::{EpisodeShape, draw_episodes};
use recycle::evaluate::{accuracy, task_accuracies};
use recycle::labelled_images::LabelledImages;
use std::sync::Arc;

/// Scales that are tried.
pub(super) const SCALES: [f64; 10] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.33, 0.45, 0.6, 0.8, 1.0];

/// Tasks of each adapter's synthetic images.
const SYNTHETIC_TASKS: usize = 50;

/// Merges `adapters` with the scale 1.
pub(super) fn merged(
    adapters: &[&ServedAdapter],
    method: Merging,
    rank: Option<usize>,
) -> Result<Adapter, EvaluationError> {
    let labels: Vec<String> = adapters.iter().map(|own| own.record.label()).collect();
    let weight = method.method().default_weight(adapters.len());
    let inputs: Vec<MergeInput<'_>> = adapters
        .iter()
        .zip(&labels)
        .map(|(own, label)| MergeInput {
            name: label,
            adapter: &own.adapter,
            weight,
        })
        .collect();
    // What takes no rank stays as it is whatever rank the others are given.
    let rank = rank.filter(|_| method.method().facts().takes_rank);
    let options = MergeOptions {
        rank,
        ..MergeOptions::new(method)
    };
    let mut adapter = merge(&inputs, &options)?.adapter;
    adapter.head = None;
    Ok(adapter)
}

pub(super) fn times(adapter: &Adapter, scale: f64) -> Adapter {
    let mut scaled = adapter.clone();
    for pair in scaled.pairs.values_mut() {
        pair.scale *= scale as f32;
    }
    scaled
}

impl Sources {
    /// The merge of the whole pool with the scale 1, made once.
    fn merge(&self, method: Merging, rank: Option<usize>) -> Result<Arc<Adapter>, EvaluationError> {
        if let Some(known) = self.merges.find(&(method, rank)) {
            return Ok(known);
        }
        let pool: Vec<&ServedAdapter> = self.pool.iter().collect();
        let own = Arc::new(merged(&pool, method, rank)?);
        self.merges.add((method, rank), own.clone());
        Ok(own)
    }
}

impl App {
    /// The merge of the pool by `method`, with the scale that is given, defined, or the best on synthetic tasks.
    pub(super) async fn merged_pool(
        &self,
        request: &Evaluation,
        sources: &Sources,
        method: Method,
        definition: Merging,
        progress: &dyn EvaluationProgress,
    ) -> Result<(Adapter, MergeReport), EvaluationError> {
        let mut tried = Vec::new();
        let (scale, scale_from) = match method.scale {
            Some(scale) => (scale, ScaleSource::Given),
            None if request.recipe.chooses_scale(method) => {
                tried = self
                    .try_scales(request, sources, definition, progress)
                    .await?;
                (best_scale(&tried), ScaleSource::SyntheticTasks)
            }
            None => (1.0, ScaleSource::Definition),
        };
        let adapter = times(
            &*sources.merge(definition, request.recipe.merge_rank)?,
            scale,
        );
        let report = MergeReport {
            scale,
            scale_from,
            tried,
            rank: adapter.largest_rank(),
        };
        Ok((adapter, report))
    }

    /// Mean accuracy over adapters, each on tasks from its own synthetic images with the merge of all others: these images show
    /// classes that the merge has not been tuned on, as the pictures it is for.
    async fn try_scales(
        &self,
        request: &Evaluation,
        sources: &Sources,
        method: Merging,
        progress: &dyn EvaluationProgress,
    ) -> Result<Vec<TriedScale>, EvaluationError> {
        let synthetic = &sources.synthetic;
        let mut accuracies = vec![Vec::new(); SCALES.len()];
        for (left_out, images) in synthetic.iter().enumerate() {
            let others = sources.all_but(left_out);
            let merged = merged(&others, method, request.recipe.merge_rank)?;
            let positions = images.by_class();
            let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
            let shape = synthetic_shape(request.recipe.shape(), &sizes);
            let levels = (images.all_levels(), images.image_size());
            let episodes = draw_episodes(&sizes, shape, SYNTHETIC_TASKS, request.recipe.seed)?;
            for (place, &scale) in SCALES.iter().enumerate() {
                let (done, total) = (left_out * SCALES.len(), synthetic.len() * SCALES.len());
                report_progress(progress, "choosing a scale", done + place, total)?;
                let adapter = Arc::new(times(&merged, scale));
                let features = self
                    .features_by_class(
                        levels,
                        (&positions, &[]),
                        Some(&adapter),
                        EncodingPass::SILENT,
                    )
                    .await?;
                let tasks = task_accuracies(&features.plain, &episodes, request.recipe.distance);
                accuracies[place].push(accuracy(&tasks).mean);
            }
        }
        let tried = SCALES.iter().zip(accuracies);
        Ok(tried
            .map(|(&scale, of_adapters)| TriedScale {
                scale,
                accuracy: of_adapters.iter().sum::<f64>() / of_adapters.len() as f64,
            })
            .collect())
    }

    /// The newest synthetic images of each adapter.
    ///
    /// # Errors
    /// [`EvaluationError::Request`] where there is one adapter alone, or one has no images.
    pub(super) async fn synthetic_images(
        &self,
        pool: &[ServedAdapter],
    ) -> Result<Vec<LabelledImages>, EvaluationError> {
        if pool.len() < 2 {
            return Err(EvaluationError::Request(
                "a scale is chosen by leaving one adapter out, but there is one alone; give the scale, such as sum:0.33".into(),
            ));
        }
        let mut images = Vec::with_capacity(pool.len());
        for own in pool {
            images.push(self.newest_images(own).await?);
        }
        Ok(images)
    }

    async fn newest_images(&self, own: &ServedAdapter) -> Result<LabelledImages, EvaluationError> {
        let registry = self.registry().map_err(crate::app::AppError::from)?;
        let missing = || {
            EvaluationError::Request(format!(
                "{} has no synthetic images to choose a scale on; make some with `lora-recycle invert {}`, or give the scale, such as sum:0.33",
                own.record.label(),
                own.record.label()
            ))
        };
        let pools = registry.pools_of(&own.record).await?;
        let newest = pools.first().ok_or_else(missing)?;
        let pool = registry.read_pool(newest).await?;
        let classes: Vec<String> = pool.classes().map(str::to_owned).collect();
        let fewest = pool
            .manifest()
            .quality
            .classes
            .iter()
            .map(|class| class.images)
            .min();
        if fewest.is_none_or(|fewest| fewest < 2) {
            return Err(EvaluationError::Request(format!(
                "the synthetic images of {} are fewer than 2 per class, too few for tasks; make more with --images-per-class",
                own.record.label()
            )));
        }
        let side = pool.manifest().image_size;
        let (images, labels) = (pool.images().to_vec(), pool.labels().to_vec());
        Ok(LabelledImages::new(classes, side, images, labels)?)
    }
}

/// As near to `wanted` as these classes allow.
fn synthetic_shape(wanted: EpisodeShape, sizes: &[usize]) -> EpisodeShape {
    let smallest = sizes.iter().copied().min().unwrap_or(0);
    let shot = wanted.shot.min(smallest.saturating_sub(1));
    EpisodeShape {
        way: wanted.way.min(sizes.len()),
        shot,
        queries: wanted.queries.min(smallest - shot),
    }
}

/// The scale with the highest accuracy, the smallest of equals.
fn best_scale(tried: &[TriedScale]) -> f64 {
    let best = tried
        .iter()
        .rev()
        .max_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
    best.map_or(1.0, |best| best.scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_tasks_are_as_the_real_ones_as_far_as_the_images_go() {
        let wanted = EpisodeShape {
            way: 5,
            shot: 5,
            queries: 15,
        };
        let shape = synthetic_shape(wanted, &[4, 6, 5]);
        assert_eq!((shape.way, shape.shot, shape.queries), (3, 3, 1));
        let shape = synthetic_shape(wanted, &[40; 9]);
        assert_eq!((shape.way, shape.shot, shape.queries), (5, 5, 15));
    }

    #[test]
    fn of_equal_scales_the_smallest_is_chosen() {
        let tried = [(0.1, 0.5), (0.2, 0.7), (0.3, 0.7), (0.4, 0.6)]
            .map(|(scale, accuracy)| TriedScale { scale, accuracy });
        assert_eq!(best_scale(&tried), 0.2);
    }
}
