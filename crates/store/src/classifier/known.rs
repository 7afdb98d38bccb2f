//! Pictures of which only the digest is known, from a classifier that another installation made: their features come along.

use super::add::{AddedPictures, NewPicture};
use super::error::ClassifierError;
use super::record::Privacy;
use crate::{Digest, Store};
use uuid::Uuid;

/// A picture that is not here.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownPicture {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Of these bytes.
    pub size_bytes: u64,
    /// What else is known of it; without its bytes.
    pub picture: NewPicture,
}

impl Store {
    /// As [`Self::add_pictures`], for a classifier that keeps features and not the pictures.
    ///
    /// # Errors
    /// As [`Self::add_pictures`]; [`ClassifierError::OriginalNotKept`] where the classifier keeps the pictures.
    pub async fn add_known_pictures(
        &self,
        id: Uuid,
        pictures: Vec<KnownPicture>,
        by: &str,
    ) -> Result<AddedPictures, ClassifierError> {
        if let Some(first) = pictures.first()
            && self.classifier(id).await?.privacy == Privacy::Pictures
        {
            return Err(ClassifierError::OriginalNotKept(first.picture.name.clone()));
        }
        let new = pictures.into_iter().map(|known| {
            let content = Some((known.digest, known.size_bytes));
            (known.picture, content)
        });
        self.add_with_contents(id, None, new.collect(), by.into())
            .await
    }
}
