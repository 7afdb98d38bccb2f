//! Requests that come twice act once.

use std::time::Duration;
use store::{Digest, Once, Store};
use test_support::store::open;
use uuid::Uuid;

const ROUTE: &str = "POST /api/v1/classifiers";
const HOUR: Duration = Duration::from_secs(3600);

async fn begin(store: &Store, key: &str, request: &[u8]) -> Once {
    let request = Digest::of(request);
    let begun = store.begin_once(ROUTE, key, &request, HOUR).await;
    begun.expect("begin")
}

fn made(once: Once) -> Uuid {
    match once {
        Once::Act { made } => made,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_acts_once_and_is_answered_again_as_it_was() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = made(begin(&store, "key", b"Trees").await);
    assert_eq!(begin(&store, "key", b"Trees").await, Once::InProgress);
    assert_eq!(begin(&store, "key", b"Birds").await, Once::OtherRequest);
    store
        .answer_once(ROUTE, "key", 201, "made")
        .await
        .expect("answer");
    store
        .drop_once(ROUTE, "key")
        .await
        .expect("an answer stays");
    store.close().await;
    let store = open(folder.path()).await;
    let answered = Once::Answered {
        made: id,
        status: 201,
        body: Some("made".to_owned()),
    };
    assert_eq!(begin(&store, "key", b"Trees").await, answered);
    assert_eq!(begin(&store, "key", b"Birds").await, Once::OtherRequest);
    // On another route, or under another key, it is another request.
    made(begin(&store, "key 2", b"Trees").await);
    let elsewhere = store
        .begin_once("POST /other", "key", &Digest::of(b"Trees"), HOUR)
        .await;
    assert_ne!(made(elsewhere.expect("begin")), id);
}

#[tokio::test]
async fn what_a_dead_process_left_unanswered_is_made_under_the_same_id() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let id = made(begin(&store, "key", b"Trees").await);
    store.close().await;
    let store = open(folder.path()).await;
    assert_eq!(made(begin(&store, "key", b"Trees").await), id);
    assert_eq!(begin(&store, "key", b"Trees").await, Once::InProgress);
    store.drop_once(ROUTE, "key").await.expect("drop");
    assert_ne!(made(begin(&store, "key", b"Birds").await), id);
}

#[tokio::test]
async fn answers_expire_and_long_ones_are_not_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let request = Digest::of(b"x");
    let gone = store
        .begin_once(ROUTE, "gone", &request, Duration::ZERO)
        .await;
    let gone = made(gone.expect("begin"));
    assert_ne!(made(begin(&store, "gone", b"y").await), gone);
    let id = made(begin(&store, "long", b"x").await);
    let body = "x".repeat((64 << 10) + 1);
    store
        .answer_once(ROUTE, "long", 200, &body)
        .await
        .expect("answer");
    let answered = Once::Answered {
        made: id,
        status: 200,
        body: None,
    };
    assert_eq!(begin(&store, "long", b"x").await, answered);
}
