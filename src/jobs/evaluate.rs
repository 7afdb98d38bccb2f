//! Comparing as a job: adapters, merges and baselines on the same few-shot tasks.

use super::evaluation::{Pictures, compared_on, evaluate, resuming_after};
use super::labelled::all_pictures;
use super::pictures::{PICTURES, read_pictures};
use super::request::resolve_once;
use super::{
    ClassPictures, Job, JobContext, JobError, JobRequest, LabelledImage, Planned, RequestError,
    Services, by_class,
};
use crate::app::evaluation::{Evaluation, EvaluationRecipe, EvaluationReport, MethodRun};
use crate::app::registry::check_backbone;
use crate::base64_bytes::Base64Bytes;
use serde::{Deserialize, Serialize};
use store::{AdapterRecord, Digest, LogLevel};
use utoipa::ToSchema;
use uuid::Uuid;

/// Compares methods on pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvaluateJob)]
pub struct Evaluate {
    /// Of the backbone that all methods use.
    pub backbone_digest: Digest,
    /// Those that the method `adapter` stands for, each separately.
    pub adapters: Vec<Compared>,
    /// Those that are merged.
    pub pool: Vec<Compared>,
    /// The methods and the tasks that they are compared on.
    pub recipe: EvaluationRecipe,
    /// Classes of the pictures.
    pub classes: usize,
    /// Pictures that could be used.
    pub pictures: usize,
    /// Pictures that could not be used, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// An adapter that takes part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComparedAdapter)]
pub struct Compared {
    /// `name:version`
    pub adapter: String,
    /// Of the adapter.
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

/// Which methods to compare on pictures, which come as `pictures`, as a zip, or both.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateRequest {
    /// Adapters that the method `adapter` stands for, each separately: name, name:version, name@alias or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<String>,
    /// Adapters whose merges are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<String>,
    /// Name of a registered backbone; left out, that of the adapters, or the one that answers requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
    /// The methods and the tasks; every field may be left out.
    #[serde(default)]
    pub recipe: EvaluationRecipe,
    /// Jobs that must succeed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Uuid>,
    /// Labelled pictures to draw tasks from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "by_class")]
    #[schema(value_type = Vec<ClassPictures>)]
    pub pictures: Vec<LabelledImage>,
    /// Instead of or beside `pictures`: a zip whose folders are classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub archive: Option<Base64Bytes>,
}

impl JobRequest for EvaluateRequest {
    fn pictures(&mut self) -> Option<&mut Vec<LabelledImage>> {
        Some(&mut self.pictures)
    }

    fn files(&mut self) -> Vec<(&'static str, &mut Option<Base64Bytes>)> {
        vec![("archive", &mut self.archive)]
    }
}

/// What a comparison gives.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EvaluateResult {
    /// How well the methods did.
    pub evaluation: EvaluationReport,
}

impl Job for Evaluate {
    type Request = EvaluateRequest;
    type Outcome = EvaluateResult;

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
        request: EvaluateRequest,
        services: &Services,
    ) -> Result<Vec<Planned<Self>>, RequestError> {
        let EvaluateRequest {
            adapters,
            pool,
            backbone,
            recipe,
            waits_for,
            pictures,
            archive,
        } = request;
        let request_for = Evaluation {
            recipe: recipe.clone(),
            adapters: adapters.clone(),
            pool: pool.clone(),
            ..Evaluation::default()
        };
        request_for
            .check()
            .map_err(|error| RequestError::invalid("recipe", error.to_string()))?;
        let images = all_pictures(pictures, archive).await?;
        if images.is_empty() {
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
        } = compared_on(images, &recipe, &backbone_digest, services).await?;
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
            waits_for,
        }])
    }

    fn run(&self, context: &JobContext) -> Result<EvaluateResult, JobError> {
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
        let evaluation = evaluate(context, &self.backbone_digest, &images, &request, keep)?;
        Ok(EvaluateResult { evaluation })
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
