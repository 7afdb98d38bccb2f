//! Classifiers: what each change does, says and refuses, and what is kept on disk.

use crate::classifier_fixtures::{
    BY, add, add_classes, counted, create, new_classes, new_classifier, new_picture, overview,
    refused, undoable,
};
use store::{
    AdapterChoice, ClassifierError, ClassifierFilter, ClassifierPatch, Digest, NewClass, Privacy,
    StoreError,
};
use test_support::store::{files_on_disk, open};
use uuid::Uuid;

fn patch(name: &str) -> ClassifierPatch {
    ClassifierPatch {
        name: Some(name.to_owned()),
        ..ClassifierPatch::default()
    }
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
