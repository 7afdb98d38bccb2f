//! What each adapter adds to the merge of all: the accuracy on validation pictures with and without it.

use super::merging::{merged, times};
use super::report::{Difference, LeaveOneOutReport, LeftOut, MethodRun};
use super::{
    Evaluation, EvaluationError, EvaluationProgress, EvaluationTasks, Method, MethodEntry,
    MethodKind, Passes, Sources,
};
use crate::app::App;
use model::adapter::MergeMethod;
use recycle::episode::draw_episodes;
use recycle::evaluate::{Accuracy, accuracy, paired_difference};
use recycle::labelled_images::LabelledImages;
use std::sync::Arc;

impl App {
    /// Leaves each adapter of the pool out of their sum, whose scale stays as `scale` says or as it is chosen for all, on tasks
    /// drawn from `images`.
    ///
    /// # Errors
    /// [`EvaluationError`]
    pub async fn leave_one_out(
        &self,
        images: &LabelledImages,
        request: &Evaluation,
        scale: Option<f64>,
        progress: &dyn EvaluationProgress,
    ) -> Result<LeaveOneOutReport, EvaluationError> {
        if request.pool.len() < 2 {
            return Err(EvaluationError::Request(
                "leaving one adapter out needs at least two; name more pools".into(),
            ));
        }
        let positions = images.by_class();
        let sizes: Vec<usize> = positions.iter().map(Vec::len).collect();
        let recipe = &request.recipe;
        let episodes = draw_episodes(&sizes, recipe.shape(), recipe.tasks, recipe.seed)?;
        let tasks = EvaluationTasks {
            images,
            positions: &positions,
            episodes: &episodes,
            specs: &recipe.copy_specs(),
            cache: None,
        };
        let method = Method {
            kind: MethodKind::SUM,
            scale,
        };
        let sources = self.pool_of(request, recipe.chooses_scale(method)).await?;
        let sum = MethodEntry {
            method,
            adapter: None,
        };
        let mut passes = Passes::new(std::slice::from_ref(&sum), progress);
        let sum = self
            .run(&sum, &tasks, request, &sources, &mut None, &mut passes)
            .await?;
        let sum = sum.first().ok_or_else(|| {
            EvaluationError::Request("an evaluation needs at least one head".into())
        })?;
        self.left_out(&tasks, request, &sources, sum, progress)
            .await
    }

    /// As [`Self::leave_one_out`], where the `sum` of all has run.
    pub(super) async fn left_out(
        &self,
        tasks: &EvaluationTasks<'_>,
        request: &Evaluation,
        sources: &Sources,
        sum: &MethodRun,
        progress: &dyn EvaluationProgress,
    ) -> Result<LeaveOneOutReport, EvaluationError> {
        let recipe = &request.recipe;
        let merge = sum.merge.clone().ok_or_else(|| {
            EvaluationError::Request("leaving one adapter out needs a merge of all".into())
        })?;
        let with = &sum.accuracies;
        let head = sum.head.unwrap_or_default();
        let mut passes = Passes::of(sources.pool.len(), progress);
        let mut adapters = Vec::with_capacity(sources.pool.len());
        for (left_out, own) in sources.pool.iter().enumerate() {
            let others = sources.all_but(left_out);
            let sum = merged(&others, MergeMethod::Sum.into(), recipe.merge_rank)?;
            let sum = Arc::new(times(&sum, merge.scale));
            let features = self.features_of(tasks, Some(&sum), passes.next()).await?;
            let without = super::accuracies(&features, tasks.episodes, head, recipe)?;
            let Accuracy { mean, ci95 } = paired_difference(with, &without);
            adapters.push(LeftOut {
                adapter: own.record.label(),
                accuracy_without: accuracy(&without).mean,
                effect: Difference { mean, ci95 },
            });
        }
        let Accuracy { mean, ci95 } = accuracy(with);
        Ok(LeaveOneOutReport {
            accuracy: mean,
            ci95,
            tasks: tasks.episodes.len(),
            merge,
            adapters,
        })
    }
}
