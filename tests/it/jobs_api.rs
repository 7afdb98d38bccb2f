//! Jobs and pools over HTTP: the real router around a fresh data folder, with a kind of job for tests.

use crate::jobs_support::{Count, End, count, hold, kinds, options, pool_of, step, submit};
use crate::registry_api::assert_problem;
use crate::test_app::{TestApp, form_request, png};
use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use lora_recycle::app::registry::Registry;
use lora_recycle::jobs::pool::PoolSummary;
use lora_recycle::jobs::{Jobs, Kinds, Services, product_kinds};
use model::adapter::{NamedFile, write_zip};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use store::{Access, JobState, NewPool};
use tempfile::TempDir;
use test_support::broken_adapters::golden;
use test_support::pools::pool;
use test_support::project;
use test_support::store::files_on_disk;
use uuid::Uuid;

pub struct Fresh {
    pub app: TestApp,
    pub jobs: Jobs,
    folder: TempDir,
}

async fn fresh() -> Fresh {
    fresh_with(kinds()).await
}

pub async fn fresh_with(kinds: Kinds) -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), Access::Exclusive)
        .await
        .unwrap();
    let services = Services::new(registry.clone(), None);
    let jobs = Jobs::new(services, kinds, options());
    Fresh {
        app: TestApp::with_jobs(registry, jobs.clone()),
        jobs,
        folder,
    }
}

impl Fresh {
    async fn post(&self, path: &str) -> crate::test_app::Answered {
        let request = Request::post(format!("/api/v1{path}"));
        self.app.send(request.body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> crate::test_app::Answered {
        self.app.get(&format!("/api/v1{path}")).await
    }

    async fn submit(&self, body: Value) -> crate::test_app::Answered {
        self.app.post_json("/api/v1/jobs", &body).await
    }
}

fn recipe(name: &str, to: u64) -> Value {
    json!({"name": name, "to": to})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_asked_for_shown_listed_and_the_same_work_is_done_once() {
    let fresh = fresh().await;
    let body = json!({"kind": "count", "recipe": recipe("api", 3)});
    let answer = fresh.submit(body.clone()).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let job = answer.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{id}"));
    let mut shown = job.clone();
    shown["id"] = "[id]".into();
    shown["created_ms"] = 0.into();
    insta::assert_snapshot!(format!("{shown:#}"), @r#"
    {
      "attempts": 0,
      "cancel_requested": false,
      "created_ms": 0,
      "error": null,
      "finished_ms": null,
      "id": "[id]",
      "kind": "count",
      "most_attempts": 3,
      "priority": 0,
      "progress": null,
      "recipe": {
        "ballast": 0,
        "end": "well",
        "name": "api",
        "to": 3
      },
      "result": null,
      "retry_at_ms": null,
      "started_ms": null,
      "state": "queued",
      "title": "count api to 3",
      "waits_for": [],
      "worked_ms": 0
    }
    "#);
    assert_eq!(fresh.submit(body).await.json(), job);
    let other = fresh
        .submit(json!({"kind": "count", "recipe": recipe("api", 4), "waits_for": [id]}))
        .await
        .json();
    assert_eq!(other["waits_for"], json!([id]));
    step(&fresh.jobs).await;
    let done = fresh.get(&format!("/jobs/{id}")).await.json();
    assert_eq!(done["state"], "succeeded");
    assert_eq!(done["result"]["sum"], 6);
    assert_eq!(done["progress"]["step"], 3);

    let ids = |list: &Value| -> Vec<String> {
        let jobs = list["jobs"].as_array().unwrap().iter();
        jobs.map(|job| job["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let other_id = other["id"].as_str().unwrap();
    let first = fresh.get("/jobs?limit=1").await.json();
    assert_eq!(ids(&first), [other_id]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = fresh
        .get(&format!("/jobs?limit=1&cursor={cursor}"))
        .await
        .json();
    assert_eq!(
        (ids(&second), &second["next_cursor"]),
        (vec![id.to_owned()], &Value::Null)
    );
    for (query, expected) in [
        ("state=queued", vec![other_id]),
        ("state=succeeded&kind=count", vec![id]),
        ("kind=tune", vec![]),
    ] {
        let list = fresh.get(&format!("/jobs?{query}")).await.json();
        assert_eq!(ids(&list), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_jobs_of_one_request_come_as_a_list() {
    let fresh = fresh().await;
    let body = json!({"kind": "count", "recipe": recipe("several", 3), "copies": 3});
    let answer = fresh.submit(body).await;
    assert_eq!(answer.status, 202);
    let answered = answer.json();
    let jobs = answered["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 3);
    let first = jobs[0]["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{first}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_what_is_wrong_and_queue_nothing() {
    let fresh = fresh().await;
    for (body, parameter) in [
        (json!({"kind": "knit"}), "kind"),
        (json!({"kind": "count"}), "body"),
        (
            json!({"kind": "count", "recipe": recipe("x", 0)}),
            "recipe.to",
        ),
        (
            json!({"kind": "count", "recipe": {"name": "x", "to": "many"}}),
            "recipe.to",
        ),
        (
            json!({"kind": "count", "recipe": {"name": "x", "to": 1, "extra": 1}}),
            "recipe.extra",
        ),
        (json!({"recipe": recipe("x", 1)}), "body"),
    ] {
        let answer = fresh.submit(body.clone()).await;
        let problem = assert_problem(&answer, 422, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{body}: {problem:#}");
    }
    let missing = json!({"kind": "count", "recipe": recipe("x", 1), "waits_for": [Uuid::nil()]});
    assert_problem(&fresh.submit(missing).await, 404, "job_not_found");
    let text = Request::post("/api/v1/jobs").body(Body::from("x")).unwrap();
    assert_problem(&fresh.app.send(text).await, 415, "unsupported_media_type");
    assert_problem(
        &fresh.get("/jobs?state=lost").await,
        422,
        "invalid_parameter",
    );
    assert_problem(&fresh.get("/jobs?limit=0").await, 422, "invalid_parameter");
    for id in ["nonsense", &Uuid::nil().to_string()] {
        assert_problem(
            &fresh.get(&format!("/jobs/{id}")).await,
            404,
            "job_not_found",
        );
        for path in ["events", "previews", "previews/0"] {
            let answer = fresh.get(&format!("/jobs/{id}/{path}")).await;
            assert_problem(&answer, 404, "job_not_found");
        }
        for path in ["cancel", "retry"] {
            let answer = fresh.post(&format!("/jobs/{id}/{path}")).await;
            assert_problem(&answer, 404, "job_not_found");
        }
    }
    assert_eq!(fresh.get("/jobs").await.json()["jobs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn recycling_of_unknown_adapters_is_404_and_a_wrong_wish_names_its_parameter() {
    let fresh = fresh_with(product_kinds()).await;
    let wish = |more: Value| {
        let mut body = json!({"kind": "recycle", "name": "meta"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let unknown = wish(json!({"adapters": ["nobody"]}));
    assert_problem(&fresh.submit(unknown).await, 404, "adapter_not_found");
    for (more, parameter) in [
        (json!({}), "adapters"),
        (json!({"name": null, "adapters": ["nobody"]}), "name"),
        (json!({"name": "none", "adapters": ["nobody"]}), "name"),
        (json!({"recipe": {"shot": 1}}), "recipe"),
        (json!({"inversion": {"preset": "slow"}}), "inversion"),
        (json!({"recipe_file": {}}), "recipe_file"),
        (json!({"dry_run": 1}), "dry_run"),
    ] {
        let answer = fresh.submit(wish(more.clone())).await;
        let problem = assert_problem(&answer, 422, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{more}: {problem:#}");
    }
    assert_eq!(fresh.get("/jobs").await.json()["jobs"], json!([]));
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files: Vec<NamedFile> = files
        .iter()
        .map(|(path, bytes)| NamedFile::new(*path, *bytes))
        .collect();
    write_zip(&files).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn labelled_pictures_come_as_a_zip_and_hostile_ones_are_refused() {
    let fresh = fresh().await;
    let text = recipe("zip", 1).to_string();
    let post = async |archive: &[u8], recipe: &[u8]| {
        let parts = [
            ("kind", "", b"count".as_slice()),
            ("recipe", "", recipe),
            ("archive", "pets.zip", archive),
        ];
        fresh.app.send(form_request("/api/v1/jobs", &parts)).await
    };
    for (archive, words) in [
        (zip(&[("stray.png", b"x")]), "is in no folder"),
        (zip(&[("cat/../../x.png", b"x")]), "leads out"),
        (b"no zip".to_vec(), "cannot be read"),
    ] {
        let problem = assert_problem(
            &post(&archive, text.as_bytes()).await,
            422,
            "invalid_parameter",
        );
        assert_eq!(problem["parameter"], "archive");
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{problem:#}"
        );
    }
    let good = zip(&[("pets/dog/1.png", b"dog"), ("pets/cat/1.png", b"small cat")]);
    let problem = assert_problem(&post(&good, b"{").await, 422, "invalid_parameter");
    assert_eq!(problem["parameter"], "recipe");
    assert!(files_on_disk(fresh.folder.path()).is_empty());

    let answer = post(&good, text.as_bytes()).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let id: Uuid = answer.json()["id"].as_str().unwrap().parse().unwrap();
    let inputs = fresh.jobs.store().job_inputs(id).await.unwrap();
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["cat/1.png", "dog/1.png"]);
    let job = step(&fresh.jobs).await;
    assert_eq!(job.result.unwrap()["input_bytes"], 12);
    assert!(files_on_disk(fresh.folder.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn labelled_pictures_come_as_parts_by_class_like_those_of_a_classifier() {
    let fresh = fresh().await;
    let text = recipe("parts", 1).to_string();
    let post = async |class: &str| {
        let parts = [
            ("kind", "", b"count".as_slice()),
            ("recipe", "", text.as_bytes()),
            ("support/dog", "2.png", b"dog"),
            (class, "1.png", b"cat"),
            ("support/dog", "1.png", b"old dog"),
        ];
        fresh.app.send(form_request("/api/v1/jobs", &parts)).await
    };
    for class in ["support/", "support/ ", "support/a%0Ab"] {
        let problem = assert_problem(&post(class).await, 422, "invalid_parameter");
        assert_eq!(problem["parameter"], "support/", "{problem:#}");
    }
    let answer = post("support/cat").await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let id: Uuid = answer.json()["id"].as_str().unwrap().parse().unwrap();
    let inputs = fresh.jobs.store().job_inputs(id).await.unwrap();
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["cat/1.png", "dog/2.png", "dog/1.png"]);
}

/// A queue of the kinds of the program on a small backbone, with one adapter that has a head.
async fn fresh_with_adapter() -> Fresh {
    let fresh = fresh_with(product_kinds()).await;
    let registry = fresh.jobs.services().registry();
    let name = "tiny".parse().unwrap();
    let source = project("tests/golden/vit-tiny");
    registry.add_backbone(&source, &name).await.unwrap();
    let files = golden("vit-tiny", "adapter-peft-v4");
    let parts: Vec<(&str, &str, &[u8])> = files
        .iter()
        .map(|file| ("file", file.path.as_str(), file.bytes.as_slice()))
        .collect();
    let answer = fresh.app.post_form("/api/v1/adapters?name=pets", &parts);
    let answer = answer.await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    fresh
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_has_its_address_and_the_older_one_finds_the_same_jobs() {
    let fresh = fresh_with_adapter().await;
    let invert = json!({"adapters": ["pets"], "recipe": {"preset": "fast", "steps": 3}});
    let recycle = json!({"name": "meta", "adapters": ["pets"], "recipe": {"episodes": 5}});
    for (kind, body) in [("invert", invert), ("recycle", recycle)] {
        let address = format!("/api/v1/jobs/{kind}");
        let answer = fresh.app.post_json(&address, &body).await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        let started = answer.json();
        let job = &started["jobs"][0];
        assert_eq!(job["kind"], kind);
        let id = job["id"].as_str().unwrap();
        assert_eq!(answer.header("location"), format!("/api/v1/jobs/{id}"));
        let mut older = body.clone();
        older["kind"] = kind.into();
        assert_eq!(fresh.submit(older).await.json(), *job);
    }
    let (red, blue) = (png(250, 0, 0), png(0, 0, 250));
    let pictures = [&red, &blue, &red, &blue];
    let labels = ["red / warm", "blue 🟦, cold"];
    let older_names = labels.map(|label| format!("support/{label}"));
    let methods = br#"{"methods": ["adapter", "bare"], "way": 2, "queries": 1, "tasks": 3}"#;
    for (kind, field, recipe) in [
        (
            "tune",
            ("name", "", &b"colours"[..]),
            &br#"{"steps": 3}"#[..],
        ),
        ("evaluate", ("adapters", "", b"pets"), methods),
    ] {
        let mut parts = vec![field, ("recipe", "", recipe), ("backbone", "", b"tiny")];
        let mut older = parts.clone();
        older.push(("kind", "", kind.as_bytes()));
        for (index, bytes) in pictures.into_iter().enumerate() {
            parts.push(("support", "1.png", bytes));
            parts.push(("label", "", labels[index % 2].as_bytes()));
            older.push((&older_names[index % 2], "1.png", bytes));
        }
        let address = format!("/api/v1/jobs/{kind}");
        let answer = fresh.app.post_form(&address, &parts).await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        let started = answer.json();
        let job = &started["jobs"][0];
        assert_eq!(job["kind"], kind);
        let answer = fresh.app.post_form("/api/v1/jobs", &older).await;
        assert_eq!(answer.json(), *job);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_in_json_make_the_same_job_as_those_of_a_form() {
    let fresh = fresh_with_adapter().await;
    let (red, blue) = (png(250, 0, 0), png(0, 0, 250));
    let recipe = json!({"steps": 3, "held_out": 0.0});
    let recipe_text = recipe.to_string();
    let parts = [
        ("name", "", &b"colours"[..]),
        ("backbone", "", b"tiny"),
        ("recipe", "", recipe_text.as_bytes()),
        ("support", "1.png", &red),
        ("support", "2.png", &blue),
        ("label", "", b"red"),
        ("label", "", b"blue"),
    ];
    let from_form = fresh.app.post_form("/api/v1/jobs/tune", &parts).await;
    assert_eq!(from_form.status, 202, "{:?}", from_form.body);
    let body = json!({
        "name": "colours", "backbone": "tiny", "recipe": recipe,
        "pictures": [
            {"label": "red", "images": [BASE64_STANDARD.encode(&red)]},
            {"label": "blue", "images": [BASE64_STANDARD.encode(&blue)]},
        ],
    });
    let from_json = fresh.app.post_json("/api/v1/jobs/tune", &body).await;
    assert_eq!(from_json.json(), from_form.json());
    for (name, value, parameter) in [
        ("pictures", json!([{"label": "", "images": []}]), "pictures"),
        (
            "pictures",
            json!([{"label": "a", "images": ["!"]}]),
            "pictures[0].images[0]",
        ),
        ("archive", json!("!"), "archive"),
        ("episodes", json!("3"), "episodes"),
        ("name", json!("a b"), "name"),
        ("real", json!(""), "real"),
    ] {
        let mut body = body.clone();
        body[name] = value.clone();
        let answer = fresh.app.post_json("/api/v1/jobs/tune", &body).await;
        let problem = assert_problem(&answer, 422, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{value}: {problem:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_pictures_of_a_form_must_go_together_and_files_must_be_known() {
    let fresh = fresh_with_adapter().await;
    let picture = png(250, 0, 0);
    let name = ("name", "", &b"colours"[..]);
    let support = ("support", "1.png", picture.as_slice());
    for (address, parts, parameter) in [
        ("tune", vec![name, support], "label"),
        ("tune", vec![name, ("label", "", b"red")], "label"),
        ("tune", vec![name, support, ("label", "", b" ")], "label"),
        ("tune", vec![name, support, ("label", "", b"\xff")], "label"),
        ("tune", vec![name, ("episodes", "", b"two")], "episodes"),
        ("tune", vec![name, ("real", "real.zip", b"")], "real"),
        ("invert", vec![support, ("label", "", b"red")], "support"),
        ("invert", vec![("archive", "pictures.zip", b"")], "archive"),
        ("recycle", vec![("recipe", "", b"{")], "recipe"),
        ("evaluate", vec![("kind", "", b"evaluate")], "kind"),
    ] {
        let address = format!("/api/v1/jobs/{address}");
        let answer = fresh.app.post_form(&address, &parts).await;
        let problem = assert_problem(&answer, 422, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{address}: {problem:#}");
    }
    assert_eq!(fresh.get("/jobs").await.json()["jobs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_do_not_allow_it_are_409() {
    let fresh = fresh().await;
    let id = submit(&fresh.jobs, count("states", 1)).await.id;
    assert_problem(
        &fresh.post(&format!("/jobs/{id}/retry")).await,
        409,
        "job_state",
    );
    step(&fresh.jobs).await;
    for path in ["retry", "cancel"] {
        let answer = fresh.post(&format!("/jobs/{id}/{path}")).await;
        let problem = assert_problem(&answer, 409, "job_state");
        assert!(problem["detail"].as_str().unwrap().contains("succeeded"));
    }
    let fails = Count {
        end: End::Aborts,
        ..count("states", 2)
    };
    let id = submit(&fresh.jobs, fails.clone()).await.id;
    step(&fresh.jobs).await;
    let failed = fresh.get(&format!("/jobs/{id}")).await.json();
    assert_eq!(
        failed["error"],
        json!({"code": "numbers", "message": "the numbers are wrong", "hint": "fix them"})
    );
    let answer = fresh.post(&format!("/jobs/{id}/retry")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["state"]),
        (200, &json!("queued"))
    );
    let answer = fresh.post(&format!("/jobs/{id}/cancel")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["state"]),
        (200, &json!("cancelled"))
    );
    submit(&fresh.jobs, fails).await;
    assert_problem(
        &fresh.post(&format!("/jobs/{id}/retry")).await,
        409,
        "job_replaced",
    );
}

/// A client of the events that reads as long as the stream goes.
struct Events {
    body: axum::body::BodyDataStream,
    read: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    id: i64,
    name: String,
    data: Value,
}

impl Events {
    async fn open(app: &TestApp, id: Uuid, last: Option<i64>) -> Self {
        let mut request = Request::get(format!("/api/v1/jobs/{id}/events"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let response = app.open(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            read: String::new(),
        }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((text, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| {
                    let line = text.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim_start().to_owned())
                };
                let event = field("data:").map(|data| Event {
                    id: field("id:").unwrap().parse().unwrap(),
                    name: field("event:").unwrap(),
                    data: serde_json::from_str(&data).unwrap(),
                });
                self.read = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    // A comment that keeps the connection alive.
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.body.next())
                .await
                .expect("an event");
            self.read += std::str::from_utf8(&chunk?.unwrap()).unwrap();
        }
    }

    async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_live_and_a_client_that_reconnects_misses_none_and_sees_none_twice() {
    let fresh = fresh().await;
    let held = hold("events");
    let id = submit(&fresh.jobs, count("events", 3)).await.id;
    let mut events = Events::open(&fresh.app, id, None).await;
    let queued = events.next().await.unwrap();
    assert_eq!(
        (queued.name.as_str(), &queued.data["state"]),
        ("state", &json!("queued"))
    );
    assert_eq!(queued.data["id"], id.to_string());
    let runner = tokio::spawn({
        let jobs = fresh.jobs.clone();
        async move { jobs.run_only(&[id]).await }
    });
    let running = events.next().await.unwrap();
    assert_eq!(running.data["state"], "running");
    held.arrival().await;
    held.let_on();
    let progress = events.next().await.unwrap();
    assert_eq!(
        (progress.name.as_str(), &progress.data["step"]),
        ("progress", &json!(1))
    );
    assert_eq!(progress.data["figures"], json!({"sum": 1.0}));
    assert!(progress.data["at_ms"].is_i64());
    // The connection breaks while the job goes on.
    drop(events);
    held.arrival().await;
    held.let_on();
    held.arrival().await;
    let again = Events::open(&fresh.app, id, Some(progress.id)).await;
    held.let_on();
    let rest = again.rest().await;
    runner.await.unwrap();
    assert!(rest.windows(2).all(|pair| pair[0].id < pair[1].id) && rest[0].id > progress.id);
    let last = rest.last().unwrap();
    assert_eq!(
        (last.name.as_str(), &last.data["state"]),
        ("state", &json!("succeeded"))
    );
    assert_eq!(last.data["result"]["sum"], 6);
    let all = Events::open(&fresh.app, id, None).await.rest().await;
    let joined: Vec<Event> = [queued, running, progress]
        .into_iter()
        .chain(rest)
        .collect();
    assert_eq!(all, joined);

    // Nothing more to see: a browser does not come again after this.
    let last = all.last().unwrap().id.to_string();
    for (header, status) in [(last.as_str(), 204), ("-1", 422), ("x", 422)] {
        let request = Request::get(format!("/api/v1/jobs/{id}/events"))
            .header("Last-Event-ID", header)
            .body(Body::empty())
            .unwrap();
        assert_eq!(fresh.app.send(request).await.status, status, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_has_an_open_stream_that_ends_with_the_server() {
    let fresh = fresh().await;
    let id = submit(&fresh.jobs, count("waits", 3)).await.id;
    let mut events = Events::open(&fresh.app, id, None).await;
    let queued = events.next().await.unwrap();
    let waiting = Events::open(&fresh.app, id, Some(queued.id)).await;
    fresh.jobs.stop();
    assert_eq!(events.next().await, None);
    assert!(waiting.rest().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_shows_previews_and_is_cancelled_within_two_seconds() {
    let fresh = fresh().await;
    let held = hold("previews");
    let id = submit(&fresh.jobs, count("previews", 1_000_000)).await.id;
    assert_eq!(
        fresh.get(&format!("/jobs/{id}/previews")).await.json(),
        json!({"previews": []})
    );
    let runner = tokio::spawn({
        let jobs = fresh.jobs.clone();
        async move { jobs.run_only(&[id]).await }
    });
    for _ in 0..2 {
        held.arrival().await;
        held.let_on();
    }
    held.arrival().await;
    let list = json!({"previews": [{"index": 0, "label": "sum", "version": 2}]});
    assert_eq!(
        fresh.get(&format!("/jobs/{id}/previews")).await.json(),
        list
    );
    let answer = fresh.get(&format!("/jobs/{id}/previews/0")).await;
    assert_eq!(
        (answer.header("content-type"), &answer.body[..]),
        ("image/png", &b"3"[..])
    );
    let answer = fresh.get(&format!("/jobs/{id}/previews/7")).await;
    assert_problem(&answer, 404, "picture_not_found");
    // From here on steps run freely.
    drop(held);
    let asked = Instant::now();
    let answer = fresh.post(&format!("/jobs/{id}/cancel")).await;
    assert!(asked.elapsed() < Duration::from_secs(2));
    let job = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &job["state"]),
        (200, &json!("cancelled")),
        "{job:#}"
    );
    runner.await.unwrap();
    assert_eq!(
        fresh.get(&format!("/jobs/{id}/previews")).await.json(),
        json!({"previews": []})
    );
    assert_eq!(
        fresh.jobs.store().job(id).await.unwrap().state,
        JobState::Cancelled
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_listed_shown_drawn_and_deleted() {
    let fresh = fresh().await;
    let store = fresh.jobs.store();
    let pool = pool();
    let files = pool.to_files().unwrap();
    let new = NewPool {
        summary: json!(PoolSummary::of(pool.manifest())),
        files: files
            .iter()
            .map(|file| (file.path.clone(), file.bytes.clone()))
            .collect(),
        ..pool_of("pets")
    };
    let id = store.create_pool(new).await.unwrap().id;
    let shown = fresh.get(&format!("/pools/{id}")).await.json();
    assert_eq!(fresh.get("/pools").await.json(), json!({"pools": [shown]}));
    for (field, expected) in [
        ("adapter", json!("pets:1")),
        ("retention", json!("keep")),
        ("recipe", json!({"steps": 3})),
        ("images", json!(10)),
        ("image_size", json!(28)),
        ("grid", json!(4)),
        ("kept_tokens_per_image", json!(8)),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
    assert_eq!(shown["classes"][0]["label"], "ant");
    assert!(shown["teacher_accuracy"].is_f64());
    let kept = fresh.get(&format!("/pools/{id}/kept-tokens")).await.json();
    let expected: Vec<u32> = pool.kept_tokens()[1..9]
        .iter()
        .map(|token| token - 1)
        .collect();
    assert_eq!(
        (&kept["grid"], &kept["kept"][0]),
        (&json!(4), &json!(expected))
    );
    assert_eq!(kept["kept"].as_array().unwrap().len(), 10);

    let answer = fresh.get(&format!("/pools/{id}/images/3")).await;
    assert_eq!(answer.header("content-type"), "image/png");
    assert_eq!(answer.body, pool.preview(3).unwrap());
    let etag = answer.header("etag").to_owned();
    let request = Request::get(format!("/api/v1/pools/{id}/images/3"))
        .header("if-none-match", &etag)
        .body(Body::empty())
        .unwrap();
    assert_eq!(fresh.app.send(request).await.status, 304);
    assert_ne!(
        fresh
            .get(&format!("/pools/{id}/images/0"))
            .await
            .header("etag"),
        etag
    );

    // The pool was made for another backbone than the one that answers here.
    let answer = fresh.get(&format!("/pools/{id}/quality")).await;
    assert_problem(&answer, 409, "adapter_for_other_backbone");
    for index in ["10", "x"] {
        let answer = fresh.get(&format!("/pools/{id}/images/{index}")).await;
        assert_problem(&answer, 404, "picture_not_found");
    }
    let delete = async |id: &str| {
        let request = Request::delete(format!("/api/v1/pools/{id}"));
        fresh.app.send(request.body(Body::empty()).unwrap()).await
    };
    let deleted = delete(&id.to_string()).await;
    assert_eq!(deleted.status, 200);
    assert!(deleted.json()["freed_bytes"].as_u64().unwrap() > 24);
    assert!(files_on_disk(fresh.folder.path()).is_empty());
    for id in [id.to_string().as_str(), "nonsense"] {
        assert_problem(&delete(id).await, 404, "pool_not_found");
        for path in ["", "/images/0", "/kept-tokens", "/quality"] {
            let answer = fresh.get(&format!("/pools/{id}{path}")).await;
            assert_problem(&answer, 404, "pool_not_found");
        }
    }
}
