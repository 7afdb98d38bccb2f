//! What the backend says about the device and its libraries, and the cache of compiled kernels.

use engine::cuda::{Availability, Cuda, CudaError, CudaOptions, availability};
use std::fs;
use std::process::Command;
use test_support::emulated_device::Emulator;

#[test]
fn a_device_that_can_compute_is_described_and_one_that_is_not_there_is_refused_with_a_hint() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let Availability::Ready(device) = availability(0) else {
        panic!("{:?}", availability(0));
    };
    assert_eq!(device.name, "emulated device");
    assert_eq!(device.capability, (8, 0));
    assert_eq!(device.memory, 8 << 30);
    let versions = [device.driver, device.cublas, device.nvrtc];
    assert_eq!(versions, [(13, 0); 3]);
    let Availability::Missing(missing) = availability(3) else {
        panic!("there is one device");
    };
    assert!(missing[0].contains("no CUDA device 3"), "{missing:?}");
    assert!(missing[0].contains("hint: "), "{missing:?}");
}

#[test]
fn kernels_are_compiled_once_and_a_broken_file_of_the_cache_is_compiled_again() {
    let _emulator = Emulator::open();
    let folder = tempfile::tempdir().unwrap();
    let options = CudaOptions {
        cache: Some(folder.path()),
        ..CudaOptions::default()
    };
    let files = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        files.sort();
        files
    };
    Cuda::new(options).unwrap();
    let first = files();
    assert_eq!(first.len(), 13);
    let (whole, path) = &first[3];
    fs::write(path, &whole[..whole.len() - 1]).unwrap();
    Cuda::new(options).unwrap();
    assert_eq!(files(), first);
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = CudaOptions {
        cache: Some(file.path()),
        ..CudaOptions::default()
    };
    Cuda::new(options).unwrap();
    let missing = CudaOptions {
        ordinal: 1,
        ..options
    };
    assert!(matches!(
        Cuda::new(missing),
        Err(CudaError::NoDevice {
            ordinal: 1,
            count: 1
        })
    ));
}

/// Set for the process that does not load the emulated libraries.
const ALONE: &str = "ENGINE_TEST_WITHOUT_EMULATOR";

#[test]
fn without_libraries_what_is_missing_is_named_with_a_hint_and_nothing_ends() {
    if std::env::var_os(ALONE).is_some() {
        let opened = Cuda::new(CudaOptions::default());
        match availability(0) {
            // A machine that has them all.
            Availability::Ready(device) => println!("found {device:?}"),
            Availability::Missing(missing) => {
                let error = opened.err().unwrap().to_string();
                for missing in missing {
                    assert!(missing.contains("\nhint: "), "{missing}");
                    assert!(error.contains(&missing), "{error}");
                    println!("found missing: {missing}");
                }
            }
        }
        return;
    }
    let name = "libraries::without_libraries_what_is_missing_is_named_with_a_hint_and_nothing_ends";
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("found "), "{ran:?}");
    print!("{said}");
}
