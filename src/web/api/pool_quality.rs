//! What the images of a pool are worth, over HTTP: by themselves, and beside real pictures.

use super::images::{Part, receive_form, require_form};
use super::jobs::JobProblems;
use super::labelled_parts::{ARCHIVE, LabelledParts, SUPPORT};
use super::pools::pool_id;
use super::schemas::ImageRequestProblems;
use crate::app::App;
use crate::app::pool_quality::{PoolQuality, PoolQualityError};
use crate::jobs::pictures::{Prepared, prepare};
use crate::web::limits::Admission;
use crate::web::{ApiError, WebState};
use axum::Json;
use axum::extract::{Path, Request, State};
use model::backbone::Preprocess;
use recycle::quality::QualityError;
use serde::Serialize;
use std::sync::Arc;
use store::PoolRecord;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// Most real pictures of a request. It is answered while the client waits: at the hundred pictures a second of docs/PERFORMANCE.md that is
/// some seconds, and a backbone twenty times as slow still answers in time.
pub const MOST_REAL_PICTURES: usize = 600;

pub fn router() -> OpenApiRouter<WebState> {
    OpenApiRouter::default().routes(routes!(quality, quality_beside_real))
}

/// Real pictures to compare a pool with; they are not kept.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the shape of a form, for the document alone")]
struct RealPicturesForm {
    /// A zip whose folders are classes.
    #[schema(format = Binary)]
    archive: Option<String>,
    /// Instead of or beside a zip: labelled pictures, as in a request to classify; the part name is `support/` and the
    /// label, and may stand any number of times.
    #[schema(format = Binary, rename = "support/{label}")]
    support: Option<String>,
}

/// A pool beside real pictures.
#[derive(Serialize, ToSchema)]
struct QualityBesideReal {
    #[serde(flatten)]
    quality: PoolQuality,
    /// Real pictures that could not be used, one sentence each.
    left_out: Vec<String>,
}

impl From<PoolQualityError> for ApiError {
    fn from(error: PoolQualityError) -> Self {
        let detail = error.to_string();
        match error {
            PoolQualityError::App(error) => error.into(),
            PoolQualityError::Quality(QualityError::TooFew { which, .. }) => {
                let parameter = if which == "real" { ARCHIVE } else { "id" };
                Self::InvalidParameter {
                    parameter: parameter.into(),
                    detail,
                }
            }
            PoolQualityError::Quality(
                QualityError::Feature { .. } | QualityError::Decomposition,
            ) => Self::Internal(detail),
        }
    }
}

/// Measures a pool: how varied and how hard its images are, and which adapters are like its own
#[utoipa::path(get, path = "/pools/{id}/quality", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool")),
    responses((status = 200, description = "What the images are worth; computed anew each time", body = PoolQuality), JobProblems))]
async fn quality(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    admission: Admission,
) -> Result<Json<PoolQuality>, ApiError> {
    let record = app.registry()?.store().pool(pool_id(&id)?).await?;
    let work = async { Ok(app.pool_quality(&record, None).await) };
    Ok(Json(admission.answer(work).await??))
}

/// Measures a pool beside real pictures
///
/// As the same address with GET, with `real`: the Fréchet distance between synthetic and real images, precision and recall, by features of
/// the bare backbone. At most 600 pictures, of at least two classes; they are not kept.
#[utoipa::path(post, path = "/pools/{id}/quality", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool")),
    request_body(content((RealPicturesForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "What the images are worth, by themselves and beside the real ones", body = QualityBesideReal),
        JobProblems,
        ImageRequestProblems,
    ))]
async fn quality_beside_real(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    admission: Admission,
    request: Request,
) -> Result<Json<QualityBesideReal>, ApiError> {
    require_form(request.headers())?;
    let record = app.registry()?.store().pool(pool_id(&id)?).await?;
    app.check_pool_backbone(&record).await?;
    let parts = receive_form(&admission, request, labelled).await?;
    let work = async { Ok(beside_real(&app, &record, parts).await) };
    Ok(Json(admission.answer(work).await??))
}

fn labelled(name: String) -> Result<String, ApiError> {
    if LabelledParts::has(&name) {
        return Ok(name);
    }
    Err(ApiError::InvalidParameter {
        detail: format!(
            "a part is named \"{name}\"; the names for real pictures are {ARCHIVE} and {SUPPORT}NAME"
        ),
        parameter: name,
    })
}

async fn beside_real(
    app: &App,
    record: &PoolRecord,
    parts: Vec<Part<String>>,
) -> Result<QualityBesideReal, ApiError> {
    let (pool, preprocess) = (record.id, app.backbone.preprocess.clone());
    let read = move || real_pictures(parts, pool, &preprocess);
    let Prepared { images, left_out } = tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| ApiError::Internal(format!("reading pictures stopped: {error}")))??;
    let features = app.bare_features(&images).await?;
    let measured = app.pool_quality(record, Some(&features)).await;
    let quality = measured.map_err(|error| {
        let mut error = ApiError::from(error);
        // What was left out is why there are too few.
        if let ApiError::InvalidParameter { parameter, detail } = &mut error
            && parameter == ARCHIVE
            && let Some(first) = left_out.first()
        {
            *detail += &format!("; {first}");
        }
        error
    })?;
    Ok(QualityBesideReal { quality, left_out })
}

fn real_pictures(
    parts: Vec<Part<String>>,
    pool: Uuid,
    preprocess: &Preprocess,
) -> Result<Prepared, ApiError> {
    let mut pictures = LabelledParts::default();
    for (index, part) in parts.into_iter().enumerate() {
        pictures.take(index, part)?;
    }
    let pictures = pictures.into_pictures();
    let invalid = |detail: String| ApiError::InvalidParameter {
        parameter: ARCHIVE.into(),
        detail,
    };
    if pictures.is_empty() {
        return Err(invalid(format!(
            "there are no pictures; send a zip whose folders are classes as {ARCHIVE}, or pictures as {SUPPORT}NAME"
        )));
    }
    if pictures.len() > MOST_REAL_PICTURES {
        return Err(invalid(format!(
            "there are {} pictures, and at most {MOST_REAL_PICTURES} are compared while a client waits; send fewer, or compare all on the command line: \
             lora-recycle pool quality {pool} --real DIR",
            pictures.len()
        )));
    }
    Ok(prepare(pictures, None, preprocess)?)
}
