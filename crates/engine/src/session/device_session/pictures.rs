//! Pictures that stay on a device: copied there once, a byte a value, and normalised there for each pass.

use super::{DeviceSession, MicroBatch};
use crate::backend::DeviceError;
use crate::image_backend::ImageBackend;
use crate::operation::{Checks, OperationError};
use crate::session::Entry;

/// A set of pictures of one side.
pub struct Pictures<B: ImageBackend> {
    levels: B::Levels,
    /// `[3, 256]`
    table: B::Vector,
    side: usize,
}

/// All sets of a session.
pub struct Kept<B: ImageBackend> {
    sets: Vec<Pictures<B>>,
    /// Number and side of the pictures of each.
    pub sizes: Vec<[usize; 2]>,
    bytes: usize,
}

impl<B: ImageBackend> Default for Kept<B> {
    fn default() -> Self {
        Self {
            sets: Vec::new(),
            sizes: Vec::new(),
            bytes: 0,
        }
    }
}

impl<B: ImageBackend> Kept<B> {
    /// Queues the pixels of a micro-batch of `entry`, where they are made of pictures that are kept.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]
    pub fn put(
        &self,
        backend: &B,
        queue: &mut B::Queue,
        slot: usize,
        micro_batch: &MicroBatch,
        entry: Entry<'_>,
    ) -> Result<(), DeviceError> {
        let Entry::Pictures {
            set,
            numbers,
            mirrored,
        } = entry
        else {
            return Ok(());
        };
        let (own, plan, images) = (&self.sets[set], &micro_batch.plan, &micro_batch.images);
        backend.enter(queue, slot, plan.lengths)?;
        let flips = mirrored[images.clone()].iter().map(|&own| u32::from(own));
        let numbers: Vec<u32> = numbers[images.clone()]
            .iter()
            .copied()
            .chain(flips)
            .collect();
        backend.upload_indices(queue, &numbers, plan.pictures);
        let [numbers, flips] = plan.pictures.halves();
        let (levels, table, side) = (&own.levels, &own.table, own.side);
        backend.normalise_levels(
            queue,
            levels,
            numbers,
            Some(flips),
            table,
            side,
            plan.pixels,
        );
        Ok(())
    }
}

impl<B: ImageBackend> DeviceSession<B> {
    /// See [`crate::session::Session::keep_pictures`].
    pub fn keep_pictures(
        &mut self,
        parts: &[&[u8]],
        side: usize,
        table: &[[f32; 256]; 3],
    ) -> Result<Option<usize>, OperationError> {
        let checks = Checks("keep pictures");
        let table = table.as_flattened();
        checks.finite("the table", table, &[3, 256])?;
        let image = 3 * side * side;
        let mut count = 0;
        for part in parts {
            let own = part.len().checked_div(image).unwrap_or(0);
            checks.length("levels", part, &[own, 3, side, side])?;
            count += own;
        }
        let bytes = count * image;
        if bytes == 0
            || bytes
                > self
                    .backend
                    .room_for_levels()
                    .saturating_sub(self.kept.bytes)
        {
            return Ok(None);
        }
        let levels = match self.backend.levels(parts) {
            Ok(levels) => levels,
            Err(DeviceError::OutOfMemory { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.kept.bytes += bytes;
        self.kept.sizes.push([count, side]);
        self.kept.sets.push(Pictures {
            levels,
            table: self.backend.vector(table),
            side,
        });
        Ok(Some(self.kept.sets.len() - 1))
    }
}
