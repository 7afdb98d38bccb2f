//! Classifiers: what each change does, says and refuses, and what is kept on disk.

use crate::classifier_fixtures::{
    BY, add, add_classes, counted, create, new_classes, new_classifier, new_picture, original,
    overview, pictures, refused, space, thumbnail, undoable,
};
use std::path::PathBuf;
use store::{
    AdapterChoice, ClassifierError, ClassifierFilter, ClassifierPatch, ClassifierResult, Digest,
    LONGEST_HEAD_BYTES, MOST_CLASSES, MOST_PICTURES, MOST_UNDO, NewClass, PictureFilter, Privacy,
    StoreError,
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
async fn every_change_wants_the_present_revision_and_else_says_what_changed() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let classes = add_classes(&store, id, &["Oak", "Ash"]).await;
    let (oak, ash) = (classes[0].id, classes[1].id);
    let picture = add(&store, id, oak, &[1]).await[0];
    let seen = Some(2);
    let refusals = [
        refused(store.update_classifier(id, seen, patch("x"), BY).await),
        refused(store.add_classes(id, seen, &new_classes(&["x"]), BY).await),
        refused(store.rename_class(id, seen, oak, "x", BY).await),
        refused(store.reorder_classes(id, seen, &[ash, oak], BY).await),
        refused(store.delete_class(id, seen, oak, BY).await),
        refused(store.merge_class(id, seen, oak, ash, BY).await),
        refused(
            store
                .add_pictures(id, seen, vec![new_picture(oak, 9)], BY)
                .await,
        ),
        refused(store.move_pictures(id, seen, &[picture], ash, BY).await),
        refused(store.delete_pictures(id, seen, &[picture], BY).await),
        refused(store.undo_classifier(id, seen, BY).await),
        refused(store.redo_classifier(id, seen, BY).await),
        refused(store.forget_deleted(id, seen).await),
        refused(store.delete_classifier(id, seen).await),
    ];
    for refusal in refusals {
        assert_eq!(
            refusal,
            "somebody else changed the classifier: revision 2 was expected, and it is at 3 (since then: Added 1 picture to Oak)"
        );
    }
    assert_eq!(
        overview(&store, id).await,
        counted(&[("Oak", 1), ("Ash", 0)])
    );
    assert_eq!(files_on_disk(folder.path()).len(), 2);
    let moved = store.move_pictures(id, Some(3), &[picture], ash, BY).await;
    assert_eq!(moved.expect("move").revision, 4);
    let nobody = Uuid::now_v7();
    assert!(matches!(
        store.delete_class(nobody, None, oak, BY).await,
        Err(ClassifierError::UnknownClassifier(id)) if id == nobody
    ));
}

#[tokio::test]
async fn what_changes_nothing_is_not_a_change() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let oak = add_classes(&store, id, &["Oak"]).await[0].id;
    let picture = add(&store, id, oak, &[1]).await[0];
    let again = NewClass {
        id: Some(oak),
        name: "Oak".to_owned(),
    };
    let added = store
        .add_classes(id, None, &[again], BY)
        .await
        .expect("add");
    assert_eq!(added.classes[0].id, oak);
    for changed in [
        added.changed,
        store
            .update_classifier(id, None, patch("Trees"), BY)
            .await
            .expect("same name"),
        store
            .rename_class(id, None, oak, " Oak ", BY)
            .await
            .expect("same name"),
        store
            .reorder_classes(id, None, &[oak], BY)
            .await
            .expect("same order"),
        store
            .move_pictures(id, None, &[picture], oak, BY)
            .await
            .expect("same class"),
        store
            .delete_pictures(id, None, &[], BY)
            .await
            .expect("no pictures"),
    ] {
        assert_eq!((changed.revision, changed.change), (3, None));
    }
}

#[tokio::test]
async fn names_of_classes_differ_in_more_than_case_and_composition() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Bears", Privacy::Pictures).await.id;
    let bear = add_classes(&store, id, &["B\u{e4}r"]).await[0].id;
    for taken in ["b\u{e4}r", " BA\u{308}R "] {
        let refusal = refused(
            store
                .add_classes(id, None, &new_classes(&[taken]), BY)
                .await,
        );
        assert!(refusal.starts_with("there is a class"), "{refusal}");
    }
    let twice = store
        .add_classes(id, None, &new_classes(&["Fox", "FOX"]), BY)
        .await;
    assert!(matches!(twice, Err(ClassifierError::ClassNameTaken(name)) if name == "FOX"));
    let fox = add_classes(&store, id, &["Fox"]).await[0].id;
    let taken = store.rename_class(id, None, fox, "B\u{c4}R", BY).await;
    assert!(matches!(taken, Err(ClassifierError::ClassNameTaken(_))));
    store
        .rename_class(id, None, bear, "B\u{c4}R", BY)
        .await
        .expect("another case is another spelling of the same class");
    // The name of a deleted class is free, and taken again when it comes back.
    store.delete_class(id, None, fox, BY).await.expect("delete");
    let second = add_classes(&store, id, &["fox"]).await[0].id;
    assert_ne!(second, fox);
    for _ in 0..2 {
        store.undo_classifier(id, None, BY).await.expect("undo");
    }
    assert_eq!(
        overview(&store, id).await,
        counted(&[("B\u{c4}R", 0), ("Fox", 0)])
    );
}

#[tokio::test]
async fn a_picture_is_in_a_class_once_and_adding_it_again_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let classes = add_classes(&store, id, &["Oak", "Ash"]).await;
    let (oak, ash) = (classes[0].id, classes[1].id);
    let first = add(&store, id, oak, &[1]).await[0];
    let mut other_thumbnail = new_picture(oak, 1);
    other_thumbnail.thumbnail = b"smaller".to_vec();
    let new = vec![
        other_thumbnail,
        new_picture(oak, 2),
        new_picture(oak, 2),
        new_picture(ash, 1),
    ];
    let added = store.add_pictures(id, None, new, BY).await.expect("add");
    let is_new: Vec<bool> = added.pictures.iter().map(|one| one.is_new).collect();
    assert_eq!(is_new, [false, true, false, true]);
    assert_eq!(added.pictures[0].id, first);
    assert_eq!(added.pictures[1].id, added.pictures[2].id);
    let sentence = added.changed.change.map(|done| done.change.to_string());
    assert_eq!(sentence.as_deref(), Some("Added 2 pictures to Oak and Ash"));
    // Two pictures with a thumbnail each; the unused one is gone.
    assert_eq!(files_on_disk(folder.path()).len(), 4);

    let again = store.add_pictures(id, None, vec![new_picture(oak, 2)], BY);
    let again = again.await.expect("add");
    assert_eq!((again.changed.revision, again.changed.change), (4, None));
    // Moved to where it is, the same picture is there once.
    let all = [first, added.pictures[1].id, added.pictures[3].id];
    let moved = store
        .move_pictures(id, None, &all, ash, BY)
        .await
        .expect("move");
    assert_eq!(
        moved.change.map(|done| done.change.to_string()).as_deref(),
        Some("Moved 1 picture from Oak to Ash, 1 was there already")
    );
    assert_eq!(
        overview(&store, id).await,
        counted(&[("Oak", 0), ("Ash", 2)])
    );
}

#[tokio::test]
async fn classes_move_merge_and_go_and_all_of_it_is_undone_and_redone() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let classes = add_classes(&store, id, &["Oak", "Ash", "Elm"]).await;
    let [oak, ash, elm] = [classes[0].id, classes[1].id, classes[2].id];
    add(&store, id, oak, &[1, 2]).await;
    let in_ash = add(&store, id, ash, &[2, 3]).await;
    store
        .reorder_classes(id, None, &[elm, oak, ash], BY)
        .await
        .expect("order");
    store
        .merge_class(id, None, oak, ash, BY)
        .await
        .expect("merge");
    store
        .move_pictures(id, None, &in_ash, elm, BY)
        .await
        .expect("move");
    store.delete_class(id, None, ash, BY).await.expect("delete");
    let settings = ClassifierPatch {
        name: Some("Leaves".to_owned()),
        adapter: Some(AdapterChoice::Default),
        head: Some(serde_json::json!({"kind": "ridge"})),
    };
    store
        .update_classifier(id, None, settings, BY)
        .await
        .expect("settings");
    let views = [
        vec![("Elm", 2)],
        vec![("Elm", 2)],
        vec![("Elm", 2), ("Ash", 1)],
        vec![("Elm", 0), ("Ash", 3)],
        vec![("Elm", 0), ("Oak", 2), ("Ash", 2)],
        vec![("Oak", 2), ("Ash", 2), ("Elm", 0)],
        vec![("Oak", 2), ("Ash", 0), ("Elm", 0)],
        vec![("Oak", 0), ("Ash", 0), ("Elm", 0)],
        vec![],
    ];
    let sentences = [
        "Renamed the classifier from Trees to Leaves and changed how it sees and changed how it decides",
        "Deleted Ash with 1 picture",
        "Moved 2 pictures from Ash to Elm",
        "Merged Oak into Ash with 1 picture, 1 was there already",
        "Changed the order of the classes",
        "Added 2 pictures to Ash",
        "Added 2 pictures to Oak",
        "Added Oak, Ash and Elm",
    ];
    assert_eq!(undoable(&store, id).await, sentences);
    assert_eq!(overview(&store, id).await, counted(&views[0]));
    for (view, sentence) in views[1..].iter().zip(sentences) {
        let undone = store.undo_classifier(id, None, BY).await.expect("undo");
        let said = undone.change.expect("a change").change.to_string();
        let (first, rest) = sentence.split_at(1);
        assert_eq!(said, format!("Undid: {}{rest}", first.to_lowercase()));
        assert_eq!(overview(&store, id).await, counted(view), "{sentence}");
    }
    let read = store.classifier(id).await.expect("read");
    assert_eq!((read.name.as_str(), read.revision), ("Trees", 17));
    assert_eq!(read.adapter, AdapterChoice::Auto);
    assert!(matches!(
        store.undo_classifier(id, None, BY).await,
        Err(ClassifierError::NothingToUndo)
    ));
    for view in views[..8].iter().rev() {
        store.redo_classifier(id, None, BY).await.expect("redo");
        assert_eq!(overview(&store, id).await, counted(view));
    }
    let read = store.classifier(id).await.expect("read");
    assert_eq!(
        (read.name.as_str(), read.adapter),
        ("Leaves", AdapterChoice::Default)
    );
    assert!(matches!(
        store.redo_classifier(id, None, BY).await,
        Err(ClassifierError::NothingToRedo)
    ));
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
    for number in 1..MOST_UNDO {
        let name = format!("Oak {number}");
        store
            .rename_class(id, None, oak, &name, BY)
            .await
            .expect("rename");
        assert_eq!(store.gc().await.expect("gc").blobs, 0);
    }
    assert_eq!(files_on_disk(folder.path()).len(), 4);
    assert_eq!(undoable(&store, id).await.len(), MOST_UNDO as usize);
    store
        .rename_class(id, None, oak, "Oak", BY)
        .await
        .expect("rename");
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(undoable(&store, id).await.len(), MOST_UNDO as usize);
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
async fn a_change_that_names_something_unknown_is_refused_whole() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let mut stranger = new_classifier("Trees", Privacy::Pictures);
    stranger.backbone_digest = Digest::of(b"unknown");
    assert!(matches!(
        store.create_classifier(&stranger, BY).await,
        Err(ClassifierError::Store(StoreError::UnknownBackbone { .. }))
    ));
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let other = create(&store, "Others", Privacy::Pictures).await.id;
    let oak = add_classes(&store, id, &["Oak"]).await[0].id;
    let foreign = add_classes(&store, other, &["Oak"]).await[0].id;
    let picture = add(&store, id, oak, &[1]).await[0];
    let before = overview(&store, id).await;
    let foreign_picture = add(&store, other, foreign, &[1]).await[0];
    for refusal in [
        store.move_pictures(id, None, &[picture], foreign, BY).await,
        store.delete_class(id, None, foreign, BY).await,
        store.merge_class(id, None, oak, foreign, BY).await,
        store.rename_class(id, None, foreign, "Elm", BY).await,
        store.reorder_classes(id, None, &[oak, foreign], BY).await,
    ] {
        assert!(matches!(refusal, Err(ClassifierError::UnknownClass(class)) if class == foreign));
    }
    let both = [picture, foreign_picture];
    for refusal in [
        store.move_pictures(id, None, &both, oak, BY).await,
        store.delete_pictures(id, None, &both, BY).await,
    ] {
        assert!(
            matches!(refusal, Err(ClassifierError::UnknownPicture(id)) if id == foreign_picture)
        );
    }
    let new = vec![new_picture(oak, 2), new_picture(foreign, 3)];
    let refusal = store.add_pictures(id, None, new, BY).await;
    assert!(matches!(refusal, Err(ClassifierError::UnknownClass(_))));
    assert_eq!(
        refused(store.merge_class(id, None, oak, oak, BY).await),
        "a class cannot be merged into itself"
    );
    assert_eq!(
        refused(store.reorder_classes(id, None, &[], BY).await),
        "an order names each class once: some are missing"
    );
    assert_eq!(
        refused(store.reorder_classes(id, None, &[oak, oak], BY).await),
        "an order names each class once: one is there twice"
    );
    assert_eq!(overview(&store, id).await, before);
    assert_eq!(
        files_on_disk(folder.path()).len(),
        2,
        "one picture with its thumbnail"
    );
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

#[tokio::test]
async fn a_classifier_or_class_with_a_given_id_is_made_once() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let mut new = new_classifier("Trees", Privacy::Pictures);
    new.id = Some(Uuid::now_v7());
    let first = store.create_classifier(&new, BY).await.expect("create");
    let second = store.create_classifier(&new, BY).await.expect("again");
    assert_eq!(first, second);
    let all = store.list_classifiers(&ClassifierFilter::default()).await;
    assert_eq!(all.expect("list").len(), 1);
}
