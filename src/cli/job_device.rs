//! `--job-device`: what work beside answering is computed on.

use super::CliError;
use super::options::Common;
use crate::jobs::{Devices, JobDevice};
use clap::Args;
use engine::cuda::CudaError;
use engine::session::{Arithmetic, Device};

#[derive(Debug, Clone, Args)]
pub struct JobDeviceArgument {
    /// What is computed on beside answers: auto takes a CUDA device where there is one with its libraries, else the processor
    #[arg(
        long,
        value_name = "DEVICE",
        value_enum,
        env = "LORA_RECYCLE_JOB_DEVICE",
        default_value_t
    )]
    pub job_device: JobDevice,
}

impl JobDeviceArgument {
    /// The device itself, for work that is no job and keeps nothing of how it was computed; in FP32 where the choice is left open.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn open(&self, common: &Common) -> Result<Device, CliError> {
        let devices = Devices::new(self.job_device, common.data_folder()?.join("cache/cuda"));
        let arithmetic = match (self.job_device, devices.preferred()) {
            (JobDevice::Auto, Arithmetic::CudaTf32) => Arithmetic::CudaFp32,
            (_, preferred) => preferred,
        };
        devices.open(arithmetic).map_err(|error| refused(&error))
    }
}

/// What is said where there is no such device.
pub fn refused(error: &CudaError) -> CliError {
    CliError::user(format!("--job-device: {error}"))
        .hint("--job-device auto uses the processor where there is no CUDA device")
}
