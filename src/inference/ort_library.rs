//! Finds ONNX Runtime's shared library and loads it once.

#![allow(unsafe_code, reason = "loads a library and calls what it exports")]

use ort::environment::Environment;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// The release that graphs and tests are made for.
pub const ORT_VERSION: &str = "1.32.0";
/// The newest release of onnxruntime-gpu; the graphs give the same on it.
pub const CUDA_ORT_VERSION: &str = "1.31.1";

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
        "{path} is ONNX Runtime {found}, but version {ORT_VERSION} is needed, or {CUDA_ORT_VERSION} with CUDA. Run `make setup`, or set ORT_DYLIB_PATH to the right library",
        path = path.display()
    )]
    WrongVersion { path: PathBuf, found: String },
    #[error("ONNX Runtime did not start: {0}")]
    Start(String),
    /// What is missing, with hints.
    #[error("{0}")]
    Cuda(String),
}

/// ONNX Runtime, loaded. Copies share the environment.
#[derive(Clone)]
pub struct OrtLibrary {
    /// What sessions are made in.
    pub environment: Environment,
    /// Where it is; a bare name where the system's loader has found it.
    pub path: PathBuf,
    /// As the library says.
    pub version: String,
}

/// Loads the library and starts its environment; later calls get the same one, whatever they ask for.
///
/// Where no library `at` a place is asked for, it is searched in this order: `ORT_DYLIB_PATH`, a folder `.onnxruntime` beside the
/// executable, the current folder or one of their parents, the system's loader.
///
/// # Errors
/// [`OrtLibraryError`]; a library of another version is refused, not used.
pub fn load_ort_library(at: Option<&Path>) -> Result<OrtLibrary, OrtLibraryError> {
    static LOADED: Mutex<Option<OrtLibrary>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = loaded.as_ref() {
        return Ok(library.clone());
    }
    let found = match at {
        Some(path) => check(path).map(|version| (path.into(), version)),
        None => find(),
    };
    let (path, version) = found?;
    Ok(loaded.insert(start(path, version)?).clone())
}

fn start(path: PathBuf, version: String) -> Result<OrtLibrary, OrtLibraryError> {
    tracing::debug!(path = %path.display(), version, "loading ONNX Runtime");
    let environment = ort::init_from(&path)
        .map_err(|error| OrtLibraryError::Unloadable {
            path: path.clone(),
            reason: error.to_string(),
        })?
        .with_telemetry(false)
        .build()
        .map_err(|error| OrtLibraryError::Start(error.to_string()))?;
    Ok(OrtLibrary {
        environment,
        path,
        version,
    })
}

fn find() -> Result<(PathBuf, String), OrtLibraryError> {
    if let Some(path) = named_library().or_else(|| fetched(Path::new(&library_name()))) {
        let version = check(&path)?;
        return Ok((path, version));
    }
    let mut refused = None;
    for name in system_names() {
        let path = PathBuf::from(name);
        match check(&path) {
            Ok(version) => return Ok((path, version)),
            Err(error @ OrtLibraryError::WrongVersion { .. }) => refused = Some(error),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or(OrtLibraryError::NotFound))
}

/// What `ORT_DYLIB_PATH` names.
pub(super) fn named_library() -> Option<PathBuf> {
    let path = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// A file that `make setup` puts into `.onnxruntime`.
pub(super) fn fetched(file: &Path) -> Option<PathBuf> {
    let executable = std::env::current_exe().ok();
    let current = std::env::current_dir().ok();
    [executable, current]
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join(".onnxruntime").join(file))
        .find(|path| path.exists())
}

/// As the library is called without its version.
pub(super) fn library_name() -> String {
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    format!("{prefix}onnxruntime{suffix}")
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

/// Loads the library at `path` and gives its version, if that is one of those that fit.
///
/// # Errors
/// [`OrtLibraryError::Unloadable`], [`OrtLibraryError::WrongVersion`]
pub(super) fn check(path: &Path) -> Result<String, OrtLibraryError> {
    let found = version(path)?;
    match fits(&found) {
        true => Ok(found),
        false => Err(OrtLibraryError::WrongVersion {
            path: path.into(),
            found,
        }),
    }
}

/// Patch releases of the two releases fit, too, if they are not older.
fn fits(version: &str) -> bool {
    let parts = |version: &str| -> Option<[u32; 3]> {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        let parts = [parts.next()??, parts.next()??, parts.next()??];
        Some(parts)
    };
    let Some(found) = parts(version) else {
        return false;
    };
    let releases = [ORT_VERSION, CUDA_ORT_VERSION]
        .into_iter()
        .filter_map(parts);
    let mut releases = releases.filter(|release| release[..2] == found[..2]);
    releases.any(|release| release[2] <= found[2])
}

/// Why the system's loader refused a library; the error itself says only that it did.
pub(super) fn loader_words(error: &libloading::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), ToString::to_string)
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
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| unloadable(loader_words(&error)))?;
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
    fn the_release_of_the_cpu_and_that_of_cuda_fit_and_no_others() {
        for version in ["1.32.0", "1.32.4", "1.31.1", "1.31.2"] {
            assert!(fits(version), "{version}");
        }
        for version in ["1.31.0", "1.30.3", "1.33.0", "2.32.0", "1.32", "", "1.31.x"] {
            assert!(!fits(version), "{version}");
        }
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = check(file.path()).unwrap_err();
        assert!(matches!(error, OrtLibraryError::Unloadable { .. }));
        let said = error.to_string();
        assert!(said.contains(&file.path().display().to_string()));
        assert!(!said.ends_with("dlopen failed"), "{said}");
    }
}
