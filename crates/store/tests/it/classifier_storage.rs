//! What classifiers keep on disk: after a restart, until it cannot be undone, within limits.

use crate::classifier_fixtures::{
    BY, add, add_classes, create, new_classes, new_classifier, new_picture, original, pictures,
    refused, space, thumbnail, undoable,
};
use std::path::PathBuf;
use store::{
    AdapterChoice, ClassifierError, ClassifierFilter, ClassifierPatch, ClassifierResult, Digest,
    LONGEST_HEAD_BYTES, MOST_CLASSES, MOST_PICTURES, PictureFilter, Privacy,
};
use test_support::store::{files_on_disk, name, open};
use uuid::Uuid;

fn patch(name: &str) -> ClassifierPatch {
    ClassifierPatch {
        name: Some(name.to_owned()),
        ..ClassifierPatch::default()
    }
}

#[tokio::test]
async fn a_classifier_reads_back_whole_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let mut new = new_classifier("  Trees  ", Privacy::Pictures);
    new.adapter = AdapterChoice::Pinned {
        id: Uuid::now_v7(),
        label: "meta:3".to_owned(),
        digest: Digest::of(b"meta"),
    };
    new.head = serde_json::json!({"kind": "ridge", "strength": 0.5});
    let made = store.create_classifier(&new, "Ada").await.expect("create");
    let [oak, ash] = &add_classes(&store, made.id, &["Oak", "Ash"]).await[..] else {
        panic!("two classes");
    };
    let ids = add(&store, made.id, oak.id, &[3, 1, 2]).await;
    store
        .mark_classifiers_used(&[(made.id, 7), (made.id, 5), (Uuid::now_v7(), 1)])
        .await
        .expect("mark");
    store.close().await;

    let store = open(folder.path()).await;
    let read = store.classifier(made.id).await.expect("read");
    assert_eq!((read.name.as_str(), read.revision), ("Trees", 3));
    assert_eq!((&read.adapter, &read.head), (&new.adapter, &new.head));
    assert_eq!(read.backbone, name("tiny"));
    assert_eq!((read.classes, read.pictures), (2, 3));
    assert_eq!(read.stored_bytes, 101 + 102 + 103 + 3 * 10);
    assert_eq!(
        (read.created_by.as_str(), read.changed_by.as_str()),
        ("Ada", BY)
    );
    assert_eq!(read.last_used_ms, Some(7));
    let shown = pictures(&store, made.id, oak.id).await;
    let listed: Vec<Uuid> = shown.iter().map(|picture| picture.id).collect();
    assert_eq!(listed, ids, "in the order in which they were added");
    let first = store.picture(made.id, ids[0]).await.expect("picture");
    assert_eq!(first, shown[0]);
    assert_eq!((first.width, first.height, first.size_bytes), (8, 6, 103));
    assert_eq!(
        (
            first.name.as_str(),
            first.media_type.as_str(),
            first.is_kept
        ),
        ("picture 3.png", "image/png", true)
    );
    assert_eq!(
        store.read_picture(&first).await.expect("bytes"),
        original(3)
    );
    let small = store.read_thumbnail(&first.thumbnail).await.expect("bytes");
    assert_eq!(small, thumbnail(3));
    assert!(pictures(&store, made.id, ash.id).await.is_empty());
    let nobody = store.picture(Uuid::now_v7(), ids[0]).await;
    assert!(matches!(nobody, Err(ClassifierError::UnknownPicture(_))));
}

#[tokio::test]
async fn deleted_pictures_keep_their_files_until_their_deletion_cannot_be_undone() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let oak = add_classes(&store, id, &["Oak"]).await[0].id;
    let gone = add(&store, id, oak, &[1, 2]).await;
    store
        .delete_pictures(id, None, &gone, BY)
        .await
        .expect("delete");
    assert_eq!(store.classifier(id).await.expect("read").stored_bytes, 0);
    let used = store.classifier_use(id).await.expect("use");
    assert_eq!((used.pictures_bytes, used.deleted_bytes), (0, 223));
    for number in 1..50 {
        let name = format!("Oak {number}");
        store
            .rename_class(id, None, oak, &name, BY)
            .await
            .expect("rename");
        assert_eq!(store.gc().await.expect("gc").blobs, 0);
    }
    assert_eq!(files_on_disk(folder.path()).len(), 4);
    assert_eq!(undoable(&store, id).await.len(), 50);
    store
        .rename_class(id, None, oak, "Oak", BY)
        .await
        .expect("rename");
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(undoable(&store, id).await.len(), 50);
    assert_eq!(store.gc().await.expect("gc").blobs, 0);
    let used = store.classifier_use(id).await.expect("use");
    assert_eq!(used.deleted_bytes, 0);

    // At once, where somebody asks for it.
    let gone = add(&store, id, oak, &[1]).await;
    store
        .delete_pictures(id, None, &gone, BY)
        .await
        .expect("delete");
    let freed = store.forget_deleted(id, None).await.expect("forget");
    assert_eq!((freed.blobs, freed.bytes), (2, 111));
    assert!(undoable(&store, id).await.is_empty());
    // What was added and taken back goes with the next change.
    add(&store, id, oak, &[1]).await;
    store.undo_classifier(id, None, BY).await.expect("undo");
    assert_eq!(files_on_disk(folder.path()).len(), 2);
    store
        .rename_class(id, None, oak, "Elm", BY)
        .await
        .expect("rename");
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn deleting_a_classifier_frees_what_nobody_else_uses_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let mut ids = Vec::new();
    for contents in [[1, 2], [2, 3]] {
        let id = create(&store, "Trees", Privacy::Pictures).await.id;
        let oak = add_classes(&store, id, &["Oak"]).await[0].id;
        let added = add(&store, id, oak, &contents).await;
        store
            .delete_pictures(id, None, &added[..1], BY)
            .await
            .expect("delete");
        ids.push(id);
    }
    let same_name = ClassifierFilter {
        name: Some("TREES".to_owned()),
        ..ClassifierFilter::default()
    };
    let listed = store.list_classifiers(&same_name).await.expect("list");
    assert_eq!(
        listed.iter().map(|one| one.id).collect::<Vec<_>>(),
        [ids[1], ids[0]]
    );
    let older = ClassifierFilter {
        before: Some(ids[1]),
        limit: Some(5),
        ..ClassifierFilter::default()
    };
    let listed = store.list_classifiers(&older).await.expect("list");
    assert_eq!(
        listed.iter().map(|one| one.id).collect::<Vec<_>>(),
        [ids[0]]
    );
    let in_use = store
        .delete_backbone(&name("tiny"))
        .await
        .expect_err("in use");
    assert_eq!(
        in_use.to_string(),
        "the backbone \"tiny\" is still used by 0 adapters and 2 classifiers; delete them first"
    );
    let freed = store.delete_classifier(ids[0], None).await.expect("delete");
    assert_eq!((freed.blobs, freed.bytes), (2, 111), "picture 2 is shared");
    let freed = store.delete_classifier(ids[1], None).await.expect("delete");
    assert_eq!(freed.blobs, 4);
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
    assert!(matches!(
        store.delete_classifier(ids[1], None).await,
        Err(ClassifierError::UnknownClassifier(_))
    ));
    store.delete_backbone(&name("tiny")).await.expect("unused");
}

#[tokio::test]
async fn where_features_alone_are_kept_no_picture_is_and_features_stay_with_it() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Faces", Privacy::Features).await.id;
    let ada = add_classes(&store, id, &["Ada"]).await[0].id;
    let (bare, tuned) = (space(None), space(Some("tuned")));
    let with = |features| store::NewPicture {
        features,
        ..new_picture(ada, 1)
    };
    let first = with(vec![(bare.clone(), vec![1.0, -0.5, f32::MIN_POSITIVE])]);
    let added = store
        .add_pictures(id, None, vec![first], BY)
        .await
        .expect("add");
    let digest = Digest::of(&original(1));
    let kept = files_on_disk(folder.path());
    assert_eq!(kept.len(), 1);
    assert!(kept[0].ends_with(Digest::of(&thumbnail(1)).as_str()));
    let picture = store
        .picture(id, added.pictures[0].id)
        .await
        .expect("picture");
    assert_eq!((picture.is_kept, picture.size_bytes), (false, 101));
    assert_eq!(
        refused(store.read_picture(&picture).await),
        "the picture \"picture 1.png\" itself is not here: its classifier keeps features and thumbnails only"
    );
    // The picture again, for another adapter.
    let again = with(vec![(tuned.clone(), vec![2.0])]);
    let again = store
        .add_pictures(id, None, vec![again], BY)
        .await
        .expect("add");
    assert_eq!(again.changed.change, None);
    store.clear_feature_cache().await.expect("clear");
    let both = async |id| {
        let asked = [digest.clone(), Digest::of(b"unknown")];
        let bare = store.kept_features(id, &bare, &asked).await.expect("bare");
        let tuned = store
            .kept_features(id, &tuned, &asked)
            .await
            .expect("tuned");
        [bare, tuned].concat()
    };
    let expected = [
        Some(vec![1.0, -0.5, f32::MIN_POSITIVE]),
        None,
        Some(vec![2.0]),
        None,
    ];
    assert_eq!(both(id).await, expected);
    assert_eq!(
        store.classifier_use(id).await.expect("use").features_bytes,
        16
    );
    let open_to_all = create(&store, "Trees", Privacy::Pictures).await.id;
    assert_eq!(both(open_to_all).await, [None, None, None, None]);
    // They go with the picture, when it goes for good.
    store
        .delete_pictures(id, None, &[picture.id], BY)
        .await
        .expect("delete");
    assert_eq!(both(id).await, expected);
    store.undo_classifier(id, None, BY).await.expect("undo");
    store
        .delete_pictures(id, None, &[picture.id], BY)
        .await
        .expect("delete");
    store.forget_deleted(id, None).await.expect("forget");
    assert_eq!(both(id).await, [None, None, None, None]);
}

#[tokio::test]
async fn lists_of_pictures_page_within_a_class_and_over_all() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let classes = add_classes(&store, id, &["Oak", "Ash"]).await;
    let (oak, ash) = (classes[0].id, classes[1].id);
    let mut all = Vec::new();
    for content in 1..=6 {
        let class = if content % 2 == 0 { ash } else { oak };
        all.extend(add(&store, id, class, &[content]).await);
    }
    let in_oak: Vec<Uuid> = all.iter().copied().step_by(2).collect();
    for (class, expected) in [(None, &all), (Some(oak), &in_oak)] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let filter = PictureFilter {
                class,
                after,
                limit: Some(2),
            };
            let page = store.list_pictures(id, &filter).await.expect("page");
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            seen.extend(page.iter().map(|picture| picture.id));
        }
        assert_eq!(&seen, expected);
    }
    let unknown = PictureFilter {
        class: Some(Uuid::now_v7()),
        ..PictureFilter::default()
    };
    assert!(
        store
            .list_pictures(id, &unknown)
            .await
            .expect("list")
            .is_empty()
    );
}

#[tokio::test]
async fn limits_are_refused_with_the_limit_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Many", Privacy::Features).await.id;
    let names: Vec<String> = (0..MOST_CLASSES)
        .map(|number| format!("{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let classes = add_classes(&store, id, &names).await;
    assert_eq!(
        refused(store.add_classes(id, None, &new_classes(&["x"]), BY).await),
        "a classifier has at most 1000 classes; this would make 1001"
    );
    // All with one thumbnail, so that there is one file.
    let new = |range: std::ops::Range<usize>| -> Vec<store::NewPicture> {
        let picture = |number: usize| store::NewPicture {
            original: number.to_le_bytes().to_vec(),
            ..new_picture(classes[number % classes.len()].id, 1)
        };
        range.map(picture).collect()
    };
    store
        .add_pictures(id, None, new(0..MOST_PICTURES), BY)
        .await
        .expect("as many as there may be");
    let one_more = new(MOST_PICTURES..MOST_PICTURES + 1);
    assert_eq!(
        refused(store.add_pictures(id, None, one_more, BY).await),
        "a classifier has at most 20000 pictures; this would make 20001"
    );
    let read = store.classifier(id).await.expect("read");
    assert_eq!(
        (read.classes, read.pictures, read.revision),
        (1000, 20_000, 3)
    );
    // One that is there already takes no place.
    let again = store
        .add_pictures(id, None, new(0..1), BY)
        .await
        .expect("again");
    assert_eq!(again.changed.change, None);
    store
        .merge_class(id, None, classes[0].id, classes[1].id, BY)
        .await
        .expect("merge");
    store.undo_classifier(id, None, BY).await.expect("undo");
    assert_eq!(store.classifier(id).await.expect("read").pictures, 20_000);

    let long = "x".repeat(LONGEST_HEAD_BYTES);
    let head = ClassifierPatch {
        head: Some(serde_json::json!(long)),
        ..ClassifierPatch::default()
    };
    assert_eq!(
        refused(store.update_classifier(id, None, head, BY).await),
        "the settings of the head take 16386 bytes; at most 16384 are allowed"
    );
    let long = "x".repeat(201);
    for refusal in [
        refused(store.update_classifier(id, None, patch(&long), BY).await),
        refused(store.rename_class(id, None, classes[0].id, &long, BY).await),
        refused(
            store
                .create_classifier(&new_classifier(&long, Privacy::Pictures), BY)
                .await,
        ),
    ] {
        assert!(
            refusal.ends_with("has 201 characters; at most 200 are allowed"),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn a_result_is_kept_with_its_revision_until_a_newer_one_comes() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let adapter = Digest::of(b"adapter");
    let result = |revision, content: &[u8]| ClassifierResult {
        revision,
        content: content.to_vec(),
    };
    for (revision, adapter, content) in [
        (4, None, b"bare"),
        (4, Some(&adapter), b"seen"),
        (3, None, b"late"),
    ] {
        store
            .keep_classifier_result(id, "fit", adapter, &result(revision, content))
            .await
            .expect("keep");
    }
    let read = async |kind, adapter| {
        store
            .classifier_result(id, kind, adapter)
            .await
            .expect("read")
    };
    assert_eq!(read("fit", None).await, Some(result(4, b"bare")));
    assert_eq!(read("fit", Some(&adapter)).await, Some(result(4, b"seen")));
    assert_eq!(read("check", None).await, None);
    // Bounded: those of the oldest revision go.
    for revision in 5..40 {
        let adapter = Digest::of(&[u8::try_from(revision).expect("small")]);
        store
            .keep_classifier_result(id, "fit", Some(&adapter), &result(revision, b"new"))
            .await
            .expect("keep");
    }
    assert_eq!(read("fit", None).await, None);
    assert_eq!(
        read("fit", Some(&Digest::of(&[39]))).await,
        Some(result(39, b"new"))
    );
    assert!(matches!(
        store
            .keep_classifier_result(Uuid::now_v7(), "fit", None, &result(1, b"x"))
            .await,
        Err(ClassifierError::UnknownClassifier(_))
    ));
}
