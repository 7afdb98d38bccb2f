//! Whole passes on the emulated device equal those of the CPU backend.

use engine::cuda::{Cuda, CudaOptions};
use engine::operation::OperationError;
use engine::session::{Device, Entry, Input, Pruning, Session, SessionOptions, Wanted};
use engine::tolerance::{FORWARD, GRADIENT, LOSS};
use engine::vit::{Differentiate, NormInputGradients};
use model::adapter::Adapter;
use model::backbone::Backbone;
use model::tensor::Tensor;
use test_support::emulated_device::Emulator;
use test_support::fixtures::{MODELS, adapter, backbone};
use test_support::gradient_check::noise;
use test_support::reference::{Reference, assert_close};

pub const BOTH: Differentiate = Differentiate {
    pixels: true,
    pairs: true,
};

/// The tolerance of a sum of `f64` over values of `f32` that themselves are within [`FORWARD`].
const SUMS: f32 = FORWARD;

/// The first `count` reference images of a model.
pub fn images(model: &str, count: usize) -> Tensor {
    let all = Reference::golden(model).tensor("pixel_values");
    let [_, channels, height, width] = *all.shape() else {
        panic!("not images");
    };
    let length = count * channels * height * width;
    Tensor::new(
        [count, channels, height, width],
        all.data()[..length].to_vec(),
    )
    .unwrap()
}

/// A session on `cuda`.
pub fn on(cuda: Cuda, backbone: &Backbone, options: SessionOptions) -> Session {
    let device = Device::Cuda(cuda);
    Session::new(backbone, SessionOptions { device, ..options }).unwrap()
}

/// Everything that a pass gives, by name.
pub fn results(
    session: &mut Session,
    pixels: &Tensor,
    adapter: Option<&Adapter>,
    tokens: Option<&[u32]>,
    pruning: &[Pruning],
) -> Vec<(String, Vec<f32>, f32)> {
    let input = Input {
        adapter,
        tokens,
        pruning,
        ..Input::pixels(pixels)
    };
    let wanted = Wanted {
        class_attention: true,
        last_hidden_state: true,
        kept_tokens: true,
        norm_input_sums: true,
    };
    let differentiate = Differentiate {
        pairs: adapter.is_some(),
        ..BOTH
    };
    let layers = session.config().layers;
    let width = session.config().width;
    let output = session.forward_for(&input, wanted, differentiate).unwrap();
    let values = |tensor: &Option<Tensor>| tensor.as_ref().unwrap().data().to_vec();
    let kept = output.kept_tokens.as_ref().unwrap();
    let sums = output.norm_input_sums.as_ref().unwrap();
    let mut all = vec![
        (
            "features".to_owned(),
            output.features.data().to_vec(),
            FORWARD,
        ),
        (
            "class attention".into(),
            values(&output.class_attention),
            FORWARD,
        ),
        (
            "last hidden state".into(),
            values(&output.last_hidden_state),
            FORWARD,
        ),
        (
            "kept tokens".into(),
            kept.iter().map(|&t| t as f32).collect(),
            0.0,
        ),
        (
            "sums".into(),
            sums.iter().map(|&s| s as f32).collect(),
            SUMS,
        ),
    ];
    let dfeatures = noise(7, output.features.data().len());
    let [offset, slope] = [8, 9].map(|seed| {
        let small = noise(seed, 2 * layers * width);
        small.iter().map(|value| 0.01 * value).collect::<Vec<_>>()
    });
    let norm_inputs = NormInputGradients {
        offset: &offset,
        slope: &slope,
    };
    let gradients = session.backward(&dfeatures, Some(norm_inputs)).unwrap();
    let pixels = gradients.pixels.as_ref().unwrap().data().to_vec();
    all.push(("dpixels".into(), pixels, GRADIENT));
    for (site, pair) in &gradients.pairs {
        all.push((format!("{site:?} da"), pair.da.data().to_vec(), GRADIENT));
        all.push((format!("{site:?} db"), pair.db.data().to_vec(), GRADIENT));
    }
    all
}

/// Compares tensor by tensor.
pub fn assert_same(
    model: &str,
    found: &[(String, Vec<f32>, f32)],
    expected: &[(String, Vec<f32>, f32)],
) {
    assert_eq!(found.len(), expected.len());
    for ((name, found, tolerance), (other, expected, _)) in found.iter().zip(expected) {
        assert_eq!(name, other);
        assert_close(&format!("{model} {name}"), found, expected, *tolerance);
    }
}

fn options(images_per_micro_batch: usize) -> SessionOptions {
    SessionOptions {
        threads: 2,
        images_per_micro_batch,
        device: Device::Cpu,
    }
}

#[test]
fn features_and_all_gradients_are_those_of_the_cpu_with_an_adapter_and_pruned_tokens() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    for model in MODELS {
        let (backbone, adapter) = (backbone(model), adapter(model));
        let pixels = images(model, 3);
        let pruning = [Pruning {
            layer: 1,
            ratio: 0.5,
        }];
        let mut cpu = Session::new(&backbone, options(0)).unwrap();
        let expected = results(&mut cpu, &pixels, Some(&adapter), None, &pruning);
        // All images at once, and two micro-batches whose activations wait side by side.
        for images_per_micro_batch in [0, 2] {
            let options = options(images_per_micro_batch);
            let mut session = on(cuda.clone(), &backbone, options);
            let found = results(&mut session, &pixels, Some(&adapter), None, &pruning);
            assert_same(model, &found, &expected);
        }
    }
}

#[test]
fn a_choice_of_tokens_through_the_bare_backbone_gives_what_the_cpu_gives() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    for model in MODELS {
        let backbone = backbone(model);
        let pixels = images(model, 2);
        let tokens = [0, 1, 3, 4, 8, 0, 2, 5, 6, 7];
        let mut cpu = Session::new(&backbone, options(0)).unwrap();
        let mut session = on(cuda.clone(), &backbone, options(0));
        let expected = results(&mut cpu, &pixels, None, Some(&tokens), &[]);
        let found = results(&mut session, &pixels, None, Some(&tokens), &[]);
        assert_same(model, &found, &expected);
    }
}

#[test]
fn a_pass_from_a_hidden_layer_gives_what_the_cpu_gives() {
    let emulator = Emulator::open();
    let backbone = backbone("dinov2-tiny");
    let pixels = images("dinov2-tiny", 2);
    let mut cpu = Session::new(&backbone, options(0)).unwrap();
    let mut session = on(emulator.cuda(), &backbone, options(0));
    let input = Input::pixels(&pixels);
    let expected = cpu.hidden_states(&input, 2).unwrap();
    let found = session.hidden_states(&input, 2).unwrap();
    assert_close("hidden states", found.data(), expected.data(), FORWARD);
    let from_there = Input {
        entry: Entry::Hidden {
            layer: 2,
            values: &expected,
        },
        ..input
    };
    let expected = cpu.forward(&from_there, Wanted::default()).unwrap();
    let found = session.forward(&from_there, Wanted::default()).unwrap();
    assert_close(
        "features",
        found.features.data(),
        expected.features.data(),
        FORWARD,
    );
}

#[test]
fn the_same_pass_gives_the_same_bits_and_allocates_nothing_the_second_time() {
    let emulator = Emulator::open();
    let (backbone, adapter) = (backbone("vit-tiny"), adapter("vit-tiny"));
    let pixels = images("vit-tiny", 2);
    let cuda: Cuda = emulator.cuda();
    let mut session = on(cuda, &backbone, options(0));
    let mut run = || results(&mut session, &pixels, Some(&adapter), None, &[]);
    let first = run();
    let allocations = || emulator.counts().allocations;
    let before = emulator.is_emulated().then(allocations);
    let second = run();
    if let Some(before) = before {
        assert_eq!(allocations(), before);
    }
    let bits = |all: &[(String, Vec<f32>, f32)]| -> Vec<u32> {
        all.iter()
            .flat_map(|own| own.1.iter().map(|v| v.to_bits()))
            .collect()
    };
    assert_eq!(bits(&first), bits(&second));
}

#[test]
fn forward_and_backward_of_a_micro_batch_wait_for_the_device_once_each() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let (backbone, adapter) = (backbone("vit-tiny"), adapter("vit-tiny"));
    let pixels = images("vit-tiny", 3);
    let mut session = on(emulator.cuda(), &backbone, options(0));
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&pixels)
    };
    let start = emulator.counts();
    let output = session
        .forward_for(&input, Wanted::default(), BOTH)
        .unwrap();
    let dfeatures = vec![1.0; output.features.data().len()];
    let between = emulator.counts();
    session.backward(&dfeatures, None).unwrap();
    let end = emulator.counts();
    assert_eq!(between.synchronisations - start.synchronisations, 1);
    assert_eq!(end.synchronisations - between.synchronisations, 1);
    assert_eq!(end.waiting_copies, start.waiting_copies);
    println!(
        "launches {} and {}, products {} and {}, copies to the device {} and {}",
        between.launches - start.launches,
        end.launches - between.launches,
        between.products - start.products,
        end.products - between.products,
        between.copies_to_device - start.copies_to_device,
        end.copies_to_device - between.copies_to_device,
    );
}

#[test]
fn tf32_is_close_to_fp32_and_is_not_the_same() {
    let emulator = Emulator::open();
    let (backbone, adapter) = (backbone("vit-tiny"), adapter("vit-tiny"));
    let pixels = images("vit-tiny", 2);
    let exact = emulator.cuda();
    let fast = Cuda::new(CudaOptions::default()).unwrap();
    let [exact, fast] = [exact, fast].map(|cuda| {
        let mut session = on(cuda, &backbone, options(0));
        results(&mut session, &pixels, Some(&adapter), None, &[])
    });
    for ((name, fast, _), (_, exact, _)) in fast.iter().zip(&exact) {
        // Ten bits of fraction, over four layers forward and back.
        assert_close(name, fast, exact, 1e-2);
        assert!(name == "kept tokens" || fast != exact, "{name}");
    }
}

#[test]
fn a_step_by_micro_batches_is_that_of_the_cpu_and_a_loss_that_fails_leaves_the_session_whole() {
    let emulator = Emulator::open();
    let (backbone, adapter) = (backbone("clip-tiny"), adapter("clip-tiny"));
    let pixels = images("clip-tiny", 5);
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&pixels)
    };
    fn step(session: &mut Session, input: &Input<'_>) -> Vec<(String, Vec<f32>, f32)> {
        let refused = session.step(input, BOTH, |images, _, _| match images.start {
            0 => Ok(0.0),
            _ => Err(OperationError::NoForward),
        });
        assert_eq!(refused.map(|_| ()), Err(OperationError::NoForward));
        // Half the square of the features, whose slope they are.
        let half_square = |_, features: &[f32], dfeatures: &mut [f32]| {
            dfeatures.copy_from_slice(features);
            Ok(features.iter().map(|&f| f64::from(f * f)).sum::<f64>() / 2.0)
        };
        let (loss, gradients) = session.step(input, BOTH, half_square).unwrap();
        let dpixels = gradients.pixels.as_ref().unwrap().data().to_vec();
        let mut all = vec![
            ("loss".to_owned(), vec![loss as f32], LOSS),
            ("dpixels".into(), dpixels, GRADIENT),
        ];
        for (site, pair) in &gradients.pairs {
            all.push((format!("{site:?} da"), pair.da.data().to_vec(), GRADIENT));
            all.push((format!("{site:?} db"), pair.db.data().to_vec(), GRADIENT));
        }
        all
    }
    let expected = step(&mut Session::new(&backbone, options(2)).unwrap(), &input);
    let mut session = on(emulator.cuda(), &backbone, options(2));
    assert_same("clip-tiny", &step(&mut session, &input), &expected);
}
