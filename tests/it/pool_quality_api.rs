//! The quality of pools over HTTP, beside real pictures: the real router around a pool of the backbone that answers.

use crate::jobs_support::pool_of;
use crate::registry_api::assert_problem;
use crate::test_app::{Answered, TestApp, png};
use lora_recycle::app::registry::Registry;
use lora_recycle::jobs::pool::PoolSummary;
use model::adapter::NamedFile;
use serde_json::{Value, json};
use store::{Access, NewPool, Store};
use tempfile::TempDir;
use test_support::broken_adapters::zip_of;
use test_support::fixtures::backbone;
use test_support::pools::pool_on;

/// Part name, file name, bytes.
type Part<'a> = (&'a str, &'a str, &'a [u8]);

/// An app with a pool, and the folder that must outlive it.
struct Fresh {
    app: TestApp,
    store: Store,
    pool: String,
    _folder: TempDir,
}

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), Access::Exclusive)
        .await
        .unwrap();
    let pool = pool_on("vit-tiny");
    let files = pool.to_files().unwrap();
    let new = NewPool {
        backbone_digest: backbone("vit-tiny").digest.parse().unwrap(),
        summary: json!(PoolSummary::of(pool.manifest())),
        files: files
            .into_iter()
            .map(|file| (file.path, file.bytes))
            .collect(),
        ..pool_of("pets")
    };
    let store = registry.store().clone();
    let pool = store.create_pool(new).await.unwrap();
    Fresh {
        store,
        app: TestApp::with_registry(registry),
        pool: pool.id.to_string(),
        _folder: folder,
    }
}

impl Fresh {
    async fn post(&self, parts: &[Part<'_>]) -> Answered {
        let path = format!("/api/v1/pools/{}/quality", self.pool);
        self.app.post_form(&path, parts).await
    }

    /// The problem that names the part `archive` as what is wrong.
    async fn refused(&self, parts: &[Part<'_>]) -> String {
        let answer = self.post(parts).await;
        let problem = assert_problem(&answer, 422, "invalid_parameter");
        assert_eq!(problem["parameter"], "archive", "{problem:#}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// A reddish picture, a bluish one and one that is none.
fn files() -> Vec<NamedFile> {
    vec![
        NamedFile::new("red/1.png", png(250, 10, 0)),
        NamedFile::new("blue/1.png", png(0, 30, 240)),
        NamedFile::new("blue/notes.png", b"no picture"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_beside_real_pictures_has_real_figures_and_says_what_was_left_out() {
    let fresh = fresh().await;
    let mut files = files();
    files.push(NamedFile::new("blue/2.png", png(10, 0, 200)));
    let (archive, single) = (zip_of(&files), png(200, 60, 10));
    let parts: [Part; 2] = [
        ("archive", "real.zip", &archive),
        ("support/red", "2.png", &single),
    ];
    let answer = fresh.post(&parts).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let mut beside = answer.json();
    let real = beside["real"].take();
    assert_eq!(real["real_images"], 4);
    assert!(real["frechet_distance"].as_f64().unwrap() > 0.0, "{real}");
    for share in ["precision", "recall"] {
        let share = real[share].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{real}");
    }
    let left_out = beside.as_object_mut().unwrap().remove("left_out").unwrap();
    assert_eq!(left_out.as_array().unwrap().len(), 1, "{left_out}");
    let sentence = left_out[0].as_str().unwrap();
    assert!(
        sentence.starts_with("left out: blue/notes.png: "),
        "{sentence}"
    );
    // The rest is what it is without real pictures.
    let path = format!("/api/v1/pools/{}/quality", fresh.pool);
    let alone = fresh.app.get(&path).await.json();
    assert_eq!(alone["real"], Value::Null);
    assert_eq!(alone["images"], 10);
    assert_eq!(beside, alone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_pictures_or_with_too_few_is_refused_with_the_reason() {
    let fresh = fresh().await;
    let detail = fresh.refused(&[]).await;
    assert!(
        detail.starts_with("there are no pictures; send"),
        "{detail}"
    );
    let archive = zip_of(&files());
    let detail = fresh.refused(&[("archive", "real.zip", &archive)]).await;
    assert!(
        detail.starts_with("2 real images; at least 4 are needed")
            && detail.contains("; left out: blue/notes.png"),
        "{detail}"
    );
    let answer = fresh.post(&[("query", "1.png", &png(1, 2, 3))]).await;
    let problem = assert_problem(&answer, 422, "invalid_parameter");
    assert_eq!(problem["parameter"], "query");
    let path = format!("/api/v1/pools/{}/quality", fresh.pool);
    let answer = fresh.app.post_json(&path, &json!({})).await;
    assert_problem(&answer, 415, "unsupported_media_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_real_pictures_are_refused_with_the_command_for_more() {
    let fresh = fresh().await;
    // Refused before any of them is looked at.
    let files: Vec<NamedFile> = (0..601)
        .map(|number| NamedFile::new(format!("class {}/{number}.png", number % 2), b"x"))
        .collect();
    let archive = zip_of(&files);
    let detail = fresh.refused(&[("archive", "real.zip", &archive)]).await;
    let command = format!("lora-recycle pool quality {} --real DIR", fresh.pool);
    assert!(
        detail.starts_with("there are 601 pictures, and at most 600") && detail.ends_with(&command),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn real_pictures_for_an_unknown_pool_or_another_backbone_are_refused() {
    let fresh = fresh().await;
    for pool in ["nonsense", "00000000-0000-0000-0000-000000000000"] {
        let path = format!("/api/v1/pools/{pool}/quality");
        let answer = fresh.app.post_form(&path, &[]).await;
        assert_problem(&answer, 404, "pool_not_found");
    }
    let other = fresh.store.create_pool(pool_of("others")).await.unwrap();
    let path = format!("/api/v1/pools/{}/quality", other.id);
    let answer = fresh.app.post_form(&path, &[]).await;
    assert_problem(&answer, 409, "adapter_for_other_backbone");
}
