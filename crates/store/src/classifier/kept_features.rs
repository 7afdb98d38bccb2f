//! Features of pictures whose originals are not kept. Nothing can compute them again, so they live as long as their pictures.

use super::error::ClassifierError;
use crate::features::{FeatureSpace, from_bytes};
use crate::{Digest, Store};
use sqlx::SqliteConnection;
use uuid::Uuid;

impl Store {
    /// The features in this space that the classifier keeps of `pictures` (digests of their bytes), `None` where there are none.
    ///
    /// # Errors
    /// [`ClassifierError`] of the database; an unknown classifier keeps none.
    pub async fn kept_features(
        &self,
        id: Uuid,
        space: &FeatureSpace,
        pictures: &[Digest],
    ) -> Result<Vec<Option<Vec<f32>>>, ClassifierError> {
        let mut features = vec![None; pictures.len()];
        let mut connection = self.inner.database.readers().acquire().await?;
        let Some(space) = space.find(&mut connection).await? else {
            return Ok(features);
        };
        let found: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT asked.key, classifier_features.value FROM json_each(?) AS asked
             CROSS JOIN classifier_features ON picture_digest = asked.value AND space = ? AND classifier_id = ?",
        )
        .bind(serde_json::json!(pictures).to_string())
        .bind(space)
        .bind(id.to_string())
        .fetch_all(&mut *connection)
        .await?;
        for (index, bytes) in found {
            let place = usize::try_from(index).ok();
            if let Some(place) = place.and_then(|index| features.get_mut(index)) {
                *place = Some(from_bytes(&bytes));
            }
        }
        Ok(features)
    }
}

/// Keeps features of a picture, in place of those in the same space.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    id: &str,
    picture: &Digest,
    space: i64,
    value: Vec<u8>,
) -> Result<(), ClassifierError> {
    sqlx::query(
        "INSERT INTO classifier_features (classifier_id, picture_digest, space, value) VALUES (?, ?, ?, ?)
         ON CONFLICT (classifier_id, picture_digest, space) DO UPDATE SET value = excluded.value",
    )
    .bind(id)
    .bind(picture.as_str())
    .bind(space)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(())
}
