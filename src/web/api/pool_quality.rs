//! What the images of a pool are worth, over HTTP: by themselves, and beside real pictures.

use super::images::{Part, receive_form, require_form};
use super::jobs::JobProblems;
use super::labelled_parts::{ARCHIVE, LabelledParts, LabelledPlace, SUPPORT};
use super::pools::pool_id;
use super::schemas::labelled_form;
use crate::app::App;
use crate::app::pool_quality::{PoolQuality, PoolQualityError};
use crate::jobs::pictures::{Prepared, prepare};
use crate::web::ApiError;
use crate::web::api::parameters::Path;
use crate::web::limits::Admission;
use axum::Json;
use axum::extract::{Request, State};
use model::backbone::Preprocess;
use recycle::quality::QualityError;
use serde::Serialize;
use std::sync::Arc;
use store::PoolRecord;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

/// Most real pictures of a request. It is answered while the client waits: at the hundred pictures a second of docs/PERFORMANCE.md that is
/// some seconds, and a backbone twenty times as slow still answers in time.
pub const MOST_REAL_PICTURES: usize = 600;

/// Real pictures to compare a pool with, of at least two classes.
struct RealPicturesForm;

impl PartialSchema for RealPicturesForm {
    fn schema() -> RefOr<Schema> {
        labelled_form("Instead of or beside a zip: labelled image files.")
            .file("archive", "A zip whose folders are classes.")
            .required([])
    }
}

impl ToSchema for RealPicturesForm {}

/// A pool beside real pictures.
#[derive(Serialize, ToSchema)]
pub struct QualityBesideReal {
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

/// Measures a pool: how varied and how hard its images are, and which adapters resemble the one it was made from
#[utoipa::path(get, path = "/api/v1/pools/{id}/quality", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool")),
    responses((status = 200, description = "What the images are worth; computed each time", body = PoolQuality), JobProblems))]
pub(in crate::web) async fn measure_pool(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    admission: Admission,
) -> Result<Json<PoolQuality>, ApiError> {
    let record = app.registry()?.store().pool(pool_id(&id)?).await?;
    let work = app.pool_quality(&record, None);
    Ok(Json(admission.answer(work).await?))
}

/// Measures a pool beside real pictures
///
/// As the same address with GET, with `real`: the Fréchet distance between synthetic and real images, precision and recall, by features of
/// the bare backbone. At most 600 pictures, of at least two classes; they are not kept.
#[utoipa::path(post, path = "/api/v1/pools/{id}/quality", tag = "pools",
    params(("id" = Uuid, Path, description = "Id of the pool")),
    request_body(content((RealPicturesForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "What the images are worth, by themselves and beside the real ones", body = QualityBesideReal),
        JobProblems,
    ))]
pub(in crate::web) async fn compare_pool(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    admission: Admission,
    request: Request,
) -> Result<Json<QualityBesideReal>, ApiError> {
    require_form(request.headers())?;
    let record = app.registry()?.store().pool(pool_id(&id)?).await?;
    app.check_pool_backbone(&record).await?;
    let parts = receive_form(&admission, request, place).await?;
    let work = beside_real(&app, &record, parts);
    Ok(Json(admission.answer(work).await?))
}

/// Where a part of the form belongs.
enum Place {
    Labelled(LabelledPlace),
    Archive,
}

fn place(name: String) -> Result<Place, ApiError> {
    match LabelledPlace::of(&name) {
        Some(place) => Ok(Place::Labelled(place)),
        None if name == ARCHIVE => Ok(Place::Archive),
        None => Err(ApiError::InvalidParameter {
            detail: format!(
                "a part is named \"{name}\"; the names for real pictures are {ARCHIVE}, {SUPPORT} and label"
            ),
            parameter: name,
        }),
    }
}

async fn beside_real(
    app: &App,
    record: &PoolRecord,
    parts: Vec<Part<Place>>,
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
    parts: Vec<Part<Place>>,
    pool: Uuid,
    preprocess: &Preprocess,
) -> Result<Prepared, ApiError> {
    let mut labelled = LabelledParts::default();
    let mut archive = None;
    for part in parts {
        let (part, place) = part.without_place();
        match place {
            Place::Labelled(place) => labelled.take(place, part)?,
            Place::Archive => archive = Some(part.into_place_and_bytes().1),
        }
    }
    let pictures = labelled.into_pictures_with(archive)?;
    let invalid = |detail: String| ApiError::InvalidParameter {
        parameter: ARCHIVE.into(),
        detail,
    };
    if pictures.is_empty() {
        return Err(invalid(format!(
            "there are no pictures; send a zip whose folders are classes as {ARCHIVE}, or pictures as {SUPPORT} with a label each"
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
