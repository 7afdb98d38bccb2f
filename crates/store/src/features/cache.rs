//! The cache of features: bounded in bytes, what was used least recently gives way. Losing any of it costs time alone.

use super::space::{FeatureSpace, from_bytes, to_bytes};
use crate::{Digest, Store, StoreError, now_ms};
use sqlx::SqliteConnection;
use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

/// A full cache is emptied down to this many tenths of its bound, so that not each addition has to make room.
const KEPT_TENTHS: u64 = 9;
/// Entries that are looked at together when room is made.
const ROOM_CHUNK: i64 = 1000;
/// Uses that are remembered until the next addition; more than this only make the order less exact.
const MOST_USES: usize = 100_000;
const HOUR_MS: i64 = 3_600_000;

/// What the open store knows of the cache besides its rows.
#[derive(Debug)]
pub(crate) struct FeatureCache {
    limit_bytes: u64,
    /// Numbers of entries that were read and whose `used_hour` is an earlier one. Reading never writes: they are noted
    /// with the next addition, since only additions make others give way.
    used: Mutex<HashSet<i64>>,
}

impl FeatureCache {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            used: Mutex::default(),
        }
    }

    fn note_used(&self, numbers: impl Iterator<Item = i64>) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            if used.len() >= MOST_USES {
                break;
            }
            used.insert(number);
        }
    }

    fn take_used(&self) -> HashSet<i64> {
        mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn this_hour() -> i64 {
    now_ms() / HOUR_MS
}

impl Store {
    /// The cached features of `pictures` (digests of their bytes) in this space, `None` where there are none; in one query.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn cached_features(
        &self,
        space: &FeatureSpace,
        pictures: &[Digest],
    ) -> Result<Vec<Option<Vec<f32>>>, StoreError> {
        let mut features = vec![None; pictures.len()];
        let mut connection = self.inner.database.readers().acquire().await?;
        let Some(space) = space.find(&mut connection).await? else {
            return Ok(features);
        };
        let found: Vec<(i64, i64, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT asked.key, number, used_hour, feature_cache.value FROM json_each(?) AS asked
             CROSS JOIN feature_cache ON picture_digest = asked.value AND space = ?",
        )
        .bind(serde_json::json!(pictures).to_string())
        .bind(space)
        .fetch_all(&mut *connection)
        .await?;
        let hour = this_hour();
        let earlier = found.iter().filter(|(_, _, used, _)| *used < hour);
        self.inner
            .feature_cache
            .note_used(earlier.map(|(_, number, _, _)| *number));
        for (index, _, _, bytes) in found {
            if let Some(place) = usize::try_from(index)
                .ok()
                .and_then(|index| features.get_mut(index))
            {
                *place = Some(from_bytes(&bytes));
            }
        }
        Ok(features)
    }

    /// Adds the features of pictures (by the digest of their bytes) in this space; what is there already stays. Entries that were
    /// used least recently give way where the cache would be larger than its bound.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn cache_features(
        &self,
        space: &FeatureSpace,
        features: &[(Digest, Vec<f32>)],
    ) -> Result<(), StoreError> {
        if features.is_empty() {
            return Ok(());
        }
        let hour = this_hour();
        let mut transaction = self.inner.database.begin().await?;
        let space = space.number(&mut transaction).await?;
        for (picture, values) in features {
            sqlx::query(
                "INSERT INTO feature_cache (picture_digest, space, used_hour, value) VALUES (?, ?, ?, ?)
                 ON CONFLICT (picture_digest, space) DO NOTHING",
            )
            .bind(picture.as_str())
            .bind(space)
            .bind(hour)
            .bind(to_bytes(values))
            .execute(&mut *transaction)
            .await?;
        }
        let used = self.inner.feature_cache.take_used();
        if !used.is_empty() {
            sqlx::query(
                "UPDATE feature_cache SET used_hour = ? WHERE number IN (SELECT value FROM json_each(?))",
            )
            .bind(hour)
            .bind(serde_json::json!(used).to_string())
            .execute(&mut *transaction)
            .await?;
        }
        make_room(&mut transaction, self.inner.feature_cache.limit_bytes).await?;
        Ok(transaction.commit().await?)
    }

    /// Bytes that the cache of features takes.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn feature_cache_bytes(&self) -> Result<u64, StoreError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        size_bytes(&mut connection).await
    }

    /// Empties the cache of features.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn clear_feature_cache(&self) -> Result<(), StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        make_room(&mut transaction, 0).await?;
        Ok(transaction.commit().await?)
    }
}

async fn size_bytes(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let bytes: i64 = sqlx::query_scalar("SELECT bytes FROM feature_cache_size")
        .fetch_one(connection)
        .await?;
    Ok(bytes.unsigned_abs())
}

/// Removes what was used least recently until a cache of more than `limit_bytes` is clearly smaller again.
async fn make_room(connection: &mut SqliteConnection, limit_bytes: u64) -> Result<(), StoreError> {
    let mut size = size_bytes(&mut *connection).await?;
    if size <= limit_bytes {
        return Ok(());
    }
    let target = limit_bytes / 10 * KEPT_TENTHS;
    while size > target {
        let oldest: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT number, 256 + length(value) FROM feature_cache ORDER BY used_hour, number LIMIT ?",
        )
        .bind(ROOM_CHUNK)
        .fetch_all(&mut *connection)
        .await?;
        let mut left = size;
        let going: Vec<i64> = oldest
            .into_iter()
            .take_while(|(_, bytes)| {
                let is_over = left > target;
                left = left.saturating_sub(bytes.unsigned_abs());
                is_over
            })
            .map(|(number, _)| number)
            .collect();
        if going.is_empty() {
            break;
        }
        sqlx::query("DELETE FROM feature_cache WHERE number IN (SELECT value FROM json_each(?))")
            .bind(serde_json::json!(going).to_string())
            .execute(&mut *connection)
            .await?;
        size = size_bytes(&mut *connection).await?;
    }
    // Adapters come and go, and so do the spaces that they make.
    sqlx::query(
        "DELETE FROM feature_spaces WHERE NOT EXISTS (SELECT 1 FROM feature_cache WHERE space = feature_spaces.number)
           AND NOT EXISTS (SELECT 1 FROM classifier_features WHERE space = feature_spaces.number)",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Drops the cached features of pictures (a JSON array of digests) that no classifier has any more.
pub(crate) async fn forget_pictures(
    connection: &mut SqliteConnection,
    digests: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM feature_cache WHERE picture_digest IN (SELECT value FROM json_each(?)) AND NOT EXISTS
            (SELECT 1 FROM classifier_pictures WHERE classifier_pictures.picture_digest = feature_cache.picture_digest)",
    )
    .bind(digests)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Settings, Variant};

    const ENTRY_BYTES: u64 = 256 + 4;

    #[tokio::test]
    async fn what_was_used_least_recently_gives_way_and_reading_writes_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let settings = Settings {
            feature_cache_bytes: 20 * ENTRY_BYTES,
        };
        let store = Store::open_with(folder.path(), Access::Exclusive, settings)
            .await
            .expect("open");
        let space = FeatureSpace {
            variant: Variant::Original,
            backbone: Digest::of(b"backbone"),
            adapter: None,
            image_size: 224,
            preprocessing: 1,
        };
        let pictures: Vec<Digest> = (0..21_u8).map(|one| Digest::of(&[one])).collect();
        let added: Vec<_> = pictures
            .iter()
            .map(|one| (one.clone(), vec![1.0]))
            .collect();
        store
            .cache_features(&space, &added[..20])
            .await
            .expect("add");
        let writer = store.inner.database.writer().expect("writer");
        // As if they had been added two hours ago.
        sqlx::query("UPDATE feature_cache SET used_hour = used_hour - 2")
            .execute(writer)
            .await
            .expect("age");
        let changes = async || -> i64 {
            let total = sqlx::query_scalar("SELECT total_changes()").fetch_one(writer);
            total.await.expect("changes")
        };
        let before = changes().await;
        for _ in 0..3 {
            let found = store.cached_features(&space, &pictures[..2]).await;
            assert_eq!(found.expect("find"), [Some(vec![1.0]), Some(vec![1.0])]);
        }
        assert_eq!(changes().await, before);

        store
            .cache_features(&space, &added[20..])
            .await
            .expect("one more");
        let found = store.cached_features(&space, &pictures).await;
        let left: Vec<bool> = found.expect("find").iter().map(Option::is_some).collect();
        let mut expected = vec![true; 21];
        // Eighteen entries are nine tenths of twenty; the first two were used.
        expected[2..5].fill(false);
        assert_eq!(left, expected);
        assert_eq!(
            store.feature_cache_bytes().await.expect("size"),
            18 * ENTRY_BYTES
        );
    }
}
