//! What is undone at once, over HTTP.

use crate::classifiers_api::Home;
use crate::test_app::png;
use serde_json::{Value, json};

const GROUP: &str = "6b1f6d0e-3a35-4f1b-9a55-0c6c5f2f9d11";

async fn add(home: &Home, path: &str, group: Option<&str>, label: &str, levels: &[u8]) {
    let parameters = group.map_or_else(String::new, |group| format!("?undo_group={group}"));
    let pictures: Vec<Vec<u8>> = levels.iter().map(|&level| png(level, 0, 0)).collect();
    let name = format!("support/{label}");
    let parts: Vec<(&str, &str, &[u8])> = pictures
        .iter()
        .map(|bytes| (name.as_str(), "", bytes.as_slice()))
        .collect();
    let address = format!("{path}/images{parameters}");
    let answer = home.app.post_form(&address, &parts).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
}

/// What an undo and a redo would do, in words.
async fn next(home: &Home, path: &str) -> (Value, Value) {
    let shown = home.done("GET", path, None).await;
    let words = |which: &str| shown[which]["summary"].clone();
    (words("undo"), words("redo"))
}

async fn counts(home: &Home, path: &str) -> Vec<(String, u64)> {
    let shown = home.done("GET", path, None).await;
    let classes = shown["classes"].as_array().unwrap().iter();
    let classes = classes.map(|class| {
        let name = class["name"].as_str().unwrap().to_owned();
        (name, class["pictures"].as_u64().unwrap())
    });
    classes.collect()
}

#[tokio::test]
async fn additions_of_one_group_are_undone_and_redone_at_once_and_others_alone() {
    let home = Home::new().await;
    let path = home.create(json!({"name": "Greys"})).await;
    add(&home, &path, None, "oak", &[1]).await;
    let before = counts(&home, &path).await;
    add(&home, &path, Some(GROUP), "oak", &[2, 3]).await;
    add(&home, &path, Some(GROUP), "ash", &[4]).await;
    add(&home, &path, Some(GROUP), "elm", &[5, 6]).await;
    let after = counts(&home, &path).await;
    assert_eq!(after.len(), 3);
    let all = json!("Added 5 pictures to oak, ash and elm");
    assert_eq!(next(&home, &path).await, (all.clone(), Value::Null));

    let undone = home.done("POST", &format!("{path}/undo"), None).await;
    assert_eq!(
        undone["change"]["summary"],
        "Undid: added 5 pictures to oak, ash and elm"
    );
    assert_eq!(counts(&home, &path).await, before);
    let (undo, redo) = next(&home, &path).await;
    assert_eq!((undo, redo), (json!("Added 1 picture to oak"), all));
    home.done("POST", &format!("{path}/redo"), None).await;
    assert_eq!(counts(&home, &path).await, after);

    // Something else between them parts a group.
    home.done("PATCH", &path, Some(json!({"name": "Trees"})))
        .await;
    add(&home, &path, Some(GROUP), "oak", &[7]).await;
    assert_eq!(next(&home, &path).await.0, "Added 1 picture to oak");
}

#[tokio::test]
async fn a_group_of_many_changes_counts_as_one_of_those_that_can_be_undone() {
    let home = Home::new().await;
    let path = home.create(json!({"name": "Greys"})).await;
    add(&home, &path, None, "oak", &[255]).await;
    for level in 0..60 {
        add(&home, &path, Some(GROUP), "ash", &[level]).await;
    }
    assert_eq!(next(&home, &path).await.0, "Added 60 pictures to ash");
    // The class ash, its pictures, those of oak and the class oak.
    for _ in 0..3 {
        home.done("POST", &format!("{path}/undo"), None).await;
    }
    assert_eq!(counts(&home, &path).await, []);
}
