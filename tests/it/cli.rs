//! The command line through the real program: exit status, stdout and stderr of whole runs.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use test_support::project;
use test_support::reference::change_one_value;

/// A run in a separate data folder, without the variables of whoever runs the tests.
struct Run {
    command: Command,
    folder: TempDir,
}

impl Run {
    fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lora-recycle"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LORA_RECYCLE_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(project("."))
            .env("HOME", folder.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CONFIG_HOME");
        Self { command, folder }
    }

    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    fn output(mut self) -> Output {
        self.command.output().unwrap()
    }

    /// Exit status, stdout and stderr as one text; the run's own folder is written `[HOME]`.
    fn transcript(mut self) -> String {
        let output = self.command.output().unwrap();
        let text = format!(
            "exit: {}\n--- stdout\n{}--- stderr\n{}",
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap()
        );
        text.replace(&self.folder.path().display().to_string(), "[HOME]")
    }

    /// The JSON on stdout of a run that must succeed.
    fn json(self) -> Value {
        let output = self.output();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn write_picture(path: &Path, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(30, 20, image::Rgb(colour))
        .save(path)
        .unwrap();
}

/// Classes of nearly one colour each.
fn colour_classes(pictures_per_class: u8) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (label, colour) in [
        ("blue", [0, 0, 200]),
        ("green", [0, 200, 0]),
        ("red", [200, 0, 0]),
    ] {
        for number in 0..pictures_per_class {
            let path = folder.path().join(label).join(format!("{number}.png"));
            write_picture(&path, colour.map(|level: u8| level + number));
        }
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

const TINY: &str = "tests/golden/vit-tiny";

#[test]
fn classify_prints_one_object_an_image_and_a_reason_for_each_bad_file() {
    let support = colour_classes(2);
    let queries = tempfile::tempdir().unwrap();
    let red = queries.path().join("red.png");
    write_picture(&red, [190, 5, 5]);
    let broken = queries.path().join("broken.png");
    fs::write(&broken, "<html>").unwrap();
    let missing = queries.path().join("missing.png");
    let answers = Run::new(&[
        "classify",
        "--json",
        "--backbone",
        TINY,
        "--support",
        text(support.path()),
        text(&missing),
        text(&red),
        text(&broken),
    ])
    .json();
    assert_eq!(answers.as_array().unwrap().len(), 3);
    assert_eq!(answers[0]["error"]["code"], "file_unreadable");
    let answer = &answers[1];
    assert_eq!(answer["image"], text(&red));
    assert_eq!(answer["label"], "red");
    assert_eq!(answer["scores"].as_array().unwrap().len(), 3);
    assert_eq!(answer["scores"][0]["label"], "red");
    let total: f64 = answer["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|score| score["probability"].as_f64().unwrap())
        .sum();
    assert!((total - 1.0).abs() < 1e-5);
    assert_eq!(answer["nearest"][0]["label"], "red");
    assert!(answer["nearest"][0]["distance"].is_number());
    assert_eq!(answers[2]["image"], text(&broken));
    assert_eq!(answers[2]["error"]["code"], "image_unsupported_format");
}

#[test]
fn classify_takes_all_pictures_together_on_request_and_says_why_it_cannot() {
    let support = colour_classes(2);
    let queries = colour_classes(3);
    let red = queries.path().join("red");
    let words = [
        "classify",
        "--json",
        "--backbone",
        TINY,
        "--support",
        text(support.path()),
        "--transductive",
        text(&red),
    ];
    let answers = Run::new(&words).json();
    for answer in answers.as_array().unwrap() {
        assert_eq!(
            (&answer["label"], &answer["transductive"]),
            (&"red".into(), &true.into())
        );
    }
    let refused = Run::new(&[&words[..], &["--head", "nearest-mean"]].concat());
    let output = refused.output();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("needs the head lda or lda-augmented")
    );
}

#[test]
fn classify_fails_when_no_picture_could_be_used() {
    let support = colour_classes(1);
    let broken = support.path().join("broken.png");
    fs::write(&broken, "no picture").unwrap();
    let output = Run::new(&[
        "classify",
        "--backbone",
        TINY,
        "--support",
        text(support.path()),
        text(&broken),
    ])
    .output();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("looks like plain text"), "{stderr}");
}

#[test]
fn a_support_folder_without_classes_says_how_to_make_them() {
    let folder = tempfile::tempdir().unwrap();
    let transcript = Run::new(&["classify", "--support", text(folder.path()), "x.jpg"])
        .transcript()
        .replace(text(folder.path()), "[FOLDER]");
    insta::assert_snapshot!(transcript, @r"
    exit: 1
    --- stdout
    --- stderr
    error: [FOLDER] has no sub-folders
    hint: make one sub-folder per class and put its pictures inside
    ");
}

#[test]
fn an_unknown_backbone_is_refused_with_where_to_look() {
    insta::assert_snapshot!(Run::new(&["backbone", "show", "dinov9"]).transcript(), @r#"
    exit: 1
    --- stdout
    --- stderr
    error: backbone "dinov9" is not known: it is neither "dinov2-s8" nor a folder
    hint: `lora-recycle backbone list` shows what there is
    "#);
}

#[test]
fn an_image_size_that_does_not_fit_names_the_nearest_that_does() {
    insta::assert_snapshot!(Run::new(&["embed", "--image-size", "100", "assets/examples/fish/goldfish.jpg"]).transcript(), @r"
    exit: 1
    --- stdout
    --- stderr
    error: image size 100 px is not a multiple of the patch size 14 px of dinov2-s8
    hint: try --image-size 98
    ");
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let output = Run::new(&["classify", "--suport", "x", "y.jpg"]).output();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--support")
    );
}

#[test]
fn embed_gives_the_feature_of_each_picture() {
    let rows = Run::new(&["embed", "--json", "assets/examples/fish"]).json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_eq!(row["feature"].as_array().unwrap().len(), 384);
    }
}

#[test]
fn backbone_list_and_show_describe_the_embedded_one() {
    let list = Run::new(&["backbone", "list", "--json"]).json();
    assert_eq!(list[0]["name"], "dinov2-s8");
    let shown = Run::new(&["backbone", "show", "dinov2-s8", "--json"]).json();
    assert_eq!(shown, list[0]);
    assert_eq!(shown["feature_width"], 384);
    assert_eq!(shown["image_size"], 98);
}

#[test]
fn verify_lists_what_it_computed_from_and_what_it_did_not_check() {
    let result = Run::new(&["verify", "--json", "tests/golden/clip-tiny"]).json();
    assert_eq!(result["ok"], true);
    let inputs = result["inputs"].as_array().unwrap();
    assert!(inputs.contains(&Value::from("teacher_logits")));
    let folder = copy_of(TINY);
    let path = folder.path().join("reference.safetensors");
    fs::copy(
        project("tests/golden/clip-tiny/official/reference.safetensors"),
        path,
    )
    .unwrap();
    let output = Run::new(&["verify", text(folder.path())]).output();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("not checked: full.ce, full.ce_grad_pixels"),
        "{stderr}"
    );
}

#[test]
fn verify_prints_each_tensor_with_its_error_and_tolerance() {
    let output = Run::new(&["verify", "tests/golden/resnet-tiny"]).output();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 23);
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, error, "of", tolerance, "ok"] = words[..] else {
            panic!("{line}");
        };
        let [error, tolerance] = [error, tolerance].map(|number| number.parse::<f32>().unwrap());
        assert!(error <= tolerance, "{line}");
    }
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "inputs: pixel_values\n"
    );
}

#[test]
fn verify_fails_when_a_reference_value_is_off_and_says_which() {
    let folder = copy_of(TINY);
    let path = folder.path().join("reference.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    change_one_value(&mut bytes, "features");
    fs::write(&path, bytes).unwrap();
    let output = Run::new(&["verify", "--json", text(folder.path())]).output();
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["ok"], false);
    assert_eq!(result["tensors"][0]["name"], "features");
    assert_eq!(result["tensors"][0]["ok"], false);
    let detail = result["tensors"][0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("value 160 is "), "{detail}");
    assert_eq!(result["tensors"][1]["ok"], true);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("1 of 3 tensors"), "{stderr}");
}

#[test]
fn verify_never_passes_on_a_reference_it_knows_nothing_of() {
    let folder = copy_of(TINY);
    fs::copy(
        project("tests/golden/clip-tiny/official/lora_0.safetensors"),
        folder.path().join("reference.safetensors"),
    )
    .unwrap();
    let output = Run::new(&["verify", text(folder.path())]).output();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("no tensor in it is one that can be compared"),
        "{stderr}"
    );
}

fn copy_of(folder: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(project(folder)).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

#[test]
fn evaluate_reports_accuracy_interval_and_seed() {
    let folder = colour_classes(8);
    fs::write(folder.path().join("red/note.txt"), "no picture").unwrap();
    let arguments = [
        "evaluate",
        text(folder.path()),
        "--backbone",
        TINY,
        "--way",
        "3",
        "--shot",
        "2",
        "--queries",
        "4",
        "--tasks",
        "20",
        "--seed",
        "7",
        "--json",
    ];
    let report = Run::new(&arguments).json();
    for (key, value) in [
        ("way", 3),
        ("shot", 2),
        ("queries", 4),
        ("tasks", 20),
        ("seed", 7),
    ] {
        assert_eq!(report[key], value);
    }
    // The note is not a picture and is left out.
    assert_eq!(report["images"], 24);
    let bare = &report["methods"][0];
    assert_eq!(bare["name"], "bare");
    assert_eq!(bare["adapter"], Value::Null);
    assert_eq!(bare["accuracy"], 1.0);
    assert_eq!(bare["ci95"], 0.0);
    assert_eq!(Run::new(&arguments).json(), report);
}

#[test]
fn evaluate_says_how_many_pictures_a_task_needs() {
    let folder = colour_classes(3);
    let transcript = Run::new(&["evaluate", text(folder.path())]).transcript();
    insta::assert_snapshot!(transcript, @r"
    exit: 1
    --- stdout
    --- stderr
    error: 5-way tasks need 5 classes with 16 images each (shot + queries); 0 classes have that many
    hint: choose a smaller --way, --shot or --queries, or add pictures
    ");
}

#[test]
fn a_flag_beats_a_variable_which_beats_the_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(
        &config,
        "json = true\n[evaluate]\ntasks = 3\nshot = 1\nqueries = 1\nway = 2\nseed = 1\n",
    )
    .unwrap();
    let pictures = colour_classes(3);
    let report = Run::new(&[
        "evaluate",
        text(pictures.path()),
        "--config",
        text(&config),
        "--backbone",
        TINY,
        "--seed",
        "3",
    ])
    .env("LORA_RECYCLE_TASKS", "5")
    .env("LORA_RECYCLE_SEED", "2")
    .json();
    assert_eq!(report["way"], 2);
    assert_eq!(report["tasks"], 5);
    assert_eq!(report["seed"], 3);
    assert!(report["encoder"]["engine"].is_string(), "{report}");
}

#[test]
fn an_unknown_key_of_the_configuration_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "thraeds = 2\n").unwrap();
    let output = Run::new(&["doctor", "--config", text(&config)]).output();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("there is no option \"thraeds\" here"),
        "{stderr}"
    );
}

#[test]
fn doctor_finds_nothing_wrong_with_a_sound_installation() {
    let checks = Run::new(&["doctor", "--json"]).json();
    let names: Vec<&str> = checks
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    let (usual, of_cuda) = names.split_at(4);
    assert_eq!(
        usual,
        ["onnx runtime", "data folder", "backbone", "inference"]
    );
    assert!(of_cuda.iter().all(|name| name.starts_with("cuda ")));
    assert!(
        checks[3]["detail"].as_str().unwrap().contains(" on c"),
        "{checks}"
    );
}

#[test]
fn a_library_of_another_version_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("old.c");
    fs::write(
        &source,
        "static const char *version(void) { return \"1.20.1\"; }\n\
         static struct { void *get_api; const char *(*get_version)(void); } base = { 0, version };\n\
         void *OrtGetApiBase(void) { return &base; }\n",
    )
    .unwrap();
    let library = folder.path().join("libonnxruntime.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", text(&library), text(&source)])
        .status()
        .unwrap();
    assert!(built.success());
    let output = Run::new(&["embed", "assets/examples/fish/goldfish.jpg"])
        .env("ORT_DYLIB_PATH", &library)
        .output();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("is ONNX Runtime 1.20.1, but version 1.32.0 is needed"),
        "{stderr}"
    );
}

#[test]
fn a_library_that_is_not_there_is_named() {
    let output = Run::new(&["doctor"])
        .env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so")
        .output();
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.contains("FAIL onnx runtime  /nowhere/libonnxruntime.so cannot be loaded"),
        "{stdout}"
    );
}

#[test]
fn a_taken_address_is_refused_with_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = Run::new(&["serve", "--backbone", TINY, "--listen", &address]).output();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("cannot be listened on"), "{stderr}");
    assert!(stderr.contains("hint: choose another --listen"), "{stderr}");
}

#[test]
fn bench_times_the_chosen_steps_and_refuses_unknown_ones_with_the_list() {
    let report = Run::new(&[
        "bench",
        "--size",
        "vit-s-98-one",
        "--step",
        "forward",
        "--rounds",
        "1",
        "--json",
    ])
    .json();
    assert_eq!(report["engine"].as_array().unwrap().len(), 1);
    assert_eq!(report["engine"][0]["name"], "vit-s-98-one forward");
    assert!(report["engine"][0]["median_milliseconds"].as_f64().unwrap() > 0.0);
    let unknown = Run::new(&["bench", "--step", "backward"]).output();
    assert_eq!(unknown.status.code(), Some(2));
    let stderr = String::from_utf8(unknown.stderr).unwrap();
    assert!(stderr.contains("meta-sparse-75"), "{stderr}");
}

#[test]
fn prior_build_writes_statistics_of_the_usable_pictures() {
    use engine::loss::TokenStatistics;
    let pictures = colour_classes(3);
    fs::write(pictures.path().join("red/notes.txt"), "no picture").unwrap();
    let out = pictures.path().join("statistics.safetensors");
    let folder = text(pictures.path());
    let data = tempfile::tempdir().unwrap();
    let tiny = [
        "backbone",
        "add",
        "tests/golden/dinov2-tiny",
        "--name",
        "tiny",
        "--json",
    ];
    Run::new(&tiny)
        .env("LORA_RECYCLE_DATA_DIR", text(data.path()))
        .json();
    let arguments = ["prior", "build", folder, "--out", text(&out), "--json"];
    let report = Run::new(&arguments)
        .env("LORA_RECYCLE_DATA_DIR", text(data.path()))
        .env("LORA_RECYCLE_BACKBONE", "tiny")
        .json();
    assert_eq!(report["pictures"], 9);
    assert_eq!(report["left_out"], 1);
    let bytes = fs::read(&out).unwrap();
    let statistics = TokenStatistics::read(&bytes, 32).unwrap();
    assert_eq!(
        report["backbone_digest"],
        statistics.backbone_digest.as_str()
    );
    let sites: Vec<&str> = statistics.sites.keys().map(String::as_str).collect();
    assert_eq!(sites.len(), 8);
    assert!(sites.contains(&"layers.0.norm1") && sites.contains(&"layers.3.norm2"));
}

#[test]
fn prior_build_without_usable_pictures_says_what_to_name() {
    let empty = tempfile::tempdir().unwrap();
    let folder = text(empty.path());
    let out = empty.path().join("statistics.safetensors");
    let run = Run::new(&["prior", "build", folder, "--out", text(&out)])
        .env("LORA_RECYCLE_BACKBONE", "tests/golden/dinov2-tiny");
    let transcript = run.transcript().replace(folder, "[DIR]");
    assert_eq!(
        transcript,
        "exit: 1\n--- stdout\n--- stderr\nerror: [DIR] has no usable pictures\n\
         hint: name a folder with a few hundred photographs\n"
    );
    assert!(!out.exists());
}
