//! Making, listing, showing and deleting batches.

use super::super::{ACTOR, ClassifierProblems, classifier_id, store, to_json};
use super::download::{Download, download};
use super::found;
use super::receive::{ARCHIVE, IMAGES, NAME, Received, receive};
use super::schema::{Batch, BatchPage, BatchPicture};
use crate::app::App;
use crate::app::classifiers::Answering;
use crate::jobs::{Jobs, Sort};
use crate::web::ApiError;
use crate::web::api::classifiers::manage::Deleted;
use crate::web::api::classify::checked;
use crate::web::api::jobs::{Job, queue};
use crate::web::api::once::{key, once};
use crate::web::api::parameters::{Parameters, Path, check_limit, next_cursor};
use crate::web::api::schemas::{Binary, FormSchema};
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use recycle::head::HeadChoice;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write;
use std::sync::Arc;
use store::{BatchFilter, BatchRecord, Digest, NewBatch, Privacy, RowClass, StoreError};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

/// The pictures of a batch.
struct NewBatchForm;

impl PartialSchema for NewBatchForm {
    fn schema() -> RefOr<Schema> {
        FormSchema::default()
            .files(
                IMAGES,
                "Image files, whose names may have folders; up to 10,000.",
            )
            .file(ARCHIVE, "Instead of or beside them: a zip of image files.")
            .texts(
                NAME,
                "Name of the batch; without it that of the folder or zip.",
            )
            .required([])
    }
}

impl ToSchema for NewBatchForm {}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SortParameters {
    /// What reads the features: `auto`, `nearest-mean`, `lda` or `lda-augmented`. Left out, what the classifier is set to.
    #[param(value_type = Option<String>)]
    head: Option<HeadChoice>,
    /// The share of pictures of known classes that may be refused, below 1, as in `/classify`; 0 refuses none. Left out, what the classifier
    /// is set to.
    #[param(minimum = 0.0, exclusive_maximum = 1.0)]
    reject: Option<f32>,
}

/// Sorts many pictures with a classifier
///
/// Up to 10,000 pictures, as files or in a zip; they go to the disk one by one, and equal ones are computed once. A job sorts them with the
/// classifier as it is when the job begins; its answers are those of `/classify`. It goes on after a restart of the server, and `GET
/// /api/v1/jobs/{id}/events` follows it. Hidden files are left out. Where the classifier keeps no pictures, those of a batch are
/// deleted once they are sorted.
#[utoipa::path(post, path = "/api/v1/classifiers/{id}/batches", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), SortParameters,
        ("idempotency-key" = Option<String>, Header, description = "The same key within 24 hours gives the same batch")),
    request_body(content((NewBatchForm = "multipart/form-data"))),
    responses((status = 202, description = "The batch with its job; Location has its address", body = Batch), ClassifierProblems))]
pub(in crate::web) async fn create_batch(
    State(app): State<Arc<App>>,
    State(jobs): State<Option<Jobs>>,
    Path(id): Path<String>,
    Parameters(parameters): Parameters<SortParameters>,
    headers: HeaderMap,
    admission: Admission,
    request: Request,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Value>), ApiError> {
    let id = classifier_id(&id)?;
    let jobs = queue(&jobs)?.clone();
    let key = key(&headers)?;
    // What cannot answer is said before the pictures are sent, and not by the job.
    let record = store(&app)?.classifier(id).await?;
    let answering = Answering::of(&record).asked(parameters.head, parameters.reject);
    let options = checked(answering.whole())?;
    app.check_can_answer(&record).await?;
    let Received {
        name,
        files,
        staged,
    } = receive(&app, &admission, request).await?;
    let mut content = format!("{name:?} {parameters:?}\n");
    for file in &files {
        // Writing to a string cannot fail.
        let _ = writeln!(content, "{:?} {}", file.name, file.digest);
    }
    let act = async move |made: Option<Uuid>| -> Result<Value, ApiError> {
        let job = Sort {
            batch: made.unwrap_or_else(Uuid::now_v7),
            classifier: id,
            name,
            pictures: u32::try_from(files.len()).unwrap_or(u32::MAX),
            keeps_pictures: record.privacy == Privacy::Pictures,
            head: options.head,
            reject: options.reject,
            made_by: ACTOR.to_owned(),
        };
        let mut new = NewBatch {
            id: Some(job.batch),
            classifier: id,
            job: Uuid::nil(),
            name: job.name.clone(),
            pictures: job.pictures,
        };
        let submitted = jobs.submit_staged(job, files, staged).await?;
        new.job = submitted.job.id;
        // The job makes it too, should the program end here.
        let batch = jobs.store().create_batch(&new, ACTOR).await?;
        to_json(Batch::new(batch, Some(submitted.job.into())))
    };
    let route = format!("POST /api/v1/classifiers/{id}/batches");
    let body = once(
        store(&app)?,
        route,
        key,
        Digest::of(content.as_bytes()),
        act,
    )
    .await?;
    let batch = body["id"].as_str().unwrap_or_default();
    let location = format!("/api/v1/classifiers/{id}/batches/{batch}");
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(body),
    ))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// `next_cursor` of the page before.
    cursor: Option<Uuid>,
    /// Most batches of the page, 1 to 200.
    #[serde(default = "crate::web::api::parameters::default_page")]
    #[param(default = 50)]
    limit: u32,
}

/// A page of batches, newest first.
#[derive(Serialize, ToSchema)]
pub struct BatchList {
    batches: Vec<Batch>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Lists the batches of a classifier, newest first
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/batches", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ListParameters),
    responses((status = 200, description = "A page of batches", body = BatchList), ClassifierProblems))]
pub(in crate::web) async fn list_batches(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Parameters(ListParameters { cursor, limit }): Parameters<ListParameters>,
) -> Result<Json<BatchList>, ApiError> {
    check_limit(limit)?;
    // One more tells whether there is another page.
    let listed = store(&app)?.list_batches(classifier_id(&id)?, cursor, limit + 1);
    let mut records = listed.await?;
    let next_cursor = next_cursor(&mut records, limit, |record| record.id);
    let mut batches = Vec::with_capacity(records.len());
    for record in records {
        batches.push(with_job(&app, record).await?);
    }
    Ok(Json(BatchList {
        batches,
        next_cursor,
    }))
}

async fn with_job(app: &App, record: BatchRecord) -> Result<Batch, ApiError> {
    let job = match store(app)?.job(record.job).await {
        Ok(job) => Some(Job::from(job)),
        Err(StoreError::UnknownJob(_)) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Batch::new(record, job))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageParameters {
    /// Only pictures of this class: its id, or `none` for those that look like none, or `unusable` for those that could not be sorted.
    class: Option<String>,
    /// Only pictures whose most probable class has at least this probability, from 0 to 1.
    min_confidence: Option<f32>,
    /// Only pictures whose most probable class has less than this probability.
    max_confidence: Option<f32>,
    /// Only pictures with at least this novelty, from 0 to 1.
    min_novelty: Option<f32>,
    /// Only pictures with less than this novelty.
    max_novelty: Option<f32>,
    /// `next_cursor` of the page before. Files have all pages.
    cursor: Option<u32>,
    /// Most pictures of the page, 1 to 200.
    #[serde(default = "crate::web::api::parameters::default_page")]
    #[param(default = 50)]
    limit: u32,
    /// Bars of the histogram, 1 to 1000.
    #[serde(default = "default_bins")]
    #[param(default = 20)]
    bins: u32,
}

fn default_bins() -> u32 {
    20
}

impl PageParameters {
    fn filter(&self) -> Result<BatchFilter, ApiError> {
        let class = match self.class.as_deref() {
            None | Some("") => None,
            Some("none") => Some(RowClass::NoneOfThese),
            Some("unusable") => Some(RowClass::Unusable),
            Some(id) => {
                let id = id.parse().map_err(|_| ApiError::InvalidParameter {
                    parameter: "class".into(),
                    detail: format!("\"{id}\" is neither the id of a class nor none nor unusable"),
                });
                Some(RowClass::Class(id?))
            }
        };
        for (parameter, bound) in [
            ("min_confidence", self.min_confidence),
            ("max_confidence", self.max_confidence),
            ("min_novelty", self.min_novelty),
            ("max_novelty", self.max_novelty),
        ] {
            // Above 1 for a maximum, which is not part of what is shown.
            if bound.is_some_and(|bound| !(0.0..=2.0).contains(&bound)) {
                return Err(ApiError::InvalidParameter {
                    parameter: parameter.into(),
                    detail: "the bound must be a number from 0 to 1".into(),
                });
            }
        }
        if !(1..=1000).contains(&self.bins) {
            return Err(ApiError::InvalidParameter {
                parameter: "bins".into(),
                detail: format!("the histogram has 1 to 1000 bars, not {}", self.bins),
            });
        }
        Ok(BatchFilter {
            class,
            least_confidence: self.min_confidence.map(f64::from),
            below_confidence: self.max_confidence.map(f64::from),
            least_novelty: self.min_novelty.map(f64::from),
            below_novelty: self.max_novelty.map(f64::from),
            after: self.cursor,
            limit: None,
        })
    }
}

/// Shows a batch with a page of its pictures, or gives all of them as a file
///
/// With `.csv`, `.json` or `.zip` after the id the answer is a file with all pictures that pass the filter: a table, a list, or the pictures
/// themselves in a folder per class.
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/batches/{batch}", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"),
        ("batch" = String, Path, description = "Id of the batch; .csv, .json or .zip after it gives a file"), PageParameters),
    responses(
        (status = 200, description = "The batch, or the file",
            content((BatchPage = "application/json"), (String = "text/csv"), (inline(Binary) = "application/zip"))),
        ClassifierProblems,
    ))]
pub(in crate::web) async fn get_batch(
    State(app): State<Arc<App>>,
    Path((id, batch)): Path<(String, String)>,
    Parameters(parameters): Parameters<PageParameters>,
) -> Result<Response, ApiError> {
    let filter = parameters.filter()?;
    if let Some((batch, kind)) = Download::of(&batch) {
        let batch = found(&app, &id, batch).await?;
        return download(store(&app)?, batch, filter, kind).await;
    }
    let limit = parameters.limit;
    check_limit(limit)?;
    let batch = found(&app, &id, &batch).await?;
    let store = store(&app)?;
    let filter = BatchFilter {
        // One more tells whether there is another page.
        limit: Some(limit + 1),
        ..filter
    };
    let mut rows = store.batch_rows(batch.id, &filter).await?;
    let is_last = rows.len() <= limit as usize;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| !is_last);
    let next_cursor = last.map(|row| row.position.to_string());
    let summary = store.batch_summary(batch.id, parameters.bins).await?;
    let pictures = rows.into_iter().map(BatchPicture::from).collect();
    let batch = with_job(&app, batch).await?;
    let page = BatchPage::new(batch, summary, pictures, next_cursor);
    Ok(Json(page).into_response())
}

/// Deletes a batch with its pictures for good, and cancels its job
#[utoipa::path(delete, path = "/api/v1/classifiers/{id}/batches/{batch}", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("batch" = Uuid, Path, description = "Id of the batch")),
    responses((status = 200, description = "It is gone", body = Deleted), ClassifierProblems))]
pub(in crate::web) async fn delete_batch(
    State(app): State<Arc<App>>,
    State(jobs): State<Option<Jobs>>,
    Path((id, batch)): Path<(String, String)>,
) -> Result<Json<Deleted>, ApiError> {
    let batch = found(&app, &id, &batch).await?;
    match queue(&jobs)?.cancel(batch.job).await {
        Ok(_) | Err(StoreError::UnknownJob(_) | StoreError::JobState { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let freed = store(&app)?.delete_batch(batch.id).await?;
    Ok(Json(Deleted {
        freed_bytes: freed.bytes,
    }))
}
