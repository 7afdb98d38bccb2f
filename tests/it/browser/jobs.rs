//! The pages of jobs and pools, on a data folder with a history.

use super::accessibility;
use super::jobs_live::wait_long;
use super::session::{Server, Session};
use crate::making_cli::Home;
use crate::recycle_cli::two_adapters;
use recycle::pool::{preview, preview_file};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use std::time::Duration;
use store::{
    Access, Claim, Digest, Finish, JobFault, JobKinds, JobRecord, LogLevel, NewJob, NewPool,
    PoolRecord, Progress, Retention, Store,
};
use tempfile::TempDir;
use uuid::Uuid;

pub const READY: &str = "document.documentElement.dataset.ready === 'true'";
const LATER: Duration = Duration::from_secs(3600);
const SIDE: usize = 28;
const GRID: usize = 4;
const KEPT: usize = 5;
const IMAGES_PER_CLASS: usize = 3;

/// Writes a history into a data folder before a server opens it.
pub struct History {
    store: Store,
}

impl History {
    pub async fn begin(folder: &TempDir) -> Self {
        let store = Store::open(&folder.path().join("data"), Access::Exclusive)
            .await
            .unwrap();
        Self { store }
    }

    pub async fn job(&self, kind: &str, title: &str, waits_for: &[Uuid]) -> JobRecord {
        let new = NewJob {
            kind: kind.into(),
            title: title.into(),
            recipe: json!({"name": "letters", "recipe": {"steps": 60, "learning_rate": 0.001, "early_stop": null}, "adapters": [{"adapter": "a:1", "adapter_digest": "0f"}]}),
            deduplication_key: Digest::of(title.as_bytes()),
            priority: 0,
            most_attempts: 3,
            waits_for: waits_for.to_vec(),
            inputs: vec![],
        };
        self.store.submit_job(new).await.unwrap().job
    }

    pub async fn claim(&self, id: Uuid) {
        let claim = Claim {
            owner: "history",
            lease: LATER,
            only: Some(&[id]),
            kinds: JobKinds::All,
        };
        assert!(self.store.claim_job(claim).await.unwrap().is_some());
    }

    pub async fn finish(&self, id: Uuid, finish: Finish) {
        let finished = self.store.finish_job(id, "history", finish).await.unwrap();
        assert!(finished.is_some());
    }

    async fn done(&self, title: &str) -> JobRecord {
        let job = self.job("tune", title, &[]).await;
        self.claim(job.id).await;
        self.finish(job.id, Finish::Succeeded(json!({"adapter": "letters:1"})))
            .await;
        job
    }

    /// A job that no runner takes up while a test lasts.
    async fn tries_again_later(&self, title: &str) -> JobRecord {
        let job = self.job("invert", title, &[]).await;
        self.claim(job.id).await;
        self.finish(job.id, Finish::Retry(fault(), LATER)).await;
        job
    }

    /// A job that told three steps, one of another phase, and a line.
    async fn curves(&self, title: &str) -> JobRecord {
        let job = self.job("tune", title, &[]).await;
        self.claim(job.id).await;
        let tell = |phase: &str, step: u32, figures: &[(&str, f64)]| Progress {
            phase: phase.into(),
            step: step.into(),
            total: 3,
            rate_per_second: Some(2.0),
            eta_seconds: Some(f64::from(3 - step) / 2.0),
            figures: figures
                .iter()
                .map(|&(name, value)| (name.into(), value))
                .collect(),
        };
        let tuning = (1..=3_u32).map(|step| {
            let (cross_entropy, accuracy) = (3.0 / f64::from(step), f64::from(step) / 3.0);
            let figures = [("cross_entropy", cross_entropy), ("accuracy", accuracy)];
            tell("tuning", step, &figures)
        });
        for progress in tuning.chain([tell("checking", 1, &[("accuracy", 0.5)])]) {
            self.store
                .add_job_progress(job.id, &progress)
                .await
                .unwrap();
        }
        let said = "12 pictures of 2 classes";
        self.store
            .add_job_log(job.id, LogLevel::Info, said)
            .await
            .unwrap();
        self.finish(job.id, Finish::Succeeded(json!({"adapter": "letters:1"})))
            .await;
        job
    }

    async fn failed(&self, title: &str) -> JobRecord {
        let job = self.job("tune", title, &[]).await;
        self.claim(job.id).await;
        self.finish(job.id, Finish::Failed(fault())).await;
        job
    }

    /// Two classes, of which the second did not come out.
    async fn pool(&self, seed: u64) -> PoolRecord {
        let classes = ["a", "b"].iter().zip([1.0, 0.25]).map(|(label, accuracy)| {
            json!({"label": label, "images": IMAGES_PER_CLASS, "teacher_accuracy": accuracy, "teacher_confidence": 0.75})
        });
        let images = 2 * IMAGES_PER_CLASS;
        let pixels: Vec<u8> = (0..images * 3 * SIDE * SIDE)
            .map(|index| (index % 251) as u8)
            .collect();
        // The class token and the first patches of each image.
        let kept: Vec<u8> = (0..images * (1 + KEPT))
            .flat_map(|index| ((index % (1 + KEPT)) as u32).to_le_bytes())
            .collect();
        let file = |name: &str, kind: Dtype, shape: Vec<usize>, bytes: &[u8]| {
            let view = TensorView::new(kind, shape, bytes).unwrap();
            let bytes = serialize([(name, view)], None).unwrap();
            (format!("{name}.safetensors"), bytes)
        };
        let mut files = vec![
            file("images", Dtype::U8, vec![images, 3, SIDE, SIDE], &pixels),
            file("kept_tokens", Dtype::U32, vec![images, 1 + KEPT], &kept),
        ];
        for (index, planes) in pixels.chunks_exact(3 * SIDE * SIDE).enumerate() {
            files.push((preview_file(index), preview(planes, SIDE).unwrap()));
        }
        let new = NewPool {
            adapter_id: Uuid::nil(),
            adapter_label: "letters:1".into(),
            adapter_digest: Digest::of(b"adapter"),
            backbone_digest: Digest::of(b"backbone"),
            recipe: json!({"steps": 60, "pruning": {"4": 0.75}, "seed": seed}),
            summary: json!({
                "image_size": SIDE, "images": images, "classes": classes.collect::<Vec<_>>(),
                "teacher_accuracy": 0.625, "teacher_cross_entropy": 1.1, "bare_cross_entropy": 0.004,
                "kept_tokens_per_image": KEPT, "grid": GRID, "steps_done": 60, "stopped_early": false,
            }),
            retention: Retention::Keep,
            files,
        };
        self.store.create_pool(new).await.unwrap()
    }

    pub async fn end(self) {
        self.store.close().await;
    }
}

fn fault() -> JobFault {
    JobFault {
        code: "too_few_images".into(),
        message: "the class \"q\" has 1 picture".into(),
        hint: Some("add pictures to it".into()),
    }
}

pub async fn open(page: &Session, path: &str) {
    page.open(path).await;
    page.wait_for(READY).await;
}

async fn rows(page: &Session) -> Value {
    page.value(
        "[...document.querySelectorAll('.job-row')].map((row) =>
            [row.querySelector('[data-part=link]').textContent, row.querySelector('[data-part=state]').textContent])",
    )
    .await
}

pub async fn choose(page: &Session, id: &str, value: &str) {
    page.client
        .execute(
            "const [id, value] = arguments;
             const select = document.getElementById(id);
             select.value = value;
             select.dispatchEvent(new Event('change', { bubbles: true }));",
            vec![json!(id), json!(value)],
        )
        .await
        .unwrap();
}

pub fn count(selector: &str, count: usize) -> String {
    format!("document.querySelectorAll('{selector}').length === {count}")
}

pub fn says(id: &str, text: &str) -> String {
    format!("document.getElementById('{id}').textContent.includes('{text}')")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_shows_states_in_words_and_filters_and_older_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    for number in 0..20 {
        history.done(&format!("Tune letters-{number:04}")).await;
    }
    history.failed("Tune broken").await;
    let later = history.tries_again_later("Images of letters").await;
    history.job("tune", "Tune after it", &[later.id]).await;
    history.end().await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, "/admin/jobs").await;
    page.wait_for(&count(".job-row", 20)).await;
    let shown = rows(&page).await;
    assert_eq!(
        shown[0],
        json!(["Tune after it", "Waiting for another job"])
    );
    assert!(
        shown[1][1].as_str().unwrap().starts_with("Tries again at"),
        "{shown}"
    );
    assert_eq!(shown[2], json!(["Tune broken", "Failed"]));
    assert_eq!(shown[3], json!(["Tune letters-0019", "Done"]));
    let error = page.text(".job-row:nth-child(3) .job-error").await;
    assert_eq!(error, "The class \"q\" has 1 picture. Add pictures to it.");
    let waits = page.text(".job-row:nth-child(1) [data-part=waits]").await;
    assert_eq!(waits, "Waits for Images of letters");

    page.click("#more").await;
    page.wait_for(&count(".job-row", 23)).await;
    page.wait_for("document.getElementById('more').hidden")
        .await;
    choose(&page, "state", "failed").await;
    page.wait_for(&count(".job-row", 1)).await;
    assert_eq!(rows(&page).await, json!([["Tune broken", "Failed"]]));
    choose(&page, "kind", "invert").await;
    page.wait_for("!document.getElementById('none-match').hidden")
        .await;
    choose(&page, "state", "").await;
    page.wait_for(&count(".job-row", 1)).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_shows_its_curves_its_log_its_recipe_and_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    let job = history.curves("Tune letters").await;
    let failed = history.failed("Tune broken").await;
    history.end().await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, &format!("/admin/jobs/{}", job.id)).await;
    page.wait_for(&count(".curve canvas", 3)).await;
    page.wait_for(&count(".log li", 1)).await;
    let values = page
        .value("[...document.querySelectorAll('.curve-head')].map((head) => head.textContent)")
        .await;
    assert_eq!(
        values,
        json!([
            "Tuning: Accuracy 100 % at step 3",
            "Cross-entropy 1 at step 3",
            "Checking: Accuracy 50 % at step 1"
        ])
    );
    let drawn = page
        .value(
            "(() => { const canvas = document.querySelector('.curve canvas');
              return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0); })()",
        )
        .await;
    assert_eq!(drawn, true, "the curve is empty");
    assert!(
        page.text("#log")
            .await
            .ends_with("12 pictures of 2 classes")
    );
    let recipe = page.text("#recipe").await;
    assert!(recipe.contains("Learning rate\n0.001"), "{recipe}");
    assert!(!recipe.contains("Early stop"), "{recipe}");
    assert!(recipe.contains("Adapters\na:1"), "{recipe}");
    assert!(!recipe.contains("igest"), "{recipe}");
    assert_eq!(page.text("#result").await, "Open letters:1");
    assert_eq!(page.text("#state").await, "Done");
    page.wait_for("document.getElementById('connection').hidden")
        .await;

    open(&page, &format!("/admin/jobs/{}", failed.id)).await;
    let error = page.text("#error").await;
    assert_eq!(error, "The class \"q\" has 1 picture. Add pictures to it.");
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inversion_that_failed_says_so_in_the_list_and_on_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    let job = history.job("invert", "Images of letters", &[]).await;
    history.claim(job.id).await;
    let failure = json!({
        "code": "inversion_failed", "message": "the inversion of letters:1 failed", "hint": "make them again",
    });
    let result = json!({"pool": Uuid::nil(), "adapter": "letters:1", "failure": failure});
    history.finish(job.id, Finish::Succeeded(result)).await;
    history.end().await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    let words = "The inversion of letters:1 failed. Make them again.";
    open(&page, "/admin/jobs").await;
    page.wait_for(&count(".job-row", 1)).await;
    let state = "Done: did not come out";
    assert_eq!(rows(&page).await, json!([["Images of letters", state]]));
    assert_eq!(page.text(".job-row .job-error").await, words);
    open(&page, &format!("/admin/jobs/{}", job.id)).await;
    page.wait_for(&says("state", state)).await;
    assert_eq!(page.text("#error").await, words);
    assert_eq!(page.text("#result").await, "See the images");
    page.close().await;
}

/// Texts that the curves draw from now on, beside their axes.
async fn drawn_texts(page: &Session) -> Vec<String> {
    page.value(
        "(() => { window.drawn = []; const draw = CanvasRenderingContext2D.prototype.fillText;
          CanvasRenderingContext2D.prototype.fillText = function (text, ...place) { window.drawn.push(text); return draw.call(this, text, ...place); };
          document.querySelector('.curve').parentElement.style.width = '70%'; return true; })()",
    )
    .await;
    page.wait_for("window.drawn.some((text) => text.endsWith('%'))")
        .await;
    serde_json::from_value(page.value("window.drawn").await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_axis_of_a_share_ends_at_a_hundred_percent() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    let job = history.job("tune", "Tune letters", &[]).await;
    history.claim(job.id).await;
    for step in 1..=3 {
        let progress = Progress {
            phase: "tuning".into(),
            step,
            total: 3,
            rate_per_second: None,
            eta_seconds: None,
            figures: [("accuracy".to_owned(), 1.0)].into(),
        };
        let told = history.store.add_job_progress(job.id, &progress).await;
        told.unwrap();
    }
    let result = json!({"adapter": "letters:1"});
    history.finish(job.id, Finish::Succeeded(result)).await;
    history.end().await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, &format!("/admin/jobs/{}", job.id)).await;
    page.wait_for(&count(".curve canvas", 1)).await;
    let texts = drawn_texts(&page).await;
    let shares: Vec<f64> = texts
        .iter()
        .filter_map(|text| text.strip_suffix(" %")?.parse().ok())
        .collect();
    assert!(shares.contains(&100.0), "{texts:?}");
    let is_share = |share: &f64| (0.0..=100.0).contains(share);
    assert!(shares.iter().all(is_share), "{texts:?}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_after_a_question_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    let job = history.tries_again_later("Images of letters").await;
    history.end().await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, "/admin/jobs").await;
    page.click(".job-row [data-part=cancel]").await;
    assert!(
        page.text("#confirm")
            .await
            .contains("Cancel “Images of letters”?")
    );
    page.click("#confirm-no").await;
    let state = page.text(".job-row [data-part=state]").await;
    assert!(state.starts_with("Tries again at"), "{state}");

    open(&page, &format!("/admin/jobs/{}", job.id)).await;
    page.click("#cancel").await;
    page.click("#confirm-yes").await;
    page.wait_for(&says("state", "Cancelled")).await;
    page.wait_for("document.getElementById('cancel').hidden")
        .await;
    page.click("#retry").await;
    // No kind of job knows this recipe, so that the new attempt ends at once.
    page.wait_for(&says("state", "Failed")).await;
    page.wait_for("!document.getElementById('error').hidden")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_and_mends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    let job = history.tries_again_later("Images of letters").await;
    history.end().await;
    let Some(mut page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, &format!("/admin/jobs/{}", job.id)).await;
    page.wait_for("document.getElementById('connection').hidden")
        .await;
    page.server = None;
    page.wait_for("!document.getElementById('connection').hidden")
        .await;
    let listen = page.origin.trim_start_matches("http://").to_owned();
    page.server = Some(Server::start(&page.folder.path().join("data"), &listen));
    page.wait_for("document.getElementById('connection').hidden")
        .await;
    page.click("#cancel").await;
    page.click("#confirm-yes").await;
    page.wait_for(&says("state", "Cancelled")).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_shows_its_images_what_was_left_out_and_that_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    let pool = history.pool(0).await;
    history.end().await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, "/admin/pools").await;
    assert!(
        page.text(".pool-row")
            .await
            .contains("The inversion failed: its own adapter recognises 62.5 % of the images.")
    );
    open(&page, &format!("/admin/pools/{}", pool.id)).await;
    assert!(
        page.text("#verdicts")
            .await
            .starts_with("The inversion failed")
    );
    let second = page.text("#classes tr:nth-child(2)").await;
    assert_eq!(second, "b 3 25 % 75 % failed");
    assert!(page.text("#privacy").await.contains("kept until somebody"));
    // The pool's backbone is not the one that answers here, so nothing can be measured.
    page.click("#measure").await;
    page.wait_for(
        "document.getElementById('quality-failure').textContent.includes('made for the backbone')",
    )
    .await;
    page.wait_for(&format!(
        "[...document.querySelectorAll('.tile img')].filter((image) => image.naturalWidth === {SIDE}).length === 6"
    ))
    .await;

    page.click("#kept").await;
    page.wait_for(&count(".tile canvas:not([hidden])", 6)).await;
    let clear = page
        .value(
            "[...document.querySelectorAll('.tile canvas')].map((canvas) =>
              canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter((value, index) => index % 4 === 3 && value === 0).length)",
        )
        .await;
    assert_eq!(clear, json!(vec![KEPT; 6]));
    page.click("#images .image-class:nth-child(2) .tile").await;
    page.wait_for("document.getElementById('viewer').open")
        .await;
    assert_eq!(page.text("#viewer-words").await, "b, image 1 of 3");
    page.click("#viewer-next").await;
    assert_eq!(page.text("#viewer-words").await, "b, image 2 of 3");
    page.click("#viewer-close").await;
    page.wait_for("document.activeElement.matches('.tile')")
        .await;

    page.click("#delete").await;
    assert!(page.text("#confirm").await.contains("cannot be undone"));
    page.click("#confirm-yes").await;
    page.wait_for("location.pathname === '/admin/pools'").await;
    page.wait_for("!document.getElementById('empty').hidden")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_jobs_and_pools_are_accessible_and_fit_a_small_phone() {
    let folder = tempfile::tempdir().unwrap();
    let history = History::begin(&folder).await;
    let done = history.curves("Tune letters").await;
    let failed = history
        .failed("Tune a-name-that-is-so-long-that-it-has-to-be-broken-somewhere")
        .await;
    history.tries_again_later("Images of letters").await;
    let pool = history.pool(0).await;
    for seed in 1..4 {
        history.pool(seed).await;
    }
    history.end().await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    let one_job = |job: &JobRecord| format!("/admin/jobs/{}", job.id);
    let paths = [
        "/admin/jobs",
        &one_job(&done),
        &one_job(&failed),
        "/admin/pools",
        &format!("/admin/pools/{}", pool.id),
    ];
    // What is there once a pool was measured, too; this one cannot be.
    let unfold = format!(
        "{} document.getElementById('quality')?.removeAttribute('hidden');",
        accessibility::UNFOLD
    );
    accessibility::assert_on_a_small_phone(&page, &paths, &unfold).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_says_what_is_missing_before_anything_is_sent() {
    let Some(page) = Session::start().await else {
        return;
    };
    open(&page, "/admin/jobs#tune").await;
    page.wait_for("document.getElementById('tune').open").await;
    page.client
        .execute(
            "document.getElementById('tune-name').value = 'letters';",
            vec![],
        )
        .await
        .unwrap();
    page.click("#tune-start").await;
    page.wait_for(&says("tune-failure", "No pictures are chosen yet"))
        .await;
    let root = page.folder.path().join("one class");
    std::fs::create_dir(&root).unwrap();
    std::fs::copy(
        super::session::example("fish/goldfish.jpg"),
        root.join("fish.jpg"),
    )
    .unwrap();
    page.pick("#tune-folder", &[root]).await;
    page.wait_for(&says("tune-failure", "its own sub-folder"))
        .await;
    open(&page, "/admin/jobs#invert").await;
    page.wait_for("!document.getElementById('invert-none').hidden")
        .await;
    assert_eq!(
        page.value("document.getElementById('invert-start').disabled")
            .await,
        true
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_that_fit_are_chosen_costed_and_recycled_on_one_page() {
    let Home(folder) = two_adapters();
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, "/admin/recycle").await;
    assert_eq!(
        page.value(&says("runs-empty", "Nothing was recycled yet"))
            .await,
        true
    );
    page.click("#recycle-start").await;
    let name = page.client.find("#recycle-name").await.unwrap();
    name.send_keys("both").await.unwrap();
    page.click("#recycle-start").await;
    page.wait_for(&says("recycle-failure", "No adapter is chosen yet"))
        .await;
    page.click("#recycle-all").await;
    page.wait_for(&says(
        "recycle-fit",
        "2 adapters with 4 classes in all, on tiny",
    ))
    .await;
    for (id, value) in [
        ("recycle-episodes", "12"),
        ("recycle-per-class", "4"),
        ("recycle-steps", "8"),
    ] {
        choose(&page, id, value).await;
    }
    page.click("#recycle-cost").await;
    wait_long(&page, &says("recycle-estimate", "of training")).await;
    let estimate = page.text("#recycle-estimate").await;
    assert!(estimate.contains("16 images of 2 adapters"), "{estimate}");
    page.click("#recycle-start").await;
    page.wait_for(&says("started", "has begun")).await;
    wait_long(
        &page,
        "document.querySelector('#runs [data-part=result]')?.textContent === 'Open both:1'",
    )
    .await;
    page.click("#started a").await;
    page.wait_for(&says("state", "Done")).await;
    page.wait_for("document.getElementById('recipe-file').download === 'both.recipe.json'")
        .await;
    page.wait_for("document.querySelectorAll('.curve').length > 0")
        .await;
    page.wait_for(&count("#learned a[href^=\"/admin/pools/\"]", 2))
        .await;
    let learned = page.text("#learned").await;
    for row in ["first:1 8 ", "second:1 8 "] {
        assert!(learned.contains(row), "{learned}");
    }
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}
