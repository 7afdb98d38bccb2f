//! Nothing is lost: reloads, other tabs, a server that goes away, and what only the browser keeps.

use super::session::{Server, Session, example};
use super::sort::{class_names, fill, saved, sorted, two_classes, verdicts};
use crate::test_app::png;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_the_way_back_find_everything_as_it_was() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg", "queries/polder-mill.jpg"]).await;
    let before = verdicts(&page).await;
    page.requested().await;
    let address = page.value("location.pathname").await;
    page.open(address.as_str().unwrap()).await;
    sorted(&page, 2).await;
    assert_eq!(verdicts(&page).await, before);
    assert_eq!(class_names(&page).await, json!(["fish", "windmill"]));
    let asked = page.requested().await;
    assert!(
        asked.iter().all(|address| !address.contains("/classify")),
        "answers that were kept were asked for again: {asked:?}"
    );

    page.click(".wordmark").await;
    page.wait_for("document.querySelectorAll('.card').length === 1")
        .await;
    assert_eq!(
        page.text(".card [data-part=facts]").await,
        "2 classes · 4 pictures"
    );
    page.click(".card-link").await;
    sorted(&page, 2).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_while_pictures_are_sent_gets_the_rest_when_it_is_back() {
    let Some(mut page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.server = None;
    page.pick("#choose-queries", &[example("queries/discus.jpg")])
        .await;
    page.pick(
        ".class-row:nth-child(1) [data-part=files]",
        &[example("fish/angelfish.jpg")],
    )
    .await;
    page.wait_for("!document.getElementById('connection').hidden")
        .await;
    assert!(
        page.text("#connection-text")
            .await
            .starts_with("Server not reached, trying again")
    );
    // What was read is kept here: a reload in the meantime loses nothing either.
    let listen = page.origin.trim_start_matches("http://").to_owned();
    page.server = Some(Server::start(&page.folder.path().join("data"), &listen));
    saved(&page, "2 classes, 5 pictures").await;
    sorted(&page, 2).await;
    page.wait_for("document.getElementById('connection').hidden")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_one_tab_shows_in_the_other() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &[]).await;
    let address = page.value("location.href").await;
    page.client
        .execute("window.other = window.open(arguments[0])", vec![address])
        .await
        .unwrap();
    page.wait_for("window.other.document.querySelectorAll('.class-row').length === 2")
        .await;
    page.pick(
        ".class-row:nth-child(1) [data-part=files]",
        &[example("fish/angelfish.jpg")],
    )
    .await;
    // The first tab is out of sight now, where browsers draw nothing.
    page.wait_for("window.other.document.getElementById('bench-counts').textContent === '2 classes, 5 pictures'")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_of_this_browser_alone_leaves_nothing_on_the_server() {
    let Some(page) = Session::start().await else {
        return;
    };
    page.client
        .execute(
            "document.getElementById('home-privacy').value = 'tab'",
            vec![],
        )
        .await
        .unwrap();
    page.pick("#home-folder", &[two_classes(&page)]).await;
    page.pick("#choose-queries", &[example("queries/clownfish.jpg")])
        .await;
    sorted(&page, 1).await;
    assert_eq!(verdicts(&page).await, json!([["clownfish.jpg", "fish"]]));
    let address = page.value("location.pathname").await;
    page.open(address.as_str().unwrap()).await;
    sorted(&page, 1).await;
    assert_eq!(class_names(&page).await, json!(["fish", "windmill"]));
    page.client
        .execute(
            "fetch('/api/v1/classifiers').then((response) => response.json()).then((body) => { window.stored = body.classifiers; })",
            vec![],
        )
        .await
        .unwrap();
    page.wait_for("window.stored").await;
    assert_eq!(page.value("window.stored").await, json!([]));

    // And it can move to the server.
    page.click("#bench-more").await;
    page.click_text("#menu button", "Store it").await;
    page.wait_for("document.getElementById('dialog').open")
        .await;
    page.click("#dialog-yes").await;
    page.wait_for("!location.pathname.includes('tab-')").await;
    saved(&page, "2 classes, 4 pictures").await;
    assert!(
        page.text("#bench-privacy")
            .await
            .starts_with("Pictures are stored on this server")
    );
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_classifier_asks_first_and_frees_its_pictures() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.click("#bench-more").await;
    page.click("#menu .is-danger").await;
    page.wait_for("document.getElementById('dialog').open")
        .await;
    page.click("#dialog-no").await;
    assert_eq!(class_names(&page).await, json!(["fish", "windmill"]));
    page.click("#bench-more").await;
    page.click("#menu .is-danger").await;
    page.wait_for("document.getElementById('dialog').open")
        .await;
    page.click("#dialog-yes").await;
    page.wait_for("location.pathname === '/' && document.getElementById('saved').hidden")
        .await;
    assert_eq!(
        page.value("document.getElementById('home').hidden").await,
        Value::Bool(false)
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_that_was_left_draws_nothing_on_the_next_one() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = page.folder.path().join("many");
    for class in 0..60_u8 {
        let folder = root.join(format!("class {class:02}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1.png"), png(class * 4, 255 - class * 4, 9)).unwrap();
    }
    page.pick("#home-folder", &[root]).await;
    saved(&page, "60 classes, 60 pictures").await;
    let scroll = "const list = document.getElementById('class-scroller'); list.scrollTop = arguments[0]; list.dispatchEvent(new Event('scroll'))";
    page.client
        .execute(scroll, vec![json!(100_000)])
        .await
        .unwrap();
    page.wait_for(
        "[...document.querySelectorAll('.class-name')].some((name) => name.value === 'class 59')",
    )
    .await;
    page.click(".wordmark").await;
    page.wait_for("!document.getElementById('home').hidden")
        .await;
    page.click("#home-examples").await;
    sorted(&page, 6).await;
    page.client.execute(scroll, vec![json!(0)]).await.unwrap();
    // Two frames later everything that would draw has drawn.
    page.client
        .execute(
            "requestAnimationFrame(() => requestAnimationFrame(() => { window.drawn = true; }))",
            vec![],
        )
        .await
        .unwrap();
    page.wait_for("window.drawn").await;
    assert_eq!(
        class_names(&page).await,
        json!(["fish", "mammal", "windmill"])
    );
    page.close().await;
}
