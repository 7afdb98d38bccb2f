//! From labelled pictures to an adapter and from there to synthetic images, as a person does it and watches it.

use super::jobs::{READY, count, open, says};
use super::session::{Server, Session, example};
use super::sort::{FISH, MILLS};
use model::adapter::NamedFile;
use serde_json::json;
use std::fs;
use test_support::broken_adapters::zip_of;

async fn fill(page: &Session, id: &str, value: &str) {
    let field = page.client.find(&format!("#{id}")).await.unwrap();
    field.clear().await.unwrap();
    field.send_keys(value).await.unwrap();
}

/// Follows the link to the job that was just started.
async fn follow(page: &Session) {
    page.wait_for("!document.getElementById('started').hidden")
        .await;
    page.click("#started a").await;
    page.wait_for("location.pathname.startsWith('/admin/jobs/')")
        .await;
    page.wait_for(READY).await;
}

/// Real work on a busy machine takes more than one wait.
pub async fn wait_long(page: &Session, condition: &str) {
    for _ in 0..10 {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             const deadline = Date.now() + 20000;
             const look = () => ({condition}) ? done(true) : Date.now() > deadline ? done(false) : setTimeout(look, 50);
             look();"
        );
        let held = page.client.execute_async(&script, vec![]).await.unwrap();
        if held == true {
            return;
        }
    }
    page.wait_for(condition).await;
}

async fn start_inversion(page: &Session, steps: &str) {
    open(page, "/admin/jobs#invert").await;
    page.wait_for(&count("#invert-adapters input", 1)).await;
    page.click("#invert-adapters input").await;
    fill(page, "invert-images", "2").await;
    fill(page, "invert-steps", steps).await;
    page.click("#invert-start").await;
    follow(page).await;
}

/// On the page of a pool: it is measured, then compared with `files` and one that is not a picture.
async fn compare_with_real_pictures(page: &Session, mut files: Vec<NamedFile>) {
    page.click("#measure").await;
    page.wait_for("!document.getElementById('quality').hidden")
        .await;
    page.click("#real-start").await;
    page.wait_for(&says("real-failure", "No pictures are chosen yet"))
        .await;
    files.push(NamedFile::new("fish/notes.png", b"no picture"));
    let zip = page.folder.path().join("real.zip");
    fs::write(&zip, zip_of(&files)).unwrap();
    page.pick("#real-zip", &[zip]).await;
    page.wait_for(&says("real-chosen", "real.zip")).await;
    page.click("#real-start").await;
    wait_long(page, &says("real-words", "Compared with 4 real pictures")).await;
    let facts = page.text("#real-facts").await;
    for words in [
        "Fréchet distance",
        "Precision",
        "of the real pictures are covered",
    ] {
        assert!(facts.contains(words), "{facts}");
    }
    let left_out = page.text("#real-left-out").await;
    assert!(
        left_out.starts_with("Left out: fish/notes.png: "),
        "{left_out}"
    );
    assert_eq!(page.text("#real-failure").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_tuned_from_a_zip_and_inverted_while_somebody_watches() {
    let Some(mut page) = Session::start().await else {
        return;
    };
    let files: Vec<NamedFile> = FISH
        .iter()
        .chain(&MILLS)
        .map(|path| NamedFile::new(*path, fs::read(example(path)).unwrap()))
        .collect();
    let zip = page.folder.path().join("two classes.zip");
    fs::write(&zip, zip_of(&files)).unwrap();

    open(&page, "/admin/jobs#tune").await;
    page.pick("#tune-zip", &[zip]).await;
    assert_eq!(
        page.value("document.getElementById('tune-name').value")
            .await,
        "two-classes"
    );
    page.click("#tune details summary").await;
    fill(&page, "tune-steps", "60").await;
    page.click("#tune-start").await;
    follow(&page).await;

    // The server goes away while it tunes, and comes back.
    wait_long(&page, "document.querySelector('.curve canvas')").await;
    page.server = None;
    page.wait_for("!document.getElementById('connection').hidden")
        .await;
    let listen = page.origin.trim_start_matches("http://").to_owned();
    page.server = Some(Server::start(&page.folder.path().join("data"), &listen));
    page.wait_for("document.getElementById('connection').hidden")
        .await;
    wait_long(&page, &says("state", "Done")).await;
    assert_eq!(page.text("#result").await, "Open two-classes:1");
    let curves = page
        .value(
            "[...document.querySelectorAll('.curve-head strong')].map((name) => name.textContent)",
        )
        .await;
    assert!(
        curves.as_array().unwrap().contains(&json!("Cross-entropy")),
        "{curves}"
    );

    page.click("#result").await;
    page.wait_for("!document.getElementById('invert')?.hidden && document.getElementById('invert')?.href.includes('two-classes')")
        .await;
    start_inversion(&page, "60").await;
    // 2 classes of 2 images, seen while they come into being.
    wait_long(
        &page,
        "[...document.querySelectorAll('#previews .tile img')].filter((image) => image.naturalWidth > 0).length === 4",
    )
    .await;
    wait_long(&page, &says("state", "Done")).await;
    page.click("#result").await;
    page.wait_for("location.pathname.startsWith('/admin/pools/')")
        .await;
    page.wait_for(
        "[...document.querySelectorAll('#images .tile img')].filter((image) => image.naturalWidth > 0).length === 4",
    )
    .await;
    assert_eq!(page.text("h1").await, "Images of two-classes:1");
    compare_with_real_pictures(&page, files).await;

    start_inversion(&page, "100000").await;
    wait_long(&page, &says("state", "Running")).await;
    page.click("#cancel").await;
    page.click("#confirm-yes").await;
    page.wait_for(&says("state", "Cancelled")).await;
    page.close().await;
}
