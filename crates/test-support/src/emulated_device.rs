//! The emulated device: opened once, counted, starved and broken. Where the device of the machine is chosen in its place
//! ([`crate::emulator::is_real_device_chosen`]), tests compute on that, and those that count, starve or break it end at once.

#![allow(unsafe_code, reason = "functions of the emulator are found by name")]

use engine::cuda::{Cuda, CudaOptions, Precision, libraries};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Counters that a test asks for, by their places in `emulator_counts`.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Kernels that the host launched.
    pub launches: u64,
    /// Kernels that ran, those of graphs too.
    pub kernels_run: u64,
    /// Graphs that the host launched.
    pub graph_launches: u64,
    /// Products that ran.
    pub products: u64,
    /// Calls by which the host waits.
    pub synchronisations: u64,
    /// Copies for which the host waits.
    pub waiting_copies: u64,
    /// Copies to the device.
    pub copies_to_device: u64,
    /// Copies to the host.
    pub copies_to_host: u64,
    /// Memory filled with a value.
    pub fills: u64,
    /// Allocations on the device.
    pub allocations: u64,
    /// Bytes that are in use.
    pub bytes_in_use: u64,
    /// Bytes copied to the device.
    pub bytes_to_device: u64,
}

/// The one device of the process; who has it is alone with it.
pub struct Emulator {
    /// `None`: the device is a real one.
    library: Option<libloading::Library>,
    _alone: MutexGuard<'static, ()>,
}

impl Emulator {
    /// Waits for it, builds it where it is not built.
    pub fn open() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static LOADED: OnceLock<()> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if crate::emulator::is_real_device_chosen() {
            return Self {
                library: None,
                _alone: alone,
            };
        }
        let folder = crate::emulator::folder();
        LOADED.get_or_init(|| libraries::preload(&folder));
        // SAFETY: loaded already; this only gives a handle.
        let library = unsafe { libloading::Library::new(folder.join("libcuda.so.1")) }.unwrap();
        let own = Self {
            library: Some(library),
            _alone: alone,
        };
        own.clear_fault();
        own.set_memory(8 << 30);
        own
    }

    /// Whether the device can be counted, starved and broken: a real one cannot.
    pub fn is_emulated(&self) -> bool {
        if self.library.is_none() {
            println!("left out: only an emulated device can be counted, starved and broken");
        }
        self.library.is_some()
    }

    /// A backend in FP32.
    pub fn cuda(&self) -> Cuda {
        let options = CudaOptions {
            precision: Precision::Fp32,
            ..CudaOptions::default()
        };
        Cuda::new(options).unwrap()
    }

    fn call<F, R>(&self, name: &str, call: impl FnOnce(&F) -> R) -> R {
        let library = self.library.as_ref();
        let library =
            library.expect("a test that asks an emulated device begins with `is_emulated`");
        // SAFETY: the callers below give the types that the emulator declares.
        let function = unsafe { library.get::<F>(name.as_bytes()) }.unwrap();
        call(&function)
    }

    /// Allocations beyond this many bytes fail.
    pub fn set_memory(&self, bytes: u64) {
        type F = unsafe extern "C" fn(usize);
        // SAFETY: sets a number.
        self.call("emulator_set_memory", |f: &F| unsafe { f(bytes as usize) });
    }

    /// The device is lost at the launch of this number from now on.
    pub fn lose_device_at(&self, launch: u64) {
        type F = unsafe extern "C" fn(u64);
        // SAFETY: sets a number.
        self.call("emulator_lose_device_at", |f: &F| unsafe { f(launch) });
    }

    /// As a new process would find the device.
    pub fn clear_fault(&self) {
        type F = unsafe extern "C" fn();
        self.lose_device_at(0);
        // SAFETY: sets a number.
        self.call("emulator_clear_fault", |f: &F| unsafe { f() });
    }

    /// Since the device was opened.
    pub fn counts(&self) -> Counts {
        type F = unsafe extern "C" fn(*mut u64, usize);
        let mut counts = [0; 14];
        let length = counts.len();
        // SAFETY: writes as many counters as there is room for.
        self.call("emulator_counts", |f: &F| unsafe {
            f(counts.as_mut_ptr(), length);
        });
        Counts {
            launches: counts[0],
            kernels_run: counts[1],
            graph_launches: counts[2],
            products: counts[3],
            synchronisations: counts[4],
            waiting_copies: counts[5],
            copies_to_device: counts[6],
            copies_to_host: counts[7],
            fills: counts[9],
            allocations: counts[10],
            bytes_in_use: counts[11],
            bytes_to_device: counts[13],
        }
    }
}
