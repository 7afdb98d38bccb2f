//! The workbench: classes from folders, answers, corrections, and everything that changes a classifier.

use super::session::{Session, example};
use super::webdriver::Key;
use crate::test_app::png;
use serde_json::{Value, json};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub const FISH: [&str; 2] = ["fish/goldfish.jpg", "fish/red-porgy.jpg"];
pub const MILLS: [&str; 2] = ["windmill/log-mill.jpg", "windmill/post-mill.jpg"];

pub fn examples(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(|path| example(path)).collect()
}

/// A folder with the folders `fish` and `windmill` of two pictures each.
pub fn two_classes(page: &Session) -> PathBuf {
    let root = page.folder.path().join("my pictures");
    for path in FISH.iter().chain(&MILLS) {
        let copy = root.join(path);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(example(path), copy).unwrap();
    }
    root
}

/// A classifier of fish and windmills on the workbench, with `queries` sorted.
pub async fn fill(page: &Session, queries: &[&str]) {
    page.pick("#home-folder", &[two_classes(page)]).await;
    saved(page, "2 classes, 4 pictures").await;
    if !queries.is_empty() {
        page.pick("#choose-queries", &examples(queries)).await;
        sorted(page, queries.len()).await;
    }
}

/// Waits until the server has everything that is on the page, which is `counts`.
pub async fn saved(page: &Session, counts: &str) {
    page.wait_for(&format!(
        "document.getElementById('bench-counts').textContent === '{counts}' && document.getElementById('bench-saved').textContent.startsWith('Saved ')"
    ))
    .await;
}

/// Waits until so many pictures have answers that hold.
pub async fn sorted(page: &Session, count: usize) {
    let words = if count == 1 {
        "1 picture"
    } else {
        &format!("{count} pictures")
    };
    page.wait_for(&format!(
        "document.getElementById('summary').textContent.startsWith('{words} sorted') && !document.querySelector('.tile.is-stale') && document.getElementById('progress').hidden"
    ))
    .await;
}

/// `[name of the picture, verdict]` of all tiles, in their order.
pub async fn verdicts(page: &Session) -> Value {
    page.value("[...document.querySelectorAll('.tile')].map((tile) => [tile.getAttribute('aria-label').split(':')[0], tile.dataset.verdict])")
        .await
}

pub async fn class_names(page: &Session) -> Value {
    page.value("[...document.querySelectorAll('.class-name')].map((name) => name.value)")
        .await
}

/// Chooses `item` of the menu that the element `button` opens.
async fn choose(page: &Session, button: &str, item: &str) {
    page.click(button).await;
    page.click_text("#menu button", item).await;
}

fn row(number: usize, part: &str) -> String {
    format!(".class-row:nth-child({number}) [data-part={part}]")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_folders_becomes_a_classifier_that_sorts_pictures() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = two_classes(&page);
    fs::write(root.join("fish/notes.txt"), "not a picture").unwrap();
    page.pick("#home-folder", &[root]).await;
    saved(&page, "2 classes, 4 pictures").await;
    assert_eq!(class_names(&page).await, json!(["fish", "windmill"]));
    assert_eq!(
        page.text("#notice-text").await,
        "1 file that is not a picture was skipped."
    );
    page.wait_for("document.getElementById('bench-name').value === 'my pictures'")
        .await;

    page.pick(
        "#choose-queries",
        &examples(&["queries/clownfish.jpg", "queries/polder-mill.jpg"]),
    )
    .await;
    sorted(&page, 2).await;
    assert_eq!(
        verdicts(&page).await,
        json!([["clownfish.jpg", "fish"], ["polder-mill.jpg", "windmill"]])
    );
    let words = "2 pictures sorted: 1 fish, 1 windmill";
    assert_eq!(page.text("#summary").await, words);
    page.wait_for(&format!(
        "document.getElementById('spoken').textContent === '{words}'"
    ))
    .await;

    page.click(".tile").await;
    let percents = page
        .value("[...document.querySelectorAll('.bar-value')].map((bar) => Number.parseInt(bar.textContent, 10))")
        .await;
    let percents: Vec<i64> = serde_json::from_value(percents).unwrap();
    assert_eq!(percents.len(), 2);
    // Each is rounded by itself.
    assert!(
        (99..=101).contains(&percents.iter().sum::<i64>()),
        "{percents:?}"
    );
    assert!(percents[0] >= percents[1], "{percents:?}");
    page.wait_for("document.querySelector('.closest-strip img')?.naturalWidth > 0")
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
    page.click(".tile").await;
    page.click("#drawer-look").await;
    page.wait_for("document.querySelector('#drawer canvas')")
        .await;
    let shades = page
        .value(
            "(() => { const canvas = document.querySelector('#drawer canvas');
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
    page.wait_for("!document.getElementById('drawer-look').disabled")
        .await;
    page.click("#drawer-look").await;
    page.wait_for("!document.querySelector('#drawer canvas')")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_is_corrected_and_every_answer_is_made_again() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg", "queries/discus.jpg"]).await;
    page.click(".tile").await;
    page.requested().await;
    page.click_text("#drawer-put .chip", "windmill").await;
    saved(&page, "2 classes, 5 pictures").await;
    sorted(&page, 2).await;
    let asked = page.requested().await;
    let count = |end: &str| asked.iter().filter(|address| address.contains(end)).count();
    // One picture is sent; none of those that are there is listed, or sent again.
    assert_eq!(
        [
            count("/images?undo_group="),
            count("/images?limit="),
            count("/classify")
        ],
        [1, 0, 1],
        "{asked:?}"
    );
    let said = page
        .value("document.querySelector('.tile[data-verdict=windmill] .tile-sure').textContent")
        .await;
    assert_eq!(said, "You said so");

    page.click("#notice-undo").await;
    saved(&page, "2 classes, 4 pictures").await;
    sorted(&page, 2).await;
    assert_eq!(
        verdicts(&page).await,
        json!([["clownfish.jpg", "fish"], ["discus.jpg", "fish"]])
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_moved_and_classes_renamed_merged_deleted_and_all_of_it_undone() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &["queries/clownfish.jpg"]).await;
    page.requested().await;

    // A new name alone changes no answer.
    let name = page.client.find(&row(1, "name")).await.unwrap();
    let select_all = format!("{}a{}", char::from(Key::Control), char::from(Key::Null));
    name.send_keys(&format!(
        "{select_all}sea creature{}",
        char::from(Key::Enter)
    ))
    .await
    .unwrap();
    page.wait_for("document.querySelector('.tile').dataset.verdict === 'sea creature'")
        .await;
    let asked = page.requested().await;
    assert!(
        asked.iter().all(|address| !address.contains("/classify")),
        "renaming asked again: {asked:?}"
    );

    page.click(&row(1, "open")).await;
    page.click(".class-grid button").await;
    page.click_text("#drawer-put .chip", "windmill").await;
    let counts =
        "[...document.querySelectorAll('.class-count')].map((count) => count.textContent).join()";
    page.wait_for(&format!("{counts} === '1,3'")).await;
    page.click("#drawer-close").await;

    choose(&page, &row(2, "more"), "Merge into…").await;
    page.wait_for("document.getElementById('dialog').open")
        .await;
    page.click("#dialog-yes").await;
    saved(&page, "1 class, 4 pictures").await;
    choose(&page, &row(1, "more"), "Delete class").await;
    saved(&page, "0 classes, 0 pictures").await;

    for counts in ["1 class, 4 pictures", "2 classes, 4 pictures"] {
        page.click("#undo").await;
        saved(&page, counts).await;
    }
    page.wait_for(&format!("{counts} === '1,3'")).await;
    for _ in 0..2 {
        page.wait_for("!document.getElementById('undo').disabled")
            .await;
        page.click("#undo").await;
    }
    page.wait_for(&format!(
        "{counts} === '2,2' && document.querySelector('.class-name').value === 'fish'"
    ))
    .await;
    page.click("#redo").await;
    page.wait_for("document.querySelector('.class-name').value === 'sea creature'")
        .await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_none_of_the_classes_is_set_aside_as_the_slider_says() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = page.folder.path().join("colours");
    let plain = |folder: &Path, name: &str, [red, green, blue]: [u8; 3]| {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, png(red, green, blue)).unwrap();
        path
    };
    for shade in 0..6 {
        plain(
            &root.join("red"),
            &format!("{shade}.png"),
            [180 + 12 * shade, 6 * shade, 20],
        );
        plain(
            &root.join("blue"),
            &format!("{shade}.png"),
            [20, 6 * shade, 180 + 12 * shade],
        );
    }
    let queries = [
        plain(page.folder.path(), "reddish.png", [215, 10, 20]),
        example("queries/polder-mill.jpg"),
    ];
    page.pick("#home-folder", &[root]).await;
    saved(&page, "2 classes, 12 pictures").await;
    page.pick("#choose-queries", &queries).await;
    sorted(&page, 2).await;
    assert_eq!(
        page.value("document.getElementById('aside').hidden").await,
        false
    );
    assert_eq!(
        page.value("document.getElementById('rough').hidden").await,
        true
    );

    let verdict = "document.querySelector('.tile[aria-label^=polder]').dataset.verdict";
    let slider = page.client.find("#aside-share").await.unwrap();
    slider
        .send_keys(&char::from(Key::Home).to_string())
        .await
        .unwrap();
    page.wait_for("document.getElementById('aside-value').textContent === 'Never'")
        .await;
    page.wait_for(&format!("{verdict} !== 'none'")).await;
    for _ in 0..5 {
        slider
            .send_keys(&char::from(Key::Right).to_string())
            .await
            .unwrap();
    }
    page.wait_for(&format!("{verdict} === 'none'")).await;
    page.wait_for("document.getElementById('summary').textContent === '2 pictures sorted: 1 red, 1 none of these'").await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_picture_gets_its_reason_and_the_rest_goes_on() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = two_classes(&page);
    fs::write(root.join("fish/receipt.png"), "<html>not a picture</html>").unwrap();
    let empty = page.folder.path().join("empty.jpg");
    fs::write(&empty, "").unwrap();
    page.pick("#home-folder", &[root]).await;
    saved(&page, "2 classes, 4 pictures").await;
    page.wait_for("!document.getElementById('examples-refused').hidden")
        .await;
    page.click("#examples-refused summary").await;
    let reason = page.text("#examples-refused-list li").await;
    assert!(
        reason
            .strip_prefix("receipt.png (fish): ")
            .is_some_and(|reason| reason.len() > 10),
        "no reason given: {reason}"
    );

    page.pick("#choose-queries", &[empty, example("queries/discus.jpg")])
        .await;
    sorted(&page, 1).await;
    page.wait_for("!document.getElementById('queries-refused').hidden")
        .await;
    page.click("#queries-refused summary").await;
    let reason = page.text("#queries-refused-list li").await;
    assert!(reason.to_lowercase().contains("empty"), "{reason}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_a_hundred_class_folders_is_taken_whole_and_can_be_searched() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = page.folder.path().join("many");
    for class in 0..100_u8 {
        let folder = root.join(format!("class {class:02}"));
        fs::create_dir_all(&folder).unwrap();
        for shade in 0..2 {
            fs::write(
                folder.join(format!("{shade}.png")),
                png(class * 2, 255 - class * 2, 90 * shade),
            )
            .unwrap();
        }
    }
    page.pick("#home-folder", &[root]).await;
    saved(&page, "100 classes, 200 pictures").await;
    let rows = page
        .value("document.querySelectorAll('.class-row').length")
        .await;
    assert!(
        rows.as_u64().unwrap() < 60,
        "{rows} rows exist though few are in sight"
    );
    let search = page.client.find("#class-search").await.unwrap();
    search.send_keys("class 87").await.unwrap();
    page.wait_for("document.querySelectorAll('.class-row').length === 1")
        .await;
    assert_eq!(class_names(&page).await, json!(["class 87"]));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_dropped_on_either_half_of_the_window_are_taught_or_sorted() {
    let Some(page) = Session::start().await else {
        return;
    };
    fill(&page, &[]).await;
    let bytes = fs::read(example("queries/discus.jpg")).unwrap();
    page.drop_file("#try", "discus.jpg", "image/jpeg", &bytes)
        .await;
    sorted(&page, 1).await;
    assert_eq!(verdicts(&page).await, json!([["discus.jpg", "fish"]]));
    // A loose picture over a row goes into that class.
    page.drop_file(
        ".class-row:nth-child(1) .class-count",
        "discus.jpg",
        "image/jpeg",
        &bytes,
    )
    .await;
    saved(&page, "2 classes, 5 pictures").await;
    assert_eq!(class_names(&page).await, json!(["fish", "windmill"]));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_for_training_are_taught_and_those_beside_them_sorted() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = page.folder.path().join("set");
    for (from, to) in [
        (FISH[0], "train/fish/1.jpg"),
        (MILLS[0], "train/windmill/1.jpg"),
        ("queries/discus.jpg", "test/fish/2.jpg"),
    ] {
        let copy = root.join(to);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(example(from), copy).unwrap();
    }
    page.pick("#home-folder", &[root]).await;
    saved(&page, "2 classes, 2 pictures").await;
    sorted(&page, 1).await;
    assert_eq!(verdicts(&page).await, json!([["2.jpg", "fish"]]));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_is_opened_and_its_folders_become_classes() {
    let Some(page) = Session::start().await else {
        return;
    };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for path in FISH.iter().chain(&MILLS) {
        archive
            .start_file(*path, SimpleFileOptions::default())
            .unwrap();
        archive
            .write_all(&fs::read(example(path)).unwrap())
            .unwrap();
    }
    let bytes = archive.finish().unwrap().into_inner();
    page.drop_file("body", "classes.zip", "application/zip", &bytes)
        .await;
    saved(&page, "2 classes, 4 pictures").await;
    assert_eq!(class_names(&page).await, json!(["fish", "windmill"]));
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}
