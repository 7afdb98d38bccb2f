//! Batches over HTTP: the real router around a fresh data folder, and the real queue of jobs.

use crate::registry_api::assert_problem;
use crate::test_app::{Answered, TestApp, borrowed, form_request, png};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request};
use lora_recycle::app::registry::{Registry, RegistryError};
use lora_recycle::jobs::Jobs;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};
use store::{Access, JobState, StoreError};
use tempfile::TempDir;
use test_support::project;
use test_support::store::when_free;
use uuid::Uuid;

const CLASSIFIERS: &str = "/api/v1/classifiers";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An app with a queue; nothing runs by itself.
struct Home {
    folder: TempDir,
    app: TestApp,
    jobs: Jobs,
}

async fn registry(folder: &Path) -> Registry {
    let open = async || Registry::open(folder, Access::Exclusive).await;
    let busy =
        |error: &RegistryError| matches!(error, RegistryError::Store(StoreError::InUse { .. }));
    when_free(open, busy).await
}

async fn new_folder() -> (TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path()).await;
    let source = project("tests/golden/vit-tiny");
    let name = "tiny".parse().unwrap();
    registry.add_backbone(&source, &name).await.unwrap();
    (folder, registry)
}

/// A picture of many: no two are equal.
fn picture(number: u32) -> Vec<u8> {
    let [_, _, high, low] = number.to_be_bytes();
    match number.is_multiple_of(2) {
        true => png(250, low, high),
        false => png(high, low, 250),
    }
}

type Parts = Vec<(String, String, Vec<u8>)>;

fn part(part: &str, name: &str, bytes: Vec<u8>) -> (String, String, Vec<u8>) {
    (part.to_owned(), name.to_owned(), bytes)
}

fn images(pictures: &[(&str, Vec<u8>)]) -> Parts {
    pictures
        .iter()
        .map(|(name, bytes)| part("images", name, bytes.clone()))
        .collect()
}

fn form(path: &str, parts: &Parts) -> Request<Body> {
    form_request(path, &borrowed(parts))
}

impl Home {
    async fn new() -> Self {
        let (folder, registry) = new_folder().await;
        let (app, jobs) = TestApp::sorting(registry);
        Self { folder, app, jobs }
    }

    /// A classifier with two pictures of each of two colours; gives its address.
    async fn colours(&self, privacy: &str) -> String {
        let body = json!({"name": "Colours", "privacy": privacy});
        let made = self.app.post_json(CLASSIFIERS, &body).await;
        let path = made.header("location").to_owned();
        let parts = vec![
            part("support/red", "r1.png", png(255, 0, 0)),
            part("support/red", "r2.png", png(220, 10, 0)),
            part("support/blue", "b1.png", png(0, 0, 255)),
            part("support/blue", "b2.png", png(0, 30, 220)),
        ];
        let added = self.app.send(form(&format!("{path}/images"), &parts)).await;
        assert_eq!(added.status, 200, "{:?}", added.body);
        path
    }

    async fn send(&self, path: &str, parts: &Parts) -> Value {
        let answer = self.app.send(form(path, parts)).await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        let batch = answer.json();
        let id = batch["id"].as_str().unwrap();
        assert!(answer.header("location").ends_with(id));
        batch
    }

    /// Sends a batch, sorts it and gives its address.
    async fn sorted(&self, classifier: &str, parameters: &str, parts: &Parts) -> String {
        let batches = format!("{classifier}/batches");
        let batch = self.send(&format!("{batches}{parameters}"), parts).await;
        let job = self.jobs.step(None).await.unwrap().expect("a job");
        assert_eq!(job.state, JobState::Succeeded, "{:?}", job.error);
        format!("{batches}/{}", batch["id"].as_str().unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.app.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        answer.json()
    }

    async fn delete(&self, path: &str) -> Answered {
        let request = Request::delete(path).body(Body::empty()).unwrap();
        self.app.send(request).await
    }

    fn files(&self) -> usize {
        walk(&self.folder.path().join("blobs"))
    }
}

fn walk(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let count = |path: std::path::PathBuf| if path.is_dir() { walk(&path) } else { 1 };
    entries.map(|entry| count(entry.unwrap().path())).sum()
}

fn zip_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn names_in(zip: &[u8]) -> Vec<String> {
    let mut zip = zip::ZipArchive::new(Cursor::new(zip.to_vec())).unwrap();
    let mut names = Vec::new();
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        names.push(file.name().unwrap().into_owned());
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_the_answers_of_classify_bit_for_bit_whatever_it_is_sent_as() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let pictures: Vec<(String, Vec<u8>)> = (0..40)
        .map(|number| (format!("folder/{number}.png"), picture(number)))
        .collect();
    let mut queries: Parts = Vec::new();
    for (name, bytes) in &pictures {
        queries.push(part("query", name, bytes.clone()));
    }
    for parameters in ["", "?reject=0.5", "?head=lda"] {
        let asked = format!("{path}/classify{parameters}");
        let answer = home.app.send(form(&asked, &queries)).await.json();
        let as_files: Vec<(&str, Vec<u8>)> = pictures
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.clone()))
            .collect();
        let in_zip = vec![part("archive", "all.zip", zip_of(&as_files))];
        for (sent, name) in [(images(&as_files), "folder"), (in_zip, "all.zip")] {
            let batch = home.sorted(&path, parameters, &sent).await;
            let page = home.get(&format!("{batch}?limit=200")).await;
            assert_eq!(page["name"], name);
            assert_eq!(page["done_count"], 40);
            assert_eq!(page["job"]["state"], "succeeded");
            assert_eq!(page["next_cursor"], Value::Null);
            let rows = page["pictures"].as_array().unwrap();
            for (row, expected) in rows.iter().zip(answer["results"].as_array().unwrap()) {
                assert_eq!(row["image"], expected["image"]);
                assert_eq!(row["label"], expected["label"]);
                assert_eq!(row["novelty"], expected["novelty"]);
                assert_eq!(row["rejected"], expected["rejected"]);
                let best = &expected["scores"][0];
                assert_eq!(row["confidence"], best["probability"]);
                for place in 0..2 {
                    let (own, other) = (&row["scores"][place], &expected["scores"][place]);
                    assert_eq!(own["probability"], other["probability"]);
                    assert_eq!(own["label"], other["label"]);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_counted_filtered_shown_listed_and_deleted_with_its_files() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let files = home.files();
    let sent = images(&[
        ("a/1.png", png(240, 0, 0)),
        ("a/2.png", png(0, 0, 240)),
        ("a/notes.txt", b"no picture".to_vec()),
        ("a/again.png", png(240, 0, 0)),
        ("a/.DS_Store", b"left by a file manager".to_vec()),
        ("a/empty.png", Vec::new()),
    ]);
    let batch = home.sorted(&path, "", &sent).await;
    let page = home.get(&batch).await;
    assert_eq!(page["picture_count"], 5);
    let summary = &page["summary"];
    let counts = summary["classes"].as_array().unwrap().iter();
    let counts: BTreeSet<(String, u64)> = counts
        .map(|own| (own["name"].to_string(), own["pictures"].as_u64().unwrap()))
        .collect();
    let expected = [("\"red\"", 2), ("\"\"", 2), ("\"blue\"", 1)];
    assert_eq!(
        counts,
        expected
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    );
    let histogram = summary["histogram"].as_array().unwrap();
    assert_eq!(histogram.len(), 20);
    assert_eq!(histogram.iter().filter_map(Value::as_u64).sum::<u64>(), 3);

    let pictures = |page: &Value| -> Vec<String> {
        let rows = page["pictures"].as_array().unwrap();
        rows.iter()
            .map(|row| row["image"].as_str().unwrap().to_owned())
            .collect()
    };
    let red = page["pictures"][0]["scores"][0]["class"].as_str().unwrap();
    let confidence = page["pictures"][0]["confidence"].as_f64().unwrap();
    for (filter, expected) in [
        (format!("class={red}"), &["a/1.png", "a/again.png"][..]),
        ("class=unusable".to_owned(), &["a/notes.txt", "a/empty.png"]),
        ("class=none".to_owned(), &[]),
        (
            format!("min_confidence={}", confidence - 1e-3),
            &["a/1.png", "a/2.png", "a/again.png"],
        ),
        (format!("class={red}&max_confidence={confidence}"), &[]),
        ("limit=1&cursor=1".to_owned(), &["a/notes.txt"]),
    ] {
        let page = home.get(&format!("{batch}?{filter}")).await;
        assert_eq!(pictures(&page), expected, "{filter}");
    }
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = home.get(&format!("{batch}?limit=2{cursor}")).await;
        all.extend(pictures(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(all.len(), 5);
    let unusable = &page["pictures"][2];
    assert_eq!(unusable["error"]["code"], "image_unsupported_format");
    assert_eq!(unusable["confidence"], Value::Null);

    let thumbnail = home.app.get(&format!("{batch}/pictures/3/thumbnail")).await;
    assert_eq!(thumbnail.header("content-type"), "image/jpeg");
    assert!(thumbnail.body.starts_with(b"\xff\xd8\xff"));
    let original = home.app.get(&format!("{batch}/pictures/3")).await;
    assert_eq!(original.header("content-type"), "image/png");
    assert_eq!(original.body, png(240, 0, 0));
    for (address, code) in [
        ("pictures/2/thumbnail", "picture_not_found"),
        ("pictures/2", "picture_not_kept"),
        ("pictures/5", "picture_not_found"),
        ("pictures/x", "picture_not_found"),
    ] {
        assert_problem(
            &home.app.get(&format!("{batch}/{address}")).await,
            404,
            code,
        );
    }
    for wrong in [
        "class=red",
        "min_confidence=-1",
        "max_novelty=NaN",
        "bins=0",
        "limit=0",
    ] {
        assert_problem(
            &home.app.get(&format!("{batch}?{wrong}")).await,
            422,
            "invalid_parameter",
        );
    }
    let other = home.colours("pictures").await;
    let elsewhere = batch.replace(&path, &other);
    assert_problem(&home.app.get(&elsewhere).await, 404, "batch_not_found");

    let list = home.get(&format!("{path}/batches")).await;
    assert_eq!(list["batches"][0]["name"], "a");
    let deleted = home.delete(&batch).await;
    assert!(deleted.json()["freed_bytes"].as_u64().unwrap() > 500);
    assert_problem(&home.app.get(&batch).await, 404, "batch_not_found");
    assert_eq!(
        home.get(&format!("{path}/batches")).await["batches"],
        json!([])
    );
    assert_eq!(home.files(), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pictures_come_as_a_table_a_list_and_folders_that_nothing_leads_out_of() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let name = |number: u32| match number {
        0 => "../../etc/passwd".to_owned(),
        1 => "=HYPERLINK(1).png".to_owned(),
        2 => "C:\\windows\\x.png".to_owned(),
        3 => "a,\"b\".png".to_owned(),
        number => format!("{}/photo.png", number % 7),
    };
    let pictures: Vec<(String, Vec<u8>)> = (0..1000)
        .map(|number| (name(number), picture(number)))
        .collect();
    let sent: Parts = pictures
        .iter()
        .map(|(name, bytes)| part("images", &name.replace('"', "%22"), bytes.clone()))
        .collect();
    let batch = home.sorted(&path, "", &sent).await;

    let table = home.app.get(&format!("{batch}.csv")).await;
    assert_eq!(table.header("content-type"), "text/csv; charset=utf-8");
    let text = String::from_utf8(table.body.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1001);
    assert!(lines[0].starts_with("position,image,class,confidence,"));
    assert!(
        lines[2].starts_with("1,'=HYPERLINK(1).png,blue,"),
        "{}",
        lines[2]
    );
    assert!(
        lines[4].starts_with("3,\"a,\"\"b\"\".png\",blue,"),
        "{}",
        lines[4]
    );
    assert!(
        lines[1000].starts_with("999,5/photo.png,blue,"),
        "{}",
        lines[1000]
    );

    let list = home.get(&format!("{batch}.json")).await;
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 1000);
    let mut paged = Vec::new();
    for cursor in [
        "",
        "&cursor=199",
        "&cursor=399",
        "&cursor=599",
        "&cursor=799",
    ] {
        let page = home.get(&format!("{batch}?limit=200{cursor}")).await;
        paged.extend(page["pictures"].as_array().unwrap().clone());
    }
    assert_eq!(*list, paged);

    let zip = home.app.get(&format!("{batch}.zip")).await;
    assert_eq!(zip.header("content-type"), "application/zip");
    let names = names_in(&zip.body);
    let different: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(different.len(), 1000);
    for name in &names {
        let (folder, file) = name.split_once('/').expect("a folder");
        assert!(folder == "red" || folder == "blue", "{name}");
        assert!(
            !file.contains(['/', '\\', ':']) && !file.contains(".."),
            "{name}"
        );
    }
    assert!(
        names.contains(&"red/passwd".to_owned()),
        "{:?}",
        &names[..4]
    );
    assert!(names.contains(&"red/x.png".to_owned()));
    assert!(names.contains(&"blue/photo (2).png".to_owned()));
    let class = list[0]["scores"][0]["class"].as_str().unwrap();
    let red = home.app.get(&format!("{batch}.zip?class={class}")).await;
    assert_eq!(names_in(&red.body).len(), 500);
    assert_problem(
        &home.app.get(&format!("{batch}.exe")).await,
        404,
        "batch_not_found",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_a_classifier_that_keeps_none_are_gone_once_they_are_sorted() {
    let home = Home::new().await;
    let path = home.colours("features").await;
    let files = home.files();
    let sent = images(&[("1.png", png(240, 0, 0)), ("2.png", png(0, 0, 240))]);
    let batch = home.sorted(&path, "", &sent).await;
    let page = home.get(&batch).await;
    assert_eq!(page["pictures"][0]["label"], "red");
    assert_eq!(page["pictures"][0]["is_kept"], false);
    // Two thumbnails.
    assert_eq!(home.files(), files + 2);
    assert_eq!(
        home.app
            .get(&format!("{batch}/pictures/0/thumbnail"))
            .await
            .status,
        200
    );
    let zip = home.app.get(&format!("{batch}.zip")).await;
    assert_problem(&zip, 404, "picture_not_kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_batch_is_refused_and_leaves_nothing() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let files = home.files();
    let batches = format!("{path}/batches");
    let many: Vec<(String, Vec<u8>)> = (0..10_001).map(|n| (n.to_string(), vec![])).collect();
    let many: Parts = many
        .into_iter()
        .map(|(name, bytes)| part("images", &name, bytes))
        .collect();
    let mut bomb = zip::ZipWriter::new(Cursor::new(Vec::new()));
    bomb.start_file("1.png", zip::write::SimpleFileOptions::default())
        .unwrap();
    bomb.write_all(&vec![0; 8 << 20]).unwrap();
    let bomb = bomb.finish().unwrap().into_inner();
    let archive = |bytes: Vec<u8>| vec![part("archive", "all.zip", bytes)];
    for (parts, parameter, words) in [
        (
            vec![part("name", "", b"empty".to_vec())],
            "images",
            "no picture",
        ),
        (
            images(&[(".hidden.png", png(1, 2, 3))]),
            "images",
            "no picture",
        ),
        (
            images(&[("large.png", vec![0; (20 << 20) + 1])]),
            "images",
            "large.png",
        ),
        (many, "images", "10001"),
        (archive(bomb), "archive", "zip bomb"),
        (archive(b"no zip".to_vec()), "archive", "zip"),
        (
            archive(zip_of(&[("../x.png", png(1, 2, 3))])),
            "archive",
            "leads out",
        ),
        (archive(zip_of(&[])), "archive", "no files"),
        (
            vec![part("pictures", "1.png", png(1, 2, 3))],
            "pictures",
            "images",
        ),
    ] {
        let answer = home.app.send(form(&batches, &parts)).await;
        let problem = answer.json();
        assert_eq!(answer.status, 422, "{problem:#}");
        assert_eq!(problem["parameter"], parameter, "{problem:#}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
    }
    let one = images(&[("1.png", png(1, 2, 3))]);
    let wrong = form(&format!("{batches}?reject=2"), &one);
    assert_problem(&home.app.send(wrong).await, 422, "invalid_parameter");
    let as_json = home.app.post_json(&batches, &json!({})).await;
    assert_problem(&as_json, 415, "unsupported_media_type");
    let unknown = format!("{CLASSIFIERS}/{}/batches", Uuid::nil());
    assert_problem(
        &home.app.send(form(&unknown, &one)).await,
        404,
        "classifier_not_found",
    );
    let empty = home
        .app
        .post_json(CLASSIFIERS, &json!({"name": "Empty"}))
        .await;
    let empty = format!("{}/batches", empty.header("location"));
    let answer = home.app.send(form(&empty, &one)).await;
    let problem = assert_problem(&answer, 422, "invalid_parameter");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("at least 2 classes")
    );
    assert_eq!(home.get(&batches).await["batches"], json!([]));
    assert_eq!(home.jobs.store().gc().await.unwrap().blobs, 0);
    assert_eq!(home.files(), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_twice_with_one_key_is_made_once() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let batches = format!("{path}/batches");
    let send = async |parts: &Parts| {
        let mut request = form(&batches, parts);
        request
            .headers_mut()
            .insert(KEY, HeaderValue::from_static("once"));
        home.app.send(request).await
    };
    let one = images(&[("1.png", png(1, 2, 3))]);
    let first = send(&one).await;
    assert_eq!(first.status, 202, "{:?}", first.body);
    assert_eq!(send(&one).await.json(), first.json());
    let other = images(&[("1.png", png(3, 2, 1))]);
    assert_problem(&send(&other).await, 409, "idempotency_key_used");
    let list = home.get(&batches).await;
    assert_eq!(list["batches"].as_array().unwrap().len(), 1);
}

/// Lets the encoder on until the job has ended, and gives how often it was asked.
async fn let_all_on(
    arrivals: &Receiver<()>,
    go_on: &Sender<()>,
    is_over: impl Fn() -> bool,
) -> usize {
    let mut asked = 0;
    while !is_over() {
        if arrivals.try_recv().is_ok() {
            asked += 1;
            go_on.send(()).unwrap();
        }
        tokio::task::yield_now().await;
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_batch_goes_on_where_it_was_with_the_classifier_of_its_beginning() {
    let (folder, own) = new_folder().await;
    let (app, jobs) = TestApp::sorting(own);
    let home = Home { folder, app, jobs };
    let path = home.colours("pictures").await;
    let pictures: Vec<(String, Vec<u8>)> = (0..64)
        .map(|number| (format!("{number}.png"), picture(number)))
        .collect();
    let sent: Parts = pictures
        .iter()
        .map(|(name, bytes)| part("images", name, bytes.clone()))
        .collect();
    // Of an unbroken run.
    let whole = home.sorted(&path, "", &sent).await;
    let expected = home.get(&format!("{whole}?limit=200")).await["pictures"].clone();
    let batch = home.send(&format!("{path}/batches"), &sent).await;
    let address = format!("{path}/batches/{}", batch["id"].as_str().unwrap());
    let Home { folder, app, jobs } = home;
    drop((app, jobs));

    // The next process gets through two of the four chunks.
    let (app, jobs, arrivals, go_on) = TestApp::sorting_slowly(registry(folder.path()).await);
    let running = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.step(None).await.unwrap().unwrap() }
    });
    for _ in 0..2 {
        tokio::task::block_in_place(|| arrivals.recv()).unwrap();
        go_on.send(()).unwrap();
    }
    tokio::task::block_in_place(|| arrivals.recv()).unwrap();
    jobs.stop();
    go_on.send(()).unwrap();
    let asked = let_all_on(&arrivals, &go_on, || running.is_finished()).await;
    assert_eq!(asked, 0);
    assert_eq!(running.await.unwrap().state, JobState::Queued);
    let page = app.get(&address).await.json();
    assert_eq!(page["done_count"], 48);
    drop((app, jobs));

    // Meanwhile another class is where red was.
    let (app, jobs, arrivals, go_on) = TestApp::sorting_slowly(registry(folder.path()).await);
    let shown = app.get(&path).await.json();
    let red = shown["classes"][0]["id"].as_str().unwrap().to_owned();
    let gone = Request::delete(format!("{path}/classes/{red}"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(app.send(gone).await.status, 200);
    let running = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.step(None).await.unwrap().unwrap() }
    });
    let asked = let_all_on(&arrivals, &go_on, || running.is_finished()).await;
    // One chunk was left, and the classifier was not made again.
    assert_eq!(asked, 1);
    assert_eq!(running.await.unwrap().state, JobState::Succeeded);
    let page = app.get(&format!("{address}?limit=200")).await.json();
    assert_eq!(page["pictures"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_batch_keeps_its_rows_and_a_deleted_one_or_classifier_ends_its_job() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let files = home.files();
    let sent = images(&[("1.png", png(1, 2, 3))]);
    let batches = format!("{path}/batches");
    let batch = home.send(&batches, &sent).await;
    let job = batch["job"]["id"].as_str().unwrap().to_owned();
    let cancel = Request::post(format!("/api/v1/jobs/{job}/cancel"));
    let cancelled = home.app.send(cancel.body(Body::empty()).unwrap()).await;
    assert_eq!(cancelled.json()["state"], "cancelled");
    let address = format!("{batches}/{}", batch["id"].as_str().unwrap());
    let page = home.get(&address).await;
    assert_eq!(
        (&page["done_count"], &page["job"]["state"]),
        (&json!(0), &json!("cancelled"))
    );
    assert_eq!(home.files(), files);

    let batch = home.send(&batches, &sent).await;
    let address = format!("{batches}/{}", batch["id"].as_str().unwrap());
    assert_eq!(home.delete(&address).await.status, 200);
    let job = format!("/api/v1/jobs/{}", batch["job"]["id"].as_str().unwrap());
    assert_eq!(home.get(&job).await["state"], "cancelled");

    let batch = home.send(&batches, &sent).await;
    assert_eq!(home.delete(&path).await.status, 200);
    let ended = home.jobs.step(None).await.unwrap().unwrap();
    assert_eq!(ended.id.to_string(), batch["job"]["id"].as_str().unwrap());
    assert_eq!(ended.state, JobState::Succeeded, "{:?}", ended.error);
    assert_eq!(ended.result.unwrap()["batch"], Value::Null);
    assert_eq!(home.files(), 0);
}
