//! What there is to compute on, for those who ask before they do.

use super::compile;
use super::driver::{Stream, driver_version};
use super::error::{CudaError, call_error};
use super::product::Blas;

/// A device and the libraries that drive it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    /// As the driver calls it.
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (i32, i32),
    /// Bytes.
    pub memory: usize,
    /// Newest CUDA that the driver knows, major and minor.
    pub driver: (i32, i32),
    /// Version of cuBLAS, major and minor.
    pub cublas: (i32, i32),
    /// Version of NVRTC, major and minor.
    pub nvrtc: (i32, i32),
}

/// Whether a device can compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Ready(DeviceDescription),
    /// What is missing, with a hint each how to get it.
    Missing(Vec<String>),
}

/// Looks for the libraries and the device `ordinal`; compiles nothing.
pub fn availability(ordinal: usize) -> Availability {
    match describe(ordinal) {
        Ok(description) => Availability::Ready(description),
        Err(CudaError::Libraries(all)) => {
            Availability::Missing(all.iter().map(ToString::to_string).collect())
        }
        Err(error) => Availability::Missing(vec![error.to_string()]),
    }
}

fn describe(ordinal: usize) -> Result<DeviceDescription, CudaError> {
    let (context, capability) = super::open(ordinal)?;
    context.bind().map_err(call_error("cuCtxSetCurrent"))?;
    let stream = Stream::new(&context)?;
    let blas = Blas::new(&stream)?;
    Ok(DeviceDescription {
        name: context.name()?,
        capability,
        memory: context.memory()?,
        driver: driver_version()?,
        cublas: blas.version()?,
        nvrtc: compile::version()?,
    })
}
