//! Adding pictures: their files first, then all rows in one transaction.

use super::change::{Change, Names};
use super::classes::{find, present};
use super::error::ClassifierError;
use super::record::Privacy;
use super::step::{Author, Changed, Settled, Step};
use super::title::Title;
use super::{MOST_PICTURES, kept_features, read};
use crate::features::{FeatureSpace, to_bytes};
use crate::{Digest, Store, now_ms};
use std::collections::HashSet;
use uuid::Uuid;

/// A picture to be added to a class.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPicture {
    /// The class that shows it.
    pub class: Uuid,
    /// As whoever sends it calls it.
    pub name: String,
    /// Of the bytes, for example "image/jpeg".
    pub media_type: String,
    /// In pixels, at least 1.
    pub width: u32,
    /// In pixels, at least 1.
    pub height: u32,
    /// Its bytes as they were sent.
    pub original: Vec<u8>,
    /// A small version of it.
    pub thumbnail: Vec<u8>,
    /// Its features. Only a classifier that keeps no originals ([`Privacy::Features`]) takes them: nothing can compute them again.
    pub features: Vec<(FeatureSpace, Vec<f32>)>,
}

/// What came of adding a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedPicture {
    /// Of the new picture, or of the same one that its class had already.
    pub id: Uuid,
    /// `false` where its class had it already.
    pub is_new: bool,
}

/// What came of adding pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedPictures {
    /// The revision, and what changed.
    pub changed: Changed,
    /// In the order of the request.
    pub pictures: Vec<AddedPicture>,
}

/// Digest and size of a picture's bytes, where these are not here.
pub(super) type Content = Option<(Digest, u64)>;

/// A picture whose files are described.
struct Described {
    class: Uuid,
    title: Title,
    digest: Digest,
    thumbnail: Digest,
    size_bytes: u64,
    thumbnail_bytes: u64,
    new: NewPicture,
}

impl Store {
    /// Adds pictures to classes. The same picture is in a class once: adding it again changes nothing and says so.
    ///
    /// # Errors
    /// [`ClassifierError::UnknownClass`], [`ClassifierError::TooManyPictures`], [`ClassifierError::EmptyPicture`] or of a name;
    /// [`ClassifierError::UnknownClassifier`], [`ClassifierError::RevisionConflict`]. Nothing is added then.
    pub async fn add_pictures(
        &self,
        id: Uuid,
        expected: Option<u64>,
        new: Vec<NewPicture>,
        by: impl Into<Author>,
    ) -> Result<AddedPictures, ClassifierError> {
        let new = new.into_iter().map(|picture| (picture, None)).collect();
        self.add_with_contents(id, expected, new, by.into()).await
    }

    /// As [`Self::add_pictures`], with digest and size of the bytes where they are not here.
    pub(super) async fn add_with_contents(
        &self,
        id: Uuid,
        expected: Option<u64>,
        new: Vec<(NewPicture, Content)>,
        by: Author,
    ) -> Result<AddedPictures, ClassifierError> {
        self.inner.database.writer()?;
        if new.len() > MOST_PICTURES {
            return Err(ClassifierError::TooManyPictures(new.len()));
        }
        let mut titled = Vec::with_capacity(new.len());
        for (picture, content) in new {
            if picture.width == 0 || picture.height == 0 {
                return Err(ClassifierError::EmptyPicture);
            }
            titled.push((Title::new("picture", &picture.name)?, picture, content));
        }
        self.run_to_completion(move |store| async move {
            // Before any file is written; it is checked again with the change.
            let mut connection = store.inner.database.readers().acquire().await?;
            super::step::check_revision(&mut connection, id, expected).await?;
            let privacy = read::privacy(&mut connection, id).await?;
            drop(connection);
            let (described, blobs) =
                tokio::task::spawn_blocking(move || describe(titled, privacy)).await?;
            let written: HashSet<Digest> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
            let insert = || store.insert_pictures(id, expected, &described, privacy, &by);
            let (mut settled, pictures) = store.store_blobs(blobs, insert).await?;
            if pictures.iter().any(|picture| !picture.is_new) {
                // The thumbnail of a picture that was there may be another one.
                settled.released.extend(written);
            }
            let changed = store.settle(settled).await;
            Ok(AddedPictures { changed, pictures })
        })
        .await
    }

    async fn insert_pictures(
        &self,
        id: Uuid,
        expected: Option<u64>,
        described: &[Described],
        privacy: Privacy,
        by: &Author,
    ) -> Result<(Settled, Vec<AddedPicture>), ClassifierError> {
        let mut step = Step::begin(self, id, expected, by.clone()).await?;
        let classes = present(&mut step.transaction, &step.id).await?;
        let (mut pictures, mut filled) = (Vec::new(), HashSet::new());
        let mut features_kept = false;
        for picture in described {
            let class = find(&classes, picture.class)?;
            let added = insert(&mut step, &class.id, picture, privacy, &by.name).await?;
            if added.is_new {
                filled.insert(class.id.as_str());
            }
            pictures.push(added);
            if privacy == Privacy::Features {
                for (space, values) in &picture.new.features {
                    let space = space.number(&mut step.transaction).await?;
                    let bytes = to_bytes(values);
                    kept_features::insert(
                        &mut step.transaction,
                        &step.id,
                        &picture.digest,
                        space,
                        bytes,
                    )
                    .await?;
                    features_kept = true;
                }
            }
        }
        let count: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM classifier_pictures WHERE classifier_id = ?1 AND class_id IS NOT NULL)
                + (SELECT count(*) FROM classifier_picture_edits WHERE classifier_id = ?1 AND revision = ?2)",
        )
        .bind(&step.id)
        .bind(step.next())
        .fetch_one(&mut *step.transaction)
        .await?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > MOST_PICTURES {
            return Err(ClassifierError::TooManyPictures(count));
        }
        let new = pictures.iter().filter(|picture| picture.is_new).count();
        if new == 0 {
            return Ok((step.keep(features_kept).await?, pictures));
        }
        let named = classes
            .iter()
            .filter(|class| filled.contains(class.id.as_str()));
        let change = Change::PicturesAdded {
            pictures: new,
            classes: Names::new(named.map(|class| class.name.as_str())),
        };
        Ok((step.finish(change, None).await?, pictures))
    }
}

/// Names every file by its content, and gives those that are to be stored.
fn describe(
    titled: Vec<(Title, NewPicture, Content)>,
    privacy: Privacy,
) -> (Vec<Described>, Vec<(Digest, Vec<u8>)>) {
    let (mut described, mut blobs) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (title, mut new, content) in titled {
        let (original, thumbnail) = (
            std::mem::take(&mut new.original),
            std::mem::take(&mut new.thumbnail),
        );
        let (digest, size_bytes) =
            content.unwrap_or_else(|| (Digest::of(&original), original.len() as u64));
        let picture = Described {
            class: new.class,
            title,
            digest,
            thumbnail: Digest::of(&thumbnail),
            size_bytes,
            thumbnail_bytes: thumbnail.len() as u64,
            new,
        };
        if privacy == Privacy::Pictures && seen.insert(picture.digest.clone()) {
            blobs.push((picture.digest.clone(), original));
        }
        if seen.insert(picture.thumbnail.clone()) {
            blobs.push((picture.thumbnail.clone(), thumbnail));
        }
        described.push(picture);
    }
    (described, blobs)
}

/// Adds a row without a class and the edit that gives it one, unless the class has the picture or gets it with this change.
async fn insert(
    step: &mut Step,
    class: &str,
    picture: &Described,
    privacy: Privacy,
    by: &str,
) -> Result<AddedPicture, ClassifierError> {
    let next = step.next();
    let there: Option<String> = sqlx::query_scalar(
        "SELECT id FROM classifier_pictures WHERE class_id = ?1 AND picture_digest = ?2
         UNION ALL SELECT id FROM classifier_pictures JOIN classifier_picture_edits ON picture_id = id
            WHERE picture_digest = ?2 AND classifier_pictures.classifier_id = ?3 AND revision = ?4 AND class_after = ?1",
    )
    .bind(class)
    .bind(picture.digest.as_str())
    .bind(&step.id)
    .bind(next)
    .fetch_optional(&mut *step.transaction)
    .await?;
    if let Some(there) = there {
        return Ok(AddedPicture {
            id: crate::parse(&there)?,
            is_new: false,
        });
    }
    // Made within the transaction, so that ids have the order in which pictures were added.
    let id = Uuid::now_v7();
    let (original, original_bytes) = match privacy {
        Privacy::Pictures => (Some(picture.digest.as_str()), picture.size_bytes),
        Privacy::Features => (None, 0),
    };
    sqlx::query(
        "INSERT INTO classifier_pictures (id, classifier_id, picture_digest, original_digest, thumbnail_digest, name,
            media_type, size_bytes, stored_bytes, width, height, added_ms, added_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.to_string())
    .bind(&step.id)
    .bind(picture.digest.as_str())
    .bind(original)
    .bind(picture.thumbnail.as_str())
    .bind(&picture.title.text)
    .bind(&picture.new.media_type)
    // A file in memory is far smaller than 2⁶³ bytes.
    .bind(picture.size_bytes.cast_signed())
    .bind((original_bytes + picture.thumbnail_bytes).cast_signed())
    .bind(picture.new.width)
    .bind(picture.new.height)
    .bind(now_ms())
    .bind(by)
    .execute(&mut *step.transaction)
    .await?;
    sqlx::query(
        "INSERT INTO classifier_picture_edits (classifier_id, revision, picture_id, class_after) VALUES (?, ?, ?, ?)",
    )
    .bind(&step.id)
    .bind(next)
    .bind(id.to_string())
    .bind(class)
    .execute(&mut *step.transaction)
    .await?;
    Ok(AddedPicture { id, is_new: true })
}
