//! The published inversion, step by step through the product's own: roll and flip, cross-entropy of the tuned model, Adam, clamp.

use super::parity::head_loss;
use super::reference::{GRADIENT, LOSS, Reference, assert_close, backbone, published_adapter};
use lora_recycle::engine::augment::RollFlip;
use lora_recycle::engine::session::{Input, Session, SessionOptions, Wanted};
use lora_recycle::engine::vit::Differentiate;
use lora_recycle::recycle::inversion::{
    GivenDraws, Inversion, InversionRecipe, PriorData, PriorWeights,
};
use lora_recycle::recycle::steps::Steps;
use lora_recycle::tensor::Tensor;

const SHAPE: [usize; 4] = [10, 3, 28, 28];

// Micro-batches of three: the last one is smaller.
const OPTIONS: SessionOptions = SessionOptions {
    threads: 2,
    images_per_micro_batch: 3,
};

#[test]
fn three_inversion_steps_give_the_published_codes_losses_and_pixels() {
    let reference = Reference::open("clip-tiny/official/reference.safetensors");
    let labels = Reference::open("clip-tiny/reference.safetensors").labels();
    let draws: Vec<RollFlip> = reference
        .integers("inversion.augment_dy_dx_flip")
        .chunks_exact(3)
        .map(|draw| RollFlip {
            down: draw[0] as i32,
            right: draw[1] as i32,
            flip: draw[2] == 1,
        })
        .collect();
    assert_eq!(draws.len(), 3);
    let backbone = backbone("clip-tiny");
    // The published recipe but for the prior, which the reference leaves out.
    let recipe = InversionRecipe {
        images_per_class: 2,
        priors: PriorWeights::default(),
        ..InversionRecipe::paper()
    };
    let given = GivenDraws {
        start: reference.tensor("inversion.init").into_data(),
        augmentation: draws.clone(),
    };
    let mut inversion = Inversion::new(
        &backbone,
        published_adapter(),
        PriorData::default(),
        recipe,
        OPTIONS,
    )
    .unwrap()
    .with_given_draws(given)
    .unwrap();
    // Adam divides a gradient by its own size: where that is within the gradient's tolerance of zero, size and sign of the step
    // are as unsure as the gradient. Such pixels, at most 1 %, are left out; the losses of the later steps still depend on them.
    let mut session = Session::new(&backbone, OPTIONS).unwrap();
    let mut unsure = vec![false; SHAPE.iter().product()];
    for (step, draw) in draws.into_iter().enumerate() {
        let before = inversion.current_pixels().unwrap().clone();
        let dpixels = gradient(&mut session, &before, draw, &labels);
        let report = inversion.step().unwrap();
        let (name, loss) = report.figures[1];
        assert_eq!((name, report.step), ("cross_entropy", step as u64 + 1));
        reference.check(
            &format!("inversion.step{}.loss", step + 1),
            &[loss as f32],
            LOSS,
        );
        let largest = dpixels.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (unsure, slope) in unsure.iter_mut().zip(&dpixels) {
            *unsure |= slope.abs() < GRADIENT * largest;
        }
        let pixels = inversion.current_pixels().unwrap();
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
}

/// Gradient of the changed images' cross-entropy at `pixels`: says which of them are unsure, nothing else.
fn gradient(session: &mut Session, pixels: &Tensor, draw: RollFlip, labels: &[usize]) -> Vec<f32> {
    let adapter = published_adapter();
    let mut changed = Tensor::zeros(SHAPE);
    draw.apply(pixels.data(), SHAPE, changed.data_mut())
        .unwrap();
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&changed)
    };
    let differentiate = Differentiate {
        pixels: true,
        factors: false,
    };
    let output = session
        .forward_for(&input, Wanted::default(), differentiate)
        .unwrap();
    let (_, _, dfeatures) = head_loss(&adapter, output.features.data(), labels);
    let gradients = session.backward(&dfeatures, None).unwrap();
    let mut dpixels = vec![0.0; pixels.data().len()];
    draw.adjoint(
        gradients.pixels.as_ref().unwrap().data(),
        SHAPE,
        &mut dpixels,
    )
    .unwrap();
    dpixels
}
