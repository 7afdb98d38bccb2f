//! How a classifier answers where a question does not say, over HTTP.

use crate::classifiers_api::{Home, text};
use crate::test_app::png;
use serde_json::{Value, json};

async fn colours(home: &Home) -> String {
    let path = home.create(json!({"name": "Colours"})).await;
    let mut parts = Vec::new();
    for green in [0, 10, 20] {
        for (label, bytes) in [("red", png(255, green, 0)), ("blue", png(0, green, 255))] {
            parts.push((
                format!("support/{label}"),
                format!("{label} {green}.png"),
                bytes,
            ));
        }
    }
    home.add(&path, &parts).await;
    path
}

/// The head that answered about a green picture, and whether it was rejected.
async fn asked(home: &Home, path: &str, parameters: &str) -> (String, Value) {
    let green = png(0, 255, 0);
    let address = format!("{path}/classify{parameters}");
    let answer = home.app.post_form(&address, &[("query", "", &green)]).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let result = answer.json()["results"][0].clone();
    (text(&result["head"]), result["rejected"].clone())
}

#[tokio::test]
async fn a_classifier_answers_as_it_is_set_to_and_a_question_may_ask_for_something_else() {
    let home = Home::new().await;
    let path = colours(&home).await;
    let shown = home.done("GET", &path, None).await;
    assert_eq!(
        (&shown["head"], &shown["reject"]),
        (&json!("auto"), &Value::Null)
    );
    assert_eq!(
        asked(&home, &path, "").await,
        ("lda-augmented".to_owned(), json!(false))
    );

    let set = json!({"head": "lda-augmented:shrinkage=0.4", "reject": 0.5});
    let shown = home.done("PATCH", &path, Some(set)).await;
    assert_eq!(
        (&shown["head"], &shown["reject"]),
        (&json!("lda-augmented:shrinkage=0.4"), &json!(0.5))
    );
    assert_eq!(
        asked(&home, &path, "").await,
        ("lda-augmented".to_owned(), json!(true))
    );
    assert_eq!(
        asked(&home, &path, "?reject=0&head=nearest-mean").await,
        ("nearest-mean".to_owned(), json!(false))
    );

    // One of them changes, the other stays.
    let shown = home
        .done("PATCH", &path, Some(json!({"reject": null})))
        .await;
    assert_eq!(
        (&shown["head"], &shown["reject"]),
        (&json!("lda-augmented:shrinkage=0.4"), &Value::Null)
    );
    assert_eq!(
        asked(&home, &path, "").await,
        ("lda-augmented".to_owned(), json!(false))
    );

    home.done("POST", &format!("{path}/undo"), None).await;
    home.done("POST", &format!("{path}/undo"), None).await;
    let shown = home.done("GET", &path, None).await;
    assert_eq!(
        (&shown["head"], &shown["reject"]),
        (&json!("auto"), &Value::Null)
    );
}

#[tokio::test]
async fn a_share_or_a_head_that_cannot_be_is_not_stored() {
    let home = Home::new().await;
    let path = colours(&home).await;
    let before = home.done("GET", &path, None).await;
    for (body, said) in [
        (json!({"reject": 1.0}), "must be above 0 and below 1"),
        (json!({"reject": -0.1}), "must be above 0 and below 1"),
        (json!({"head": "cleverest"}), "cleverest"),
    ] {
        let answer = home.request("PATCH", &path, &[], Some(body)).await;
        assert_eq!(answer.status, 422, "{:?}", answer.body);
        let detail = answer.json()["detail"].clone();
        assert!(text(&detail).contains(said), "{detail}");
    }
    assert_eq!(home.done("GET", &path, None).await, before);
}
