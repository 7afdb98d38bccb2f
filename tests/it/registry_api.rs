//! The registry over HTTP: the real router around a fresh data folder.

use crate::test_app::{Answered, TestApp, form_request};
use axum::body::Body;
use axum::http::Request;
use lora_recycle::app::registry::Registry;
use model::adapter::NamedFile;
use serde_json::{Value, json};
use store::Access;
use tempfile::TempDir;
use test_support::broken_adapters::{BrokenSource, corpus, golden, zip_of};
use test_support::project;

/// The app, and the folder that must outlive it.
pub struct Fresh {
    pub app: TestApp,
    _folder: TempDir,
}

/// A registry with these golden backbones beside the embedded one.
async fn fresh(backbones: &[&str]) -> Fresh {
    fresh_around(backbones, TestApp::with_registry).await
}

/// As [`fresh`], with the app that `open` makes of the registry.
pub async fn fresh_around(backbones: &[&str], open: impl FnOnce(Registry) -> TestApp) -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), Access::Exclusive)
        .await
        .unwrap();
    for name in backbones {
        let source = project("tests/golden").join(name);
        registry
            .add_backbone(&source, &name.parse().unwrap())
            .await
            .unwrap();
    }
    Fresh {
        app: open(registry),
        _folder: folder,
    }
}

impl Fresh {
    pub async fn post_files(&self, query: &str, files: &[NamedFile]) -> Answered {
        let parts: Vec<(&str, &str, &[u8])> = files
            .iter()
            .map(|file| ("file", file.path.as_str(), file.bytes.as_slice()))
            .collect();
        let request = form_request(&format!("/api/v1/adapters{query}"), &parts);
        self.app.send(request).await
    }

    pub async fn post_zip(&self, query: &str, bytes: Vec<u8>) -> Answered {
        self.post_files(query, &[NamedFile::new("adapter.zip", bytes)])
            .await
    }

    /// Imports a golden adapter and gives the answer.
    pub async fn import(&self, model: &str, name: &str) -> Value {
        let answer = self
            .post_files(&format!("?name={name}"), &golden(model, "adapter-peft-v4"))
            .await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        answer.json()
    }

    pub async fn request(&self, method: &str, path: &str, body: Option<Value>) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.app.send(request.body(body).unwrap()).await
    }

    async fn count(&self) -> usize {
        let list = self.app.get("/api/v1/adapters").await.json();
        list["adapters"].as_array().unwrap().len()
    }
}

pub fn assert_problem(answer: &Answered, status: u16, code: &str) -> Value {
    let problem = answer.json();
    assert_eq!(answer.status.as_u16(), status, "{problem:#}");
    assert_eq!(problem["code"], code, "{problem:#}");
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{problem:#}"
    );
    problem
}

#[tokio::test]
async fn an_adapter_is_imported_listed_shown_and_found() {
    let fresh = fresh(&["dinov2-tiny"]).await;
    let mut files = golden("dinov2-tiny", "adapter-peft-v4");
    for file in &mut files {
        file.path = format!("my-lora/{}", file.path);
    }
    files.push(NamedFile::new("my-lora/training_args.bin", "pickle"));
    let answer = fresh
        .post_files("?name=pets&tags=demo,small&notes=from%20a%20test", &files)
        .await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let body = answer.json();
    let adapter = &body["adapter"];
    assert_eq!(
        answer.header("location"),
        format!("/api/v1/adapters/{}", adapter["id"].as_str().unwrap())
    );
    assert_eq!(adapter["label"], "pets:1");
    assert_eq!(adapter["rank"], 4);
    assert_eq!(adapter["targets"], "query, value in 4 layers");
    assert_eq!(adapter["backbone"]["name"], "dinov2-tiny");
    assert_eq!(adapter["head"]["classes"], 5);
    assert_eq!(adapter["tags"], json!(["demo", "small"]));
    assert_eq!(adapter["notes"], "from a test");
    let names: Vec<&str> = adapter["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
    assert_eq!(body["report"]["errors"], json!([]));

    for reference in ["pets", "pets:1", adapter["id"].as_str().unwrap()] {
        let shown = fresh
            .app
            .get(&format!("/api/v1/adapters/{reference}"))
            .await;
        assert_eq!(&shown.json(), adapter, "{reference}");
    }
    let report = fresh.app.get("/api/v1/adapters/pets/report").await;
    assert_eq!(report.json(), body["report"]);
    for (query, found) in [
        ("search=PET", 1),
        ("search=birds", 0),
        ("tag=demo", 1),
        ("tag=large", 0),
        ("name=pets", 1),
        ("backbone=dinov2-tiny", 1),
        ("backbone=dinov2-s8", 0),
    ] {
        let list = fresh.app.get(&format!("/api/v1/adapters?{query}")).await;
        let list = list.json();
        assert_eq!(list["adapters"].as_array().unwrap().len(), found, "{query}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let fresh = fresh(&["vit-tiny"]).await;
    for _ in 0..3 {
        fresh.import("vit-tiny", "a").await;
    }
    let first = fresh.app.get("/api/v1/adapters?limit=2").await.json();
    assert_eq!(first["adapters"][0]["label"], "a:3");
    assert_eq!(first["adapters"][1]["label"], "a:2");
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = fresh
        .app
        .get(&format!("/api/v1/adapters?limit=2&cursor={cursor}"))
        .await
        .json();
    assert_eq!(second["adapters"].as_array().unwrap().len(), 1);
    assert_eq!(second["adapters"][0]["label"], "a:1");
    assert_eq!(second["next_cursor"], Value::Null);
    let too_many = fresh.app.get("/api/v1/adapters?limit=0").await;
    assert_problem(&too_many, 422, "invalid_parameter");
}

#[tokio::test]
async fn every_broken_adapter_is_refused_with_its_own_message_and_nothing_is_stored() {
    let fresh = fresh(&["vit-tiny"]).await;
    for broken in corpus() {
        let (refused, looked_at) = match &broken.source {
            BrokenSource::Files(files) => (
                fresh.post_files("?name=a&backbone=vit-tiny", files).await,
                fresh
                    .post_files("?dry_run=true&backbone=vit-tiny", files)
                    .await,
            ),
            BrokenSource::Zip(bytes) => (
                fresh
                    .post_zip("?name=a&backbone=vit-tiny", bytes.clone())
                    .await,
                fresh
                    .post_zip("?dry_run=true&backbone=vit-tiny", bytes.clone())
                    .await,
            ),
        };
        if refused.status != 422 {
            panic!("{}: {} {:?}", broken.name, refused.status, refused.body);
        }
        let problem = assert_problem(&refused, 422, "adapter_refused");
        let errors = problem["report"]["errors"].to_string();
        let said: String = problem["report"]["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error.as_str().unwrap())
            .collect::<Vec<_>>()
            .join("\n");
        assert!(said.contains(broken.expected), "{}: {errors}", broken.name);
        assert_eq!(looked_at.status, 200, "{}", broken.name);
        let looked_at = looked_at.json();
        assert_eq!(looked_at["adapter"], Value::Null);
        assert_eq!(looked_at["report"], problem["report"], "{}", broken.name);
    }
    assert_eq!(fresh.count().await, 0);
    let storage = fresh.app.get("/api/v1/storage").await.json();
    assert_eq!(storage["blobs"], 0);
}

#[tokio::test]
async fn a_dry_run_needs_no_name_and_stores_nothing() {
    let fresh = fresh(&["vit-tiny"]).await;
    let files = golden("vit-tiny", "adapter-peft-v4");
    let answer = fresh.post_files("?dry_run=true", &files).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["adapter"], Value::Null);
    assert_eq!(answer.json()["report"]["backbone"], "vit-tiny");
    assert_eq!(fresh.count().await, 0);
    let nameless = fresh.post_files("", &files).await;
    assert_eq!(
        assert_problem(&nameless, 422, "invalid_parameter")["parameter"],
        "name"
    );
}

#[tokio::test]
async fn names_that_mean_something_else_are_refused() {
    let fresh = fresh(&["vit-tiny"]).await;
    let files = golden("vit-tiny", "adapter-peft-v4");
    let digest = "0123456789abcdef".repeat(4);
    let names = ["none", "merge", "01890000-0000-7000-8000-000000000000"];
    for name in names.into_iter().chain([digest.as_str()]) {
        let answer = fresh.post_files(&format!("?name={name}"), &files).await;
        assert_problem(&answer, 422, "reserved_name");
    }
    let answer = fresh.post_files("?name=a%20b", &files).await;
    assert_problem(&answer, 422, "invalid_parameter");
    assert_eq!(fresh.count().await, 0);
}

#[tokio::test]
async fn an_unknown_reference_is_404_with_near_names() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "meta").await;
    let answer = fresh.app.get("/api/v1/adapters/mta").await;
    let problem = assert_problem(&answer, 404, "adapter_not_found");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean \"meta\"?")
    );
    for reference in ["meta:2", "meta@best", "meta:x", "a%20b"] {
        let answer = fresh
            .app
            .get(&format!("/api/v1/adapters/{reference}"))
            .await;
        assert_problem(&answer, 404, "adapter_not_found");
    }
    let backbone = fresh.app.get("/api/v1/adapters?backbone=vit-tny").await;
    assert_problem(&backbone, 404, "backbone_not_found");
}

#[tokio::test]
async fn what_is_exported_is_the_same_adapter_when_it_is_imported_again() {
    let fresh = fresh(&["clip-tiny", "dinov2-tiny"]).await;
    for model in ["clip-tiny", "dinov2-tiny"] {
        let first = fresh.import(model, model).await;
        let digest = &first["report"]["adapter_digest"];
        assert!(digest.is_string());
        for format in ["peft", "peft&names=v5", "bundle"] {
            let path = format!("/api/v1/adapters/{model}/export?format={format}");
            let export = fresh.app.get(&path).await;
            assert_eq!(export.status, 200, "{:?}", export.body);
            assert_eq!(
                export.header("content-disposition"),
                format!("attachment; filename=\"{model}-1.zip\"")
            );
            let again = fresh.post_zip("?name=again", export.body.to_vec()).await;
            assert_eq!(again.status, 201, "{:?}", again.body);
            assert_eq!(&again.json()["report"]["adapter_digest"], digest, "{path}");
        }
    }
}

#[tokio::test]
async fn a_bundle_that_was_changed_is_refused() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    let export = fresh
        .app
        .get("/api/v1/adapters/a/export?format=bundle")
        .await;
    let mut files =
        model::adapter::read_zip(&export.body, &model::adapter::FileLimits::default()).unwrap();
    for file in &mut files {
        if file.path.ends_with("README.md") {
            file.bytes.push(b'!');
        }
    }
    let answer = fresh.post_zip("?name=b", zip_of(&files)).await;
    let problem = assert_problem(&answer, 422, "adapter_refused");
    assert!(problem["detail"].as_str().unwrap().contains("checksums"));
}

#[tokio::test]
async fn the_onnx_export_carries_the_backbone_and_a_format_without_room_says_so() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    let onnx = fresh.app.get("/api/v1/adapters/a/export?format=onnx").await;
    assert_eq!(onnx.status, 200);
    assert_eq!(
        onnx.header("content-disposition"),
        "attachment; filename=\"a-1.onnx\""
    );
    assert!(onnx.body.len() > 10_000);
    let published = fresh
        .app
        .get("/api/v1/adapters/a/export?format=published")
        .await;
    let problem = assert_problem(&published, 422, "not_representable");
    assert!(problem["detail"].as_str().unwrap().contains("head"));
}

#[tokio::test]
async fn a_merge_of_one_adapter_with_weight_1_is_that_adapter_and_remembers_it() {
    let fresh = fresh(&["vit-tiny"]).await;
    let first = fresh.import("vit-tiny", "a").await;
    let answer = fresh
        .app
        .post_json(
            "/api/v1/adapters/merge",
            &json!({"name": "merged", "adapters": [{"adapter": "a:1", "weight": 1.0}], "method": "average"}),
        )
        .await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let body = answer.json();
    assert_eq!(body["notes"].as_array().unwrap().len(), 1);
    let parent = &body["adapter"]["lineage"]["parents"][0];
    assert_eq!(parent["label"], "a:1");
    assert_eq!(parent["id"], first["adapter"]["id"]);
    assert_eq!(body["adapter"]["lineage"]["recipe"]["method"], "average");
    let report = fresh.app.get("/api/v1/adapters/merged/report").await.json();
    assert_eq!(report["adapter_digest"], first["report"]["adapter_digest"]);
}

#[tokio::test]
async fn names_of_earlier_versions_are_taken_and_ties_says_that_it_has_changed() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    fresh.import("vit-tiny", "b").await;
    let both = json!([{"adapter": "a"}, {"adapter": "b:1"}]);
    for (old, new) in [
        ("cat", "average"),
        ("core_space", "core-space"),
        ("ties", "ties"),
    ] {
        let body = json!({"name": "merged", "adapters": both, "method": old, "factor": 0.5});
        let answer = fresh.app.post_json("/api/v1/adapters/merge", &body).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        let body = answer.json();
        let recipe = &body["adapter"]["lineage"]["recipe"];
        assert_eq!(recipe["method"], new);
        assert_eq!(recipe["options"]["scale"], 0.5);
        let notes = body["notes"].to_string();
        assert_eq!(notes.contains("is peft-ties"), new == "ties", "{notes}");
    }
}

#[tokio::test]
async fn merges_that_cannot_be_are_refused_with_the_reason() {
    let fresh = fresh(&["vit-tiny", "clip-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    fresh.import("clip-tiny", "b").await;
    let merge = async |body: Value| fresh.app.post_json("/api/v1/adapters/merge", &body).await;
    let two = json!([{"adapter": "a"}, {"adapter": "b"}]);
    let answer = merge(json!({"name": "c", "adapters": two, "method": "average"})).await;
    assert_problem(&answer, 409, "adapter_for_other_backbone");
    let same = json!([{"adapter": "a"}, {"adapter": "a:1"}]);
    let answer = merge(json!({"name": "c", "adapters": same, "method": "peft-ties"})).await;
    assert_problem(&answer, 422, "merge_impossible");
    let answer =
        merge(json!({"name": "c", "adapters": same, "method": "average", "rank": 3})).await;
    assert_problem(&answer, 422, "merge_impossible");
    let answer = merge(json!({"name": "c", "adapters": [], "method": "average"})).await;
    assert_problem(&answer, 422, "merge_impossible");
    for (method, reason) in [
        (
            "glue",
            "there is no way to merge called \"glue\"; there are average, sum, ",
        ),
        (
            "pico+peft-ties",
            "Pico cannot come before peft-ties; it comes before sum, ties, ",
        ),
    ] {
        let answer = merge(json!({"name": "c", "adapters": same, "method": method})).await;
        let problem = assert_problem(&answer, 422, "invalid_parameter");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(reason), "{detail}");
    }
    assert_eq!(fresh.count().await, 2);
}

#[tokio::test]
async fn an_alias_moves_keeps_its_history_and_protects_its_adapter() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    fresh.import("vit-tiny", "a").await;
    let alias = "/api/v1/adapters/a/aliases/best";
    for version in ["a:1", "a:2"] {
        let body = json!({"adapter": version, "reason": "better"});
        let moved = fresh.request("PUT", alias, Some(body)).await;
        assert_eq!(moved.status, 200, "{:?}", moved.body);
        assert_eq!(moved.json()["move"]["to"]["label"], version);
    }
    let shown = fresh.app.get("/api/v1/adapters/a@best").await.json();
    assert_eq!(shown["label"], "a:2");
    assert_eq!(shown["aliases"], json!(["best"]));
    let refused = fresh.request("DELETE", "/api/v1/adapters/a:2", None).await;
    let problem = assert_problem(&refused, 409, "adapter_in_use");
    assert!(problem["detail"].as_str().unwrap().contains("a@best"));

    let back = fresh
        .request("POST", &format!("{alias}/rollback"), None)
        .await;
    assert_eq!(back.json()["move"]["to"]["label"], "a:1");
    let history = fresh.app.get(&format!("{alias}/history")).await.json();
    assert_eq!(history["moves"].as_array().unwrap().len(), 3);
    let list = fresh.app.get("/api/v1/adapter-aliases").await.json();
    assert_eq!(list["aliases"][0]["alias"], "a@best");
    assert_eq!(list["aliases"][0]["backbone"], Value::Null);

    let deleted = fresh.request("DELETE", "/api/v1/adapters/a:2", None).await;
    assert_eq!(deleted.status, 200, "{:?}", deleted.body);
    let gone = fresh.request("DELETE", alias, None).await;
    assert_eq!(gone.status, 200);
    let twice = fresh.request("DELETE", alias, None).await;
    assert_problem(&twice, 404, "alias_not_found");
    let last = fresh.request("DELETE", "/api/v1/adapters/a", None).await;
    assert!(last.json()["freed_bytes"].as_u64().unwrap() > 1000);
    assert_eq!(fresh.count().await, 0);
}

#[tokio::test]
async fn a_backbone_has_a_default_adapter_of_its_own() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    let path = "/api/v1/backbones/vit-tiny/default-adapter";
    let body = json!({"adapter": "a"});
    let moved = fresh.request("PUT", path, Some(body.clone())).await;
    assert_eq!(moved.status, 200, "{:?}", moved.body);
    let list = fresh.app.get("/api/v1/adapter-aliases").await.json();
    assert_eq!(list["aliases"][0]["alias"], "default");
    assert_eq!(list["aliases"][0]["backbone"]["name"], "vit-tiny");
    let shown = fresh.app.get("/api/v1/adapters/a").await.json();
    assert_eq!(shown["is_default"], true);
    let other = "/api/v1/backbones/dinov2-s8/default-adapter";
    let other = fresh.request("PUT", other, Some(body)).await;
    assert_problem(&other, 409, "alias_mismatch");
    let history = fresh.app.get(&format!("{path}/history")).await.json();
    assert_eq!(history["moves"].as_array().unwrap().len(), 1);
    let back = fresh
        .request("POST", &format!("{path}/rollback"), None)
        .await;
    assert_eq!(back.json()["move"]["to"], Value::Null);
    let nothing = fresh.request("DELETE", path, None).await;
    assert_problem(&nothing, 404, "alias_not_found");
}

#[tokio::test]
async fn notes_and_tags_change_and_what_is_left_out_stays() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    let path = "/api/v1/adapters/a";
    let change = async |body| fresh.request("PATCH", path, Some(body)).await;
    let tagged = change(json!({"tags": ["x", "y"]})).await.json();
    assert_eq!(tagged["tags"], json!(["x", "y"]));
    let noted = change(json!({"notes": "fine"})).await.json();
    assert_eq!(noted["tags"], json!(["x", "y"]));
    assert_eq!(noted["notes"], "fine");
    let bad = change(json!({"tags": ["a b"]})).await;
    assert_problem(&bad, 422, "invalid_parameter");
    let long = change(json!({"notes": "x".repeat(10_001)})).await;
    assert_problem(&long, 422, "invalid_parameter");
}

#[tokio::test]
async fn storage_is_measured_and_swept() {
    let fresh = fresh(&["vit-tiny"]).await;
    fresh.import("vit-tiny", "a").await;
    let storage = fresh.app.get("/api/v1/storage").await.json();
    assert_eq!(storage["blobs"], 2);
    let freed = fresh.request("POST", "/api/v1/storage/gc", None).await;
    assert_eq!(
        freed.json(),
        json!({"blobs": 0, "temporary_files": 0, "bytes": 0})
    );
}
