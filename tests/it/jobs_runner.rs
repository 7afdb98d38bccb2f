//! The runner, stepped one job at a time, with gates in place of sleeps.

use crate::jobs_support::{
    Count, CountAside, End, count, hold, open_jobs, open_jobs_with, options, planned, pool_of,
    step, submit, wait_for,
};
use lora_recycle::jobs::{Jobs, Planned, RunnerOptions};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{
    Access, Claim, EventKind, Finish, JobEvent, JobFault, JobKinds, JobState, NewInput, NewJob,
    Store, StoreError,
};
use tempfile::TempDir;
use test_support::store::SmallDisk;
use test_support::store::files_on_disk;
use uuid::Uuid;

async fn fresh() -> (TempDir, Jobs) {
    let folder = tempfile::tempdir().expect("folder");
    let jobs = open_jobs(folder.path()).await;
    (folder, jobs)
}

async fn events(jobs: &Jobs, id: Uuid) -> Vec<JobEvent> {
    jobs.store().job_events(id, 0, 1000).await.expect("events")
}

fn states(events: &[JobEvent]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event.kind == EventKind::State)
        .map(|event| event.data["state"].as_str().expect("state"))
        .collect()
}

fn logs(events: &[JobEvent]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event.kind == EventKind::Log)
        .map(|event| event.data["message"].as_str().expect("message"))
        .collect()
}

fn checkpoint(folder: &Path, id: Uuid) -> PathBuf {
    folder.join("jobs").join(id.to_string()).join("checkpoint")
}

async fn close(jobs: Jobs) {
    jobs.store().clone().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_to_its_end_and_tells_states_progress_and_result() {
    let (folder, jobs) = fresh().await;
    let id = submit(&jobs, count("runs", 10)).await.id;
    let job = step(&jobs).await;
    assert_eq!((job.id, job.state), (id, JobState::Succeeded));
    assert_eq!(job.result.as_ref().expect("result")["sum"], 55);
    assert_eq!((job.attempts, &job.error), (1, &None));
    assert!(job.started_ms >= Some(job.created_ms) && job.finished_ms >= job.started_ms);
    let told = events(&jobs, id).await;
    assert_eq!(states(&told), ["queued", "running", "succeeded"]);
    let steps: Vec<u64> = told
        .iter()
        .filter(|event| event.kind == EventKind::Progress)
        .map(|event| event.data["step"].as_u64().expect("step"))
        .collect();
    assert_eq!((steps.first(), steps.last()), (Some(&1), Some(&10)));
    assert!(told.windows(2).all(|pair| pair[0].number < pair[1].number));
    assert!(told.last().is_some_and(JobEvent::is_final));
    assert!(!folder.path().join("jobs").join(id.to_string()).exists());
    assert_eq!(jobs.step(None).await.expect("step"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_work_is_done_once_until_its_result_is_gone() {
    let (_folder, jobs) = fresh().await;
    let with_pool = Count {
        end: End::WithPool,
        ..count("once", 2)
    };
    let first = submit(&jobs, with_pool.clone()).await;
    let again = async || {
        jobs.submit(planned(with_pool.clone()))
            .await
            .expect("submit")
    };
    let queued = again().await;
    assert_eq!((queued.job.id, queued.is_new), (first.id, false));
    let done = step(&jobs).await;
    assert_eq!(again().await.job, done);
    let pool = jobs
        .store()
        .list_pools(None)
        .await
        .expect("pools")
        .remove(0);
    assert_eq!(done.result, Some(json!({"pool": pool.id})));
    jobs.store().delete_pool(pool.id).await.expect("delete");
    let second = again().await;
    assert!(second.is_new && second.job.id != first.id);
    // Other inputs are other work.
    let mut other = planned(count("once", 2));
    let without = jobs.submit(other.clone()).await.expect("submit").job;
    other.inputs = vec![NewInput {
        role: "picture".into(),
        name: "a".into(),
        bytes: vec![1],
    }];
    let with = jobs.submit(other).await.expect("submit");
    assert!(with.is_new && with.job.id != without.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_of_error_decides_whether_a_job_is_tried_again() {
    let (_folder, jobs) = fresh().await;
    for (end, attempts, code) in [
        (End::Aborts, 1, "numbers"),
        (End::Fails, 3, "bad_luck"),
        (End::Panics, 3, "panicked"),
        (End::TriesAgainAtOnce, 3, "not_yet"),
    ] {
        let job = Count {
            end,
            ..count("errors", 1)
        };
        let id = submit(&jobs, job.clone()).await.id;
        for attempt in 1..attempts {
            let job = step(&jobs).await;
            assert_eq!(
                (job.state, job.attempts),
                (JobState::Queued, attempt),
                "{end:?}"
            );
            assert!(job.retry_at_ms.is_some(), "{end:?}");
        }
        let failed = step(&jobs).await;
        assert_eq!(
            (failed.state, failed.attempts),
            (JobState::Failed, attempts),
            "{end:?}"
        );
        let error = failed.error.expect("error");
        assert_eq!(error.code, code);
        assert!(end != End::Panics || error.message.contains("a defect of the test"));
        assert_eq!(logs(&events(&jobs, id).await).len() as u32, attempts);
        // It can be asked for again, and tried again while nobody does.
        let retried = jobs.retry(id).await.expect("retry");
        assert_eq!((retried.state, retried.attempts), (JobState::Queued, 0));
        jobs.cancel(id).await.expect("cancel");
        submit(&jobs, job).await;
        let replaced = jobs.retry(id).await.expect_err("replaced");
        assert!(matches!(replaced, StoreError::JobReplaced(_)), "{replaced}");
        for _ in 0..attempts {
            step(&jobs).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_put_off_for_longer_and_longer() {
    let folder = tempfile::tempdir().expect("folder");
    let jobs = open_jobs_with(
        folder.path(),
        RunnerOptions {
            retry_delay: Duration::from_secs(100),
            ..options()
        },
    )
    .await;
    let job = Count {
        end: End::Fails,
        ..count("delays", 1)
    };
    submit(&jobs, job).await;
    let queued = step(&jobs).await;
    let delay_ms = queued.retry_at_ms.expect("a time") - queued.started_ms.expect("a time");
    assert!((100_000..110_000).contains(&delay_ms), "{delay_ms}");
    assert_eq!(jobs.step(None).await.expect("step"), None);
    assert_eq!(
        jobs.store().next_retry_ms().await.expect("time"),
        queued.retry_at_ms
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job_is_cancelled_at_once_and_its_pictures_go() {
    let (folder, jobs) = fresh().await;
    let mut with_input = planned(count("queued", 3));
    with_input.inputs = vec![NewInput {
        role: "picture".into(),
        name: "cat/1.png".into(),
        bytes: b"a private picture".to_vec(),
    }];
    let id = jobs.submit(with_input).await.expect("submit").job.id;
    let input = jobs.store().job_inputs(id).await.expect("inputs").remove(0);
    assert_eq!((input.name.as_str(), input.size_bytes), ("cat/1.png", 17));
    assert_eq!(jobs.store().gc().await.expect("gc").blobs, 0);
    assert_eq!(files_on_disk(folder.path()).len(), 1);
    let job = jobs.cancel(id).await.expect("cancel");
    assert_eq!(job.state, JobState::Cancelled);
    assert!(files_on_disk(folder.path()).is_empty());
    assert_eq!(jobs.step(None).await.expect("step"), None);
    let again = jobs.cancel(id).await.expect_err("cancelled already");
    assert!(again.to_string().contains("it is cancelled"), "{again}");
    let retry = jobs.retry(id).await.expect_err("without pictures");
    assert!(matches!(retry, StoreError::JobInputsGone(_)), "{retry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_uses_its_pictures_and_they_go_when_it_has_succeeded_but_not_when_it_failed() {
    let (folder, jobs) = fresh().await;
    for (end, left) in [(End::Well, 0), (End::Aborts, 1)] {
        let mut with_input = planned(Count {
            end,
            ..count("pictures", 1)
        });
        with_input.inputs = vec![NewInput {
            role: "picture".into(),
            name: "cat/1.png".into(),
            bytes: vec![1; 100],
        }];
        let id = jobs.submit(with_input).await.expect("submit").job.id;
        let job = step(&jobs).await;
        assert_eq!(files_on_disk(folder.path()).len(), left, "{end:?}");
        match end {
            End::Well => assert_eq!(job.result.expect("result")["input_bytes"], 100),
            _ => {
                // Whoever gives up on it has the pictures removed.
                assert_eq!(
                    jobs.cancel(id).await.expect("cancel").state,
                    JobState::Cancelled
                );
                assert!(files_on_disk(folder.path()).is_empty());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_cancelled_within_two_seconds_and_leaves_nothing() {
    let (folder, jobs) = fresh().await;
    let held = hold("cancelled");
    let id = submit(&jobs, count("cancelled", 1_000_000)).await.id;
    let runner = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.run_only(&[id]).await }
    });
    assert_eq!(held.arrival().await, 1);
    jobs.store()
        .save_checkpoint(id, b"0123456789abcdef")
        .expect("checkpoint");
    // Within a step that takes long the answer comes all the same.
    let asked = Instant::now();
    let job = jobs.cancel(id).await.expect("cancel");
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert_eq!((job.state, job.cancel_requested), (JobState::Running, true));
    let let_on = Instant::now();
    held.let_on();
    let job = wait_for(&jobs, id, JobState::Cancelled).await;
    assert!(let_on.elapsed() < Duration::from_secs(2));
    assert_eq!((job.result, job.error), (None, None));
    assert!(held.arrivals.try_recv().is_err(), "no step came after it");
    runner.await.expect("runner");
    assert!(!checkpoint(folder.path(), id).exists());
}

/// Runs `to` steps without a break.
async fn unbroken(to: u64) -> Option<Value> {
    let (_folder, jobs) = fresh().await;
    submit(&jobs, count("unbroken", to)).await;
    step(&jobs).await.result
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_makes_a_checkpoint_and_the_next_process_goes_on_from_there() {
    let (folder, jobs) = fresh().await;
    let held = hold("stopped");
    let id = submit(&jobs, count("stopped", 7)).await.id;
    let runner = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.run().await }
    });
    for number in 1..=3 {
        assert_eq!(held.arrival().await, number);
        if number == 3 {
            jobs.stop();
        }
        held.let_on();
    }
    runner.await.expect("runner");
    let job = jobs.store().job(id).await.expect("job");
    assert_eq!(
        (job.state, job.attempts, job.error),
        (JobState::Queued, 0, None)
    );
    assert!(checkpoint(folder.path(), id).is_file());
    close(jobs).await;

    let jobs = open_jobs(folder.path()).await;
    let runner = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.run_only(&[id]).await }
    });
    for number in 4..=7 {
        assert_eq!(held.arrival().await, number);
        held.let_on();
    }
    runner.await.expect("runner");
    let job = jobs.store().job(id).await.expect("job");
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(job.result, unbroken(7).await);
    assert_eq!(logs(&events(&jobs, id).await), ["goes on after 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_only_waits_for_the_encoder_runs_beside_one_that_computes() {
    let (_folder, jobs) = fresh().await;
    let held = hold("long");
    let long = submit(&jobs, count("long", 2)).await.id;
    let next = submit(&jobs, count("next", 2)).await.id;
    let runner = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.run().await }
    });
    assert_eq!(held.arrival().await, 1);
    let Planned { inputs, .. } = planned(count("aside", 2));
    let aside = jobs.submit(Planned {
        job: CountAside(count("aside", 2)),
        inputs,
        waits_for: Vec::new(),
    });
    let aside = aside.await.expect("submit").job.id;
    wait_for(&jobs, aside, JobState::Succeeded).await;
    let state = async |id| jobs.store().job(id).await.expect("job").state;
    assert_eq!(state(long).await, JobState::Running);
    assert_eq!(state(next).await, JobState::Queued);
    drop(held);
    wait_for(&jobs, next, JobState::Succeeded).await;
    jobs.stop();
    runner.await.expect("runner");
}

/// Takes the next job as a process would that dies soon after.
async fn claim(jobs: &Jobs) -> Uuid {
    let claim = Claim {
        owner: "a process that dies",
        lease: Duration::from_secs(30),
        only: None,
        kinds: JobKinds::All,
    };
    jobs.store()
        .claim_job(claim)
        .await
        .expect("claim")
        .expect("a job")
        .id
}

fn state(done: u64, sum: u64) -> Vec<u8> {
    [done.to_le_bytes(), sum.to_le_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_death_the_job_goes_on_at_once_from_the_newest_checkpoint_that_is_whole() {
    let (folder, jobs) = fresh().await;
    let id = submit(&jobs, count("dies", 7)).await.id;
    claim(&jobs).await;
    for (done, sum) in [(2, 3), (4, 10)] {
        jobs.store()
            .save_checkpoint(id, &state(done, sum))
            .expect("save");
    }
    close(jobs).await;
    let newest = checkpoint(folder.path(), id);
    let whole = fs::read(&newest).expect("checkpoint");
    let next = async |logged: &str| {
        let jobs = open_jobs(folder.path()).await;
        let job = jobs.store().job(id).await.expect("job");
        assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
        let job = step(&jobs).await;
        assert_eq!(job.state, JobState::Succeeded);
        assert_eq!(job.result, unbroken(7).await);
        assert_eq!(logs(&events(&jobs, id).await), [logged]);
        close(jobs).await;
    };
    // Torn in the middle of writing: the one before counts.
    fs::write(&newest, &whole[..whole.len() - 1]).expect("tear");
    next("goes on after 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_never_taken() {
    let (folder, jobs) = fresh().await;
    let store = jobs.store();
    let id = Uuid::now_v7();
    assert_eq!(store.load_checkpoint(id).expect("none"), None);
    store.save_checkpoint(id, b"first").expect("save");
    let path = checkpoint(folder.path(), id);
    let load = || store.load_checkpoint(id).expect("load");
    assert_eq!(load().as_deref(), Some(&b"first"[..]));
    store.save_checkpoint(id, b"second").expect("save");
    assert_eq!(load().as_deref(), Some(&b"second"[..]));
    let whole = fs::read(&path).expect("file");
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&path, &damaged).expect("damage");
        assert_eq!(load().as_deref(), Some(&b"first"[..]), "byte {place}");
        fs::write(&path, &whole[..place]).expect("tear");
        assert_eq!(load().as_deref(), Some(&b"first"[..]), "{place} bytes");
    }
    fs::remove_file(&path).expect("between two renames");
    assert_eq!(load().as_deref(), Some(&b"first"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_process_again_and_again_is_given_up_unless_it_gets_on() {
    let (folder, mut jobs) = fresh().await;
    let id = submit(&jobs, count("kills", 7)).await.id;
    for death in 1..=15 {
        assert_eq!(claim(&jobs).await, id, "death {death}");
        if death == 5 {
            jobs.store().note_checkpoint(id).await.expect("checkpoint");
        }
        close(jobs).await;
        jobs = open_jobs(folder.path()).await;
        let job = jobs.store().job(id).await.expect("job");
        let given_up = death == 14;
        let expected = if given_up {
            JobState::Failed
        } else {
            JobState::Queued
        };
        assert_eq!(job.state, expected, "death {death}");
        if given_up {
            assert_eq!(job.error.expect("error").code, "interrupted");
            break;
        }
    }
    jobs.retry(id).await.expect("retry");
    assert_eq!(step(&jobs).await.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_come_after_and_fail_by_name_when_an_earlier_one_is_lost() {
    let (_folder, jobs) = fresh().await;
    let after = async |name: &str, waits_for: Vec<Uuid>| {
        let plan = lora_recycle::jobs::Planned {
            job: count(name, 1),
            inputs: Vec::new(),
            waits_for,
        };
        jobs.submit(plan).await.expect("submit").job
    };
    let first = submit(&jobs, count("first", 1)).await.id;
    let second = after("second", vec![first]).await;
    assert_eq!(second.waits_for, [first]);
    let only = [second.id];
    assert_eq!(jobs.step(Some(&only)).await.expect("step"), None);
    assert_eq!(step(&jobs).await.id, first);
    assert_eq!(step(&jobs).await.id, second.id);

    let lost = Count {
        end: End::Aborts,
        ..count("lost", 1)
    };
    let lost = submit(&jobs, lost).await.id;
    let next = after("next", vec![lost]).await.id;
    let last = after("last", vec![next, first]).await.id;
    step(&jobs).await;
    for (id, name) in [(next, "count lost to 1"), (last, "count next to 1")] {
        let job = jobs.store().job(id).await.expect("job");
        let error = job.error.expect("error");
        assert_eq!(
            (job.state, error.code.as_str()),
            (JobState::Failed, "dependency_failed")
        );
        assert!(
            error.message.contains(name) && error.message.contains("wrong"),
            "{error:?}"
        );
        assert_eq!(states(&events(&jobs, id).await), ["queued", "failed"]);
    }
    let blocked = jobs.retry(last).await.expect_err("blocked");
    assert!(
        matches!(blocked, StoreError::JobBlocked { by, .. } if by == next),
        "{blocked}"
    );
    // Whoever comes too late learns it at once.
    assert_eq!(after("late", vec![lost]).await.state, JobState::Failed);
    let missing = planned(count("missing", 1));
    let missing = lora_recycle::jobs::Planned {
        waits_for: vec![Uuid::nil()],
        ..missing
    };
    let error = jobs.submit(missing).await.expect_err("missing");
    assert!(matches!(error, StoreError::UnknownJob(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_larger_priority_comes_first_then_the_older_job() {
    let (_folder, jobs) = fresh().await;
    let mut expected = Vec::new();
    for (name, priority) in [("a", 0), ("b", 5), ("c", 5), ("d", -1)] {
        let new = NewJob {
            kind: "count".into(),
            title: name.into(),
            recipe: json!(count(name, 1)),
            deduplication_key: store::Digest::of(name.as_bytes()),
            priority,
            most_attempts: 1,
            waits_for: Vec::new(),
            inputs: Vec::new(),
        };
        expected.push(jobs.store().submit_job(new).await.expect("submit").job.id);
    }
    let order = [1, 2, 0, 3].map(|index| expected[index]);
    for id in order {
        assert_eq!(step(&jobs).await.id, id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lost_the_lease_changes_nothing() {
    let (_folder, jobs) = fresh().await;
    let id = submit(&jobs, count("lease", 1)).await.id;
    claim(&jobs).await;
    let store = jobs.store();
    let lease = Duration::from_secs(30);
    assert!(
        store
            .renew_lease(id, "a process that dies", lease)
            .await
            .expect("renew")
    );
    assert!(
        !store
            .renew_lease(id, "another", lease)
            .await
            .expect("renew")
    );
    let fault = JobFault {
        code: "x".into(),
        message: "x".into(),
        hint: None,
    };
    for finish in [
        Finish::Succeeded(json!({})),
        Finish::Failed(fault),
        Finish::PutBack,
    ] {
        let finished = store.finish_job(id, "another", finish).await;
        assert_eq!(finished.expect("finish"), None);
    }
    assert_eq!(store.job(id).await.expect("job").state, JobState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_program_fails_and_the_queue_goes_on() {
    let (_folder, jobs) = fresh().await;
    for (kind, recipe, code) in [
        ("knit", json!({}), "unknown_kind"),
        (
            "count",
            json!({"name": "x", "until": 3}),
            "recipe_unreadable",
        ),
    ] {
        let new = NewJob {
            kind: kind.into(),
            title: kind.into(),
            recipe,
            deduplication_key: store::Digest::of(kind.as_bytes()),
            priority: 0,
            most_attempts: 3,
            waits_for: Vec::new(),
            inputs: Vec::new(),
        };
        jobs.store().submit_job(new).await.expect("submit");
        let job = step(&jobs).await;
        assert_eq!(
            (job.state, job.error.expect("error").code.as_str()),
            (JobState::Failed, code)
        );
    }
    submit(&jobs, count("after", 1)).await;
    assert_eq!(step(&jobs).await.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_job_and_leaves_database_and_earlier_checkpoints_usable() {
    let folder = tempfile::tempdir().expect("folder");
    let Some(disk) = SmallDisk::mount(folder.path().to_path_buf(), "6m") else {
        eprintln!(
            "SKIPPED: this test mounts a small tmpfs, for which this user lacks the right (run as root)"
        );
        return;
    };
    let every_step = RunnerOptions {
        checkpoint_every: Duration::ZERO,
        ..options()
    };
    let jobs = open_jobs_with(&disk.0, every_step.clone()).await;
    let held = hold("full disk");
    let job = Count {
        ballast: 700_000,
        ..count("full disk", 6)
    };
    let id = submit(&jobs, job).await.id;
    let runner = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.step(None).await }
    });
    for number in 1..=3 {
        assert_eq!(held.arrival().await, number);
        if number == 3 {
            // Two checkpoints are there. Not a byte is left for the third.
            let filled = fs::write(disk.0.join("filler"), vec![0; 8 << 20]);
            assert!(filled.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull));
        }
        held.let_on();
    }
    let job = runner.await.expect("runner").expect("step").expect("a job");
    assert_eq!(job.state, JobState::Failed);
    let error = job.error.expect("error");
    assert_eq!(error.code, "disk_full", "{error:?}");
    assert!(
        error.message.contains("full") && error.hint.is_some(),
        "{error:?}"
    );
    assert!(
        jobs.store()
            .load_checkpoint(id)
            .expect("load")
            .is_some_and(|kept| kept[0] == 2)
    );
    close(jobs).await;

    // It opens while the disk is still full, and the job goes on once it is not.
    let jobs = open_jobs_with(&disk.0, every_step).await;
    assert_eq!(
        jobs.store().job(id).await.expect("job").state,
        JobState::Failed
    );
    fs::remove_file(disk.0.join("filler")).expect("filler");
    drop(held);
    jobs.retry(id).await.expect("retry");
    let job = step(&jobs).await;
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(job.result, unbroken(6).await);
    close(jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_found_by_what_it_was_made_from_and_its_files_go_with_it() {
    let (folder, jobs) = fresh().await;
    let store = jobs.store();
    let pool = store.create_pool(pool_of("a")).await.expect("create");
    assert_eq!(store.create_pool(pool_of("a")).await.expect("found"), pool);
    let other = store.create_pool(pool_of("b")).await.expect("create");
    let listed = store.list_pools(None).await.expect("list");
    assert_eq!(listed, [other.clone(), pool.clone()]);
    let of_adapter = store.list_pools(Some(&pool.adapter_digest)).await;
    assert_eq!(of_adapter.expect("list"), std::slice::from_ref(&pool));
    assert_eq!(
        store.find_pool(&pool.key).await.expect("find"),
        Some(pool.clone())
    );
    let bytes = store.read_pool_file(&pool, "images.safetensors").await;
    assert_eq!(bytes.expect("file"), b"a");
    let error = store
        .read_pool_file(&pool, "other")
        .await
        .expect_err("no file");
    assert!(
        matches!(error, StoreError::UnknownPoolFile { .. }),
        "{error}"
    );
    assert_eq!(store.gc().await.expect("gc").blobs, 0);
    assert_eq!(store.delete_pool(pool.id).await.expect("delete").blobs, 1);
    assert_eq!(files_on_disk(folder.path()).len(), 1);
    let error = store.delete_pool(pool.id).await.expect_err("gone");
    assert!(matches!(error, StoreError::UnknownPool(_)), "{error}");
    let reader = Store::open(folder.path(), Access::Shared)
        .await
        .expect("reader");
    assert_eq!(reader.list_pools(None).await.expect("list"), [other]);
    let denied = reader.create_pool(pool_of("c")).await.expect_err("shared");
    assert!(matches!(denied, StoreError::SharedAccess), "{denied}");
}
