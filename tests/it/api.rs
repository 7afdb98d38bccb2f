//! The REST interface through the real router.

use crate::test_app::{Answered, Behaviour, TestApp, form_request, json_request, png};
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream;
use lora_recycle::web::WebLimits;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::Cursor;
use std::time::Duration;

const CLASSIFY: &str = "/api/v1/classify";
const EMBED: &str = "/api/v1/embed";

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn two_classes() -> Value {
    json!([
        {"label": "red", "images": [base64(&png(255, 0, 0)), base64(&png(200, 10, 0))]},
        {"label": "blue", "images": [base64(&png(0, 0, 255))]},
    ])
}

fn classify_body() -> Value {
    json!({"classes": two_classes(), "queries": [base64(&png(230, 0, 20))]})
}

fn embed_body() -> Value {
    json!({"images": [base64(&png(230, 0, 20))]})
}

fn body_for(path: &str) -> Value {
    if path == EMBED {
        embed_body()
    } else {
        classify_body()
    }
}

fn snapshot(name: &str, answered: &Answered) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, answered.snapshot());
    });
}

#[tokio::test]
async fn json_images_are_classified_and_called_by_index() {
    let body = json!({
        "classes": two_classes(),
        "queries": [
            base64(&png(0, 5, 250)),
            format!("data:image/png;base64,{}", base64(&png(240, 0, 0))),
        ],
    });
    let answered = TestApp::new().post_json(CLASSIFY, &body).await;
    assert_eq!(answered.status, 200);
    let answer = answered.json();
    assert_eq!(answer["backbone"]["name"], "tiny");
    assert_eq!(answer["backbone"]["digest"].as_str().unwrap().len(), 64);
    assert_eq!(answer["adapter"], Value::Null);
    assert_eq!(answer["encoder"]["engine"], "colours");
    assert_eq!(answer["encoder"]["device"], "cpu");
    assert_eq!(answer["refused"], json!([]));
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["image"], "0");
    assert_eq!(results[0]["label"], "blue");
    assert_eq!(results[1]["image"], "1");
    assert_eq!(results[1]["label"], "red");
    assert_eq!(results[1]["scores"][0]["label"], "red");
    assert_eq!(results[1]["scores"].as_array().unwrap().len(), 2);
    assert_eq!(results[1]["nearest"].as_array().unwrap().len(), 3);
    assert!(results[1].get("attention").is_none());
}

#[tokio::test]
async fn queries_are_classified_together_on_request_by_heads_that_have_a_metric() {
    let app = TestApp::new();
    let queries: Vec<String> = (0..6)
        .map(|level| base64(&png(200 + 9 * level, 0, 20 * level)))
        .collect();
    let body = json!({"classes": two_classes(), "queries": queries});
    let alone = app.post_json(&format!("{CLASSIFY}?head=lda"), &body).await;
    let together = format!("{CLASSIFY}?head=lda&transductive=true");
    let together = app.post_json(&together, &body).await;
    assert_eq!(alone.status, 200);
    assert_eq!(together.status, 200);
    let (alone, together) = (alone.json(), together.json());
    let distance = |answer: &Value| answer["results"][0]["scores"][0]["distance"].clone();
    assert_ne!(distance(&alone), distance(&together));
    for (answer, expected) in [(alone, false), (together, true)] {
        assert_eq!(answer["results"][0]["transductive"], expected);
        assert_eq!(answer["results"][0]["label"], "red");
    }
    let refused = format!("{CLASSIFY}?head=nearest-mean&transductive=true");
    let refused = app.post_json(&refused, &body).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("lda-augmented")
    );
}

#[tokio::test]
async fn form_images_are_classified_and_called_by_file_name() {
    let (red, blue) = (png(255, 0, 0), png(0, 0, 255));
    let answered = TestApp::new()
        .post_form(
            &format!("{CLASSIFY}?attention=true&nearest=1"),
            &[
                ("query", "what is this.png", &png(250, 0, 10)),
                ("support/rötlich %22warm%22 50%", "a.png", &red),
                ("support/blue/navy", "b.png", &blue),
                ("query", "", &blue),
                (
                    "support/rötlich %22warm%22 50%",
                    "%22c%22.png",
                    &png(200, 0, 0),
                ),
            ],
        )
        .await;
    assert_eq!(answered.status, 200, "{:?}", answered.body);
    let answer = answered.json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[0]["image"], "what is this.png");
    assert_eq!(results[0]["label"], "rötlich \"warm\" 50%");
    assert_eq!(results[0]["nearest"].as_array().unwrap().len(), 1);
    assert_eq!(results[0]["attention"]["rows"], 2);
    assert_eq!(results[0]["attention"]["values"][1], 1.0);
    assert_eq!(results[1]["image"], "1");
    assert_eq!(results[1]["label"], "blue/navy");
    assert_eq!(results[1]["nearest"][0]["image"], "b.png");
    for result in results {
        let probability = result["scores"][0]["probability"].as_f64().unwrap();
        let certainty = match probability {
            0.9.. => "sure",
            0.6.. => "probably",
            _ => "unsure",
        };
        assert_eq!(result["certainty"], certainty);
        assert_eq!(result["nearest_in_class"][0]["label"], result["label"]);
        let elsewhere = &result["closest_elsewhere"];
        assert_eq!(
            elsewhere.is_null(),
            result["nearest"][0]["label"] == result["label"]
        );
    }
}

#[tokio::test]
async fn one_bad_image_is_reported_and_the_others_are_answered() {
    let answered = TestApp::new()
        .post_form(
            CLASSIFY,
            &[
                ("support/red", "red.png", &png(255, 0, 0)),
                ("support/red", "page.png", b"<!doctype html><p>no picture"),
                ("support/blue", "blue.png", &png(0, 0, 255)),
                ("query", "good.png", &png(250, 0, 0)),
                ("query", "empty.png", b""),
            ],
        )
        .await;
    assert_eq!(answered.status, 200);
    let answer = answered.json();
    assert_eq!(answer["refused"][0]["image"], "page.png");
    assert_eq!(answer["refused"][0]["label"], "red");
    assert!(answer["refused"][0]["error"]["code"].is_string());
    assert_eq!(answer["results"][0]["label"], "red");
    assert_eq!(answer["results"][1]["image"], "empty.png");
    assert!(answer["results"][1]["error"]["message"].is_string());
    assert!(answer["results"][1].get("label").is_none());
}

#[tokio::test]
async fn onnx_runtime_answers_over_rest_and_knows_a_picture_again() {
    let app = TestApp::with_onnx_runtime(None);
    let image =
        |name| std::fs::read(test_support::project("tests/golden/images").join(name)).unwrap();
    let (one, other) = (image("rgb-420.jpg"), image("palette.png"));
    let answered = app
        .post_form(
            &format!("{CLASSIFY}?attention=true"),
            &[
                ("support/one", "one.jpg", &one),
                ("support/other", "other.png", &other),
                ("query", "again.jpg", &one),
            ],
        )
        .await;
    assert_eq!(answered.status, 200, "{:?}", answered.body);
    let answer = answered.json();
    let result = &answer["results"][0];
    assert_eq!(result["label"], "one");
    assert_eq!(result["nearest"][0]["image"], "one.jpg");
    let values = result["attention"]["values"].as_array().unwrap();
    let side = result["attention"]["rows"].as_u64().unwrap();
    assert_eq!(values.len() as u64, side * side);

    let embedded = app
        .post_form(EMBED, &[("image", "one.jpg", &one)])
        .await
        .json();
    let in_json = app
        .post_json(EMBED, &json!({"images": [base64(&one)]}))
        .await
        .json();
    assert_eq!(embedded["results"][0]["image"], "one.jpg");
    assert_eq!(in_json["results"][0]["image"], "0");
    assert_eq!(
        embedded["results"][0]["feature"],
        in_json["results"][0]["feature"]
    );

    let ready = app.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["encoder"]["engine"], "onnxruntime");
    assert_eq!(ready.json()["encoder"]["device"], "cpu");
    let providers = &ready.json()["encoder"]["providers"];
    assert_eq!(providers, &json!(["CPUExecutionProvider"]));
}

#[tokio::test]
async fn features_come_in_the_order_of_the_images_with_faults_in_their_place() {
    let images = json!({"images": [base64(&png(255, 0, 0)), base64(b"no picture"), base64(&png(0, 0, 255))]});
    let answered = TestApp::new().post_json(EMBED, &images).await;
    assert_eq!(answered.status, 200);
    let answer = answered.json();
    let results = answer["results"].as_array().unwrap();
    let feature = |index: usize, at: usize| results[index]["feature"][at].as_f64().unwrap();
    assert!(feature(0, 0) > feature(0, 1));
    assert!(feature(2, 1) > feature(2, 0));
    assert_eq!(results[1]["image"], "1");
    assert!(results[1]["error"]["code"].is_string());
    assert_eq!(answer["adapter"], Value::Null);
    assert_eq!(answer["encoder"]["engine"], "colours");
}

#[tokio::test]
async fn backbones_are_described() {
    let answered = TestApp::new().get("/api/v1/backbones").await;
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("backbones", answered.snapshot());
    });
}

#[tokio::test]
async fn an_unknown_adapter_is_404_and_never_the_bare_backbones_answer() {
    let app = TestApp::new();
    for path in [CLASSIFY, EMBED] {
        let in_query = app
            .post_json(&format!("{path}?adapter=birds"), &body_for(path))
            .await;
        snapshot("adapter_not_found", &in_query);
        let mut body = body_for(path);
        body["adapter"] = "birds".into();
        let in_body = app.post_json(path, &body).await;
        snapshot("adapter_not_found", &in_body);
        body["adapter"] = Value::Null;
        assert_eq!(app.post_json(path, &body).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_wrong_in_a_json_body_is_named() {
    let app = TestApp::new();
    let good = base64(&png(1, 2, 3));
    let cases = [
        (
            "bad_base64_in_queries",
            json!({"classes": two_classes(), "queries": [good, good, "not base64!"]}),
        ),
        (
            "bad_base64_in_classes",
            json!({"classes": [{"label": "a", "images": [good]}, {"label": "b", "images": [good, "data:image/png,x"]}], "queries": [good]}),
        ),
        (
            "wrong_type",
            json!({"classes": two_classes(), "queries": [good, 5]}),
        ),
        (
            "missing_field",
            json!({"classes": [{"label": "a"}], "queries": [good]}),
        ),
        (
            "unknown_field",
            json!({"classes": two_classes(), "querys": [good]}),
        ),
        ("wrong_top_level", json!([1])),
        (
            "no_queries",
            json!({"classes": two_classes(), "queries": []}),
        ),
        (
            "one_class",
            json!({"classes": [{"label": "a", "images": [good]}], "queries": [good]}),
        ),
        (
            "equal_labels",
            json!({"classes": [{"label": "a", "images": [good]}, {"label": "a", "images": [good]}], "queries": [good]}),
        ),
        (
            "long_label",
            json!({"classes": [{"label": "a".repeat(257), "images": [good]}, {"label": "b", "images": [good]}], "queries": [good]}),
        ),
        (
            "class_without_images",
            json!({"classes": [{"label": "a", "images": [good]}, {"label": "b", "images": [base64(b"<html>")]}], "queries": [good]}),
        ),
    ];
    for (name, body) in cases {
        let answered = app.post_json(CLASSIFY, &body).await;
        snapshot(name, &answered);
        assert_eq!(answered.status, 422, "{name}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_its_type_says_is_400() {
    let app = TestApp::new();
    for (name, body) in [
        ("malformed_json", "{\"images\": ["),
        ("empty_json", ""),
        ("json_with_a_tail", "{\"images\": []} x"),
    ] {
        snapshot(name, &app.send(json_request(EMBED, body)).await);
    }
    let mut no_boundary = form_request(EMBED, &[]);
    no_boundary
        .headers_mut()
        .insert(header::CONTENT_TYPE, "multipart/form-data".parse().unwrap());
    snapshot("form_without_boundary", &app.send(no_boundary).await);
    let mut cut = form_request(EMBED, &[]);
    *cut.body_mut() =
        Body::from("--boundary-7d83\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nabc");
    snapshot("form_that_breaks_off", &app.send(cut).await);
    let broken = stream::iter([Ok(Bytes::from("{")), Err("connection reset by peer")]);
    let answered = app
        .send(json_request(EMBED, Body::from_stream(broken)))
        .await;
    snapshot("body_that_breaks_off", &answered);
}

#[tokio::test]
async fn a_form_part_with_another_name_is_422_naming_it() {
    let app = TestApp::new();
    let image = png(1, 2, 3);
    let answered = app
        .post_form(
            CLASSIFY,
            &[("support/a", "a.png", &image), ("querry", "b.png", &image)],
        )
        .await;
    snapshot("unknown_part_of_classify", &answered);
    let answered = app.post_form(EMBED, &[("picture", "a.png", &image)]).await;
    snapshot("unknown_part_of_embed", &answered);
    let mut nameless = form_request(EMBED, &[]);
    *nameless.body_mut() = Body::from(
        "--boundary-7d83\r\nContent-Disposition: form-data; name*=utf-8''image\r\n\r\nabc\r\n--boundary-7d83--\r\n",
    );
    snapshot("part_without_a_plain_name", &app.send(nameless).await);
    let answered = app.post_form(EMBED, &[]).await;
    snapshot("form_without_images", &answered);
}

#[tokio::test]
async fn a_wrong_query_parameter_is_422_naming_it() {
    let app = TestApp::new();
    for (name, query) in [
        ("nearest_is_no_number", "nearest=many"),
        ("attention_is_no_bool", "attention=perhaps"),
        ("unknown_query_parameter", "adaptor=birds"),
    ] {
        let answered = app
            .post_json(&format!("{CLASSIFY}?{query}"), &classify_body())
            .await;
        snapshot(name, &answered);
    }
}

#[tokio::test]
async fn other_content_types_are_415() {
    let app = TestApp::new();
    let mut request = json_request(EMBED, "{}");
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        "text/plain; charset=utf-8".parse().unwrap(),
    );
    snapshot("other_content_type", &app.send(request).await);
    let mut request = json_request(CLASSIFY, "{}");
    request.headers_mut().remove(header::CONTENT_TYPE);
    snapshot("no_content_type", &app.send(request).await);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_with_and_without_a_declared_length() {
    let app = TestApp::limited(|limits| limits.max_body_bytes = 1000);
    let large = vec![b' '; 1001];
    for path in [CLASSIFY, EMBED] {
        let declared = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, "1001")
            .body(Body::from(large.clone()))
            .unwrap();
        snapshot("body_too_large", &app.send(declared).await);
        let chunks = stream::iter(
            large
                .chunks(100)
                .map(Bytes::copy_from_slice)
                .map(Ok::<_, Infallible>)
                .collect::<Vec<_>>(),
        );
        let undeclared = json_request(path, Body::from_stream(chunks));
        snapshot("body_too_large", &app.send(undeclared).await);
        let name = if path == EMBED { "image" } else { "query" };
        let form = form_request(path, &[(name, "a.png", &large)]);
        snapshot("body_too_large", &app.send(form).await);
    }
}

#[tokio::test]
async fn more_images_or_scores_than_allowed_are_422() {
    let image = png(1, 2, 3);
    let app = TestApp::limited(|limits| limits.max_images = 3);
    let many = json!({"images": vec![base64(&image); 4]});
    snapshot("too_many_images", &app.post_json(EMBED, &many).await);
    let parts = [("image", "a.png", image.as_slice()); 4];
    snapshot("too_many_parts", &app.post_form(EMBED, &parts).await);
    let mut body = classify_body();
    body["queries"] = json!([base64(&image)]);
    snapshot(
        "too_many_images_to_classify",
        &app.post_json(CLASSIFY, &body).await,
    );
    let app = TestApp::limited(|limits| limits.max_scores = 3);
    body["queries"] = json!([base64(&image), base64(&image)]);
    snapshot("too_many_scores", &app.post_json(CLASSIFY, &body).await);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_408() {
    let app = TestApp::limited(|limits| limits.body_timeout = Duration::from_millis(5));
    for path in [CLASSIFY, EMBED] {
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        snapshot("body_timeout", &app.send(json_request(path, never)).await);
    }
}

#[tokio::test]
async fn while_all_permits_are_taken_requests_are_429_and_later_answered() {
    let (app, arrivals, let_on) = TestApp::waiting(WebLimits {
        max_concurrent_requests: 1,
        max_waiting_requests: 0,
        ..WebLimits::default()
    });
    let app = std::sync::Arc::new(app);
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.post_json(EMBED, &embed_body()).await }
    });
    tokio::task::spawn_blocking(move || arrivals.recv().unwrap())
        .await
        .unwrap();
    for path in [CLASSIFY, EMBED] {
        snapshot("busy", &app.post_json(path, &body_for(path)).await);
    }
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.get("/api/v1/backbones").await.status, 200);
    let_on.send(()).unwrap();
    assert_eq!(first.await.unwrap().status, 200);
    let_on.send(()).unwrap();
    assert_eq!(app.post_json(EMBED, &embed_body()).await.status, 200);
}

#[tokio::test]
async fn a_request_waits_for_its_turn_and_gets_429_only_when_that_takes_too_long() {
    let (app, arrivals, let_on) = TestApp::waiting(WebLimits {
        max_concurrent_requests: 1,
        max_waiting_requests: 1,
        ..WebLimits::default()
    });
    let app = std::sync::Arc::new(app);
    let ask = || {
        let app = app.clone();
        tokio::spawn(async move { app.post_json(EMBED, &embed_body()).await.status })
    };
    let first = ask();
    let arrivals = tokio::task::spawn_blocking(move || {
        arrivals.recv().unwrap();
        arrivals
    });
    let arrivals = arrivals.await.unwrap();
    let (second, third) = (ask(), ask());
    // One of the two waits; there is no place for the other.
    let (refused, waiting) = match futures_util::future::select(second, third).await {
        futures_util::future::Either::Left((refused, waiting)) => (refused, waiting),
        futures_util::future::Either::Right((refused, waiting)) => (refused, waiting),
    };
    assert_eq!(refused.unwrap(), 429);
    let_on.send(()).unwrap();
    assert_eq!(first.await.unwrap(), 200);
    let_on.send(()).unwrap();
    assert_eq!(waiting.await.unwrap(), 200);
    drop(arrivals);

    let (app, arrivals, _let_on) = TestApp::waiting(WebLimits {
        max_concurrent_requests: 1,
        queue_timeout: Duration::from_millis(5),
        ..WebLimits::default()
    });
    let app = std::sync::Arc::new(app);
    let held = app.clone();
    tokio::spawn(async move { held.post_json(EMBED, &embed_body()).await });
    tokio::task::spawn_blocking(move || arrivals.recv().unwrap())
        .await
        .unwrap();
    assert_eq!(app.post_json(EMBED, &embed_body()).await.status, 429);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_503_and_gives_its_permit_back() {
    let (app, _arrivals, _let_on) = TestApp::waiting(WebLimits {
        max_concurrent_requests: 1,
        answer_timeout: Duration::from_millis(5),
        ..WebLimits::default()
    });
    for path in [CLASSIFY, EMBED] {
        snapshot(
            "answer_timeout",
            &app.post_json(path, &body_for(path)).await,
        );
    }
}

#[tokio::test]
async fn an_encoder_that_fails_is_500_without_the_cause() {
    for behaviour in [Behaviour::Fails, Behaviour::Panics] {
        let app = TestApp::behaving(behaviour);
        for path in [CLASSIFY, EMBED] {
            snapshot("internal", &app.post_json(path, &body_for(path)).await);
        }
    }
}

#[tokio::test]
async fn an_encoder_that_stopped_is_503() {
    let app = TestApp::behaving(Behaviour::Stopped);
    for path in [CLASSIFY, EMBED] {
        snapshot(
            "encoder_stopped",
            &app.post_json(path, &body_for(path)).await,
        );
    }
}

#[tokio::test]
async fn health_says_alive_and_readiness_needs_a_passed_probe() {
    let app = TestApp::new();
    assert_eq!(app.get("/healthz").await.json()["status"], "alive");
    let ready = app.get("/readyz").await.json();
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["encoder"]["engine"], "colours");
    assert_eq!(ready["backbone"]["name"], "tiny");
    let broken = TestApp::behaving(Behaviour::Fails);
    assert_eq!(broken.get("/healthz").await.status, 200);
    snapshot("not_ready", &broken.get("/readyz").await);
}

#[tokio::test]
async fn the_probe_runs_once_for_many_questions() {
    let (app, arrivals, let_on) = TestApp::waiting(WebLimits::default());
    let_on.send(()).unwrap();
    for _ in 0..5 {
        assert_eq!(app.get("/readyz").await.status, 200);
    }
    assert_eq!(arrivals.try_iter().count(), 1);
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_method_are_problems_too() {
    let app = TestApp::new();
    snapshot("unknown_route", &app.get("/api/v1/nothing").await);
    let answered = app.get(CLASSIFY).await;
    assert_eq!(answered.header("allow"), "POST");
    snapshot("method_not_allowed", &answered);
}

fn post_with(headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = json_request(EMBED, embed_body().to_string());
    for (name, value) in headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_host_name_that_was_rebound_to_this_machine_is_403() {
    let app = TestApp::new();
    for host in [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "a b",
    ] {
        let answered = app.send(post_with(&[("host", host)])).await;
        assert_eq!(answered.status, 403, "{host}");
    }
    snapshot(
        "host_not_allowed",
        &app.send(post_with(&[("host", "evil.example")])).await,
    );
    for host in ["localhost:8080", "127.0.0.1", "[::1]:80", "app.localhost"] {
        let answered = app.send(post_with(&[("host", host)])).await;
        assert_eq!(answered.status, 200, "{host}");
    }
}

#[tokio::test]
async fn a_browser_may_post_for_the_servers_own_page_only() {
    let app = TestApp::new();
    let own = ("host", "localhost:8080");
    for headers in [
        [own, ("sec-fetch-site", "cross-site")],
        [own, ("sec-fetch-site", "same-site")],
        [own, ("origin", "https://evil.example")],
        [own, ("origin", "http://localhost:9090")],
        [own, ("origin", "null")],
    ] {
        let answered = app.send(post_with(&headers)).await;
        assert_eq!(answered.status, 403, "{headers:?}");
        assert_eq!(answered.json()["code"], "cross_origin");
    }
    for headers in [
        [own, ("sec-fetch-site", "same-origin")],
        [own, ("sec-fetch-site", "none")],
        [own, ("origin", "http://localhost:8080")],
    ] {
        assert_eq!(
            app.send(post_with(&headers)).await.status,
            200,
            "{headers:?}"
        );
    }
    let refused = app
        .send(post_with(&[own, ("sec-fetch-site", "cross-site")]))
        .await;
    snapshot("cross_origin", &refused);
    for (path, status) in [
        ("/api/v1/backbones", 200),
        ("/api/v1/adapters/pets/export", 403),
        ("/api/v1/jobs/none/previews", 403),
    ] {
        let read = Request::get(path).header("sec-fetch-site", "cross-site");
        let read = read.body(Body::empty()).unwrap();
        assert_eq!(app.send(read).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_security_headers() {
    let app = TestApp::new();
    for path in [
        "/healthz",
        "/api/v1/backbones",
        "/api/nothing",
        "/api/openapi.json",
        "/api/docs/",
    ] {
        let answered = app.get(path).await;
        assert!(!answered.header("x-request-id").is_empty(), "{path}");
        assert_eq!(
            answered.header("x-content-type-options"),
            "nosniff",
            "{path}"
        );
        assert_eq!(answered.header("referrer-policy"), "no-referrer", "{path}");
        let policy = answered.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("http"), "{path}");
        let inline = policy.contains("unsafe-inline");
        assert_eq!(inline, path == "/api/docs/", "{path}");
    }
    let request = Request::get("/healthz")
        .header("x-request-id", "mine-1")
        .body(Body::empty())
        .unwrap();
    assert_eq!(app.send(request).await.header("x-request-id"), "mine-1");
}

#[tokio::test]
async fn the_documentation_page_loads_nothing_from_elsewhere() {
    let app = TestApp::new();
    let page = app.get("/api/docs/").await;
    assert_eq!(page.status, 200);
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(
        !html.contains("http://") && !html.contains("https://"),
        "{html}"
    );
    assert!(!html.contains("<script>") && !html.contains("<style>"));
    let mut scripts = 0;
    for part in html
        .split(['"'])
        .filter(|part| part.ends_with(".js") || part.ends_with(".css"))
    {
        let path = format!("/api/docs/{}", part.trim_start_matches("./"));
        assert_eq!(app.get(&path).await.status, 200, "{path}");
        scripts += 1;
    }
    assert!(scripts >= 3, "{html}");
    let start = app.get("/api/docs/swagger-initializer.js").await;
    let script = String::from_utf8(start.body.to_vec()).unwrap();
    assert!(script.contains("/api/openapi.json"));
    assert!(script.contains("\"validatorUrl\": \"none\""), "{script}");
}

async fn document(app: &TestApp) -> Value {
    let answered = app.get("/api/openapi.json").await;
    assert_eq!(answered.status, 200);
    answered.json()
}

/// Statuses by path and method.
fn documented(document: &Value) -> BTreeMap<(String, String), BTreeSet<u16>> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            let statuses = statuses.map(|status| status.parse().unwrap()).collect();
            found.insert((path.clone(), method.clone()), statuses);
        }
    }
    found
}

#[tokio::test]
async fn every_reference_of_the_openapi_document_leads_somewhere() {
    fn check(value: &Value, root: &Value) -> usize {
        match value {
            Value::Object(map) => {
                let own = map
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map_or(0, |reference| {
                        let pointer = reference.strip_prefix('#').expect("a local reference");
                        assert!(root.pointer(pointer).is_some(), "{reference}");
                        1
                    });
                own + map.values().map(|value| check(value, root)).sum::<usize>()
            }
            Value::Array(values) => values.iter().map(|value| check(value, root)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    let document = document(&TestApp::new()).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(check(&document, &document) > 20);
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            assert!(operation["summary"].is_string(), "{path} has no summary");
            assert!(operation["tags"].is_array(), "{path} has no tag");
        }
    }
}

#[tokio::test]
async fn the_openapi_document_lists_the_routes_that_exist_and_no_others() {
    let app = TestApp::new();
    let documented = documented(&document(&app).await);
    let listed: Vec<String> = documented
        .keys()
        .map(|(path, method)| format!("{method} {path}"))
        .collect();
    assert_eq!(
        listed,
        [
            "get /api/v1/adapter-aliases",
            "get /api/v1/adapters",
            "post /api/v1/adapters",
            "post /api/v1/adapters/merge",
            "delete /api/v1/adapters/{name}/aliases/{alias}",
            "put /api/v1/adapters/{name}/aliases/{alias}",
            "get /api/v1/adapters/{name}/aliases/{alias}/history",
            "post /api/v1/adapters/{name}/aliases/{alias}/rollback",
            "delete /api/v1/adapters/{reference}",
            "get /api/v1/adapters/{reference}",
            "patch /api/v1/adapters/{reference}",
            "get /api/v1/adapters/{reference}/export",
            "get /api/v1/adapters/{reference}/report",
            "get /api/v1/backbones",
            "delete /api/v1/backbones/{backbone}/default-adapter",
            "put /api/v1/backbones/{backbone}/default-adapter",
            "get /api/v1/backbones/{backbone}/default-adapter/history",
            "post /api/v1/backbones/{backbone}/default-adapter/rollback",
            "get /api/v1/classifiers",
            "post /api/v1/classifiers",
            "post /api/v1/classifiers/import",
            "delete /api/v1/classifiers/{id}",
            "get /api/v1/classifiers/{id}",
            "patch /api/v1/classifiers/{id}",
            "get /api/v1/classifiers/{id}/batches",
            "post /api/v1/classifiers/{id}/batches",
            "delete /api/v1/classifiers/{id}/batches/{batch}",
            "get /api/v1/classifiers/{id}/batches/{batch}",
            "get /api/v1/classifiers/{id}/batches/{batch}/pictures/{position}",
            "get /api/v1/classifiers/{id}/batches/{batch}/pictures/{position}/thumbnail",
            "get /api/v1/classifiers/{id}/check",
            "post /api/v1/classifiers/{id}/classes",
            "delete /api/v1/classifiers/{id}/classes/{class}",
            "patch /api/v1/classifiers/{id}/classes/{class}",
            "post /api/v1/classifiers/{id}/classes/{class}/merge",
            "post /api/v1/classifiers/{id}/classify",
            "get /api/v1/classifiers/{id}/export",
            "delete /api/v1/classifiers/{id}/images",
            "get /api/v1/classifiers/{id}/images",
            "patch /api/v1/classifiers/{id}/images",
            "post /api/v1/classifiers/{id}/images",
            "get /api/v1/classifiers/{id}/images/{image}",
            "get /api/v1/classifiers/{id}/images/{image}/thumbnail",
            "post /api/v1/classifiers/{id}/redo",
            "get /api/v1/classifiers/{id}/snippets",
            "post /api/v1/classifiers/{id}/undo",
            "post /api/v1/classify",
            "post /api/v1/embed",
            "get /api/v1/jobs",
            "post /api/v1/jobs/evaluate",
            "post /api/v1/jobs/invert",
            "post /api/v1/jobs/recycle",
            "post /api/v1/jobs/tune",
            "get /api/v1/jobs/{id}",
            "post /api/v1/jobs/{id}/cancel",
            "get /api/v1/jobs/{id}/events",
            "get /api/v1/jobs/{id}/previews",
            "get /api/v1/jobs/{id}/previews/{index}",
            "post /api/v1/jobs/{id}/retry",
            "get /api/v1/pools",
            "delete /api/v1/pools/{id}",
            "get /api/v1/pools/{id}",
            "get /api/v1/pools/{id}/images/{index}",
            "get /api/v1/pools/{id}/kept-tokens",
            "get /api/v1/pools/{id}/quality",
            "post /api/v1/pools/{id}/quality",
            "get /api/v1/storage",
            "post /api/v1/storage/gc",
            "post /api/v1/thumbnails",
            "get /healthz",
            "get /readyz",
        ]
    );
    for (path, method) in documented.keys() {
        let method: Method = method.to_uppercase().parse().unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty());
        let answered = app.send(request.unwrap()).await;
        // Without a registry an adapter is not found, but its route is.
        if answered.status == StatusCode::NOT_FOUND {
            assert_ne!(answered.json()["code"], "unknown_route", "{path}");
        }
        assert_ne!(answered.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}

/// An app and a request to `path` that it answers with `status`.
fn reach(method: &str, path: &str, status: u16) -> (TestApp, Request<Body>) {
    let request = || match method {
        "post" => json_request(path, body_for(path).to_string()),
        _ => Request::get(path).body(Body::empty()).unwrap(),
    };
    let with = |name: &'static str, value: &str| {
        let mut request = request();
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let endless = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    match status {
        200 => (TestApp::new(), request()),
        400 => (TestApp::new(), json_request(path, "{")),
        403 => (TestApp::new(), with("host", "evil.example")),
        404 => (
            TestApp::new(),
            json_request(&format!("{path}?adapter=a"), body_for(path).to_string()),
        ),
        408 => (
            TestApp::limited(|limits| limits.body_timeout = Duration::from_millis(5)),
            json_request(path, endless()),
        ),
        413 => (
            TestApp::limited(|limits| limits.max_body_bytes = 10),
            request(),
        ),
        415 => (TestApp::new(), with("content-type", "image/png")),
        422 => (TestApp::new(), json_request(path, "{}")),
        429 => (
            TestApp::limited(|limits| limits.max_concurrent_requests = 0),
            request(),
        ),
        500 => (TestApp::behaving(Behaviour::Fails), request()),
        503 if method == "get" => (TestApp::behaving(Behaviour::Fails), request()),
        503 => (TestApp::behaving(Behaviour::Stopped), request()),
        other => panic!("{method} {path} documents {other}, which no request here leads to"),
    }
}

#[tokio::test]
async fn every_documented_status_is_reached_and_errors_are_problems() {
    let documented = documented(&document(&TestApp::new()).await);
    for ((path, method), statuses) in documented {
        // These need a registry (tests/it/registry_api.rs, tests/it/jobs_api.rs and tests/it/classifiers_api.rs), or a form (below).
        let elsewhere = [
            "adapter",
            "/storage",
            "/jobs",
            "/pools",
            "/classifiers",
            "/thumbnails",
        ];
        if elsewhere.iter().any(|part| path.contains(part)) {
            continue;
        }
        // 409 needs a registry: `registry_serving` reaches it.
        for status in statuses.into_iter().filter(|&status| status != 409) {
            let (app, request) = reach(&method, &path, status);
            let answered = app.send(request).await;
            assert_eq!(
                answered.status, status,
                "{method} {path}: {:?}",
                answered.body
            );
            if status >= 400 {
                assert_eq!(answered.header("content-type"), "application/problem+json");
                assert_eq!(answered.json()["status"], status);
            }
            let retry = answered.headers.contains_key(header::RETRY_AFTER);
            assert_eq!(
                retry,
                status == 429 || (status == 503 && method == "get"),
                "{method} {path} {status}"
            );
        }
    }
}

#[tokio::test]
async fn a_picture_that_browsers_cannot_show_becomes_a_jpeg_and_what_is_none_says_why() {
    let app = TestApp::new();
    let mut tiff = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(600, 300, image::Rgb([200, 30, 30]))
        .write_to(&mut tiff, image::ImageFormat::Tiff)
        .unwrap();
    let tiff = tiff.into_inner();
    let answer = app
        .send(form_request(
            "/api/v1/thumbnails",
            &[("image", "a.tif", &tiff)],
        ))
        .await;
    assert_eq!(answer.status, 200);
    let made = image::load_from_memory_with_format(&answer.body, image::ImageFormat::Jpeg).unwrap();
    assert_eq!((made.width(), made.height()), (256, 128));

    for parts in [
        &[("image", "a.tif", &b"no picture"[..])][..],
        &[("image", "a.tif", &tiff[..]), ("image", "b.tif", &tiff[..])],
    ] {
        let answer = app.send(form_request("/api/v1/thumbnails", parts)).await;
        assert_eq!(answer.status, 422);
        assert_eq!(answer.json()["parameter"], "image", "{:?}", answer.json());
    }
}
