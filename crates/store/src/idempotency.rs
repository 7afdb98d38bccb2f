//! Requests that may come twice, because their first answer was lost, and must act once. Knows nothing of what they ask.
//!
//! A request reserves its key before it acts. The reservation names the id for what is made, so that a request that a dead process left
//! unanswered makes the same thing again and not a second one.

use crate::{Digest, Store, StoreError, now_ms, parse};
use sqlx::SqliteConnection;
use std::time::Duration;
use uuid::Uuid;

/// Keys that are kept; where there would be more, those that expire next go first.
const MOST_KEYS: i64 = 4096;
/// Longer answers are not kept, only that there was one.
const LONGEST_BODY_BYTES: usize = 64 << 10;

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// Act, then call [`Store::answer_once`], or [`Store::drop_once`] where nothing was made.
    Act {
        /// The id for what it makes. It may be there already: then a process died before it answered.
        made: Uuid,
    },
    /// Answer this again.
    Answered {
        /// The id of what it made.
        made: Uuid,
        /// As it was answered.
        status: u16,
        /// As it was answered; `None` where it was too long to be kept.
        body: Option<String>,
    },
    /// The same request is being answered now.
    InProgress,
    /// Another request had this key.
    OtherRequest,
}

/// A row that holds the key already: digest of the request, id, opening, status, body.
type Present = (String, String, String, Option<u16>, Option<String>);

impl Store {
    /// Reserves `key` on `route` for a request whose content has the digest `request`, for as long as `lifetime`.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn begin_once(
        &self,
        route: &str,
        key: &str,
        request: &Digest,
        lifetime: Duration,
    ) -> Result<Once, StoreError> {
        let key = stored_key(key);
        let now = now_ms();
        let opening = self.inner.opening.to_string();
        let mut transaction = self.inner.database.begin().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE expires_ms <= ?")
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        let present: Option<Present> = sqlx::query_as(
            "SELECT request_digest, made_id, opening, status, body FROM idempotency_keys WHERE route = ? AND key = ?",
        )
        .bind(route)
        .bind(&key)
        .fetch_optional(&mut *transaction)
        .await?;
        let once = match present {
            Some((digest, ..)) if digest != request.as_str() => Once::OtherRequest,
            Some((_, made, _, Some(status), body)) => Once::Answered {
                made: parse(&made)?,
                status,
                body,
            },
            Some((_, _, by, None, _)) if by == opening => Once::InProgress,
            // The process that had it is dead.
            Some((_, made, _, None, _)) => {
                sqlx::query("UPDATE idempotency_keys SET opening = ? WHERE route = ? AND key = ?")
                    .bind(&opening)
                    .bind(route)
                    .bind(&key)
                    .execute(&mut *transaction)
                    .await?;
                Once::Act {
                    made: parse(&made)?,
                }
            }
            None => {
                let made = Uuid::now_v7();
                let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
                sqlx::query(
                    "INSERT INTO idempotency_keys (route, key, request_digest, made_id, opening, expires_ms)
                     VALUES (?, ?, ?, ?, ?, ?)",
                )
                .bind(route)
                .bind(&key)
                .bind(request.as_str())
                .bind(made.to_string())
                .bind(&opening)
                .bind(now.saturating_add(lifetime))
                .execute(&mut *transaction)
                .await?;
                drop_oldest(&mut transaction, &opening, MOST_KEYS).await?;
                Once::Act { made }
            }
        };
        transaction.commit().await?;
        Ok(once)
    }

    /// Keeps the answer of a request that [`Self::begin_once`] let act.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn answer_once(
        &self,
        route: &str,
        key: &str,
        status: u16,
        body: &str,
    ) -> Result<(), StoreError> {
        let body = (body.len() <= LONGEST_BODY_BYTES).then_some(body);
        sqlx::query("UPDATE idempotency_keys SET status = ?, body = ? WHERE route = ? AND key = ?")
            .bind(status)
            .bind(body)
            .bind(route)
            .bind(stored_key(key))
            .execute(self.inner.database.writer()?)
            .await?;
        Ok(())
    }

    /// Frees the key of a request that made nothing, so that it can be tried again.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn drop_once(&self, route: &str, key: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM idempotency_keys WHERE route = ? AND key = ? AND status IS NULL")
            .bind(route)
            .bind(stored_key(key))
            .execute(self.inner.database.writer()?)
            .await?;
        Ok(())
    }
}

/// Drops keys beyond `most`, those that expire next first, but none that is being answered.
async fn drop_oldest(
    connection: &mut SqliteConnection,
    opening: &str,
    most: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM idempotency_keys WHERE (route, key) IN (SELECT route, key FROM idempotency_keys
            WHERE status IS NOT NULL OR opening <> ?
            ORDER BY expires_ms, route, key LIMIT max(0, (SELECT count(*) FROM idempotency_keys) - ?))",
    )
    .bind(opening)
    .bind(most)
    .execute(connection)
    .await?;
    Ok(())
}

/// A key of bounded length, whatever a client sends.
fn stored_key(key: &str) -> String {
    Digest::of(key.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    #[tokio::test]
    async fn of_too_many_keys_the_answered_ones_go_that_expire_next() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect("open");
        let request = Digest::of(b"x");
        for (key, hours) in [("3", 3), ("1", 1), ("2", 2), ("open", 0)] {
            let lifetime = Duration::from_secs(3600 * hours + 60);
            let begun = store.begin_once("r", key, &request, lifetime).await;
            assert!(matches!(begun.expect("begin"), Once::Act { .. }));
            if hours > 0 {
                store.answer_once("r", key, 200, "").await.expect("answer");
            }
        }
        let opening = store.inner.opening.to_string();
        let mut transaction = store.inner.database.begin().await.expect("begin");
        drop_oldest(&mut transaction, &opening, 2)
            .await
            .expect("drop");
        let left: Vec<String> =
            sqlx::query_scalar("SELECT key FROM idempotency_keys ORDER BY expires_ms")
                .fetch_all(&mut *transaction)
                .await
                .expect("left");
        assert_eq!(left, [stored_key("open"), stored_key("3")]);
    }
}
