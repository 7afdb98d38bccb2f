//! The pages of the registry, used as a person uses them.

use super::accessibility;
use super::session::Session;
use super::sort::sorted;
use model::adapter::{
    Adapter, BackboneCandidate, ExportOptions, LowRankPair, NameStyle, NamedFile, Site, Target,
    export_peft,
};
use model::backbone::{EMBEDDED_NAME, embedded};
use model::tensor::Tensor;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use test_support::broken_adapters::zip_of;

const READY: &str = "document.documentElement.dataset.ready === 'true'";

/// A small adapter for the embedded backbone, as PEFT would have saved it.
fn peft_folder(parent: &Path) -> PathBuf {
    let backbone = embedded().unwrap();
    let width = backbone.config.width;
    let site = Site {
        layer: 0,
        target: Target::Query,
    };
    let pair = LowRankPair {
        a: Tensor::zeros([2, width]),
        b: Tensor::zeros([width, 2]),
        scale: 1.0,
    };
    let adapter = Adapter {
        pairs: [(site, pair)].into(),
        head: None,
    };
    let options = ExportOptions {
        title: "Roses",
        backbone: &BackboneCandidate::of(EMBEDDED_NAME, &backbone),
        base_model: None,
        names: NameStyle::V4,
    };
    let folder = parent.join("red roses");
    fs::create_dir_all(&folder).unwrap();
    for file in export_peft(&adapter, &options).unwrap() {
        fs::write(folder.join(&file.path), file.bytes).unwrap();
    }
    folder
}

async fn open(page: &Session, path: &str) {
    page.open(path).await;
    page.wait_for(READY).await;
}

async fn shown(page: &Session, id: &str) {
    page.wait_for(&format!("!document.getElementById('{id}').hidden"))
        .await;
}

async fn import(page: &Session) {
    open(page, "/admin/adapters").await;
    let folder = peft_folder(page.folder.path());
    page.pick("#choose-folder", &[folder]).await;
    shown(page, "import-form").await;
    assert_eq!(
        page.value("document.getElementById('import-name').value")
            .await,
        "red-roses"
    );
    page.click("#import-store").await;
    shown(page, "import-done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_imported_given_an_alias_and_deleted() {
    let Some(page) = Session::start().await else {
        return;
    };
    open(&page, "/admin/adapters").await;
    assert!(page.text("#empty").await.contains("No adapters yet"));
    import(&page).await;
    page.wait_for("document.querySelectorAll('.adapter-row').length === 1")
        .await;
    page.click(".adapter-row a").await;
    page.wait_for("location.pathname === '/admin/adapters/red-roses:1'")
        .await;
    page.wait_for(READY).await;
    assert_eq!(page.text("h1").await, "red-roses:1");
    assert!(
        page.text("#report-place summary")
            .await
            .starts_with("2 tensors")
    );

    let name = page.client.find("#alias-name").await.unwrap();
    name.send_keys("production").await.unwrap();
    page.click("#alias-set").await;
    let question = page.text("#confirm").await;
    assert!(
        question.contains("Point red-roses@production at red-roses:1?"),
        "{question}"
    );
    page.click("#confirm-yes").await;
    page.wait_for("document.querySelectorAll('#aliases .pointer').length === 1")
        .await;
    page.wait_for("document.getElementById('badges').textContent.includes('@production')")
        .await;

    page.click("#aliases [data-part=history]").await;
    page.wait_for("document.querySelectorAll('#aliases .moves li').length === 1")
        .await;

    page.click("#delete").await;
    page.click("#confirm-yes").await;
    page.wait_for("document.querySelector('#delete-failure .problem')")
        .await;
    page.click("#aliases [data-part=remove]").await;
    page.click("#confirm-yes").await;
    page.wait_for("document.querySelectorAll('#aliases .pointer').length === 0")
        .await;
    page.click("#delete").await;
    assert!(page.text("#confirm").await.contains("cannot be undone"));
    page.click("#confirm-yes").await;
    page.wait_for("location.pathname === '/admin/adapters'")
        .await;
    shown(&page, "empty").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_folder_shows_why_it_is_refused() {
    let Some(page) = Session::start().await else {
        return;
    };
    open(&page, "/admin/adapters").await;
    let folder = peft_folder(page.folder.path());
    fs::write(folder.join("adapter_config.json"), "{not json").unwrap();
    page.pick("#choose-folder", &[folder]).await;
    shown(&page, "import-found").await;
    let reason = page.text("#import-report .errors").await;
    assert!(reason.contains("adapter_config.json"), "{reason}");
    assert_eq!(
        page.value("document.getElementById('import-form').hidden")
            .await,
        true
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_accessible_and_fit_a_small_phone() {
    let Some(page) = Session::start().await else {
        return;
    };
    import(&page).await;
    let paths = ["/admin/adapters", "/admin/adapters/red-roses:1"];
    accessibility::assert_on_a_small_phone(&page, &paths, "").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_zip_is_checked_and_imported() {
    let Some(page) = Session::start().await else {
        return;
    };
    open(&page, "/admin/adapters").await;
    let files: Vec<NamedFile> = fs::read_dir(peft_folder(page.folder.path()))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            NamedFile::new(name, fs::read(entry.path()).unwrap())
        })
        .collect();
    page.drop_file("#import", "roses.zip", "application/zip", &zip_of(&files))
        .await;
    shown(&page, "import-form").await;
    page.click("#import-store").await;
    shown(&page, "import-done").await;
    page.wait_for("document.querySelector('.adapter-row a').textContent === 'roses:1'")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chosen_adapter_sorts_the_pictures_and_is_named() {
    let Some(page) = Session::start().await else {
        return;
    };
    import(&page).await;
    open(&page, "/").await;
    page.click("#home-examples").await;
    sorted(&page, 6).await;
    for (label, kept) in [("red-roses:1", "red-roses:1"), ("none", "none")] {
        page.client
            .execute("performance.clearResourceTimings()", vec![])
            .await
            .unwrap();
        page.click("#bench-more").await;
        page.click_text("#menu button", "How it sees…").await;
        page.wait_for("document.getElementById('dialog').open")
            .await;
        page.client
            .execute(
                "document.querySelector('#dialog-body select').value = arguments[0]",
                vec![json!(label)],
            )
            .await
            .unwrap();
        page.click("#dialog-yes").await;
        page.client
            .execute(
                "window.look = setInterval(() => fetch(`/api/v1/classifiers/${location.pathname.split('/').at(-1)}`)
                     .then((response) => response.json()).then(({ adapter }) => { window.sees = adapter.label ?? adapter.kind; }), 100)",
                vec![],
            )
            .await
            .unwrap();
        page.wait_for(&format!("window.sees === '{kept}'")).await;
        page.client
            .execute("clearInterval(window.look)", vec![])
            .await
            .unwrap();
        page.wait_for("performance.getEntriesByType('resource').some((entry) => entry.name.includes('/classify?') && entry.responseEnd > 0)")
            .await;
        sorted(&page, 6).await;
    }
    page.close().await;
}
