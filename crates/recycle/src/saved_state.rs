//! What a long computation writes down to resume later: named numbers in a safetensors container, every value as its own bytes,
//! so that nothing is rounded. Reading trusts nothing.

use engine::optimise::AdamState;
use model::tensor_file::{Stored, TensorFile, write_stored};
use std::collections::BTreeMap;
use thiserror::Error;

/// A saved state that cannot be used, or not be written.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("the saved state of this computation cannot be used: {0}; start it again")]
pub struct SavedStateError(pub String);

const KIND: &str = "computation";

/// Numbers by name.
#[derive(Debug, Default)]
pub(super) struct SavedState {
    parts: BTreeMap<String, Vec<u8>>,
}

impl SavedState {
    pub fn put_bytes(&mut self, name: &str, bytes: &[u8]) {
        self.parts.insert(name.into(), bytes.to_vec());
    }

    pub fn put_f32(&mut self, name: &str, values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.parts.insert(name.into(), bytes.collect());
    }

    pub fn put_f64(&mut self, name: &str, values: &[f64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.parts.insert(name.into(), bytes.collect());
    }

    pub fn put_u64(&mut self, name: &str, values: &[u64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.parts.insert(name.into(), bytes.collect());
    }

    pub fn put_adam(&mut self, name: &str, state: &AdamState) {
        self.parts.insert(name.into(), state.to_bytes());
    }

    /// `kind` names the computation, so that a state is not read by another one.
    pub fn write(&self, kind: &str) -> Result<Vec<u8>, SavedStateError> {
        let shapes: Vec<[usize; 1]> = self.parts.values().map(|bytes| [bytes.len()]).collect();
        let stored: Vec<_> = self
            .parts
            .iter()
            .zip(&shapes)
            .map(|((name, bytes), shape)| (name.as_str(), shape.as_slice(), Stored::U8(bytes)))
            .collect();
        let metadata = BTreeMap::from([(KIND.to_owned(), kind.to_owned())]);
        write_stored(&stored, &metadata).map_err(SavedStateError)
    }

    pub fn read(bytes: &[u8], kind: &str) -> Result<Self, SavedStateError> {
        let fail = |reason: String| SavedStateError(reason);
        let file = TensorFile::parse(bytes).map_err(|error| fail(error.to_string()))?;
        let found = file.metadata().get(KIND).map_or("nothing", String::as_str);
        if found != kind {
            return Err(fail(format!("it belongs to {found}, not to {kind}")));
        }
        let mut parts = BTreeMap::new();
        for name in file.names() {
            let shape = file.shape(name).unwrap_or_default();
            let part = file.read_bytes(name, shape);
            let part = part.map_err(|error| fail(error.to_string()))?;
            parts.insert(name.to_owned(), part.to_vec());
        }
        Ok(Self { parts })
    }

    /// Parts by their current names that were written under those of an earlier version: `(then, today)`.
    #[must_use]
    pub fn with_old_names(mut self, names: &[(&str, &str)]) -> Self {
        for (then, today) in names {
            if let Some(part) = self.parts.remove(*then) {
                self.parts.insert((*today).to_owned(), part);
            }
        }
        self
    }

    pub fn has(&self, name: &str) -> bool {
        self.parts.contains_key(name)
    }

    pub fn bytes(&self, name: &str) -> Result<&[u8], SavedStateError> {
        let part = self.parts.get(name);
        part.map(Vec::as_slice)
            .ok_or_else(|| SavedStateError(format!("{name} is missing")))
    }

    fn words<const N: usize>(&self, name: &str) -> Result<Vec<[u8; N]>, SavedStateError> {
        let (words, rest) = self.bytes(name)?.as_chunks::<N>();
        if rest.is_empty() {
            Ok(words.to_vec())
        } else {
            Err(SavedStateError(format!("{name} is cut off")))
        }
    }

    /// `count` finite values.
    pub fn f32(&self, name: &str, count: usize) -> Result<Vec<f32>, SavedStateError> {
        let values: Vec<f32> = self
            .words(name)?
            .into_iter()
            .map(f32::from_le_bytes)
            .collect();
        if values.len() != count || values.iter().any(|value| !value.is_finite()) {
            return Err(SavedStateError(format!("{name} is not {count} numbers")));
        }
        Ok(values)
    }

    pub fn f64(&self, name: &str) -> Result<Vec<f64>, SavedStateError> {
        let words = self.words(name)?;
        Ok(words.into_iter().map(f64::from_le_bytes).collect())
    }

    pub fn u64<const N: usize>(&self, name: &str) -> Result<[u64; N], SavedStateError> {
        let values: Vec<u64> = self
            .words(name)?
            .into_iter()
            .map(u64::from_le_bytes)
            .collect();
        values
            .try_into()
            .map_err(|_| SavedStateError(format!("{name} is not {N} whole numbers")))
    }

    pub fn adam(&self, name: &str, values: usize) -> Result<AdamState, SavedStateError> {
        AdamState::from_bytes(self.bytes(name)?, values)
            .map_err(|error| SavedStateError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_bit_for_bit_and_another_computation_does_not_take_them() {
        let mut state = SavedState::default();
        state.put_f64("curve", &[0.1, f64::INFINITY]);
        state.put_u64("counters", &[7, u64::MAX]);
        state.put_f32("values", &[1e-45, -0.0]);
        let bytes = state.write("tuning").unwrap();
        let back = SavedState::read(&bytes, "tuning").unwrap();
        assert_eq!(back.f64("curve").unwrap(), [0.1, f64::INFINITY]);
        assert_eq!(back.u64::<2>("counters").unwrap(), [7, u64::MAX]);
        let bits: Vec<u32> = back
            .f32("values", 2)
            .unwrap()
            .iter()
            .map(|v| v.to_bits())
            .collect();
        assert_eq!(bits, [1, 1 << 31]);
        let message = |error: SavedStateError| error.to_string();
        assert_eq!(
            message(SavedState::read(&bytes, "inversion").unwrap_err()),
            "the saved state of this computation cannot be used: it belongs to tuning, not to inversion; start it again"
        );
        assert!(back.f32("values", 3).is_err());
        assert!(back.u64::<3>("counters").is_err());
        assert!(back.bytes("nothing").is_err());
        assert!(SavedState::read(&bytes[..bytes.len() - 1], "tuning").is_err());
    }
}
