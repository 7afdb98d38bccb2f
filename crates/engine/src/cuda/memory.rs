//! Memory of the device that is filled once, and memory that grows.

use super::Device;
use super::driver::Memory;
use crate::backend::DeviceError;

/// A vector or the rows of a linear map in memory of the device. Where there was no room or no device, the queue that needs it says so.
pub struct Stored {
    /// What holds the values, or why there is none.
    pub memory: Result<Memory, DeviceError>,
    /// Length of a row.
    pub inputs: usize,
}

impl Stored {
    /// Copies `parts` one after another to the device.
    pub fn new(device: &Device, parts: &[&[f32]], inputs: usize) -> Self {
        let length = parts.iter().map(|part| part.len()).sum();
        let copy = || {
            let memory = Memory::new(device.lane.stream.context(), length)?;
            let mut start = 0;
            for part in parts {
                device.lane.stream.upload(part, &memory, start)?;
                start += part.len();
            }
            Ok(memory)
        };
        Self {
            memory: copy(),
            inputs,
        }
    }

    /// Replaces all values.
    pub fn write(&mut self, device: &Device, values: &[f32]) {
        if let Ok(memory) = &self.memory {
            assert_eq!(memory.length(), values.len());
            if let Err(error) = device.lane.stream.upload(values, memory, 0) {
                self.memory = Err(error);
            }
        }
    }
}

/// Growing memory of the device.
#[derive(Default)]
pub struct Buffer(Option<Memory>);

impl Buffer {
    /// Makes it at least `length` values long; what it held is lost when it grows.
    pub fn reserve(&mut self, device: &Device, length: usize) -> Result<(), DeviceError> {
        if self.length() < length {
            // Freed first, so that the old and the new never count together.
            self.0 = None;
            self.0 = Some(Memory::new(device.lane.stream.context(), length)?);
        }
        Ok(())
    }

    /// Makes it at least `length` values long and all of these zero.
    pub fn clear(&mut self, device: &Device, length: usize) -> Result<(), DeviceError> {
        self.reserve(device, length)?;
        match &self.0 {
            Some(memory) => device.lane.stream.fill_zero(memory, 0, length),
            None => Ok(()),
        }
    }

    /// Values that it holds.
    pub fn length(&self) -> usize {
        self.0.as_ref().map_or(0, Memory::length)
    }

    /// Address of the value `start`, `extent` values from which are inside.
    pub fn address(&self, start: usize, extent: usize) -> u64 {
        match &self.0 {
            Some(memory) => memory.address(start, extent),
            None => {
                assert!(extent == 0, "{extent} values of an empty buffer");
                0
            }
        }
    }
}
