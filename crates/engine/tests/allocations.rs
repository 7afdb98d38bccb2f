//! What a step allocates once its memory is there. A separate program, since it counts for all threads.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "where something is not as it should be, a test ends"
)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use engine::measure::{Prepared, Size, Step};
use engine::session::SessionOptions;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Relaxed);
    BYTES.fetch_add(bytes, Relaxed);
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const STEPS: [Step; 5] = [
    Step::Forward,
    Step::InputGradient,
    Step::PrunedInputGradient,
    Step::MetaTraining {
        sparsity_percent: 75,
    },
    Step::LastSixCached,
];

/// Most allocations and bytes of ten runs, after two that make the memory.
fn most_of_ten(step: Step, width: usize, image_size: usize, batch: usize) -> (usize, usize) {
    let size = Size {
        name: "small",
        width,
        heads: 2,
        patch_size: 14,
        image_size,
        batch,
        rank: 4,
    };
    let mut prepared = Prepared::new(size, step, SessionOptions::on_threads(2)).expect("a step");
    let mut most = (0, 0);
    for run in 0..12 {
        let before = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
        prepared.run().expect("a run");
        let allocations = ALLOCATIONS.load(Relaxed) - before.0;
        let bytes = BYTES.load(Relaxed) - before.1;
        if run >= 2 {
            most = (most.0.max(allocations), most.1.max(bytes));
        }
    }
    most
}

/// Activations, gradients and answers have their memory after the first step. What is left is bookkeeping: who computes what
/// (lists as long as the micro-batches), the shape that the plan is looked up by, and rayon's queue of jobs.
#[test]
fn a_step_after_the_first_allocates_no_activations() {
    for step in STEPS {
        let small = most_of_ten(step, 32, 56, 4);
        let large = most_of_ten(step, 128, 98, 4);
        println!("{step:?}: {small:?} of a small pass, {large:?} of a large one");
        // rayon allocates a block of its queue now and then.
        let (allocations, bytes) = large;
        assert!(
            allocations <= small.0 + 4,
            "{step:?}: {small:?} then {large:?}"
        );
        assert!(allocations < 30, "{step:?}: {allocations} allocations");
        // The smallest activation of the large pass, one image's tokens, takes 25 kB.
        assert!(bytes < 8_000, "{step:?}: {bytes} bytes");
    }
}
