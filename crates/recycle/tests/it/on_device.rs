//! Inversion, meta-training and tuning on the emulated CUDA device take the steps of the processor.

use crate::{meta_train, tune};
use engine::loss::TokenStatisticsCollector;
use engine::optimise::AdamState;
use engine::resnet::ResNet;
use engine::session::{Device, Session, SessionOptions};
use engine::tolerance::{GRADIENT, LOSS};
use model::tensor_file::TensorFile;
use recycle::inversion::{
    HardInversion, ImageAugmentation, Inversion, InversionRecipe, PriorData, PriorWeights,
};
use recycle::meta_train::{Keep, MetaTrainRecipe, MetaTraining};
use recycle::steps::Steps;
use recycle::token_statistics::add_pictures;
use recycle::tune::{TuneRecipe, Tuning};
use test_support::emulated_device::Emulator;
use test_support::fixtures::backbone;
use test_support::pools::{OPTIONS, quick, teacher};
use test_support::reference::{Reference, assert_close};

/// Steps that are compared.
const STEPS: u64 = 20;

fn options(emulator: &Emulator) -> SessionOptions {
    SessionOptions {
        device: Device::Cuda(emulator.cuda()),
        images_per_micro_batch: 0,
        ..OPTIONS
    }
}

/// Adam's running means of the gradients under `name` of a state.
fn gradients(state: &[u8], name: &str) -> Vec<f32> {
    let file = TensorFile::parse(state).unwrap();
    let shape = file.shape(name).unwrap();
    let bytes = file.read_bytes(name, shape).unwrap();
    AdamState::from_bytes(bytes, (bytes.len() - 8) / 8)
        .unwrap()
        .first
}

/// Each step is taken from the processor's state before it, so that a difference does not grow from step to step: Adam divides small
/// gradients by their size, which makes their signs steps. The gradients are within `GRADIENT` of their largest, the losses within `LOSS`.
fn assert_same_steps<S: Steps>(
    mut cpu: S,
    resumed_on_device: impl Fn(&[u8]) -> S,
    optimisers: &[&str],
    steps: u64,
) {
    for step in 0..steps {
        let state = cpu.state().unwrap();
        let mut device = resumed_on_device(&state);
        let [expected, found] = [cpu.step(), device.step()].map(Result::unwrap);
        assert_eq!(expected.figures.len(), found.figures.len());
        for (&(name, expected), &(own, found)) in expected.figures.iter().zip(&found.figures) {
            let is_close = (found - expected).abs() <= f64::from(LOSS) * expected.abs().max(1.0);
            assert!(
                own == name && is_close,
                "{name} in step {step}: {found} for {expected}"
            );
        }
        let [expected, found] = [cpu.state(), device.state()].map(Result::unwrap);
        for name in optimisers {
            let [expected, found] = [&expected, &found].map(|own| gradients(own, name));
            assert_close(
                &format!("{name} in step {step}"),
                &found,
                &expected,
                GRADIENT,
            );
        }
    }
}

fn hard(augmentation: ImageAugmentation) -> InversionRecipe {
    InversionRecipe {
        steps: STEPS + 1,
        augmentation,
        hard: Some(HardInversion::default()),
        priors: PriorWeights {
            total_variation: 0.01,
            l2: 0.001,
            ..PriorWeights::default()
        },
        prior_weight: 1.0,
        judge_every: Some(7),
        ..quick()
    }
}

#[test]
fn twenty_steps_of_inversion_are_those_of_the_processor() {
    let emulator = Emulator::open();
    let options = options(&emulator);
    for (model, augmentation, steps) in [
        ("dinov2-tiny", ImageAugmentation::RollFlip, STEPS),
        ("clip-tiny", ImageAugmentation::Affine, 4),
    ] {
        let (backbone, adapter, recipe) = (backbone(model), teacher(model), hard(augmentation));
        let data = PriorData::default();
        let cpu = Inversion::new(&backbone, adapter.clone(), data, recipe.clone(), OPTIONS);
        let resumed = |state: &[u8]| {
            let (adapter, recipe) = (adapter.clone(), recipe.clone());
            let data = PriorData::default();
            Inversion::resume(&backbone, adapter, data, recipe, options.clone(), state).unwrap()
        };
        assert_same_steps(cpu.unwrap(), resumed, &["adam"], steps);
    }
}

#[test]
fn steps_of_inversion_with_the_priors_of_a_resnet_and_of_tokens_are_those_of_the_processor() {
    let emulator = Emulator::open();
    let options = options(&emulator);
    let model = "vit-tiny";
    let (backbone, adapter) = (backbone(model), teacher(model));
    let data = || {
        let file = test_support::project("tests/golden/resnet-tiny/model.safetensors");
        let mut session = Session::new(&backbone, OPTIONS).unwrap();
        let mut collector = TokenStatisticsCollector::default();
        let pixels = Reference::golden(model).tensor("pixel_values");
        add_pictures(&mut session, &pixels, &mut collector).unwrap();
        PriorData {
            batch_norm: Some(ResNet::read(&std::fs::read(file).unwrap()).unwrap()),
            token_statistics: Some(collector.finish(&backbone.digest)),
        }
    };
    for token_statistics in [0.0, 1.0] {
        let mut recipe = hard(ImageAugmentation::RollFlip);
        recipe.priors.batch_norm = 1.0;
        recipe.priors.token_statistics = token_statistics;
        let start = || (adapter.clone(), data(), recipe.clone());
        let (own, priors, recipe) = start();
        let cpu = Inversion::new(&backbone, own, priors, recipe, OPTIONS).unwrap();
        let resumed = |state: &[u8]| {
            let (own, priors, recipe) = start();
            Inversion::resume(&backbone, own, priors, recipe, options.clone(), state).unwrap()
        };
        assert_same_steps(cpu, resumed, &["adam"], 6);
    }
}

#[test]
fn twenty_steps_of_meta_training_and_of_tuning_are_those_of_the_processor() {
    let emulator = Emulator::open();
    let options = options(&emulator);
    let model = "vit-tiny";
    let backbone = backbone(model);
    let recipe = MetaTrainRecipe {
        episodes: STEPS + 1,
        way: 2,
        queries: 2,
        validate_every: None,
        ..meta_train::recipe()
    };
    let members = meta_train::members(model);
    let cpu = MetaTraining::new(&backbone, members.clone(), recipe.clone(), OPTIONS).unwrap();
    let resumed = |state: &[u8]| {
        let (members, recipe) = (members.clone(), recipe.clone());
        MetaTraining::resume(&backbone, members, recipe, options.clone(), state).unwrap()
    };
    assert_same_steps(cpu, resumed, &["adam"], STEPS);
    let pictures = tune::coloured_squares(8);
    let recipe = TuneRecipe {
        steps: Some(STEPS + 1),
        batch_size: 4,
        ..tune::recipe()
    };
    let cpu = Tuning::new(&backbone, pictures.clone(), recipe.clone(), OPTIONS).unwrap();
    let resumed = |state: &[u8]| {
        Tuning::resume(
            &backbone,
            pictures.clone(),
            recipe.clone(),
            options.clone(),
            state,
        )
        .unwrap()
    };
    let optimisers = ["pairs_adam", "head_adam"];
    assert_same_steps(cpu, resumed, &optimisers, STEPS);
}

#[test]
fn a_step_of_meta_training_copies_numbers_of_pictures_which_stay_on_the_device_where_there_is_room()
{
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let model = "vit-tiny";
    let backbone = backbone(model);
    let recipe = MetaTrainRecipe {
        held_out: 0.0,
        keep: Keep::Last,
        ..meta_train::recipe()
    };
    for stay in [true, false] {
        let options = options(&emulator);
        let members = meta_train::members(model);
        let before = emulator.counts().bytes_in_use;
        let session = Session::new(&backbone, options.clone()).unwrap();
        let weights = emulator.counts().bytes_in_use - before;
        drop(session);
        if !stay {
            emulator.set_memory(emulator.counts().bytes_in_use + weights + 1000);
        }
        let mut training = MetaTraining::new(&backbone, members, recipe.clone(), options).unwrap();
        emulator.set_memory(8 << 30);
        // Lays out memory.
        training.step().unwrap();
        let before = emulator.counts();
        training.step().unwrap();
        let after = emulator.counts();
        let task = training.newest_task();
        let images = task.len();
        let pixels: usize = task.iter().map(|image| image.levels.len()).sum();
        let (_, pairs) = training.sizes();
        let of_each = match stay {
            true => 2 * images,
            false => pixels,
        };
        let values = pairs + of_each + images * backbone.config.width;
        let copied = after.bytes_to_device - before.bytes_to_device;
        assert_eq!(copied, 4 * values as u64, "{stay}");
    }
}

#[test]
fn a_step_of_inversion_waits_once_for_the_device_and_copies_no_images() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let model = "dinov2-tiny";
    let recipe = InversionRecipe {
        judge_every: Some(1000),
        // The bare backbone has a gradient in every step.
        hard: Some(HardInversion {
            cap: 100.0,
            ..HardInversion::default()
        }),
        ..hard(ImageAugmentation::RollFlip)
    };
    let data = PriorData::default();
    let options = options(&emulator);
    let mut inversion =
        Inversion::new(&backbone(model), teacher(model), data, recipe, options).unwrap();
    // Memory is laid out, the same work is seen again, and captured.
    for _ in 0..4 {
        inversion.step().unwrap();
    }
    for _ in 0..3 {
        let before = emulator.counts();
        inversion.step().unwrap();
        let after = emulator.counts();
        assert_eq!(after.synchronisations - before.synchronisations, 1);
        assert_eq!(after.waiting_copies, before.waiting_copies);
        assert_eq!(after.allocations, before.allocations);
        // A graph up to the losses, and one from there on; nothing beside them.
        assert_eq!(after.graph_launches - before.graph_launches, 2);
        assert_eq!(after.launches, before.launches);
        assert_eq!(after.copies_to_device, before.copies_to_device);
        println!(
            "{} kernels, {} products, {} fills, {} copies to the device, {} to the host",
            after.kernels_run - before.kernels_run,
            after.products - before.products,
            after.fills - before.fills,
            after.copies_to_device - before.copies_to_device,
            after.copies_to_host - before.copies_to_host,
        );
    }
}
