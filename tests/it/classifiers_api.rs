//! Classifiers that stay, over HTTP: the real router around a fresh data folder.

use crate::registry_api::assert_problem;
use crate::test_app::{Answered, TestApp, borrowed, form_request, json_request, png};
use axum::body::Body;
use axum::http::{HeaderName, Request, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lora_recycle::app::registry::Registry;
use lora_recycle::web::WebLimits;
use serde_json::{Value, json};
use std::path::Path;
use store::{Access, StoreError};
use tempfile::TempDir;
use test_support::project;
use test_support::store::when_free;

const CLASSIFIERS: &str = "/api/v1/classifiers";
const IF_MATCH: HeaderName = header::IF_MATCH;
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An app on the tiny backbone; its data folder outlives it.
pub struct Home {
    folder: TempDir,
    pub app: TestApp,
}

async fn registry(folder: &Path) -> Registry {
    let open = async || Registry::open(folder, Access::Exclusive).await;
    let busy = |error: &lora_recycle::app::registry::RegistryError| {
        matches!(
            error,
            lora_recycle::app::registry::RegistryError::Store(StoreError::InUse { .. })
        )
    };
    when_free(open, busy).await
}

impl Home {
    pub async fn new() -> Self {
        Self::opening(TestApp::with_registry).await
    }

    pub async fn opening(open: impl FnOnce(Registry) -> TestApp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path()).await;
        let name = "tiny".parse().unwrap();
        let source = project("tests/golden/vit-tiny");
        registry.add_backbone(&source, &name).await.unwrap();
        Self {
            folder,
            app: open(registry),
        }
    }

    /// The same data folder in a new process, as far as a test can have one.
    async fn restarted(self) -> Self {
        let Self { folder, app } = self;
        drop(app);
        let app = TestApp::with_registry(registry(folder.path()).await);
        Self { folder, app }
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Option<Value>,
    ) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.app.send(request.body(body).unwrap()).await
    }

    /// The body of an answer that must be a success.
    pub async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.request(method, path, &[], body).await;
        assert!(answer.status.is_success(), "{path}: {:?}", answer.body);
        answer.json()
    }

    pub async fn create(&self, body: Value) -> String {
        let answer = self.app.post_json(CLASSIFIERS, &body).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let path = format!("{CLASSIFIERS}/{id}");
        assert_eq!(answer.header("location"), path);
        path
    }

    /// A classifier with five pictures of two colours.
    async fn colours(&self, privacy: &str) -> String {
        let path = self
            .create(json!({"name": "Colours", "privacy": privacy}))
            .await;
        self.add(&path, &supports()).await;
        path
    }

    /// Adds pictures, each as name of the part, file name and bytes.
    pub async fn add(&self, path: &str, parts: &[(String, String, Vec<u8>)]) {
        let answer = self
            .app
            .post_form(&format!("{path}/images"), &borrowed(parts))
            .await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }

    /// Names of the classes and of the pictures in each.
    async fn contents(&self, path: &str) -> Vec<(String, Vec<String>)> {
        let classifier = self.done("GET", path, None).await;
        let mut contents = Vec::new();
        for class in classifier["classes"].as_array().unwrap() {
            let id = class["id"].as_str().unwrap();
            let list = format!("{path}/images?class={id}&limit=200");
            let list = self.done("GET", &list, None).await;
            let images = list["images"].as_array().unwrap();
            assert_eq!(class["pictures"], images.len());
            let names = images.iter().map(|image| text(&image["name"]));
            contents.push((text(&class["name"]), names.collect()));
        }
        contents
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn supports() -> Vec<(String, String, Vec<u8>)> {
    let part =
        |label: &str, name: &str, bytes| (format!("support/{label}"), name.to_owned(), bytes);
    vec![
        part("red", "r1.png", png(255, 0, 0)),
        part("red", "r2.png", png(220, 10, 0)),
        part("blue", "b1.png", png(0, 0, 255)),
        part("red", "r3.png", png(200, 0, 30)),
        part("blue", "b2.png", png(0, 30, 220)),
    ]
}

fn contents(expected: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    expected
        .iter()
        .map(|&(class, names)| (class.to_owned(), owned(names)))
        .collect()
}

/// Two pictures to classify, one of them without a name.
fn queries(path: &str) -> Request<Body> {
    let (reddish, bluish) = (png(240, 0, 10), png(20, 0, 230));
    let parts: [(&str, &str, &[u8]); 3] = [
        ("query", "reddish.png", &reddish),
        ("query", "broken.png", b"<html>"),
        ("query", "", &bluish),
    ];
    form_request(path, &parts)
}

/// The answer of `/classify` with the same pictures.
async fn sent_along(home: &Home, parameters: &str) -> Value {
    let mut parts = supports();
    let query = |name: &str, bytes: Vec<u8>| ("query".to_owned(), name.to_owned(), bytes);
    parts.push(query("reddish.png", png(240, 0, 10)));
    parts.push(query("broken.png", b"<html>".to_vec()));
    parts.push(query("", png(20, 0, 230)));
    let path = format!("/api/v1/classify{parameters}");
    let answer = home.app.post_form(&path, &borrowed(&parts)).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

/// Takes the ids of the pictures out of an answer: pictures that were sent along have none.
fn ids_of_neighbours(answer: &mut Value) -> Vec<String> {
    let mut ids = Vec::new();
    for result in answer["results"].as_array_mut().unwrap() {
        let Some(result) = result
            .as_object_mut()
            .filter(|own| own.contains_key("scores"))
        else {
            continue;
        };
        for field in ["nearest", "nearest_in_class"] {
            for near in result[field].as_array_mut().unwrap() {
                ids.push(text(&near.as_object_mut().unwrap().remove("id").unwrap()));
            }
        }
        if let Some(near) = result["closest_elsewhere"].as_object_mut() {
            ids.push(text(&near.remove("id").unwrap()));
        }
    }
    assert!(!ids.is_empty());
    ids
}

#[tokio::test]
async fn a_classifier_is_made_filled_listed_and_shown() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let answer = home.app.get(&path).await;
    let shown = answer.json();
    assert_eq!(shown["name"], "Colours");
    assert_eq!(shown["backbone"]["name"], "tiny");
    assert_eq!(shown["adapter"], json!({"kind": "default"}));
    assert_eq!(shown["privacy"], "pictures");
    assert_eq!(shown["limits"], Value::Null);
    assert_eq!(
        (&shown["class_count"], &shown["picture_count"]),
        (&json!(2), &json!(5))
    );
    assert_eq!(shown["created_by"], "REST");
    assert_eq!(shown["undo"]["summary"], "Added 5 pictures to red and blue");
    assert_eq!(shown["redo"], Value::Null);
    assert_eq!(answer.header("etag"), format!("\"{}\"", shown["revision"]));
    let expected = [
        ("red", &["r1.png", "r2.png", "r3.png"][..]),
        ("blue", &["b1.png", "b2.png"]),
    ];
    assert_eq!(home.contents(&path).await, contents(&expected));

    let other = home.create(json!({"name": "Other"})).await;
    let first = home
        .done("GET", &format!("{CLASSIFIERS}?limit=1"), None)
        .await;
    assert!(other.ends_with(first["classifiers"][0]["id"].as_str().unwrap()));
    let cursor = text(&first["next_cursor"]);
    let second = format!("{CLASSIFIERS}?limit=1&cursor={cursor}");
    let second = home.done("GET", &second, None).await;
    assert_eq!(second["classifiers"][0]["name"], "Colours");
    assert_eq!(second["next_cursor"], Value::Null);
    let named = home
        .done("GET", &format!("{CLASSIFIERS}?name=cOLOURS"), None)
        .await;
    assert_eq!(named["classifiers"].as_array().unwrap().len(), 1);

    let freed = home.done("DELETE", &path, None).await;
    assert!(freed["freed_bytes"].as_u64().unwrap() > 500, "{freed}");
    assert_problem(&home.app.get(&path).await, 404, "classifier_not_found");
}

#[tokio::test]
async fn a_classifier_answers_as_if_its_pictures_had_been_sent_along_bit_for_bit() {
    for privacy in ["pictures", "features"] {
        let home = Home::new().await;
        let path = home.colours(privacy).await;
        for parameters in [
            "",
            "?attention=true&nearest=5",
            "?head=lda&transductive=true",
            "?head=nearest-mean",
            "?reject=0.5",
        ] {
            let expected = sent_along(&home, parameters).await;
            let first = &expected["results"][0];
            assert_eq!(first["certainty"] == "none", first["rejected"]);
            let asked = format!("{path}/classify{parameters}");
            for _ in 0..2 {
                let answer = home.app.send(queries(&asked)).await;
                assert_eq!(answer.status, 200, "{:?}", answer.body);
                let mut answer = answer.json();
                for id in ids_of_neighbours(&mut answer) {
                    let picture = format!("{path}/images/{id}/thumbnail");
                    assert_eq!(home.app.get(&picture).await.status, 200, "{picture}");
                }
                assert_eq!(answer, expected, "{privacy} {parameters}");
            }
        }
        let answer = sent_along(&home, "").await;
        assert_eq!(answer["results"][0]["label"], "red");
        let in_class = answer["results"][0]["nearest_in_class"].as_array().unwrap();
        assert_eq!(in_class.len(), 3);
        assert!(in_class.iter().all(|near| near["label"] == "red"));
        assert_eq!(
            answer["results"][1]["error"]["code"],
            "image_unsupported_format"
        );
        assert_eq!(answer["results"][2]["label"], "blue");
        let json_queries = json!({"queries": [BASE64_STANDARD.encode(png(0, 0, 200))]});
        let answer = home
            .app
            .post_json(&format!("{path}/classify"), &json_queries)
            .await;
        assert_eq!(answer.json()["results"][0]["label"], "blue");
    }
}

#[tokio::test]
async fn a_restart_keeps_everything_and_answers_the_same() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let shown = home.done("GET", &path, None).await;
    let list = home.done("GET", &format!("{path}/images"), None).await;
    let asked = format!("{path}/classify");
    let answer = home.app.send(queries(&asked)).await.json();
    let home = home.restarted().await;
    assert_eq!(home.done("GET", &path, None).await, shown);
    assert_eq!(
        home.done("GET", &format!("{path}/images"), None).await,
        list
    );
    assert_eq!(home.app.send(queries(&asked)).await.json(), answer);
    home.done("POST", &format!("{path}/undo"), None).await;
    assert_eq!(
        home.contents(&path).await,
        contents(&[("red", &[]), ("blue", &[])])
    );
}

#[tokio::test]
async fn after_a_restart_the_features_of_its_pictures_are_still_there_and_none_is_encoded_again() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let asked = format!("{path}/classify");
    let answer = home.app.send(queries(&asked)).await.json();
    let Home { folder, app } = home;
    drop(app);
    let blobs = folder.path().join("blobs");
    let registry = registry(folder.path()).await;
    // With the pictures gone only their features can answer.
    std::fs::remove_dir_all(&blobs).unwrap();
    let app = TestApp::with_registry(registry);
    assert_eq!(app.send(queries(&asked)).await.json(), answer);
}

#[tokio::test]
async fn a_client_that_has_not_seen_a_change_is_refused_and_told_what_was_changed() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let seen = home.app.get(&path).await;
    let etag = seen.header("etag").to_owned();
    let red = text(&seen.json()["classes"][0]["id"]);
    let class = format!("{path}/classes/{red}");
    let known = [(IF_MATCH, etag.as_str())];
    let renamed = home
        .request("PATCH", &class, &known, Some(json!({"name": "warm"})))
        .await;
    assert_eq!(renamed.status, 200, "{:?}", renamed.body);
    assert_eq!(renamed.json()["change"]["summary"], "Renamed red to warm");
    let now = renamed.header("etag").to_owned();
    assert_eq!(home.app.get(&path).await.header("etag"), now);

    let images = json!({"images": [home.done("GET", &format!("{path}/images"), None).await["images"][0]["id"]]});
    let into = json!({"into": red});
    let refused = [
        ("PATCH", path.clone(), Some(json!({"name": "x"}))),
        ("DELETE", path.clone(), None),
        (
            "POST",
            format!("{path}/classes"),
            Some(json!({"name": "x"})),
        ),
        ("PATCH", class.clone(), Some(json!({"name": "x"}))),
        ("DELETE", class.clone(), None),
        (
            "POST",
            format!(
                "{path}/classes/{}/merge",
                text(&seen.json()["classes"][1]["id"])
            ),
            Some(into),
        ),
        (
            "POST",
            format!("{path}/images"),
            Some(
                json!({"classes": [{"label": "warm", "images": [BASE64_STANDARD.encode(png(9, 9, 9))]}]}),
            ),
        ),
        ("DELETE", format!("{path}/images"), Some(images)),
        ("POST", format!("{path}/undo"), None),
        ("POST", format!("{path}/redo"), None),
    ];
    for (method, path, body) in refused {
        let answer = home.request(method, &path, &known, body).await;
        let problem = assert_problem(&answer, 412, "classifier_changed");
        let changes = problem["changes"].as_array().unwrap();
        assert_eq!(changes.len(), 1, "{method} {path}: {problem}");
        assert_eq!(changes[0]["summary"], "Renamed red to warm");
        assert_eq!(changes[0]["made_by"], "REST");
    }
    assert_eq!(home.app.get(&path).await.header("etag"), now);
    let strange = [(IF_MATCH, "\"abc\"")];
    let answer = home.request("DELETE", &path, &strange, None).await;
    assert_eq!(
        assert_problem(&answer, 422, "invalid_parameter")["parameter"],
        "If-Match"
    );
}

#[tokio::test]
async fn a_request_with_a_key_that_comes_again_acts_once_and_is_answered_as_before() {
    let home = Home::new().await;
    let send = async |home: &Home, path: &str, key: &str, body: &Value| {
        home.request("POST", path, &[(KEY, key)], Some(body.clone()))
            .await
    };
    let new = json!({"name": "Trees"});
    let first = send(&home, CLASSIFIERS, "k1", &new).await;
    assert_eq!(first.status, 201);
    for _ in 0..2 {
        let again = send(&home, CLASSIFIERS, "k1", &new).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        for name in ["location", "etag"] {
            assert_eq!(again.header(name), first.header(name));
        }
    }
    let other = send(&home, CLASSIFIERS, "k1", &json!({"name": "Leaves"})).await;
    assert_problem(&other, 409, "idempotency_key_used");
    let path = first.header("location").to_owned();
    let class = format!("{path}/classes");
    let oak = send(&home, &class, "k1", &json!({"name": "Oak"})).await;
    assert_eq!(oak.status, 201, "{:?}", oak.body);
    let images = format!("{path}/images");
    let picture =
        json!({"classes": [{"label": "oak", "images": [BASE64_STANDARD.encode(png(1, 2, 3))]}]});
    let added = send(&home, &images, "k1", &picture).await;
    assert_eq!(added.status, 200, "{:?}", added.body);

    let home = home.restarted().await;
    assert_eq!(send(&home, CLASSIFIERS, "k1", &new).await.body, first.body);
    assert_eq!(
        send(&home, &class, "k1", &json!({"name": "Oak"}))
            .await
            .body,
        oak.body
    );
    let again = send(&home, &images, "k1", &picture).await;
    assert_eq!(again.body, added.body);
    assert_eq!(again.json()["images"][0]["is_new"], true);
    let list = home.done("GET", CLASSIFIERS, None).await;
    assert_eq!(list["classifiers"].as_array().unwrap().len(), 1);
    assert_eq!(list["classifiers"][0]["picture_count"], 1);

    // What made nothing can be asked again.
    let refused = send(&home, &class, "k2", &json!({"name": "OAK"})).await;
    assert_problem(&refused, 409, "class_exists");
    home.done(
        "DELETE",
        &format!("{class}/{}", text(&oak.json()["class"]["id"])),
        None,
    )
    .await;
    let accepted = send(&home, &class, "k2", &json!({"name": "OAK"})).await;
    assert_eq!(accepted.status, 201, "{:?}", accepted.body);
    let answer = send(&home, CLASSIFIERS, "", &new).await;
    assert_problem(&answer, 422, "invalid_parameter");
}

#[tokio::test]
async fn a_bad_picture_among_good_ones_has_its_reason_and_the_others_are_added() {
    let home = Home::new().await;
    let path = home.create(json!({"name": "Mixed"})).await;
    let (good, cut) = (png(1, 2, 3), &png(4, 5, 6)[..40]);
    let parts: [(&str, &str, &[u8]); 5] = [
        ("support/a", "good.png", &good),
        ("support/a", "page.png", b"<html>"),
        ("support/only bad ones", "cut.png", cut),
        ("support/b", "", &good),
        ("support/A", "again.png", &good),
    ];
    let answer = home.app.post_form(&format!("{path}/images"), &parts).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let answer = answer.json();
    let images = answer["images"].as_array().unwrap();
    let outcome = |index: usize| {
        (
            images[index]["is_new"].as_bool().unwrap(),
            images[index]["error"]["code"].as_str(),
        )
    };
    assert_eq!(outcome(0), (true, None));
    assert_eq!(outcome(1), (false, Some("image_unsupported_format")));
    assert_eq!(outcome(2), (false, Some("image_truncated")));
    assert_eq!(outcome(3), (true, None));
    assert_eq!(outcome(4), (false, None));
    assert_eq!(images[4]["id"], images[0]["id"]);
    assert_eq!(
        (&images[2]["image"], &images[3]["image"]),
        (&json!("cut.png"), &json!("3"))
    );
    assert!(images[1]["error"]["message"].as_str().unwrap().len() > 20);
    let expected = [("a", &["good.png"][..]), ("b", &["3"])];
    assert_eq!(home.contents(&path).await, contents(&expected));
    let before = home.app.get(&path).await.body;
    let bad: [(&str, &str, &[u8]); 1] = [("support/c", "page.png", b"<html>")];
    let answer = home
        .app
        .post_form(&format!("{path}/images"), &bad)
        .await
        .json();
    assert_eq!(answer["change"], Value::Null);
    assert_eq!(home.app.get(&path).await.body, before);
    let bad: [(&str, &str, &[u8]); 1] = [("support/", "good.png", &good)];
    let answer = home.app.post_form(&format!("{path}/images"), &bad).await;
    assert_problem(&answer, 422, "invalid_parameter");
}

#[tokio::test]
async fn pictures_and_classes_are_moved_merged_renamed_ordered_and_deleted_and_all_of_it_is_undone()
{
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let before = home.contents(&path).await;
    let shown = home.done("GET", &path, None).await;
    let class = |index: usize| text(&shown["classes"][index]["id"]);
    let images = home.done("GET", &format!("{path}/images"), None).await;
    let image = |index: usize| images["images"][index]["id"].clone();
    let of_images = format!("{path}/images");

    let moved = json!({"images": [image(0), image(1)], "class": class(1)});
    let moved = home.done("PATCH", &of_images, Some(moved)).await;
    assert_eq!(
        moved["change"]["summary"],
        "Moved 2 pictures from red to blue"
    );
    let deleted = json!({"images": [image(2)]});
    home.done("DELETE", &of_images, Some(deleted)).await;
    let order = json!({"order": [class(1), class(0)]});
    home.done("PATCH", &path, Some(order)).await;
    let name = json!({"name": "rest"});
    home.done("PATCH", &format!("{path}/classes/{}", class(0)), Some(name))
        .await;
    home.done("PATCH", &path, Some(json!({"name": "Hues"})))
        .await;
    let expected = [
        ("blue", &["r1.png", "r2.png", "b2.png"][..]),
        ("rest", &["r3.png"]),
    ];
    assert_eq!(home.contents(&path).await, contents(&expected));
    let merge = format!("{path}/classes/{}/merge", class(0));
    home.done("POST", &merge, Some(json!({"into": class(1)})))
        .await;
    home.done("DELETE", &format!("{path}/classes/{}", class(1)), None)
        .await;
    assert_eq!(home.contents(&path).await, []);

    for _ in 0..7 {
        home.done("POST", &format!("{path}/undo"), None).await;
    }
    assert_eq!(home.contents(&path).await, before);
    let shown = home.done("GET", &path, None).await;
    assert_eq!(shown["name"], "Colours");
    assert_eq!(
        shown["redo"]["summary"],
        "Moved 2 pictures from red to blue"
    );
    for _ in 0..2 {
        home.done("POST", &format!("{path}/undo"), None).await;
    }
    let nothing = home
        .request("POST", &format!("{path}/undo"), &[], None)
        .await;
    assert_problem(&nothing, 409, "nothing_to_undo");
    for _ in 0..9 {
        home.done("POST", &format!("{path}/redo"), None).await;
    }
    assert_eq!(home.contents(&path).await, []);
    let both = json!({"name": "x", "order": []});
    let answer = home.request("PATCH", &path, &[], Some(both)).await;
    assert_eq!(
        assert_problem(&answer, 422, "invalid_parameter")["parameter"],
        "order"
    );
}

#[tokio::test]
async fn a_picture_that_is_rejected_has_no_certainty_and_still_its_nearest_examples() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let green = png(0, 255, 0);
    for (parameters, is_rejected) in [("", false), ("?reject=0.5", true)] {
        let asked = format!("{path}/classify{parameters}");
        let answer = home.app.post_form(&asked, &[("query", "", &green)]).await;
        let result = answer.json()["results"][0].clone();
        assert_eq!(result["rejected"], is_rejected, "{result}");
        assert_eq!(result["certainty"] == "none", is_rejected, "{result}");
        assert_eq!(result["label"].is_null(), is_rejected, "{result}");
        let likeliest = &result["scores"][0]["label"];
        assert_eq!(result["nearest_in_class"][0]["label"], *likeliest);
    }
}

#[tokio::test]
async fn a_moved_picture_changes_the_next_answer() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let asked = format!("{path}/classify?nearest=1");
    let nearest = async || {
        let answer = home.app.send(queries(&asked)).await.json();
        text(&answer["results"][0]["nearest"][0]["label"])
    };
    assert_eq!(nearest().await, "red");
    let images = home.done("GET", &format!("{path}/images"), None).await;
    let reds: Vec<&Value> = [0, 1].map(|index| &images["images"][index]["id"]).to_vec();
    let classes = home.done("GET", &path, None).await["classes"].clone();
    let moved = json!({"images": reds, "class": classes[1]["id"]});
    home.done("PATCH", &format!("{path}/images"), Some(moved))
        .await;
    assert_eq!(nearest().await, "blue");
    home.done("POST", &format!("{path}/undo"), None).await;
    assert_eq!(nearest().await, "red");
}

#[tokio::test]
async fn a_picture_and_its_thumbnail_come_back_with_tags() {
    let home = Home::new().await;
    let path = home.colours("pictures").await;
    let images = home.done("GET", &format!("{path}/images"), None).await;
    let record = &images["images"][0];
    assert_eq!(
        (&record["width"], &record["height"]),
        (&json!(9), &json!(7))
    );
    let whole = format!("{path}/images/{}", text(&record["id"]));
    let answer = home.app.get(&whole).await;
    assert_eq!(answer.body, png(255, 0, 0));
    assert_eq!(answer.header("content-type"), "image/png");
    assert_eq!(
        answer.header("etag"),
        format!("\"{}\"", text(&record["digest"]))
    );
    let thumbnail = home.app.get(&format!("{whole}/thumbnail")).await;
    assert_eq!(thumbnail.header("content-type"), "image/jpeg");
    assert!(thumbnail.body.starts_with(b"\xff\xd8\xff"));
    for (address, known) in [
        (whole.clone(), answer),
        (format!("{whole}/thumbnail"), thumbnail),
    ] {
        let known = [(header::IF_NONE_MATCH, known.header("etag"))];
        let again = home.request("GET", &address, &known, None).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    }
    for unknown in ["x", "01900000-0000-7000-8000-000000000000"] {
        let answer = home
            .app
            .get(&format!("{path}/images/{unknown}/thumbnail"))
            .await;
        assert_problem(&answer, 404, "picture_not_found");
    }
}

#[tokio::test]
async fn with_privacy_features_no_picture_is_kept_and_the_classifier_says_what_that_costs() {
    let home = Home::new().await;
    let path = home.colours("features").await;
    let shown = home.done("GET", &path, None).await;
    assert!(shown["limits"].as_str().unwrap().contains("thumbnails"));
    // The adapter that was the default then, which is none here.
    assert_eq!(shown["adapter"], json!({"kind": "none"}));
    let images = home.done("GET", &format!("{path}/images"), None).await;
    let record = &images["images"][0];
    assert_eq!(record["is_kept"], false);
    let whole = format!("{path}/images/{}", text(&record["id"]));
    assert_problem(&home.app.get(&whole).await, 404, "picture_not_kept");
    assert_eq!(
        home.app.get(&format!("{whole}/thumbnail")).await.status,
        200
    );
    let originals: Vec<Vec<u8>> = supports().into_iter().map(|(_, _, bytes)| bytes).collect();
    let mut files = 0;
    let mut folders = vec![home.folder.path().join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let bytes = std::fs::read(&entry).unwrap();
                assert!(!originals.contains(&bytes), "{}", entry.display());
                files += 1;
            }
        }
    }
    assert!(files >= 5, "{files}");
    let asked = format!("{path}/classify");
    let answer = home.app.send(queries(&asked)).await.json();
    let home = home.restarted().await;
    assert_eq!(home.app.send(queries(&asked)).await.json(), answer);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_a_reason() {
    let home = Home::new().await;
    for unknown in ["x", "01900000-0000-7000-8000-000000000000"] {
        let answer = home.app.get(&format!("{CLASSIFIERS}/{unknown}")).await;
        assert_problem(&answer, 404, "classifier_not_found");
    }
    let create = async |body: Value| home.app.post_json(CLASSIFIERS, &body).await;
    let nameless = create(json!({"name": " "})).await;
    assert_eq!(
        assert_problem(&nameless, 422, "invalid_parameter")["parameter"],
        "name"
    );
    let strange = create(json!({"name": "x", "adapter": "nobody"})).await;
    assert_problem(&strange, 404, "adapter_not_found");
    assert_problem(
        &create(json!({"name": "x", "privacy": "y"})).await,
        422,
        "invalid_parameter",
    );
    let path = home.create(json!({"name": "Empty"})).await;
    let asked = format!("{path}/classify");
    let answer = home.app.send(queries(&asked)).await;
    let problem = assert_problem(&answer, 422, "invalid_parameter");
    assert_eq!(
        problem["detail"],
        "a classification needs at least 2 classes, got 0"
    );
    let nothing = home.app.post_json(&asked, &json!({"queries": []})).await;
    assert_eq!(
        assert_problem(&nothing, 422, "invalid_parameter")["parameter"],
        "queries"
    );
    let class = json!({"name": "x"});
    let missing = format!("{path}/classes/01900000-0000-7000-8000-000000000000");
    let answer = home.request("PATCH", &missing, &[], Some(class)).await;
    assert_problem(&answer, 404, "class_not_found");
    let foreign = [
        (header::ORIGIN, "http://elsewhere.example"),
        (header::HOST, "localhost"),
    ];
    let answer = home
        .request("POST", &format!("{path}/undo"), &foreign, None)
        .await;
    assert_problem(&answer, 403, "cross_origin");
    let without = TestApp::limited(|limits: &mut WebLimits| limits.max_body_bytes = 10);
    let large = without
        .send(json_request(
            CLASSIFIERS,
            json!({"name": "long enough"}).to_string(),
        ))
        .await;
    assert_problem(&large, 413, "body_too_large");
}

#[tokio::test]
async fn a_classifier_stays_with_a_version_or_follows_a_name_that_moves() {
    let home = Home::opening(|registry| TestApp::with_onnx_runtime(Some(registry))).await;
    let import = async || {
        let files = test_support::broken_adapters::golden("vit-tiny", "adapter-peft-v4");
        let parts: Vec<(&str, &str, &[u8])> = files
            .iter()
            .map(|file| ("file", file.path.as_str(), file.bytes.as_slice()))
            .collect();
        let answer = home
            .app
            .send(form_request("/api/v1/adapters?name=pets", &parts))
            .await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
    };
    import().await;
    let best = json!({"adapter": "pets:1"});
    home.done("PUT", "/api/v1/adapters/pets/aliases/best", Some(best))
        .await;
    let mut paths = Vec::new();
    for adapter in ["pets", "pets@best", "none"] {
        let path = home
            .create(json!({"name": adapter, "adapter": adapter}))
            .await;
        let body = json!({"classes": [
            {"label": "red", "images": [BASE64_STANDARD.encode(png(255, 0, 0))]},
            {"label": "blue", "images": [BASE64_STANDARD.encode(png(0, 0, 255))]},
        ]});
        home.done("POST", &format!("{path}/images"), Some(body))
            .await;
        paths.push(path);
    }
    import().await;
    let best = json!({"adapter": "pets:2"});
    home.done("PUT", "/api/v1/adapters/pets/aliases/best", Some(best))
        .await;
    let mut labels = Vec::new();
    for path in &paths {
        let answer = home
            .app
            .send(queries(&format!("{path}/classify")))
            .await
            .json();
        labels.push(answer["adapter"]["label"].clone());
    }
    assert_eq!(labels, [json!("pets:1"), json!("pets:2"), Value::Null]);
    let shown = home.done("GET", &paths[0], None).await;
    assert_eq!(
        (&shown["adapter"]["kind"], &shown["adapter"]["label"]),
        (&json!("pinned"), &json!("pets:1"))
    );
    home.done("DELETE", "/api/v1/adapters/pets:1", None).await;
    let answer = home
        .app
        .send(queries(&format!("{}/classify", paths[0])))
        .await;
    let problem = assert_problem(&answer, 409, "classifier_adapter_gone");
    assert!(
        problem["detail"].as_str().unwrap().contains("pets:1"),
        "{problem}"
    );
    let shown = home
        .done("PATCH", &paths[0], Some(json!({"adapter": null})))
        .await;
    assert_eq!(shown["adapter"], json!({"kind": "default"}));
}

/// Pictures that differ in more than their colour: stripes of some width, from dark to the colour.
fn striped([red, green, blue]: [u8; 3], width: u32, shift: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(48, 48, |x, _| {
        let bright = ((x + shift) / width).is_multiple_of(2);
        let level = |level: u8| if bright { level } else { level / 3 };
        image::Rgb([level(red), level(green), level(blue)])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn a_check_finds_what_was_planted_and_its_changes_can_be_made() {
    let home = Home::new().await;
    let path = home.create(json!({"name": "Stripes"})).await;
    let mut parts: Vec<(String, String, Vec<u8>)> = Vec::new();
    let mut add = |label: &str, name: &str, bytes: Vec<u8>| {
        parts.push((format!("support/{label}"), name.to_owned(), bytes));
    };
    for number in 0..8u8 {
        let width = 3 + u32::from(number);
        add(
            "red",
            &format!("r{number}.png"),
            striped([240, 20 + number, 10], width, 1),
        );
        add(
            "blue",
            &format!("b{number}.png"),
            striped([10, 20 + number, 240], width, 2),
        );
    }
    // A red one among the blue ones, and one that is in both.
    add("blue", "wrong.png", striped([238, 22, 12], 13, 5));
    add("blue", "r0 again.png", striped([240, 20, 10], 3, 1));
    home.add(&path, &parts).await;

    let answer = home
        .request("GET", &format!("{path}/check"), &[], None)
        .await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let check = answer.json();
    assert_eq!(answer.header("etag"), format!("\"{}\"", check["revision"]));
    assert_eq!(
        (&check["pictures"], &check["classes"]),
        (&json!(18), &json!(2))
    );
    let accuracy = &check["accuracy"];
    let share = accuracy["share"].as_f64().unwrap();
    assert!(
        accuracy["low"].as_f64().unwrap() < share && share < accuracy["high"].as_f64().unwrap()
    );
    let cells = check["confusion"].as_array().unwrap();
    let counted: u64 = cells
        .iter()
        .map(|cell| cell["count"].as_u64().unwrap())
        .sum();
    assert_eq!(
        accuracy["of"], counted,
        "every judged picture is in one cell"
    );

    let hints = check["hints"].as_array().unwrap().clone();
    let names = home
        .done("GET", &format!("{path}/images?limit=200"), None)
        .await;
    let name_of = |id: &Value| {
        let images = names["images"].as_array().unwrap();
        text(&images.iter().find(|image| image["id"] == *id).unwrap()["name"])
    };
    let of_kind = |kind: &str| {
        hints
            .iter()
            .filter(|hint| hint["kind"] == kind)
            .cloned()
            .collect::<Vec<_>>()
    };
    let twice = of_kind("in_two_classes");
    assert_eq!(twice.len(), 1, "{hints:?}");
    let mut both: Vec<String> = twice[0]["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(name_of)
        .collect();
    both.sort();
    assert_eq!(both, ["r0 again.png", "r0.png"]);
    let wrong: Vec<String> = of_kind("wrong_label")
        .iter()
        .map(|hint| name_of(&hint["images"][0]))
        .collect();
    assert!(wrong.contains(&"wrong.png".to_owned()), "{hints:?}");

    let change = &of_kind("wrong_label")
        .into_iter()
        .find(|hint| name_of(&hint["images"][0]) == "wrong.png")
        .unwrap()["change"];
    assert_eq!(change["kind"], "move");
    let body = json!({"images": [change["image"]], "class": change["class"]});
    home.done("PATCH", &format!("{path}/images"), Some(body))
        .await;
    let contents = home.contents(&path).await;
    let red = contents.iter().find(|(name, _)| name == "red").unwrap();
    assert!(red.1.contains(&"wrong.png".to_owned()), "{contents:?}");
}

#[tokio::test]
async fn a_check_says_what_it_needs() {
    let home = Home::new().await;
    let path = home.create(json!({"name": "Little"})).await;
    let empty = home.done("GET", &format!("{path}/check"), None).await;
    assert_eq!(
        (&empty["accuracy"], &empty["hints"]),
        (&Value::Null, &json!([]))
    );
    assert!(text(&empty["missing"]).contains("Two classes"));
    for (label, colour) in [("red", [250, 0, 0]), ("blue", [0, 0, 250])] {
        let part = format!("support/{label}");
        let bytes = striped(colour, 4, 0);
        let answer = home
            .app
            .post_form(&format!("{path}/images"), &[(&part, "one.png", &bytes)])
            .await;
        assert_eq!(answer.status, 200);
    }
    let check = home.done("GET", &format!("{path}/check"), None).await;
    assert_eq!(check["accuracy"], Value::Null);
    let missing = text(&check["missing"]);
    assert!(
        missing.contains("red") && missing.contains("blue"),
        "{missing}"
    );
    let unknown = format!("{CLASSIFIERS}/{}/check", uuid::Uuid::nil());
    let answer = home.request("GET", &unknown, &[], None).await;
    assert_eq!(answer.status, 404);
}
