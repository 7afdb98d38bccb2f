//! What a session computes on.

use crate::cuda::{Cuda, Precision};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What computes.
#[derive(Clone, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA device.
    Cuda(Cuda),
}

/// What the last bits of a result depend on beside its recipe. Results of different arithmetic are close, not equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// The processor, in `f32`.
    #[default]
    Cpu,
    /// A CUDA device whose products round their operands to TF32.
    CudaTf32,
    /// A CUDA device, in `f32`.
    CudaFp32,
}

impl Arithmetic {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CudaTf32 => "cuda_tf32",
            Self::CudaFp32 => "cuda_fp32",
        }
    }
}

impl Device {
    /// How it computes.
    pub fn arithmetic(&self) -> Arithmetic {
        match self {
            Self::Cpu => Arithmetic::Cpu,
            Self::Cuda(cuda) => match cuda.precision() {
                Precision::Tf32 => Arithmetic::CudaTf32,
                Precision::Fp32 => Arithmetic::CudaFp32,
            },
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.arithmetic().name())
    }
}
