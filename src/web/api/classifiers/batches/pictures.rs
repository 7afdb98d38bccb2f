//! Single pictures of a batch.

use super::super::{ClassifierProblems, store};
use super::found;
use crate::app::App;
use crate::web::ApiError;
use crate::web::api::files::private_file;
use crate::web::api::parameters::Path;
use crate::web::api::schemas::Binary;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use std::sync::Arc;
use store::{BatchFilter, BatchRow, ClassifierError};

type Address = Path<(String, String, String)>;

/// Gives a picture of a batch as it was sent
///
/// Only where the classifier keeps its pictures.
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/batches/{batch}/pictures/{position}", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("batch" = Uuid, Path, description = "Id of the batch"),
        ("position" = u32, Path, description = "Of the picture, from 0")),
    responses(
        (status = 200, description = "The file, with an ETag", body = inline(Binary), content_type = "image/*"),
        (status = 304, description = "It is as the client has it"),
        ClassifierProblems,
    ))]
pub(in crate::web) async fn get_batch_picture(
    State(app): State<Arc<App>>,
    Path(path): Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let row = row(&app, &path).await?;
    let Some(original) = &row.original else {
        return Err(ClassifierError::OriginalNotKept(row.name).into());
    };
    let etag = format!("\"{original}\"");
    let store = store(&app)?;
    private_file(&headers, etag, None, async || {
        store.read_batch_picture(&row).await
    })
    .await
}

/// Gives the thumbnail of a picture of a batch, at most 256 pixels a side
#[utoipa::path(get, path = "/api/v1/classifiers/{id}/batches/{batch}/pictures/{position}/thumbnail", tag = "classifiers",
    params(("id" = Uuid, Path, description = "Id of the classifier"), ("batch" = Uuid, Path, description = "Id of the batch"),
        ("position" = u32, Path, description = "Of the picture, from 0")),
    responses(
        (status = 200, description = "A JPEG file, with an ETag", body = inline(Binary), content_type = "image/jpeg"),
        (status = 304, description = "It is as the client has it"),
        ClassifierProblems,
    ))]
pub(in crate::web) async fn get_batch_thumbnail(
    State(app): State<Arc<App>>,
    Path(path): Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let row = row(&app, &path).await?;
    let Some(thumbnail) = row.thumbnail else {
        return Err(ApiError::UnknownPicture(path.2));
    };
    let etag = format!("\"{thumbnail}\"");
    let store = store(&app)?;
    private_file(&headers, etag, Some("image/jpeg"), async || {
        store.read_thumbnail(&thumbnail).await
    })
    .await
}

async fn row(
    app: &App,
    (id, batch, position): &(String, String, String),
) -> Result<BatchRow, ApiError> {
    let batch = found(app, id, batch).await?;
    let unknown = || ApiError::UnknownPicture(position.clone());
    let wanted: u32 = position.parse().map_err(|_| unknown())?;
    let filter = BatchFilter {
        after: wanted.checked_sub(1),
        limit: Some(1),
        ..BatchFilter::default()
    };
    let rows = store(app)?.batch_rows(batch.id, &filter).await?;
    let found = rows.into_iter().find(|row| row.position == wanted);
    found.ok_or_else(unknown)
}
