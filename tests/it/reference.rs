//! Reference values from files under `tests`, compared by name.

use lora_recycle::tensor::Tensor;
use lora_recycle::tensor_file::TensorFile;
use std::path::Path;

/// The file `tests/<name>`.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name);
    std::fs::read(path).unwrap()
}

/// Reference tensors of `tests/<name>`.
pub struct Reference(Vec<u8>);

impl Reference {
    pub fn open(name: &str) -> Self {
        Self(bytes(name))
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        TensorFile::parse(&self.0).unwrap().read(name).unwrap()
    }

    pub fn labels(&self) -> Vec<usize> {
        let file = TensorFile::parse(&self.0).unwrap();
        let labels = file.read_integers("labels").unwrap();
        labels.into_iter().map(|label| label as usize).collect()
    }

    /// Compares with the tensor `name`; the allowance is `tolerance` of its largest absolute value.
    pub fn check(&self, name: &str, found: &[f32], tolerance: f32) {
        let expected = self.tensor(name);
        assert_eq!(found.len(), expected.data().len(), "{name}");
        let largest = expected.data().iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let pairs = found.iter().zip(expected.data()).enumerate();
        let (worst, index) = pairs
            .map(|(i, (a, b))| ((a - b).abs(), i))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap();
        let allowed = tolerance * largest.max(1e-6);
        println!(
            "{name}: worst {worst:e} at {index}, {:.1} % of the allowance",
            100.0 * worst / allowed
        );
        assert!(
            worst <= allowed,
            "{name}[{index}]: {} instead of {}",
            found[index],
            expected.data()[index]
        );
    }
}

/// The tolerances that come with the reference values: fp32 sums of a few hundred terms in another order.
pub const FORWARD: f32 = 2e-5;
pub const LOSS: f32 = 1e-5;
pub const GRADIENT: f32 = 1e-4;
