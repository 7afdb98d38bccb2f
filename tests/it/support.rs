//! What several tests need.

use crate::test_app::png;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use test_support::project;

/// The program with the data folder `home/data`, out of reach of this machine's settings.
pub fn program(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lora-recycle"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LORA_RECYCLE_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("HOME", home)
        .env("LORA_RECYCLE_DATA_DIR", home.join("data"))
        .env("LORA_RECYCLE_SHIPPED_ADAPTER", "none")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null());
    command
}

/// Makes the classifier "Colours" on the tiny backbone, with a red and a blue picture, in the data folder of `home`.
pub fn make_colours(home: &Path) {
    let run = |arguments: &[&str]| {
        let output = program(home, arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
    };
    let tiny = project("tests/golden/vit-tiny");
    run(&["backbone", "add", tiny.to_str().unwrap(), "--name", "tiny"]);
    let pictures = home.join("pictures");
    for (label, [red, green, blue]) in [("red", [250, 0, 0]), ("blue", [0, 0, 250])] {
        fs::create_dir_all(pictures.join(label)).unwrap();
        fs::write(pictures.join(label).join("1.png"), png(red, green, blue)).unwrap();
    }
    let folder = pictures.to_str().unwrap();
    run(&[
        "classifier",
        "create",
        "Colours",
        folder,
        "--backbone",
        "tiny",
    ]);
}
