//! A change is one transaction: what fails within it leaves no trace.

use crate::{
    Access, AdapterChoice, ClassifierPatch, Digest, NewClass, NewClassifier, NewPicture, Privacy,
    Store,
};
use sqlx::{AssertSqlSafe, Row};
use std::path::Path;
use uuid::Uuid;

fn class(name: &str) -> NewClass {
    NewClass {
        id: None,
        name: name.to_owned(),
    }
}

fn picture(class: Uuid, content: u8) -> NewPicture {
    NewPicture {
        class,
        name: "picture".to_owned(),
        media_type: "image/png".to_owned(),
        width: 1,
        height: 1,
        original: vec![content; 9],
        thumbnail: vec![content; 3],
        features: Vec::new(),
    }
}

/// All rows of all tables as text, and all files.
async fn everything(store: &Store, folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            .fetch_all(store.inner.database.readers())
            .await
            .expect("tables");
    for table in tables {
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT 'quote(' || name || ')' FROM pragma_table_info(?)")
                .bind(&table)
                .fetch_all(store.inner.database.readers())
                .await
                .expect("columns");
        let sql = format!(
            "SELECT concat_ws(',', {}) AS line FROM {table} ORDER BY line",
            columns.join(", ")
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(store.inner.database.readers())
            .await
            .expect("rows");
        all.extend(
            rows.iter()
                .map(|row| format!("{table} {}", row.get::<String, _>("line"))),
        );
    }
    let sizes = crate::blobs::Blobs::new(folder.join("blobs")).sizes_bytes();
    let mut files: Vec<_> = sizes.expect("files").into_iter().collect();
    files.sort();
    all.extend(files.iter().map(|file| format!("{file:?}")));
    all
}

#[tokio::test]
async fn a_change_that_fails_at_any_of_its_writes_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(folder.path(), Access::Exclusive)
        .await
        .expect("open");
    let backbone = Digest::of(b"backbone");
    let name = "tiny".parse().expect("name");
    store.add_backbone(&name, &backbone, "").await.expect("add");
    let new = NewClassifier {
        id: None,
        name: "Trees".to_owned(),
        backbone_digest: backbone,
        adapter: AdapterChoice::Auto,
        head: serde_json::json!({}),
        privacy: Privacy::Pictures,
    };
    let id = store
        .create_classifier(&new, "test")
        .await
        .expect("create")
        .id;
    let added = store
        .add_classes(id, None, &[class("Oak"), class("Ash")], "test")
        .await;
    let classes = added.expect("classes").classes;
    let (oak, ash) = (classes[0].id, classes[1].id);
    let new = vec![picture(oak, 1), picture(oak, 2), picture(ash, 2)];
    let added = store
        .add_pictures(id, None, new, "test")
        .await
        .expect("add");
    let pictures: Vec<Uuid> = added.pictures.iter().map(|one| one.id).collect();
    // Undone, so that it can be redone, and the next change deletes its picture for good.
    let undone = vec![picture(oak, 4)];
    store
        .add_pictures(id, None, undone, "test")
        .await
        .expect("add");
    store.undo_classifier(id, None, "test").await.expect("undo");
    let before = everything(&store, folder.path()).await;
    let writer = store.inner.database.writer().expect("writer");
    // The first two are writes of every change. The third is the last write of every change but undoing and redoing.
    for (place, replays) in [
        ("INSERT ON classifier_changes", true),
        ("UPDATE OF revision ON classifiers", true),
        ("DELETE ON classifier_pictures", false),
    ] {
        let sql = format!(
            "CREATE TRIGGER planted AFTER {place} BEGIN SELECT raise(ABORT, 'planted'); END"
        );
        sqlx::query(AssertSqlSafe(sql))
            .execute(writer)
            .await
            .expect(place);
        let patch = ClassifierPatch {
            name: Some("Leaves".to_owned()),
            ..ClassifierPatch::default()
        };
        let new = vec![picture(ash, 3)];
        let mut refused = vec![
            store.update_classifier(id, None, patch, "test").await.err(),
            store
                .add_classes(id, None, &[class("Elm")], "test")
                .await
                .err(),
            store.rename_class(id, None, oak, "Elm", "test").await.err(),
            store
                .reorder_classes(id, None, &[ash, oak], "test")
                .await
                .err(),
            store.merge_class(id, None, oak, ash, "test").await.err(),
            store.delete_class(id, None, oak, "test").await.err(),
            store.add_pictures(id, None, new, "test").await.err(),
            store
                .move_pictures(id, None, &pictures, ash, "test")
                .await
                .err(),
            store
                .delete_pictures(id, None, &pictures, "test")
                .await
                .err(),
        ];
        if replays {
            refused.push(store.undo_classifier(id, None, "test").await.err());
            refused.push(store.redo_classifier(id, None, "test").await.err());
        } else {
            refused.push(store.delete_classifier(id, None).await.err());
        }
        for (number, error) in refused.into_iter().enumerate() {
            let sentence = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(
                sentence.contains("planted"),
                "{place}, change {number}: {sentence}"
            );
        }
        sqlx::query("DROP TRIGGER planted")
            .execute(writer)
            .await
            .expect(place);
        assert_eq!(everything(&store, folder.path()).await, before, "{place}");
    }
}
