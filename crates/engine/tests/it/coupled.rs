//! Losses that couple the images of a batch are those of the whole batch, however threads and micro-batches cut it; and a run
//! that is repeated gives the same bits.

use super::properties::{BOTH, noise, pixels, wide_adapter};
use engine::loss::{LeaveOneOut, Moments, PrototypeScores, Scoring, StatisticsTerm, cross_entropy};
use engine::resnet::{BatchNormPrior, ResNet};
use engine::session::{Device, Input, Output, Pruning, Session, SessionOptions, Wanted};
use engine::vit::NormInputGradients;
use test_support::fixtures::backbone;
use test_support::reference::{Reference, assert_close};

const LABELS: [usize; 10] = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4];

/// Losses and gradients of one step.
#[derive(Debug, PartialEq)]
struct Step {
    losses: Vec<f32>,
    dpixels: Vec<f32>,
    dpairs: Vec<f32>,
}

/// Statistics of the tokens that entered each LayerNorm against stored ones; the gradients are those at these tokens.
fn token_statistics(output: &Output, width: usize) -> (f32, Vec<f32>, Vec<f32>) {
    let sums = output.norm_input_sums.as_ref().unwrap();
    let (mut loss, mut offset, mut slope) = (0.0, vec![], vec![]);
    for (norm, sums) in sums.chunks_exact(2 * width).enumerate() {
        let count = output.norm_input_counts[norm];
        let (values, squares) = sums.split_at(width);
        let mean: Vec<f64> = values.iter().map(|sum| sum / count as f64).collect();
        let spread = squares.iter().zip(values.iter().zip(&mean));
        let moments = Moments {
            count: count as u64,
            spread: spread
                .map(|(square, (sum, mean))| square - sum * mean)
                .collect(),
            mean,
        };
        let stored_mean = noise(norm, width);
        let stored_variance: Vec<f32> = noise(norm + 50, width).iter().map(|v| v.abs()).collect();
        let mut term = StatisticsTerm::default();
        term.set(&moments, &stored_mean, &stored_variance, 0.1);
        loss += term.loss;
        offset.extend(&term.constant);
        slope.extend(&term.slope);
    }
    (loss as f32, offset, slope)
}

/// Prototypes, leave-one-out and token statistics on one pruned batch of ten images, in one backward.
fn step(model: &str, options: SessionOptions) -> Step {
    let backbone = backbone(model);
    let mut session = Session::new(&backbone, options).unwrap();
    let adapter = wide_adapter(&backbone, &[0, 2, 3], 3);
    let pixels = pixels();
    let pruning = [Pruning {
        layer: 1,
        ratio: 0.5,
    }];
    let input = Input {
        adapter: Some(&adapter),
        pruning: &pruning,
        ..Input::pixels(&pixels)
    };
    let wanted = Wanted {
        norm_input_sums: true,
        ..Wanted::default()
    };
    let output = session.forward_for(&input, wanted, BOTH).unwrap();
    let features = output.features.data();
    let width = output.features.shape()[1];
    let (statistics, offset, slope) = token_statistics(output, backbone.config.width);

    let (supports, queries) = features.split_at(5 * width);
    let mut prototypes = PrototypeScores::new(Scoring::default());
    let mut scores = [0.0; 25];
    prototypes
        .forward(supports, &LABELS[..5], queries, [5, width], &mut scores)
        .unwrap();
    let mut dscores = [0.0; 25];
    let episode = cross_entropy(&scores, &LABELS[5..], 5, Some(&mut dscores)).unwrap();
    let mut dfeatures = vec![0.0; features.len()];
    let (dsupports, dqueries) = dfeatures.split_at_mut(5 * width);
    prototypes.backward(&dscores, dsupports, dqueries).unwrap();

    let mut dleft_out = vec![0.0; features.len()];
    let left_out = LeaveOneOut::new(Scoring::default())
        .loss(features, &LABELS, [5, width], None, Some(&mut dleft_out))
        .unwrap();
    for (sum, value) in dfeatures.iter_mut().zip(&dleft_out) {
        *sum += value;
    }
    let norm_inputs = NormInputGradients {
        offset: &offset,
        slope: &slope,
    };
    let gradients = session.backward(&dfeatures, Some(norm_inputs)).unwrap();
    let pairs = gradients.pairs.values();
    Step {
        losses: vec![episode, left_out, statistics],
        dpixels: gradients.pixels.as_ref().unwrap().data().to_vec(),
        dpairs: pairs
            .flat_map(|own| own.da.data().iter().chain(own.db.data()).copied())
            .collect(),
    }
}

#[test]
fn losses_that_couple_images_are_exact_however_the_batch_is_split_and_repeat_bit_for_bit() {
    for model in ["dinov2-tiny", "clip-tiny"] {
        let whole = step(
            model,
            SessionOptions {
                threads: 1,
                images_per_micro_batch: 10,
                device: Device::Cpu,
            },
        );
        assert!(
            whole.losses.iter().all(|&loss| loss > 0.1),
            "{:?}",
            whole.losses
        );
        for threads in 1..=3 {
            for images_per_micro_batch in [0, 1, 3, 4, 7] {
                let options = SessionOptions {
                    threads,
                    images_per_micro_batch,
                    device: Device::Cpu,
                };
                let split = step(model, options.clone());
                // Sums over other numbers of rows and in another order: some units of the last place.
                assert_close("losses", &split.losses, &whole.losses, 1e-6);
                assert_close("dpixels", &split.dpixels, &whole.dpixels, 1e-5);
                assert_close("dpairs", &split.dpairs, &whole.dpairs, 1e-5);
                assert_eq!(split, step(model, options.clone()), "{options:?}");
            }
        }
    }
}

#[test]
fn a_step_in_one_go_repeats_bit_for_bit_with_any_number_of_threads() {
    let backbone = backbone("vit-tiny");
    let adapter = wide_adapter(&backbone, &[1, 3], 5);
    let pixels = pixels();
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&pixels)
    };
    for threads in 1..=3 {
        let run = || {
            let options = SessionOptions {
                threads,
                images_per_micro_batch: 2,
                device: Device::Cpu,
            };
            let mut session = Session::new(&backbone, options).unwrap();
            let step = session.step(&input, BOTH, |_, features, dfeatures| {
                dfeatures.copy_from_slice(features);
                Ok(features.iter().map(|&value| f64::from(value * value)).sum())
            });
            let (loss, gradients) = step.unwrap();
            let pixels = gradients.pixels.clone().unwrap();
            (loss.to_bits(), pixels, gradients.pairs.clone())
        };
        let first = run();
        for _ in 0..3 {
            assert_eq!(run(), first, "{threads} threads");
        }
    }
}

#[test]
fn the_batch_norm_prior_of_the_golden_network_has_the_same_bits_with_any_number_of_threads() {
    let pixels = Reference::golden("resnet-tiny").tensor("pixel_values");
    let weights = test_support::reference::bytes("golden/resnet-tiny/model.safetensors");
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut prior = BatchNormPrior::new(ResNet::read(&weights).unwrap());
            let mut dpixels = vec![0.0; pixels.data().len()];
            let loss = prior
                .loss(pixels.data(), [4, 3, 64, 64], 1.0, Some(&mut dpixels))
                .unwrap();
            (loss, dpixels)
        })
    };
    let one = run(1);
    for threads in [2, 3, 4] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}
