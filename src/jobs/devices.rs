//! What jobs compute on: the processor, or a CUDA device that is opened when the first job needs it.

use crate::inference::preload_cuda;
use engine::cuda::{Availability, Cuda, CudaError, CudaOptions, Precision, availability};
use engine::session::{Arithmetic, Device};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What jobs are computed on where their recipe leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum JobDevice {
    /// A CUDA device where there is one with its libraries, else the processor
    #[default]
    Auto,
    /// The processor
    Cpu,
    /// A CUDA device; products round their operands to TF32
    Cuda,
    /// A CUDA device in FP32, which is slower: for comparisons with the processor
    CudaFp32,
}

/// The devices of this program; clones share them.
#[derive(Clone, Default)]
pub struct Devices(Arc<Shared>);

#[derive(Default)]
struct Shared {
    wanted: JobDevice,
    /// Keeps compiled kernels.
    cache: Option<PathBuf>,
    has_cuda: OnceLock<bool>,
    opened: Mutex<Vec<Cuda>>,
}

impl Devices {
    /// Nothing is opened yet. Compiled kernels are kept in the folder `cache`.
    pub fn new(wanted: JobDevice, cache: PathBuf) -> Self {
        Self(Arc::new(Shared {
            wanted,
            cache: Some(cache),
            ..Shared::default()
        }))
    }

    /// Whether there is what was asked for.
    ///
    /// # Errors
    /// [`CudaError`] where a CUDA device is wanted and there is none, or its libraries are missing.
    pub fn check(&self) -> Result<(), CudaError> {
        match self.0.wanted {
            JobDevice::Auto => Ok(()),
            _ => self.open(self.preferred()).map(drop),
        }
    }

    /// What jobs are computed on where their recipe leaves it open.
    pub fn preferred(&self) -> Arithmetic {
        match self.0.wanted {
            JobDevice::Cpu => Arithmetic::Cpu,
            JobDevice::Cuda => Arithmetic::CudaTf32,
            JobDevice::CudaFp32 => Arithmetic::CudaFp32,
            JobDevice::Auto => {
                let has_cuda = self.0.has_cuda.get_or_init(|| {
                    preload_cuda();
                    matches!(availability(0), Availability::Ready(_))
                });
                if *has_cuda {
                    Arithmetic::CudaTf32
                } else {
                    Arithmetic::Cpu
                }
            }
        }
    }

    /// What a recipe is planned with that asks for `asked`; the processor is left out, so that recipes look as they did
    /// before there were other devices.
    pub fn planned(&self, asked: Option<Arithmetic>) -> Option<Arithmetic> {
        let planned = asked.unwrap_or_else(|| self.preferred());
        (planned != Arithmetic::Cpu).then_some(planned)
    }

    /// The device that computes so.
    ///
    /// # Errors
    /// [`CudaError`] says what is missing and how to get it.
    pub fn open(&self, arithmetic: Arithmetic) -> Result<Device, CudaError> {
        let precision = match arithmetic {
            Arithmetic::Cpu => return Ok(Device::Cpu),
            Arithmetic::CudaTf32 => Precision::Tf32,
            Arithmetic::CudaFp32 => Precision::Fp32,
        };
        let mut opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cuda) = opened.iter().find(|cuda| cuda.precision() == precision) {
            return Ok(Device::Cuda(cuda.clone()));
        }
        preload_cuda();
        let cuda = Cuda::new(CudaOptions {
            ordinal: 0,
            precision,
            cache: self.0.cache.as_deref(),
        })?;
        opened.push(cuda.clone());
        Ok(Device::Cuda(cuda))
    }
}
