//! The native encoder keeps the encoder's contract.

use super::reference::{FORWARD, MODELS, Reference, adapter, assert_close, backbone};
use lora_recycle::inference::{EncodeError, EncodeRow, Encoder, NativeEncoder, Outputs};
use lora_recycle::tensor::Tensor;
use std::sync::Arc;

fn images(model: &str) -> Vec<Arc<Tensor>> {
    let pixels = Reference::open(&format!("{model}/reference.safetensors")).tensor("pixel_values");
    let image = |row| Arc::new(Tensor::new([3, 28, 28], pixels.row(row).to_vec()).unwrap());
    (0..10).map(image).collect()
}

#[test]
fn native_encoder_gives_the_reference_values_for_rows_with_different_adapters() {
    for model in MODELS {
        let reference = Reference::open(&format!("{model}/reference.safetensors"));
        let mut encoder = NativeEncoder::open(&backbone(model), 2).unwrap();
        let tuned = Arc::new(adapter(model));
        let rows: Vec<EncodeRow> = images(model)
            .into_iter()
            .enumerate()
            .map(|(row, pixels)| EncodeRow {
                pixels,
                adapter: (row % 2 == 1).then(|| tuned.clone()),
                pinned: false,
            })
            .collect();
        let all = Outputs {
            last_hidden_state: true,
        };
        let encoded = encoder.encode(&rows, all).unwrap();
        assert_eq!(encoded.len(), 10);
        for (row, encoded) in encoded.iter().enumerate() {
            let prefix = if row % 2 == 1 { "adapter_" } else { "" };
            let expected = reference.tensor(&format!("{prefix}features"));
            assert_close(
                "feature",
                &encoded.feature,
                expected.row(row),
                2.0 * FORWARD,
            );
            let expected = reference.tensor(&format!("{prefix}cls_attention"));
            assert_close(
                "attention",
                &encoded.cls_attention,
                expected.row(row),
                FORWARD,
            );
            let state = encoded.last_hidden_state.as_ref().unwrap();
            assert_eq!(state.shape(), [17, 32]);
        }
        for (row, together) in rows.iter().zip(&encoded) {
            let alone = encoder.encode(std::slice::from_ref(row), all).unwrap();
            // The same sums over other numbers of rows: at most the last bits differ.
            assert_close("alone", &alone[0].feature, &together.feature, 2e-6);
        }
    }
}

#[test]
fn native_encoder_answers_no_rows_with_nothing_and_refuses_what_does_not_fit() {
    let mut encoder = NativeEncoder::open(&backbone("vit-tiny"), 1).unwrap();
    assert!(encoder.encode(&[], Outputs::default()).unwrap().is_empty());
    let row = |pixels| EncodeRow::bare(Arc::new(pixels));
    let odd = row(Tensor::zeros([3, 30, 30]));
    let error = encoder
        .encode(std::slice::from_ref(&odd), Outputs::default())
        .unwrap_err();
    assert!(
        matches!(&error, EncodeError::BadInput(text) if text.contains("[1, 3, 30, 30]")),
        "{error}"
    );
    let good = row(Tensor::zeros([3, 28, 28]));
    let error = encoder
        .encode(&[good, odd], Outputs::default())
        .unwrap_err();
    assert!(
        matches!(&error, EncodeError::BadInput(text) if text.contains("image 1")),
        "{error}"
    );
}
