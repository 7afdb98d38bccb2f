//! The cache of features: what is found, what gives way, and that reading does not write.

use crate::classifier_fixtures::{BY, add, add_classes, create, original, space};
use std::path::Path;
use store::{Access, Digest, FeatureSpace, Privacy, Settings, Store, Variant};
use test_support::store::{backbone_digest, name};

/// Bytes of a vector of four values in the cache.
const ENTRY_BYTES: u64 = 256 + 16;

async fn open_small(folder: &Path, entries: u64) -> Store {
    let settings = Settings {
        feature_cache_bytes: entries * ENTRY_BYTES,
    };
    let store = Store::open_with(folder, Access::Exclusive, settings)
        .await
        .expect("open");
    store
        .add_backbone(&name("tiny"), &backbone_digest(), "embedded")
        .await
        .expect("backbone");
    store
}

fn picture(number: u32) -> Digest {
    Digest::of(&number.to_le_bytes())
}

fn values(number: u32) -> Vec<f32> {
    vec![
        f32::from_bits(number),
        -0.0,
        f32::MAX,
        f32::MIN_POSITIVE / 2.0,
    ]
}

fn features(numbers: std::ops::Range<u32>) -> Vec<(Digest, Vec<f32>)> {
    numbers.map(|one| (picture(one), values(one))).collect()
}

/// Which of these pictures are in the cache.
async fn present(store: &Store, space: &FeatureSpace, numbers: std::ops::Range<u32>) -> Vec<u32> {
    let asked: Vec<Digest> = numbers.clone().map(picture).collect();
    let found = store.cached_features(space, &asked).await.expect("find");
    assert_eq!(found.len(), asked.len());
    let mut present = Vec::new();
    for (number, found) in numbers.zip(found) {
        if let Some(found) = found {
            let bits = |values: &[f32]| values.iter().map(|one| one.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&values(number)));
            present.push(number);
        }
    }
    present
}

#[tokio::test]
async fn features_are_found_bit_for_bit_under_their_whole_key_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open_small(folder.path(), 100).await;
    let here = space(Some("tuned"));
    store
        .cache_features(&here, &features(0..5))
        .await
        .expect("add");
    store
        .cache_features(&here, &features(3..7))
        .await
        .expect("some again");
    assert_eq!(
        store.feature_cache_bytes().await.expect("size"),
        7 * ENTRY_BYTES
    );
    store.close().await;
    let store = open_small(folder.path(), 100).await;
    assert_eq!(present(&store, &here, 0..9).await, [0, 1, 2, 3, 4, 5, 6]);
    let copy = |number, settings: &[u8]| Variant::Copy {
        number,
        settings: Digest::of(settings),
    };
    let other = |change: fn(&mut FeatureSpace)| {
        let mut other = here.clone();
        change(&mut other);
        other
    };
    let mut copies = [here.clone(), here.clone()];
    copies[0].variant = copy(1, b"flip");
    copies[1].variant = copy(1, b"crop");
    for elsewhere in [
        other(|space| space.adapter = None),
        other(|space| space.backbone = Digest::of(b"other")),
        other(|space| space.image_size = 448),
        other(|space| space.preprocessing = 2),
        copies[0].clone(),
        copies[1].clone(),
    ] {
        assert!(present(&store, &elsewhere, 0..9).await.is_empty());
        store
            .cache_features(&elsewhere, &features(8..9))
            .await
            .expect("add");
        assert_eq!(present(&store, &elsewhere, 0..9).await, [8]);
    }
    assert_eq!(
        store.feature_cache_bytes().await.expect("size"),
        13 * ENTRY_BYTES
    );
    store.clear_feature_cache().await.expect("clear");
    assert_eq!(store.feature_cache_bytes().await.expect("size"), 0);
    assert!(present(&store, &here, 0..9).await.is_empty());
}

#[tokio::test]
async fn a_full_cache_drops_what_was_added_first_and_stays_below_its_bound() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open_small(folder.path(), 20).await;
    let here = space(None);
    store
        .cache_features(&here, &features(0..20))
        .await
        .expect("as much as there may be");
    assert_eq!(present(&store, &here, 0..20).await.len(), 20);
    store
        .cache_features(&here, &features(20..21))
        .await
        .expect("one more");
    // Down to nine tenths, so that the next ones find room.
    assert_eq!(
        present(&store, &here, 0..21).await,
        (3..21).collect::<Vec<_>>()
    );
    store
        .cache_features(&here, &features(100..200))
        .await
        .expect("more than fits");
    assert_eq!(
        present(&store, &here, 0..200).await,
        (182..200).collect::<Vec<_>>()
    );
    assert_eq!(
        store.feature_cache_bytes().await.expect("size"),
        18 * ENTRY_BYTES
    );
}

#[tokio::test]
async fn readers_beside_the_writer_use_the_cache() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open_small(folder.path(), 20).await;
    let here = space(None);
    store
        .cache_features(&here, &features(0..2))
        .await
        .expect("add");
    let reader = Store::open(folder.path(), Access::Shared)
        .await
        .expect("reader");
    assert_eq!(present(&reader, &here, 0..3).await, [0, 1]);
    assert!(reader.cache_features(&here, &features(2..3)).await.is_err());
}

#[tokio::test]
async fn cached_features_go_with_the_last_picture_that_they_are_of() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open_small(folder.path(), 20).await;
    let here = space(None);
    let digest = Digest::of(&original(1));
    let mut ids = Vec::new();
    for privacy in [Privacy::Pictures, Privacy::Features] {
        let id = create(&store, "Trees", privacy).await.id;
        let oak = add_classes(&store, id, &["Oak"]).await[0].id;
        let picture = add(&store, id, oak, &[1]).await[0];
        ids.push((id, picture));
    }
    let new = [(digest.clone(), values(1)), (picture(9), values(9))];
    store.cache_features(&here, &new).await.expect("add");
    let is_there = async || {
        let found = store
            .cached_features(&here, std::slice::from_ref(&digest))
            .await;
        found.expect("find")[0].is_some()
    };
    let [(first, picture), (second, _)] = ids[..] else {
        panic!("two classifiers");
    };
    store
        .delete_pictures(first, None, &[picture], BY)
        .await
        .expect("delete");
    store.forget_deleted(first, None).await.expect("forget");
    assert!(is_there().await, "the other classifier has it");
    store.delete_classifier(second, None).await.expect("delete");
    assert!(!is_there().await);
    // With a picture that is deleted alone, too.
    let oak = add_classes(&store, first, &["Elm"]).await[0].id;
    let picture = add(&store, first, oak, &[1]).await[0];
    store
        .cache_features(&here, &new[..1])
        .await
        .expect("add again");
    store
        .delete_pictures(first, None, &[picture], BY)
        .await
        .expect("delete");
    assert!(is_there().await, "the deletion can be undone");
    store.forget_deleted(first, None).await.expect("forget");
    assert!(!is_there().await);
    assert_eq!(
        present(&store, &here, 0..10).await,
        [9],
        "that of a question stays"
    );
}
