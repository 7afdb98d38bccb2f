//! What must hold between passes of the engine.

use engine::session::{Device, Entry, Input, Pruning, Session, SessionOptions, Wanted};
use engine::tolerance::GRADIENT;
use engine::vit::{Differentiate, NormInputGradients};
use model::adapter::{Adapter, HeadInput, LowRankPair, Site, Target};
use model::backbone::Backbone;
use model::tensor::Tensor;
use test_support::fixtures::{MODELS, adapter, backbone};
use test_support::reference::{Reference, assert_close};

pub const BOTH: Differentiate = Differentiate {
    pixels: true,
    pairs: true,
};

fn session(backbone: &Backbone, images_per_micro_batch: usize) -> Session {
    let options = SessionOptions {
        threads: 2,
        images_per_micro_batch,
        device: Device::Cpu,
    };
    Session::new(backbone, options).unwrap()
}

pub fn pixels() -> Tensor {
    Reference::golden("vit-tiny").tensor("pixel_values")
}

/// Values between −1 and 1 without a pattern.
pub fn noise(seed: usize, count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7919 + seed * 104_729 + 13) as f32 * 0.618_034).sin())
        .collect()
}

/// Low-rank pairs of odd rank on all six maps of some layers.
pub fn wide_adapter(backbone: &Backbone, layers: &[usize], rank: usize) -> Adapter {
    let (width, mlp) = (backbone.config.width, backbone.config.mlp_width);
    let mut adapter = Adapter::default();
    for &layer in layers {
        for target in Target::ALL {
            let (inputs, outputs) = match target {
                Target::MlpIn => (width, mlp),
                Target::MlpOut => (mlp, width),
                _ => (width, width),
            };
            let seed = layer * 10 + target as usize;
            let pair = LowRankPair {
                a: Tensor::new([rank, inputs], noise(seed, rank * inputs)).unwrap(),
                b: Tensor::new([outputs, rank], noise(seed + 500, rank * outputs)).unwrap(),
                scale: 0.05,
            };
            adapter.pairs.insert(Site { layer, target }, pair);
        }
    }
    adapter
}

fn features(session: &mut Session, input: &Input<'_>) -> Vec<f32> {
    let output = session.forward(input, Wanted::default()).unwrap();
    output.features.data().to_vec()
}

/// Features and gradients for a loss whose gradient at the features is fixed.
fn pass(
    session: &mut Session,
    input: &Input<'_>,
    differentiate: Differentiate,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let output = session
        .forward_for(input, Wanted::default(), differentiate)
        .unwrap();
    let features = output.features.data().to_vec();
    let gradients = session.backward(&noise(1, features.len()), None).unwrap();
    let pixels = gradients.pixels.as_ref();
    let pixels = pixels.map_or(vec![], |pixels| pixels.data().to_vec());
    let pairs = gradients.pairs.values();
    let values = pairs.flat_map(|own| own.da.data().iter().chain(own.db.data()).copied());
    (features, pixels, values.collect())
}

#[test]
fn pruning_that_removes_nothing_equals_the_dense_pass_bit_for_bit() {
    let pixels = pixels();
    for model in MODELS {
        let mut session = session(&backbone(model), 4);
        let adapter = adapter(model);
        let dense = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        // int(16·0.06) = 0
        let pruning = [
            Pruning {
                layer: 1,
                ratio: 0.06,
            },
            Pruning {
                layer: 3,
                ratio: 0.0,
            },
        ];
        let pruned = Input {
            pruning: &pruning,
            ..dense
        };
        assert_eq!(
            pass(&mut session, &dense, BOTH),
            pass(&mut session, &pruned, BOTH)
        );
    }
}

#[test]
fn sparse_input_with_all_tokens_equals_the_dense_pass_bit_for_bit() {
    let pixels = pixels();
    let all: Vec<u32> = (0..10).flat_map(|_| 0..17).collect();
    for model in MODELS {
        let mut session = session(&backbone(model), 4);
        let adapter = adapter(model);
        let dense = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        let sparse = Input {
            tokens: Some(&all),
            ..dense
        };
        assert_eq!(
            pass(&mut session, &dense, BOTH),
            pass(&mut session, &sparse, BOTH)
        );
    }
}

#[test]
fn an_adapter_whose_b_is_zero_equals_the_bare_backbone_bit_for_bit() {
    let pixels = pixels();
    for model in MODELS {
        let backbone = backbone(model);
        let mut session = session(&backbone, 4);
        let mut adapter = wide_adapter(&backbone, &[0, 2, 3], 3);
        for pair in adapter.pairs.values_mut() {
            pair.b.data_mut().fill(0.0);
        }
        let bare = Input::pixels(&pixels);
        let adapted = Input {
            adapter: Some(&adapter),
            ..bare
        };
        assert_eq!(
            features(&mut session, &bare),
            features(&mut session, &adapted)
        );
    }
}

#[test]
fn two_runs_give_the_same_bits_whatever_ran_between_them() {
    let pixels = pixels();
    let backbone = backbone("dinov2-tiny");
    let adapter = wide_adapter(&backbone, &[1, 3], 5);
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&pixels)
    };
    let mut first = session(&backbone, 2);
    let expected = pass(&mut first, &input, BOTH);
    let single = Tensor::new([1, 3, 28, 28], pixels.row(3).to_vec()).unwrap();
    features(&mut first, &Input::pixels(&single));
    assert_eq!(pass(&mut first, &input, BOTH), expected);
    assert_eq!(pass(&mut session(&backbone, 2), &input, BOTH), expected);
}

#[test]
fn the_split_into_micro_batches_changes_the_last_bits_at_most() {
    let pixels = pixels();
    for model in MODELS {
        let backbone = backbone(model);
        let adapter = wide_adapter(&backbone, &[0, 1, 2, 3], 2);
        let pruning = [Pruning {
            layer: 1,
            ratio: 0.5,
        }];
        let input = Input {
            adapter: Some(&adapter),
            pruning: &pruning,
            ..Input::pixels(&pixels)
        };
        let whole = pass(&mut session(&backbone, 10), &input, BOTH);
        for images in [1, 3, 4] {
            let split = pass(&mut session(&backbone, images), &input, BOTH);
            assert_close("features", &split.0, &whole.0, 2e-6);
            assert_close("pixels", &split.1, &whole.1, GRADIENT);
            // Sums over images come in another order.
            assert_close("low-rank pairs", &split.2, &whole.2, GRADIENT);
        }
    }
}

#[test]
fn a_step_in_one_go_equals_forward_and_backward_apart() {
    let pixels = pixels();
    let backbone = backbone("clip-tiny");
    let adapter = wide_adapter(&backbone, &[2, 3], 4);
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&pixels)
    };
    let mut session = session(&backbone, 2);
    let (_, dpixels, dpairs) = pass(&mut session, &input, BOTH);
    let width = backbone.feature_width();
    let given = noise(1, 10 * width);
    let (loss, gradients) = session
        .step(&input, BOTH, |images, features, dfeatures| {
            dfeatures.copy_from_slice(&given[images.start * width..images.end * width]);
            Ok(f64::from(features[0]))
        })
        .unwrap();
    assert!(loss != 0.0);
    assert_eq!(gradients.pixels.as_ref().unwrap().data(), dpixels);
    let pairs = gradients.pairs.values();
    let values = pairs.flat_map(|own| own.da.data().iter().chain(own.db.data()).copied());
    assert_eq!(values.collect::<Vec<_>>(), dpairs);
}

/// A directional derivative by central differences of the engine's forward, summed in f64.
fn slope(mut loss: impl FnMut(f32) -> f64) -> f64 {
    const STEP: f32 = 4e-3;
    let (near, far) = (
        loss(STEP) - loss(-STEP),
        loss(2.0 * STEP) - loss(-2.0 * STEP),
    );
    // Fourth order, so that the step may be large against f32's noise.
    (8.0 * near - far) / (12.0 * f64::from(STEP))
}

fn weighted(features: &[f32]) -> f64 {
    let weights = noise(1, features.len());
    let terms = features.iter().zip(weights);
    terms.map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
}

/// f32 features carry about 1e-6 of noise each, hundreds of them over a step of 4e-3 about 2e-3; each operation alone is
/// checked far closer where it is defined.
fn assert_slope(name: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 5e-3 * expected.abs().max(0.5),
        "{name}: {found}, by differences {expected}"
    );
}

/// The weighted features of an input, and the tokens that are left at the end.
fn probe(session: &mut Session, input: &Input<'_>) -> (f64, Vec<u32>) {
    let wanted = Wanted {
        kept_tokens: true,
        ..Wanted::default()
    };
    let output = session.forward(input, wanted).unwrap();
    let kept = output.kept_tokens.clone().unwrap();
    (weighted(output.features.data()), kept)
}

/// `values + step·direction`
fn moved(values: &Tensor, direction: &[f32], step: f32) -> Tensor {
    let pairs = values.data().iter().zip(direction);
    Tensor::new(values.shape(), pairs.map(|(v, d)| v + step * d).collect()).unwrap()
}

fn along(gradient: &Tensor, direction: &[f32]) -> f64 {
    let pairs = gradient.data().iter().zip(direction);
    pairs.map(|(a, b)| f64::from(a * b)).sum()
}

#[test]
fn gradients_of_every_lora_matrix_and_of_the_pixels_are_the_slopes_of_the_forward_pass() {
    let pixels = pixels();
    let reads = [HeadInput::Feature, HeadInput::ClsMean, HeadInput::Feature];
    for (model, read) in MODELS.into_iter().zip(reads) {
        for pruned in [false, true] {
            let backbone = backbone(model);
            let mut session = session(&backbone, 3);
            let adapter = wide_adapter(&backbone, &[1, 2, 3], 3);
            let pruning = [Pruning {
                layer: 2,
                ratio: 0.5,
            }];
            let input = Input {
                adapter: Some(&adapter),
                pruning: if pruned { &pruning } else { &[] },
                read,
                ..Input::pixels(&pixels)
            };
            let (_, kept) = probe(&mut session, &input);
            let output = session
                .forward_for(&input, Wanted::default(), BOTH)
                .unwrap();
            let dfeatures = noise(1, output.features.data().len());
            let gradients = session.backward(&dfeatures, None).unwrap();
            let dpixels = gradients.pixels.clone().unwrap();
            let dpairs = gradients.pairs.clone();
            assert_eq!(dpairs.len(), 18);
            let mut checked = 0;
            // Where a step changes which patches stay there is no slope to compare with.
            let mut compare =
                |name: &str, found: f64, forward: &mut dyn FnMut(f32) -> (f64, Vec<u32>)| {
                    let mut same = true;
                    let expected = slope(|step| {
                        let (loss, tokens) = forward(step);
                        same &= tokens == kept;
                        loss
                    });
                    if same {
                        assert_slope(&format!("{model} {name}, pruned {pruned}"), found, expected);
                        checked += 1;
                    }
                };
            let direction = noise(77, dpixels.data().len());
            compare("pixels", along(&dpixels, &direction), &mut |step| {
                let moved = moved(&pixels, &direction, step);
                let input = Input {
                    entry: Entry::Pixels(&moved),
                    ..input
                };
                probe(&mut session, &input)
            });
            for (site, own) in &dpairs {
                let direction = noise(99, own.da.data().len().max(own.db.data().len()));
                compare(
                    &format!("{site:?} A"),
                    along(&own.da, &direction),
                    &mut |step| {
                        let mut other = adapter.clone();
                        let pair = other.pairs.get_mut(site).unwrap();
                        pair.a = moved(&pair.a, &direction, step);
                        let input = Input {
                            adapter: Some(&other),
                            ..input
                        };
                        probe(&mut session, &input)
                    },
                );
                compare(
                    &format!("{site:?} B"),
                    along(&own.db, &direction),
                    &mut |step| {
                        let mut other = adapter.clone();
                        let pair = other.pairs.get_mut(site).unwrap();
                        pair.b = moved(&pair.b, &direction, step);
                        let input = Input {
                            adapter: Some(&other),
                            ..input
                        };
                        probe(&mut session, &input)
                    },
                );
            }
            // After the choice (24 comparisons at least) nothing can change it.
            assert!(checked >= if pruned { 20 } else { 37 }, "{checked}");
        }
    }
}

#[test]
fn a_pass_from_cached_hidden_states_equals_the_whole_pass() {
    let pixels = pixels();
    for model in MODELS {
        let backbone = backbone(model);
        let mut session = session(&backbone, 2);
        let adapter = wide_adapter(&backbone, &[2, 3], 4);
        let whole = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        let pairs_only = Differentiate {
            pixels: false,
            pairs: true,
        };
        let expected = pass(&mut session, &whole, pairs_only);
        let hidden = session.hidden_states(&Input::pixels(&pixels), 2).unwrap();
        let cached = Input {
            entry: Entry::Hidden {
                layer: 2,
                values: &hidden,
            },
            ..whole
        };
        assert_eq!(pass(&mut session, &cached, pairs_only), expected);
    }
}

#[test]
fn sums_over_layer_norm_inputs_and_their_gradient_reach_the_pixels() {
    let pixels = pixels();
    let backbone = backbone("dinov2-tiny");
    let mut session = session(&backbone, 3);
    let input = Input::pixels(&pixels);
    let wanted = Wanted {
        norm_input_sums: true,
        ..Wanted::default()
    };
    let length = 8 * 32;
    let (offset, slope_of) = (noise(5, length), noise(6, length));
    // Loss: Σ offset·Σx + ½·slope·Σx², so that its gradient at x is offset + slope·x.
    let loss = |sums: &[f64]| -> f64 {
        (0..8)
            .flat_map(|norm| (0..32).map(move |column| (norm, column)))
            .map(|(norm, column)| {
                let at = norm * 32 + column;
                f64::from(offset[at]) * sums[norm * 64 + column]
                    + 0.5 * f64::from(slope_of[at]) * sums[norm * 64 + 32 + column]
            })
            .sum()
    };
    let differentiate = Differentiate {
        pixels: true,
        pairs: false,
    };
    let output = session.forward_for(&input, wanted, differentiate).unwrap();
    assert_eq!(output.norm_input_counts, vec![170; 8]);
    let zeros = vec![0.0; output.features.data().len()];
    let gradients = NormInputGradients {
        offset: &offset,
        slope: &slope_of,
    };
    let dpixels = session
        .backward(&zeros, Some(gradients))
        .unwrap()
        .pixels
        .clone()
        .unwrap();
    let direction = noise(77, dpixels.data().len());
    let found: f64 = dpixels
        .data()
        .iter()
        .zip(&direction)
        .map(|(a, b)| f64::from(a * b))
        .sum();
    let expected = slope(|step| {
        let moved = pixels
            .data()
            .iter()
            .zip(&direction)
            .map(|(p, d)| p + step * d);
        let moved = Tensor::new(pixels.shape(), moved.collect()).unwrap();
        let output = session.forward(&Input::pixels(&moved), wanted).unwrap();
        loss(output.norm_input_sums.as_ref().unwrap())
    });
    assert_slope("pixels", found, expected);
}

#[test]
fn the_published_residual_changes_pruned_layers_alone_and_has_its_own_gradient() {
    let pixels = pixels();
    for model in MODELS {
        let mut session = session(&backbone(model), 4);
        let adapter = adapter(model);
        let dense = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        let nothing = [Pruning {
            layer: 1,
            ratio: 0.0,
        }];
        let half = [Pruning {
            layer: 1,
            ratio: 0.5,
        }];
        let expected = features(&mut session, &dense);
        session.published_residual(true);
        assert_eq!(features(&mut session, &dense), expected);
        // Even pruning nothing changes the output: the defect.
        let pruned = Input {
            pruning: &nothing,
            ..dense
        };
        assert_ne!(features(&mut session, &pruned), expected);
        let pruned = Input {
            pruning: &half,
            ..dense
        };
        let (values, dpixels, _) = pass(&mut session, &pruned, BOTH);
        let weights = noise(1, values.len());
        let direction = noise(78, dpixels.len());
        let product = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum()
        };
        let found = product(&dpixels, &direction);
        let mut at = |step: f32| {
            let mut moved = pixels.clone();
            for (value, own) in moved.data_mut().iter_mut().zip(&direction) {
                *value += step * own;
            }
            let input = Input {
                entry: Entry::Pixels(&moved),
                ..pruned
            };
            product(&features(&mut session, &input), &weights)
        };
        let step = 1e-3;
        let expected = (at(step) - at(-step)) / f64::from(2.0 * step);
        println!("{model}: {found} against {expected}");
        // Central differences in f32: about 1e-4 of the loss's size over the step.
        assert!(
            (found - expected).abs() < 0.02 * expected.abs().max(0.05),
            "{model}: {found} {expected}"
        );
        session.published_residual(false);
    }
}
