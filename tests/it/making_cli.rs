//! `tune`, `invert` and `pool` through the real program on a tiny backbone, also when it is killed at random moments.

use crate::support::program;
use image::{Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::project;
use test_support::store::SmallDisk;

/// A data folder with the golden backbone `vit-tiny`, and pictures of two classes.
pub struct Home(pub TempDir);

impl Home {
    pub fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for (class, colour) in [("red", [220, 30, 30]), ("blue", [30, 40, 220])] {
            let folder = home.path("pictures").join(class);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..6_u32 {
                let picture = RgbImage::from_fn(28, 28, |x, y| {
                    let inside = (number..number + 16).contains(&x) && (4..22).contains(&y);
                    let speckle = ((x * 31 + y * 17 + number * 7) % 90) as u8;
                    Rgb(if inside { colour } else { [80 + speckle; 3] })
                });
                picture.save(folder.join(format!("{number}.png"))).unwrap();
            }
        }
        let tiny = project("tests/golden/vit-tiny");
        home.succeeds(&["backbone", "add", tiny.to_str().unwrap(), "--name", "tiny"]);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.0.path(), arguments);
        // A checkpoint after every step: a run that is killed goes on from the step before.
        command.env("LORA_RECYCLE_CHECKPOINT_SECONDS", "0");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says on stderr.
    pub fn tells(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        stderr
    }

    pub fn fails(&self, arguments: &[&str], words: &str) {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(words),
            "{stderr}"
        );
    }

    fn tune(&self, steps: &str) -> Vec<String> {
        let pictures = self.text("pictures");
        let words = ["tune", &pictures, "--name", "colours", "--backbone", "tiny"];
        let words = words
            .into_iter()
            .chain(["--batch-size", "8", "--steps", steps]);
        words.map(str::to_owned).collect()
    }

    pub fn pools(&self) -> Vec<Value> {
        serde_json::from_str(&self.succeeds(&["pool", "list", "--json"])).unwrap()
    }

    /// Names and bytes of all files of the adapter and of its only pool.
    fn made(&self) -> Vec<(String, Vec<u8>)> {
        let adapter = self.text("adapter");
        self.succeeds(&["adapter", "export", "colours", "--out", &adapter]);
        let pool = self.text("pool");
        let id = self.pools()[0]["id"].as_str().unwrap().to_owned();
        self.succeeds(&["pool", "export", &id, "--out", &pool]);
        let mut files: Vec<(String, Vec<u8>)> = ["adapter", "pool"]
            .iter()
            .flat_map(|folder| fs::read_dir(self.path(folder)).unwrap())
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
            .map(|(path, bytes)| (path.rsplit('/').next().unwrap().to_owned(), bytes))
            .collect();
        files.sort();
        files
    }
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

#[test]
fn a_folder_of_pictures_becomes_an_adapter_and_the_adapter_images() {
    let home = Home::new();
    home.succeeds(&words(&home.tune("40")));
    let jobs: Vec<Value> =
        serde_json::from_str(&home.succeeds(&["jobs", "list", "--json"])).unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0]["result"]["adapter"], "colours:1");
    assert_eq!(jobs[0]["result"]["held_out_accuracy"], 1.0);
    // The pictures are gone, the adapter answers with its labels.
    assert!(
        home.succeeds(&["adapter", "show", "colours"])
            .contains("red")
    );
    // The same command again finds the adapter that is there.
    home.succeeds(&words(&home.tune("40")));
    let listed = home.succeeds(&["adapter", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");

    home.succeeds(&[
        "invert",
        "colours",
        "--recipe",
        "fast",
        "--images-per-class",
        "3",
        "--steps",
        "40",
        "--prune",
        "1:0.5",
    ]);
    let pools = home.pools();
    assert_eq!(pools.len(), 1);
    let summary = &pools[0]["summary"];
    assert_eq!(summary["images"], 6);
    assert_eq!(summary["teacher_accuracy"], 1.0, "{summary}");
    assert_eq!(summary["kept_tokens_per_image"], 8);
    let id = pools[0]["id"].as_str().unwrap();
    let sheet = home.text("sheet.png");
    home.succeeds(&["pool", "sheet", id, "--out", &sheet]);
    let sheet = image::open(sheet).unwrap();
    // Two rows of three images, two pixels apart.
    assert_eq!((sheet.width(), sheet.height()), (3 * 28 + 4, 2 * 28 + 2));
    home.succeeds(&["pool", "rm", id]);
    assert!(home.pools().is_empty());
}

#[test]
fn several_adapters_come_from_random_cuts_and_repeat_with_their_seed() {
    let home = Home::new();
    let mut command = home.tune("5");
    command.extend(["--episodes", "2", "--way", "2", "--json"].map(str::to_owned));
    home.succeeds(&words(&command));
    let listed = home.succeeds(&["adapter", "list"]);
    assert!(
        listed.contains("colours-0000") && listed.contains("colours-0001"),
        "{listed}"
    );
}

#[test]
fn what_cannot_be_tuned_or_inverted_is_refused_with_what_to_do() {
    let home = Home::new();
    let pictures = home.text("pictures");
    let tune = |more: &[&str], words: &str| {
        let mut command = vec!["tune", &pictures, "--name", "x", "--backbone", "tiny"];
        command.extend(more);
        home.fails(&command, words);
    };
    tune(&["--rank", "0"], "rank is 0; it must be from 1 to 32");
    tune(&["--classes", "red,green"], "there is no class \"green\"");
    tune(&["--classes", "red"], "at least 2");
    tune(&["--episodes", "3", "--way", "5"], "choose 2 to 2");
    fs::write(home.path("pictures/red/broken.png"), b"no picture").unwrap();
    home.succeeds(&words(&home.tune("2")));
    home.fails(&["invert", "nobody"], "nobody");
    home.fails(
        &["invert", "colours", "--prune", "9:0.5"],
        "the backbone has 4 layers",
    );
    home.fails(&["invert", "colours", "--prune", "x"], "LAYER:RATIO");
    home.fails(&["invert", "colours", "--against", "nobody"], "nobody");
    home.fails(
        &[
            "invert",
            "colours",
            "--recipe",
            "fast",
            "--against",
            "colours",
        ],
        "without hard nothing is mixed up",
    );
    home.fails(
        &["invert", "colours", "--recipe", "paper"],
        "the BatchNorm prior has a weight but no ResNet",
    );
    home.fails(
        &["invert", "colours", "--retention", "memory-only"],
        "would be gone",
    );
    home.fails(&["pool", "show", "77"], "there is no pool");
}

#[test]
fn images_against_an_adapter_are_found_again_by_its_digest() {
    let home = Home::new();
    home.succeeds(&words(&home.tune("2")));
    let command = [&invert("2")[..], &["--against"]].concat();
    home.succeeds(&[&command[..], &["colours"]].concat());
    let pools = home.pools();
    let digest = pools[0]["recipe"]["against"].as_str().unwrap();
    assert_eq!(pools[0]["adapter_digest"], digest);
    home.succeeds(&[&command[..], &[digest]].concat());
    assert_eq!(home.pools().len(), 1);
    home.succeeds(&invert("2"));
    assert_eq!(home.pools().len(), 2);
}

#[test]
fn a_failed_inversion_is_marked_everywhere_and_its_images_are_learned_from_on_request_only() {
    let home = Home::new();
    home.succeeds(&words(&home.tune("40")));
    let what = "the inversion of colours:1 failed: the adapter recognises 50 % of its images, and must recognise at least 90 %";
    // Steps too small to change the noise that images begin as: all of it is taken for one of the two classes.
    let still = home.text("still.json");
    fs::write(&still, r#"{"preset": "fast", "learning_rate": 1e-9}"#).unwrap();
    let recycle = ["recycle", "colours", "--name", "meta", "--inversion"];
    let quickly = [&still[..], "--way", "2", "--images-per-class", "4"];
    let quickly = [
        &quickly[..],
        &["--inversion-steps", "1"],
        &["--episodes", "4"],
    ]
    .concat();
    let recycle = [&recycle[..], &quickly].concat();
    // First the images are made, and their job says so.
    home.fails(&recycle, what);
    let jobs: Vec<Value> =
        serde_json::from_str(&home.succeeds(&["jobs", "list", "--json"])).unwrap();
    let of_kind = |kind: &str| jobs.iter().find(|job| job["kind"] == kind).unwrap();
    let inversion = of_kind("invert");
    assert_eq!(inversion["state"], "succeeded");
    assert_eq!(inversion["result"]["failure"]["message"], what);
    assert_eq!(of_kind("recycle")["error"]["code"], "inversion_failed");
    assert!(
        home.succeeds(&["jobs", "list", "--kind", "invert"])
            .contains(what)
    );
    let id = inversion["id"].as_str().unwrap();
    let shown = home.succeeds(&["jobs", "show", id]);
    assert!(shown.contains("hint\tmake the images again"), "{shown}");
    // The pool says so, too.
    let pools = home.pools();
    assert_eq!(pools[0]["failure"]["code"], "inversion_failed");
    assert!(
        home.succeeds(&["pool", "list"])
            .trim_end()
            .ends_with("failed")
    );
    let id = pools[0]["id"].as_str().unwrap();
    assert!(home.succeeds(&["pool", "show", id]).contains(what));
    // Asked for again, nothing is queued.
    home.fails(&recycle, what);
    home.fails(&recycle, "--use-failed-images");
    let again: Vec<Value> =
        serde_json::from_str(&home.succeeds(&["jobs", "list", "--json"])).unwrap();
    assert_eq!(again.len(), jobs.len());

    let file = home.text("meta.json");
    let wanted = ["--use-failed-images", "--save-recipe", &file];
    let told = home.tells(&[&recycle[..], &wanted].concat());
    assert!(told.contains("they are used anyway"), "{told}");
    let told = home.tells(&["recycle", "--from-recipe", &file]);
    assert!(told.contains("they are used anyway"), "{told}");
}

/// Two images of each class.
fn invert(steps: &str) -> [&str; 6] {
    let always = ["invert", "colours", "--images-per-class", "2", "--steps"];
    std::array::from_fn(|index| always.get(index).copied().unwrap_or(steps))
}

fn assert_same_files(found: &Home, expected: &Home) {
    let (found, expected) = (found.made(), expected.made());
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&found), names(&expected));
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(found == expected, "{name} differs");
    }
}

/// Runs `command` again and again, killed at random moments, and at last to its end.
fn killed_to_the_end(home: &Home, command: &[&str], kills: usize, random: &mut ChaCha8Rng) {
    let mut killed = 0;
    while killed < kills {
        let mut child = home
            .command(command)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moment = Instant::now() + Duration::from_millis(random.random_range(20..500));
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() >= moment {
                break None;
            }
            std::thread::yield_now();
        };
        if let Some(status) = ended {
            panic!("{command:?} ended ({status}) after {killed} kills: give it more steps");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    home.succeeds(command);
}

#[test]
fn jobs_killed_at_twenty_random_moments_end_with_the_bits_of_an_unbroken_run() {
    let seed: u64 = std::env::var("LORA_RECYCLE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    println!("LORA_RECYCLE_TEST_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let invert = invert("1500");
    let [unbroken, broken] = [0, 10].map(|kills| {
        let home = Home::new();
        killed_to_the_end(&home, &words(&home.tune("1500")), kills, &mut random);
        killed_to_the_end(&home, &invert, kills, &mut random);
        home
    });
    assert_same_files(&broken, &unbroken);
    let adapters = broken.succeeds(&["adapter", "list", "--json"]);
    let adapters: Value = serde_json::from_str(&adapters).unwrap();
    assert_eq!(adapters.as_array().map(Vec::len), Some(1), "stored once");
    let logs = broken.succeeds(&["jobs", "list", "--json"]);
    let jobs: Vec<Value> = serde_json::from_str(&logs).unwrap();
    assert!(jobs.iter().all(|job| job["state"] == "succeeded"), "{logs}");
}

/// Whether a job has written a checkpoint.
fn has_checkpoint(jobs: &Path) -> bool {
    let folders = fs::read_dir(jobs).into_iter().flatten().flatten();
    folders
        .map(|folder| folder.path().join("checkpoint"))
        .any(|path| path.exists())
}

/// Runs `command` on a disk that becomes full once the job has a checkpoint: it fails and says so. With room again it is tried again.
fn full_disk_in_between(home: &Home, command: &[&str]) {
    let mut child = home
        .command(command)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !has_checkpoint(&home.path("data/jobs")) {
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended without a checkpoint"
        );
        std::thread::yield_now();
    }
    let mut filler = fs::File::create(home.path("data/filler")).unwrap();
    // A checkpoint that replaces an older one gives room back, so that filling goes on until the store has noticed: then it gives
    // up its reserve, which it needs to write down what happened.
    while home.path("data/reserve").exists() && child.try_wait().unwrap().is_none() {
        let _full = filler.write(&[0; 4096]);
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("full") && stderr.contains("free space"),
        "{stderr}"
    );
    // The database answers, and the job knows why it ended.
    let jobs = home.succeeds(&["jobs", "list", "--json"]);
    let jobs: Vec<Value> = serde_json::from_str(&jobs).unwrap();
    let failed: Vec<&Value> = jobs.iter().filter(|job| job["state"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{jobs:?}");
    assert_eq!(failed[0]["error"]["code"], "disk_full");
    assert!(has_checkpoint(&home.path("data/jobs")));
    drop(filler);
    fs::remove_file(home.path("data/filler")).unwrap();
    let id = failed[0]["id"].as_str().unwrap();
    home.succeeds(&["jobs", "retry", id]);
    home.succeeds(command);
}

#[test]
fn a_full_disk_fails_tuning_and_inversion_by_name_and_both_end_well_once_there_is_room() {
    let home = Home::new();
    let disk = home.path("disk");
    fs::create_dir(&disk).unwrap();
    let Some(disk) = SmallDisk::mount(disk, "8m") else {
        eprintln!(
            "SKIPPED: this test mounts a small tmpfs, for which this user lacks the right (run as root)"
        );
        return;
    };
    fs::rename(home.path("data"), home.path("data on the old disk")).unwrap();
    fs::create_dir(disk.0.join("data")).unwrap();
    std::os::unix::fs::symlink(disk.0.join("data"), home.path("data")).unwrap();
    let tiny = project("tests/golden/vit-tiny");
    home.succeeds(&["backbone", "add", tiny.to_str().unwrap(), "--name", "tiny"]);
    full_disk_in_between(&home, &words(&home.tune("300")));
    let invert = invert("300");
    full_disk_in_between(&home, &invert);
    let unbroken = Home::new();
    unbroken.succeeds(&words(&unbroken.tune("300")));
    unbroken.succeeds(&invert);
    assert_same_files(&home, &unbroken);
}
