//! Reference tensors, the adapters that belong to them, and comparison by name.

use crate::support::project;
use lora_recycle::adapter::{Adapter, Factors, Head, HeadInput, Site, Target};
use lora_recycle::backbone::{Backbone, load_folder};
use lora_recycle::tensor::Tensor;
use lora_recycle::tensor_file::TensorFile;
use std::path::PathBuf;

/// The tolerances that come with the reference values: fp32 sums of a few hundred terms in another order. Relative to the
/// tensor's largest absolute value.
pub const FORWARD: f32 = 2e-5;
pub const LOSS: f32 = 1e-5;
pub const GRADIENT: f32 = 1e-4;

pub const MODELS: [&str; 3] = ["vit-tiny", "dinov2-tiny", "clip-tiny"];

fn golden(name: &str) -> PathBuf {
    project("tests/golden").join(name)
}

pub fn backbone(name: &str) -> Backbone {
    load_folder(&golden(name)).unwrap()
}

/// A safetensors file of `tests/golden`.
pub struct Reference(Vec<u8>);

impl Reference {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(golden(name)).unwrap())
    }

    pub fn names(&self) -> Vec<String> {
        let file = TensorFile::parse(&self.0).unwrap();
        file.names().map(str::to_owned).collect()
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        TensorFile::parse(&self.0).unwrap().read(name).unwrap()
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        let file = TensorFile::parse(&self.0).unwrap();
        file.read_integers(name).unwrap()
    }

    pub fn labels(&self) -> Vec<usize> {
        let labels = self.integers("labels");
        labels.into_iter().map(|label| label as usize).collect()
    }

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

/// The tuned adapter of a model, with its head.
pub fn adapter(model: &str) -> Adapter {
    let file = Reference::open(&format!(
        "{model}/adapter-peft-v4/adapter_model.safetensors"
    ));
    let mut adapter = Adapter::default();
    for name in file.names() {
        if let Some(stem) = name.strip_suffix(".lora_A.weight") {
            let factors = Factors {
                a: file.tensor(&name),
                b: file.tensor(&format!("{stem}.lora_B.weight")),
                // alpha 8, rank 4
                scale: 2.0,
            };
            adapter.factors.insert(site(stem), factors);
        }
    }
    let bias = "base_model.model.classifier.bias";
    let reference = Reference::open(&format!("{model}/reference.safetensors"));
    adapter.head = Some(Head {
        weight: reference.tensor("head_weight"),
        bias: file
            .names()
            .contains(&bias.to_owned())
            .then(|| file.tensor(bias)),
        input: match model {
            "vit-tiny" => HeadInput::Cls,
            "dinov2-tiny" => HeadInput::ClsMean,
            _ => HeadInput::Feature,
        },
        labels: vec![],
    });
    adapter
}

/// The site that a PEFT module name means.
pub fn site(name: &str) -> Site {
    let mut parts = name.split('.');
    let layer = parts.find_map(|part| part.parse().ok()).unwrap();
    let last = parts.next_back().unwrap();
    let target = match last {
        "query" | "q_proj" => Target::Query,
        "value" | "v_proj" => Target::Value,
        other => panic!("{other} is no target of the reference adapters"),
    };
    Site { layer, target }
}

/// The adapter in the published code's own layout: q of layer 0, v of layer 0, q of layer 1, …; scale 1.
pub fn published_adapter() -> Adapter {
    let file = Reference::open("clip-tiny/official/lora_0.safetensors");
    let mut adapter = Adapter::default();
    for index in 0..8 {
        let target = [Target::Query, Target::Value][index % 2];
        let site = Site {
            layer: index / 2,
            target,
        };
        let factors = Factors {
            a: file.tensor(&format!("w_a_{index:03}")),
            b: file.tensor(&format!("w_b_{index:03}")),
            scale: 1.0,
        };
        adapter.factors.insert(site, factors);
    }
    adapter.head = Some(Head {
        weight: file.tensor("fc_16in_5out"),
        bias: None,
        input: HeadInput::Feature,
        labels: vec![],
    });
    adapter
}
