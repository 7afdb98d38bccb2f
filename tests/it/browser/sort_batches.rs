//! Batches: a whole folder sorted by the server.

use super::accessibility::assert_axe_finds_nothing;
use super::jobs_live::wait_long;
use super::session::{Server, Session};
use super::sort::fill;
use crate::test_app::png;
use serde_json::json;
use std::fs;

const PICTURES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_thousand_goes_on_after_kill_9_and_is_filtered_and_taken_as_a_table() {
    let Some(mut page) = Session::start().await else {
        return;
    };
    fill(&page, &[]).await;
    let root = page.folder.path().join("holiday");
    fs::create_dir_all(&root).unwrap();
    for number in 0..PICTURES {
        let shade = |by: usize| u8::try_from(number * by % 256).unwrap();
        fs::write(
            root.join(format!("{number:04}.png")),
            png(shade(1), shade(7), u8::try_from(number / 256 * 60).unwrap()),
        )
        .unwrap();
    }
    fs::write(root.join("broken.png"), "no picture").unwrap();
    page.click("#tab-batches").await;
    page.wait_for("document.getElementById('batch-folder')")
        .await;
    page.pick("#batch-folder", &[root]).await;
    let done = "Number.parseInt(document.querySelector('.batch-progress')?.textContent, 10)";
    page.wait_for(&format!("{done} > 0")).await;

    // Dropping the server is kill -9.
    page.server = None;
    let listen = page.origin.trim_start_matches("http://").to_owned();
    page.server = Some(Server::start(&page.folder.path().join("data"), &listen));
    wait_long(&page, "[...document.querySelectorAll('.pane-actions a')].some((link) => link.textContent === 'CSV')")
        .await;
    assert_eq!(
        page.value("document.querySelector('.facet .soft').textContent")
            .await,
        json!((PICTURES + 1).to_string())
    );
    let left_out = page
        .value("[...document.querySelectorAll('.facet')].find((facet) => facet.textContent.startsWith('Left out')).querySelector('.soft').textContent")
        .await;
    assert_eq!(left_out, "1");
    assert_axe_finds_nothing(&page, "a batch").await;

    page.client
        .execute(
            "fetch([...document.querySelectorAll('.pane-actions a')].find((link) => link.textContent === 'CSV').href)
                 .then((response) => response.text()).then((text) => { window.table = text; })",
            vec![],
        )
        .await
        .unwrap();
    page.wait_for("window.table").await;
    let lines = page
        .value("window.table.trim().split(/\\r?\\n/).length")
        .await;
    assert_eq!(lines, json!(PICTURES + 2), "a heading and all pictures");

    page.click_text(".facet", "Left out").await;
    page.wait_for("document.querySelectorAll('.batch-grid li').length === 1")
        .await;
    page.close().await;
}
