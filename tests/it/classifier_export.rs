//! Classifiers that leave: to another installation, and to other programs.

use crate::registry_api::assert_problem;
use crate::server::Server;
use crate::support::{make_colours, program};
use crate::test_app::{Answered, TestApp, borrowed, form_request, png};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request};
use image::ImageFormat;
use image::imageops::{self, FilterType};
use lora_recycle::app::registry::{ImportOptions, Registry, RegistryError, shipped_package};
use model::adapter::{FileLimits, NamedFile, Package, checksums, read_zip, write_zip};
use serde_json::{Value, json};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use store::{Access, StoreError};
use tempfile::TempDir;
use test_support::project;
use test_support::store::when_free;

const CLASSIFIERS: &str = "/api/v1/classifiers";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Besides its classes, an installation.
const ADAPTER: &str = "tests/golden/vit-tiny/adapter-peft-v4";

/// An installation: ONNX Runtime on the tiny backbone, and a data folder.
struct Home {
    /// Removed at the end.
    _folder: TempDir,
    registry: Registry,
    app: TestApp,
}

impl Home {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = async || Registry::open(folder.path(), Access::Exclusive).await;
        let busy =
            |error: &RegistryError| matches!(error, RegistryError::Store(StoreError::InUse { .. }));
        let registry = when_free(open, busy).await;
        let tiny = project("tests/golden/vit-tiny");
        registry
            .add_backbone(&tiny, &"tiny".parse().unwrap())
            .await
            .unwrap();
        Self {
            _folder: folder,
            app: TestApp::with_onnx_runtime(Some(registry.clone())),
            registry,
        }
    }

    /// The same with the embedded backbone and the adapter that comes with it, as `pets`.
    async fn embedded() -> Self {
        let mut own = Self::new().await;
        own.app = TestApp::embedded(own.registry.clone());
        let name = "pets".parse().unwrap();
        let shipped = own
            .registry
            .import(shipped_package(), name, ImportOptions::default());
        shipped.await.unwrap();
        own
    }

    async fn with_adapter(self) -> Self {
        let package = Package::read(&project(ADAPTER), &FileLimits::default()).unwrap();
        let name = "pets".parse().unwrap();
        self.registry
            .import(package, name, ImportOptions::default())
            .await
            .unwrap();
        self
    }

    /// A classifier of three colours, five pictures each; gives its address.
    async fn colours(&self, adapter: &str, privacy: &str) -> String {
        let body = json!({"name": "Colours", "adapter": adapter, "privacy": privacy});
        let made = self.app.post_json(CLASSIFIERS, &body).await;
        assert_eq!(made.status, 201, "{:?}", made.body);
        let path = made.header("location").to_owned();
        let mut parts = Vec::new();
        for (label, number) in ["red", "Grün, \"hell\"", "blue"]
            .into_iter()
            .flat_map(|label| (0..5_u8).map(move |number| (label, number)))
        {
            let (low, high) = (9 * number, 250 - 11 * number);
            let bytes = match label {
                "red" => png(high, low, 30),
                "blue" => png(20, low, high),
                _ => png(low, high, 10),
            };
            let label = label.replace('"', "%22");
            parts.push((format!("support/{label}"), format!("{number}.png"), bytes));
        }
        let answer = self.app.send(form(&format!("{path}/images"), &parts)).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        path
    }

    /// A classifier of the photographs that come with the program.
    async fn photographs(&self, adapter: &str) -> String {
        let body = json!({"name": "Photographs", "adapter": adapter});
        let made = self.app.post_json(CLASSIFIERS, &body).await;
        let path = made.header("location").to_owned();
        let mut parts = Vec::new();
        for label in ["fish", "mammal", "windmill"] {
            for entry in fs::read_dir(project("assets/examples").join(label)).unwrap() {
                let file = entry.unwrap().path();
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                parts.push((format!("support/{label}"), name, fs::read(file).unwrap()));
            }
        }
        let answer = self.app.send(form(&format!("{path}/images"), &parts)).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        path
    }

    async fn results(&self, classifier: &str, pictures: &[(String, Vec<u8>)]) -> Value {
        let query =
            |(name, bytes): &(String, Vec<u8>)| ("query".to_owned(), name.clone(), bytes.clone());
        let parts: Vec<_> = pictures.iter().map(query).collect();
        let answer = self
            .app
            .send(form(&format!("{classifier}/classify"), &parts))
            .await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()["results"].clone()
    }

    async fn exported(&self, classifier: &str, format: &str) -> Vec<NamedFile> {
        let zip = self
            .app
            .get(&format!("{classifier}/export?format={format}"))
            .await;
        assert_eq!(zip.status, 200, "{:?}", zip.body);
        assert_eq!(zip.header("content-type"), "application/zip");
        read_zip(&zip.body, &FileLimits::default()).unwrap()
    }

    async fn import(&self, files: &[NamedFile]) -> Answered {
        self.import_zip(&write_zip(files).unwrap()).await
    }

    async fn import_zip(&self, zip: &[u8]) -> Answered {
        let path = format!("{CLASSIFIERS}/import");
        self.app
            .post_form(&path, &[("file", "classifier.zip", zip)])
            .await
    }

    /// Names of what is stored.
    async fn classifiers(&self) -> Vec<String> {
        let list = self.app.get(CLASSIFIERS).await.json();
        let list = list["classifiers"].as_array().unwrap();
        list.iter()
            .map(|own| own["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn form(path: &str, parts: &[(String, String, Vec<u8>)]) -> Request<Body> {
    form_request(path, &borrowed(parts))
}

/// Side in pixels of the pictures that the embedded backbone sees.
const NATIVE: u32 = 98;

/// Photographs of several sizes, the first as the embedded backbone sees it.
fn pictures() -> Vec<(String, Vec<u8>)> {
    let sizes = [(NATIVE, NATIVE), (300, 200), (64, 480), (9, 7)];
    let names = ["clownfish", "hedgehog", "polder-mill", "sheep"];
    let pictures = names.into_iter().zip(sizes).map(|(name, (width, height))| {
        let photograph =
            image::open(project(&format!("assets/examples/queries/{name}.jpg"))).unwrap();
        let picture =
            imageops::resize(&photograph.to_rgb8(), width, height, FilterType::CatmullRom);
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        (format!("{width}.png"), bytes.into_inner())
    });
    pictures.collect()
}

fn changed(files: &[NamedFile], change: impl FnOnce(&mut Value)) -> Vec<NamedFile> {
    let kept = files.iter().filter(|file| file.path != "SHA256SUMS");
    let mut files: Vec<NamedFile> = kept.cloned().collect();
    let manifest = files
        .iter_mut()
        .find(|file| file.path == "classifier.json")
        .unwrap();
    let mut value: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    change(&mut value);
    manifest.bytes = value.to_string().into_bytes();
    files.push(checksums(&files));
    files
}

/// Answers without the ids of near pictures, which are others in another installation.
fn without_ids(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("id");
            for field in fields.values_mut() {
                *field = without_ids(field.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = without_ids(item.take());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_classifier_answers_with_the_bits_that_it_answered_with_before() {
    let here = Home::new().await.with_adapter().await;
    for (adapter, privacy, head) in [
        ("none", "pictures", "auto"),
        ("pets", "pictures", "lda:shrinkage=0.4"),
        ("pets", "features", "auto"),
    ] {
        let classifier = here.colours(adapter, privacy).await;
        let set = Request::patch(&classifier).header("content-type", "application/json");
        let set = set.body(json!({"head": head, "reject": 0.1}).to_string().into());
        assert_eq!(here.app.send(set.unwrap()).await.status, 200);
        let expected = here.results(&classifier, &pictures()).await;
        let bundle = here.exported(&classifier, "bundle").await;
        let there = Home::new().await;
        let answer = there.import(&bundle).await;
        let imported = answer.json();
        assert_eq!(answer.status, 201, "{imported:#}");
        assert_eq!(imported["name"], "Colours");
        assert_eq!(imported["privacy"], "features");
        assert_eq!(
            (&imported["head"], &imported["reject"]),
            (&json!(head), &json!(0.1_f32))
        );
        assert_eq!(imported["is_exact"], true);
        assert_eq!(imported["picture_count"], 15);
        let classes = imported["classes"].as_array().unwrap();
        assert_eq!(classes[1]["name"], "Grün, \"hell\"");
        let found = answer.header("location").to_owned();
        assert_eq!(
            without_ids(there.results(&found, &pictures()).await),
            without_ids(expected),
            "{adapter} {privacy}"
        );
        // Again, from there: the same bytes but for what is called by id.
        let again = there.exported(&found, "bundle").await;
        let head = |files: &[NamedFile]| {
            files
                .iter()
                .find(|file| file.path == "head.safetensors")
                .unwrap()
                .bytes
                .clone()
        };
        assert_eq!(head(&again), head(&bundle));
        // It can still learn, and its adapter is not imported twice.
        let more = form(
            &format!("{found}/images"),
            &[(
                "support/red".to_owned(),
                "new.png".to_owned(),
                png(240, 40, 40),
            )],
        );
        assert_eq!(there.app.send(more).await.status, 200);
        assert_eq!(there.import(&bundle).await.status, 201);
        let adapters = there.app.get("/api/v1/adapters").await.json();
        let count = usize::from(adapter == "pets");
        assert_eq!(adapters["adapters"].as_array().unwrap().len(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_not_imported_and_leaves_nothing() {
    let here = Home::new().await.with_adapter().await;
    let classifier = here.colours("pets", "pictures").await;
    let bundle = here.exported(&classifier, "bundle").await;
    let there = Home::new().await;
    let other = changed(&bundle, |manifest| {
        manifest["backbone_name"] = "other".into();
        manifest["backbone_digest"] = "ab".repeat(32).into();
    });
    let problem = assert_problem(
        &there.import(&other).await,
        409,
        "classifier_for_other_backbone",
    );
    assert!(
        problem["detail"].as_str().unwrap().contains("other (abab"),
        "{problem:#}"
    );
    let mut damaged = bundle.clone();
    let head = damaged
        .iter_mut()
        .find(|file| file.path == "head.safetensors")
        .unwrap();
    *head.bytes.last_mut().unwrap() ^= 1;
    let mut without = bundle.clone();
    without.retain(|file| file.path != "features.safetensors");
    let mut bare = changed(&bundle, |_| {});
    bare.retain(|file| file.path != "adapter.zip" && file.path != "SHA256SUMS");
    bare.push(checksums(&bare));
    let mut swapped = changed(&bundle, |manifest| {
        let pictures = manifest["pictures"].as_array_mut().unwrap();
        pictures[0]["class"] = 2.into();
    });
    swapped.sort_by(|a, b| a.path.cmp(&b.path));
    for (files, words) in [
        (damaged, "head.safetensors is not what"),
        (without, "features.safetensors is"),
        (bare, "its adapter pets:1 is missing"),
        (swapped, "another head"),
        (
            changed(&bundle, |own| own["version"] = 2.into()),
            "version 2",
        ),
        (
            changed(&bundle, |own| own["format"] = "x".into()),
            "no bundle of a classifier",
        ),
        (
            changed(&bundle, |own| own["features"][0] = "x".into()),
            "--image-size",
        ),
        (
            changed(&bundle, |own| own["pictures"][3]["class"] = 99.into()),
            "of no class",
        ),
        (
            vec![NamedFile::new("notes.txt", "x")],
            "classifier.json is missing",
        ),
    ] {
        let answer = there.import(&files).await;
        let problem = assert_problem(&answer, 422, "classifier_refused");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
    }
    let problem = assert_problem(
        &there.import_zip(b"no zip").await,
        422,
        "classifier_refused",
    );
    assert_eq!(problem["parameter"], "file");
    assert!(there.classifiers().await.is_empty());
    let empty = here
        .app
        .post_json(CLASSIFIERS, &json!({"name": "Empty"}))
        .await;
    for format in ["bundle", "onnx"] {
        let export = format!("{}/export?format={format}", empty.header("location"));
        assert_problem(&here.app.get(&export).await, 422, "invalid_parameter");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_sent_twice_with_one_key_is_imported_once() {
    let here = Home::new().await;
    let bundle = here
        .exported(&here.colours("none", "pictures").await, "bundle")
        .await;
    let zip = write_zip(&bundle).unwrap();
    let path = format!("{CLASSIFIERS}/import?name=Copy");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut request = form_request(&path, &[("file", "classifier.zip", &zip)]);
        request
            .headers_mut()
            .insert(KEY, HeaderValue::from_static("once"));
        let answer = here.app.send(request).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        ids.push(answer.json()["id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(here.classifiers().await, ["Copy", "Colours"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_that_use_a_classifier_have_the_answers_of_the_server() {
    let home = tempfile::tempdir().unwrap();
    make_colours(home.path());
    fs::write(home.path().join("picture.jpg"), png(220, 20, 0)).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--backbone", "tiny"];
    let server = Server::of(program(home.path(), &serve));
    let client = reqwest::Client::new();
    let get = async |path: String| {
        let answer = client.get(server.url(&path)).send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    let list = get(CLASSIFIERS.to_owned()).await;
    let id = list["classifiers"][0]["id"].as_str().unwrap().to_owned();
    let snippets = get(format!("{CLASSIFIERS}/{id}/snippets")).await;
    let text = |language: &str| snippets[language].as_str().unwrap().to_owned();
    for language in ["curl", "python", "javascript"] {
        let address = server.url(&format!("{CLASSIFIERS}/{id}/classify"));
        assert!(text(language).contains(&address), "{}", text(language));
    }
    let output = |command: &mut Command| {
        let output = command.current_dir(home.path()).output().ok()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}\n{errors}");
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let by_curl = output(Command::new("sh").args(["-c", &text("curl")])).expect("a shell");
    let by_curl: Value = serde_json::from_str(&by_curl).unwrap();
    let best = &by_curl["results"][0]["scores"][0];
    assert_eq!(best["label"], "red");
    let expected = format!("red {}\n", best["probability"]);
    fs::write(home.path().join("use.mjs"), text("javascript")).unwrap();
    for (name, command) in [
        (
            "Python",
            Command::new("python3").args(["-c", &text("python")]),
        ),
        ("JavaScript", Command::new("node").arg("use.mjs")),
    ] {
        match output(command) {
            Some(printed) => assert_eq!(printed, expected, "{name}"),
            None => eprintln!("skipped: {name} is not on PATH"),
        }
    }
}

/// Where `scripts/ensure_onnx_examples` puts what the examples need; says so where it is not there.
fn installed(kind: &str) -> Option<PathBuf> {
    let folder = project(".venv/onnx-examples").join(kind);
    if folder.join("installed.txt").exists() {
        return Some(folder);
    }
    eprintln!("skipped: {kind} has no ONNX Runtime; scripts/ensure_onnx_examples installs it");
    None
}

fn lines(command: &mut Command) -> Vec<Value> {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        text(&output.stderr)
    );
    text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn assert_close(found: &[Value], expected: &Value, who: &str) {
    let expected = expected.as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{who}");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        // ONNX Runtime computes the kernels of resampling in `f32`: a few levels in 10,000 differ by one.
        let within = if place == 0 { 1e-4 } else { 1e-3 };
        assert_eq!(found["label"], expected["label"], "{who}");
        for score in expected["scores"].as_array().unwrap() {
            let own = found["scores"][score["label"].as_str().unwrap()]
                .as_f64()
                .unwrap();
            let off = (own - score["probability"].as_f64().unwrap()).abs();
            assert!(off < within, "{who}: {found:#} and {expected:#}");
        }
    }
}

fn written(folder: &Path, files: &[(String, Vec<u8>)]) -> Vec<PathBuf> {
    let write = |(name, bytes): &(String, Vec<u8>)| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    files.iter().map(write).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_beside_an_onnx_model_have_the_answers_of_the_server() {
    let here = Home::embedded().await;
    for adapter in ["none", "pets"] {
        let classifier = here.photographs(adapter).await;
        let expected = here.results(&classifier, &pictures()).await;
        let folder = tempfile::tempdir().unwrap();
        let files = here.exported(&classifier, "onnx").await;
        let files = files.into_iter().map(|file| (file.path, file.bytes));
        written(folder.path(), &files.collect::<Vec<_>>());
        for example in ["classify.py", "classify.mjs"] {
            let text = fs::read_to_string(folder.path().join(example)).unwrap();
            assert!(text.lines().count() <= 20, "{example}");
        }
        let paths = written(folder.path(), &pictures());
        if let Some(python) = installed("python") {
            let mut command = Command::new(python.join("bin/python"));
            let command = command.arg(folder.path().join("classify.py")).args(&paths);
            assert_close(&lines(command), &expected, "Python");
        }
        if let Some(node) = installed("node") {
            let packages = folder.path().join("node_modules");
            std::os::unix::fs::symlink(node.join("node_modules"), packages).unwrap();
            let mut command = Command::new("node");
            let command = command.arg(folder.path().join("classify.mjs")).args(&paths);
            assert_close(&lines(command), &expected, "JavaScript");
        }
    }
}
