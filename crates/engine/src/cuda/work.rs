//! What a queue asks of the device, as values: kept until it is time, compared with what has been asked before, and done in any lane.

use super::driver::{Geometry, Stream};
use super::error::CudaError;
use super::kernels::{Arguments, Kernels, Name};
use super::product::{Blas, Precision, Product};
use crate::backend::DeviceError;

/// A stream, with a handle of cuBLAS that queues there.
pub struct Lane {
    pub blas: Blas,
    pub stream: Stream,
}

impl Lane {
    /// In `stream`, whose context is current.
    pub fn new(stream: Stream) -> Result<Self, CudaError> {
        Ok(Self {
            blas: Blas::new(&stream)?,
            stream,
        })
    }
}

/// One thing to do. Two that are equal do the same to the same memory; only the values of an upload are not part of it. Places in memory have
/// been checked against its ends when it was made, and the memory is there until it is done.
#[derive(Clone, Copy, PartialEq)]
pub enum Work {
    /// A kernel.
    Launch {
        kernel: Name,
        geometry: Geometry,
        arguments: Arguments,
    },
    /// A product of matrices.
    Product(Product, Precision),
    /// Zeros for `length` values from the address `target` on.
    Zero { target: u64, length: usize },
    /// A copy of `length` values to the address `target`, from value `first` of those that are given with the work.
    Upload {
        target: u64,
        first: usize,
        length: usize,
    },
    /// A copy of `length` values from the address `source` to pinned memory at the address `target`.
    Download {
        source: u64,
        target: usize,
        length: usize,
    },
}

impl Work {
    /// Queues it.
    ///
    /// # Safety
    /// What [`Work`] says; `values` has all values of the uploads, and is either pageable or stays until the work is done.
    pub unsafe fn queue(
        &self,
        kernels: &Kernels,
        lane: &Lane,
        values: *const f32,
    ) -> Result<(), DeviceError> {
        let stream = &lane.stream;
        // SAFETY: the caller's.
        unsafe {
            match *self {
                Self::Launch {
                    kernel,
                    geometry,
                    mut arguments,
                } => {
                    let (function, name) = kernels.get(kernel);
                    let (mut pointers, count) = arguments.pointers();
                    stream.launch(name, function, geometry, &mut pointers[..count])
                }
                Self::Product(product, precision) => {
                    stream.bind()?;
                    lane.blas.gemm(product, precision)
                }
                Self::Zero { target, length } => stream.zero(target, length),
                Self::Upload {
                    target,
                    first,
                    length,
                } => stream.copy_in(target, values.add(first), length),
                Self::Download {
                    source,
                    target,
                    length,
                } => stream.copy_out(source, target as *mut f32, length),
            }
        }
    }
}
