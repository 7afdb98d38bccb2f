//! `--device` on the command line, on machines with and without a GPU: ONNX Runtime is a copy beside which stands, or does not
//! stand, a file that is called as its provider for CUDA.

use crate::support::program;
use lora_recycle::inference::{Device, load_for};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use tempfile::TempDir;
use test_support::project;

/// A copy of ONNX Runtime in a folder, and a home.
struct Copied {
    library: PathBuf,
    home: TempDir,
}

impl Copied {
    /// `None` where the library is the system's, of which only the loader knows where it is.
    fn new(with_cuda: bool) -> Option<Self> {
        let source = load_for(Device::Cpu).unwrap().library.path;
        if !source.exists() {
            eprintln!("skipped: {} has no known place", source.display());
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let library = home.path().join("libonnxruntime.so");
        fs::copy(source, &library).unwrap();
        if with_cuda {
            let provider = home.path().join("libonnxruntime_providers_cuda.so");
            fs::write(provider, "not a library").unwrap();
        }
        Some(Self { library, home })
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        program(self.home.path(), arguments)
            .current_dir(project("."))
            .env("ORT_DYLIB_PATH", &self.library)
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }
}

const TINY: &str = "tests/golden/vit-tiny";
const PICTURE: &str = "assets/examples/fish/goldfish.jpg";
const EMBED: [&str; 5] = ["embed", "--json", "--backbone", TINY, PICTURE];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    text(&output.stderr)
}

#[test]
fn auto_computes_on_the_cpu_where_cuda_is_not_whole_and_the_log_and_the_answer_say_so() {
    let Some(copied) = Copied::new(true) else {
        return;
    };
    let output = copied.run(&EMBED, &[]);
    let answers = json(&output);
    assert_eq!(answers[0]["encoder"]["device"], "cpu", "{answers}");
    let providers = &answers[0]["encoder"]["providers"];
    assert_eq!(providers, &serde_json::json!(["CPUExecutionProvider"]));
    let said = text(&output.stderr);
    let reason = "the CPU computes, CUDA is not used: ";
    assert_eq!(said.matches(reason).count(), 1, "{said}");
}

#[test]
fn cuda_by_flag_variable_or_file_is_refused_with_all_that_is_missing_and_how_to_get_it() {
    let Some(copied) = Copied::new(false) else {
        return;
    };
    let config = copied.home.path().join("config.toml");
    fs::write(&config, "device = \"cuda\"\n").unwrap();
    let by_file = ["--config", config.to_str().unwrap()];
    for (options, variables) in [
        (&["--device", "cuda"][..], &[][..]),
        (&[], &[("LORA_RECYCLE_DEVICE", "cuda")]),
        (&by_file, &[]),
    ] {
        let arguments = [&EMBED[..], options].concat();
        let output = copied.run(&arguments, variables);
        let said = refusal(&output);
        let library = copied.library.display();
        let missing =
            format!("{library}, which ORT_DYLIB_PATH names, is ONNX Runtime without CUDA");
        assert!(said.contains(&missing), "{said}");
        assert!(
            said.contains("\nhint: `make setup GPU=1` fetches it"),
            "{said}"
        );
    }
}

#[test]
fn a_file_that_only_is_called_a_provider_does_not_make_cuda() {
    let Some(copied) = Copied::new(true) else {
        return;
    };
    let arguments = [&EMBED[..], &["--device", "cuda"]].concat();
    let said = copied.run(&arguments, &[]);
    assert!(refusal(&said).contains("hint: "));
}

#[test]
fn the_built_in_engine_serves_on_the_cpu_and_refuses_cuda_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let run = |device| {
        let arguments = [&EMBED[..], &["--encoder", "native", "--device", device]].concat();
        let mut command = program(home.path(), &arguments);
        command.current_dir(project(".")).output().unwrap()
    };
    let refused = run("cuda");
    assert!(refusal(&refused).contains("Leave --device cuda out, or use --encoder ort"));
    for device in ["auto", "cpu"] {
        let answers = json(&run(device));
        assert_eq!(answers[0]["encoder"]["engine"], "native");
        assert_eq!(answers[0]["encoder"]["device"], "cpu");
        assert_eq!(answers[0]["encoder"]["providers"], serde_json::json!([]));
    }
}

#[test]
fn doctor_tells_what_cuda_lacks_which_is_a_fault_only_where_it_is_asked_for() {
    let Some(copied) = Copied::new(false) else {
        return;
    };
    let checks = json(&copied.run(&["doctor", "--json"], &[]));
    let find = |name: &str| {
        let mut checks = checks.as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).unwrap()
    };
    for name in ["cuda driver", "cuda toolkit", "cuda build", "cuda device"] {
        let check = find(name);
        assert_eq!(check["needed"], false, "{check}");
        if check["ok"] == false {
            assert!(
                check["detail"].as_str().unwrap().contains("\nhint: "),
                "{check}"
            );
        }
    }
    assert_eq!(find("cuda build")["ok"], false);
    let inference = find("inference")["detail"].as_str().unwrap();
    assert!(
        inference.contains(" on cpu (CPUExecutionProvider) "),
        "{inference}"
    );

    let asked = copied.run(&["doctor", "--device", "cuda"], &[]);
    assert_eq!(asked.status.code(), Some(1));
    let said = text(&asked.stdout);
    assert!(said.contains("FAIL cuda build"), "{said}");
    assert!(
        said.contains("FAIL inference     not tried: CUDA is asked for"),
        "{said}"
    );
}
