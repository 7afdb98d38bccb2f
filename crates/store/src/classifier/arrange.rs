//! Pictures that move between classes or are deleted, alone or with their class.

use super::change::{Change, Names};
use super::classes::{PresentClass, find, present};
use super::error::ClassifierError;
use super::step::{Changed, Step};
use crate::Store;
use std::collections::HashSet;
use uuid::Uuid;

/// Pictures of one class that change their place together.
struct Leaving {
    class: String,
    moved: usize,
    /// Where they go has them already, so they are deleted.
    duplicates: usize,
}

/// Which pictures change their place.
enum Which {
    /// A JSON array of ids.
    Pictures(String),
    /// All of this class.
    Class(String),
}

impl Store {
    /// Moves pictures to the class `to`. One that is there already is deleted where it was.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownPicture`], [`ClassifierError::UnknownClass`];
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn move_pictures(
        &self,
        id: Uuid,
        expected: Option<u64>,
        pictures: &[Uuid],
        to: Uuid,
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        let (pictures, by) = (pictures.to_vec(), by.to_owned());
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by.as_str()).await?;
            let classes = present(&mut step.transaction, &step.id).await?;
            let to = find(&classes, to)?;
            let which = known(&mut step, &pictures).await?;
            let leaving = send(&mut step, &which, Some(&to.id)).await?;
            if leaving.is_empty() {
                return Ok(step.unchanged().changed);
            }
            let change = Change::PicturesMoved {
                pictures: leaving.iter().map(|one| one.moved).sum(),
                from: names(&classes, &leaving),
                to: to.name.clone(),
                duplicates: leaving.iter().map(|one| one.duplicates).sum(),
            };
            store.finish_change(step, change).await
        })
        .await
    }

    /// Deletes pictures. They keep their files until the deletion cannot be undone any more.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownPicture`]; [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn delete_pictures(
        &self,
        id: Uuid,
        expected: Option<u64>,
        pictures: &[Uuid],
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        let (pictures, by) = (pictures.to_vec(), by.to_owned());
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by.as_str()).await?;
            let classes = present(&mut step.transaction, &step.id).await?;
            let which = known(&mut step, &pictures).await?;
            let leaving = send(&mut step, &which, None).await?;
            if leaving.is_empty() {
                return Ok(step.unchanged().changed);
            }
            let change = Change::PicturesDeleted {
                pictures: leaving.iter().map(|one| one.duplicates).sum(),
                from: names(&classes, &leaving),
            };
            store.finish_change(step, change).await
        })
        .await
    }

    /// Deletes a class with its pictures. They keep their files until the deletion cannot be undone any more.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClass`]; [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn delete_class(
        &self,
        id: Uuid,
        expected: Option<u64>,
        class: Uuid,
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        let by = by.to_owned();
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by.as_str()).await?;
            let classes = present(&mut step.transaction, &step.id).await?;
            let class = find(&classes, class)?;
            let leaving = send(&mut step, &Which::Class(class.id.clone()), None).await?;
            step.edit_class(&class.id, &class.name, &class.key, None)
                .await?;
            let change = Change::ClassDeleted {
                name: class.name.clone(),
                pictures: leaving.iter().map(|one| one.duplicates).sum(),
            };
            store.finish_change(step, change).await
        })
        .await
    }

    /// Moves the pictures of a class to the class `into`, and deletes the class.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClass`], [`ClassifierError::MergeIntoItself`];
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`].
    pub async fn merge_class(
        &self,
        id: Uuid,
        expected: Option<u64>,
        class: Uuid,
        into: Uuid,
        by: &str,
    ) -> Result<Changed, ClassifierError> {
        if class == into {
            return Err(ClassifierError::MergeIntoItself);
        }
        let by = by.to_owned();
        self.run_to_completion(move |store| async move {
            let mut step = Step::begin(&store, id, expected, by.as_str()).await?;
            let classes = present(&mut step.transaction, &step.id).await?;
            let (class, into) = (find(&classes, class)?, find(&classes, into)?);
            let which = Which::Class(class.id.clone());
            let leaving = send(&mut step, &which, Some(&into.id)).await?;
            step.edit_class(&class.id, &class.name, &class.key, None)
                .await?;
            let change = Change::ClassMerged {
                from: class.name.clone(),
                into: into.name.clone(),
                pictures: leaving.iter().map(|one| one.moved).sum(),
                duplicates: leaving.iter().map(|one| one.duplicates).sum(),
            };
            store.finish_change(step, change).await
        })
        .await
    }
}

/// These pictures, all of which must be in some class.
async fn known(step: &mut Step, pictures: &[Uuid]) -> Result<Which, ClassifierError> {
    let distinct: HashSet<String> = pictures.iter().map(Uuid::to_string).collect();
    let json = serde_json::json!(distinct).to_string();
    let present: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM classifier_pictures WHERE classifier_id = ? AND class_id IS NOT NULL
           AND id IN (SELECT value FROM json_each(?))",
    )
    .bind(&step.id)
    .bind(&json)
    .fetch_all(&mut *step.transaction)
    .await?;
    if present.len() == distinct.len() {
        return Ok(Which::Pictures(json));
    }
    let present: HashSet<String> = present.into_iter().collect();
    let missing = pictures
        .iter()
        .find(|picture| !present.contains(&picture.to_string()));
    match missing {
        Some(&missing) => Err(ClassifierError::UnknownPicture(missing)),
        None => Ok(Which::Pictures(json)),
    }
}

/// Writes the edits that send pictures to the class `to`, or away. Of the same picture one arrives; the others go away, and so do
/// those that are in `to` already.
async fn send(
    step: &mut Step,
    which: &Which,
    to: Option<&str>,
) -> Result<Vec<Leaving>, ClassifierError> {
    let (pictures, class) = match which {
        Which::Pictures(pictures) => (Some(pictures), None),
        Which::Class(class) => (None, Some(class)),
    };
    let next = step.next();
    sqlx::query(
        "INSERT INTO classifier_picture_edits (classifier_id, revision, picture_id, class_before, class_after)
         SELECT classifier_id, ?2, id, class_id,
            iif(?3 IS NULL
                OR row_number() OVER (PARTITION BY picture_digest ORDER BY id) > 1
                OR picture_digest IN (SELECT picture_digest FROM classifier_pictures WHERE class_id = ?3), NULL, ?3)
         FROM classifier_pictures
         WHERE classifier_id = ?1 AND class_id IS NOT NULL AND (?3 IS NULL OR class_id <> ?3)
           AND (?4 IS NULL OR id IN (SELECT value FROM json_each(?4))) AND (?5 IS NULL OR class_id = ?5)",
    )
    .bind(&step.id)
    .bind(next)
    .bind(to)
    .bind(pictures)
    .bind(class)
    .execute(&mut *step.transaction)
    .await?;
    let rows: Vec<(String, u32, u32)> = sqlx::query_as(
        "SELECT class_before, count(class_after), count(*) - count(class_after) FROM classifier_picture_edits
         WHERE classifier_id = ? AND revision = ? GROUP BY class_before",
    )
    .bind(&step.id)
    .bind(next)
    .fetch_all(&mut *step.transaction)
    .await?;
    let leaving = |(class, moved, duplicates): (String, u32, u32)| Leaving {
        class,
        moved: moved as usize,
        duplicates: duplicates as usize,
    };
    Ok(rows.into_iter().map(leaving).collect())
}

/// Names of the classes that pictures leave, in the order of the classes.
fn names(classes: &[PresentClass], leaving: &[Leaving]) -> Names {
    let left: HashSet<&str> = leaving.iter().map(|one| one.class.as_str()).collect();
    let named = classes
        .iter()
        .filter(|class| left.contains(class.id.as_str()));
    Names::new(named.map(|class| class.name.as_str()))
}
