//! Health tells what works: faults show, and go when they are mended.

use crate::server::Server;
use crate::test_app::{Behaviour, TestApp, png};
use lora_recycle::web::WebLimits;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A fault shows, and is gone again, within this.
const SOON: Duration = Duration::from_secs(15);

fn start() -> (TempDir, PathBuf, Server) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lora-recycle"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(&data);
    let server = Server::of(command);
    (folder, data, server)
}

async fn ready(server: &Server) -> (StatusCode, Value) {
    let answer = reqwest::get(server.url("/readyz")).await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// Asks until the status of the answer and what it says are these.
async fn until(server: &Server, status: u16, says: &str) -> Value {
    let begun = Instant::now();
    loop {
        let (found, body) = ready(server).await;
        if found == status && body["status"].as_str().unwrap_or("problem") == says {
            return body;
        }
        assert!(begun.elapsed() < 2 * SOON, "{found}: {body:#}");
    }
}

async fn embeds(server: &Server) -> StatusCode {
    let picture = Part::bytes(png(255, 0, 0)).file_name("a.png");
    let form = Form::new().part("image", picture);
    let post = Client::new().post(server.url("/api/v1/embed"));
    post.multipart(form).send().await.unwrap().status()
}

/// Another program that holds the database until it is dropped.
struct Locked(Child);

impl Locked {
    fn hold(data: &Path) -> Self {
        let script = "import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(data.join("lora-recycle.sqlite"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failed(body: &Value) -> Vec<String> {
    let checks = body["checks"].as_array().unwrap().iter();
    let failed = checks.filter(|check| check["ok"] == false);
    failed
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_holds_is_degraded_and_changes_are_503_until_it_lets_go() {
    let (_folder, data, server) = start();
    until(&server, 200, "ready").await;
    let held = Locked::hold(&data);
    let change = Client::new()
        .post(server.url("/api/v1/classifiers"))
        .json(&json!({"name": "Trees"}))
        .send();
    let change = tokio::spawn(change);
    assert_eq!(failed(&until(&server, 200, "degraded").await), ["database"]);
    assert_eq!(embeds(&server).await, 200);
    let refused = change.await.unwrap().unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    drop(held);
    until(&server, 200, "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_adapter_whose_file_is_gone_is_not_ready_and_comes_back_with_the_file() {
    let (_folder, data, server) = start();
    until(&server, 200, "ready").await;
    let listed = reqwest::get(server.url("/api/v1/adapters/signs-and-shapes"));
    let adapter: Value = listed.await.unwrap().json().await.unwrap();
    let files = adapter["files"].as_array().unwrap().iter();
    let digests: Vec<&str> = files.map(|file| file["digest"].as_str().unwrap()).collect();
    let hidden = data.join("hidden");
    let mut moved = Vec::new();
    let mut folders = vec![data.join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if digests.iter().any(|digest| path.ends_with(digest)) {
                let to = hidden.join(path.file_name().unwrap());
                fs::create_dir_all(&hidden).unwrap();
                fs::rename(&path, &to).unwrap();
                moved.push((to, path));
            }
        }
    }
    assert!(!moved.is_empty(), "{adapter:#}");
    let problem = until(&server, 503, "problem").await;
    assert_eq!(problem["code"], "not_ready", "{problem:#}");
    for (from, to) in moved {
        fs::rename(from, to).unwrap();
    }
    until(&server, 200, "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_cannot_be_written_is_degraded() {
    let (_folder, data, server) = start();
    until(&server, 200, "ready").await;
    let (jobs, aside) = (data.join("jobs"), data.join("jobs.aside"));
    let was_there = fs::rename(&jobs, &aside).is_ok();
    fs::write(&jobs, "in the way").unwrap();
    assert_eq!(
        failed(&until(&server, 200, "degraded").await),
        ["data_folder"]
    );
    fs::remove_file(&jobs).unwrap();
    if was_there {
        fs::rename(&aside, &jobs).unwrap();
    }
    until(&server, 200, "ready").await;
}

#[tokio::test]
async fn an_encoder_that_does_not_answer_is_not_ready_after_five_seconds_and_health_is_alive() {
    let (app, _arrivals, _let_on) = TestApp::waiting(WebLimits::default());
    let answer = app.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("no answer after 5 s"), "{detail}");
    // Whoever asks now is told at once.
    assert_eq!(app.get("/readyz").await.status, 503);
    assert_eq!(app.get("/healthz").await.status, 200);
    let works = TestApp::behaving(Behaviour::Works);
    assert_eq!(works.get("/readyz").await.json()["status"], "ready");
}
