//! Work that is done as one piece: the second time it is captured as a CUDA graph, from then on that graph is launched. What differs from one time
//! to the next, the values of uploads, the graph reads from pinned memory of its own.

use super::Device;
use super::driver::{Graph, Pinned, Stream};
use super::error::CudaError;
use super::work::{Lane, Work};
use crate::backend::DeviceError;

/// Pieces that are remembered: a step has two, in a few variants.
const MOST_PIECES: usize = 8;

/// A graph and the values that it copies to the device.
struct Captured {
    graph: Graph,
    values: Pinned,
    /// It was launched, and the host has not waited since: it may not have read its values yet.
    in_flight: bool,
}

struct Piece {
    work: Vec<Work>,
    captured: Option<Captured>,
}

/// The pieces of a queue.
#[derive(Default)]
pub struct Recordings {
    /// The one used last is the last.
    pieces: Vec<Piece>,
    /// A capture has failed; it would again.
    given_up: bool,
}

impl Recordings {
    /// Queues `work`, as a graph where it is known.
    ///
    /// # Safety
    /// As [`Work::queue`].
    pub unsafe fn queue(
        &mut self,
        device: &Device,
        work: Vec<Work>,
        values: &[f32],
    ) -> Result<(), DeviceError> {
        let known = self.pieces.iter().position(|own| own.work == work);
        let mut piece = match known {
            Some(place) => self.pieces.remove(place),
            None => Piece {
                work,
                captured: None,
            },
        };
        if known.is_some() && piece.captured.is_none() && !self.given_up {
            piece.captured = capture(device, &piece.work, values.len()).ok();
            self.given_up = piece.captured.is_none();
        }
        let done = match &mut piece.captured {
            Some(own) if !own.in_flight => {
                own.values.values_mut()[..values.len()].copy_from_slice(values);
                own.in_flight = true;
                // SAFETY: the caller's; the host has waited since the last launch.
                unsafe { own.graph.launch(&device.lane.stream) }
            }
            _ => {
                let all = values.as_ptr();
                // SAFETY: the caller's.
                unsafe { queue_all(device, &device.lane, &piece.work, all) }
            }
        };
        if self.pieces.len() == MOST_PIECES {
            self.pieces.remove(0);
        }
        self.pieces.push(piece);
        done
    }

    /// The host has waited for all that was queued.
    pub fn waited(&mut self) {
        let captured = self
            .pieces
            .iter_mut()
            .filter_map(|own| own.captured.as_mut());
        captured.for_each(|own| own.in_flight = false);
    }
}

/// Queues `work` one after another.
///
/// # Safety
/// As [`Work::queue`].
pub unsafe fn queue_all(
    device: &Device,
    lane: &Lane,
    work: &[Work],
    values: *const f32,
) -> Result<(), DeviceError> {
    // SAFETY: the caller's.
    let mut all = work
        .iter()
        .map(|own| unsafe { own.queue(&device.kernels, lane, values) });
    all.try_for_each(|own| own)
}

/// Captures `work`, whose uploads have this many values, in a lane of its own, where nobody else queues.
fn capture(device: &Device, work: &[Work], values: usize) -> Result<Captured, CudaError> {
    let mut lane = device.capture.lock().unwrap_or_else(|own| own.into_inner());
    // All memory is there before the capture begins.
    if lane.is_none() {
        *lane = Some(Lane::new(Stream::new(&device.context)?)?);
    }
    let Some(lane) = &*lane else {
        return Err(CudaError::Call {
            call: "capture",
            reason: "no lane".into(),
        });
    };
    let values = Pinned::new(&device.context, values)?;
    let graph = lane.stream.capture(|| {
        // SAFETY: nothing is done yet; whoever launches the graph answers for its work. The values stay with the graph.
        unsafe { queue_all(device, lane, work, values.values().as_ptr()) }
    })?;
    Ok(Captured {
        graph,
        values,
        in_flight: false,
    })
}
