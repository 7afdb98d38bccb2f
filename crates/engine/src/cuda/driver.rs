//! The driver's objects, freed when they are dropped: context, stream, memory of the device, pinned memory of the host, modules.
//! Places in memory are checked against its end; what a kernel does with its pointers is on those who launch it.

use super::error::{CudaError, call_error, device_error};
use crate::backend::DeviceError;
use cudarc::driver::result::{self, DriverError, device, stream};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// The primary context of a device.
pub struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

// SAFETY: a context may be used by any thread that it is current in; `bind` makes it so before each use.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Of the device `ordinal`. The libraries have been checked.
    pub fn open(ordinal: usize) -> Result<Arc<Self>, CudaError> {
        result::init().map_err(call_error("cuInit"))?;
        let count = device::get_count().map_err(call_error("cuDeviceGetCount"))?;
        let count = usize::try_from(count).unwrap_or_default();
        let number = i32::try_from(ordinal).ok().filter(|_| ordinal < count);
        let Some(number) = number else {
            return Err(CudaError::NoDevice { ordinal, count });
        };
        let device = device::get(number).map_err(call_error("cuDeviceGet"))?;
        // SAFETY: the device is one that the driver has given; released once, in `drop`.
        let raw = unsafe { result::primary_ctx::retain(device) }
            .map_err(call_error("cuDevicePrimaryCtxRetain"))?;
        Ok(Arc::new(Self { device, raw }))
    }

    /// Makes the context that of the calling thread.
    pub fn bind(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.raw) }
    }

    /// Name of the device.
    pub fn name(&self) -> Result<String, CudaError> {
        device::get_name(self.device).map_err(call_error("cuDeviceGetName"))
    }

    /// All memory of the device in bytes.
    pub fn memory(&self) -> Result<usize, CudaError> {
        // SAFETY: the device is one that the driver has given.
        unsafe { device::total_mem(self.device) }.map_err(call_error("cuDeviceTotalMem"))
    }

    /// Major and minor compute capability.
    pub fn capability(&self) -> Result<(i32, i32), CudaError> {
        Ok((
            self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    /// Most shared memory that a block may ask for, in bytes.
    pub fn most_shared_memory(&self) -> Result<i32, CudaError> {
        self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    }

    fn attribute(&self, attribute: Attribute) -> Result<i32, CudaError> {
        // SAFETY: the device is one that the driver has given.
        unsafe { device::get_attribute(self.device, attribute) }
            .map_err(call_error("cuDeviceGetAttribute"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `open`. An error leaves nothing to do.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// Version of the driver as major and minor CUDA version.
pub fn driver_version() -> Result<(i32, i32), CudaError> {
    let mut version = 0;
    // SAFETY: writes to the integer that it is given.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(call_error("cuDriverGetVersion"))?;
    Ok((version / 1000, version % 1000 / 10))
}

/// Memory of the device, in values of `f32`; its content is undefined until it is written.
pub struct Memory {
    context: Arc<Context>,
    pointer: sys::CUdeviceptr,
    length: usize,
}

impl Memory {
    /// `length` values, at least one.
    pub fn new(context: &Arc<Context>, length: usize) -> Result<Self, DeviceError> {
        let bytes = length.max(1).saturating_mul(size_of::<f32>());
        context
            .bind()
            .map_err(|e| device_error("cuCtxSetCurrent", e, 0))?;
        // SAFETY: a context is current.
        let pointer = unsafe { result::malloc_sync(bytes) }
            .map_err(|e| device_error("cuMemAlloc", e, bytes))?;
        Ok(Self {
            context: context.clone(),
            pointer,
            length,
        })
    }

    /// Values that it holds.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Address of the value `start`, `extent` values from which are inside.
    ///
    /// # Panics
    /// When they are not.
    pub fn address(&self, start: usize, extent: usize) -> u64 {
        let end = start + extent;
        assert!(
            end <= self.length,
            "values {start} to {end} of a buffer of {}",
            self.length
        );
        self.pointer + (start * size_of::<f32>()) as u64
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: allocated by `new` and freed once. The driver waits for work that still uses it.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}

/// Host memory that the device copies to by itself.
pub struct Pinned {
    context: Arc<Context>,
    pointer: *mut f32,
    length: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    /// `length` zeros, at least one.
    pub fn new(context: &Arc<Context>, length: usize) -> Result<Self, DeviceError> {
        let length = length.max(1);
        let bytes = length.saturating_mul(size_of::<f32>());
        context
            .bind()
            .map_err(|e| device_error("cuCtxSetCurrent", e, 0))?;
        // SAFETY: a context is current.
        let pointer = unsafe { result::malloc_host(bytes, 0) }
            .map_err(|e| device_error("cuMemHostAlloc", e, bytes))?
            .cast::<f32>();
        // SAFETY: the driver has given this many bytes, aligned to a page.
        unsafe { pointer.write_bytes(0, length) };
        Ok(Self {
            context: context.clone(),
            pointer,
            length,
        })
    }

    /// Values that it holds.
    pub fn length(&self) -> usize {
        self.length
    }

    /// To be written while no copy reads it.
    pub fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `values`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.length) }
    }

    /// What has been copied; the caller has waited for the copy.
    pub fn values(&self) -> &[f32] {
        // SAFETY: allocated with this length and initialised by `new`.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: allocated by `new` and freed once. The driver waits for work that still uses it.
            let _ = unsafe { result::free_host(self.pointer.cast()) };
        }
    }
}

/// A kernel of a loaded module.
#[derive(Clone, Copy)]
pub struct Function(sys::CUfunction);

// SAFETY: a handle that lives as long as its module; launches go through `Stream::launch`.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// Compiled kernels on the device.
pub struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
}

// SAFETY: a handle that is only read after it was loaded.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin.
    pub fn load(context: &Arc<Context>, image: &[u8]) -> Result<Self, DriverError> {
        context.bind()?;
        // SAFETY: the image is what NVRTC has made or the cache has kept, with its digest checked.
        let raw = unsafe { result::module::load_data(image.as_ptr().cast()) }?;
        Ok(Self {
            context: context.clone(),
            raw,
        })
    }

    /// The kernel `name`, which may ask for `shared` bytes of dynamic shared memory.
    pub fn function(&self, name: &str, shared: i32) -> Result<Function, DriverError> {
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded.
        let raw = unsafe { result::module::get_function(self.raw, name) }?;
        if shared > 0 {
            let attribute =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is one of the module.
            unsafe { result::function::set_function_attribute(raw, attribute, shared) }?;
        }
        Ok(Function(raw))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: loaded by `load` and unloaded once.
            let _ = unsafe { result::module::unload(self.raw) };
        }
    }
}

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks along x, y, z.
    pub grid: [usize; 3],
    /// Threads of a block, whole warps.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// A queue of work of the device, done in order.
pub struct Stream {
    context: Arc<Context>,
    raw: sys::CUstream,
}

// SAFETY: the driver's calls on a stream may come from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// An empty one.
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        context.bind().map_err(call_error("cuCtxSetCurrent"))?;
        let raw = stream::create(stream::StreamKind::NonBlocking)
            .map_err(call_error("cuStreamCreate"))?;
        Ok(Self {
            context: context.clone(),
            raw,
        })
    }

    /// What it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The driver's handle.
    pub fn raw(&self) -> sys::CUstream {
        self.raw
    }

    fn call(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        let done = self.context.bind().and_then(|()| work());
        done.map_err(|error| device_error(name, error, 0))
    }

    /// Waits until all work is done.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        // SAFETY: the stream lives.
        self.call("waiting for the device", || unsafe {
            stream::synchronize(self.raw)
        })
    }

    /// Copies `values` to the memory from its value `start` on. They may change when the call returns.
    pub fn upload(&self, values: &[f32], memory: &Memory, start: usize) -> Result<(), DeviceError> {
        let target = memory.address(start, values.len());
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the target is inside its memory; the driver has read pageable host memory when the call returns.
        self.call("copying to the device", || unsafe {
            result::memcpy_htod_async(target, values, self.raw)
        })
    }

    /// As [`Self::upload`], for bytes from byte `start` of the memory on.
    pub fn upload_bytes(
        &self,
        bytes: &[u8],
        memory: &Memory,
        start: usize,
    ) -> Result<(), DeviceError> {
        let end = (start + bytes.len()).div_ceil(size_of::<f32>());
        let target = memory.address(0, end) + start as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: as in `upload`.
        self.call("copying to the device", || unsafe {
            result::memcpy_htod_async(target, bytes, self.raw)
        })
    }

    /// Copies `length` values from `source` of the host to `target`.
    ///
    /// # Safety
    /// Both have as many values; memory of the host is either pageable, and read when the call returns, or stays until the copy is done.
    pub unsafe fn copy_in(
        &self,
        target: u64,
        source: *const f32,
        length: usize,
    ) -> Result<(), DeviceError> {
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the caller's.
        self.call("copying to the device", || unsafe {
            let bytes = length * size_of::<f32>();
            sys::cuMemcpyHtoDAsync_v2(target, source.cast(), bytes, self.raw).result()
        })
    }

    /// Copies `length` values from `source` to pinned memory of the host at `target`. They are there after [`Self::synchronize`].
    ///
    /// # Safety
    /// Both have as many values, and stay until the copy is done.
    pub unsafe fn copy_out(
        &self,
        source: u64,
        target: *mut f32,
        length: usize,
    ) -> Result<(), DeviceError> {
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the caller's.
        self.call("copying from the device", || unsafe {
            let bytes = length * size_of::<f32>();
            sys::cuMemcpyDtoHAsync_v2(target.cast(), source, bytes, self.raw).result()
        })
    }

    /// Overwrites `length` values from `target` on with zeros.
    ///
    /// # Safety
    /// There are as many.
    pub unsafe fn zero(&self, target: u64, length: usize) -> Result<(), DeviceError> {
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the caller's.
        self.call("filling with zeros", || unsafe {
            result::memset_d8_async(target, 0, length * size_of::<f32>(), self.raw)
        })
    }

    /// Overwrites `length` values from `start` on with zeros.
    pub fn fill_zero(
        &self,
        memory: &Memory,
        start: usize,
        length: usize,
    ) -> Result<(), DeviceError> {
        // SAFETY: the memory has checked that they are there.
        unsafe { self.zero(memory.address(start, length), length) }
    }

    /// Makes the context that of the calling thread.
    pub fn bind(&self) -> Result<(), DeviceError> {
        self.call("cuCtxSetCurrent", || Ok(()))
    }

    /// What `queue` queues here, as a graph; nothing of it is done. Nobody else may queue here meanwhile.
    pub fn capture(
        &self,
        queue: impl FnOnce() -> Result<(), DeviceError>,
    ) -> Result<Graph, DeviceError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives.
        self.call("cuStreamBeginCapture", || unsafe {
            stream::begin_capture(self.raw, mode)
        })?;
        let queued = queue();
        let mut captured = std::ptr::null_mut();
        // SAFETY: as above. A capture is ended even where something in it has failed.
        self.call("cuStreamEndCapture", || unsafe {
            captured = stream::end_capture(self.raw)?;
            Ok(())
        })?;
        let mut graph = Graph {
            context: self.context.clone(),
            raw: std::ptr::null_mut(),
        };
        // SAFETY: the captured graph is there and destroyed once; what is made of it does not need it.
        let made = self.call("cuGraphInstantiate", || unsafe {
            let made = result::graph::instantiate(captured, sys::CUgraphInstantiate_flags(0));
            result::graph::destroy(captured)?;
            graph.raw = made?;
            Ok(())
        });
        queued.and(made).map(|()| graph)
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// The arguments have the number and types that the kernel declares, and its pointers the extents that its comment says.
    pub unsafe fn launch(
        &self,
        name: &str,
        function: Function,
        geometry: Geometry,
        arguments: &mut [*mut c_void],
    ) -> Result<(), DeviceError> {
        let size = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let [x, y, z] = geometry.grid.map(size);
        // SAFETY: the caller's; the driver copies the arguments before it returns.
        self.call(name, || unsafe {
            result::launch_kernel(
                function.0,
                (x, y, z),
                (geometry.threads, 1, 1),
                size(geometry.shared),
                self.raw,
                arguments,
            )
        })
    }
}

/// Work that has been captured, ready to be launched.
pub struct Graph {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: a handle with one owner.
unsafe impl Send for Graph {}

impl Graph {
    /// Queues all of its work.
    ///
    /// # Safety
    /// All memory that the work names is there until it is done, and the graph is not launched again before that.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        stream.call("cuGraphLaunch", || unsafe {
            result::graph::launch(self.raw, stream.raw)
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.raw.is_null() && self.context.bind().is_ok() {
            // SAFETY: instantiated by `capture` and destroyed once. The driver waits for work that is under way.
            let _ = unsafe { result::graph::exec_destroy(self.raw) };
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: created by `new` and destroyed once.
            let _ = unsafe { stream::destroy(self.raw) };
        }
    }
}
