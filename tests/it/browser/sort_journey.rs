//! The first five minutes as README shows them. With `LORA_RECYCLE_REWRITE=1` the screenshots of README are taken again.

use super::session::{Session, example};
use super::sort::{saved, sorted};
use base64::Engine;
use std::fs;
use std::path::PathBuf;
use test_support::project;

/// The example pictures as a person has them: a folder for each class.
fn folders(page: &Session) -> PathBuf {
    let root = page.folder.path().join("Animals and mills");
    for class in ["fish", "mammal", "windmill"] {
        let folder = root.join(class);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(example(class)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    root
}

async fn picture(page: &Session, name: &str) {
    if std::env::var_os("LORA_RECYCLE_REWRITE").is_none() {
        return;
    }
    let taken = page.client.screenshot().await.unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(taken)
        .unwrap();
    fs::write(project(&format!("docs/images/{name}.png")), bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_teaches_sorts_corrects_and_comes_back() {
    let Some(page) = Session::start().await else {
        return;
    };
    picture(&page, "journey-1-begin").await;

    page.pick("#home-folder", &[folders(&page)]).await;
    saved(&page, "3 classes, 9 pictures").await;
    let queries: Vec<PathBuf> = fs::read_dir(example("queries"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(queries.len() >= 6, "{queries:?}");
    page.pick("#choose-queries", &queries).await;
    sorted(&page, queries.len()).await;
    picture(&page, "journey-2-sort").await;

    page.client
        .execute(
            "document.querySelector('.tile[aria-label^=hedgehog]').click()",
            vec![],
        )
        .await
        .unwrap();
    page.wait_for("!document.getElementById('drawer').hidden && document.querySelector('#drawer-frame img').naturalWidth > 0")
        .await;
    picture(&page, "journey-3-correct").await;
    page.click_text("#drawer-put .chip", "mammal").await;
    saved(&page, "3 classes, 10 pictures").await;
    sorted(&page, queries.len()).await;
    page.wait_for(
        "document.querySelector('.tile[aria-label^=hedgehog]').dataset.verdict === 'mammal'",
    )
    .await;
    page.click("#drawer-close").await;

    page.click(".wordmark").await;
    page.wait_for("document.querySelectorAll('.card img').length === 4 && [...document.querySelectorAll('.card img')].every((image) => image.naturalWidth > 0)")
        .await;
    picture(&page, "journey-4-come-back").await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}
