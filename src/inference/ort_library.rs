//! Finds ONNX Runtime's shared library and loads it once.

#![allow(unsafe_code, reason = "loads a library and calls what it exports")]

use ort::environment::Environment;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use thiserror::Error;

/// The release that graphs and tests are made for; patch releases of it are accepted too.
pub const ORT_VERSION: &str = "1.32.0";

/// Why ONNX Runtime cannot be used.
#[derive(Debug, Error, Clone)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum OrtLibraryError {
    #[error(
        "ONNX Runtime's library was not found. Run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime of version {ORT_VERSION}"
    )]
    NotFound,
    #[error("{path} cannot be loaded: {reason}", path = path.display())]
    Unloadable { path: PathBuf, reason: String },
    #[error(
        "{path} is ONNX Runtime {found}, but version {ORT_VERSION} is needed. Run `make setup`, or set ORT_DYLIB_PATH to the right library",
        path = path.display()
    )]
    WrongVersion { path: PathBuf, found: String },
    #[error("ONNX Runtime did not start: {0}")]
    Start(String),
}

/// Loads the library and starts its environment; later calls get the same one.
///
/// Searched in this order: `ORT_DYLIB_PATH`, a folder `.onnxruntime` beside the executable, the current folder or one of their
/// parents, the system's loader.
///
/// # Errors
/// [`OrtLibraryError`]; a library of another version is refused, not used.
pub fn load_ort_library() -> Result<Environment, OrtLibraryError> {
    static ENVIRONMENT: OnceLock<Result<Environment, OrtLibraryError>> = OnceLock::new();
    ENVIRONMENT.get_or_init(start).clone()
}

fn start() -> Result<Environment, OrtLibraryError> {
    let path = find()?;
    tracing::debug!(path = %path.display(), "loading ONNX Runtime");
    ort::init_from(&path)
        .map_err(|error| OrtLibraryError::Unloadable {
            path: path.clone(),
            reason: error.to_string(),
        })?
        .with_telemetry(false)
        .build()
        .map_err(|error| OrtLibraryError::Start(error.to_string()))
}

fn find() -> Result<PathBuf, OrtLibraryError> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        check(&path)?;
        return Ok(path);
    }
    if let Some(path) = fetched_library() {
        check(&path)?;
        return Ok(path);
    }
    let mut refused = None;
    for name in system_names() {
        let path = PathBuf::from(name);
        match check(&path) {
            Ok(()) => return Ok(path),
            Err(error @ OrtLibraryError::WrongVersion { .. }) => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or(OrtLibraryError::NotFound))
}

/// Where `make setup` puts the library.
fn fetched_library() -> Option<PathBuf> {
    let name =
        std::env::consts::DLL_PREFIX.to_owned() + "onnxruntime" + std::env::consts::DLL_SUFFIX;
    let executable = std::env::current_exe().ok();
    let current = std::env::current_dir().ok();
    [executable, current]
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join(".onnxruntime").join(&name))
        .find(|path| path.exists())
}

fn system_names() -> [String; 3] {
    let stem = format!("{}onnxruntime", std::env::consts::DLL_PREFIX);
    let suffix = std::env::consts::DLL_SUFFIX;
    if cfg!(target_os = "macos") {
        [
            format!("{stem}.{ORT_VERSION}{suffix}"),
            format!("{stem}.1{suffix}"),
            format!("{stem}{suffix}"),
        ]
    } else {
        [
            format!("{stem}{suffix}.{ORT_VERSION}"),
            format!("{stem}{suffix}.1"),
            format!("{stem}{suffix}"),
        ]
    }
}

fn check(path: &Path) -> Result<(), OrtLibraryError> {
    let found = version(path)?;
    let minor = |version: &str| {
        version
            .split('.')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    if minor(&found) == minor(ORT_VERSION) {
        Ok(())
    } else {
        Err(OrtLibraryError::WrongVersion {
            path: path.into(),
            found,
        })
    }
}

/// First members of `OrtApiBase`, fixed by ONNX Runtime's binary interface.
#[repr(C)]
struct ApiBase {
    get_api: extern "C" fn(u32) -> *const std::ffi::c_void,
    get_version_string: extern "C" fn() -> *const std::ffi::c_char,
}

/// Asks the library at `path` for its version before the `ort` crate binds to it.
fn version(path: &Path) -> Result<String, OrtLibraryError> {
    let unloadable = |reason: String| OrtLibraryError::Unloadable {
        path: path.into(),
        reason,
    };
    // SAFETY: loading runs the library's initialisers; the file is one that the user or `make setup` chose to run.
    let library =
        unsafe { libloading::Library::new(path) }.map_err(|error| unloadable(error.to_string()))?;
    // SAFETY: ONNX Runtime exports this function with this signature since version 1.0.
    let base = unsafe {
        library
            .get::<extern "C" fn() -> *const ApiBase>(b"OrtGetApiBase\0")
            .map(|get_base| get_base())
    }
    .map_err(|_| unloadable("it is not ONNX Runtime: it exports no OrtGetApiBase".into()))?;
    if base.is_null() {
        return Err(unloadable("OrtGetApiBase gave nothing".into()));
    }
    // SAFETY: `base` points at a static structure of the library, which is still loaded; the string is static too.
    let text = unsafe { CStr::from_ptr(((*base).get_version_string)()) };
    let version = text.to_string_lossy().into_owned();
    // ONNX Runtime keeps threads and statics; unloading it before the real use is not supported.
    std::mem::forget(library);
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_library_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = check(file.path()).unwrap_err();
        assert!(matches!(error, OrtLibraryError::Unloadable { .. }));
        assert!(
            error
                .to_string()
                .contains(&file.path().display().to_string())
        );
    }
}
