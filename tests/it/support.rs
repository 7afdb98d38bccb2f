//! What several tests need.

use std::path::Path;
use std::process::{Command, Stdio};

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
