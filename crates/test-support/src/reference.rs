//! Reference values from files under `tests`, compared by name.

use crate::project;
use model::tensor::Tensor;
use model::tensor_file::TensorFile;
use std::ops::Range;

/// The file `tests/<name>`.
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(project("tests").join(name)).unwrap()
}

/// Reference tensors of `tests/<name>`.
pub struct Reference(Vec<u8>);

impl Reference {
    /// Reads the file `tests/<name>`.
    pub fn open(name: &str) -> Self {
        Self(bytes(name))
    }

    /// Those of a backbone in `tests/golden`.
    pub fn golden(model: &str) -> Self {
        Self::open(&format!("golden/{model}/reference.safetensors"))
    }

    /// The tensor `name`.
    pub fn tensor(&self, name: &str) -> Tensor {
        TensorFile::parse(&self.0).unwrap().read(name).unwrap()
    }

    /// Compares with the tensor `name`; the allowance is `tolerance` of its largest absolute value.
    pub fn check(&self, name: &str, found: &[f32], tolerance: f32) {
        assert_close(name, found, self.tensor(name).data(), tolerance);
    }
}

/// Prints the worst element and what part of the allowance it takes; fails past it.
pub fn assert_close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let pairs = found.iter().zip(expected).enumerate();
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
        "{name}[{index}]: {} instead of {}, allowed {allowed:e}",
        found[index],
        expected[index]
    );
}

/// Where the values of the tensor `name` are in a safetensors file.
fn place(file: &[u8], name: &str) -> Range<usize> {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let offset = |end: usize| json[name]["data_offsets"][end].as_u64().unwrap() as usize;
    8 + header + offset(0)..8 + header + offset(1)
}

/// Changes one value of the tensor `name` of a safetensors file: an integer by one, a number by a thousandth of the
/// tensor's largest, ten times what a gradient may be off.
pub fn change_one_value(file: &mut [u8], name: &str) {
    let place = place(file, name);
    let parsed = TensorFile::parse(file).unwrap();
    if let Ok(tensor) = parsed.read(name) {
        let index = tensor.data().len() / 2;
        let largest = tensor.data().iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let value = tensor.data()[index] + 1e-3 * largest;
        file[place][4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    } else {
        let integers = parsed.read_integers(name).unwrap();
        let index = integers.len() / 2;
        file[place][8 * index..][..8].copy_from_slice(&(integers[index] + 1).to_le_bytes());
    }
}
