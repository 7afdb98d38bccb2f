//! The published inversion, step by step: roll and flip, cross-entropy of the tuned model, Adam, clamp.

use super::reference::{GRADIENT, Reference, assert_close, backbone, published_adapter};
use crate::reference::LOSS;
use lora_recycle::adapter::Adapter;
use lora_recycle::engine::augment::RollFlip;
use lora_recycle::engine::image_parameters::clamp_to_valid_range;
use lora_recycle::engine::loss::{
    LinearHeadGradients, cross_entropy, linear_head, linear_head_backward,
};
use lora_recycle::engine::optimise::{Adam, AdamSettings};
use lora_recycle::engine::session::{Input, Session, SessionOptions, Wanted};
use lora_recycle::engine::vit::Differentiate;
use lora_recycle::tensor::Tensor;

const SHAPE: [usize; 4] = [10, 3, 28, 28];

#[test]
fn three_inversion_steps_give_the_published_codes_losses_and_pixels() {
    let reference = Reference::open("golden/clip-tiny/official/reference.safetensors");
    let labels = Reference::golden("clip-tiny").labels();
    let draws = reference.integers("inversion.augment_dy_dx_flip");
    let adapter = published_adapter();
    let backbone = backbone("clip-tiny");
    let valid_range = (
        backbone.preprocess.mean,
        backbone.preprocess.standard_deviation,
    );
    // Micro-batches of three: the last one is smaller.
    let options = SessionOptions {
        threads: 2,
        images_per_micro_batch: 3,
    };
    let mut session = Session::new(&backbone, options).unwrap();
    let mut pixels = reference.tensor("inversion.init");
    let mut adam = Adam::new(
        AdamSettings {
            beta1: 0.5,
            beta2: 0.99,
            ..AdamSettings::default()
        },
        pixels.data().len(),
    );
    // Adam divides a gradient by its own size: where that is within the gradient's tolerance of zero, size and sign of the step
    // are as unsure as the gradient. Such pixels, at most 1 %, are left out; the losses of the later steps still depend on them.
    let mut unsure = vec![false; pixels.data().len()];
    for (step, draw) in draws.chunks_exact(3).enumerate() {
        let draw = RollFlip {
            down: draw[0] as i32,
            right: draw[1] as i32,
            flip: draw[2] == 1,
        };
        let mut augmented = Tensor::zeros(SHAPE);
        draw.apply(pixels.data(), SHAPE, augmented.data_mut())
            .unwrap();
        let input = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&augmented)
        };
        let differentiate = Differentiate {
            pixels: true,
            factors: false,
        };
        let output = session
            .forward_for(&input, Wanted::default(), differentiate)
            .unwrap();
        let (loss, dfeatures) = head_loss(&adapter, output.features.data(), &labels);
        reference.check(&format!("inversion.step{}.loss", step + 1), &[loss], LOSS);
        let gradients = session.backward(&dfeatures, None).unwrap();
        let daugmented = gradients.pixels.as_ref().unwrap();
        let mut dpixels = vec![0.0; pixels.data().len()];
        draw.adjoint(daugmented.data(), SHAPE, &mut dpixels)
            .unwrap();
        adam.step(pixels.data_mut(), &dpixels, 0.25).unwrap();
        clamp_to_valid_range(pixels.data_mut(), SHAPE, valid_range).unwrap();
        let largest = dpixels.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (unsure, slope) in unsure.iter_mut().zip(&dpixels) {
            *unsure |= slope.abs() < GRADIENT * largest;
        }
        let expected = reference.tensor(&format!("inversion.step{}.pixels", step + 1));
        let sure = |values: &[f32]| -> Vec<f32> {
            let sure = values.iter().zip(&unsure).filter(|(_, unsure)| !**unsure);
            sure.map(|(value, _)| *value).collect()
        };
        let name = format!("inversion.step{}.pixels", step + 1);
        let (found, expected) = (sure(pixels.data()), sure(expected.data()));
        assert!(found.len() * 100 >= pixels.data().len() * 99, "{name}");
        assert_close(&name, &found, &expected, GRADIENT);
    }
    assert_eq!(draws.len(), 9);
}

/// Mean cross-entropy of the adapter's head and its gradient at the features.
fn head_loss(adapter: &Adapter, features: &[f32], labels: &[usize]) -> (f32, Vec<f32>) {
    let weight = &adapter.head.as_ref().unwrap().weight;
    let (classes, width) = (weight.shape()[0], weight.shape()[1]);
    let mut logits = vec![0.0; labels.len() * classes];
    linear_head(features, width, weight.data(), None, &mut logits).unwrap();
    let mut dlogits = vec![0.0; logits.len()];
    let loss = cross_entropy(&logits, labels, classes, Some(&mut dlogits)).unwrap();
    let mut dfeatures = vec![0.0; features.len()];
    let gradients = LinearHeadGradients {
        dfeatures: Some(&mut dfeatures),
        ..LinearHeadGradients::default()
    };
    linear_head_backward(features, width, weight.data(), &dlogits, gradients).unwrap();
    (loss, dfeatures)
}
