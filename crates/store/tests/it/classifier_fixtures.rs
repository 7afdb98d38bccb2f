//! What the tests of classifiers share.

use store::{
    AdapterChoice, ChangeState, ClassRecord, ClassifierError, ClassifierRecord, Digest,
    FeatureSpace, NewClass, NewClassifier, NewPicture, PictureFilter, PictureRecord, Privacy,
    Store, Variant,
};
use test_support::store::backbone_digest;
use uuid::Uuid;

pub const BY: &str = "test";

pub fn original(content: u8) -> Vec<u8> {
    vec![content; 100 + usize::from(content)]
}

pub fn thumbnail(content: u8) -> Vec<u8> {
    vec![content; 10]
}

pub fn new_classifier(name: &str, privacy: Privacy) -> NewClassifier {
    NewClassifier {
        id: None,
        name: name.to_owned(),
        backbone_digest: backbone_digest(),
        adapter: AdapterChoice::Auto,
        head: serde_json::json!({}),
        privacy,
    }
}

pub async fn create(store: &Store, name: &str, privacy: Privacy) -> ClassifierRecord {
    store
        .create_classifier(&new_classifier(name, privacy), BY)
        .await
        .expect("create")
}

pub fn new_classes(names: &[&str]) -> Vec<NewClass> {
    let class = |name: &&str| NewClass {
        id: None,
        name: (*name).to_owned(),
    };
    names.iter().map(class).collect()
}

pub async fn add_classes(store: &Store, id: Uuid, names: &[&str]) -> Vec<ClassRecord> {
    let added = store.add_classes(id, None, &new_classes(names), BY).await;
    added.expect("classes").classes
}

pub fn new_picture(class: Uuid, content: u8) -> NewPicture {
    NewPicture {
        class,
        name: format!("picture {content}.png"),
        media_type: "image/png".to_owned(),
        width: 8,
        height: 6,
        original: original(content),
        thumbnail: thumbnail(content),
        features: Vec::new(),
    }
}

/// Adds these contents to a class, and gives the ids.
pub async fn add(store: &Store, id: Uuid, class: Uuid, contents: &[u8]) -> Vec<Uuid> {
    let new = contents
        .iter()
        .map(|&one| new_picture(class, one))
        .collect();
    let added = store.add_pictures(id, None, new, BY).await.expect("add");
    added.pictures.iter().map(|picture| picture.id).collect()
}

pub async fn pictures(store: &Store, id: Uuid, class: Uuid) -> Vec<PictureRecord> {
    let filter = PictureFilter {
        class: Some(class),
        ..PictureFilter::default()
    };
    store.list_pictures(id, &filter).await.expect("pictures")
}

/// Names of the classes with the number of their pictures, in order.
pub async fn overview(store: &Store, id: Uuid) -> Vec<(String, u32)> {
    let classes = store.classes(id).await.expect("classes");
    classes
        .into_iter()
        .map(|class| (class.name, class.pictures))
        .collect()
}

pub fn counted(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// The sentences of everything that can be undone, newest first.
pub async fn undoable(store: &Store, id: Uuid) -> Vec<String> {
    let changes = store.classifier_changes(id).await.expect("changes");
    changes
        .into_iter()
        .filter(|done| done.state == ChangeState::Done)
        .map(|done| done.change.to_string())
        .collect()
}

pub fn space(adapter: Option<&str>) -> FeatureSpace {
    FeatureSpace {
        variant: Variant::Original,
        backbone: backbone_digest(),
        adapter: adapter.map(|adapter| Digest::of(adapter.as_bytes())),
        image_size: 224,
        preprocessing: 1,
    }
}

/// What a request was refused with.
pub fn refused<T: std::fmt::Debug>(result: Result<T, ClassifierError>) -> String {
    result.expect_err("refused").to_string()
}
