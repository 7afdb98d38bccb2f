//! The data folder through the real program: whichever command comes first, the same answers.

use crate::support::program;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use store::{Access, Store};
use tempfile::TempDir;
use test_support::project;
use test_support::store::SmallDisk;

/// A place for a data folder, with two classes of examples beside it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for class in ["fish", "mammal"] {
            let folder = home.path("classes").join(class);
            fs::create_dir_all(&folder).unwrap();
            for entry in fs::read_dir(project("assets/examples").join(class)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
            }
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program as people start it: with the adapter that comes with it.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.0.path(), arguments);
        command.env_remove("LORA_RECYCLE_SHIPPED_ADAPTER");
        command
    }

    /// Stdout and stderr of a run that must succeed.
    fn run(&self, arguments: &[&str]) -> (String, String) {
        let output = self.command(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments).0).unwrap()
    }

    /// How a picture is classified, and what is said meanwhile.
    fn classified(&self) -> (Value, String) {
        let classes = self.path("classes");
        let picture = project("assets/examples/queries/clownfish.jpg");
        let words = ["classify", "--json", "--support"];
        let paths = [classes.to_str().unwrap(), picture.to_str().unwrap()];
        let (stdout, stderr) = self.run(&[&words[..], &paths[..]].concat());
        // The examples are named by their paths, which differ from home to home.
        let stdout = stdout.replace(classes.to_str().unwrap(), "classes");
        (serde_json::from_str(&stdout).unwrap(), stderr)
    }

    /// A server on this data folder, once it listens.
    fn serve(&self) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let server = Server(process);
        let listens = log.lines().map_while(Result::ok);
        assert!({ listens }.any(|line| line.contains("listening on")));
        server
    }
}

/// Killed with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const COMES_WITH_THE_PROGRAM: &str = "adapter signs-and-shapes:1";

#[test]
fn the_first_command_in_a_new_data_folder_answers_as_each_later_one() {
    let home = Home::new();
    let (first, stderr) = home.classified();
    assert!(stderr.contains(COMES_WITH_THE_PROGRAM), "{stderr}");
    assert_eq!(first[0]["label"], "fish");
    let server = home.serve();
    assert_eq!(home.classified().0, first, "beside a server");
    drop(server);
    assert_eq!(home.classified().0, first, "after a server");

    let other = Home::new();
    drop(other.serve());
    assert_eq!(other.classified().0, first, "where a server was first");
    let bare = Home::new();
    bare.run(&["adapter", "gc", "--shipped-adapter", "none"]);
    assert_ne!(bare.classified().0, first, "the adapter makes a difference");
}

#[test]
fn commands_that_meet_in_a_new_data_folder_answer_alike() {
    let home = Home::new();
    let picture = project("assets/examples/queries/clownfish.jpg");
    let words = ["embed", "--json", picture.to_str().unwrap()];
    let running: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = home.command(&words);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let answers: Vec<String> = running
        .into_iter()
        .map(|process| {
            let output = process.wait_with_output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{stderr}");
            assert!(stderr.contains(COMES_WITH_THE_PROGRAM), "{stderr}");
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let adapters = home.json(&["adapter", "list", "--json"]);
    assert_eq!(adapters.as_array().unwrap().len(), 1);
}

#[test]
fn a_data_folder_that_a_process_left_half_made_is_finished_by_the_next() {
    let home = Home::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&home.path("data"), Access::Exclusive).await;
        store.unwrap().close().await;
    });
    let listed = home.json(&["adapter", "list", "--json"]);
    assert_eq!(listed[0]["name"], "signs-and-shapes");
    assert_eq!(listed[0]["is_default"], true);
}

/// The data folder of `home` on a file system that can be made read-only; `None` where this user may mount none.
fn mounted(home: &Home) -> Option<SmallDisk> {
    fs::create_dir(home.path("data")).unwrap();
    let disk = SmallDisk::mount(home.path("data"), "200m");
    if disk.is_none() {
        eprintln!("SKIPPED: this test mounts a tmpfs, for which this user lacks the right");
    }
    disk
}

#[test]
fn a_data_folder_that_cannot_be_written_answers_all_the_same() {
    let expected = Home::new().classified().0;
    let empty = Home::new();
    let Some(disk) = mounted(&empty) else {
        return;
    };
    disk.make_read_only();
    let (answer, stderr) = empty.classified();
    assert_eq!(answer, expected);
    assert!(stderr.contains("nothing is kept"), "{stderr}");
    assert!(stderr.contains("read-only file system"), "{stderr}");
    assert!(stderr.contains(COMES_WITH_THE_PROGRAM), "{stderr}");

    let begun = Home::new();
    let Some(disk) = mounted(&begun) else {
        return;
    };
    assert_eq!(begun.classified().0, expected);
    disk.make_read_only();
    let (answer, stderr) = begun.classified();
    assert_eq!(answer, expected);
    assert!(stderr.contains(COMES_WITH_THE_PROGRAM), "{stderr}");
    let listed = begun.json(&["adapter", "list", "--json"]);
    assert_eq!(listed[0]["name"], "signs-and-shapes");
    let checks = begun.command(&["doctor"]).output().unwrap();
    let stdout = String::from_utf8(checks.stdout).unwrap();
    assert!(stdout.contains("FAIL data folder"), "{stdout}");
    assert!(stdout.contains("ok   inference"), "{stdout}");
}

#[test]
fn what_a_new_data_folder_would_hold_is_listed_without_making_one() {
    let home = Home::new();
    let listed = home.json(&["adapter", "list", "--json"]);
    assert_eq!(listed[0]["name"], "signs-and-shapes");
    home.run(&["adapter", "show", "signs-and-shapes"]);
    let backbones = home.json(&["backbone", "list", "--json"]);
    assert_eq!(backbones[0]["name"], "dinov2-s8");
    assert!(!home.path("data").exists());
}

fn add_tiny(home: &Home) -> PathBuf {
    let folder = project("tests/golden/vit-tiny");
    let path: &Path = &folder;
    home.run(&["backbone", "add", path.to_str().unwrap(), "--name", "d"]);
    folder
}

#[test]
fn doctor_checks_a_registered_backbone_as_other_commands_use_it() {
    let home = Home::new();
    add_tiny(&home);
    let checks = home.json(&["doctor", "--backbone", "d", "--json"]);
    let details: Vec<&str> = checks
        .as_array()
        .unwrap()
        .iter()
        .map(|check| {
            let ok = check["ok"] == true || check["needed"] == false;
            assert!(ok, "{checks}");
            check["detail"].as_str().unwrap()
        })
        .collect();
    assert!(details[2].starts_with("d: "), "{checks}");
    assert!(details[3].contains("answers by d ("), "{checks}");
    assert!(details[3].ends_with("no adapter"), "{checks}");
    let usual = home.json(&["doctor", "--json"]);
    let answers = usual[3]["detail"].as_str().unwrap();
    assert!(answers.contains(COMES_WITH_THE_PROGRAM), "{usual}");
}

#[test]
fn a_registered_backbone_is_shown_by_its_name() {
    let home = Home::new();
    let folder = add_tiny(&home);
    let named = home.json(&["backbone", "show", "d", "--json"]);
    let path = folder.to_str().unwrap();
    let by_path = home.json(&["backbone", "show", path, "--json"]);
    assert_eq!(named["digest"], by_path["digest"]);
    assert_eq!(named["name"], "d");
}
