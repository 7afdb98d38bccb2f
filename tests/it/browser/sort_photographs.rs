//! Photographs as phones make them, of twelve megapixels.

use super::session::{Server, Session, example};
use super::sort::{saved, sorted, verdicts};
use image::imageops::FilterType;
use rayon::prelude::*;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const WIDTH: u32 = 4032;
const HEIGHT: u32 = 3024;
const CLASSES: [(&str, [&str; 5]); 3] = [
    (
        "fish",
        [
            "fish/goldfish",
            "fish/angelfish",
            "fish/red-porgy",
            "queries/clownfish",
            "queries/discus",
        ],
    ),
    (
        "mammal",
        [
            "mammal/panda",
            "mammal/dog",
            "mammal/cow",
            "queries/sheep",
            "queries/hedgehog",
        ],
    ),
    (
        "windmill",
        [
            "windmill/stone-tower",
            "windmill/log-mill",
            "windmill/post-mill",
            "queries/polder-mill",
            "queries/whitewashed-mill",
        ],
    ),
];

/// An example picture as a photograph; of a `part` of it where that is below 1.
fn photograph(picture: &str, part: f64, to: &Path) {
    let small = image::open(example(&format!("{picture}.jpg"))).unwrap();
    let size = |side: u32| (part * f64::from(side)) as u32;
    let small = small.crop_imm(0, 0, size(small.width()), size(small.height()));
    let large = small.resize_exact(WIDTH, HEIGHT, FilterType::Nearest);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    large.to_rgb8().save(to).unwrap();
}

/// A folder with three class folders of five photographs each, drawn once for all tests.
static THREE_FOLDERS: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("photographs");
    if root.is_dir() {
        return root;
    }
    let drawing = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let of_class = |(class, pictures): (&'static str, [&'static str; 5])| {
        pictures.map(|picture| (class, picture))
    };
    let all: Vec<(&str, &str)> = CLASSES.into_iter().flat_map(of_class).collect();
    let draw = |(index, (class, picture)): (usize, &(&str, &str))| {
        let to = drawing
            .path()
            .join(class)
            .join(format!("IMG_{index:04}.jpg"));
        photograph(picture, 1.0, &to);
    };
    all.par_iter().enumerate().for_each(draw);
    fs::rename(drawing.keep(), &root).unwrap();
    root
});

#[tokio::test(flavor = "multi_thread")]
async fn three_folders_of_photographs_give_the_right_answer_in_two_actions() {
    let Some(page) = Session::start().await else {
        return;
    };
    let root = THREE_FOLDERS.clone();
    let query = page.folder.path().join("IMG_0099.jpg");
    photograph("fish/goldfish", 0.85, &query);
    page.pick("#home-folder", &[root]).await;
    page.wait_for("document.querySelector('.class-row')").await;
    page.pick("#choose-queries", &[query]).await;
    sorted(&page, 1).await;
    assert_eq!(verdicts(&page).await, json!([["IMG_0099.jpg", "fish"]]));
    saved(&page, "3 classes, 15 pictures").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_photographs_are_read_gets_all_of_them_when_it_is_back() {
    let Some(mut page) = Session::start().await else {
        return;
    };
    let root = THREE_FOLDERS.clone();
    page.pick("#home-folder", &[root]).await;
    page.wait_for("document.getElementById('progress-text').textContent.startsWith('Reading ')")
        .await;
    // Dropping the server is kill -9.
    page.server = None;
    page.wait_for("!document.getElementById('connection').hidden")
        .await;
    let listen = page.origin.trim_start_matches("http://").to_owned();
    page.server = Some(Server::start(&page.folder.path().join("data"), &listen));
    saved(&page, "3 classes, 15 pictures").await;
    page.pick("#choose-queries", &[example("queries/clownfish.jpg")])
        .await;
    sorted(&page, 1).await;
    assert_eq!(verdicts(&page).await, json!([["clownfish.jpg", "fish"]]));
    page.close().await;
}
