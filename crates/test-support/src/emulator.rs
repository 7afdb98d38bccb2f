//! The fake CUDA libraries over the CPU emulator (`crates/engine/emulator`), built where they are not.

use crate::project;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Whether tests take the CUDA device of this machine in place of the emulated one: where `LORA_RECYCLE_CUDA_DEVICE` is `real`.
///
/// # Panics
/// For another value.
pub fn is_real_device_chosen() -> bool {
    match std::env::var("LORA_RECYCLE_CUDA_DEVICE") {
        Err(_) => false,
        Ok(value) if value == "emulated" => false,
        Ok(value) if value == "real" => true,
        Ok(value) => panic!("LORA_RECYCLE_CUDA_DEVICE is {value:?}, not emulated or real"),
    }
}

/// The folder of the fake libraries, for `engine::cuda::libraries::preload`.
///
/// # Panics
/// Where they cannot be built, with what the build has said.
pub fn folder() -> PathBuf {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let emulator = project("target/emulator");
        let built = Command::new("python3")
            .arg("-B")
            .arg(project("crates/engine/emulator/build.py"))
            .arg(&emulator)
            .output()
            .map_err(|error| format!("python3 cannot be started: {error}"))?;
        if built.status.success() {
            Ok(emulator.join("fake"))
        } else {
            Err(String::from_utf8_lossy(&built.stderr).into_owned())
        }
    });
    match built {
        Ok(folder) => folder.clone(),
        Err(reason) => panic!("the emulated CUDA device cannot be built: {reason}"),
    }
}
