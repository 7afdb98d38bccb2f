//! Optimiser, augmentation, image parameters and the basic-block ResNet against PyTorch's values
//! (`tests/reference/make_engine_reference.py`), and the order of summation of the BatchNorm prior.

use engine::augment::{Affine, warp, warp_adjoint};
use engine::image_parameters::{ImageParameters, Parametrisation};
use engine::optimise::{Adam, AdamSettings, AdamState};
use engine::resnet::{BatchNormPrior, ResNet, ResNetError};
use engine::tolerance::{FORWARD, GRADIENT, LOSS};
use model::tensor::Tensor;
use model::tensor_file::{self, TensorFile};
use std::collections::BTreeMap;
use test_support::reference::{Reference, bytes};

const REFERENCE: &str = "reference/engine.safetensors";
const BASIC: &str = "reference/resnet-basic.safetensors";
const BASIC_SHAPE: [usize; 4] = [3, 3, 33, 29];

#[test]
fn adam_makes_the_steps_of_pytorch() {
    let reference = Reference::open(REFERENCE);
    let settings = AdamSettings::default();
    let inversion = AdamSettings {
        beta1: 0.5,
        beta2: 0.99,
        ..settings
    };
    let decay = AdamSettings {
        weight_decay: 0.1,
        ..settings
    };
    let runs = [
        ("adam_inversion", inversion, 0.25),
        ("adam_default", settings, 1e-3),
        ("adam_decay", decay, 1e-2),
    ];
    for (name, settings, learning_rate) in runs {
        let mut values = reference.tensor(&format!("{name}.start")).into_data();
        let gradients = reference.tensor(&format!("{name}.gradients"));
        let mut adam = Adam::new(settings, values.len());
        let mut all = Vec::new();
        for step in 0..12 {
            adam.step(&mut values, gradients.row(step), learning_rate)
                .unwrap();
            all.extend_from_slice(&values);
        }
        // Elementwise f32 arithmetic in the same order: a few units of the last place after 12 steps.
        reference.check(&format!("{name}.values"), &all, 1e-6);
    }
}

#[test]
fn a_restored_adam_makes_the_same_next_ten_steps_bit_for_bit() {
    let gradient = |step: usize| -> Vec<f32> {
        (0..33)
            .map(|i| ((i * 7 + step * 13) as f32 * 0.37).sin())
            .collect()
    };
    let settings = AdamSettings::default();
    let mut values = vec![0.5; 33];
    let mut adam = Adam::new(settings, 33);
    for step in 0..5 {
        adam.step(&mut values, &gradient(step), 1e-2).unwrap();
    }
    let saved = adam.state().to_bytes();
    let mut restored_values = values.clone();
    let mut restored = Adam::resume(settings, AdamState::from_bytes(&saved, 33).unwrap());
    for step in 5..15 {
        adam.step(&mut values, &gradient(step), 1e-2).unwrap();
        restored
            .step(&mut restored_values, &gradient(step), 1e-2)
            .unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values), bits(&restored_values), "step {step}");
    }
    assert_eq!(adam.state(), restored.state());
    for length in [0, 7, 8, saved.len() - 1] {
        assert!(AdamState::from_bytes(&saved[..length], 33).is_err());
    }
}

#[test]
fn a_gradient_with_nan_leaves_values_and_optimiser_untouched() {
    let mut values = vec![1.0, 2.0];
    let mut adam = Adam::new(AdamSettings::default(), 2);
    let error = adam.step(&mut values, &[0.0, f32::NAN], 0.1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Adam: value 1 of gradient, shape [2], is NaN; all values must be finite numbers"
    );
    assert_eq!((values, adam.state().steps_done), (vec![1.0, 2.0], 0));
}

#[test]
fn affine_warp_and_its_gradient_are_those_of_pytorch() {
    let reference = Reference::open(REFERENCE);
    let source = reference.tensor("affine.source");
    let parameters = reference.tensor("affine.parameters");
    let changes: Vec<Affine> = (0..3)
        .map(|image| parameters.row(image))
        .map(|row| Affine {
            angle_radians: row[0],
            scale: row[1],
            shift: [row[2], row[3]],
        })
        .collect();
    let shape = [3, 3, 9, 9];
    let mut warped = vec![f32::NAN; source.data().len()];
    warp(source.data(), shape, &changes, &mut warped).unwrap();
    // PyTorch computes places in f32, here they are f64: about 1e-6 of a pixel times the slope between pixels.
    reference.check("affine.warped", &warped, FORWARD);
    let mut dsource = vec![f32::NAN; source.data().len()];
    warp_adjoint(
        reference.tensor("affine.dwarped").data(),
        shape,
        &changes,
        &mut dsource,
    )
    .unwrap();
    reference.check("affine.dsource", &dsource, GRADIENT);
}

#[test]
fn fourier_images_and_their_gradient_are_those_of_pytorch_for_odd_and_even_sides() {
    let reference = Reference::open(REFERENCE);
    let normalisation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    for (name, side) in [("fourier_odd", 7), ("fourier_even", 8)] {
        let tensor = |part: &str| reference.tensor(&format!("{name}.{part}"));
        let spectrum = tensor("spectrum");
        let shape = [2, 3, side, side];
        let mut parameters =
            ImageParameters::new(Parametrisation::Fourier, shape, normalisation).unwrap();
        assert_eq!(parameters.count(), spectrum.data().len());
        let mut images = vec![f32::NAN; shape.iter().product()];
        parameters.images(spectrum.data(), &mut images).unwrap();
        reference.check(&format!("{name}.images"), &images, FORWARD);
        let mut dspectrum = vec![f32::NAN; parameters.count()];
        parameters
            .backward(tensor("dimages").data(), &mut dspectrum)
            .unwrap();
        reference.check(&format!("{name}.dspectrum"), &dspectrum, GRADIENT);
    }
}

#[test]
fn a_resnet_of_basic_blocks_gives_pytorchs_prior_on_an_odd_size() {
    let reference = Reference::open(REFERENCE);
    let pixels = reference.tensor("basic.pixel_values");
    let mut prior = BatchNormPrior::new(ResNet::read(&bytes(BASIC)).unwrap());
    let logits = prior.logits(pixels.data(), BASIC_SHAPE).unwrap().unwrap();
    reference.check("basic.logits", &logits, FORWARD);
    let mut gradient = vec![0.0; pixels.data().len()];
    let loss = prior
        .loss(pixels.data(), BASIC_SHAPE, 1.0, Some(&mut gradient))
        .unwrap();
    reference.check("basic.prior", &[loss], LOSS);
    let terms: Vec<(&str, f32)> = prior.terms().collect();
    assert_eq!(terms.len(), 14);
    for (name, value) in terms {
        reference.check(&format!("basic.prior.{name}"), &[value], LOSS);
    }
    reference.check("basic.prior_grad_pixels", &gradient, GRADIENT);
}

#[test]
fn the_batch_norm_prior_has_the_same_bits_with_any_number_of_threads_and_in_used_buffers() {
    let pixels = Reference::open(REFERENCE).tensor("basic.pixel_values");
    let pixels = pixels.data();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut prior = BatchNormPrior::new(ResNet::read(&bytes(BASIC)).unwrap());
            let other_size = [2, 3, 16, 20];
            prior.loss(&pixels[..1920], other_size, 1.0, None).unwrap();
            let runs = [(); 2].map(|()| {
                let mut gradient = vec![0.0; pixels.len()];
                let loss = prior
                    .loss(pixels, BASIC_SHAPE, 0.01, Some(&mut gradient))
                    .unwrap();
                let bits: Vec<u32> = gradient.iter().map(|value| value.to_bits()).collect();
                (loss.to_bits(), bits)
            });
            assert_eq!(runs[0], runs[1]);
            runs
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
fn the_gradient_of_the_batch_norm_prior_is_its_slope() {
    let pixels = Reference::open(REFERENCE).tensor("basic.pixel_values");
    let mut prior = BatchNormPrior::new(ResNet::read(&bytes(BASIC)).unwrap());
    let mut gradient = vec![0.0; pixels.data().len()];
    prior
        .loss(pixels.data(), BASIC_SHAPE, 1.0, Some(&mut gradient))
        .unwrap();
    let square: f64 = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
    let step = 1e-2 / square.sqrt();
    let mut along = |sign: f64| {
        let moved = pixels.data().iter().zip(&gradient);
        let moved: Vec<f32> = moved
            .map(|(&p, &g)| (f64::from(p) + sign * step * f64::from(g)) as f32)
            .collect();
        f64::from(prior.loss(&moved, BASIC_SHAPE, 1.0, None).unwrap())
    };
    let slope = (along(1.0) - along(-1.0)) / (2.0 * step);
    // The forward pass is f32: about 1e-6 of the loss over a change of 2e-2 times the slope; ReLUs bend within the step.
    assert!((slope / square - 1.0).abs() < 5e-3, "{slope} {square}");
}

#[test]
fn all_that_is_wrong_with_a_resnet_file_is_listed() {
    let whole = bytes(BASIC);
    let file = TensorFile::parse(&whole).unwrap();
    let mut tensors: BTreeMap<String, Tensor> = file
        .names()
        .filter(|name| !name.ends_with("num_batches_tracked"))
        .map(|name| (name.to_owned(), file.read(name).unwrap()))
        .collect();
    tensors.remove("bn1.bias");
    tensors.remove("layer3.0.downsample.0.weight");
    tensors.insert(
        "layer1.1.bn2.running_var".into(),
        Tensor::new([6], vec![-1.0; 6]).unwrap(),
    );
    tensors.insert("layer2.0.conv1.weight".into(), Tensor::zeros([8, 3, 3, 3]));
    tensors.insert("layer1.0.se.weight".into(), Tensor::zeros([1]));
    let broken = tensor_file::write(&tensors, &BTreeMap::new()).unwrap();
    let Err(ResNetError::Problems(problems)) = ResNet::read(&broken) else {
        panic!("a broken file was read");
    };
    let expected = [
        "bn1.bias: missing",
        "layer1.1.bn2.running_var: -1 is below zero",
        "layer2.0.conv1.weight: shape [8, 3, 3, 3], expected [8, 6, 3, 3]",
        "layer3.0.downsample.0.weight: missing",
        "layer1.0.se.weight: not a tensor of this architecture",
    ];
    for sentence in expected {
        assert!(
            problems.iter().any(|p| p == sentence),
            "{sentence}: {problems:#?}"
        );
    }
    assert!(matches!(ResNet::read(b""), Err(ResNetError::File(_))));
    let empty = tensor_file::write(&BTreeMap::new(), &BTreeMap::new()).unwrap();
    assert!(matches!(
        ResNet::read(&empty),
        Err(ResNetError::Problems(_))
    ));
}

#[test]
fn the_batch_norm_prior_refuses_bad_pixels_by_name() {
    let mut prior = BatchNormPrior::new(ResNet::read(&bytes(BASIC)).unwrap());
    let mut refuse = |pixels: &[f32], shape| {
        prior
            .loss(pixels, shape, 1.0, None)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refuse(&[], [0, 3, 8, 8]),
        "BatchNorm prior: pixels has shape [0, 3, 8, 8]; no axis may be zero"
    );
    assert_eq!(
        refuse(&[0.0; 5], [1, 3, 1, 2]),
        "BatchNorm prior: pixels with shape [1, 3, 1, 2]: 5 values where 6 are needed"
    );
    assert_eq!(
        refuse(&[0.0, f32::NAN, 0.0], [1, 3, 1, 1]),
        "BatchNorm prior: value 1 of pixels, shape [1, 3, 1, 1], is NaN; all values must be finite numbers"
    );
    assert!(
        prior
            .loss(&[0.1, 0.2, 0.3], [1, 3, 1, 1], 1.0, None)
            .unwrap()
            .is_finite()
    );
}

#[test]
fn the_embedded_backbone_has_statistics_of_its_own_tokens() {
    use engine::loss::TokenStatistics;
    use model::backbone::{EMBEDDED_DIGEST, EMBEDDED_TOKEN_STATISTICS};
    let statistics = TokenStatistics::read(EMBEDDED_TOKEN_STATISTICS, 384).unwrap();
    assert_eq!(statistics.backbone_digest, EMBEDDED_DIGEST);
    assert_eq!(statistics.sites.len(), 16);
}
