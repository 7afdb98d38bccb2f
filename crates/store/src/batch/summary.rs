//! What a batch came to: counts by class and a histogram of confidence.

use super::{RowClass, read};
use crate::classifier::ClassifierError;
use crate::{Store, parse};
use serde::Serialize;
use uuid::Uuid;

/// Most bins of a histogram.
const MOST_BINS: u32 = 1000;

/// How much of a batch went to one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClassCount {
    /// Where it went.
    pub class: RowClass,
    /// As the class was called when the last of its pictures was sorted; empty for the other places.
    pub name: String,
    /// How many went there.
    pub pictures: u32,
}

/// What a batch came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchSummary {
    /// Most pictures first.
    pub classes: Vec<ClassCount>,
    /// Pictures by confidence: equal parts of 0 to 1, the last with 1.
    pub histogram: Vec<u32>,
}

/// Class and its name (neither for the other places), whether rejected, last position, number.
type Counted = (Option<String>, Option<String>, bool, u32, u32);

impl Store {
    /// Counts of a batch by class, and by confidence in `bins` (1 to 1000) equal parts of 0 to 1.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownBatch`].
    pub async fn batch_summary(
        &self,
        batch: Uuid,
        bins: u32,
    ) -> Result<BatchSummary, ClassifierError> {
        let bins = bins.clamp(1, MOST_BINS);
        // Both from one moment.
        let mut transaction = self.inner.database.readers().begin().await?;
        read(&mut transaction, batch).await?;
        // With max, SQLite takes the other columns from the row that has it.
        let counted: Vec<Counted> = sqlx::query_as(
            "SELECT iif(rejected, NULL, class_id) AS class, iif(rejected, NULL, class_name), rejected, max(position), count(*)
             FROM batch_rows WHERE batch_id = ? GROUP BY class, rejected ORDER BY count(*) DESC, class, rejected",
        )
        .bind(batch.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        let binned: Vec<(u32, u32)> = sqlx::query_as(
            "SELECT max(0, min(CAST(confidence * ?1 AS INTEGER), ?1 - 1)) AS bin, count(*) FROM batch_rows
             WHERE batch_id = ?2 AND confidence IS NOT NULL GROUP BY bin",
        )
        .bind(bins)
        .bind(batch.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let mut classes = Vec::with_capacity(counted.len());
        for (class, name, rejected, _, pictures) in counted {
            classes.push(ClassCount {
                class: match class {
                    Some(class) => RowClass::Class(parse(&class)?),
                    None if rejected => RowClass::NoneOfThese,
                    None => RowClass::Unusable,
                },
                name: name.unwrap_or_default(),
                pictures,
            });
        }
        let mut histogram = vec![0; bins as usize];
        for (bin, pictures) in binned {
            if let Some(place) = histogram.get_mut(bin as usize) {
                *place = pictures;
            }
        }
        Ok(BatchSummary { classes, histogram })
    }
}
