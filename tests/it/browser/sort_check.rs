//! The tabs "Check" and "Use it".

use super::accessibility::assert_axe_finds_nothing;
use super::session::{Session, example};
use super::sort::{class_names, fill, saved, sorted, two_classes};
use serde_json::json;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_check_shows_what_is_wrong_and_its_button_puts_it_right() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = two_classes(&page);
    for (from, to) in [
        ("fish/angelfish.jpg", "fish/3.jpg"),
        ("windmill/stone-tower.jpg", "windmill/3.jpg"),
        // The same picture in both.
        ("fish/goldfish.jpg", "windmill/again.jpg"),
    ] {
        fs::copy(example(from), root.join(to)).unwrap();
    }
    page.pick("#home-folder", &[root]).await;
    saved(&page, "2 classes, 7 pictures").await;
    page.click("#tab-check").await;
    page.wait_for("document.querySelector('.check-number')?.textContent.endsWith('% right')")
        .await;
    page.wait_for("document.querySelector('.matrix')").await;
    assert_axe_finds_nothing(&page, "a check").await;
    let hint = "[...document.querySelectorAll('.hint-row')].find((row) => row.textContent.includes('The same picture in two classes'))";
    page.wait_for(hint).await;
    page.client
        .execute(
            "document.querySelector('.matrix button').click(); window.before = document.querySelectorAll('.hint-row').length",
            vec![],
        )
        .await
        .unwrap();
    page.wait_for("document.querySelector('.pair-strip img')?.naturalWidth > 0")
        .await;
    page.client
        .execute(&format!("{hint}.querySelector('button').click()"), vec![])
        .await
        .unwrap();
    saved(&page, "2 classes, 6 pictures").await;
    page.wait_for(&format!("!({hint})")).await;
    page.click("#undo").await;
    saved(&page, "2 classes, 7 pictures").await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_their_lines_and_another_installation_its_bundle() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &[]).await;
    page.click("#tab-use").await;
    let id = page
        .value("location.pathname.split('/').at(-1)")
        .await
        .as_str()
        .unwrap()
        .to_owned();
    page.wait_for(&format!(
        "document.querySelector('.code code')?.textContent.includes('/api/v1/classifiers/{id}')"
    ))
    .await;
    assert_axe_finds_nothing(&page, "the page for programs").await;
    page.client
        .execute(
            "fetch([...document.querySelectorAll('#panel-use a')].find((link) => link.textContent === 'Bundle').href)
                 .then((response) => response.blob())
                 .then((bundle) => { const form = new FormData(); form.append('file', bundle, 'bundle.zip');
                     return fetch('/api/v1/classifiers/import?name=Again', { method: 'POST', body: form }); })
                 .then((response) => response.json()).then((body) => { window.imported = body; })",
            vec![],
        )
        .await
        .unwrap();
    page.wait_for("window.imported").await;
    assert_eq!(page.value("window.imported.is_exact").await, true);
    let address = page.value("`/c/${window.imported.id}`").await;
    page.open(address.as_str().unwrap()).await;
    saved(&page, "2 classes, 4 pictures").await;
    assert_eq!(class_names(&page).await, json!(["fish", "windmill"]));
    page.pick("#choose-queries", &[example("queries/clownfish.jpg")])
        .await;
    sorted(&page, 1).await;
    page.close().await;
}
