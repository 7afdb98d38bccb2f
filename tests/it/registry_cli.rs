//! The registry through the real program, each test in a fresh data folder.

use crate::support::program;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use test_support::project;

/// A data folder and the program that works on it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With the golden backbone `vit-tiny` and two versions of an adapter `a` for it.
    fn with_adapters() -> Self {
        let home = Self::new();
        let folder = golden("");
        home.succeeds(&["backbone", "add", text(&folder), "--name", "tiny"]);
        for style in ["adapter-peft-v4", "adapter-peft-v5"] {
            let folder = golden(style);
            home.succeeds(&["adapter", "import", text(&folder), "--name", "a"]);
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        program(self.0.path(), arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        serde_json::from_str(&self.succeeds(&arguments)).unwrap()
    }

    /// Exit status and stderr of a run that must fail.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

fn golden(name: &str) -> PathBuf {
    project("tests/golden/vit-tiny").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn reading_commands_make_no_data_folder() {
    let home = Home::new();
    assert_eq!(home.json(&["adapter", "list"]), json!([]));
    assert_eq!(home.json(&["adapter", "alias", "list"]), json!([]));
    let backbones = home.json(&["backbone", "list"]);
    assert_eq!(backbones[0]["name"], "dinov2-s8");
    let (status, stderr) = home.fails(&["adapter", "show", "a"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("there is no adapter \"a\""), "{stderr}");
    let folder = golden("adapter-peft-v4");
    let (status, stderr) = home.fails(&["adapter", "import", text(&folder), "--dry-run"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("refused"), "{stderr}");
    assert!(!home.path("data").exists());
}

#[test]
fn a_new_data_folder_begins_with_the_adapter_that_comes_with_the_program() {
    for (begins_with, expected) in [("default", true), ("present", false)] {
        let home = Home::new();
        home.succeeds(&["adapter", "gc", "--shipped-adapter", begins_with]);
        let list = home.json(&["adapter", "list"]);
        assert_eq!(list.as_array().unwrap().len(), 1);
        assert_eq!(list[0]["name"], "signs-and-shapes");
        assert_eq!(list[0]["is_default"], expected);
        // It is not brought back.
        if expected {
            home.succeeds(&["adapter", "alias", "rm", "default"]);
        }
        home.succeeds(&["adapter", "rm", "signs-and-shapes", "--yes"]);
        home.succeeds(&["adapter", "gc", "--shipped-adapter", begins_with]);
        assert_eq!(home.json(&["adapter", "list"]), json!([]));
        home.succeeds(&["adapter", "import", "shipped", "--name", "mine"]);
        let again = home.json(&["adapter", "list"]);
        assert_eq!(again[0]["digest"], list[0]["digest"]);
        assert_eq!(again[0]["is_default"], false);
    }
    let home = Home::new();
    home.succeeds(&["adapter", "gc", "--shipped-adapter", "none"]);
    assert_eq!(home.json(&["adapter", "list"]), json!([]));
}

#[test]
fn an_adapter_goes_in_and_comes_out_the_same() {
    let home = Home::with_adapters();
    let list = home.json(&["adapter", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["name"], "a");
    assert_eq!(list[0]["version"], 2);
    let show = home.succeeds(&["adapter", "show", "a:1"]);
    assert!(show.contains("query, value in 4 layers"), "{show}");

    let digest = |path: &Path| {
        let answer = home.json(&["adapter", "import", text(path), "--dry-run"]);
        answer["report"]["adapter_digest"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = digest(&golden("adapter-peft-v4"));
    for format in ["peft", "bundle"] {
        let out = home.path(format);
        let run = ["adapter", "export", "a", "--out", text(&out)];
        let written = home.json(&[&run[..], &["--format", format, "--names", "v5"]].concat());
        let files = written["files"].as_array().unwrap();
        let exported = match files.as_slice() {
            [zip] => PathBuf::from(zip.as_str().unwrap()),
            _ => out.clone(),
        };
        assert_eq!(digest(&exported), first, "{format}");
        let (status, stderr) = home.fails(&run);
        assert_eq!(status, 1);
        assert!(stderr.contains("is not empty"), "{stderr}");
    }
    // Looking stored nothing.
    assert_eq!(home.json(&["adapter", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn an_import_prints_what_became_of_each_tensor() {
    let home = Home::with_adapters();
    let folder = golden("adapter-peft-v4");
    let table = home.succeeds(&["adapter", "import", text(&folder), "--name", "b"]);
    assert!(table.contains("used       [4, 32]"), "{table}");
    assert!(table.contains("backbone   tiny fits"), "{table}");
    assert!(table.contains("stored     b:1"), "{table}");
    let broken = home.path("broken");
    fs::create_dir(&broken).unwrap();
    fs::copy(
        folder.join("adapter_config.json"),
        broken.join("adapter_config.json"),
    )
    .unwrap();
    let (status, stderr) = home.fails(&["adapter", "import", text(&broken), "--name", "b"]);
    assert_eq!(status, 1);
    assert!(
        stderr.contains("adapter_model.safetensors is missing"),
        "{stderr}"
    );
}

#[test]
fn only_a_backbone_that_is_typed_restricts_an_import() {
    let home = Home::with_adapters();
    let folder = golden("adapter-peft-v4");
    let run = ["adapter", "import", text(&folder), "--dry-run"];
    home.succeeds(&[&run[..], &["--backbone", "tiny"]].concat());
    home.fails(&[&run[..], &["--backbone", "dinov2-s8"]].concat());
    let (status, stderr) = home.fails(&[&run[..], &["--backbone", "tny"]].concat());
    assert_eq!(status, 1);
    assert!(stderr.contains("did you mean \"tiny\""), "{stderr}");
}

#[test]
fn an_adapter_that_an_alias_points_at_is_not_deleted() {
    let home = Home::with_adapters();
    home.succeeds(&["adapter", "alias", "set", "a@best", "a:1"]);
    home.succeeds(&["adapter", "alias", "set", "default", "a@best"]);
    let (status, stderr) = home.fails(&["adapter", "rm", "a:1", "--yes"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("a@best"), "{stderr}");
    home.succeeds(&["adapter", "alias", "rm", "default", "--backbone", "tiny"]);
    home.succeeds(&["adapter", "alias", "set", "a@best", "a:2"]);
    home.succeeds(&["adapter", "alias", "rollback", "a@best"]);
    let history = home.json(&["adapter", "alias", "history", "a@best"]);
    assert_eq!(history.as_array().unwrap().len(), 3);
    let aliases = home.json(&["adapter", "alias", "list"]);
    assert_eq!(aliases[0]["adapter"]["label"], "a:1");
    home.succeeds(&["adapter", "alias", "rm", "a@best"]);

    let (status, stderr) = home.fails(&["adapter", "rm", "a:1"]);
    assert_eq!(status, 2);
    assert!(stderr.contains("--yes"), "{stderr}");
    home.succeeds(&["adapter", "rm", "a:1", "--yes"]);
    assert_eq!(home.json(&["adapter", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_merge_remembers_its_parents() {
    let home = Home::with_adapters();
    let merge = ["adapter", "merge", "a:1", "a:2", "--name", "m", "--method"];
    let merged = home.json(&[&merge[..], &["average"]].concat());
    assert_eq!(merged["adapter"]["rank"], 8);
    let lineage = &merged["adapter"]["lineage"];
    assert_eq!(lineage["parents"][1]["label"], "a:2");
    assert_eq!(lineage["recipe"]["weights"], json!([0.5, 0.5]));
    let tsv = ["tsv", "--scale", "0.5", "--rank", "3"];
    let merged = home.json(&[&merge[..], &tsv].concat());
    assert_eq!(merged["adapter"]["rank"], 3);
    let recipe = &merged["adapter"]["lineage"]["recipe"];
    assert_eq!(recipe["weights"], json!([1.0, 1.0]));
    assert_eq!(recipe["options"]["scale"], 0.5);
    let after_pico = home.json(&[&merge[..], &["pico+tsv", "--rank", "3"]].concat());
    assert_eq!(after_pico["adapter"]["rank"], 3);
    let recipe = &after_pico["adapter"]["lineage"]["recipe"];
    assert_eq!(recipe["method"], "pico+tsv");
    let (status, stderr) = home.fails(&[&merge[..], &["pico+peft-ties"]].concat());
    assert_eq!(status, 2);
    assert!(
        stderr.contains("Pico cannot come before peft-ties; it comes before sum, "),
        "{stderr}"
    );
    let (status, stderr) = home.fails(&[&merge[..], &["average", "--weights", "1"]].concat());
    assert_eq!(status, 2);
    assert!(stderr.contains("1 weights for 2 adapters"), "{stderr}");
    let (status, _) = home.fails(&[&merge[..], &["peft-ties"]].concat());
    assert_eq!(status, 1);
}

#[test]
fn a_backbone_stays_while_an_adapter_uses_it() {
    let home = Home::with_adapters();
    let names: Vec<Value> = home
        .json(&["backbone", "list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|backbone| backbone["name"].clone())
        .collect();
    assert_eq!(names, ["dinov2-s8", "tiny"]);
    let (status, stderr) = home.fails(&["backbone", "rm", "tiny"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("still used by 2 adapters"), "{stderr}");
    home.succeeds(&["adapter", "rm", "a:1", "a:2", "--yes"]);
    home.succeeds(&["backbone", "rm", "tiny"]);
    let freed = home.json(&["adapter", "gc"]);
    assert_eq!(freed["disk_use"]["blobs"], 0);
}

#[test]
fn a_folder_that_another_process_holds_is_refused_with_what_to_do() {
    let home = Home::with_adapters();
    let lock = fs::File::open(home.path("data").join("lock")).unwrap();
    lock.lock().unwrap();
    let (status, stderr) = home.fails(&["adapter", "gc"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("in use by another process"), "{stderr}");
    assert!(
        stderr.contains("hint: stop the server, or use its page /admin/adapters"),
        "{stderr}"
    );
    // Reading goes on.
    assert_eq!(home.json(&["adapter", "list"]).as_array().unwrap().len(), 2);
}
