//! Requests that would take far more memory or time than their size tells, through the real router.

use crate::registry_api::{Fresh, assert_problem, fresh_around};
use crate::test_app::{TestApp, form_request, json_request, png};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lora_recycle::web::WebLimits;
use model::adapter::NamedFile;
use model::tensor::Tensor;
use model::tensor_file::{MOST_TENSORS, TensorFile, write};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Cursor;

/// More than a JSON body may have.
const MANY: usize = 200_000;

#[tokio::test]
async fn a_body_of_many_small_values_is_refused_before_any_of_them_is_kept() {
    let app = TestApp::new();
    let zeros = format!("{{\"recipe\":[0{}]}}", ",0".repeat(MANY));
    let texts = format!("{{\"images\":[\"\"{}]}}", ",\"\"".repeat(MANY));
    let nested = "[".repeat(MANY);
    for (path, body) in [
        ("/api/v1/embed", &zeros),
        ("/api/v1/embed", &texts),
        ("/api/v1/classify", &nested),
    ] {
        let answer = app.send(json_request(path, body.clone())).await;
        let problem = assert_problem(&answer, 422, "too_many");
        assert_eq!(problem["parameter"], "body", "{problem:#}");
    }
    // A text is one value, whatever is in it.
    let commas = json!({"images": [",[{".repeat(MANY)]}).to_string();
    let answer = app.send(json_request("/api/v1/embed", commas)).await;
    assert_problem(&answer, 422, "invalid_base64");
}

#[tokio::test]
async fn answers_that_would_be_too_large_are_refused_before_they_are_computed() {
    let limits = WebLimits {
        max_answer_bytes: 10_000,
        ..WebLimits::default()
    };
    let app = TestApp::limited(|own| *own = limits);
    let picture = |level| BASE64_STANDARD.encode(png(level, 0, 0));
    let class = |label: &str, level| json!({"label": label, "images": [picture(level)]});
    let ask = async |label: &str, queries: usize| {
        let body = json!({
            "classes": [class(label, 255), class("b", 0)],
            "queries": vec![picture(200); queries],
        });
        app.post_json("/api/v1/classify", &body).await
    };
    assert_eq!(ask("a", 2).await.status, 200);
    for answer in [ask("a", 20).await, ask(&"a".repeat(250), 6).await] {
        let problem = assert_problem(&answer, 422, "too_many");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("bytes of answer"),
            "{problem:#}"
        );
    }
}

#[tokio::test]
async fn file_names_and_numbers_of_neighbours_have_limits() {
    let app = TestApp::new();
    let (red, blue) = (png(255, 0, 0), png(0, 0, 255));
    let ask = async |name: &str, nearest: usize| {
        let parts: [(&str, &str, &[u8]); 3] = [
            ("support/a", name, &red),
            ("support/b", "b.png", &blue),
            ("query", "q.png", &red),
        ];
        let path = format!("/api/v1/classify?nearest={nearest}");
        app.send(form_request(&path, &parts)).await
    };
    assert_eq!(ask(&"n".repeat(255), 100).await.status, 200);
    let long = ask(&"n".repeat(256 << 10), 1).await;
    let problem = assert_problem(&long, 422, "invalid_parameter");
    assert_eq!(problem["parameter"], "filename");
    assert!(long.body.len() < 1000);
    let many = ask("a.png", 101).await;
    let problem = assert_problem(&many, 422, "too_many");
    assert_eq!(problem["parameter"], "nearest");
}

#[tokio::test]
async fn a_picture_of_one_row_is_refused_by_its_header() {
    let app = TestApp::new();
    let image = image::GrayImage::new(5_000_000, 1);
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let body = json!({"images": [BASE64_STANDARD.encode(bytes.get_ref())]});
    let answer = app.post_json("/api/v1/embed", &body).await;
    let error = answer.json()["results"][0]["error"].clone();
    assert_eq!(error["code"], "image_side_too_long", "{error:#}");
}

async fn serving() -> Fresh {
    let open = |registry| TestApp::with_onnx_runtime(Some(registry));
    fresh_around(&["vit-tiny"], open).await
}

/// A golden adapter whose tensors are multiplied with `factor`, and `more` empty ones.
fn adapter(factor: f32, more: usize) -> Vec<NamedFile> {
    let mut files = test_support::broken_adapters::golden("vit-tiny", "adapter-peft-v4");
    for file in &mut files {
        if file.path.ends_with(".safetensors") {
            let read = TensorFile::parse(&file.bytes).unwrap();
            let names: Vec<String> = read.names().map(str::to_owned).collect();
            let mut tensors: BTreeMap<String, Tensor> = names
                .into_iter()
                .map(|name| {
                    let mut tensor = read.read(&name).unwrap();
                    tensor
                        .data_mut()
                        .iter_mut()
                        .for_each(|value| *value *= factor);
                    (name, tensor)
                })
                .collect();
            for index in 0..more {
                tensors.insert(format!("empty.{index}"), Tensor::zeros([0]));
            }
            file.bytes = write(&tensors, &BTreeMap::new()).unwrap();
        }
    }
    files
}

async fn import(fresh: &Fresh, name: &str, files: &[NamedFile]) -> crate::test_app::Answered {
    let parts: Vec<(&str, &str, &[u8])> = files
        .iter()
        .map(|file| ("file", file.path.as_str(), file.bytes.as_slice()))
        .collect();
    let path = format!("/api/v1/adapters?name={name}");
    fresh.app.send(form_request(&path, &parts)).await
}

#[tokio::test]
async fn an_adapter_that_gives_no_finite_numbers_is_refused_and_leaves_nothing() {
    let fresh = serving().await;
    let refused = import(&fresh, "huge", &adapter(1e30, 0)).await;
    assert_problem(&refused, 422, "adapter_not_finite");
    let listed = fresh.app.get("/api/v1/adapters").await.json();
    assert_eq!(listed["adapters"], json!([]));
    assert_eq!(import(&fresh, "usual", &adapter(1.0, 0)).await.status, 201);
}

#[tokio::test]
async fn an_adapter_that_names_too_many_tensors_is_refused_in_a_sentence() {
    let fresh = serving().await;
    let refused = import(&fresh, "many", &adapter(1.0, MOST_TENSORS)).await;
    assert_problem(&refused, 422, "adapter_refused");
    assert!(refused.body.len() < 4000, "{} bytes", refused.body.len());
}

#[tokio::test]
async fn tags_are_few_and_an_adapter_is_merged_once() {
    let fresh = serving().await;
    assert_eq!(import(&fresh, "usual", &adapter(1.0, 0)).await.status, 201);
    let tags: Vec<String> = (0..51).map(|index| format!("tag-{index}")).collect();
    let patch = |tags: &[String]| {
        axum::http::Request::patch("/api/v1/adapters/usual")
            .header("content-type", "application/json")
            .body(json!({"tags": tags}).to_string().into())
            .unwrap()
    };
    let refused = fresh.app.send(patch(&tags)).await;
    let problem = assert_problem(&refused, 422, "invalid_parameter");
    assert_eq!(problem["parameter"], "tags");
    assert_eq!(fresh.app.send(patch(&tags[..50])).await.status, 200);

    let twice = json!({"name": "sum", "method": "sum", "adapters": [{"adapter": "usual"}, {"adapter": "usual:1"}]});
    let answer = fresh.app.post_json("/api/v1/adapters/merge", &twice).await;
    let detail: Value = answer.json()["detail"].clone();
    assert_eq!(answer.status, 422, "{detail}");
    assert!(
        detail.as_str().unwrap().contains("usual:1 is named twice"),
        "{detail}"
    );
}

#[tokio::test]
async fn adapters_to_tune_whose_pictures_take_too_much_are_refused_together() {
    let home = crate::jobs_api::fresh_with(lora_recycle::jobs::product_kinds()).await;
    let registry = home.jobs.services().registry();
    let source = test_support::project("tests/golden/vit-tiny");
    registry
        .add_backbone(&source, &"tiny".parse().unwrap())
        .await
        .unwrap();
    let pictures: Vec<Value> = (0..20)
        .map(|class| {
            let images = (0..40).map(|level| BASE64_STANDARD.encode(png(level, class, 0)));
            json!({"label": format!("c{class}"), "images": images.collect::<Vec<_>>()})
        })
        .collect();
    let body = json!({"name": "many", "backbone": "tiny", "episodes": 1000, "way": 20, "pictures": pictures});
    let answer = home.app.post_json("/api/v1/jobs/tune", &body).await;
    let problem = assert_problem(&answer, 422, "invalid_parameter");
    assert_eq!(problem["parameter"], "episodes", "{problem:#}");
    assert!(
        problem["detail"].as_str().unwrap().contains("MiB allowed"),
        "{problem:#}"
    );
}
