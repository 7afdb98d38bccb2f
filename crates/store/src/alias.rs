//! Names that move: `name@alias`, and the default adapter of each backbone. Every move is kept and can be taken back.

use super::adapter::unknown_adapter;
use super::alias_key::AliasKey;
use super::error::{StoreError, is_foreign_key_violation};
use super::{Digest, Store, now_ms, parse};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use uuid::Uuid;

/// Who moves an alias, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// A person or a program, as the history shows it.
    pub actor: String,
    /// A text, often empty.
    pub reason: String,
}

/// An adapter at one end of a move, as it was then; it may be gone by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PointedAdapter {
    /// Of the adapter.
    pub id: Uuid,
    /// `name:version`
    pub label: String,
}

/// One move of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AliasMove {
    /// Counts the moves of all aliases.
    pub number: i64,
    /// The alias that moved.
    pub key: AliasKey,
    /// `None`: the alias was not there before.
    pub from: Option<PointedAdapter>,
    /// `None`: the alias was removed.
    pub to: Option<PointedAdapter>,
    /// When, in milliseconds since 1970 (UTC).
    pub moved_ms: i64,
    /// Who moved it.
    pub actor: String,
    /// Why; often empty.
    pub reason: String,
    /// The number of the move that this one took back.
    pub undoes: Option<i64>,
}

/// One end of a move; both columns are NULL or none is.
fn pointed(row: &SqliteRow, id: &str, label: &str) -> Result<Option<PointedAdapter>, sqlx::Error> {
    let id: Option<&str> = row.try_get(id)?;
    id.map(|id| {
        Ok(PointedAdapter {
            id: parse(id)?,
            label: row.try_get(label)?,
        })
    })
    .transpose()
}

impl FromRow<'_, SqliteRow> for AliasMove {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            number: row.try_get("number")?,
            key: AliasKey::from_columns(row)?,
            from: pointed(row, "from_id", "from_label")?,
            to: pointed(row, "to_id", "to_label")?,
            moved_ms: row.try_get("moved_ms")?,
            actor: row.try_get("actor")?,
            reason: row.try_get("reason")?,
            undoes: row.try_get("undoes")?,
        })
    }
}

impl Store {
    /// Lets `key` point at the adapter `to`. `None` when it did already: that is not a move.
    ///
    /// # Errors
    /// [`StoreError::UnknownAdapter`], [`StoreError::AliasMismatch`].
    pub async fn move_alias(
        &self,
        key: &AliasKey,
        to: Uuid,
        by: &Attribution,
    ) -> Result<Option<AliasMove>, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let to = target(&mut transaction, key, to).await?;
        let from = current(&mut transaction, key).await?;
        if from.as_ref() == Some(&to) {
            return Ok(None);
        }
        let done = record(&mut transaction, key, from, Some(to), by, None).await?;
        transaction.commit().await?;
        Ok(Some(done))
    }

    /// Removes `key`; its history stays.
    ///
    /// # Errors
    /// [`StoreError::UnknownAlias`].
    pub async fn remove_alias(
        &self,
        key: &AliasKey,
        by: &Attribution,
    ) -> Result<AliasMove, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let from = current(&mut transaction, key).await?;
        if from.is_none() {
            return Err(StoreError::UnknownAlias(key.clone()));
        }
        let done = record(&mut transaction, key, from, None, by, None).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// Takes back the last move that was not taken back yet; called again and again it walks to the beginning.
    ///
    /// # Errors
    /// [`StoreError::NothingToRollBack`]; [`StoreError::RollBackTargetDeleted`] when the adapter before is gone.
    pub async fn roll_back_alias(
        &self,
        key: &AliasKey,
        by: &Attribution,
    ) -> Result<AliasMove, StoreError> {
        let mut transaction = self.inner.database.begin().await?;
        let undone: AliasMove = sqlx::query_as(
            "SELECT * FROM alias_moves WHERE kind = ? AND owner = ? AND alias = ? AND undoes IS NULL
               AND number NOT IN (SELECT undoes FROM alias_moves WHERE undoes IS NOT NULL)
             ORDER BY number DESC LIMIT 1",
        )
        .bind(key.kind())
        .bind(key.owner())
        .bind(key.alias())
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| StoreError::NothingToRollBack(key.clone()))?;
        let number = Some(undone.number);
        let done = record(&mut transaction, key, undone.to, undone.from, by, number).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// All moves of `key`, newest first; empty when it never was.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn alias_history(&self, key: &AliasKey) -> Result<Vec<AliasMove>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT * FROM alias_moves WHERE kind = ? AND owner = ? AND alias = ? ORDER BY number DESC",
        )
        .bind(key.kind())
        .bind(key.owner())
        .bind(key.alias())
        .fetch_all(self.inner.database.readers())
        .await?)
    }

    /// Adapters of this backbone that an alias of their name points at, those first whose alias moved last.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn published_adapters(&self, backbone: &Digest) -> Result<Vec<Uuid>, StoreError> {
        sqlx::query_scalar(
            "SELECT adapter_id FROM aliases JOIN adapters ON adapters.id = adapter_id
             JOIN alias_moves USING (kind, owner, alias)
             WHERE kind = 'adapter' AND backbone_digest = ? GROUP BY adapter_id ORDER BY max(number) DESC",
        )
        .bind(backbone.as_str())
        .fetch_all(self.inner.database.readers())
        .await?
        .into_iter()
        .map(|id: String| Ok(parse(&id)?))
        .collect()
    }

    /// All aliases and what they point at.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn list_aliases(&self) -> Result<Vec<(AliasKey, PointedAdapter)>, StoreError> {
        sqlx::query(
            "SELECT kind, owner, alias, adapter_id, name || ':' || version AS label
             FROM aliases JOIN adapters ON adapters.id = adapter_id ORDER BY kind, owner, alias",
        )
        .fetch_all(self.inner.database.readers())
        .await?
        .iter()
        .map(|row| {
            let key = AliasKey::from_columns(row)?;
            let pointed = PointedAdapter {
                id: parse(row.try_get("adapter_id")?)?,
                label: row.try_get("label")?,
            };
            Ok((key, pointed))
        })
        .collect()
    }
}

/// The adapter `id`, if `key` may point at it. A row of an adapter never changes its name or backbone, so that this holds
/// for good.
async fn target(
    connection: &mut SqliteConnection,
    key: &AliasKey,
    id: Uuid,
) -> Result<PointedAdapter, StoreError> {
    let (name, version, backbone): (String, u32, String) =
        sqlx::query_as("SELECT name, version, backbone_digest FROM adapters WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?
            .ok_or_else(|| unknown_adapter(id))?;
    let label = format!("{name}:{version}");
    let mismatch = match key {
        AliasKey::Alias { adapter, .. } if adapter.as_str() != name => {
            Some("an alias points only at versions of its own adapter name")
        }
        AliasKey::BackboneDefault(digest) if digest.as_str() != backbone => {
            Some("that adapter was made for another backbone")
        }
        AliasKey::Alias { .. } | AliasKey::BackboneDefault(_) => None,
    };
    match mismatch {
        None => Ok(PointedAdapter { id, label }),
        Some(reason) => Err(StoreError::AliasMismatch {
            key: key.clone(),
            adapter: label,
            reason,
        }),
    }
}

async fn current(
    connection: &mut SqliteConnection,
    key: &AliasKey,
) -> Result<Option<PointedAdapter>, StoreError> {
    let row = sqlx::query(
        "SELECT adapter_id, name || ':' || version AS label
         FROM aliases JOIN adapters ON adapters.id = adapter_id
         WHERE kind = ? AND owner = ? AND alias = ?",
    )
    .bind(key.kind())
    .bind(key.owner())
    .bind(key.alias())
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some(row) => pointed(&row, "adapter_id", "label")?,
        None => None,
    })
}

/// Moves `key` and writes it down.
async fn record(
    connection: &mut SqliteConnection,
    key: &AliasKey,
    from: Option<PointedAdapter>,
    to: Option<PointedAdapter>,
    by: &Attribution,
    undoes: Option<i64>,
) -> Result<AliasMove, StoreError> {
    match &to {
        Some(to) => sqlx::query(
            "INSERT INTO aliases (kind, owner, alias, adapter_id) VALUES (?, ?, ?, ?)
             ON CONFLICT (kind, owner, alias) DO UPDATE SET adapter_id = excluded.adapter_id",
        )
        .bind(key.kind())
        .bind(key.owner())
        .bind(key.alias())
        .bind(to.id.to_string())
        .execute(&mut *connection)
        .await
        .map_err(|error| match error {
            error if is_foreign_key_violation(&error) => StoreError::RollBackTargetDeleted {
                key: key.clone(),
                adapter: to.label.clone(),
            },
            error => error.into(),
        })?,
        None => {
            sqlx::query("DELETE FROM aliases WHERE kind = ? AND owner = ? AND alias = ?")
                .bind(key.kind())
                .bind(key.owner())
                .bind(key.alias())
                .execute(&mut *connection)
                .await?
        }
    };
    let end = |pointed: &Option<PointedAdapter>| match pointed {
        Some(pointed) => (Some(pointed.id.to_string()), Some(pointed.label.clone())),
        None => (None, None),
    };
    let ((from_id, from_label), (to_id, to_label)) = (end(&from), end(&to));
    Ok(sqlx::query_as(
        "INSERT INTO alias_moves
            (kind, owner, alias, from_id, from_label, to_id, to_label, moved_ms, actor, reason, undoes)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
    )
    .bind(key.kind())
    .bind(key.owner())
    .bind(key.alias())
    .bind(from_id)
    .bind(from_label)
    .bind(to_id)
    .bind(to_label)
    .bind(now_ms())
    .bind(&by.actor)
    .bind(&by.reason)
    .bind(undoes)
    .fetch_one(connection)
    .await?)
}
