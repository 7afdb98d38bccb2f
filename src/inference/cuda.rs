//! What ONNX Runtime needs to compute on CUDA: a build with that provider, a driver, and the libraries that the provider links to.

#![allow(unsafe_code, reason = "loads libraries")]

use super::ort_library::{
    CUDA_ORT_VERSION, check, fetched, library_name, loader_words, named_library,
};
use engine::cuda::libraries::{self, Library, MissingLibrary};
use std::path::{Path, PathBuf};

/// What the provider of onnxruntime-gpu links to beside the driver, each after those that it needs itself.
const LINKED: [&str; 4] = [
    "libcudart.so.13",
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
];

/// A part of what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaPart {
    /// What it is called.
    pub name: &'static str,
    /// What was found, or what is missing with a hint in a line of its own.
    pub found: Result<String, String>,
}

/// Everything that is needed, in the order in which to get it. Libraries that `make setup GPU=1` has fetched are loaded and stay, so
/// that the provider finds them.
pub fn cuda_parts() -> [CudaPart; 3] {
    let folder = cuda_folder();
    if let Some(folder) = &folder {
        libraries::preload(folder);
    }
    [
        ("cuda driver", driver()),
        ("cuda toolkit", load(folder.as_deref(), &LINKED)),
        ("cuda build", build()),
    ]
    .map(|(name, found)| CudaPart { name, found })
}

/// Where `make setup GPU=1` puts ONNX Runtime with CUDA and what it links to.
fn cuda_folder() -> Option<PathBuf> {
    fetched(Path::new("cuda"))
}

/// ONNX Runtime with CUDA, as far as files tell: what `ORT_DYLIB_PATH` names, else what was fetched.
pub fn cuda_library() -> Option<PathBuf> {
    let path = named_library().or_else(|| Some(cuda_folder()?.join(library_name())))?;
    // The library is found beside its providers, also through a link.
    let folder = path.canonicalize().ok()?.parent()?.to_owned();
    let provider = folder.join("libonnxruntime_providers_cuda.so");
    provider.exists().then_some(path)
}

/// Whether somebody who knows this machine may expect CUDA to be used: it has a driver, or ONNX Runtime with CUDA.
pub fn is_partly_there() -> bool {
    driver().is_ok() || cuda_library().is_some()
}

fn driver() -> Result<String, String> {
    let missing = libraries::check().err().unwrap_or_default();
    let is_driver = |missing: &&MissingLibrary| missing.library == Library::Driver;
    match missing.iter().find(is_driver) {
        Some(missing) => Err(missing.to_string()),
        None => Ok("libcuda is there".into()),
    }
}

fn build() -> Result<String, String> {
    let hint = format!(
        "`make setup GPU=1` fetches it, or set ORT_DYLIB_PATH to the libonnxruntime of onnxruntime-gpu {CUDA_ORT_VERSION}"
    );
    let Some(path) = cuda_library() else {
        return Err(match named_library() {
            Some(path) => format!(
                "{}, which ORT_DYLIB_PATH names, is ONNX Runtime without CUDA\nhint: {hint}",
                path.display()
            ),
            None => format!("ONNX Runtime with CUDA is not found\nhint: {hint}"),
        });
    };
    match check(&path) {
        Ok(version) => Ok(format!("ONNX Runtime {version}, {}", path.display())),
        Err(error) => Err(format!("{error}\nhint: {hint}")),
    }
}

/// Loads `names`, from `folder` where they are in it, else as the system finds them.
fn load(folder: Option<&Path>, names: &[&str]) -> Result<String, String> {
    let mut problems = Vec::new();
    let mut absent = Vec::new();
    for &name in names {
        let path = folder.map(|folder| folder.join(name));
        let path = path.filter(|path| path.exists());
        let file = path.as_deref().unwrap_or(Path::new(name));
        // SAFETY: loading a library runs its own initialisation; those of CUDA may be loaded at any time, from any thread.
        match unsafe { libloading::Library::new(file) } {
            // It stays: found by its name from now on.
            Ok(library) => std::mem::forget(library),
            Err(_) if path.is_none() => absent.push(name),
            Err(error) => problems.push(format!(
                "{} cannot be loaded: {}\nhint: delete its folder and run `make setup GPU=1`",
                file.display(),
                loader_words(&error)
            )),
        }
    }
    if !absent.is_empty() {
        problems.push(format!(
            "not found: {}\nhint: this is part of CUDA 13; `make setup GPU=1` fetches it",
            absent.join(", ")
        ));
    }
    match problems.is_empty() {
        true => Ok(names.join(", ")),
        false => Err(problems.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_cannot_be_loaded_is_told_with_its_path_and_one_that_is_not_there_with_its_name()
     {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libbroken.so.1"), "not a library").unwrap();
        let names = ["libabsent.so.1", "libbroken.so.1"];
        let text = load(Some(folder.path()), &names).unwrap_err();
        let lines: Vec<&str> = text.lines().collect();
        let path = folder.path().join("libbroken.so.1");
        assert!(lines[0].starts_with(&format!("{} cannot be loaded: ", path.display())));
        assert!(lines[1].starts_with("hint: "), "{text}");
        assert!(lines[2].starts_with("not found: libabsent.so.1"), "{text}");
        assert!(lines[3].starts_with("hint: "), "{text}");
    }
}
