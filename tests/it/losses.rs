//! Losses and priors against the reference values, tensor by tensor.

use crate::reference::{FORWARD, GRADIENT, LOSS, Reference, bytes};
use lora_recycle::engine::loss::{
    PrototypeScores, Scoring, cross_entropy, distillation, linear_head, total_variation,
};
use lora_recycle::engine::resnet::{BatchNormPrior, ResNet};

#[test]
fn cross_entropy_of_the_reference_logits_is_the_reference_loss() {
    for model in ["vit-tiny", "dinov2-tiny", "clip-tiny"] {
        let reference = Reference::open(&format!("golden/{model}/reference.safetensors"));
        let logits = reference.tensor("adapter_logits");
        let loss = cross_entropy(logits.data(), &reference.labels(), 5, None).unwrap();
        reference.check("adapter_ce", &[loss], LOSS);
    }
}

#[test]
fn the_linear_head_gives_the_reference_logits() {
    // The two other heads have a bias or another input; they are checked with the whole model.
    let reference = Reference::open("golden/clip-tiny/reference.safetensors");
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
        let reference = Reference::open(&format!("golden/{model}/reference.safetensors"));
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
    let pixels = Reference::open("golden/clip-tiny/reference.safetensors").tensor("pixel_values");
    let reference = Reference::open("golden/clip-tiny/official/reference.safetensors");
    let mut gradient = vec![0.0; pixels.data().len()];
    let loss = total_variation(pixels.data(), [10, 3, 28, 28], 1.0, Some(&mut gradient)).unwrap();
    reference.check("tv.loss", &[loss], LOSS);
    reference.check("tv.grad", &gradient, GRADIENT);
}

#[test]
fn the_batch_norm_prior_is_the_reference_in_every_term_and_at_the_pixels() {
    let reference = Reference::open("golden/resnet-tiny/reference.safetensors");
    let network = ResNet::read(&bytes("golden/resnet-tiny/model.safetensors")).unwrap();
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
