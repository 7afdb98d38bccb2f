//! Adding pictures to a classifier: each is read before anything is stored, and one that cannot be used does not stop the others.

use super::ClassifiersError;
use super::features::Spaces;
use crate::app::{App, CopiesWanted, Fault, NamedImage};
use crate::inference::EncodeError;
use model::image_input::{ImageLimits, Thumbnail, thumbnail};
use rayon::prelude::*;
use recycle::head::HeadChoice;
use std::collections::HashMap;
use store::{
    Author, Changed, ClassifierError, FeatureSpace, LONGEST_TITLE, NewClass, NewPicture, Privacy,
    Store, class_name_key,
};
use uuid::Uuid;

/// A picture to be added to the class of this name, which is made where it is not there.
#[derive(Debug, Clone)]
pub struct NewExample {
    /// Name of the class.
    pub label: String,
    /// The picture and its name.
    pub image: NamedImage,
}

/// What came of adding one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedExample {
    /// Name of the picture.
    pub image: String,
    /// Name of the class that it was sent for.
    pub label: String,
    /// Its id, and whether it is new, or why it could not be used.
    pub result: Result<store::AddedPicture, Fault>,
}

/// What came of adding pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedExamples {
    /// The revision, and the last change; there are two where classes were made.
    pub changed: Changed,
    /// In the order in which they were sent.
    pub examples: Vec<AddedExample>,
}

/// A picture that can be used.
struct Usable {
    thumbnail: Thumbnail,
    features: Vec<(FeatureSpace, Vec<f32>)>,
}

impl App {
    /// Adds pictures to the classes of their labels; a class that is not there is made. The same picture is in a class once.
    ///
    /// # Errors
    /// [`ClassifiersError`] of a label or as the store has them; a picture that cannot be used is part of the result.
    pub async fn add_examples(
        &self,
        id: Uuid,
        expected: Option<u64>,
        new: Vec<NewExample>,
        by: impl Into<Author>,
    ) -> Result<AddedExamples, ClassifiersError> {
        let (by, store) = (by.into(), self.classifiers_store()?);
        for example in &new {
            class_name_key(&example.label)?;
        }
        let labels: Vec<String> = new.iter().map(|own| own.label.clone()).collect();
        let images = new.into_iter().map(|own| own.image).collect();
        let (images, usable) = self.usable(id, images).await?;
        let filled = labels.iter().zip(&usable);
        let filled = filled.filter_map(|(label, usable)| usable.is_ok().then_some(label.as_str()));
        let (made, class_of) = classes(store, id, expected, filled, &by).await?;
        // What was made here is no change by somebody else.
        let expected = expected
            .and(made.as_ref().map(|made| made.revision))
            .or(expected);
        let (mut pictures, mut examples) = (Vec::new(), Vec::new());
        for ((label, image), usable) in labels.into_iter().zip(images).zip(usable) {
            let usable = usable.and_then(|usable| {
                match class_of.get(&class_name_key(&label).unwrap_or_default()) {
                    Some(&class) => Ok((class, usable)),
                    None => Err(Fault {
                        code: "class_not_found".into(),
                        message: "its class was deleted meanwhile".into(),
                    }),
                }
            });
            let NamedImage { name, bytes } = image;
            examples.push((name.clone(), label, usable.as_ref().err().cloned()));
            if let Ok((
                class,
                Usable {
                    thumbnail,
                    features,
                },
            )) = usable
            {
                pictures.push(NewPicture {
                    class,
                    name: shown_name(&name),
                    media_type: thumbnail.format.media_type().to_owned(),
                    width: thumbnail.width,
                    height: thumbnail.height,
                    original: bytes,
                    thumbnail: thumbnail.jpeg,
                    features,
                });
            }
        }
        let added = store.add_pictures(id, expected, pictures, by).await?;
        let mut added_pictures = added.pictures.into_iter();
        let mut results = Vec::with_capacity(examples.len());
        for (image, label, fault) in examples {
            let result = match fault {
                Some(fault) => Err(fault),
                None => Ok(added_pictures.next().ok_or(EncodeError::Stopped)?),
            };
            results.push(AddedExample {
                image,
                label,
                result,
            });
        }
        let changed = match added.changed {
            Changed {
                revision,
                change: None,
            } => Changed {
                revision,
                change: made.and_then(|made| made.change),
            },
            changed => changed,
        };
        Ok(AddedExamples {
            changed,
            examples: results,
        })
    }

    /// What is stored of each picture, or why it cannot be used. The pictures come back beside it.
    async fn usable(
        &self,
        id: Uuid,
        images: Vec<NamedImage>,
    ) -> Result<(Vec<NamedImage>, Vec<Result<Usable, Fault>>), ClassifiersError> {
        let record = self.classifiers_store()?.classifier(id).await?;
        let limits = *self.limits();
        let read = move || {
            let read = |image: &NamedImage| readable(image, &limits);
            let usable: Vec<Result<Usable, Fault>> = images.par_iter().map(read).collect();
            (images, usable)
        };
        let read = tokio::task::spawn_blocking(read).await;
        let (images, mut usable) =
            read.map_err(|error| EncodeError::Engine(format!("decoding stopped: {error}")))?;
        if record.privacy == Privacy::Pictures {
            return Ok((images, usable));
        }
        // Features that are not computed now never can be.
        let adapter = self.adapter_of(&record, CopiesWanted::Always).await?;
        let spaces = Spaces::of(
            record.backbone_digest.clone(),
            &self.pictures,
            adapter.as_ref(),
        );
        let specs = HeadChoice::default().copy_specs();
        let good: Vec<usize> = (0..usable.len()).filter(|&i| usable[i].is_ok()).collect();
        let to_encode = good.iter().map(|&index| images[index].clone()).collect();
        let encoded = self
            .pictures
            .examples(to_encode, &specs, adapter.as_ref(), CopiesWanted::Always)
            .await?;
        for (index, result) in good.into_iter().zip(encoded) {
            match (result, &mut usable[index]) {
                (Ok(example), Ok(usable)) => usable.features = spaces.keyed(&example, &specs),
                (Ok(_), Err(_)) => {}
                (Err(fault), place) => *place = Err(fault),
            }
        }
        Ok((images, usable))
    }
}

fn readable(image: &NamedImage, limits: &ImageLimits) -> Result<Usable, Fault> {
    match thumbnail(&image.bytes, limits) {
        Ok(thumbnail) => Ok(Usable {
            thumbnail,
            features: Vec::new(),
        }),
        Err(error) => Err(Fault {
            code: error.code().to_owned(),
            message: error.to_string(),
        }),
    }
}

/// How often classes are looked for again where others make the same ones at the same time.
const MOST_TRIES: usize = 8;

/// Makes the classes of these names that are not there, and gives the ids of all by the key of their name.
async fn classes<'a>(
    store: &Store,
    id: Uuid,
    expected: Option<u64>,
    labels: impl Iterator<Item = &'a str> + Clone,
    by: &Author,
) -> Result<(Option<Changed>, HashMap<String, Uuid>), ClassifierError> {
    let mut tries = 1;
    loop {
        match missing_classes(store, id, expected, labels.clone(), by).await {
            // Pictures for the same new class came in another request.
            Err(ClassifierError::ClassNameTaken(_)) if expected.is_none() && tries < MOST_TRIES => {
                tries += 1;
            }
            result => return result,
        }
    }
}

async fn missing_classes<'a>(
    store: &Store,
    id: Uuid,
    expected: Option<u64>,
    labels: impl Iterator<Item = &'a str>,
    by: &Author,
) -> Result<(Option<Changed>, HashMap<String, Uuid>), ClassifierError> {
    let mut class_of = HashMap::new();
    for class in store.classes(id).await? {
        class_of.insert(class_name_key(&class.name)?, class.id);
    }
    let mut new: Vec<NewClass> = Vec::new();
    for label in labels {
        let key = class_name_key(label)?;
        class_of.entry(key).or_insert_with(|| {
            let id = Uuid::now_v7();
            new.push(NewClass {
                id: Some(id),
                name: label.to_owned(),
            });
            id
        });
    }
    if new.is_empty() {
        return Ok((None, class_of));
    }
    let added = store.add_classes(id, expected, &new, by.clone()).await?;
    Ok((Some(added.changed), class_of))
}

/// The end of a name that may be a path, as far as it can be shown.
fn shown_name(name: &str) -> String {
    let end = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let plain: String = end.chars().filter(|c| !c.is_control()).collect();
    let short: String = plain.trim().chars().take(LONGEST_TITLE).collect();
    match short.trim() {
        "" => "picture".to_owned(),
        short => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_file_can_be_shown() {
        assert_eq!(shown_name("a/b\\ c.png "), "c.png");
        assert_eq!(shown_name("a\nb"), "ab");
        assert_eq!(shown_name("/"), "picture");
        assert_eq!(shown_name(&"ä".repeat(300)).chars().count(), LONGEST_TITLE);
    }
}
