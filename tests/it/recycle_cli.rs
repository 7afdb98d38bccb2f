//! `recycle` through the real program on a tiny backbone: from tuned adapters to a meta-LoRA, killed in each phase, and again
//! from its recipe file.

use crate::making_cli::Home;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Two adapters of the same pictures.
pub fn two_adapters() -> Home {
    let home = Home::new();
    for (name, seed) in [("first", "1"), ("second", "2")] {
        let pictures = home.text("pictures");
        home.succeeds(&[
            "tune",
            &pictures,
            "--name",
            name,
            "--seed",
            seed,
            "--backbone",
            "tiny",
            "--steps",
            "20",
            "--batch-size",
            "8",
        ]);
    }
    home
}

fn recycle<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let always = [
        "recycle",
        "first",
        "second",
        "--name",
        "meta",
        "--inversion",
        "fast",
        "--way",
        "2",
        "--images-per-class",
        "4",
    ];
    always.into_iter().chain(more.iter().copied()).collect()
}

/// A few steps only.
fn quickly<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let quick = ["--inversion-steps", "30", "--episodes", "60"];
    recycle(&[quick.as_slice(), more].concat())
}

pub fn json(home: &Home, arguments: &[&str]) -> Value {
    serde_json::from_str(&home.succeeds(arguments)).unwrap()
}

fn digest(home: &Home, adapter: &str) -> String {
    let shown = json(home, &["adapter", "show", adapter, "--json"]);
    shown["digest"].as_str().unwrap().to_owned()
}

fn adapters(home: &Home) -> usize {
    json(home, &["adapter", "list", "--json"])
        .as_array()
        .unwrap()
        .len()
}

/// The newest job of kind `recycle`.
fn job(home: &Home) -> Value {
    json(home, &["jobs", "list", "--kind", "recycle", "--json"])[0].clone()
}

#[test]
fn two_adapters_become_one_and_its_recipe_file_gives_the_same_digest_again() {
    let home = two_adapters();
    let file = home.text("meta.json");
    home.succeeds(&quickly(&["--save-recipe", &file, "--threads", "1"]));
    let result = job(&home)["result"].clone();
    assert_eq!(result["adapter"], "meta:1");
    // The command's threads are those of its jobs.
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(saved["threads"], 1);
    assert_eq!(result["pools"].as_array().map(Vec::len), Some(2));
    assert_eq!(result["figures"]["episodes"], 60);
    assert_eq!(result["is_as_expected"], Value::Null);
    let shown = json(&home, &["adapter", "show", "meta", "--json"]);
    assert_eq!(shown["head"], Value::Null);
    let parents: Vec<&str> = shown["lineage"]["parents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parent| parent["label"].as_str().unwrap())
        .collect();
    assert_eq!(parents, ["first:1", "second:1"]);
    // The same command again finds what is there.
    let before = adapters(&home);
    home.succeeds(&quickly(&[]));
    assert_eq!(adapters(&home), before);

    home.succeeds(&["recycle", "--from-recipe", &file]);
    let result = job(&home)["result"].clone();
    assert_eq!(result["adapter"], "meta:2");
    assert_eq!(result["is_as_expected"], true);
    assert_eq!(digest(&home, "meta:2"), digest(&home, "meta:1"));

    let mut changed = saved;
    changed["digest"] = "0".repeat(64).into();
    fs::write(&file, changed.to_string()).unwrap();
    home.fails(
        &["recycle", "--from-recipe", &file],
        "not that of the recipe file",
    );
    changed["adapters"][0]["digest"] = "0".repeat(64).into();
    fs::write(&file, changed.to_string()).unwrap();
    home.fails(&["recycle", "--from-recipe", &file], "import it first");
}

/// As a version wrote it that had `factors` and `factor` where `merge_coefficients` and `scale` are now.
const OLD_RECIPE_FILE: &str = include_str!("recipe_files/of_0.1_before_merge_coefficients.json");

#[test]
fn a_recipe_file_of_an_earlier_version_gives_the_digest_that_its_recipe_gives_now() {
    let home = two_adapters();
    let file = home.text("meta.json");
    home.succeeds(&quickly(&["--save-recipe", &file, "--threads", "1"]));
    let now: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut then: Value = serde_json::from_str(OLD_RECIPE_FILE).unwrap();
    assert_eq!(then["meta_training"]["factors"]["steps"], 60);
    assert!(then["meta_training"]["start"]["merge"]["factor"].is_null());
    // The key of the images is a digest of this.
    assert_eq!(then["inversion"], now["inversion"]);
    // What depends on the machine that tuned.
    for own in ["adapters", "backbone", "digest"] {
        then[own] = now[own].clone();
    }
    fs::write(&file, then.to_string()).unwrap();
    home.succeeds(&["recycle", "--from-recipe", &file]);
    let result = job(&home)["result"].clone();
    assert_eq!(result["adapter"], "meta:2");
    assert_eq!(result["is_as_expected"], true);
    let recipe = &result["recipe_file"]["meta_training"];
    assert_eq!(recipe, &now["meta_training"]);
    assert!(recipe.get("factors").is_none());
}

#[test]
fn a_start_from_zero_needs_no_word_about_merge_coefficients_and_refuses_steps_for_them() {
    let home = two_adapters();
    let from_zero = quickly(&["--dry-run", "--start", "zero"]);
    home.succeeds(&from_zero);
    home.succeeds(&[&from_zero[..], &["--merge-coefficients", "0"]].concat());
    // By the names of an earlier version.
    let then = ["--recipe", "fast", "--learn-factors", "0"];
    home.succeeds(&[&from_zero[..], &then].concat());
    home.fails(
        &[&from_zero[..], &["--learn-factors", "5"]].concat(),
        "but start is zero",
    );
}

/// Runs `command` until it says that it is in `phase`, and kills it.
pub fn killed_in(home: &Home, command: &[&str], phase: &str) {
    let mut command = home.command(command);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told: Vec<String> = lines
        .map(Result::unwrap)
        .take_while(|line| !line.starts_with(phase))
        .collect();
    assert!(
        child.try_wait().unwrap().is_none(),
        "ended before {phase}: {told:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_killed_in_each_phase_ends_with_the_digest_of_an_unbroken_one() {
    let command = |home: &Home| {
        let steps = ["--inversion-steps", "150", "--episodes", "150"];
        let cheaper = ["--layers", "last-2", "--sparsity", "0.5"];
        let measured = ["--evaluate-way", "2", "--evaluate-queries", "3"];
        let folder = home.text("pictures");
        let pictures = ["--evaluate", &folder];
        let words = [steps.as_slice(), &cheaper, &measured, &pictures].concat();
        let words = recycle(&words).into_iter().map(str::to_owned);
        words.collect::<Vec<String>>()
    };
    let unbroken = two_adapters();
    let words = command(&unbroken);
    unbroken.succeeds(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let broken = two_adapters();
    let words = command(&broken);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for phase in [
        "inverting",
        "inverting",
        "learning merge coefficients",
        "meta-training",
        "meta-training",
        "encoding pictures",
        "choosing a scale",
    ] {
        killed_in(&broken, &words, phase);
    }
    let log = broken.tells(&words);
    assert!(
        log.contains("resuming after the 3 finished methods"),
        "{log}"
    );
    let figures = |home: &Home| job(home)["result"]["figures"].clone();
    assert_eq!(figures(&broken), figures(&unbroken));
    assert_eq!(digest(&broken, "meta"), digest(&unbroken, "meta"));
    assert_eq!(adapters(&broken), adapters(&unbroken));
    let jobs = json(&broken, &["jobs", "list", "--json"]);
    let states = jobs.as_array().unwrap().iter().map(|job| &job["state"]);
    assert!(states.clone().all(|state| state == "succeeded"), "{jobs}");
    // Two were tuned, two inverted, one recycled.
    assert_eq!(states.count(), 5);
}

#[test]
fn pictures_sent_along_say_what_the_meta_lora_is_worth_and_the_figures_stay_with_it() {
    let home = two_adapters();
    let pictures = home.text("pictures");
    let measured = ["--evaluate", &pictures, "--evaluate-way", "2"];
    let tasks = ["--evaluate-queries", "3", "--evaluate-tasks", "20"];
    let command = quickly(&[measured.as_slice(), &tasks].concat());
    let told = home.succeeds(&command);
    let rows = [
        "2-way 1-shot, 3 queries per class, 20 tasks",
        "adapter ",
        "bare ",
        "average ",
        "sum ",
    ];
    for row in rows {
        assert!(told.contains(row), "{row}: {told}");
    }
    let result = job(&home)["result"].clone();
    let report = &result["figures"]["evaluation"];
    let methods = report["methods"].as_array().unwrap();
    let names = methods.iter().map(|own| own["name"].as_str().unwrap());
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["adapter", "bare", "average", "sum"]
    );
    assert_eq!(methods[0]["adapter"], "meta");
    let shown = json(&home, &["adapter", "show", "meta", "--json"]);
    let kept = &shown["lineage"]["recipe"]["figures"]["evaluation"];
    assert_eq!(kept, report);
    // What is measured before it is stored is what is stored.
    let evaluate = ["evaluate", &pictures, "--adapter", "meta", "--backbone"];
    let same_tasks = ["tiny", "--way", "2", "--queries", "3", "--tasks", "20"];
    let options = ["--encoder", "native", "--json", "--pool", "first", "second"];
    let stored = json(
        &home,
        &[evaluate.as_slice(), &same_tasks, &options].concat(),
    );
    for (place, method) in stored["methods"].as_array().unwrap().iter().enumerate() {
        assert_eq!(method["accuracy"], methods[place]["accuracy"], "{method}");
    }
    let few = quickly(&["--evaluate", &pictures]);
    home.fails(&few, "5-way tasks need 5 classes");
}

#[test]
fn a_state_chosen_on_real_pictures_is_rebuilt_only_with_the_same_pictures() {
    let home = two_adapters();
    let (file, pictures) = (home.text("meta.json"), home.text("pictures"));
    let chosen = ["--validation", &pictures, "--save-recipe", &file];
    home.succeeds(&quickly(&chosen));
    let validations = job(&home)["result"]["figures"]["validations"].clone();
    assert_eq!(validations[0]["episode"], 0);
    let again = ["recycle", "--from-recipe", &file];
    home.fails(&again, "give the same pictures to validate on");
    home.succeeds(&[again.as_slice(), &["--validation", &pictures]].concat());
    let result = job(&home)["result"].clone();
    assert_eq!(result["is_as_expected"], true);
    assert_eq!(result["figures"]["validations"], validations);
    std::fs::remove_dir_all(home.path("pictures/blue")).unwrap();
    home.fails(&quickly(&["--validation", &pictures]), "at least 2");
}

#[test]
fn a_dry_run_says_time_memory_and_disk_and_makes_nothing() {
    let home = two_adapters();
    let before = adapters(&home);
    let told = home.succeeds(&quickly(&["--dry-run"]));
    for word in [
        "images to make\tof 2 of 2 adapters",
        "time\t",
        "memory\t",
        "disk\tat most",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let result = job(&home)["result"].clone();
    assert_eq!(result["dry_run"], true);
    assert_eq!(
        (&result["inversions"], &result["images"]),
        (&2.into(), &16.into())
    );
    assert!(result["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(result["evaluation_seconds"], 0.0);
    assert_eq!(adapters(&home), before);
    assert!(home.pools().is_empty());
    let jobs = json(&home, &["jobs", "list", "--kind", "invert", "--json"]);
    assert_eq!(jobs.as_array().map(Vec::len), Some(0));

    let pictures = home.text("pictures");
    let measured = ["--evaluate", &pictures, "--evaluate-way", "2"];
    let more = ["--evaluate-queries", "3", "--validation", &pictures];
    home.succeeds(&quickly(&[&measured[..], &more, &["--dry-run"]].concat()));
    let result = job(&home)["result"].clone();
    let seconds = |name: &str| result[name].as_f64().unwrap();
    assert!(seconds("evaluation_seconds") > 0.0, "{result}");
    let parts = [
        "inversion_seconds",
        "meta_training_seconds",
        "evaluation_seconds",
    ];
    let sum: f64 = parts.into_iter().map(seconds).sum();
    assert!((seconds("seconds") - sum).abs() < 1e-9, "{result}");
}

#[test]
fn real_pictures_of_the_adapters_classes_stand_in_for_synthetic_ones_as_a_control() {
    let home = two_adapters();
    let (file, pictures) = (home.text("meta.json"), home.text("pictures"));
    let run = quickly(&["--real", &pictures, "--save-recipe", &file]);
    home.succeeds(&run);
    let first = digest(&home, "meta:1");
    let pools = home.pools();
    assert_eq!(pools.len(), 2);
    for pool in &pools {
        assert_eq!(pool["summary"]["images"], 8, "{pool}");
        assert_eq!(pool["recipe"]["real"].as_str().map(str::len), Some(64));
    }
    // One row per class, four pictures of 28 pixels each: those of the folder, not made ones.
    let sheet = home.text("sheet.png");
    let id = pools[0]["id"].as_str().unwrap();
    home.succeeds(&["pool", "sheet", id, "--out", &sheet]);
    let sheet = image::open(sheet).unwrap().to_rgb8();
    for (row, class) in [(0, "blue"), (30, "red")] {
        let real = image::open(home.path(&format!("pictures/{class}/0.png")))
            .unwrap()
            .to_rgb8();
        let equal = real
            .enumerate_pixels()
            .all(|(x, y, pixel)| sheet.get_pixel(x, row + y) == pixel);
        assert!(equal, "{class}");
    }
    home.succeeds(&quickly(&[]));
    assert_ne!(digest(&home, "meta:2"), first);

    let again = ["recycle", "--from-recipe", &file];
    home.fails(&again, "give the same pictures");
    home.succeeds(&[again.as_slice(), &["--real", &pictures]].concat());
    assert_eq!(digest(&home, "meta:3"), first);
    fs::remove_file(home.path("pictures/red/0.png")).unwrap();
    home.fails(
        &[again.as_slice(), &["--real", &pictures]].concat(),
        "give the same pictures",
    );
    for place in 1..3 {
        fs::remove_file(home.path(&format!("pictures/red/{place}.png"))).unwrap();
    }
    home.fails(&run, "3 pictures of the class");
}

#[test]
fn pictures_for_validation_that_cannot_be_used_are_named_in_the_log() {
    let home = two_adapters();
    let pictures = home.text("pictures");
    fs::write(home.path("pictures/red/broken.png"), b"no picture").unwrap();
    let log = home.tells(&quickly(&["--validation", &pictures]));
    assert!(log.contains("left out: red/broken.png"), "{log}");
}

#[test]
fn images_that_are_kept_until_used_are_gone_afterwards_and_are_not_made_again_for_the_same_work() {
    let home = two_adapters();
    home.succeeds(&quickly(&["--retention", "after-meta-training"]));
    assert!(home.pools().is_empty());
    home.succeeds(&quickly(&["--retention", "after-meta-training"]));
    let jobs = json(&home, &["jobs", "list", "--kind", "invert", "--json"]);
    assert_eq!(jobs.as_array().map(Vec::len), Some(2));
}

#[test]
fn what_cannot_be_recycled_is_refused_before_any_work() {
    let home = two_adapters();
    let fails = |arguments: &[&str], words: &str| {
        let mut command = vec!["recycle", "--name", "meta"];
        command.extend(arguments);
        home.fails(&command, words);
    };
    fails(&["first", "nobody"], "nobody");
    fails(&["first", "first"], "named twice");
    fails(&["first", "--images-per-class", "3"], "needs at least 4");
    fails(
        &["first", "--layers", "last-9"],
        "the backbone has 4 layers",
    );
    fails(&["first", "--shots", "x"], "nor a range");
    fails(&["first", "--start", "one"], "zero or merge");
    fails(&["first", "--recipe", "nothing.json"], "nothing.json");
    home.fails(&["recycle", "first", "--name", "merge"], "reserved");
    let other = test_support::project("tests/golden/dinov2-tiny");
    home.succeeds(&[
        "backbone",
        "add",
        other.to_str().unwrap(),
        "--name",
        "other",
    ]);
    let pictures = home.text("pictures");
    home.succeeds(&[
        "tune",
        &pictures,
        "--name",
        "third",
        "--backbone",
        "other",
        "--steps",
        "2",
    ]);
    fails(&["first", "third"], "was made for the backbone other");
    let jobs = json(&home, &["jobs", "list", "--json"]);
    let kinds = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["kind"].as_str().unwrap());
    assert!(kinds.clone().all(|kind| kind == "tune"), "{jobs}");
}
