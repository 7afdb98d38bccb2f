//! Answers that are given before everything is computed, and that get better.

use crate::classifiers_api::Home;
use crate::test_app::{TestApp, png};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// With their copies more than a request waits for.
const PER_CLASS: u8 = 60;

/// Pictures of two colours, by class.
fn many() -> [(&'static str, Vec<Vec<u8>>); 2] {
    let greens = || (0..PER_CLASS).map(|step| 4 * step);
    [
        ("red", greens().map(|green| png(255, green, 0)).collect()),
        ("blue", greens().map(|green| png(0, green, 255)).collect()),
    ]
}

/// The head that answered, and whether the answer is provisional.
fn of(answer: &Value) -> (String, bool) {
    let head = answer["results"][0]["head"].as_str().unwrap().to_owned();
    (head, answer["provisional"].as_bool().unwrap())
}

#[tokio::test]
async fn without_copies_an_answer_is_provisional_until_they_are_encoded() {
    let app = TestApp::new();
    let class = |(label, images): &(&str, Vec<Vec<u8>>)| {
        let images: Vec<String> = images
            .iter()
            .map(|own| BASE64_STANDARD.encode(own))
            .collect();
        json!({"label": label, "images": images})
    };
    let classes: Vec<Value> = many().iter().map(class).collect();
    let body = json!({"classes": classes, "queries": [BASE64_STANDARD.encode(png(250, 60, 5))]});
    let ask = || app.post_json("/api/v1/classify", &body);
    assert_eq!(of(&ask().await.json()), ("lda".to_owned(), true));
    loop {
        match of(&ask().await.json()) {
            (head, true) => assert_eq!(head, "lda"),
            (head, false) => {
                assert_eq!(head, "lda-augmented");
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_classifier_says_so_too_and_ends_with_the_better_answer() {
    let home = Home::new().await;
    let path = home.create(json!({"name": "Colours"})).await;
    let mut parts = Vec::new();
    for (label, images) in many() {
        for (index, bytes) in images.into_iter().enumerate() {
            let name = format!("{label} {index}.png");
            parts.push((format!("support/{label}"), name, bytes));
        }
    }
    home.add(&path, &parts).await;
    let query = png(250, 60, 5);
    loop {
        let address = format!("{path}/classify");
        let asked: [(&str, &str, &[u8]); 1] = [("query", "", &query)];
        match of(&home.app.post_form(&address, &asked).await.json()) {
            (head, true) => assert_eq!(head, "lda"),
            (head, false) => {
                assert_eq!(head, "lda-augmented");
                return;
            }
        }
    }
}
