//! How long an evaluation will take, from one pass over a few of its pictures.

use super::merging::{SCALES, merged};
use super::tuning::tune_recipe;
use super::{CHUNK, EncodingPass, Evaluation, EvaluationError, Method, MethodKind};
use crate::app::App;
use engine::session::SessionOptions;
use model::adapter::MergeMethod;
use recycle::episode::draw_episodes;
use recycle::evaluate::tuned_accuracy;
use recycle::labelled_images::LabelledImages;
use std::sync::Arc;
use std::time::Instant;

/// Steps of the tuning that is timed.
const TIMED_STEPS: u64 = 3;

impl App {
    /// Seconds of the evaluation on `images`, where scales are chosen on as many `synthetic_images`. Every pass counts as one with the
    /// sum of the pool, which is the largest change.
    ///
    /// # Errors
    /// [`EvaluationError`]
    pub async fn evaluation_seconds(
        &self,
        images: &LabelledImages,
        request: &Evaluation,
        synthetic_images: usize,
    ) -> Result<f64, EvaluationError> {
        request.check()?;
        let recipe = &request.recipe;
        let positions = images.by_class();
        let few: Vec<usize> = positions.iter().flatten().copied().take(CHUNK).collect();
        let pool = self.found(&request.pool).await?;
        let pool: Vec<_> = pool.iter().collect();
        let sum = match pool.is_empty() {
            true => None,
            false => Some(Arc::new(merged(&pool, MergeMethod::Sum.into(), None)?)),
        };
        let levels = (images.all_levels(), images.image_size());
        let taken = [few];
        let pass =
            || self.features_by_class(levels, (&taken, &[]), sum.as_ref(), EncodingPass::SILENT);
        // The first warms up.
        pass().await?;
        let start = Instant::now();
        pass().await?;
        let an_image = start.elapsed().as_secs_f64() / taken[0].len() as f64;

        let methods = request.methods();
        let choices = methods.iter().filter(|own| recipe.chooses_scale(**own));
        let is_chosen_sum = |own: &Method| own.kind == MethodKind::SUM && own.scale.is_none();
        let sums_anew = recipe.leave_one_out && !methods.iter().any(is_chosen_sum);
        let choices = choices.count() + usize::from(sums_anew);
        let has_bare = methods.iter().any(|own| own.kind == MethodKind::Bare);
        let lines = methods.iter().map(|method| match method.kind {
            // It reads the features of `bare`.
            MethodKind::Linear if has_bare => 0,
            MethodKind::Adapter => request.adapters.len() + request.candidates.len(),
            MethodKind::Pixels | MethodKind::Tune => 0,
            _ => 1,
        });
        let left_out = match recipe.leave_one_out {
            true => usize::from(sums_anew) + pool.len(),
            false => 0,
        };
        let passes = (lines.sum::<usize>() + left_out) * images.len();
        let tried = choices * SCALES.len() * synthetic_images;
        let mut seconds = (passes + tried) as f64 * an_image;
        if methods.iter().any(|own| own.kind == MethodKind::Tune) {
            seconds += self.tuning_seconds(images, &positions, request)?;
        }
        Ok(seconds)
    }

    fn tuning_seconds(
        &self,
        images: &LabelledImages,
        positions: &[Vec<usize>],
        request: &Evaluation,
    ) -> Result<f64, EvaluationError> {
        let recipe = &request.recipe;
        let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
        let episodes = draw_episodes(&sizes, recipe.shape(), 1, recipe.seed)?;
        let options = SessionOptions::on_threads(request.threads);
        let time = |steps: u64| {
            let recipe = tune_recipe(recipe, steps, None);
            let start = Instant::now();
            for episode in &episodes {
                tuned_accuracy(
                    &self.backbone,
                    images,
                    positions,
                    episode,
                    &recipe,
                    options.clone(),
                )?;
            }
            Ok::<f64, EvaluationError>(start.elapsed().as_secs_f64())
        };
        let (one, more) = (time(1)?, time(1 + TIMED_STEPS)?);
        let step = ((more - one) / TIMED_STEPS as f64).max(0.0);
        let tasks = recipe.tune_tasks.min(recipe.tasks) as f64;
        Ok(tasks * (one + recipe.tune_steps.saturating_sub(1) as f64 * step))
    }
}
