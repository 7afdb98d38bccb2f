//! Requests that go through an adapter of the registry, on ONNX Runtime through the real router.

use crate::registry_api::{Fresh, assert_problem, fresh_around};
use crate::test_app::{TestApp, form_request};
use engine::tolerance::FORWARD;
use futures_util::future::join_all;
use lora_recycle::inference::{Device, load_for};
use model::tensor_file::TensorFile;
use ort::session::Session;
use ort::value::TensorRef;
use serde_json::{Value, json};
use test_support::broken_adapters::{BrokenSource, corpus};
use test_support::project;

/// An app on vit-tiny with its adapter `pets`, and `foreign` for clip-tiny.
async fn serving() -> Fresh {
    let open = |registry| TestApp::with_onnx_runtime(Some(registry));
    let fresh = fresh_around(&["vit-tiny", "clip-tiny"], open).await;
    fresh.import("vit-tiny", "pets").await;
    fresh.import("clip-tiny", "foreign").await;
    fresh
}

fn picture() -> Vec<u8> {
    std::fs::read(project("assets/examples/fish/goldfish.jpg")).unwrap()
}

/// The answer of `/api/v1/embed` with this query, which must be 200.
async fn embed(fresh: &Fresh, query: &str) -> Value {
    let picture = picture();
    let parts = [("image", "goldfish.jpg", picture.as_slice())];
    let request = form_request(&format!("/api/v1/embed{query}"), &parts);
    let answer = fresh.app.send(request).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

#[tokio::test]
async fn an_answer_comes_from_the_adapter_that_was_asked_for_and_names_it() {
    let fresh = serving().await;
    let bare = embed(&fresh, "").await;
    assert_eq!(bare["adapter"], Value::Null);
    let record = fresh.app.get("/api/v1/adapters/pets").await.json();
    let adapted = embed(&fresh, "?adapter=pets").await;
    assert_eq!(
        adapted["adapter"],
        json!({"name": "pets", "version": 1, "label": "pets:1", "digest": record["digest"]})
    );
    assert_eq!(adapted["backbone"]["digest"], bare["backbone"]["digest"]);
    assert_ne!(adapted["results"], bare["results"]);
    let id = record["id"].as_str().unwrap();
    for reference in ["pets:1", id] {
        let again = embed(&fresh, &format!("?adapter={reference}")).await;
        assert_eq!(again, adapted, "{reference}");
    }
    assert_eq!(embed(&fresh, "?adapter=none").await, bare);

    let picture = picture();
    let parts = [
        ("support/a", "a.jpg", picture.as_slice()),
        ("support/b", "b.jpg", picture.as_slice()),
        ("query", "q.jpg", picture.as_slice()),
    ];
    let request = form_request("/api/v1/classify?adapter=pets", &parts);
    let classified = fresh.app.send(request).await.json();
    assert_eq!(classified["adapter"], adapted["adapter"]);
}

#[tokio::test]
async fn an_unknown_adapter_is_404_with_near_names_and_one_for_another_backbone_409_with_both() {
    let fresh = serving().await;
    let picture = picture();
    for route in ["embed?", "classify?attention=true&"] {
        let parts: &[(&str, &str, &[u8])] = if route.starts_with("embed") {
            &[("image", "a.jpg", &picture)]
        } else {
            &[
                ("support/a", "a.jpg", &picture),
                ("support/b", "b.jpg", &picture),
                ("query", "q.jpg", &picture),
            ]
        };
        let ask = |adapter: &str| {
            let request = form_request(&format!("/api/v1/{route}adapter={adapter}"), parts);
            fresh.app.send(request)
        };
        let unknown = assert_problem(&ask("pest").await, 404, "adapter_not_found");
        assert!(unknown["detail"].as_str().unwrap().contains("\"pets\""));
        for missing in ["pets:2", "pets@champion", "..%2Fpets"] {
            assert_problem(&ask(missing).await, 404, "adapter_not_found");
        }
        let foreign = ask("foreign").await;
        let foreign = assert_problem(&foreign, 409, "adapter_for_other_backbone");
        let detail = foreign["detail"].as_str().unwrap();
        assert!(
            detail.contains("foreign:1") && detail.contains("clip-tiny") && detail.contains("tiny"),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn the_default_adapter_of_a_backbone_answers_where_none_is_named() {
    let fresh = serving().await;
    let bare = embed(&fresh, "").await;
    let adapted = embed(&fresh, "?adapter=pets").await;
    let path = "/api/v1/backbones/vit-tiny/default-adapter";
    let moved = fresh
        .request("PUT", path, Some(json!({"adapter": "pets"})))
        .await;
    assert_eq!(moved.status, 200, "{:?}", moved.body);
    assert_eq!(embed(&fresh, "").await, adapted);
    assert_eq!(embed(&fresh, "?adapter=none").await, bare);
    let removed = fresh.request("DELETE", path, None).await;
    assert_eq!(removed.status, 200, "{:?}", removed.body);
    assert_eq!(embed(&fresh, "").await, bare);
}

#[tokio::test]
async fn a_deleted_adapter_answers_no_more() {
    let fresh = serving().await;
    embed(&fresh, "?adapter=pets").await;
    let deleted = fresh.request("DELETE", "/api/v1/adapters/pets", None).await;
    assert_eq!(deleted.status, 200, "{:?}", deleted.body);
    let picture = picture();
    let request = form_request(
        "/api/v1/embed?adapter=pets",
        &[("image", "a.jpg", &picture)],
    );
    assert_problem(&fresh.app.send(request).await, 404, "adapter_not_found");
}

#[tokio::test]
async fn query_and_body_that_ask_for_different_adapters_are_422() {
    let fresh = serving().await;
    let body = json!({"images": [], "adapter": "pets"});
    let mut with_image = body.clone();
    with_image["images"] = json!([{"data": "aGVsbG8="}]);
    let answer = fresh
        .app
        .post_json("/api/v1/embed?adapter=foreign", &with_image)
        .await;
    assert_eq!(answer.status, 422, "{:?}", answer.body);
}

#[tokio::test]
async fn requests_for_different_adapters_at_once_get_their_own_answers() {
    let fresh = serving().await;
    fresh.import("vit-tiny", "cats").await;
    let queries: Vec<&str> = ["", "?adapter=pets", "?adapter=cats"].repeat(5);
    let mut alone = Vec::new();
    for query in &queries {
        alone.push(embed(&fresh, query).await);
    }
    let together = join_all(queries.iter().map(|query| embed(&fresh, query))).await;
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!(alone["adapter"], together["adapter"]);
        let feature = |answer: &Value| -> Vec<f64> {
            serde_json::from_value(answer["results"][0]["feature"].clone()).unwrap()
        };
        let (alone, together) = (feature(alone), feature(together));
        let largest = alone.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        for (a, b) in alone.iter().zip(&together) {
            assert!((a - b).abs() <= 1e-5 * largest, "{a} {b}");
        }
    }
}

#[tokio::test]
async fn refused_adapters_do_not_change_what_is_served() {
    let fresh = serving().await;
    let before = [
        embed(&fresh, "").await,
        embed(&fresh, "?adapter=pets").await,
    ];
    let corpus = corpus();
    assert!(corpus.len() >= 40);
    for broken in corpus {
        let answer = match broken.source {
            BrokenSource::Files(files) => {
                fresh
                    .post_files("?name=pets&backbone=vit-tiny", &files)
                    .await
            }
            BrokenSource::Zip(bytes) => fresh.post_zip("?name=pets&backbone=vit-tiny", bytes).await,
        };
        assert_eq!(answer.status, 422, "{}", broken.name);
    }
    let after = [
        embed(&fresh, "").await,
        embed(&fresh, "?adapter=pets").await,
    ];
    assert_eq!(before, after);
}

#[tokio::test]
async fn an_exported_onnx_file_computes_what_the_adapter_does() {
    let fresh = serving().await;
    let export = fresh
        .app
        .get("/api/v1/adapters/pets/export?format=onnx")
        .await;
    assert_eq!(export.status, 200, "{:?}", export.body);
    let bytes = std::fs::read(project("tests/golden/vit-tiny/reference.safetensors")).unwrap();
    let reference = TensorFile::parse(&bytes).unwrap();
    let pixels = reference.read("pixel_values").unwrap();
    let mut session = Session::builder(&load_for(Device::Cpu).unwrap().library.environment)
        .unwrap()
        .commit_from_memory(&export.body)
        .unwrap();
    let input = TensorRef::from_array_view((pixels.shape().to_vec(), pixels.data())).unwrap();
    let outputs = session.run(ort::inputs!["pixels" => input]).unwrap();
    let (_, features) = outputs["feature"].try_extract_tensor::<f32>().unwrap();
    let expected = reference.read("adapter_features").unwrap();
    assert_eq!(features.len(), expected.data().len());
    let largest = expected.data().iter().fold(0.0f32, |a, b| a.max(b.abs()));
    for (a, b) in features.iter().zip(expected.data()) {
        assert!((a - b).abs() <= FORWARD * largest, "{a} {b}");
    }
}
