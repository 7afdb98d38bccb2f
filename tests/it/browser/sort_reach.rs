//! The workbench for everybody: keyboard, screen readers, phones, cameras; and nothing leaves its origin.

use super::accessibility::{self, assert_axe_finds_nothing};
use super::session::Session;
use super::sort::{class_names, fill, saved, sorted};
use super::webdriver::Key;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_fill_the_page_and_nothing_leaves_its_origin() {
    let Some(page) = Session::start().await else {
        return;
    };
    page.click("#home-examples").await;
    sorted(&page, 6).await;
    assert_eq!(
        class_names(&page).await,
        json!(["fish", "mammal", "windmill"])
    );
    assert!(page.text("#credit").await.contains("Wikimedia"));

    let requested = page.requested().await;
    assert!(
        requested
            .iter()
            .any(|address| address.contains("/classify?"))
    );
    // The start page of an empty browser is not a request of the page.
    let foreign = requested
        .iter()
        .filter(|address| {
            !["blob:", "data:", "chrome"]
                .iter()
                .any(|scheme| address.starts_with(scheme))
        })
        .filter(|address| !address.starts_with(&format!("{}/", page.origin)))
        .collect::<Vec<_>>();
    assert!(foreign.is_empty(), "requests to other hosts: {foreign:?}");
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_is_small_and_takes_few_requests() {
    let Some(page) = Session::start().await else {
        return;
    };
    let sizes = page
        .value(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
                .map((entry) => entry.transferSize)",
        )
        .await;
    let sizes: Vec<u64> = serde_json::from_value(sizes).unwrap();
    assert!((4..=8).contains(&sizes.len()), "{sizes:?}");
    let bytes: u64 = sizes.iter().sum();
    assert!((10_000..=60_000).contains(&bytes), "{bytes} bytes");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_used_with_the_keyboard_alone() {
    let Some(page) = Session::start().await else {
        return;
    };
    let walk_to = async |id: &str| {
        for _ in 0..80 {
            page.press(Key::Tab).await;
            if page.value("document.activeElement.id").await == id {
                let outline = page
                    .value("getComputedStyle(document.activeElement.matches('.picker-input') ? document.activeElement.nextElementSibling : document.activeElement).outlineStyle")
                    .await;
                assert_eq!(outline, "solid", "the focus on {id} cannot be seen");
                return;
            }
        }
        panic!("{id} cannot be reached with the tab key");
    };
    walk_to("home-folder").await;
    walk_to("home-examples").await;
    page.press(Key::Enter).await;
    sorted(&page, 6).await;

    for id in [
        "undo",
        "tab-try",
        "add-class",
        "choose-folders",
        "divider",
        "choose-queries",
        "tiles",
    ] {
        walk_to(id).await;
    }
    page.press(Key::Right).await;
    let active = "document.querySelector('.tile[aria-selected=true]')?.getAttribute('aria-label')";
    let second = page.value(active).await;
    page.press(Key::Enter).await;
    page.wait_for("!document.getElementById('drawer').hidden")
        .await;
    let shown = page.text("#drawer-name").await;
    assert!(second.as_str().unwrap().starts_with(&shown), "{shown}");
    page.press(Key::Escape).await;
    page.wait_for(
        "document.getElementById('drawer').hidden && document.activeElement.id === 'tiles'",
    )
    .await;
    // The third class by its number.
    page.client.press('3').await.unwrap();
    saved(&page, "3 classes, 10 pictures").await;
    sorted(&page, 6).await;

    page.client.press('?').await.unwrap();
    page.wait_for("document.getElementById('dialog').open")
        .await;
    page.press(Key::Escape).await;
    page.wait_for("!document.getElementById('dialog').open")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_landmarks_and_contrast_hold_in_both_colour_schemes() {
    let Some(page) = Session::start().await else {
        return;
    };
    let look = async |what: &str| {
        for scheme in ["light", "dark"] {
            page.devtools(
                "Emulation.setEmulatedMedia",
                json!({"features": [
                    {"name": "prefers-color-scheme", "value": scheme},
                    {"name": "prefers-reduced-motion", "value": "reduce"},
                ]}),
            )
            .await;
            let complaints = page
                .client
                .execute(accessibility::CHECK, vec![])
                .await
                .unwrap();
            assert_eq!(complaints, json!([]), "{what} in the {scheme} scheme");
            assert_axe_finds_nothing(&page, &format!("{what} in the {scheme} scheme")).await;
        }
    };
    look("the first page").await;
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.click(".class-row .swatch").await;
    look("the workbench").await;
    page.click(".tile").await;
    look("the drawer").await;
    page.click("#drawer-close").await;
    page.click(".wordmark").await;
    page.wait_for("document.querySelectorAll('.card').length === 1")
        .await;
    look("the first page with a card").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cut_off_on_a_small_phone() {
    let Some(page) = Session::start().await else {
        return;
    };
    page.devtools(
        "Emulation.setDeviceMetricsOverride",
        json!({"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true}),
    )
    .await;
    let width = "document.documentElement.scrollWidth";
    assert_eq!(page.value(width).await, 360);
    fill(&page, &[]).await;
    page.click("#segment-try").await;
    page.pick(
        "#choose-queries",
        &super::sort::examples(&["queries/clownfish.jpg"]),
    )
    .await;
    sorted(&page, 1).await;
    assert_eq!(page.value(width).await, 360);
    page.click(".tile").await;
    assert_eq!(page.value(width).await, 360);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_camera_takes_examples_one_by_one_and_while_a_button_is_held() {
    let Some(page) = Session::start().await else {
        return;
    };
    page.click("#home-camera").await;
    page.wait_for("document.getElementById('camera-view').videoWidth > 0")
        .await;
    page.click("#camera-shoot").await;
    page.wait_for("document.getElementById('camera-count').textContent === '1 picture taken.'")
        .await;
    let hold = |kind: &str| {
        format!(
            "document.getElementById('camera-hold').dispatchEvent(new KeyboardEvent('{kind}', {{ key: ' ', bubbles: true }}))"
        )
    };
    page.client.execute(&hold("keydown"), vec![]).await.unwrap();
    page.wait_for("Number.parseInt(document.getElementById('camera-count').textContent, 10) >= 4")
        .await;
    page.client.execute(&hold("keyup"), vec![]).await.unwrap();
    page.click("#camera-close").await;
    page.wait_for("document.getElementById('bench-counts').textContent.startsWith('1 class, ') && document.getElementById('bench-saved').textContent.startsWith('Saved ')")
        .await;
    assert_eq!(class_names(&page).await, json!(["Class 1"]));
    assert_eq!(
        page.value("document.getElementById('camera-view').srcObject")
            .await,
        serde_json::Value::Null,
        "the camera is still on"
    );
    page.close().await;
}
