//! `--job-device` through the real program, on the fake CUDA libraries over the emulator.

use crate::making_cli::Home;
use crate::recycle_cli::json;
use engine::loss::TokenStatistics;
use engine::tolerance::FORWARD;
use serde_json::Value;
use std::process::Output;
use test_support::emulator::folder;
use test_support::{project, reference};

const CPU: [&str; 2] = ["--job-device", "cpu"];
const CUDA: [&str; 2] = ["--job-device", "cuda-fp32"];

fn run(home: &Home, arguments: &[&str], device: [&str; 2]) -> Output {
    let mut command = home.command(arguments);
    command.args(device).env("LD_LIBRARY_PATH", folder());
    command.output().unwrap()
}

fn succeeds(home: &Home, arguments: &[&str], device: [&str; 2]) {
    let output = run(home, arguments, device);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
}

/// Features of two pictures through an adapter, computed by the processor.
fn features(home: &Home, adapter: &str) -> Vec<f64> {
    let pictures = ["red/0.png", "blue/3.png"].map(|own| home.text(&format!("pictures/{own}")));
    let words = [
        "embed",
        "--json",
        "--backbone",
        "tiny",
        "--adapter",
        adapter,
    ];
    let words: Vec<&str> = words
        .into_iter()
        .chain(pictures.iter().map(String::as_str))
        .collect();
    let answers = json(home, &words);
    let answers = answers.as_array().unwrap().iter();
    let features = answers.flat_map(|own| own["feature"].as_array().unwrap());
    features.map(|value| value.as_f64().unwrap()).collect()
}

/// What one adapter changes of the bare backbone's features is what the other changes, within a thousandth of the largest change. Their values are
/// not compared: a step of Adam has the size of the learning rate however small the gradient is, and rounding decides the sign of the smallest.
fn assert_close(home: &Home, found: &str, expected: &str) {
    let [found, expected, bare] = [found, expected, "none"].map(|own| features(home, own));
    let most = |one: &[f64], other: &[f64]| {
        let pairs = one.iter().zip(other);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert!(!expected.is_empty() && found.len() == expected.len());
    let (difference, change) = (most(&found, &expected), most(&expected, &bare));
    println!("{difference} of {change}");
    assert!(difference <= 1e-3 * change, "{difference} of {change}");
}

#[test]
fn adapters_images_and_meta_loras_made_on_a_cuda_device_are_those_of_the_processor() {
    let home = Home::new();
    let pictures = home.text("pictures");
    let tune = |name: &'static str| {
        let words = ["tune", &pictures, "--name", name, "--backbone", "tiny"];
        let more = ["--batch-size", "4", "--steps", "4"];
        words
            .into_iter()
            .chain(more)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (name, device) in [("here", CPU), ("there", CUDA)] {
        let words = tune(name);
        succeeds(
            &home,
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
            device,
        );
    }
    assert_close(&home, "there", "here");

    let invert = [
        "invert",
        "here",
        "--recipe",
        "hard",
        "--images-per-class",
        "3",
        "--steps",
        "4",
    ];
    for device in [CPU, CUDA] {
        succeeds(&home, &invert, device);
    }
    let pools = home.pools();
    assert_eq!(
        pools.len(),
        2,
        "a pool belongs to what computed it: {pools:?}"
    );
    let [one, other] = [0, 1].map(|index| {
        let (id, out) = (
            pools[index]["id"].as_str().unwrap(),
            home.text(&format!("pool-{index}")),
        );
        home.succeeds(&["pool", "sheet", id, "--out", &format!("{out}.png")]);
        image::open(format!("{out}.png")).unwrap().to_rgb8()
    });
    let pairs = one.iter().zip(other.iter());
    let most = pairs.map(|(&a, &b)| a.abs_diff(b)).max();
    assert!(most <= Some(1), "images differ by {most:?} levels");

    for (name, device) in [("meta-here", CPU), ("meta-there", CUDA)] {
        let words = [
            "recycle",
            "here",
            "--name",
            name,
            "--inversion",
            "hard",
            "--way",
            "2",
        ];
        let more = [
            "--images-per-class",
            "4",
            "--inversion-steps",
            "3",
            "--episodes",
            "4",
            "--use-failed-images",
        ];
        let words: Vec<&str> = words.into_iter().chain(more).collect();
        succeeds(&home, &words, device);
    }
    assert_close(&home, "meta-there", "meta-here");
    let made = json(&home, &["adapter", "show", "meta-there", "--json"]);
    let recipe = &made["lineage"]["recipe"];
    assert!(
        recipe.to_string().contains("\"arithmetic\":\"cuda_fp32\""),
        "{recipe}"
    );
}

#[test]
fn reference_values_hold_on_a_cuda_device_in_fp32_and_statistics_are_those_of_the_processor() {
    let home = Home::new();
    let model = project("tests/golden/vit-tiny");
    let verify = ["verify", model.to_str().unwrap(), "--json"];
    let output = run(&home, &verify, CUDA);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let checked = |output: &Output| {
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let tensors = result["tensors"].as_array().unwrap().clone();
        let own = tensors.iter().map(|own| {
            (
                own["name"].as_str().unwrap().to_owned(),
                own["max_error"].as_f64().unwrap(),
            )
        });
        own.collect::<Vec<_>>()
    };
    let there = checked(&output);
    let here = checked(&run(&home, &verify, CPU));
    let names = |all: &[(String, f64)]| all.iter().map(|own| own.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&there), names(&here));
    // Other sums than those of the processor.
    assert_ne!(there, here);
    // TF32 is not what the tolerances are for.
    let rounded = run(&home, &verify, ["--job-device", "cuda"]);
    assert!(!rounded.status.success());

    let pictures = home.text("pictures");
    let [here, there] = [("here", CPU), ("there", CUDA)].map(|(name, device)| {
        let file = home.text(name);
        let words = [
            "prior",
            "build",
            &pictures,
            "--out",
            &file,
            "--backbone",
            "tiny",
        ];
        succeeds(&home, &words, device);
        TokenStatistics::read(&std::fs::read(file).unwrap(), 32).unwrap()
    });
    assert_eq!(here.backbone_digest, there.backbone_digest);
    assert_eq!(here.sites.len(), there.sites.len());
    for (site, here) in &here.sites {
        let there = &there.sites[site];
        reference::assert_close(site, &there.mean, &here.mean, FORWARD);
        reference::assert_close(site, &there.variance, &here.variance, FORWARD);
    }
}

#[test]
fn a_job_that_does_not_fit_its_device_fails_with_what_to_do_and_the_next_one_runs() {
    let home = Home::new();
    let pictures = home.text("pictures");
    let words = [
        "tune",
        &pictures,
        "--name",
        "x",
        "--backbone",
        "tiny",
        "--steps",
        "1",
    ];
    // What the products want for themselves, and not even the weights.
    let memory = (32 << 20) + 100_000;
    let mut command = home.command(&words);
    command.args(CUDA).env("LD_LIBRARY_PATH", folder());
    let output = command
        .env("EMULATOR_MEMORY", memory.to_string())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let says = ["no room", "hint:", "--job-device cpu"];
    let says = says.iter().all(|words| stderr.contains(words));
    assert!(output.status.code() == Some(1) && says, "{output:?}");
    let jobs = json(&home, &["jobs", "list", "--json"]);
    assert_eq!(jobs[0]["state"], "failed", "{jobs}");
    assert_eq!(jobs[0]["error"]["code"], "no_room", "{jobs}");
    succeeds(&home, &words, CPU);
}

#[test]
fn a_device_that_is_not_there_is_refused_before_any_work_with_what_is_missing() {
    let home = Home::new();
    let pictures = home.text("pictures");
    let words = ["tune", &pictures, "--name", "x", "--backbone", "tiny"];
    let output = home.command(&words).args(CUDA).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let says = ["--job-device", "libcuda", "hint:"]
        .iter()
        .all(|words| stderr.contains(words));
    assert!(!output.status.success() && says, "{stderr}");
    assert_eq!(home.succeeds(&["jobs", "list", "--json"]).trim(), "[]");
}
