//! Batches: rows come in chunks, are filtered and counted, survive a restart and go with their files.

use crate::classifier_fixtures::{BY, add, add_classes, create, original, refused, thumbnail};
use std::path::PathBuf;
use store::{
    BatchFilter, BatchLabel, BatchStatus, ClassCount, ClassifierError, MOST_BATCH_PICTURES,
    NewBatch, NewBatchRow, Privacy, RowClass, Store, Verdict,
};
use test_support::store::{files_on_disk, open};
use uuid::Uuid;

fn new_batch(classifier: Uuid, pictures: u32) -> NewBatch {
    NewBatch {
        id: None,
        classifier,
        job: Uuid::now_v7(),
        name: "holiday".to_owned(),
        pictures,
    }
}

fn sorted(position: u32, class: (Uuid, &str), confidence: f64, rejected: bool) -> NewBatchRow {
    let content = u8::try_from(position).expect("small");
    let label = |class: Uuid, name: &str, probability| BatchLabel {
        class,
        name: name.to_owned(),
        probability,
    };
    NewBatchRow {
        position,
        name: format!("picture {position}.png"),
        original: Some(original(content)),
        thumbnail: Some(thumbnail(content)),
        verdict: Verdict::Sorted {
            best: label(class.0, class.1, confidence),
            others: vec![label(Uuid::nil(), "other", 1.0 - confidence)],
            confidence,
            novelty: Some(0.25),
            rejected,
        },
    }
}

fn unusable(position: u32) -> NewBatchRow {
    NewBatchRow {
        position,
        name: "notes.txt".to_owned(),
        original: None,
        thumbnail: None,
        verdict: Verdict::Unusable(serde_json::json!({"code": "not_a_picture"})),
    }
}

async fn positions(store: &Store, batch: Uuid, filter: BatchFilter) -> Vec<u32> {
    let rows = store.batch_rows(batch, &filter).await.expect("rows");
    rows.into_iter().map(|row| row.position).collect()
}

#[tokio::test]
async fn rows_are_listed_filtered_and_counted_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let classes = add_classes(&store, id, &["Oak", "Ash"]).await;
    let (oak, ash) = ((classes[0].id, "Oak"), (classes[1].id, "Ash"));
    let new = new_batch(id, 8);
    let batch = store.create_batch(&new, BY).await.expect("create").id;
    let first = vec![
        sorted(0, oak, 0.95, false),
        sorted(1, ash, 0.5, false),
        unusable(2),
    ];
    store.add_batch_rows(batch, first).await.expect("rows");
    store.close().await;

    let store = open(folder.path()).await;
    assert_eq!(store.freed_at_start().blobs, 0);
    assert_eq!(store.batch_positions(batch).await.expect("done"), [0, 1, 2]);
    let rest = vec![
        sorted(7, oak, 0.1, true),
        sorted(4, oak, 1.0, false),
        sorted(5, ash, 0.0, false),
    ];
    store.add_batch_rows(batch, rest).await.expect("rows");
    let record = store.batch(batch).await.expect("batch");
    assert_eq!((record.done, record.pictures, record.job), (6, 8, new.job));

    let rows = store.batch_rows(batch, &BatchFilter::default()).await;
    let rows = rows.expect("rows");
    assert_eq!(
        rows.iter().map(|row| row.position).collect::<Vec<_>>(),
        [0, 1, 2, 4, 5, 7]
    );
    let (best, fault) = (&rows[0], &rows[2]);
    assert_eq!(
        (best.labels[0].name.as_str(), best.labels.len()),
        ("Oak", 2)
    );
    assert_eq!((best.confidence, best.novelty), (Some(0.95), Some(0.25)));
    assert_eq!(
        (best.status, fault.status),
        (BatchStatus::Sorted, BatchStatus::Unusable)
    );
    assert_eq!(
        fault.fault,
        Some(serde_json::json!({"code": "not_a_picture"}))
    );
    assert_eq!((fault.labels.len(), fault.confidence), (0, None));
    assert_eq!(
        store.read_batch_picture(best).await.expect("bytes"),
        original(0)
    );
    let small = best.thumbnail.as_ref().expect("thumbnail");
    assert_eq!(
        store.read_thumbnail(small).await.expect("bytes"),
        thumbnail(0)
    );
    assert!(matches!(
        store.read_batch_picture(fault).await,
        Err(ClassifierError::OriginalNotKept(name)) if name == "notes.txt"
    ));

    let all = BatchFilter::default;
    let class = |class| BatchFilter {
        class: Some(class),
        ..all()
    };
    assert_eq!(
        positions(&store, batch, class(RowClass::Class(oak.0))).await,
        [0, 4]
    );
    assert_eq!(
        positions(&store, batch, class(RowClass::NoneOfThese)).await,
        [7]
    );
    assert_eq!(
        positions(&store, batch, class(RowClass::Unusable)).await,
        [2]
    );
    let between = BatchFilter {
        least_confidence: Some(0.1),
        below_confidence: Some(0.95),
        ..all()
    };
    assert_eq!(positions(&store, batch, between).await, [1, 7]);
    let page = BatchFilter {
        after: Some(1),
        limit: Some(2),
        ..all()
    };
    assert_eq!(positions(&store, batch, page).await, [2, 4]);

    let summary = store.batch_summary(batch, 4).await.expect("summary");
    assert_eq!(summary.histogram, [2, 0, 1, 2]);
    let count = |class, name: &str, pictures| ClassCount {
        class,
        name: name.to_owned(),
        pictures,
    };
    assert_eq!(summary.classes[0], count(RowClass::Class(oak.0), "Oak", 2));
    assert_eq!(summary.classes.len(), 4);
    for expected in [
        count(RowClass::Class(ash.0), "Ash", 2),
        count(RowClass::NoneOfThese, "", 1),
        count(RowClass::Unusable, "", 1),
    ] {
        assert!(summary.classes.contains(&expected), "{expected:?}");
    }
}

#[tokio::test]
async fn a_row_that_comes_again_takes_the_place_of_the_first() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let batch = store.create_batch(&new_batch(id, 300), BY).await;
    let batch = batch.expect("create").id;
    let oak = (Uuid::now_v7(), "Oak");
    let row = |content, confidence| NewBatchRow {
        position: 9,
        ..sorted(content, oak, confidence, false)
    };
    store
        .add_batch_rows(batch, vec![row(1, 0.5)])
        .await
        .expect("row");
    store
        .add_batch_rows(batch, vec![row(1, 0.7)])
        .await
        .expect("same picture");
    assert_eq!(files_on_disk(folder.path()).len(), 2);
    store
        .add_batch_rows(batch, vec![row(2, 0.9)])
        .await
        .expect("another");
    assert_eq!(
        files_on_disk(folder.path()).len(),
        2,
        "those of the first are gone"
    );
    let rows = store
        .batch_rows(batch, &BatchFilter::default())
        .await
        .expect("rows");
    assert_eq!((rows.len(), rows[0].confidence), (1, Some(0.9)));
}

#[tokio::test]
async fn a_chunk_with_a_wrong_row_adds_nothing_and_leaves_no_file() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    for wrong in [0, MOST_BATCH_PICTURES + 1] {
        assert_eq!(
            refused(store.create_batch(&new_batch(id, wrong), BY).await),
            format!(
                "a batch has at most 10000 pictures and at least one; this one would have {wrong}"
            )
        );
    }
    let batch = store
        .create_batch(&new_batch(id, 2), BY)
        .await
        .expect("create")
        .id;
    let oak = (Uuid::now_v7(), "Oak");
    let chunk = vec![sorted(0, oak, 0.5, false), sorted(2, oak, 0.5, false)];
    assert_eq!(
        refused(store.add_batch_rows(batch, chunk).await),
        "this batch has 2 pictures, so there is no position 2"
    );
    assert_eq!(store.batch(batch).await.expect("batch").done, 0);
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
    let nobody = Uuid::now_v7();
    let lost = store
        .add_batch_rows(nobody, vec![sorted(0, oak, 0.5, false)])
        .await;
    assert!(matches!(lost, Err(ClassifierError::UnknownBatch(id)) if id == nobody));
    let lost = store.create_batch(&new_batch(nobody, 1), BY).await;
    assert!(matches!(lost, Err(ClassifierError::UnknownClassifier(_))));
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_batch_goes_with_the_files_that_nobody_else_uses() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = create(&store, "Trees", Privacy::Pictures).await.id;
    let oak = add_classes(&store, id, &["Oak"]).await[0].id;
    add(&store, id, oak, &[1]).await;
    let mut batches = Vec::new();
    for _ in 0..2 {
        let batch = store
            .create_batch(&new_batch(id, 3), BY)
            .await
            .expect("create")
            .id;
        let rows = vec![
            sorted(1, (oak, "Oak"), 0.5, false),
            sorted(2, (oak, "Oak"), 0.5, false),
        ];
        store.add_batch_rows(batch, rows).await.expect("rows");
        batches.push(batch);
    }
    assert_eq!(
        store.classifier_use(id).await.expect("use").batches_bytes,
        2 * 223
    );
    let listed = store.list_batches(id, None, 9).await.expect("list");
    assert_eq!(
        listed.iter().map(|one| one.id).collect::<Vec<_>>(),
        [batches[1], batches[0]]
    );
    let older = store
        .list_batches(id, Some(batches[1]), 9)
        .await
        .expect("list");
    assert_eq!(older.len(), 1);
    assert_eq!(
        store.delete_batch(batches[0]).await.expect("delete").blobs,
        0
    );
    assert_eq!(
        store.delete_batch(batches[1]).await.expect("delete").blobs,
        2
    );
    assert!(matches!(
        store.delete_batch(batches[1]).await,
        Err(ClassifierError::UnknownBatch(_))
    ));
    // With its classifier, too; and by its id it is made once.
    let mut new = new_batch(id, 3);
    new.id = Some(Uuid::now_v7());
    let batch = store.create_batch(&new, BY).await.expect("create");
    store
        .add_batch_rows(batch.id, vec![sorted(2, (oak, "Oak"), 0.5, false)])
        .await
        .expect("row");
    let again = store.create_batch(&new, BY).await.expect("again");
    assert_eq!((again.id, again.done), (batch.id, 1));
    assert_eq!(
        store
            .delete_classifier(id, None)
            .await
            .expect("delete")
            .blobs,
        4
    );
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
}
