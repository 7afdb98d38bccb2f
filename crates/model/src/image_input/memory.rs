//! How much memory a picture needs from its bytes to the size that a backbone sees, told from its header; and the share of the
//! process's memory that pictures may take at once.

use super::resize::Resizing;
use super::{ImageError, ImageFormat, ImageLimits, header, preprocess};
use crate::backbone::Preprocess;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that decoding, colour conversion and resizing of a picture take at their highest point, from its header alone. Where
/// `preprocess` is `None` the picture keeps its size.
///
/// # Errors
/// [`ImageError`]: the header cannot be read, or promises more than `limits` allow.
pub fn needed_bytes(
    bytes: &[u8],
    limits: &ImageLimits,
    preprocess: Option<&Preprocess>,
) -> Result<u64, ImageError> {
    let format = limits
        .check_encoded(bytes)
        .and_then(|()| super::identify(bytes))?;
    let header = header::read(format, bytes)?;
    let pixels = limits.check_pixels(header.width, header.height)?;
    let samples = pixels.saturating_mul(header::sample_bytes_of_pixel(format, bytes));
    let working = match format {
        ImageFormat::Tiff => samples / 3 * 4,
        ImageFormat::Jpeg
        | ImageFormat::Png
        | ImageFormat::WebP
        | ImageFormat::Gif
        | ImageFormat::Bmp => header.working_bytes,
    };
    // Decoding; then RGB, and the same turned upright.
    let decoding = samples
        .saturating_add(working.max(3 * pixels))
        .max(6 * pixels);
    let resizing = match preprocess {
        None => 0,
        Some(preprocess) => {
            let sides = (header.width, header.height);
            let turned = (header.height, header.width);
            let upright = preprocess::resizing(sides, preprocess)?;
            // The metadata that says which way up is not read here.
            let lying = preprocess::resizing(turned, preprocess);
            let bytes = |resizing: Option<Resizing>| resizing.map_or(0, Resizing::bytes);
            bytes(upright).max(lying.map_or(0, bytes))
        }
    };
    // The decoder's part is checked where its colours are known.
    limits.check_memory(resizing)?;
    Ok(decoding.max(resizing))
}

/// Bytes for work that goes on at once, handed out in the order in which they were asked for. Whoever holds a part asks for no other.
#[derive(Debug)]
pub struct MemoryShare {
    total_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free_bytes: u64,
    /// Numbers of those who wait, first come first.
    waiting: VecDeque<u64>,
    next_number: u64,
}

/// A part of a [`MemoryShare`], given back when it is dropped.
#[derive(Debug)]
pub struct MemoryPart<'s> {
    share: &'s MemoryShare,
    bytes: u64,
}

/// What all pictures of the process may take together while they are read: two of the largest allowed.
pub static PICTURES: MemoryShare = MemoryShare::new(1 << 30);

impl MemoryShare {
    /// A share of `total_bytes`.
    pub const fn new(total_bytes: u64) -> Self {
        Self {
            total_bytes,
            state: Mutex::new(State {
                free_bytes: total_bytes,
                waiting: VecDeque::new(),
                next_number: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` are free and all who came before have theirs. More than there are at all count as all.
    pub fn take(&self, bytes: u64) -> MemoryPart<'_> {
        let bytes = bytes.min(self.total_bytes);
        let mut state = self.state();
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.push_back(number);
        while state.waiting.front() != Some(&number) || state.free_bytes < bytes {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.free_bytes -= bytes;
        drop(state);
        // What is left may do for the next.
        self.changed.notify_all();
        MemoryPart { share: self, bytes }
    }

    /// Bytes that nobody holds.
    pub fn free_bytes(&self) -> u64 {
        self.state().free_bytes
    }
}

impl Drop for MemoryPart<'_> {
    fn drop(&mut self) {
        self.share.state().free_bytes += self.bytes;
        self.share.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_large_part_is_not_overtaken_by_small_ones() {
        let share = MemoryShare::new(10);
        let held = share.take(6);
        let (order, taken) = channel();
        std::thread::scope(|scope| {
            let waiting = |count| {
                while share.state().waiting.len() < count {
                    std::thread::yield_now();
                }
            };
            let large = order.clone();
            scope.spawn(|| {
                let large = large;
                let part = share.take(8);
                large.send(8).unwrap();
                drop(part);
            });
            waiting(1);
            scope.spawn(|| {
                let small = order;
                let part = share.take(2);
                small.send(2).unwrap();
                drop(part);
            });
            waiting(2);
            assert_eq!(share.free_bytes(), 4);
            drop(held);
        });
        // Both may be served at once, but never the later one alone.
        assert_eq!(taken.iter().count(), 2);
        assert_eq!(share.free_bytes(), 10);
    }

    #[test]
    fn more_than_there_is_counts_as_all() {
        let share = MemoryShare::new(10);
        let part = share.take(u64::MAX);
        assert_eq!(share.free_bytes(), 0);
        drop(part);
        assert_eq!(share.free_bytes(), 10);
    }
}
