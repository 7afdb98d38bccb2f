//! When a job began and how long it has worked, over all of its runs.

use std::path::Path;
use std::time::Duration;
use store::{Claim, Digest, Finish, JobFault, JobKinds, JobRecord, NewJob, Progress, Store};
use test_support::store::open_alone;
use uuid::Uuid;

const OWNER: &str = "test";
/// Far more than the time between two steps of a test.
const PAUSE: Duration = Duration::from_millis(1500);

async fn submitted(folder: &Path) -> (Store, Uuid) {
    let store = open_alone(folder).await;
    let new = NewJob {
        kind: "test".to_owned(),
        title: "test".to_owned(),
        recipe: serde_json::json!({}),
        deduplication_key: Digest::of(b"work"),
        priority: 0,
        most_attempts: 3,
        waits_for: Vec::new(),
        inputs: Vec::new(),
    };
    let id = store.submit_job(new).await.expect("submit").job.id;
    (store, id)
}

async fn claimed(store: &Store) -> JobRecord {
    let claim = Claim {
        owner: OWNER,
        lease: Duration::from_secs(60),
        only: None,
        kinds: JobKinds::All,
    };
    store.claim_job(claim).await.expect("claim").expect("a job")
}

async fn told(store: &Store, id: Uuid) {
    let progress = Progress {
        phase: "testing".to_owned(),
        step: 1,
        total: 2,
        rate_per_second: None,
        eta_seconds: None,
        figures: [].into(),
    };
    store.add_job_progress(id, &progress).await.expect("tell");
}

async fn finished(store: &Store, id: Uuid, finish: Finish) -> JobRecord {
    let finished = store.finish_job(id, OWNER, finish).await;
    finished.expect("finish").expect("held")
}

#[tokio::test]
async fn after_a_death_the_first_begin_stands_and_only_work_that_was_told_counts() {
    let folder = tempfile::tempdir().expect("folder");
    let (store, id) = submitted(folder.path()).await;
    let first = claimed(&store).await;
    let begun_ms = first.started_ms.expect("begun");
    tokio::time::sleep(PAUSE).await;
    told(&store, id).await;
    let worked_ms = store.job(id).await.expect("job").worked_ms;
    assert!(worked_ms >= 1500, "{worked_ms}");
    // As after kill -9: nothing says that the run has ended. What comes before the next start is not work.
    store.close().await;
    tokio::time::sleep(PAUSE).await;
    let store = open_alone(folder.path()).await;
    assert_eq!(store.job(id).await.expect("job").worked_ms, worked_ms);
    let second = claimed(&store).await;
    assert_eq!(second.started_ms, Some(begun_ms));
    assert_eq!(second.worked_ms, worked_ms);
    tokio::time::sleep(PAUSE).await;
    let done = finished(&store, id, Finish::Succeeded(serde_json::json!({}))).await;
    assert_eq!(done.started_ms, Some(begun_ms));
    assert!(done.worked_ms >= worked_ms + 1500, "{done:?}");
    let whole_ms = done.finished_ms.expect("end") - begun_ms;
    assert!(done.worked_ms <= whole_ms - 1500, "{done:?}");
}

#[tokio::test]
async fn work_counts_when_a_lease_is_renewed_and_when_a_run_ends_however_it_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let (store, id) = submitted(folder.path()).await;
    let begun_ms = claimed(&store).await.started_ms;
    tokio::time::sleep(PAUSE).await;
    let lease = Duration::from_secs(60);
    assert!(store.renew_lease(id, OWNER, lease).await.expect("renew"));
    let renewed_ms = store.job(id).await.expect("job").worked_ms;
    assert!(renewed_ms >= 1500, "{renewed_ms}");
    let fault = JobFault {
        code: "test".to_owned(),
        message: "test".to_owned(),
        hint: None,
    };
    let mut before_ms = renewed_ms;
    for finish in [
        Finish::PutBack,
        Finish::Retry(fault.clone(), Duration::ZERO),
        Finish::Failed(fault),
    ] {
        tokio::time::sleep(PAUSE).await;
        let ended = finished(&store, id, finish.clone()).await;
        assert!(ended.worked_ms >= before_ms + 1500, "{finish:?}: {ended:?}");
        assert_eq!(ended.started_ms, begun_ms);
        before_ms = ended.worked_ms;
        if !ended.state.is_final() {
            claimed(&store).await;
        }
    }
    // Tried again by somebody, it resumes from what there is.
    store.retry_job(id).await.expect("retry");
    let again = claimed(&store).await;
    assert_eq!((again.started_ms, again.worked_ms), (begun_ms, before_ms));
}
