//! Where ONNX Runtime computes: which of its builds is loaded for `--device`, and whether CUDA is tried.

use super::cuda::{CudaPart, cuda_library, cuda_parts, is_partly_there};
use super::ort_library::{OrtLibrary, OrtLibraryError, load_ort_library};
use ort::ep::{self, ExecutionProvider};
use std::sync::Once;

/// Where ONNX Runtime computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Device {
    /// CUDA where ONNX Runtime with CUDA, a driver and a device are there, else the CPU.
    #[default]
    Auto,
    /// The CPU, also where CUDA works.
    Cpu,
    /// CUDA, or an error that says what is missing.
    Cuda,
}

/// A loaded library, and whether sessions are to be opened on CUDA.
#[derive(Clone)]
pub struct Loaded {
    /// What sessions are opened with.
    pub library: OrtLibrary,
    /// Whether CUDA is tried; all that can be told before a session is opened speaks for it.
    pub cuda: bool,
}

/// Loads the library for `device`; where `auto` takes the CPU, the log says why.
///
/// # Errors
/// [`OrtLibraryError::NotFound`] where there is none, [`OrtLibraryError::Cuda`] says what is missing for CUDA.
pub fn load_for(device: Device) -> Result<Loaded, OrtLibraryError> {
    let on_cpu = || {
        Ok(Loaded {
            library: load_ort_library(None)?,
            cuda: false,
        })
    };
    match device {
        Device::Cpu => on_cpu(),
        Device::Cuda => on_cuda(),
        Device::Auto => on_cuda().or_else(|error| {
            static SAID: Once = Once::new();
            SAID.call_once(|| say_why_not(&error));
            on_cpu()
        }),
    }
}

fn say_why_not(error: &OrtLibraryError) {
    let reason = one_line(&error.to_string());
    // Where nothing of CUDA is there, nobody expects it.
    match is_partly_there() {
        true => tracing::info!("the CPU computes, CUDA is not used: {reason}"),
        false => tracing::debug!("the CPU computes, CUDA is not used: {reason}"),
    }
}

/// A message with hints in lines of their own, for the log.
pub(super) fn one_line(message: &str) -> String {
    message.replace("\nhint: ", "; ").replace('\n', ". ")
}

fn on_cuda() -> Result<Loaded, OrtLibraryError> {
    let missing: Vec<String> = cuda_parts()
        .into_iter()
        .filter_map(|CudaPart { found, .. }| found.err())
        .collect();
    if !missing.is_empty() {
        return Err(OrtLibraryError::Cuda(missing.join("\n")));
    }
    let library = load_ort_library(cuda_library().as_deref())?;
    // Another may have been loaded before.
    match ep::CUDA::is_available() {
        Ok(true) => Ok(Loaded {
            library,
            cuda: true,
        }),
        Ok(false) | Err(_) => Err(OrtLibraryError::Cuda(format!(
            "{} is ONNX Runtime {} without CUDA\nhint: `make setup GPU=1` fetches one with CUDA; unset ORT_DYLIB_PATH where it names another",
            library.path.display(),
            library.version
        ))),
    }
}
