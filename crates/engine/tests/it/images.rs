//! A batch of images on the CPU takes the same steps, bit for bit, as the functions that it is made of.

use engine::augment::{Affine, AffineLimits, RollFlip, warp, warp_adjoint};
use engine::backend::Backend;
use engine::cpu::Cpu;
use engine::image_backend::ImageBackend;
use engine::image_parameters::{ImageParameters, Parametrisation};
use engine::images::{Change, ImageBatch, ImageBatchOptions, PriorLosses, PriorWeights};
use engine::loss::{mean_norm, total_variation};
use engine::optimise::{Adam, AdamSettings};
use engine::resnet::{BatchNormPrior, ResNet};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use test_support::gradient_check::noise;
use test_support::reference::bytes;

type Queue = <Cpu as Backend>::Queue;

const NORMALISATION: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const SHAPE: [usize; 4] = [2, 3, 5, 7];

fn options(parametrisation: Parametrisation) -> ImageBatchOptions {
    ImageBatchOptions {
        parametrisation,
        shape: SHAPE,
        normalisation: NORMALISATION,
        adam: AdamSettings::default(),
        priors: PriorWeights {
            total_variation: 0.3,
            mean_norm: 0.02,
            batch_norm: 0.01,
        },
    }
}

/// A gradient that depends on the images.
fn slope(augmented: &[f32], step: u64) -> Vec<f32> {
    let goal = noise(100 + step, augmented.len());
    let pairs = augmented.iter().zip(goal);
    pairs.map(|(value, goal)| value.sin() - goal).collect()
}

fn read(cpu: &Cpu, queue: &Queue, batch: &ImageBatch<Cpu>) -> Vec<f32> {
    let matrix = batch.augmented();
    let mut values = vec![0.0; matrix.rows * matrix.columns];
    cpu.downloaded(queue, matrix, &mut values);
    values
}

fn changes(step: u64) -> Change {
    let mut random = ChaCha8Rng::seed_from_u64(step);
    let mut affine = || AffineLimits::default().draw(&mut random);
    match step % 4 {
        0 => Change::Nothing,
        3 => Change::Affine([(); SHAPE[0]].map(|()| affine()).to_vec()),
        _ => Change::RollFlip(RollFlip {
            down: 2 - step as i32,
            right: step as i32,
            flip: step.is_multiple_of(2),
        }),
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn steps_of_a_batch_are_those_of_the_functions_that_it_is_made_of_bit_for_bit() {
    let cpu = Cpu::default();
    let network = || ResNet::read(&bytes("reference/resnet-basic.safetensors")).unwrap();
    let mut own_prior = BatchNormPrior::new(network());
    let mut prior = cpu.batch_norm_prior(network());
    for parametrisation in [Parametrisation::Pixels, Parametrisation::Fourier] {
        let mut own = ImageParameters::new(parametrisation, SHAPE, NORMALISATION).unwrap();
        let mut parameters = noise(1, own.count());
        let mut queue = cpu.queue();
        let mut batch = ImageBatch::new(
            &cpu,
            &mut queue,
            options(parametrisation),
            &parameters,
            Some(&prior),
        )
        .unwrap();
        let mut adam = Adam::new(AdamSettings::default(), parameters.len());
        let pixels: usize = SHAPE.iter().product();
        let [mut images, mut augmented, mut dimages] = [(); 3].map(|()| vec![0.0; pixels]);
        let mut dparameters = vec![0.0; parameters.len()];
        for step in 0..12 {
            let change = changes(step);
            let rate = 0.1 / (step + 1) as f64;
            own.images(&parameters, &mut images).unwrap();
            match &change {
                Change::Nothing => augmented.copy_from_slice(&images),
                Change::RollFlip(draw) => draw.apply(&images, SHAPE, &mut augmented).unwrap(),
                Change::Affine(own) => warp(&images, SHAPE, own, &mut augmented).unwrap(),
            }
            let gradient = slope(&augmented, step);
            let mut daugmented = gradient.clone();
            let expected = {
                let weights = options(parametrisation).priors;
                let own = Some(daugmented.as_mut_slice());
                let batch_norm = own_prior.loss(&augmented, SHAPE, weights.batch_norm, own);
                let own = Some(daugmented.as_mut_slice());
                let first = total_variation(&augmented, SHAPE, weights.total_variation, own);
                let own = Some(daugmented.as_mut_slice());
                let second = mean_norm(&augmented, SHAPE, weights.mean_norm, own);
                [batch_norm, first, second].map(Result::unwrap)
            };
            match &change {
                Change::Nothing => dimages.copy_from_slice(&daugmented),
                Change::RollFlip(draw) => draw.adjoint(&daugmented, SHAPE, &mut dimages).unwrap(),
                Change::Affine(own) => {
                    warp_adjoint(&daugmented, SHAPE, own, &mut dimages).unwrap();
                }
            }
            own.backward(&dimages, &mut dparameters).unwrap();
            adam.step(&mut parameters, &dparameters, rate).unwrap();
            own.constrain(&mut parameters).unwrap();

            // Half way through it is made again from what it holds.
            if step == 6 {
                let state = batch.adam_state(&cpu, &mut queue).unwrap();
                let held = batch.parameters(&cpu, &mut queue).unwrap();
                let options = options(parametrisation);
                batch = ImageBatch::new(&cpu, &mut queue, options, &held, Some(&prior)).unwrap();
                batch.resume(&cpu, &mut queue, &state).unwrap();
            }
            batch.begin(&cpu, &mut queue, &change).unwrap();
            assert_eq!(bits(&read(&cpu, &queue, &batch)), bits(&augmented));
            cpu.upload(&mut queue, &gradient, batch.daugmented());
            batch.priors(&cpu, &mut queue, Some(&mut prior), true);
            batch.end(&cpu, &mut queue, rate).unwrap();
            cpu.finish(&mut queue).unwrap();
            let losses = batch.losses(&cpu, &mut queue).unwrap();
            let found = [losses.batch_norm, losses.total_variation, losses.mean_norm];
            assert_eq!(found.map(|loss| loss as f32), expected);
            let found = batch.parameters(&cpu, &mut queue).unwrap();
            assert_eq!(bits(&found), bits(&parameters), "step {step}");
            let state = batch.adam_state(&cpu, &mut queue).unwrap();
            assert_eq!(&state, adam.state());
        }
        own.images(&parameters, &mut images).unwrap();
        assert_eq!(
            bits(&batch.images(&cpu, &mut queue).unwrap()),
            bits(&images)
        );
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_the_batch_stays_as_it_was() {
    let cpu = Cpu::default();
    let mut queue = cpu.queue();
    let parameters = noise(1, SHAPE.iter().product());
    let options = options(Parametrisation::Pixels);
    let mut batch = ImageBatch::new(&cpu, &mut queue, options, &parameters, None).unwrap();
    let mut step = |bad: Option<f32>| {
        batch.begin(&cpu, &mut queue, &changes(1)).unwrap();
        let mut gradient = vec![0.5; parameters.len()];
        gradient[7] = bad.unwrap_or(0.5);
        cpu.upload(&mut queue, &gradient, batch.daugmented());
        batch.end(&cpu, &mut queue, 0.1).unwrap();
        cpu.finish(&mut queue).unwrap();
        let outcome = batch.losses(&cpu, &mut queue);
        let state = batch.adam_state(&cpu, &mut queue).unwrap();
        let held = batch.parameters(&cpu, &mut queue).unwrap();
        (outcome.map(|_| ()), state, held)
    };
    let (outcome, before, held) = step(None);
    assert_eq!(outcome, Ok(()));
    let (outcome, after, held_after) = step(Some(f32::INFINITY));
    assert_eq!(
        outcome.unwrap_err().to_string(),
        "augmentation backward: value 7 of daugmented, shape [2, 3, 5, 7], is inf; all values must be finite numbers"
    );
    assert_eq!((before, held), (after, held_after));
    let (outcome, last, _) = step(None);
    assert_eq!((outcome, last.steps_done), (Ok(()), 2));
}

#[test]
fn what_does_not_make_a_batch_is_refused_by_name() {
    let cpu = Cpu::default();
    let mut queue = cpu.queue();
    let mut refuse = |shape: [usize; 4], parameters: &[f32]| {
        let options = ImageBatchOptions {
            shape,
            ..options(Parametrisation::Pixels)
        };
        let refused = ImageBatch::new(&cpu, &mut queue, options, parameters, None);
        refused.map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(
        refuse([2, 1, 5, 7], &[]),
        "image batch: the batch has shape [2, 1, 5, 7], which does not go with three channels of shape [2, 3, 5, 7]"
    );
    assert_eq!(
        refuse([0, 3, 5, 7], &[]),
        "image batch: the batch has shape [0, 3, 5, 7]; no axis may be zero"
    );
    assert_eq!(
        refuse([1, 3, 1, 2], &[0.0; 5]),
        "image batch: parameters with shape [6]: 5 values where 6 are needed"
    );
    let refused = refuse([30000, 3, 1, 1], &[]);
    assert!(
        refused.contains("the number of images is 30000"),
        "{refused}"
    );
    let refused = refuse([2, 3, usize::MAX / 3, 2], &[]);
    assert!(refused.contains("the number of images is 2"), "{refused}");
}

#[test]
fn priors_without_a_gradient_and_changes_that_do_not_fit() {
    let cpu = Cpu::default();
    let mut queue = cpu.queue();
    let parameters = noise(1, SHAPE.iter().product());
    let options = options(Parametrisation::Pixels);
    let mut batch = ImageBatch::new(&cpu, &mut queue, options, &parameters, None).unwrap();
    batch.begin(&cpu, &mut queue, &Change::Nothing).unwrap();
    batch.priors(&cpu, &mut queue, None, false);
    batch.send_losses(&cpu, &mut queue);
    cpu.finish(&mut queue).unwrap();
    let losses = batch.losses(&cpu, &mut queue).unwrap();
    assert_ne!(losses, PriorLosses::default());
    let mut gradient = vec![f32::NAN; parameters.len()];
    cpu.downloaded(&queue, batch.daugmented(), &mut gradient);
    assert_eq!(gradient, vec![0.0; parameters.len()]);

    let mut refuse = |change: Affine, count: usize| {
        let refused = batch.begin(&cpu, &mut queue, &Change::Affine(vec![change; count]));
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        refuse(Affine::default(), 3),
        "affine warp: the parameters with shape [2]: 3 values where 2 are needed"
    );
    let flat = Affine {
        scale: 0.0,
        ..Affine::default()
    };
    assert_eq!(
        refuse(flat, 2),
        "affine warp: a scale is 0; it must not be zero"
    );
}
