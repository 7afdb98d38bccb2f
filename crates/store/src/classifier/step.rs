//! One change of a classifier: a transaction that holds its edits, applied and written down together or not at all.

use super::MOST_UNDO;
use super::change::{Change, ChangeRecord, Names};
use super::error::ClassifierError;
use crate::features::forget_pictures;
use crate::{Digest, Store, now_ms, parse};
use serde::Serialize;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use std::collections::HashSet;
use uuid::Uuid;

/// Changes that are remembered besides those that can be undone, to say what changed since a revision.
const MOST_CLOSED: i64 = 200;
/// Changes that a conflict lists.
const MOST_LISTED: i64 = 20;

/// Who makes a change, and what it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// As people are told.
    pub name: String,
    /// Changes in a row with the same one are undone together.
    pub group: Option<Uuid>,
}

impl From<&str> for Author {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: None,
        }
    }
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The revision that the classifier is at.
    pub revision: u64,
    /// `None` where nothing was to be changed.
    pub change: Option<ChangeRecord>,
}

/// A change with the blobs that may have no use any more.
pub(super) struct Settled {
    pub changed: Changed,
    pub released: HashSet<Digest>,
}

impl Settled {
    fn without_change(revision: u64) -> Self {
        Self {
            changed: Changed {
                revision,
                change: None,
            },
            released: HashSet::new(),
        }
    }
}

/// Which way edits are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Back,
}

/// A change that is being made.
pub(super) struct Step {
    pub transaction: Transaction<'static, Sqlite>,
    /// The classifier.
    pub id: String,
    /// The revision before.
    revision: i64,
    by: Author,
}

impl Step {
    /// Begins a change of the classifier `id`, if it is at the revision `expected`.
    pub async fn begin(
        store: &Store,
        id: Uuid,
        expected: Option<u64>,
        by: impl Into<Author>,
    ) -> Result<Self, ClassifierError> {
        let mut transaction = store.inner.database.begin().await?;
        let revision = check_revision(&mut transaction, id, expected).await?;
        Ok(Self {
            transaction,
            id: id.to_string(),
            revision,
            by: by.into(),
        })
    }

    /// The revision that this change leads to, and that its edits belong to.
    pub fn next(&self) -> i64 {
        self.revision + 1
    }

    /// Ends a change that would change nothing.
    pub fn unchanged(self) -> Settled {
        Settled::without_change(self.revision.unsigned_abs())
    }

    /// Ends a change that is not one of what people see, but may have written features.
    pub async fn keep(self, has_written: bool) -> Result<Settled, ClassifierError> {
        if !has_written {
            return Ok(self.unchanged());
        }
        let revision = self.revision.unsigned_abs();
        self.transaction.commit().await?;
        Ok(Settled::without_change(revision))
    }

    /// Writes down that a class, present or not, has this name and position after the change.
    pub async fn edit_class(
        &mut self,
        class: &str,
        name: &str,
        key: &str,
        position: Option<i64>,
    ) -> Result<(), ClassifierError> {
        let next = self.next();
        sqlx::query(
            "INSERT INTO classifier_class_edits (classifier_id, revision, class_id, name_before, key_before, position_before,
                name_after, key_after, position_after)
             SELECT classifier_id, ?1, id, name, name_key, position, ?2, ?3, ?4 FROM classifier_classes WHERE id = ?5",
        )
        .bind(next)
        .bind(name)
        .bind(key)
        .bind(position)
        .bind(class)
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Applies the edits and writes the change down. `settings`: name, adapter and head as JSON, before and after.
    pub async fn finish(
        mut self,
        change: Change,
        settings: Option<(String, String)>,
    ) -> Result<Settled, ClassifierError> {
        // What was undone cannot be redone after another change.
        sqlx::query(
            "UPDATE classifier_changes SET state = 'closed' WHERE classifier_id = ? AND state = 'undone'",
        )
        .bind(&self.id)
        .execute(&mut *self.transaction)
        .await?;
        let next = self.next();
        let group = self.by.group;
        self.write_down(&change, "done", settings, group).await?;
        apply(&mut self.transaction, &self.id, next, Direction::Forward).await?;
        self.commit().await
    }

    /// Undoes the changes of the last step, or redoes those of the first that was undone, and writes that down as one change.
    pub async fn replay(mut self, direction: Direction) -> Result<Settled, ClassifierError> {
        let changes = changes_of_next(&mut self.transaction, &self.id, direction).await?;
        let change = together(&mut self.transaction, &self.id, &changes).await?;
        let (state, change) = match (direction, change.map(|own| Box::new(own.change))) {
            (Direction::Back, Some(change)) => ("undone", Change::Undone { change }),
            (Direction::Forward, Some(change)) => ("done", Change::Redone { change }),
            (Direction::Back, None) => return Err(ClassifierError::NothingToUndo),
            (Direction::Forward, None) => return Err(ClassifierError::NothingToRedo),
        };
        for ChangeRecord { revision, .. } in &changes {
            let revision = revision.cast_signed();
            apply(&mut self.transaction, &self.id, revision, direction).await?;
            sqlx::query(
                "UPDATE classifier_changes SET state = ? WHERE classifier_id = ? AND revision = ?",
            )
            .bind(state)
            .bind(&self.id)
            .bind(revision)
            .execute(&mut *self.transaction)
            .await?;
        }
        self.write_down(&change, "closed", None, None).await?;
        self.commit().await
    }

    async fn write_down(
        &mut self,
        change: &Change,
        state: &str,
        settings: Option<(String, String)>,
        group: Option<Uuid>,
    ) -> Result<(), ClassifierError> {
        let (before, after) = settings.unzip();
        let now = now_ms();
        let next = self.next();
        sqlx::query(
            "INSERT INTO classifier_changes (classifier_id, revision, change, made_ms, made_by, state, settings_before,
                settings_after, undo_group, undo_step)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,
                coalesce((SELECT iif(undo_group = ?9, undo_step, NULL) FROM classifier_changes
                    WHERE classifier_id = ?1 AND state = 'done' ORDER BY revision DESC LIMIT 1), ?2))",
        )
        .bind(&self.id)
        .bind(next)
        .bind(serde_json::json!(change).to_string())
        .bind(now)
        .bind(&self.by.name)
        .bind(state)
        .bind(before)
        .bind(after)
        .bind(group.map(|group| group.to_string()))
        .execute(&mut *self.transaction)
        .await?;
        sqlx::query(
            "UPDATE classifiers SET revision = ?, changed_ms = ?, changed_by = ? WHERE id = ?",
        )
        .bind(next)
        .bind(now)
        .bind(&self.by.name)
        .bind(&self.id)
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    async fn commit(mut self) -> Result<Settled, ClassifierError> {
        let next = self.next();
        let released = forget_old(&mut self.transaction, &self.id, next, MOST_UNDO).await?;
        let change: ChangeRecord = sqlx::query_as(
            "SELECT * FROM classifier_changes WHERE classifier_id = ? AND revision = ?",
        )
        .bind(&self.id)
        .bind(next)
        .fetch_one(&mut *self.transaction)
        .await?;
        self.transaction.commit().await?;
        Ok(Settled {
            changed: Changed {
                revision: change.revision,
                change: Some(change),
            },
            released,
        })
    }
}

/// The revision of the classifier `id`, which must be `expected` where that is given.
pub(super) async fn check_revision(
    connection: &mut SqliteConnection,
    id: Uuid,
    expected: Option<u64>,
) -> Result<i64, ClassifierError> {
    let revision: i64 = sqlx::query_scalar("SELECT revision FROM classifiers WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(ClassifierError::UnknownClassifier(id))?;
    match expected {
        Some(expected) if expected != revision.unsigned_abs() => {
            let changes = sqlx::query_as(
                "SELECT * FROM (SELECT * FROM classifier_changes WHERE classifier_id = ? AND revision > ?
                    ORDER BY revision DESC LIMIT ?) ORDER BY revision",
            )
            .bind(id.to_string())
            .bind(i64::try_from(expected).unwrap_or(i64::MAX))
            .bind(MOST_LISTED)
            .fetch_all(connection)
            .await?;
            Err(ClassifierError::RevisionConflict {
                expected,
                present: revision.unsigned_abs(),
                changes,
            })
        }
        _ => Ok(revision),
    }
}

/// The changes that are undone or redone next, in the order in which they are; none where there are none.
pub(super) async fn changes_of_next(
    connection: &mut SqliteConnection,
    id: &str,
    direction: Direction,
) -> Result<Vec<ChangeRecord>, ClassifierError> {
    let sql = match direction {
        Direction::Back => {
            "SELECT * FROM classifier_changes WHERE classifier_id = ?1 AND state = 'done' AND undo_step =
                (SELECT undo_step FROM classifier_changes WHERE classifier_id = ?1 AND state = 'done'
                 ORDER BY revision DESC LIMIT 1) ORDER BY revision DESC"
        }
        Direction::Forward => {
            "SELECT * FROM classifier_changes WHERE classifier_id = ?1 AND state = 'undone' AND undo_step =
                (SELECT undo_step FROM classifier_changes WHERE classifier_id = ?1 AND state = 'undone'
                 ORDER BY revision LIMIT 1) ORDER BY revision"
        }
    };
    let changes = sqlx::query_as(sql).bind(id).fetch_all(connection).await?;
    Ok(changes)
}

/// The `changes` of a step as one; `None` of none.
pub(super) async fn together(
    connection: &mut SqliteConnection,
    id: &str,
    changes: &[ChangeRecord],
) -> Result<Option<ChangeRecord>, ClassifierError> {
    let Some(newest) = changes.iter().max_by_key(|own| own.revision) else {
        return Ok(None);
    };
    if changes.len() == 1 {
        return Ok(Some(newest.clone()));
    }
    // Only what adds classes or pictures comes in groups.
    let pictures = changes.iter().map(|own| match own.change {
        Change::PicturesAdded { pictures, .. } => pictures,
        _ => 0,
    });
    let pictures: usize = pictures.sum();
    let edited = if pictures > 0 {
        "SELECT name FROM classifier_classes WHERE id IN (SELECT class_after FROM classifier_picture_edits
            WHERE classifier_id = ?1 AND revision IN (SELECT value FROM json_each(?2))) ORDER BY id"
    } else {
        "SELECT name FROM classifier_classes WHERE id IN (SELECT class_id FROM classifier_class_edits
            WHERE classifier_id = ?1 AND revision IN (SELECT value FROM json_each(?2))) ORDER BY id"
    };
    let revisions: Vec<u64> = changes.iter().map(|own| own.revision).collect();
    let names: Vec<String> = sqlx::query_scalar(edited)
        .bind(id)
        .bind(serde_json::json!(revisions).to_string())
        .fetch_all(connection)
        .await?;
    let classes = Names::new(names.iter().map(String::as_str));
    let change = if pictures > 0 {
        Change::PicturesAdded { pictures, classes }
    } else {
        Change::ClassesAdded { classes }
    };
    Ok(Some(ChangeRecord {
        change,
        ..newest.clone()
    }))
}

/// Gives everything that the change to `revision` edited the state after it, or before it.
async fn apply(
    connection: &mut SqliteConnection,
    id: &str,
    revision: i64,
    direction: Direction,
) -> Result<(), ClassifierError> {
    let forward = direction == Direction::Forward;
    // Out of their places first: two classes may swap their names.
    for sql in [
        "UPDATE classifier_pictures SET class_id = NULL WHERE id IN
            (SELECT picture_id FROM classifier_picture_edits WHERE classifier_id = ?1 AND revision = ?2)",
        "UPDATE classifier_classes SET position = NULL WHERE id IN
            (SELECT class_id FROM classifier_class_edits WHERE classifier_id = ?1 AND revision = ?2)",
        "UPDATE classifier_classes SET name = iif(?3, name_after, name_before), name_key = iif(?3, key_after, key_before),
                position = iif(?3, position_after, position_before)
            FROM classifier_class_edits AS edits
            WHERE edits.classifier_id = ?1 AND edits.revision = ?2 AND edits.class_id = classifier_classes.id",
        "UPDATE classifier_pictures SET class_id = iif(?3, class_after, class_before)
            FROM classifier_picture_edits AS edits
            WHERE edits.classifier_id = ?1 AND edits.revision = ?2 AND edits.picture_id = classifier_pictures.id",
        "UPDATE classifiers SET name = settings ->> 'name', name_key = settings ->> 'name_key', adapter = settings -> 'adapter',
                head = settings -> 'head'
            FROM (SELECT iif(?3, settings_after, settings_before) AS settings FROM classifier_changes
                WHERE classifier_id = ?1 AND revision = ?2)
            WHERE id = ?1 AND settings IS NOT NULL",
    ] {
        sqlx::query(sql)
            .bind(id)
            .bind(revision)
            .bind(forward)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Closes what is more than `most_undo` steps ago and deletes for good what no edit can give back any more. Gives the blobs
/// that may now be without use.
pub(super) async fn forget_old(
    connection: &mut SqliteConnection,
    id: &str,
    revision: i64,
    most_undo: u32,
) -> Result<HashSet<Digest>, ClassifierError> {
    sqlx::query(
        "UPDATE classifier_changes SET state = 'closed' WHERE classifier_id = ?1 AND state = 'done' AND revision <=
            (SELECT max(revision) AS last FROM classifier_changes WHERE classifier_id = ?1 AND state = 'done'
             GROUP BY undo_step ORDER BY last DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(id)
    .bind(most_undo)
    .execute(&mut *connection)
    .await?;
    for sql in [
        "DELETE FROM classifier_changes WHERE classifier_id = ?1 AND state = 'closed' AND revision <= ?2",
        "UPDATE classifier_changes SET settings_before = NULL, settings_after = NULL
            WHERE classifier_id = ?1 AND state = 'closed' AND settings_before IS NOT NULL",
        "DELETE FROM classifier_picture_edits WHERE classifier_id = ?1 AND revision IN
            (SELECT revision FROM classifier_changes WHERE classifier_id = ?1 AND state = 'closed')",
        "DELETE FROM classifier_class_edits WHERE classifier_id = ?1 AND revision IN
            (SELECT revision FROM classifier_changes WHERE classifier_id = ?1 AND state = 'closed')",
    ] {
        sqlx::query(sql)
            .bind(id)
            .bind(revision - MOST_CLOSED)
            .execute(&mut *connection)
            .await?;
    }
    let gone: Vec<(String, Option<String>, String)> = sqlx::query_as(
        "DELETE FROM classifier_pictures WHERE classifier_id = ? AND class_id IS NULL AND NOT EXISTS
            (SELECT 1 FROM classifier_picture_edits WHERE picture_id = classifier_pictures.id)
         RETURNING picture_digest, original_digest, thumbnail_digest",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM classifier_classes WHERE classifier_id = ? AND position IS NULL AND NOT EXISTS
            (SELECT 1 FROM classifier_class_edits WHERE class_id = classifier_classes.id)",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    if gone.is_empty() {
        return Ok(HashSet::new());
    }
    let pictures: HashSet<&str> = gone.iter().map(|(picture, ..)| picture.as_str()).collect();
    let pictures = serde_json::json!(pictures).to_string();
    sqlx::query(
        "DELETE FROM classifier_features WHERE classifier_id = ?1 AND picture_digest IN (SELECT value FROM json_each(?2))
           AND NOT EXISTS (SELECT 1 FROM classifier_pictures WHERE classifier_id = ?1
                AND classifier_pictures.picture_digest = classifier_features.picture_digest)",
    )
    .bind(id)
    .bind(&pictures)
    .execute(&mut *connection)
    .await?;
    forget_pictures(connection, &pictures).await?;
    let mut released = HashSet::new();
    for (_, original, thumbnail) in &gone {
        released.insert(parse(thumbnail)?);
        if let Some(original) = original {
            released.insert(parse(original)?);
        }
    }
    Ok(released)
}

impl Store {
    /// Applies the edits of `step`, and removes the blobs that have no use any more.
    pub(super) async fn finish_change(
        &self,
        step: Step,
        change: Change,
    ) -> Result<Changed, ClassifierError> {
        let settled = step.finish(change, None).await?;
        Ok(self.settle(settled).await)
    }

    /// Removes the blobs of a change that was committed.
    pub(super) async fn settle(&self, settled: Settled) -> Changed {
        self.free_or_warn(settled.released).await;
        settled.changed
    }

    /// Removes those of `digests` that no row refers to. The change that released them stands, whatever comes of it.
    pub(crate) async fn free_or_warn(&self, digests: HashSet<Digest>) {
        if let Err(left) = self.free(digests).await {
            tracing::warn!(error = %left, "files that nothing refers to stay until the next start");
        }
    }
}
