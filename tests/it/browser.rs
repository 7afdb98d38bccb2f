//! The page, used as a person uses it: a real server, a real browser, real files.

mod accessibility;
mod admin;
mod compare;
mod jobs;
mod jobs_live;
mod session;
mod webdriver;

use crate::test_app::png;
use serde_json::{Value, json};
use session::{Server, Session, example};
use std::fs;
use std::path::PathBuf;
use webdriver::Key;

const FISH: [&str; 2] = ["fish/goldfish.jpg", "fish/red-porgy.jpg"];
const MILLS: [&str; 2] = ["windmill/log-mill.jpg", "windmill/post-mill.jpg"];

fn examples(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(|path| example(path)).collect()
}

fn class_input(number: usize) -> String {
    format!(".class-card:nth-child({number}) [data-part=files]")
}

/// Two named classes and `queries`, answered.
async fn fill(page: &Session, queries: &[&str]) {
    for (number, label) in [(1, "fish"), (2, "mill")] {
        rename(page, number, label).await;
    }
    page.pick(&class_input(1), &examples(&FISH)).await;
    page.pick(&class_input(2), &examples(&MILLS)).await;
    page.pick("#choose-queries", &examples(queries)).await;
    answered(page, queries.len()).await;
}

/// Types over the name of a class.
async fn rename(page: &Session, number: usize, label: &str) {
    let selector = format!(".class-card:nth-child({number}) .class-name");
    let name = page.client.find(&selector).await.unwrap();
    let select_all = format!("{}a{}", char::from(Key::Control), char::from(Key::Null));
    name.send_keys(&format!("{select_all}{label}"))
        .await
        .unwrap();
}

async fn answered(page: &Session, count: usize) {
    page.wait_for(&format!(
        "document.querySelectorAll('.answer[data-verdict]:not(.is-stale)').length === {count} && document.getElementById('progress').hidden"
    ))
    .await;
}

async fn class_names(page: &Session) -> Value {
    page.value("[...document.querySelectorAll('.class-name')].map((name) => name.value)")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_adds_pictures_and_reads_the_answers() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg", "queries/polder-mill.jpg"]).await;

    let verdicts = page
        .value("[...document.querySelectorAll('.answer')].map((answer) => answer.querySelector('[data-part=verdict-label]').textContent)")
        .await;
    assert_eq!(verdicts, json!(["fish", "mill"]));
    let percents = page
        .value("[...document.querySelectorAll('.answer:first-child .bar-value')].map((bar) => Number.parseInt(bar.textContent, 10))")
        .await;
    let percents: Vec<i64> = serde_json::from_value(percents).unwrap();
    assert_eq!(percents.len(), 2);
    // Each is rounded by itself.
    assert!(
        (99..=101).contains(&percents.iter().sum::<i64>()),
        "{percents:?}"
    );
    assert!(percents[0] >= percents[1], "{percents:?}");
    let closest = page
        .text(".answer:first-child [data-part=closest-text]")
        .await;
    assert!(closest.ends_with(".jpg, from fish"), "{closest}");
    let shown = page
        .value("document.querySelector('.answer:first-child .closest img').naturalWidth > 0")
        .await;
    assert_eq!(shown, true, "the closest picture is not shown");
    assert_eq!(
        page.text("#summary").await,
        "2 pictures sorted: 1 fish, 1 mill"
    );
    assert_eq!(
        page.value("document.getElementById('spoken').textContent")
            .await,
        "2 pictures sorted: 1 fish, 1 mill"
    );
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_none_of_the_classes_is_set_aside_as_the_slider_says() {
    let Some(page) = Session::start().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let plain = |name: &str, [red, green, blue]: [u8; 3]| {
        let path = folder.path().join(name);
        fs::write(&path, png(red, green, blue)).unwrap();
        path
    };
    let reds = (0..6).map(|shade| {
        plain(
            &format!("red-{shade}.png"),
            [180 + 12 * shade, 6 * shade, 20],
        )
    });
    let blues = (0..6).map(|shade| {
        plain(
            &format!("blue-{shade}.png"),
            [20, 6 * shade, 180 + 12 * shade],
        )
    });
    page.pick(&class_input(1), &reds.collect::<Vec<_>>()).await;
    page.pick(&class_input(2), &blues.collect::<Vec<_>>()).await;
    let queries = [
        plain("reddish.png", [215, 10, 20]),
        example("queries/polder-mill.jpg"),
    ];
    page.pick("#choose-queries", &queries).await;
    answered(&page, 2).await;
    assert_eq!(
        page.value("document.getElementById('aside').hidden").await,
        false
    );
    assert_eq!(
        page.value("document.getElementById('rough').hidden").await,
        true
    );

    let verdicts = "[...document.querySelectorAll('.answer')].map((answer) => answer.querySelector('[data-part=verdict-label]').textContent)";
    let slider = page.client.find("#aside-share").await.unwrap();
    slider
        .send_keys(&char::from(Key::Home).to_string())
        .await
        .unwrap();
    page.wait_for("document.getElementById('aside-value').textContent === 'Never'")
        .await;
    page.wait_for(&format!("!{verdicts}.includes('none of these')"))
        .await;
    for _ in 0..5 {
        slider
            .send_keys(&char::from(Key::Right).to_string())
            .await
            .unwrap();
    }
    page.wait_for(&format!("{verdicts}[1] === 'none of these'"))
        .await;
    assert_eq!(
        page.value(verdicts).await,
        json!(["Class 1", "none of these"])
    );
    page.wait_for("document.getElementById('summary').textContent === '2 pictures sorted: 1 Class 1, 1 none of these'").await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_classes_on_the_page_become_an_adapter_that_is_tuned() {
    let Some(page) = Session::start().await else {
        return;
    };
    let offered = "!document.getElementById('tune-offer').hidden";
    assert_eq!(page.value(offered).await, false);
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.wait_for(offered).await;
    page.click("#tune-these").await;
    assert_eq!(
        page.text("#tune-what").await,
        "4 pictures of 2 classes: fish, mill."
    );
    let name = page.client.find("#tune-name").await.unwrap();
    name.send_keys("fish-or-mill").await.unwrap();
    page.click("#tune-go").await;
    page.wait_for("!document.getElementById('tune-done').hidden")
        .await;
    page.click("#tune-link").await;
    page.wait_for("document.querySelector('h1')?.textContent.includes('fish-or-mill')")
        .await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_shows_and_hides_where_it_looked() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg"]).await;
    assert_eq!(
        page.value("document.querySelector('canvas')").await,
        Value::Null
    );
    page.click(".look-button").await;
    let shades = page
        .value(
            "(() => { const canvas = document.querySelector('.answer canvas');
              const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
              const alpha = data.filter((_, index) => index % 4 === 3);
              return [Math.min(...alpha), Math.max(...alpha)]; })()",
        )
        .await;
    let shades: [u8; 2] = serde_json::from_value(shades).unwrap();
    assert!(
        shades[0] + 40 < shades[1],
        "the overlay is even: {shades:?}"
    );
    let words = page
        .value("document.querySelector('canvas').getAttribute('aria-label')")
        .await;
    assert!(
        words.as_str().unwrap().starts_with("It looked most at"),
        "{words}"
    );
    page.click(".look-button").await;
    assert_eq!(
        page.value("document.querySelector('canvas')").await,
        Value::Null
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_picture_gets_its_reason_and_the_rest_goes_on() {
    let Some(page) = Session::start().await else {
        return;
    };
    let fake = page.folder.path().join("receipt.png");
    fs::write(&fake, "<html>not a picture</html>").unwrap();
    let empty = page.folder.path().join("empty.jpg");
    fs::write(&empty, "").unwrap();
    page.pick(&class_input(1), &[fake.clone(), example(FISH[0])])
        .await;
    page.pick(&class_input(2), &examples(&MILLS)).await;
    page.pick("#choose-queries", &[empty, example("queries/discus.jpg")])
        .await;
    answered(&page, 1).await;

    let refused = page.text(".class-card:nth-child(1) .refusal p").await;
    let reason = refused
        .strip_prefix("receipt.png was left out. ")
        .unwrap_or_default();
    assert!(reason.len() > 10, "no reason given: {refused}");
    assert_eq!(
        page.text(".class-card:nth-child(1) .class-count").await,
        "1 picture"
    );
    let waiting = page.text(".answer:first-child [data-part=waiting]").await;
    assert!(waiting.to_lowercase().contains("empty"), "{waiting}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_keeps_the_answers_and_removing_can_be_undone() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.requested().await;

    rename(&page, 1, "sea creature").await;
    page.wait_for("document.querySelector('.answer').dataset.verdict === 'sea creature'")
        .await;
    let asked = page.requested().await;
    assert!(
        asked.iter().all(|address| !address.contains("/classify")),
        "renaming asked again: {asked:?}"
    );

    page.click(".class-card:nth-child(1) .class-head [data-part=remove]")
        .await;
    page.wait_for("document.querySelectorAll('.class-card').length === 1")
        .await;
    assert_eq!(
        page.text("#next-step").await,
        "Next: add pictures to one more class."
    );
    let focused = page
        .client
        .active_element()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(focused, "Undo");
    page.press(Key::Enter).await;
    answered(&page, 1).await;
    assert_eq!(class_names(&page).await, json!(["sea creature", "mill"]));

    page.click("#start-over").await;
    page.click("#confirm-yes").await;
    page.wait_for("document.querySelectorAll('.answer, .thumbnail').length === 0")
        .await;
    assert_eq!(class_names(&page).await, json!(["Class 1", "Class 2"]));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_dropped_on_the_page_are_taken() {
    let Some(page) = Session::start().await else {
        return;
    };
    let drops = [
        (".class-card:nth-child(1)", FISH[0]),
        (".class-card:nth-child(2)", MILLS[0]),
        ("#queries", "queries/discus.jpg"),
    ];
    for (target, path) in drops {
        let bytes = fs::read(example(path)).unwrap();
        let name = path.rsplit('/').next();
        page.drop_file(target, name.unwrap(), "image/jpeg", &bytes)
            .await;
    }
    answered(&page, 1).await;
    assert_eq!(page.text(".answer .file-name").await, "discus.jpg");
    assert_eq!(
        page.value("document.querySelector('.answer').dataset.verdict")
            .await,
        "Class 1"
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sub_folder_becomes_a_class() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = page.folder.path().join("my pictures");
    for path in FISH.iter().chain(&MILLS) {
        let copy = root.join(path);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(example(path), copy).unwrap();
    }
    fs::write(root.join("fish/notes.txt"), "not a picture").unwrap();
    page.pick("#choose-folders", &[root]).await;
    page.wait_for("document.querySelectorAll('.thumbnail img').length === 4")
        .await;
    let mut names: Vec<String> = serde_json::from_value(class_names(&page).await).unwrap();
    names.sort();
    assert_eq!(names, ["fish", "windmill"]);
    assert_eq!(
        page.text("#notice-text").await,
        "1 file that is not a picture was skipped."
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_fill_the_page_and_nothing_leaves_its_origin() {
    let Some(page) = Session::start().await else {
        return;
    };
    page.click("#try-examples").await;
    answered(&page, 6).await;
    assert_eq!(
        class_names(&page).await,
        json!(["fish", "mammal", "windmill"])
    );
    assert!(page.text("#credit").await.contains("Wikimedia"));

    let requested = page.requested().await;
    assert!(
        requested
            .iter()
            .any(|address| address.ends_with("/api/v1/classify?attention=true&nearest=1"))
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
async fn the_page_can_be_used_with_the_keyboard_alone() {
    let Some(page) = Session::start().await else {
        return;
    };
    let walk_to = async |id: &str| {
        for _ in 0..60 {
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
    walk_to("try-examples").await;
    page.press(Key::Enter).await;
    answered(&page, 6).await;

    walk_to("choose-folders").await;
    walk_to("choose-queries").await;
    page.press(Key::Tab).await;
    assert_eq!(
        page.value("document.activeElement.dataset.part").await,
        "look"
    );
    page.press(Key::Enter).await;
    page.wait_for("document.activeElement.getAttribute('aria-pressed') === 'true'")
        .await;

    // Enter in a name leads on to the pictures of that class.
    page.client
        .execute("document.querySelector('.class-name').focus()", vec![])
        .await
        .unwrap();
    page.press(Key::Enter).await;
    assert_eq!(
        page.value("document.activeElement.dataset.part").await,
        "files"
    );

    walk_to("start-over").await;
    page.press(Key::Enter).await;
    page.wait_for("document.getElementById('confirm-start-over').open")
        .await;
    page.press(Key::Escape).await;
    page.wait_for("!document.getElementById('confirm-start-over').open")
        .await;
    assert_eq!(page.value("document.activeElement.id").await, "start-over");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_went_away_is_told_and_can_be_tried_again() {
    let Some(mut page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.server = None;
    page.pick("#choose-queries", &[example("queries/discus.jpg")])
        .await;
    page.wait_for("!document.getElementById('problem').hidden")
        .await;
    assert!(
        page.text("#problem-text")
            .await
            .contains("cannot be reached")
    );

    let listen = page.origin.trim_start_matches("http://").to_owned();
    page.server = Some(Server::start(&page.folder.path().join("data"), &listen));
    page.click("#problem-retry").await;
    answered(&page, 2).await;
    assert_eq!(
        page.value("document.getElementById('problem').hidden")
            .await,
        true
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_leads_back_to_the_start_page() {
    let Some(page) = Session::start().await else {
        return;
    };
    page.open("/no/such/page").await;
    assert_eq!(page.text("h1").await, "There is no page here");
    page.click("main a").await;
    page.wait_for("document.documentElement.dataset.ready === 'true'")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_landmarks_and_contrast_hold_in_both_colour_schemes() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.click(".thumbnail-remove").await;
    for scheme in ["light", "dark"] {
        page.devtools(
            "Emulation.setEmulatedMedia",
            json!({"features": [
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ]}),
        )
        .await;
        answered(&page, 1).await;
        let complaints = page
            .client
            .execute(accessibility::CHECK, vec![])
            .await
            .unwrap();
        assert_eq!(complaints, json!([]), "in the {scheme} scheme");
    }
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
    fill(&page, &["queries/clownfish.jpg"]).await;
    let width = page.value("document.documentElement.scrollWidth").await;
    assert_eq!(width, 360);
    page.close().await;
}
