//! `classifier` and `classify --classifier` through the real program, alone and beside a running server.

use crate::server::Server;
use crate::support::program;
use crate::test_app::png;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use test_support::project;

/// A data folder with the tiny backbone, and pictures of two colours.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.picture("pictures/red/r1.png", [255, 0, 0]);
        home.picture("pictures/red/r2.png", [220, 10, 0]);
        home.picture("pictures/blue/b1.png", [0, 0, 255]);
        home.picture("pictures/blue/b2.png", [0, 30, 220]);
        let tiny = project("tests/golden/vit-tiny");
        home.succeeds(&["backbone", "add", text(&tiny), "--name", "tiny"]);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn picture(&self, name: &str, [red, green, blue]: [u8; 3]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(red, green, blue)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = program(self.0.path(), arguments);
        command
            .env("LORA_RECYCLE_BACKBONE", "tiny")
            .current_dir(self.0.path());
        command.output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.succeeds(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Stderr of a run that must fail by the user's doing.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        stderr
    }

    /// The answers about `images` without what encoded them.
    fn labels(&self, arguments: &[&str]) -> Vec<Value> {
        let answers = self.json(&[&["classify"], arguments].concat());
        let answers = answers.as_array().unwrap().iter();
        answers.map(|answer| answer["scores"].clone()).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_classifier_is_exported_and_imported_alone_and_beside_a_server() {
    let (here, there) = (Home::new(), Home::new());
    here.succeeds(&[
        "classifier",
        "create",
        "Colours",
        text(&here.path("pictures")),
    ]);
    here.picture("new.png", [200, 40, 0]);
    let query = text(&here.path("new.png")).to_owned();
    let expected = here.labels(&["--classifier", "Colours", &query]);
    let (alone, served) = (here.path("alone.zip"), here.path("served.zip"));
    let stderr = here.fails(&[
        "classifier",
        "export",
        "Colours",
        "-o",
        text(&here.path("no/x.zip")),
    ]);
    assert!(stderr.contains("cannot be written"), "{stderr}");
    here.succeeds(&["classifier", "export", "Colours", "-o", text(&alone)]);
    let model = here.path("model.zip");
    here.succeeds(&[
        "classifier",
        "export",
        "Colours",
        "--format",
        "onnx",
        "-o",
        text(&model),
    ]);
    let serve = |home: &Home| {
        let mut command = program(home.0.path(), &["serve", "--listen", "127.0.0.1:0"]);
        command.env("LORA_RECYCLE_BACKBONE", "tiny");
        Server::of(command)
    };
    let server = serve(&here);
    here.succeeds(&["classifier", "export", "Colours", "-o", text(&served)]);
    drop(server);
    assert_eq!(fs::read(&alone).unwrap(), fs::read(&served).unwrap());
    let told = there.succeeds(&["classifier", "import", text(&alone)]);
    assert!(told.contains("the same bits"), "{told}");
    let server = serve(&there);
    let told = there.json(&[
        "classifier",
        "import",
        text(&served),
        "--name",
        "Copy & paste",
    ]);
    assert_eq!(told["is_exact"], true);
    assert_eq!(told["classifier"]["name"], "Copy & paste");
    drop(server);
    for name in ["Colours", "Copy & paste"] {
        assert_eq!(there.labels(&["--classifier", name, &query]), expected);
    }
    let stderr = there.fails(&["classifier", "import", text(&model)]);
    assert!(stderr.contains("no bundle of a classifier"), "{stderr}");
}

/// Every verb once, whoever holds the data folder.
fn walk_through(home: &Home) {
    fs::write(home.path("pictures/blue/page.png"), "<html>").unwrap();
    let made = home.json(&["classifier", "create", "Hues", "pictures"]);
    assert_eq!(
        (&made["added"], &made["classifier"]["pictures"]),
        (&4.into(), &4.into())
    );
    let refused = made["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1);
    assert!(refused[0]["image"].as_str().unwrap().ends_with("page.png"));
    fs::remove_file(home.path("pictures/blue/page.png")).unwrap();

    home.picture("new/reddish.png", [240, 0, 20]);
    home.picture("new/bluish.png", [20, 0, 240]);
    let stored = home.labels(&["--classifier", "hues", "new"]);
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[1][0]["label"], "red");
    assert_eq!(stored, home.labels(&["--support", "pictures", "new"]));

    home.picture("one.png", [0, 255, 0]);
    let added = home.succeeds(&["classifier", "add", "Hues", "--class", "green", "one.png"]);
    assert!(added.contains("added 1 pictures"), "{added}");
    let moved = home.succeeds(&["classifier", "move", "Hues", "r2.png", "--to", "GREEN"]);
    assert_eq!(moved, "Moved 1 picture from red to green\n");
    let shown = home.json(&["classifier", "show", "Hues", "--pictures"]);
    let counts: Vec<&Value> = shown["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| &class["pictures"])
        .collect();
    assert_eq!(counts, [2, 1, 2]);
    let undone = home.succeeds(&["classifier", "undo", "Hues"]);
    assert_eq!(undone, "Undid: moved 1 picture from red to green\n");

    let set = ["--reject", "0.05", "--head", "lda", "--name", "Tints"];
    let set = home.succeeds(&[&["classifier", "set", "Hues"][..], &set].concat());
    assert_eq!(
        set,
        "Renamed the classifier from Hues to Tints and changed how it decides\n"
    );
    let shown = home.json(&["classifier", "show", "Tints"]);
    assert_eq!(shown["classifier"]["head"]["head"], "lda");
    assert!((shown["classifier"]["head"]["reject"].as_f64().unwrap() - 0.05).abs() < 1e-6);
    let set = home.succeeds(&[
        "classifier",
        "set",
        "Tints",
        "--reject",
        "0",
        "--name",
        "Hues",
    ]);
    assert!(set.starts_with("Renamed the classifier"), "{set}");
    let set = home.succeeds(&["classifier", "set", "Hues", "--adapter", "none"]);
    assert_eq!(set, "Changed how it sees\n");
    let bad = home.fails(&["classifier", "set", "Hues", "--reject", "1.5"]);
    assert!(bad.contains("it must be above 0 and below 1"), "{bad}");
    let nothing = home.fails(&["classifier", "set", "Hues"]);
    assert!(nothing.contains("hint: give --name"), "{nothing}");
    home.succeeds(&["classifier", "set", "Hues", "--adapter", "default"]);
    let gone = home.succeeds(&["classifier", "rm", "Hues", "--picture", "one.png"]);
    assert_eq!(gone, "Deleted 1 picture from green\n");
    let gone = home.succeeds(&["classifier", "rm", "Hues", "--class", "green"]);
    assert_eq!(gone, "Deleted green\n");
    let listed = home.json(&["classifier", "list"]);
    assert_eq!(listed[0]["name"], "Hues");
    assert_eq!(
        (&listed[0]["classes"], &listed[0]["pictures"]),
        (&2.into(), &4.into())
    );

    let freed = home.json(&["classifier", "rm", "Hues", "--yes"]);
    assert!(freed["freed_bytes"].as_u64().unwrap() > 0);
    let unknown = home.fails(&["classifier", "undo", "Hues"]);
    assert!(
        unknown.contains("there is no classifier \"Hues\""),
        "{unknown}"
    );
    assert!(unknown.contains("hint: "), "{unknown}");
}

#[test]
fn a_classifier_is_made_asked_changed_and_deleted_on_the_command_line() {
    walk_through(&Home::new());
}

#[test]
fn where_a_server_holds_the_data_folder_it_makes_the_same_changes() {
    let home = Home::new();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--backbone", "tiny"];
    let _server = Server::of(program(home.0.path(), &arguments));
    walk_through(&home);
}

#[test]
fn answers_are_a_table_on_request_and_a_bad_picture_has_its_reason_there() {
    let home = Home::new();
    home.succeeds(&["classifier", "create", "Hues", "pictures"]);
    home.picture("new/a, b.png", [240, 0, 20]);
    fs::write(home.path("new/page.png"), "<html>").unwrap();
    let table = home.succeeds(&["classify", "--classifier", "Hues", "--csv", "new"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "image,label,probability,novelty,error");
    assert!(lines[1].starts_with("\"new/a, b.png\",red,"), "{table}");
    assert!(lines[2].starts_with("new/page.png,,,,"), "{table}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_table_in_a_file_goes_on_where_it_was_stopped_and_takes_no_answers_of_another_revision() {
    let home = Home::new();
    home.succeeds(&["classifier", "create", "Hues", "pictures"]);
    for (name, colour) in [
        ("a, b", [240, 0, 20]),
        ("c", [0, 9, 240]),
        ("d", [250, 0, 0]),
    ] {
        home.picture(&format!("new/{name}.png"), colour);
    }
    let sort = [
        "classify",
        "--classifier",
        "Hues",
        "--out",
        "new.csv",
        "new",
    ];
    home.succeeds(&sort);
    let whole = fs::read_to_string(home.path("new.csv")).unwrap();
    assert_eq!(whole.lines().count(), 4, "{whole}");
    // As if it had been killed in the last line.
    fs::write(home.path("new.csv"), &whole[..whole.len() - 5]).unwrap();
    let output = home.run(&sort);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("2 of 3 pictures are there already"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(home.path("new.csv")).unwrap(), whole);
    // In the first line.
    fs::write(home.path("new.csv"), &whole[..9]).unwrap();
    home.succeeds(&sort);
    assert_eq!(fs::read_to_string(home.path("new.csv")).unwrap(), whole);

    home.succeeds(&["classifier", "undo", "Hues"]);
    home.succeeds(&["classifier", "add", "Hues", "pictures"]);
    let stderr = home.fails(&sort);
    assert!(
        stderr.contains("has answers of revision ") && stderr.contains("hint: "),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(home.path("new.csv")).unwrap(), whole);
    fs::write(home.path("notes.csv"), "my notes\n").unwrap();
    let stderr = home.fails(&[
        "classify",
        "--classifier",
        "Hues",
        "--out",
        "notes.csv",
        "new",
    ]);
    assert!(
        stderr.contains("notes.csv is not a table of answers"),
        "{stderr}"
    );
    assert_eq!(
        fs::read_to_string(home.path("notes.csv")).unwrap(),
        "my notes\n"
    );
}

#[test]
fn a_folder_without_a_usable_picture_makes_no_classifier() {
    let home = Home::new();
    fs::create_dir_all(home.path("pages/a")).unwrap();
    fs::write(home.path("pages/a/page.png"), "<html>").unwrap();
    let stderr = home.fails(&["classifier", "create", "Pages", "pages"]);
    assert!(
        stderr.contains("none of the pictures could be used"),
        "{stderr}"
    );
    assert_eq!(home.json(&["classifier", "list"]), serde_json::json!([]));
}

#[test]
fn each_command_has_examples_in_its_help() {
    let home = tempfile::tempdir().unwrap();
    for verb in ["create", "show", "add", "move", "rm", "set", "undo"] {
        let output = program(home.path(), &["classifier", verb, "--help"]).output();
        let help = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(
            help.contains(&format!("lora-recycle classifier {verb} ")),
            "{help}"
        );
    }
}

#[test]
fn a_check_is_told_in_lines_and_as_json() {
    let home = Home::new();
    home.succeeds(&["classifier", "create", "Colours", "pictures"]);
    let told = home.succeeds(&["classifier", "check", "Colours"]);
    assert!(
        told.contains(" of 4 examples are sorted right by the others: ")
            && told.contains("(95 % interval "),
        "{told}"
    );
    let check = home.json(&["classifier", "check", "Colours"]);
    assert_eq!(
        (&check["pictures"], &check["classes"]),
        (&4.into(), &2.into())
    );
    let said = home.fails(&["classifier", "check", "Nothing"]);
    assert!(said.contains("Nothing"), "{said}");
}
