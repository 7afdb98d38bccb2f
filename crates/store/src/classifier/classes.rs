//! Classes: reading, adding, renaming and ordering them.

use super::change::{Change, Names};
use super::error::ClassifierError;
use super::step::{Author, Changed, Step};
use super::title::Title;
use super::{MOST_CLASSES, read};
use crate::{Store, parse};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};
use std::collections::HashSet;
use uuid::Uuid;

/// A class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ClassifierClass))]
pub struct ClassRecord {
    /// Stays when the class is renamed, moved or deleted and given back.
    pub id: Uuid,
    /// Unique within the classifier, without regard to case.
    pub name: String,
    /// How many it has.
    pub pictures: u32,
}

impl FromRow<'_, SqliteRow> for ClassRecord {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: parse(row.try_get("id")?)?,
            name: row.try_get("name")?,
            pictures: row.try_get("pictures")?,
        })
    }
}

/// A class to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClass {
    /// Its id, where a request must not make it twice; else it gets a new one.
    pub id: Option<Uuid>,
    /// Unique within the classifier, without regard to case.
    pub name: String,
}

/// What came of adding classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedClasses {
    /// The revision, and what changed.
    pub changed: Changed,
    /// In the order of the request.
    pub classes: Vec<ClassRecord>,
}

/// A class as the transaction of a change sees it.
pub(super) struct PresentClass {
    pub id: String,
    pub name: String,
    pub key: String,
    pub position: i64,
}

impl Store {
    /// The classes of a classifier, in order.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClassifier`].
    pub async fn classes(&self, id: Uuid) -> Result<Vec<ClassRecord>, ClassifierError> {
        let mut connection = self.inner.database.readers().acquire().await?;
        read::exists(&mut connection, id).await?;
        Ok(sqlx::query_as(
            "SELECT id, name, (SELECT count(*) FROM classifier_pictures WHERE class_id = classifier_classes.id) AS pictures
             FROM classifier_classes WHERE classifier_id = ? AND position IS NOT NULL ORDER BY position",
        )
        .bind(id.to_string())
        .fetch_all(&mut *connection)
        .await?)
    }

    /// Adds classes at the end. One whose id is there already stays as it is.
    ///
    /// # Errors
    /// [`ClassifierError::ClassNameTaken`], [`ClassifierError::TooManyClasses`] or of the name;
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn add_classes(
        &self,
        id: Uuid,
        expected: Option<u64>,
        new: &[NewClass],
        by: impl Into<Author>,
    ) -> Result<AddedClasses, ClassifierError> {
        if new.len() > MOST_CLASSES {
            return Err(ClassifierError::TooManyClasses(new.len()));
        }
        let titled: Vec<(Option<Uuid>, Title)> = new
            .iter()
            .map(|class| Ok((class.id, Title::new("class", &class.name)?)))
            .collect::<Result<_, ClassifierError>>()?;
        let by = by.into();
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by).await?;
            let present = present(&mut step.transaction, &step.id).await?;
            let mut keys: HashSet<&str> = present.iter().map(|class| class.key.as_str()).collect();
            let mut position = present.last().map_or(0, |last| last.position + 1);
            let (mut ids, mut added) = (Vec::new(), Vec::new());
            for (class, title) in &titled {
                let class = class.unwrap_or_else(Uuid::now_v7);
                ids.push(class);
                let text = class.to_string();
                if present.iter().any(|present| present.id == text) {
                    continue;
                }
                if !keys.insert(&title.key) {
                    return Err(ClassifierError::ClassNameTaken(title.text.clone()));
                }
                sqlx::query("INSERT INTO classifier_classes (id, classifier_id, name, name_key) VALUES (?, ?, ?, ?)")
                    .bind(&text)
                    .bind(&step.id)
                    .bind(&title.text)
                    .bind(&title.key)
                    .execute(&mut *step.transaction)
                    .await?;
                step.edit_class(&text, &title.text, &title.key, Some(position))
                    .await?;
                position += 1;
                added.push(title.text.as_str());
            }
            if keys.len() > MOST_CLASSES {
                return Err(ClassifierError::TooManyClasses(keys.len()));
            }
            let settled = if added.is_empty() {
                step.unchanged()
            } else {
                let classes = Names::new(added.iter().copied());
                step.finish(Change::ClassesAdded { classes }, None).await?
            };
            let changed = store.settle(settled).await;
            let now = store.classes(id).await?;
            let classes = ids
                .iter()
                .filter_map(|id| now.iter().find(|class| class.id == *id).cloned())
                .collect();
            Ok(AddedClasses { changed, classes })
        })
        .await
    }

    /// Gives a class another name.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClass`], [`ClassifierError::ClassNameTaken`] or of the name;
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn rename_class(
        &self,
        id: Uuid,
        expected: Option<u64>,
        class: Uuid,
        name: &str,
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        let title = Title::new("class", name)?;
        let by = by.to_owned();
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by.as_str()).await?;
            let present = present(&mut step.transaction, &step.id).await?;
            let renamed = find(&present, class)?;
            if renamed.name == title.text {
                return Ok(step.unchanged().changed);
            }
            let taken = present
                .iter()
                .any(|other| other.key == title.key && other.id != renamed.id);
            if taken {
                return Err(ClassifierError::ClassNameTaken(title.text));
            }
            step.edit_class(&renamed.id, &title.text, &title.key, Some(renamed.position))
                .await?;
            let change = Change::ClassRenamed {
                from: renamed.name.clone(),
                to: title.text,
            };
            store.finish_change(step, change).await
        })
        .await
    }

    /// Puts the classes into this order, which names each of them once.
    ///
    /// # Errors
    /// [`ClassifierError::BadOrder`], [`ClassifierError::UnknownClass`];
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn reorder_classes(
        &self,
        id: Uuid,
        expected: Option<u64>,
        order: &[Uuid],
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        let (order, by) = (order.to_vec(), by.to_owned());
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by.as_str()).await?;
            let present = present(&mut step.transaction, &step.id).await?;
            if order.iter().collect::<HashSet<_>>().len() < order.len() {
                return Err(ClassifierError::BadOrder("one is there twice"));
            }
            let ordered: Vec<&PresentClass> = order
                .iter()
                .map(|class| find(&present, *class))
                .collect::<Result<_, _>>()?;
            if ordered.len() < present.len() {
                return Err(ClassifierError::BadOrder("some are missing"));
            }
            if ordered
                .iter()
                .map(|class| &class.id)
                .eq(present.iter().map(|class| &class.id))
            {
                return Ok(step.unchanged().changed);
            }
            for (position, class) in (0_i64..).zip(ordered) {
                if class.position != position {
                    step.edit_class(&class.id, &class.name, &class.key, Some(position))
                        .await?;
                }
            }
            store.finish_change(step, Change::ClassesReordered).await
        })
        .await
    }
}

/// The classes of a classifier, in order.
pub(super) async fn present(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Vec<PresentClass>, ClassifierError> {
    let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT id, name, name_key, position FROM classifier_classes WHERE classifier_id = ? AND position IS NOT NULL
         ORDER BY position",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let class = |(id, name, key, position)| PresentClass {
        id,
        name,
        key,
        position,
    };
    Ok(rows.into_iter().map(class).collect())
}

pub(super) fn find(present: &[PresentClass], id: Uuid) -> Result<&PresentClass, ClassifierError> {
    let text = id.to_string();
    present
        .iter()
        .find(|class| class.id == text)
        .ok_or(ClassifierError::UnknownClass(id))
}
