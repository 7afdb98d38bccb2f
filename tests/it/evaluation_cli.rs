//! `evaluate` with all its methods and `pool quality`, through the real program on a tiny backbone.

use crate::making_cli::Home;
use crate::recycle_cli::{json as printed, killed_in};
use crate::test_app::{TestApp, form_request};
use axum::body::Body;
use axum::http::Request;
use lora_recycle::app::registry::Registry;
use lora_recycle::jobs::{Jobs, RunnerOptions, Services, product_kinds};
use model::adapter::{NamedFile, write_zip};
use serde_json::{Value, json};
use std::path::Path;
use store::Access;

const ADAPTERS: [&str; 3] = ["a", "b", "c"];

/// Three adapters of the same two classes.
fn home_with_adapters() -> Home {
    let home = Home::new();
    let pictures = home.text("pictures");
    for (seed, name) in ["1", "2", "3"].iter().zip(ADAPTERS) {
        let mut command = vec!["tune", &pictures, "--name", name, "--backbone", "tiny"];
        command.extend(["--batch-size", "8", "--steps", "12", "--seed", seed]);
        home.succeeds(&command);
    }
    home
}

fn invert_all(home: &Home) {
    let mut command = vec!["invert"];
    command.extend(ADAPTERS);
    command.extend([
        "--recipe",
        "fast",
        "--images-per-class",
        "3",
        "--steps",
        "8",
    ]);
    home.succeeds(&command);
}

fn evaluate<'a>(pictures: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let command = ["evaluate", pictures, "--backbone", "tiny", "--way", "2"];
    let tasks = ["--queries", "3", "--tasks", "10"];
    [&command[..], &tasks, more].concat()
}

#[test]
fn all_methods_run_on_the_same_tasks_and_repeat_with_their_seed() {
    let home = home_with_adapters();
    let pictures = home.text("pictures");
    let all = "adapter,bare,average,sum,ties,knots,tsv,core-space,compress-then-merge,\
        iso-c,iso-cts,tsv-iso,wudi,pico,pico+knots,linear,tune,pixels";
    let options = [
        "--methods",
        all,
        "--adapter",
        "a",
        "--tune-tasks",
        "2",
        "--tune-steps",
        "3",
        "--json",
        "--pool",
        "a",
        "b",
        "c",
    ];
    let command = evaluate(&pictures, &options);
    home.fails(&command, "a:1 has no synthetic images to choose a scale on");
    invert_all(&home);
    let report: Value = serde_json::from_str(&home.succeeds(&command)).unwrap();
    assert_eq!(report["pool"], json!(["a:1", "b:1", "c:1"]));
    assert_eq!(report["against"], "bare");
    let methods = report["methods"].as_array().unwrap();
    let names: Vec<&str> = methods
        .iter()
        .map(|own| own["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.join(","), all);
    for method in methods {
        let name = method["name"].as_str().unwrap();
        let accuracy = method["accuracy"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy), "{method}");
        assert_eq!(method["difference"].is_null(), name == "bare", "{method}");
        assert_eq!(
            method["tasks"],
            if name == "tune" { 2 } else { 10 },
            "{method}"
        );
    }
    let of = |name: &str| &methods[names.iter().position(|own| *own == name).unwrap()];
    assert_eq!(of("adapter")["adapter"], "a:1");
    let sum = &of("sum")["merge"];
    assert_eq!(sum["scale_from"], "synthetic_tasks");
    assert_eq!(sum["tried"].as_array().map(Vec::len), Some(10));
    // Three adapters of rank 4.
    for name in ["average", "sum", "tsv"] {
        assert_eq!(of(name)["merge"]["rank"], 12, "{name}");
    }
    // TIES may take a direction away, and directions that are only rounding do not count.
    for name in [
        "knots",
        "core-space",
        "iso-c",
        "iso-cts",
        "tsv-iso",
        "wudi",
        "pico",
    ] {
        assert!(of(name)["merge"]["rank"].as_u64().unwrap() <= 12, "{name}");
    }
    assert_eq!(of("compress-then-merge")["merge"]["rank"], 4);
    assert_eq!(of("tune")["tuning"]["learning_rate"], 0.001);
    let again: Value = serde_json::from_str(&home.succeeds(&command)).unwrap();
    assert_eq!(again, report);
}

#[test]
fn every_merge_of_one_adapter_classifies_as_that_adapter() {
    let home = home_with_adapters();
    let pictures = home.text("pictures");
    // Two of them by the names of an earlier version.
    let methods = "adapter,average,sum:1,ties,knots,tsv,core,ctm,iso-c,iso-cts,tsv-iso,wudi,pico";
    let options = [
        "--methods",
        methods,
        "--adapter",
        "b",
        "--pool",
        "b",
        "--csv",
    ];
    let table = home.succeeds(&evaluate(&pictures, &options));
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(
        rows[0][..5],
        ["method", "adapter", "tasks", "accuracy", "ci95"]
    );
    assert_eq!(rows.len(), 14);
    for row in &rows[2..] {
        assert_eq!(row[3..5], rows[1][3..5], "{row:?}");
        assert_eq!((row[5], row[6], row[7]), ("0", "0", "adapter"), "{row:?}");
    }
}

#[test]
fn several_numbers_of_examples_give_what_each_gives_alone() {
    let home = home_with_adapters();
    let pictures = home.text("pictures");
    let of = |shot: &str, form: &str| {
        let pool = ["--adapter", "a", "--pool", "a", "b"];
        let methods = ["--methods", "adapter,bare,tsv,linear"];
        let options = [&["--shot", shot, form], &methods[..], &pool].concat();
        home.succeeds(&evaluate(&pictures, &options))
    };
    let json = |shot: &str| serde_json::from_str::<Value>(&of(shot, "--json")).unwrap();
    let (one, three) = (json("1"), json("3"));
    assert_eq!((&one["shot"], &three["shot"]), (&json!(1), &json!(3)));
    assert_eq!(json("3,1"), json!([three, one]));
    let shots: Vec<String> = of("1,3", "--csv")
        .lines()
        .map(|row| row.rsplit(',').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        shots,
        ["shot", "1", "1", "1", "1", "3", "3", "3", "3"].map(str::to_owned)
    );
}

#[test]
fn several_scales_of_one_merge_give_what_each_gives_alone() {
    let home = home_with_adapters();
    let pictures = home.text("pictures");
    let of = |methods: &str| {
        let options = ["--methods", methods, "--pool", "a", "b", "--json"];
        let answer = home.succeeds(&evaluate(&pictures, &options));
        let report: Value = serde_json::from_str(&answer).unwrap();
        let lines = report["methods"].as_array().unwrap().iter();
        lines
            .map(|line| (line["accuracy"].clone(), line["merge"].clone()))
            .collect::<Vec<_>>()
    };
    let together = of("tsv:0.5,sum:0.5,tsv:2");
    assert_eq!(together[0].1["scale"], json!(0.5));
    assert_eq!(together[2].1["scale"], json!(2.0));
    let alone = ["tsv:0.5", "sum:0.5", "tsv:2"].map(|method| of(method).remove(0));
    assert_eq!(together, alone);
}

#[test]
fn what_contradicts_itself_is_refused_before_any_picture_is_read() {
    let home = Home::new();
    let nowhere = home.text("nowhere");
    for (options, words) in [
        (
            &["--methods", "tsv"][..],
            "tsv merges adapters; name them with --pool",
        ),
        (&["--methods", "adapter"], "name it with --adapter"),
        (&["--methods", "bare,bare"], "the method bare appears twice"),
        (&["--against", "pixels"], "which is not among the methods"),
        (&["--methods", "mean"], "there is no method \"mean\""),
        (&["--methods", "bare:2"], "bare has no scale"),
        (
            &["--methods", "peft-ties", "--pool", "a"],
            "needs a density",
        ),
        (&["--csv", "--json"], "exclude each other"),
        (&["--leave-one-out", "--pool", "a"], "takes at least two"),
        (&["--tasks", "0"], "--tasks must be at least 1"),
    ] {
        let command: Vec<&str> = ["evaluate", &nowhere]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        home.fails(&command, words);
    }
    let pictures = home.text("pictures");
    let command = evaluate(&pictures, &["--adapter", "nobody"]);
    home.fails(&command, "nobody");
}

#[test]
fn pools_are_measured_beside_real_pictures_and_say_what_each_adapter_adds() {
    let home = home_with_adapters();
    invert_all(&home);
    let pictures = home.text("pictures");
    let ids: Vec<String> = home
        .pools()
        .iter()
        .map(|pool| pool["id"].as_str().unwrap().to_owned())
        .collect();
    let mut command = vec!["pool", "quality", "--backbone", "tiny", "--json"];
    command.extend(ids.iter().map(String::as_str));
    command.extend([
        "--real",
        &pictures,
        "--validation",
        &pictures,
        "--scale",
        "0.5",
    ]);
    command.extend(["--way", "2", "--queries", "3", "--tasks", "6"]);
    let measured: Value = serde_json::from_str(&home.succeeds(&command)).unwrap();
    let pools = measured["pools"].as_array().unwrap();
    assert_eq!(pools.len(), 3);
    for pool in pools {
        assert_eq!(pool["images"], 6);
        assert!(pool["diversity"].as_f64().unwrap() > 0.0, "{pool}");
        assert_eq!(pool["classes"][0]["images"], 3);
        assert_eq!(pool["real"]["real_images"], 12);
        assert!(pool["real"]["frechet_distance"].as_f64().unwrap() > 0.0);
        let similar = pool["similar"].as_array().unwrap();
        assert_eq!(similar.len(), 2);
        assert_eq!(similar[0]["shared_classes"], json!(["blue", "red"]));
        let likeness = [0, 1].map(|other: usize| similar[other]["similarity"].as_f64().unwrap());
        assert!(likeness[0] >= likeness[1] && likeness[0] <= 1.0, "{pool}");
    }
    let left_out = &measured["leave_one_out"];
    assert_eq!(left_out["merge"]["scale"], 0.5);
    assert_eq!(left_out["merge"]["rank"], 12);
    for adapter in left_out["adapters"].as_array().unwrap() {
        let with = left_out["accuracy"].as_f64().unwrap();
        let effect = adapter["effect"]["mean"].as_f64().unwrap();
        let without = adapter["accuracy_without"].as_f64().unwrap();
        assert!((with - without - effect).abs() < 1e-12, "{adapter}");
    }
    let words = home.succeeds(&["pool", "quality", &ids[0], "--backbone", "tiny"]);
    for part in ["teacher", "diversity", "classes in common: blue, red"] {
        assert!(words.contains(part), "{words}");
    }
    home.fails(
        &["pool", "quality", &ids[0]],
        "was made for the backbone tiny",
    );
}

/// `pictures` as the zip that a form carries.
fn zip_of(pictures: &str) -> Vec<u8> {
    let mut files = Vec::new();
    for class in std::fs::read_dir(pictures).unwrap() {
        let class = class.unwrap().path();
        for picture in std::fs::read_dir(&class).unwrap() {
            let picture = picture.unwrap().path();
            let path = picture.strip_prefix(pictures).unwrap().to_str().unwrap();
            files.push(NamedFile::new(path, std::fs::read(&picture).unwrap()));
        }
    }
    write_zip(&files).unwrap()
}

/// The program's parts over the data folder of `home`.
async fn open(home: &Home) -> (TestApp, Jobs) {
    let folder = home.text("data");
    let registry = Registry::open(Path::new(&folder), Access::Exclusive)
        .await
        .unwrap();
    let jobs = Jobs::new(
        Services::new(registry.clone(), None),
        product_kinds(),
        RunnerOptions::default(),
    );
    (TestApp::with_jobs(registry, jobs.clone()), jobs)
}

/// Asks for a comparison of `adapters` and merges of all on the pictures of `home`.
fn ask(home: &Home, adapters: Value, recipe: &Value) -> Request<Body> {
    let (adapters, recipe) = (adapters.to_string(), recipe.to_string());
    let pool = json!(ADAPTERS).to_string();
    let parts: [(&str, &str, &[u8]); 5] = [
        ("kind", "", b"evaluate"),
        ("adapters", "", adapters.as_bytes()),
        ("pool", "", pool.as_bytes()),
        ("recipe", "", recipe.as_bytes()),
        ("archive", "pictures.zip", &zip_of(&home.text("pictures"))),
    ];
    form_request("/api/v1/jobs", &parts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_is_killed_goes_on_behind_the_methods_that_it_has_finished() {
    let home = tokio::task::spawn_blocking(home_with_adapters)
        .await
        .unwrap();
    let recipe = json!({
        "methods": ["bare", "average", "tune", "pixels"], "way": 2, "queries": 3, "tasks": 6,
        "tune_tasks": 6, "tune_steps": 40,
    });
    let (app, jobs) = open(&home).await;
    let answer = app.send(ask(&home, json!([]), &recipe)).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    jobs.store().clone().close().await;
    drop((app, jobs));
    let (log, job, command) = tokio::task::spawn_blocking(move || {
        killed_in(&home, &["jobs", "run"], "tuning on each task");
        let log = home.tells(&["jobs", "run"]);
        let job = printed(&home, &["jobs", "show", &id, "--json"]);
        let methods = ["--methods", "bare,average,tune,pixels"];
        let tasks = [
            "evaluate",
            &home.text("pictures"),
            "--way",
            "2",
            "--queries",
            "3",
        ];
        let tuned = ["--tasks", "6", "--tune-tasks", "6", "--tune-steps", "40"];
        let native = [
            "--backbone",
            "tiny",
            "--encoder",
            "native",
            "--json",
            "--pool",
            "a",
            "b",
            "c",
        ];
        let command = printed(&home, &[&tasks[..], &methods, &tuned, &native].concat());
        (log, job, command)
    })
    .await
    .unwrap();
    assert_eq!(job["result"]["evaluation"], command);
    assert!(
        log.contains("resuming after the 2 finished methods"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_compares_as_the_command_does_with_differences_of_all_to_all() {
    let home = tokio::task::spawn_blocking(|| {
        let home = home_with_adapters();
        invert_all(&home);
        home
    });
    let home = home.await.unwrap();
    let pictures = home.text("pictures");
    let methods = ["adapter", "bare", "sum", "tsv:0.5", "pixels"];
    let (app, jobs) = open(&home).await;
    let recipe =
        json!({"methods": methods, "way": 2, "queries": 3, "tasks": 10, "leave_one_out": true});
    for (adapters, recipe, words) in [
        (json!(["nobody"]), recipe.clone(), "nobody"),
        (json!(["a"]), json!({"methods": ["mean"]}), "no method"),
        (json!([]), recipe.clone(), "needs an adapter"),
        (json!(["a"]), json!({"tasks": 0}), "at least 1 task"),
        (json!(["a"]), json!({"way": 7}), "7-way tasks need 7"),
        (json!(["a", "a:1"]), recipe.clone(), "named twice"),
    ] {
        let answer = app.send(ask(&home, adapters, &recipe)).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404 | 422), "{words}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{words}: {detail}");
    }
    let answer = app.send(ask(&home, json!(["a", "b"]), &recipe)).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let job = answer.json();
    assert_eq!(
        job["title"],
        "Compare 2 adapters and merges of 3 on 2 classes, 2-way 1-shot"
    );
    let id = job["id"].as_str().unwrap();
    jobs.run_only(&[id.parse().unwrap()]).await;
    let job = app.get(&format!("/api/v1/jobs/{id}")).await.json();
    assert_eq!(job["state"], "succeeded", "{}", job["error"]);
    let report = job["result"]["evaluation"].clone();
    jobs.store().clone().close().await;
    drop((app, jobs));

    let own = report["methods"].as_array().unwrap();
    assert_eq!((own.len(), own[1]["adapter"].as_str()), (6, Some("b:1")));
    let pairwise = report["pairwise"].as_array().unwrap();
    for (i, row) in pairwise.iter().enumerate() {
        for (j, pair) in row.as_array().unwrap().iter().enumerate() {
            let apart = own[i]["accuracy"].as_f64().unwrap() - own[j]["accuracy"].as_f64().unwrap();
            match pair["mean"].as_f64() {
                None => assert_eq!(i, j),
                Some(mean) => assert!((mean - apart).abs() < 1e-9, "{i} {j}: {pair}"),
            }
        }
    }
    let command = tokio::task::spawn_blocking(move || {
        let methods = methods.join(",");
        let options = ["--methods", &methods, "--adapter", "a", "--adapter", "b"];
        let native = [
            "--encoder",
            "native",
            "--json",
            "--leave-one-out",
            "--pool",
            "a",
            "b",
            "c",
        ];
        let more = [options.as_slice(), &native].concat();
        serde_json::from_str::<Value>(&home.succeeds(&evaluate(&pictures, &more))).unwrap()
    });
    assert_eq!(command.await.unwrap(), report);
    let left_out = &report["leave_one_out"];
    assert_eq!(left_out["merge"], own[3]["merge"]);
    assert_eq!(left_out["accuracy"], own[3]["accuracy"]);
    assert_eq!(left_out["adapters"].as_array().map(Vec::len), Some(3));
}
