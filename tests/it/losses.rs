//! Losses and priors against the reference values, tensor by tensor.

use lora_recycle::engine::loss::{
    PrototypeScores, Scoring, cross_entropy, distillation, linear_head, total_variation,
};
use lora_recycle::engine::resnet::{BatchNormPrior, ResNet};
use lora_recycle::tensor::Tensor;
use lora_recycle::tensor_file::TensorFile;
use std::path::Path;

/// Reference tensors of `tests/golden/<name>`.
struct Reference(Vec<u8>);

impl Reference {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        Self(std::fs::read(path).unwrap())
    }

    fn tensor(&self, name: &str) -> Tensor {
        TensorFile::parse(&self.0).unwrap().read(name).unwrap()
    }

    fn labels(&self) -> Vec<usize> {
        let file = TensorFile::parse(&self.0).unwrap();
        let labels = file.read_integers("labels").unwrap();
        labels.into_iter().map(|label| label as usize).collect()
    }

    /// Compares with the tensor `name`; the allowance is `tolerance` of its largest absolute value.
    fn check(&self, name: &str, found: &[f32], tolerance: f32) {
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
const FORWARD: f32 = 2e-5;
const LOSS: f32 = 1e-5;
const GRADIENT: f32 = 1e-4;

#[test]
fn cross_entropy_of_the_reference_logits_is_the_reference_loss() {
    for model in ["vit-tiny", "dinov2-tiny", "clip-tiny"] {
        let reference = Reference::open(&format!("{model}/reference.safetensors"));
        let logits = reference.tensor("adapter_logits");
        let loss = cross_entropy(logits.data(), &reference.labels(), 5, None).unwrap();
        reference.check("adapter_ce", &[loss], LOSS);
    }
}

#[test]
fn the_linear_head_gives_the_reference_logits() {
    // The two other heads have a bias or another input; they are checked with the whole model.
    let reference = Reference::open("clip-tiny/reference.safetensors");
    let features = reference.tensor("adapter_features");
    let weight = reference.tensor("head_weight");
    let mut logits = vec![0.0; 50];
    linear_head(
        features.data(),
        weight.shape()[1],
        weight.data(),
        None,
        &mut logits,
    )
    .unwrap();
    reference.check("adapter_logits", &logits, FORWARD);
}

#[test]
fn prototype_scores_and_episode_losses_are_the_reference_values() {
    for model in ["vit-tiny", "dinov2-tiny", "clip-tiny"] {
        let reference = Reference::open(&format!("{model}/reference.safetensors"));
        let features = reference.tensor("adapter_features");
        let width = features.shape()[1];
        let (supports, queries) = features.data().split_at(5 * width);
        let labels = [0, 1, 2, 3, 4];
        let mut scores = [0.0; 25];
        PrototypeScores::new(Scoring::default())
            .forward(supports, &labels, queries, [5, width], &mut scores)
            .unwrap();
        reference.check("episode_scores", &scores, FORWARD);
        let teacher = reference.tensor("teacher_logits");
        let kl = distillation(teacher.data(), &scores, 5, 1.0, None).unwrap();
        reference.check("episode_kl", &[kl], LOSS);
        let ce = cross_entropy(&scores, &labels, 5, None).unwrap();
        reference.check("episode_ce", &[ce], LOSS);
    }
}

#[test]
fn total_variation_and_its_gradient_are_the_reference_values() {
    let pixels = Reference::open("clip-tiny/reference.safetensors").tensor("pixel_values");
    let reference = Reference::open("clip-tiny/official/reference.safetensors");
    let mut gradient = vec![0.0; pixels.data().len()];
    let loss = total_variation(pixels.data(), [10, 3, 28, 28], 1.0, Some(&mut gradient)).unwrap();
    reference.check("tv.loss", &[loss], LOSS);
    reference.check("tv.grad", &gradient, GRADIENT);
}

fn golden_bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(path).unwrap()
}

#[test]
fn the_batch_norm_prior_is_the_reference_in_every_term_and_at_the_pixels() {
    let reference = Reference::open("resnet-tiny/reference.safetensors");
    let network = ResNet::read(&golden_bytes("resnet-tiny/model.safetensors")).unwrap();
    let mut prior = BatchNormPrior::new(network);
    let pixels = reference.tensor("pixel_values");
    let shape = [4, 3, 64, 64];
    let logits = prior.logits(pixels.data(), shape).unwrap().unwrap();
    reference.check("logits", &logits, FORWARD);
    let mut gradient = vec![0.0; pixels.data().len()];
    let loss = prior
        .loss(pixels.data(), shape, 1.0, Some(&mut gradient))
        .unwrap();
    reference.check("prior", &[loss], LOSS);
    let terms: Vec<(&str, f32)> = prior.terms().collect();
    assert_eq!(terms.len(), 20);
    for (name, value) in terms {
        reference.check(&format!("prior.{name}"), &[value], LOSS);
    }
    reference.check("prior_grad_pixels", &gradient, GRADIENT);
}
