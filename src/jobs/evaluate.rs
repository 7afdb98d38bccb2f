//! Comparing as a job: adapters, merges and baselines on the same few-shot tasks.

use super::evaluation::{Pictures, compared_on, evaluate, resuming_after};
use super::pictures::{PICTURES, read_pictures};
use super::request::resolve_once;
use super::{Job, JobContext, JobError, JobRequest, Planned, RequestError, Services};
use crate::app::evaluation::{Evaluation, EvaluationRecipe, MethodRun};
use crate::app::registry::check_backbone;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{AdapterRecord, Digest, LogLevel};
use uuid::Uuid;

/// Compares methods on pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    pub backbone_digest: Digest,
    pub adapters: Vec<Compared>,
    /// Those that are merged.
    pub pool: Vec<Compared>,
    pub recipe: EvaluationRecipe,
    pub classes: usize,
    pub pictures: usize,
    /// Pictures that could not be used, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// An adapter that takes part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// `name:version`
    pub adapter: String,
    pub adapter_id: Uuid,
}

impl From<&AdapterRecord> for Compared {
    fn from(record: &AdapterRecord) -> Self {
        Self {
            adapter: record.label(),
            adapter_id: record.id,
        }
    }
}

/// What a request for a comparison says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    adapters: Vec<String>,
    #[serde(default)]
    pool: Vec<String>,
    /// Name of a registered backbone; that of the adapters where there is none, else the served one.
    backbone: Option<String>,
    #[serde(default)]
    recipe: EvaluationRecipe,
}

impl Job for Evaluate {
    const KIND: &'static str = "evaluate";

    fn title(&self) -> String {
        let adapters = match &self.adapters[..] {
            [] => String::new(),
            [only] => format!(" {}", only.adapter),
            several => format!(" {} adapters", several.len()),
        };
        let merged = match self.pool.len() {
            0 => String::new(),
            count if self.adapters.is_empty() => format!(" merges of {count} adapters"),
            count => format!(" and merges of {count}"),
        };
        let what = if adapters.is_empty() && merged.is_empty() {
            " methods".to_owned()
        } else {
            adapters + &merged
        };
        let EvaluationRecipe { way, shot, .. } = self.recipe;
        format!(
            "Compare{what} on {} classes, {way}-way {shot}-shot",
            self.classes
        )
    }

    async fn plan(
        request: JobRequest,
        services: &Services,
    ) -> Result<Vec<Planned<Self>>, RequestError> {
        let Parameters {
            adapters,
            pool,
            backbone,
            recipe,
        } = request.parameters()?;
        let request_for = Evaluation {
            recipe: recipe.clone(),
            adapters: adapters.clone(),
            pool: pool.clone(),
            ..Evaluation::default()
        };
        request_for
            .check()
            .map_err(|error| RequestError::invalid("recipe", error.to_string()))?;
        if request.images.is_empty() {
            return Err(RequestError::invalid(
                "archive",
                "there are no pictures to compare on; send a zip whose folders are classes",
            ));
        }
        let adapters = found(&adapters, services).await?;
        let pool = found(&pool, services).await?;
        let mut all = adapters.iter().chain(&pool);
        let backbone_digest = match (all.next(), backbone) {
            (Some(first), None) => {
                for other in all {
                    check_backbone(other, first)?;
                }
                first.backbone_digest.clone()
            }
            (_, named) => {
                super::backbone_digest(&*services.backbone_named(named.as_deref()).await?)?
            }
        };
        let Pictures {
            input,
            classes,
            pictures,
            left_out,
        } = compared_on(request.images, &recipe, &backbone_digest, services).await?;
        let job = Self {
            backbone_digest,
            adapters: adapters.iter().map(Compared::from).collect(),
            pool: pool.iter().map(Compared::from).collect(),
            recipe,
            classes,
            pictures,
            left_out,
        };
        Ok(vec![Planned {
            job,
            inputs: vec![input],
            waits_for: request.waits_for,
        }])
    }

    fn run(&self, context: &JobContext) -> Result<Value, JobError> {
        let finished: Vec<MethodRun> = match context.load_checkpoint()? {
            Some(state) => serde_json::from_slice(&state).unwrap_or_default(),
            None => Vec::new(),
        };
        if finished.is_empty() {
            for sentence in &self.left_out {
                context.log(LogLevel::Warning, sentence)?;
            }
        } else {
            context.log(LogLevel::Info, &resuming_after(&finished))?;
        }
        let ids = |compared: &[Compared]| {
            let ids = compared.iter().map(|own| own.adapter_id.to_string());
            ids.collect::<Vec<String>>()
        };
        let images = read_pictures(context, PICTURES)?;
        let request = Evaluation {
            recipe: self.recipe.clone(),
            adapters: ids(&self.adapters),
            pool: ids(&self.pool),
            threads: context.threads(),
            finished,
            ..Evaluation::default()
        };
        let keep = |finished: &[MethodRun]| {
            let state = serde_json::to_vec(finished);
            let state =
                state.map_err(|error| JobError::failure("checkpoint", error.to_string()))?;
            context.save_checkpoint(&state)
        };
        let report = evaluate(context, &self.backbone_digest, &images, &request, keep)?;
        Ok(json!({ "evaluation": report }))
    }
}

async fn found(
    references: &[String],
    services: &Services,
) -> Result<Vec<AdapterRecord>, RequestError> {
    let mut records: Vec<AdapterRecord> = Vec::with_capacity(references.len());
    for reference in references {
        let record = resolve_once(reference, &records, services).await?;
        records.push(record);
    }
    Ok(records)
}
