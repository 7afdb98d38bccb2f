//! The pages that compare adapters and publish one of them.

use super::accessibility;
use super::jobs::{History, READY, choose, count, open, says};
use super::jobs_live::wait_long;
use super::session::Session;
use crate::making_cli::Home;
use crate::recycle_cli::two_adapters;
use serde_json::{Value, json};
use store::Finish;
use tempfile::TempDir;
use uuid::Uuid;

/// `first:1` is better than all others; of `second:1` and the bare model nobody knows.
const METHODS: [(&str, Option<&str>, f64); 4] = [
    ("adapter", Some("first:1"), 0.62),
    ("adapter", Some("second:1"), 0.553),
    ("sum", None, 0.58),
    ("bare", None, 0.55),
];

/// A report on the first `count` of [`METHODS`].
fn report(count: usize) -> Value {
    let difference = |own: usize, other: usize| match own == other {
        true => Value::Null,
        false => json!({"mean": METHODS[own].2 - METHODS[other].2, "ci95": 0.009}),
    };
    let methods = (0..count).map(|own| {
        let (name, adapter, accuracy) = METHODS[own];
        let mut method = json!({
            "name": name, "adapter": adapter, "accuracy": accuracy, "ci95": 0.015, "tasks": 200,
            "difference": difference(own, count - 1),
        });
        if name == "sum" {
            method["merge"] = json!({
                "scale": 0.33, "scale_from": "synthetic_tasks", "rank": 8,
                "tried": [{"scale": 0.1, "accuracy": 0.4}, {"scale": 0.33, "accuracy": 0.5}],
            });
        }
        method
    });
    let row = |own: usize| -> Vec<Value> {
        let others = (0..count).map(|other| difference(own, other));
        others.collect()
    };
    let pairwise = (0..count).map(row);
    json!({
        "way": 5, "shot": 1, "queries": 15, "tasks": 200, "seed": 0, "distance": "euclidean", "classes": 12, "images": 240,
        "backbone": "tiny", "backbone_digest": "0".repeat(64), "pool": ["first:1", "second:1"],
        "against": METHODS[count - 1].0,
        "methods": methods.collect::<Vec<_>>(), "pairwise": pairwise.collect::<Vec<_>>(),
        "leave_one_out": {
            "accuracy": 0.58, "ci95": 0.015, "tasks": 200, "merge": {"scale": 0.33, "scale_from": "synthetic_tasks", "rank": 8},
            "adapters": [
                {"adapter": "first:1", "accuracy_without": 0.6, "effect": {"mean": -0.02, "ci95": 0.01}},
                {"adapter": "second:1", "accuracy_without": 0.5, "effect": {"mean": 0.08, "ci95": 0.01}},
            ],
        },
    })
}

/// Writes a job that has found `report`.
async fn compared(folder: &TempDir, report: Value) -> Uuid {
    let history = History::begin(folder).await;
    let methods = report["methods"].as_array().map_or(0, Vec::len);
    let title = format!("Compare {methods} methods on 12 classes, 5-way 1-shot");
    let job = history.job("evaluate", &title, &[]).await;
    history.claim(job.id).await;
    let result = json!({ "evaluation": report });
    history.finish(job.id, Finish::Succeeded(result)).await;
    history.end().await;
    job.id
}

/// The cells of the table, but for notes and buttons.
async fn table(page: &Session) -> Value {
    page.value(
        "[...document.querySelectorAll('#methods tr')].map((row) =>
            ['name', 'accuracy', 'difference', 'verdict'].map((part) => row.querySelector(`[data-part=${part}]`).textContent))",
    )
    .await
}

/// Chooses to publish the adapter in a row of the table, and goes on to the first question.
async fn publish(page: &Session, row: usize, choice: &str) {
    page.click(&format!("#methods tr:nth-child({row}) [data-part=publish]"))
        .await;
    page.wait_for("document.getElementById('publish').open")
        .await;
    page.click(choice).await;
    page.click("#publish-yes").await;
}

/// The question that is asked; `part` stands in it.
async fn question(page: &Session, part: &str) -> String {
    page.wait_for(&format!(
        "document.getElementById('confirm').open && {}",
        says("confirm", part)
    ))
    .await;
    page.text("#confirm").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_shows_the_best_first_and_differences_to_what_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let id = compared(&folder, report(4)).await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, "/admin/compare").await;
    assert!(
        page.text("#runs [data-part=facts]")
            .await
            .ends_with("best: first:1 with 62.0 %, bare model 55.0 %")
    );
    page.click("#runs [data-part=result]").await;
    page.wait_for(&format!("location.pathname === '/admin/compare/{id}'"))
        .await;
    page.wait_for(&count("#methods tr", 4)).await;
    assert_eq!(
        table(&page).await,
        json!([
            ["first:1", "62.0 ± 1.5 %", "+7.0 ± 0.9 points", "better"],
            [
                "Merge: scaled sum",
                "58.0 ± 1.5 %",
                "+3.0 ± 0.9 points",
                "better"
            ],
            [
                "second:1",
                "55.3 ± 1.5 %",
                "+0.3 ± 0.9 points",
                "no sure difference"
            ],
            ["Bare model", "55.0 ± 1.5 %", "–", "the one compared with"],
        ])
    );
    let notes = page
        .text("#methods tr:nth-child(2) [data-part=remarks]")
        .await;
    assert!(
        notes.starts_with("scale 0.33, the best on synthetic images; rank 8"),
        "{notes}"
    );
    choose(&page, "reference", "0").await;
    let differences = table(&page).await;
    assert_eq!(differences[0][3], "the one compared with");
    assert_eq!(differences[1][2], "−4.0 ± 0.9 points");
    assert_eq!(differences[1][3], "worse");

    page.wait_for(&count("#chart .chart-bar", 4)).await;
    let drawn = page
        .value(
            "(() => { const all = (name) => [...document.querySelectorAll(`#chart .${name}`)];
              const widths = all('chart-bar').map((bar) => Number(bar.getAttribute('width')));
              return [all('chart-name')[0].textContent, all('chart-value')[0].textContent, widths.every((width, index) => index === 0 || width < widths[index - 1])]; })()",
        )
        .await;
    assert_eq!(drawn, json!(["first:1", "62.0 ± 1.5 %", true]));
    let spoken = page
        .value("document.getElementById('chart').getAttribute('aria-label')")
        .await;
    let spoken = spoken.as_str().unwrap();
    assert!(spoken.ends_with("Guessing: 20.0 %."), "{spoken}");
    let files = page
        .value(
            "['csv', 'json'].map((id) => document.getElementById(id).download.split('.').at(-1))",
        )
        .await;
    assert_eq!(files, json!(["csv", "json"]));

    let adds = page
        .value("[...document.querySelectorAll('#left-out tr')].map((row) => [...row.children].map((cell) => cell.textContent))")
        .await;
    assert_eq!(
        adds,
        json!([
            ["second:1", "50.0 %", "+8.0 ± 1.0 points", "it helps"],
            ["first:1", "60.0 %", "−2.0 ± 1.0 points", "it harms"],
        ])
    );

    open(&page, &format!("/admin/jobs/{id}")).await;
    assert_eq!(page.text("#result").await, "See the comparison");
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_of_an_earlier_version_is_shown_with_the_names_of_today() {
    let folder = tempfile::tempdir().unwrap();
    let mut then = report(4);
    let merge = json!({
        "factor": 1.4, "factor_from": "given", "rank": 8, "tried": [{"factor": 1.4, "accuracy": 0.5}],
    });
    then["methods"][2]["name"] = "ctm".into();
    then["methods"][2]["merge"] = merge.clone();
    then["leave_one_out"]["merge"] = merge;
    let id = compared(&folder, then).await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, &format!("/admin/compare/{id}")).await;
    page.wait_for(&count("#methods tr", 4)).await;
    assert_eq!(table(&page).await[1][0], "Merge: Compress-then-Merge × 1.4");
    let notes = page
        .text("#methods tr:nth-child(2) [data-part=remarks]")
        .await;
    assert!(notes.starts_with("scale 1.4, given; rank 8"), "{notes}");
    let words = page.text("#left-out-words").await;
    assert!(words.contains("× 1.4"), "{words}");
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_what_is_better_asks_once_and_moves_the_alias() {
    let Home(folder) = two_adapters();
    let id = compared(&folder, report(4)).await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, &format!("/admin/compare/{id}")).await;
    publish(&page, 1, "#publish-alias").await;
    let asked = question(&page, "Publish first:1 as first@champion?").await;
    for part in [
        "It points at nothing now and will point at first:1.",
        "On these tasks it is better than the bare model: +7.0 ± 0.9 points.",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    page.click("#confirm-yes").await;
    page.wait_for(&says("published", "Now first@champion points at first:1."))
        .await;
    publish(&page, 1, "#publish-alias").await;
    page.wait_for(&says(
        "published",
        "first@champion points at first:1 already",
    ))
    .await;
    page.click("#published a").await;
    page.wait_for("document.getElementById('badges')?.textContent.includes('@champion')")
        .await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_what_is_not_better_asks_twice_and_says_why() {
    let Home(folder) = two_adapters();
    let id = compared(&folder, report(4)).await;
    let without_bare = compared(&folder, report(2)).await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, &format!("/admin/compare/{id}")).await;
    publish(&page, 3, "#publish-default").await;
    let asked = question(&page, "Publish second:1 as the default of tiny?").await;
    for part in [
        "It moves from the bare model to second:1.",
        "On these tasks it is not better than the bare model: +0.3 ± 0.9 points.",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    page.click("#confirm-yes").await;
    question(&page, "Publish it anyway?").await;
    page.click("#confirm-no").await;
    page.wait_for("!document.getElementById('confirm').open")
        .await;
    assert_eq!(
        page.value("document.getElementById('published').hidden")
            .await,
        true
    );

    publish(&page, 3, "#publish-default").await;
    question(&page, "Publish second:1").await;
    page.click("#confirm-yes").await;
    question(&page, "Publish it anyway?").await;
    page.click("#confirm-yes").await;
    page.wait_for(&says(
        "published",
        "Now the default of tiny points at second:1.",
    ))
    .await;

    // What is published now was compared, too.
    publish(&page, 1, "#publish-default").await;
    let asked = question(&page, "Publish first:1 as the default of tiny?").await;
    for part in [
        "It moves from second:1 to first:1.",
        "On these tasks it is better than second:1: +6.7 ± 0.9 points.",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    page.click("#confirm-yes").await;
    page.wait_for(&says(
        "published",
        "Now the default of tiny points at first:1.",
    ))
    .await;

    open(&page, &format!("/admin/compare/{without_bare}")).await;
    publish(&page, 2, "#publish-alias").await;
    let asked = question(&page, "Publish second:1 as second@champion?").await;
    let why =
        "The bare model was not among what was compared, so nothing is known of which is better.";
    assert!(asked.contains(why), "{asked}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_adapters_are_compared_on_a_folder_from_the_form_to_the_table() {
    let Home(folder) = two_adapters();
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, "/").await;
    page.click("[data-room=adapters]").await;
    page.wait_for("document.querySelector(\"nav a[href='/admin/compare']\")")
        .await;
    page.click("nav a[href='/admin/compare']").await;
    page.wait_for("document.getElementById('compare-start')")
        .await;
    page.wait_for(READY).await;
    page.click("#compare-start").await;
    page.wait_for(&says("compare-failure", "No pictures are chosen yet"))
        .await;
    let pictures = page.folder.path().join("pictures");
    page.pick("#compare-folder", &[pictures]).await;
    page.click("#compare-all").await;
    page.wait_for(&says("compare-fit", "2 adapters to compare, on tiny"))
        .await;
    page.click("#compare-start").await;
    page.wait_for(&says(
        "compare-failure",
        "A task takes 16 pictures from each of 5 classes",
    ))
    .await;
    open_details(&page).await;
    page.click("#compare-leave-out").await;
    page.click("#compare-start").await;
    page.wait_for(&says(
        "compare-failure",
        "needs two or more that are merged",
    ))
    .await;
    page.click("#compare-leave-out").await;
    page.click("#compare-average").await;
    page.click("#compare-start").await;
    page.wait_for(&says("compare-failure", "No adapters to merge are chosen"))
        .await;
    page.click("#compare-pool-all").await;
    for (field, value) in [("way", "2"), ("queries", "3"), ("tasks", "4")] {
        choose(&page, &format!("compare-{field}"), value).await;
    }
    page.click("#compare-start").await;
    page.wait_for(&says("started", "has begun")).await;
    wait_long(
        &page,
        "document.querySelector('#runs [data-part=result]')?.textContent === 'See the comparison'",
    )
    .await;
    page.click("#started a").await;
    page.wait_for(&count("#methods tr", 4)).await;
    let mut names: Vec<String> = serde_json::from_value(
        page.value("[...document.querySelectorAll('#methods [data-part=name]')].map((name) => name.textContent)")
            .await,
    )
    .unwrap();
    names.sort();
    assert_eq!(
        names,
        ["Bare model", "Merge: average", "first:1", "second:1"]
    );
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recycled_adapter_is_measured_on_pictures_that_are_sent_along() {
    let Home(folder) = two_adapters();
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    open(&page, "/admin/recycle").await;
    open_details(&page).await;
    let pictures = page.folder.path().join("pictures");
    page.pick("#recycle-folder", &[pictures]).await;
    page.click("#recycle-all").await;
    let name = page.client.find("#recycle-name").await.unwrap();
    name.send_keys("both").await.unwrap();
    for (field, value) in [
        ("episodes", "12"),
        ("per-class", "4"),
        ("steps", "8"),
        ("task-way", "2"),
        ("task-queries", "3"),
        ("task-count", "4"),
    ] {
        choose(&page, &format!("recycle-{field}"), value).await;
    }
    page.click("#recycle-start").await;
    page.wait_for(&says("started", "has begun")).await;
    wait_long(
        &page,
        "document.querySelector('#runs [data-part=comparison]')?.textContent === 'See the comparison'",
    )
    .await;
    page.click("#started a").await;
    page.wait_for(&says("state", "Done")).await;
    page.click("#comparison").await;
    page.wait_for("location.pathname.startsWith('/admin/compare/')")
        .await;
    page.wait_for(
        "[...document.querySelectorAll('#methods [data-part=name]')].some((name) => name.textContent === 'both:1')",
    )
    .await;
    assert_eq!(page.console_complaints().await, Vec::<String>::new());
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_compare_are_accessible_and_fit_a_small_phone() {
    let Home(folder) = two_adapters();
    let id = compared(&folder, report(4)).await;
    let Some(page) = Session::start_with(folder).await else {
        return;
    };
    let comparison = format!("/admin/compare/{id}");
    let paths = ["/admin/compare", &comparison, "/admin/recycle"];
    accessibility::assert_on_a_small_phone(&page, &paths, accessibility::UNFOLD).await;
    let publish = "document.querySelector('[data-part=publish]').click();";
    accessibility::assert_on_a_small_phone(&page, &[&comparison], publish).await;
    assert_eq!(
        page.value("document.getElementById('publish').open").await,
        true
    );
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_does_not_exist_leads_back_to_the_list() {
    let Some(page) = Session::start().await else {
        return;
    };
    open(&page, &format!("/admin/compare/{}", Uuid::nil())).await;
    page.wait_for("!document.getElementById('unknown').hidden")
        .await;
    let told = page.text("#unknown").await;
    assert!(
        told.starts_with("There is no comparison at this address"),
        "{told}"
    );
    page.click("#unknown a").await;
    page.wait_for("location.pathname === '/admin/compare'")
        .await;
    page.wait_for(&says("runs-empty", "Nothing was compared yet"))
        .await;
    page.close().await;
}

/// Everything that is folded.
async fn open_details(page: &Session) {
    page.client
        .execute(
            "for (const details of document.querySelectorAll('details')) details.open = true;",
            vec![],
        )
        .await
        .unwrap();
}
