//! Classifiers that choose their adapter themselves, over HTTP.

use crate::classifiers_api::{Home, text};
use crate::test_app::{Behaviour, TestApp, form_request, png};
use serde_json::{Value, json};

/// A registry with two adapters of an alias each, of which `pets` was moved last; the encoder does this.
async fn home(behaviour: Behaviour) -> Home {
    let home = Home::opening(|registry| TestApp::behaving_with(registry, behaviour)).await;
    for (name, folder) in [("birds", "adapter-peft-v5"), ("pets", "adapter-peft-v4")] {
        let files = test_support::broken_adapters::golden("vit-tiny", folder);
        let parts: Vec<(&str, &str, &[u8])> = files
            .iter()
            .map(|file| ("file", file.path.as_str(), file.bytes.as_slice()))
            .collect();
        let import = form_request(&format!("/api/v1/adapters?name={name}"), &parts);
        let answer = home.app.send(import).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        let best = json!({"adapter": format!("{name}:1")});
        let alias = format!("/api/v1/adapters/{name}/aliases/best");
        home.done("PUT", &alias, Some(best)).await;
    }
    home
}

/// Adds red and blue pictures, `greens` of each: the first channel tells the classes apart and green does not.
async fn fill(home: &Home, path: &str, greens: impl Iterator<Item = u8>) {
    let mut parts = Vec::new();
    for green in greens {
        for (label, bytes) in [("red", png(255, green, 0)), ("blue", png(0, green, 255))] {
            let name = format!("{label} {green}.png");
            parts.push((format!("support/{label}"), name, bytes));
        }
    }
    home.add(path, &parts).await;
}

/// Label of the adapter that answers a question now, null for the bare backbone.
async fn answering(home: &Home, path: &str) -> Value {
    let query = png(250, 60, 5);
    let asked = format!("{path}/classify");
    let answer = home.app.post_form(&asked, &[("query", "", &query)]).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()["adapter"]["label"].clone()
}

/// What the classifier says of its choice: the label of the chosen one, and label, right ones and all of each candidate.
async fn choice(home: &Home, path: &str) -> (Value, Vec<(Value, u64, u64)>) {
    let shown = home.done("GET", path, None).await;
    assert_eq!(shown["adapter"], json!({"kind": "auto"}));
    let automatic = &shown["automatic"];
    let number = |value: &Value| value.as_u64().unwrap();
    let candidates = automatic["candidates"].as_array().unwrap().iter();
    let candidates = candidates.map(|own| {
        let label = own["adapter"]["label"].clone();
        (label, number(&own["right"]), number(&own["of"]))
    });
    (automatic["chosen"]["label"].clone(), candidates.collect())
}

#[tokio::test]
async fn the_adapter_that_tells_the_examples_apart_is_chosen_and_the_figures_say_why() {
    let home = home(Behaviour::NeedsAdapter).await;
    let path = home
        .create(json!({"name": "Automatic", "adapter": "auto"}))
        .await;
    assert_eq!(choice(&home, &path).await, (Value::Null, Vec::new()));
    fill(&home, &path, [10, 90, 170, 250].into_iter()).await;
    assert_eq!(answering(&home, &path).await, "pets:1");
    // Each picture is nearer to the mean of the other class, where it is left out and green alone is seen.
    let tried = [
        (Value::Null, 0, 8),
        (json!("pets:1"), 8, 8),
        (json!("birds:1"), 8, 8),
    ];
    let expected = (json!("pets:1"), tried.to_vec());
    assert_eq!(choice(&home, &path).await, expected);

    // The alias that moved last comes first, and a default before all.
    home.done("DELETE", "/api/v1/adapters/birds/aliases/best", None)
        .await;
    let best = json!({"adapter": "birds:1"});
    home.done("PUT", "/api/v1/adapters/birds/aliases/best", Some(best))
        .await;
    assert_eq!(answering(&home, &path).await, "birds:1");
    let default = json!({"adapter": "pets:1"});
    home.done(
        "PUT",
        "/api/v1/backbones/tiny/default-adapter",
        Some(default),
    )
    .await;
    assert_eq!(answering(&home, &path).await, "pets:1");
    let (chosen, tried) = choice(&home, &path).await;
    let labels: Vec<&Value> = tried.iter().map(|(label, ..)| label).collect();
    assert_eq!(chosen, "pets:1");
    assert_eq!(labels, [&json!("pets:1"), &Value::Null, &json!("birds:1")]);
}

#[tokio::test]
async fn the_default_answers_where_no_adapter_is_better_or_nothing_can_be_compared() {
    let home = home(Behaviour::Works).await;
    let path = home
        .create(json!({"name": "Automatic", "adapter": "none"}))
        .await;
    let shown = home.done("GET", &path, None).await;
    assert_eq!(shown["automatic"], Value::Null);
    home.done("PATCH", &path, Some(json!({"adapter": "auto"})))
        .await;
    fill(&home, &path, [10].into_iter()).await;
    assert_eq!(answering(&home, &path).await, Value::Null);
    assert_eq!(choice(&home, &path).await, (Value::Null, Vec::new()));
    fill(&home, &path, [90, 170].into_iter()).await;
    assert_eq!(answering(&home, &path).await, Value::Null);
    let (chosen, tried) = choice(&home, &path).await;
    assert_eq!(chosen, Value::Null);
    let figures: Vec<(u64, u64)> = tried.iter().map(|(_, right, of)| (*right, *of)).collect();
    assert_eq!(figures, [(6, 6); 3]);
}

#[tokio::test]
async fn a_choice_follows_the_examples_and_is_the_same_after_it_was_forgotten() {
    let home = home(Behaviour::NeedsAdapter).await;
    let mut choices = Vec::new();
    for _ in 0..2 {
        let path = home
            .create(json!({"name": "Automatic", "adapter": "auto"}))
            .await;
        fill(&home, &path, [10, 90, 170, 250].into_iter()).await;
        assert_eq!(answering(&home, &path).await, "pets:1");
        choices.push(choice(&home, &path).await);
        let images = home.done("GET", &format!("{path}/images"), None).await;
        let images = images["images"].as_array().unwrap().iter();
        let ids: Vec<String> = images.skip(1).map(|image| text(&image["id"])).collect();
        let kept = ids.iter().skip(6).cloned().collect::<Vec<_>>();
        assert_eq!(kept.len(), 1);
        let removed = json!({"images": ids[..6]});
        home.done("DELETE", &format!("{path}/images"), Some(removed))
            .await;
        assert_eq!(answering(&home, &path).await, Value::Null);
        assert_eq!(choice(&home, &path).await, (Value::Null, Vec::new()));
    }
    assert_eq!(choices[0], choices[1]);
}

#[tokio::test]
async fn where_many_features_are_missing_the_default_answers_until_the_choice_is_made() {
    let home = home(Behaviour::NeedsAdapter).await;
    let path = home
        .create(json!({"name": "Automatic", "adapter": "auto"}))
        .await;
    // 202 pictures of three candidates are more than are waited for.
    fill(&home, &path, 0..=100).await;
    let mut answered = answering(&home, &path).await;
    while answered.is_null() {
        tokio::task::yield_now().await;
        answered = answering(&home, &path).await;
    }
    assert_eq!(answered, "pets:1");
    let (chosen, tried) = choice(&home, &path).await;
    assert_eq!(chosen, "pets:1");
    assert_eq!(tried.len(), 3);
}
