//! The CUDA libraries, loaded at run time. cudarc ends the program where a library or a function is missing, so that all that this
//! backend calls is looked for first.

use cudarc::{cublas, driver, nvrtc};
use std::fmt;
use std::path::Path;

/// A library that the backend needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `libcuda`, which comes with the driver.
    Driver,
    /// `libcublas`: products of matrices.
    Blas,
    /// `libnvrtc`: compiles the kernels.
    Compiler,
}

/// A library that is not there, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingLibrary {
    /// Which one.
    pub library: Library,
    /// The first function that it lacks; `None` where it is not found at all.
    pub function: Option<&'static str>,
}

impl Library {
    const ALL: [Self; 3] = [Self::Driver, Self::Blas, Self::Compiler];

    fn name(self) -> &'static str {
        match self {
            Self::Driver => "libcuda",
            Self::Blas => "libcublas",
            Self::Compiler => "libnvrtc",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Driver => {
                "it comes with NVIDIA's driver, 580 or newer (on Debian: apt install nvidia-driver); in a container run with --gpus all"
            }
            Self::Blas => "it is part of CUDA 13 (pip install nvidia-cublas)",
            Self::Compiler => "it is part of CUDA 13 (pip install nvidia-cuda-nvrtc)",
        }
    }

    /// All that the backend and cudarc call of it.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &[
                "cuInit",
                "cuDriverGetVersion",
                "cuDeviceGet",
                "cuDeviceGetCount",
                "cuDeviceGetName",
                "cuDeviceGetAttribute",
                "cuDeviceTotalMem_v2",
                "cuDevicePrimaryCtxRetain",
                "cuDevicePrimaryCtxRelease_v2",
                "cuCtxSetCurrent",
                "cuStreamCreate",
                "cuStreamDestroy_v2",
                "cuStreamSynchronize",
                "cuMemAlloc_v2",
                "cuMemFree_v2",
                "cuMemHostAlloc",
                "cuMemFreeHost",
                "cuMemsetD8Async",
                "cuMemcpyHtoDAsync_v2",
                "cuMemcpyDtoHAsync_v2",
                "cuModuleLoadData",
                "cuModuleUnload",
                "cuModuleGetFunction",
                "cuFuncSetAttribute",
                "cuLaunchKernel",
                "cuGetErrorName",
                "cuGetErrorString",
            ],
            Self::Blas => &[
                "cublasCreate_v2",
                "cublasDestroy_v2",
                "cublasGetVersion_v2",
                "cublasSetStream_v2",
                "cublasSetWorkspace_v2",
                "cublasGemmEx",
            ],
            Self::Compiler => &[
                "nvrtcVersion",
                "nvrtcCreateProgram",
                "nvrtcDestroyProgram",
                "nvrtcCompileProgram",
                "nvrtcGetProgramLogSize",
                "nvrtcGetProgramLog",
                "nvrtcGetCUBINSize",
                "nvrtcGetCUBIN",
            ],
        }
    }

    fn find(self) -> Result<(), MissingLibrary> {
        let missing = |function| MissingLibrary {
            library: self,
            function,
        };
        // SAFETY: loading a library runs its own initialisation; those of CUDA may be loaded at any time, from any thread.
        let present = unsafe {
            match self {
                Self::Driver => driver::sys::is_culib_present(),
                Self::Blas => cublas::sys::is_culib_present(),
                Self::Compiler => nvrtc::sys::is_culib_present(),
            }
        };
        if !present {
            return Err(missing(None));
        }
        // SAFETY: as above. It is there, so that this does not end the program.
        let library = unsafe {
            match self {
                Self::Driver => driver::sys::culib(),
                Self::Blas => cublas::sys::culib(),
                Self::Compiler => nvrtc::sys::culib(),
            }
        };
        for function in self.functions() {
            // SAFETY: the address is looked up, not called.
            let found = unsafe { library.get::<unsafe extern "C" fn()>(function.as_bytes()) };
            if found.is_err() {
                return Err(missing(Some(function)));
            }
        }
        Ok(())
    }
}

impl fmt::Display for MissingLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, hint) = (self.library.name(), self.library.hint());
        match self.function {
            None => write!(f, "{name} is not found\nhint: {hint}"),
            Some(function) => write!(f, "{name} is too old: it has no {function}\nhint: {hint}"),
        }
    }
}

/// Beginnings of the names of library files, each after those that it needs.
const ORDER: [&str; 7] = [
    "libcuda.so",
    "libcudart",
    "libcublasLt",
    "libcublas.",
    "libnvrtc-builtins",
    "libnvrtc.",
    "nvcuda",
];

/// Loads the CUDA libraries of `folder`, so that they are taken before those of the system. What is not one of them, or cannot be
/// loaded, is passed over: [`check`] says afterwards what is missing.
pub fn preload(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            // A second build of NVRTC under the same inner name.
            if name.contains(".alt.") {
                return None;
            }
            let place = ORDER.iter().position(|start| name.starts_with(start))?;
            Some((place, path))
        })
        .collect();
    files.sort();
    for (_, path) in files {
        // SAFETY: as in `Library::find`; the folder is the caller's.
        if let Ok(library) = unsafe { libloading::Library::new(&path) } {
            // It stays: found by its name from now on.
            std::mem::forget(library);
        }
    }
}

/// Looks for all libraries and functions that the backend calls.
///
/// # Errors
/// All that are missing.
pub fn check() -> Result<(), Vec<MissingLibrary>> {
    let missing = Library::ALL.into_iter().map(Library::find);
    let missing: Vec<_> = missing.filter_map(Result::err).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_and_a_missing_function_are_told_with_a_hint_how_to_get_them() {
        for library in Library::ALL {
            let name = library.name();
            for function in [None, Some(library.functions()[0])] {
                let text = MissingLibrary { library, function }.to_string();
                assert!(
                    text.starts_with(name) && text.contains("\nhint: "),
                    "{text}"
                );
                assert!(function.is_none_or(|function| text.contains(function)));
            }
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_passed_over() {
        preload(Path::new("no such folder"));
    }
}
