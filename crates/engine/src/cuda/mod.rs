//! The CUDA backend: one stream on one device, our own kernels, and products by cuBLAS. The libraries are loaded at run time; without
//! them the module does nothing but say what is missing.

#![allow(
    unsafe_code,
    reason = "calls of the driver, of cuBLAS and of NVRTC, each after checks of what it is given"
)]

mod activation;
mod attention;
mod augment;
mod availability;
mod backend;
mod compile;
mod convolution;
mod driver;
mod elementwise;
mod error;
mod geometry;
mod images;
mod kernels;
pub mod libraries;
mod linear;
mod memory;
mod moments;
mod norm;
mod optimise;
mod pixels;
mod product;
mod queue;
mod recording;
mod resnet;
mod spectrum;
mod tokens;
mod work;

pub use availability::{Availability, DeviceDescription, availability};
pub use error::CudaError;
pub use product::Precision;
pub use queue::{Queue, Stored};

use compile::Compiler;
use driver::{Context, Stream};
use kernels::Kernels;
use std::path::Path;
use std::sync::{Arc, Mutex};
use work::Lane;

/// Which device, and how it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CudaOptions<'a> {
    /// Number of the device, as `nvidia-smi` counts them.
    pub ordinal: usize,
    /// Of products and attention.
    pub precision: Precision,
    /// Keeps compiled kernels; without it they are compiled at each start.
    pub cache: Option<&'a Path>,
}

/// Least compute capability: the first with TF32.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// A device that is ready to compute.
pub struct Device {
    lane: Lane,
    /// Where graphs are captured, once there are any.
    capture: Mutex<Option<Lane>>,
    kernels: Kernels,
    context: Arc<Context>,
    memory: usize,
}

impl Drop for Device {
    fn drop(&mut self) {
        // cuBLAS gives back its handle in the context of the thread.
        let _ = self.context.bind();
    }
}

/// The context of a device that the kernels can run on, and its compute capability.
fn open(ordinal: usize) -> Result<(Arc<Context>, (i32, i32)), CudaError> {
    libraries::check().map_err(CudaError::Libraries)?;
    let context = Context::open(ordinal)?;
    let (major, minor) = context.capability()?;
    if (major, minor) < LEAST_CAPABILITY {
        let name = context.name()?;
        return Err(CudaError::TooOld { name, major, minor });
    }
    Ok((context, (major, minor)))
}

/// Computes on a CUDA device. Copies share the device and its stream.
#[derive(Clone)]
pub struct Cuda {
    device: Arc<Device>,
    precision: Precision,
}

impl Cuda {
    /// Opens a device and loads the kernels. [`libraries::preload`] says where to look for the libraries first.
    ///
    /// # Errors
    /// [`CudaError`] says what is missing and how to get it.
    pub fn new(options: CudaOptions<'_>) -> Result<Self, CudaError> {
        let (context, (major, minor)) = open(options.ordinal)?;
        let compiler = Compiler {
            architecture: format!("sm_{major}{minor}"),
            version: compile::version()?,
            cache: options.cache,
        };
        let stream = Stream::new(&context)?;
        let kernels = Kernels::load(&context, &compiler)?;
        context
            .bind()
            .map_err(error::call_error("cuCtxSetCurrent"))?;
        let lane = Lane::new(stream)?;
        let memory = context.memory()?;
        Ok(Self {
            device: Arc::new(Device {
                lane,
                capture: Mutex::new(None),
                kernels,
                context,
                memory,
            }),
            precision: options.precision,
        })
    }
    /// Of products and attention.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}
