//! Products of matrices, all by one function of cuBLAS.

use super::driver::{Memory, Stream};
use super::error::CudaError;
use crate::backend::DeviceError;
use cudarc::cublas::result::{self, CublasError};
use cudarc::cublas::sys::{
    self, cublasComputeType_t as Compute, cublasGemmAlgo_t as Algorithm,
    cublasOperation_t as Operation, cudaDataType_t as Type,
};
use std::sync::{Mutex, PoisonError};

/// How exact products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Operands are rounded to 10 bits of fraction, as tensor cores take them; sums are `f32`.
    #[default]
    Tf32,
    /// All in `f32`, for comparisons with the processor.
    Fp32,
}

/// An operand in memory of the device: rows of values, `stride` apart.
#[derive(Clone, Copy, PartialEq)]
pub struct Operand {
    /// Address of the first value.
    pub address: u64,
    /// Values from one row to the next.
    pub stride: i32,
    /// Whether rows and columns are exchanged.
    pub transposed: bool,
}

/// How often a product is done, and values from the matrices of one to those of the next.
#[derive(Clone, Copy, PartialEq)]
pub struct Repeat {
    /// At least 1.
    pub count: usize,
    /// Of the left operand; 0 where it is the same for all.
    pub a: usize,
    /// Of the right operand.
    pub b: usize,
    /// Of the result.
    pub c: usize,
}

impl Repeat {
    /// A single product.
    pub const ONCE: Self = Self {
        count: 1,
        a: 0,
        b: 0,
        c: 0,
    };
}

/// `c [m, n] = alpha·a [m, k]·b [k, n] + beta·c`, all row-major.
#[derive(Clone, Copy, PartialEq)]
pub struct Product {
    /// m, n and k, none of them zero.
    pub sizes: [i32; 3],
    /// Multiplies the product.
    pub alpha: f32,
    /// The left operand.
    pub a: Operand,
    /// The right operand.
    pub b: Operand,
    /// 1 adds to `c`, 0 overwrites it.
    pub beta: f32,
    /// Address of the result's first value.
    pub c: u64,
    /// Values from one row of the result to the next.
    pub c_stride: i32,
    /// More of them, side by side.
    pub repeat: Repeat,
}

/// Values of `f32` that cuBLAS may use for itself: what its manual asks for on Hopper, more than enough on others. Given to it, so
/// that it allocates nothing in the middle of a pass.
const WORKSPACE: usize = (32 << 20) / size_of::<f32>();

/// A handle of cuBLAS for one stream.
pub struct Blas {
    handle: Mutex<Handle>,
    _workspace: Memory,
}

struct Handle(sys::cublasHandle_t);

// SAFETY: a handle may be used by any thread, by one at a time: a lock guards it.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by `Blas::new` and destroyed once.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

fn failed(call: &'static str) -> impl Fn(CublasError) -> CudaError {
    move |error| CudaError::Call {
        call,
        reason: format!("{error:?}"),
    }
}

impl Blas {
    /// For products that are queued in `stream`, whose context is current.
    pub fn new(stream: &Stream) -> Result<Self, CudaError> {
        let workspace = Memory::new(stream.context(), WORKSPACE)?;
        let handle = Handle(result::create_handle().map_err(failed("cublasCreate"))?);
        // SAFETY: handle, stream and workspace live; the workspace is dropped after the handle.
        unsafe {
            result::set_stream(handle.0, stream.raw().cast()).map_err(failed("cublasSetStream"))?;
            let bytes = WORKSPACE * size_of::<f32>();
            sys::cublasSetWorkspace_v2(handle.0, workspace.address(0, WORKSPACE) as *mut _, bytes)
                .result()
                .map_err(failed("cublasSetWorkspace"))?;
        }
        Ok(Self {
            handle: Mutex::new(handle),
            _workspace: workspace,
        })
    }

    /// Version of cuBLAS: major, minor.
    pub fn version(&self) -> Result<(i32, i32), CudaError> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut version = 0;
        // SAFETY: the handle lives; writes to the integer that it is given.
        unsafe { sys::cublasGetVersion_v2(handle.0, &raw mut version) }
            .result()
            .map_err(failed("cublasGetVersion"))?;
        Ok((version / 10000, version / 100 % 100))
    }

    /// Queues a product. The context of the stream is current.
    ///
    /// # Safety
    /// All values of the operands and of the result lie in memory of the device.
    pub unsafe fn gemm(&self, product: Product, precision: Precision) -> Result<(), DeviceError> {
        let Product {
            sizes: [m, n, k],
            alpha,
            a,
            b,
            beta,
            c,
            c_stride,
            repeat,
        } = product;
        let step = |values: usize| i64::try_from(values).unwrap_or(i64::MAX);
        let times = i32::try_from(repeat.count).unwrap_or(i32::MAX);
        let operation = |operand: Operand| match operand.transposed {
            false => Operation::CUBLAS_OP_N,
            true => Operation::CUBLAS_OP_T,
        };
        let compute = match precision {
            Precision::Tf32 => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            Precision::Fp32 => Compute::CUBLAS_COMPUTE_32F_PEDANTIC,
        };
        let value = Type::CUDA_R_32F;
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        // cuBLAS goes by columns: rows of a matrix are the columns of its transpose, and cᵀ = bᵀ·aᵀ.
        // SAFETY: the caller's; alpha and beta are read before the call returns.
        unsafe {
            result::gemm_strided_batched_ex(
                handle.0,
                operation(b),
                operation(a),
                n,
                m,
                k,
                (&raw const alpha).cast(),
                b.address as *const _,
                value,
                b.stride,
                step(repeat.b),
                a.address as *const _,
                value,
                a.stride,
                step(repeat.a),
                (&raw const beta).cast(),
                c as *mut _,
                value,
                c_stride,
                step(repeat.c),
                times,
                compute,
                Algorithm::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|error| DeviceError::Lost {
            reason: format!("product of [{m}, {k}] and [{k}, {n}]: {error:?}"),
        })
    }
}
