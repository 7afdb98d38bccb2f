//! What can go wrong before a device computes, and how an error of the driver is told.

use super::libraries::MissingLibrary;
use crate::backend::DeviceError;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use thiserror::Error;

/// Why there is no CUDA device to compute on.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum CudaError {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Libraries(Vec<MissingLibrary>),
    #[error(
        "there is no CUDA device {ordinal}: the driver shows {count}\nhint: nvidia-smi lists them; in a container they must be passed in (docker run --gpus all)"
    )]
    NoDevice { ordinal: usize, count: usize },
    #[error(
        "{name} has compute capability {major}.{minor}; the kernels need 8.0 (Ampere) or newer\nhint: compute on the CPU, with --device cpu"
    )]
    TooOld {
        name: String,
        major: i32,
        minor: i32,
    },
    #[error("the CUDA kernels of {file} do not compile for {architecture}: {log}")]
    Compile {
        file: &'static str,
        architecture: String,
        log: String,
    },
    #[error("the CUDA kernels of {file} cannot be loaded: {reason}")]
    Load { file: &'static str, reason: String },
    #[error("{call}: {reason}")]
    Call { call: &'static str, reason: String },
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// The driver's name and text of an error.
pub fn text(error: DriverError) -> String {
    let part = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or("unknown".into(), |text| text.to_string_lossy().into_owned())
    };
    format!(
        "{}, {}",
        part(error.error_name()),
        part(error.error_string())
    )
}

/// The error of `call`, which asked for `bytes` of memory if it asked for any.
pub fn device_error(call: &str, error: DriverError, bytes: usize) -> DeviceError {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::OutOfMemory { bytes },
        _ => DeviceError::Lost {
            reason: format!("{call}: {}", text(error)),
        },
    }
}

/// As [`device_error`], for calls before a device computes.
pub fn call_error(call: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Call {
        call,
        reason: text(error),
    }
}
