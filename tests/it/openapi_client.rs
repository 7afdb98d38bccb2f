//! A Python client that is generated from the OpenAPI document, against the real program. `scripts/ensure_openapi_client` installs the
//! generator; without it the test is skipped.

use crate::server::Server;
use crate::support::program;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::project;

/// The Python that has the generator.
fn python() -> Option<PathBuf> {
    let python = project(".venv/openapi-client/bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!(
        "skipped: no generator of Python clients is installed; scripts/ensure_openapi_client installs it"
    );
    None
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout
}

fn generate(python: &Path, folder: &Path) {
    run(Command::new(python)
        .args([
            "-m",
            "openapi_python_client",
            "generate",
            "--fail-on-warning",
        ])
        .args(["--meta", "none", "--path"])
        .arg(project("docs/openapi.json"))
        .arg("--config")
        .arg(project("tests/openapi_client/config.yaml"))
        .arg("--output-path")
        .arg(folder.join("lora_recycle_client")));
}

#[test]
fn a_generated_client_imports_classifies_with_any_label_and_asks_for_jobs() {
    let Some(python) = python() else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    generate(&python, home.path());
    let backbone = project("tests/golden/vit-tiny");
    let backbone = backbone.to_str().unwrap();
    run(&mut program(
        home.path(),
        &["backbone", "add", backbone, "--name", "tiny"],
    ));
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--backbone", "tiny"];
    let server = Server::of(program(home.path(), &arguments));
    let told = run(Command::new(python)
        .arg(project("tests/openapi_client/check.py"))
        .arg(server.url(""))
        .arg(project("tests/golden/vit-tiny/adapter-peft-v4"))
        .arg(project("assets/examples"))
        .env("PYTHONPATH", home.path()));
    assert!(told.contains("pets:1"), "{told}");
}
