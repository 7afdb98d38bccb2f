//! The encoder on the project's engine: needs no shared library, and takes an adapter for each row.

use super::encoder::{
    EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs, check_adapters,
    common_image_size,
};
use engine::session::{Input, Session, SessionOptions, Wanted};
use model::adapter::Adapter;
use model::backbone::Backbone;
use model::tensor::Tensor;
use std::sync::Arc;

/// Runs a backbone through the engine.
pub struct NativeEncoder {
    session: Session,
}

impl NativeEncoder {
    /// Prepares `backbone` for the processor; 0 threads takes one per core.
    ///
    /// # Errors
    /// [`EncodeError::Engine`] where weights are not finite or threads cannot start.
    pub fn open(backbone: &Backbone, threads: usize) -> Result<Self, EncodeError> {
        let options = SessionOptions {
            threads,
            ..SessionOptions::default()
        };
        let session = Session::new(backbone, options)
            .map_err(|error| EncodeError::Engine(error.to_string()))?;
        Ok(Self { session })
    }

    /// Encodes `pixels` `[rows, 3, S, S]` with one adapter.
    fn encode_group(
        &mut self,
        pixels: &Tensor,
        adapter: Option<&Adapter>,
        outputs: Outputs,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let input = Input {
            adapter,
            ..Input::pixels(pixels)
        };
        let wanted = Wanted {
            class_attention: true,
            last_hidden_state: outputs.last_hidden_state,
            ..Wanted::default()
        };
        let output = self
            .session
            .forward(&input, wanted)
            .map_err(|error| EncodeError::BadInput(error.to_string()))?;
        let Some(attention) = &output.class_attention else {
            return Err(EncodeError::Engine("no attention came out".into()));
        };
        let hidden = output.last_hidden_state.as_ref();
        (0..pixels.shape()[0])
            .map(|row| Encoded::of_row(row, &output.features, attention, hidden))
            .collect()
    }
}

impl Encoder for NativeEncoder {
    fn info(&self) -> EncoderInfo {
        EncoderInfo {
            engine: "native".into(),
            device: "cpu".into(),
            providers: Vec::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            threads: self.session.threads(),
        }
    }

    fn encode(
        &mut self,
        rows: &[EncodeRow],
        outputs: Outputs,
    ) -> Result<Vec<Encoded>, EncodeError> {
        common_image_size(rows)?;
        check_adapters(rows, self.session.config())?;
        let mut answers: Vec<Option<Encoded>> = rows.iter().map(|_| None).collect();
        for group in groups(rows) {
            let pixels = stack(rows, &group)?;
            let adapter = rows[group[0]].changing_adapter().map(Arc::as_ref);
            let encoded = self.encode_group(&pixels, adapter, outputs)?;
            for (&row, encoded) in group.iter().zip(encoded) {
                answers[row] = Some(encoded);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Rows by adapter, in the order in which adapters first appear.
fn groups(rows: &[EncodeRow]) -> Vec<Vec<usize>> {
    let key = |row: &EncodeRow| row.changing_adapter().map(Arc::as_ptr);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let own = groups
            .iter_mut()
            .find(|group| key(&rows[group[0]]) == key(row));
        match own {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

fn stack(rows: &[EncodeRow], group: &[usize]) -> Result<Tensor, EncodeError> {
    let mut shape = vec![group.len()];
    shape.extend(rows[group[0]].pixels.shape());
    let values = group
        .iter()
        .flat_map(|&row| rows[row].pixels.data())
        .copied();
    Tensor::new(shape, values.collect()).map_err(|error| EncodeError::BadInput(error.to_string()))
}
