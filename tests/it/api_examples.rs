//! The examples of docs/API.md, run one after the other against the real router: every answer is as the page says.

use crate::jobs_support::options;
use crate::test_app::{Answered, TestApp, form_request, json_request, tiny_backbone};
use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lora_recycle::app::registry::Registry;
use lora_recycle::jobs::pool::PoolSummary;
use lora_recycle::jobs::{Jobs, Services, product_kinds};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use store::{Access, NewPool};
use test_support::pools::pool_on;
use test_support::project;

/// Stands for anything.
const ANYTHING: &str = "…";
/// The backbone of the page, and the small one that answers here.
const BACKBONES: (&str, &str) = ("dinov2-s8", "tiny");

/// A command of the page, and the answer below it.
struct Example {
    section: String,
    command: String,
    answer: Value,
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut section = String::new();
    let mut command = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        match (kind, command.take()) {
            ("bash", None) => command = Some(block),
            ("json", Some(command)) => examples.push(Example {
                section: section.clone(),
                command,
                answer: serde_json::from_str(&block.replace(BACKBONES.0, BACKBONES.1))
                    .unwrap_or_else(|error| panic!("{section}: {error}: {block}")),
            }),
            (kind, before) => panic!("{section}: a block of {kind} after {before:?}"),
        }
    }
    assert!(command.is_none());
    examples
}

/// Where a file that the page names lies here.
fn file(path: &str) -> PathBuf {
    match path.strip_prefix("my-lora/") {
        Some(name) => project("tests/golden/vit-tiny/adapter-peft-v4").join(name),
        None => project("assets/examples").join(path),
    }
}

/// Ids that earlier answers had.
#[derive(Default)]
struct Ids {
    job: String,
    classifier: String,
}

/// The words of a shell command, as far as the page uses the shell: quotes, `$NAME` and `$(base64 -w0 FILE)`.
fn words(command: &str, ids: &Ids) -> Vec<String> {
    let expanded = |text: &str| {
        let mut text = text
            .replace("$JOB", &ids.job)
            .replace("$CLASSIFIER", &ids.classifier);
        while let Some((before, rest)) = text.split_once("$(base64 -w0 ") {
            let (path, after) = rest.split_once(')').expect("a closing bracket");
            let bytes = fs::read(file(path)).expect(path);
            text = format!("{before}{}{after}", BASE64_STANDARD.encode(bytes));
        }
        text
    };
    let command = command.replace("\\\n", " ");
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut rest = command.as_str();
    while let Some(first) = rest.chars().next() {
        let text;
        (text, rest) = match first {
            '\'' | '"' => rest[1..].split_once(first).expect("a closing quote"),
            _ => rest.split_at(
                rest.find(|c: char| {
                    c == '\'' || c == '"' || (c.is_whitespace() != first.is_whitespace())
                })
                .unwrap_or(rest.len()),
            ),
        };
        match first {
            '\'' => word += text,
            _ if first.is_whitespace() => words.extend(Some(std::mem::take(&mut word))),
            _ => word += &expanded(text),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Sends what a `curl` command would send.
async fn send(app: &TestApp, words: &[String]) -> Answered {
    let (mut method, mut address, mut json, mut parts) = (None, None, None, Vec::new());
    let mut words = words.iter();
    assert_eq!(words.next().map(String::as_str), Some("curl"));
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value").as_str();
        match word.as_str() {
            "-X" => method = Some(value()),
            "--json" => json = Some(value().to_owned()),
            "-F" => {
                let (name, content) = value().split_once('=').expect("NAME=CONTENT");
                parts.push(match content.strip_prefix('@') {
                    Some(path) => {
                        let file_name = path.rsplit('/').next().unwrap_or_default();
                        let bytes = fs::read(file(path)).unwrap_or_else(|_| panic!("{path}"));
                        (name, file_name, bytes)
                    }
                    None => (name, "", content.as_bytes().to_vec()),
                });
            }
            _ => address = Some(word.strip_prefix("http://127.0.0.1:8080").expect(word)),
        }
    }
    let address = address.expect("an address");
    let mut request = match json {
        Some(json) => json_request(address, json),
        None if parts.is_empty() => Request::get(address).body(Body::empty()).unwrap(),
        None => {
            let parts: Vec<(&str, &str, &[u8])> = parts
                .iter()
                .map(|(name, file_name, bytes)| (*name, *file_name, bytes.as_slice()))
                .collect();
            form_request(address, &parts)
        }
    };
    if let Some(method) = method {
        *request.method_mut() = method.parse().unwrap();
    }
    app.send(request).await
}

/// Panics where `actual` is not as `expected` says.
fn compare(expected: &Value, actual: &Value, place: &str) {
    match (expected, actual) {
        (Value::String(pattern), _) if pattern == ANYTHING => {}
        (Value::String(pattern), Value::String(actual)) => {
            let (start, end) = pattern.split_once(ANYTHING).unwrap_or((pattern, ""));
            let is_as_long = pattern.contains(ANYTHING) || actual.len() == pattern.len();
            let matches = actual.starts_with(start) && actual.ends_with(end) && is_as_long;
            assert!(matches, "{place}: {actual:?} instead of {pattern:?}");
        }
        (Value::Object(expected), Value::Object(actual)) => {
            for (name, value) in expected.iter().filter(|(name, _)| *name != ANYTHING) {
                let found = actual.get(name);
                let found = found.unwrap_or_else(|| panic!("{place} has no {name}: {actual:?}"));
                compare(value, found, &format!("{place}.{name}"));
            }
            if !expected.contains_key(ANYTHING) {
                let more = actual.keys().find(|name| !expected.contains_key(*name));
                assert_eq!(more, None, "{place} has more: {actual:?}");
            }
        }
        (Value::Array(expected), Value::Array(_)) if *expected == [json!(ANYTHING)] => {}
        (Value::Array(expected), Value::Array(actual)) => {
            assert_eq!(expected.len(), actual.len(), "{place}: {actual:?}");
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(expected, actual, &format!("{place}[{index}]"));
            }
        }
        (expected, actual) => assert_eq!(expected, actual, "{place}"),
    }
}

/// Something of everything that the page asks for.
async fn app(registry: Registry) -> TestApp {
    let backbone = tiny_backbone();
    let name = BACKBONES.1.parse().unwrap();
    let source = project("tests/golden/vit-tiny");
    registry.add_backbone(&source, &name).await.unwrap();
    let pool = pool_on("vit-tiny");
    let files = pool.to_files().unwrap().into_iter();
    let new = NewPool {
        backbone_digest: backbone.digest.parse().unwrap(),
        summary: json!(PoolSummary::of(pool.manifest())),
        files: files.map(|file| (file.path, file.bytes)).collect(),
        ..crate::jobs_support::pool_of("pets")
    };
    registry.store().create_pool(new).await.unwrap();
    let services = Services::new(registry.clone(), Some(backbone));
    let jobs = Jobs::new(services, product_kinds(), options());
    TestApp::with_jobs(registry, jobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_page_is_answered_as_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), Access::Exclusive).await;
    let app = app(registry.unwrap()).await;
    let page = fs::read_to_string(project("docs/API.md")).unwrap();
    let examples = examples(&page);
    let mut ids = Ids::default();
    for example in &examples {
        let Example {
            section,
            command,
            answer,
        } = example;
        let lines = command.lines().filter(|line| !line.starts_with("cd "));
        let command = lines.collect::<Vec<_>>().join("\n");
        let answered = send(&app, &words(&command, &ids)).await;
        let body = answered.json();
        compare(answer, &body, &format!("{section}: {command}\n"));
        if let Some(id) = body["jobs"][0]["id"].as_str() {
            id.clone_into(&mut ids.job);
        }
        if let (Some(id), true) = (body["id"].as_str(), body["class_count"].is_u64()) {
            id.clone_into(&mut ids.classifier);
        }
    }
    let sections = page.lines().filter_map(|line| line.strip_prefix("## "));
    for section in sections {
        let has_one = examples.iter().any(|example| example.section == section);
        assert!(has_one, "the section \"{section}\" has no example");
    }
}
