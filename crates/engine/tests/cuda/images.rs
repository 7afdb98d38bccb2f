//! A batch of images on the emulated device takes the steps of one on the CPU, waits for nothing and copies only what is drawn.

use engine::augment::{AffineLimits, RollFlip};
use engine::backend::{Backend, DeviceError, Matrix};
use engine::cpu::Cpu;
use engine::image_backend::ImageBackend;
use engine::image_parameters::Parametrisation;
use engine::images::{Change, ImageBatch, ImageBatchOptions, PriorLosses, PriorWeights};
use engine::operation::OperationError;
use engine::optimise::{AdamSettings, AdamState};
use engine::resnet::ResNet;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use test_support::emulated_device::Emulator;
use test_support::gradient_check::noise;
use test_support::reference::{assert_close, bytes};

const NORMALISATION: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const SHAPE: [usize; 4] = [3, 3, 7, 6];

/// All that a batch goes on from.
#[derive(Clone, PartialEq, Debug)]
struct State {
    parameters: Vec<f32>,
    adam: AdamState,
}

/// What a step has computed.
struct Outcome {
    augmented: Vec<f32>,
    losses: PriorLosses,
    state: State,
}

/// A batch with its queue.
struct Run<'b, B: ImageBackend> {
    backend: &'b B,
    queue: B::Queue,
    batch: ImageBatch<B>,
    prior: B::BatchNormPrior,
    /// Whether the work up to the images, and that after them, is a piece each.
    in_pieces: bool,
}

impl<'b, B: ImageBackend> Run<'b, B> {
    fn new(backend: &'b B, parametrisation: Parametrisation, state: &State) -> Self {
        let mut queue = backend.queue();
        let options = ImageBatchOptions {
            parametrisation,
            shape: SHAPE,
            normalisation: NORMALISATION,
            adam: AdamSettings::default(),
            priors: PriorWeights {
                total_variation: 0.05,
                mean_norm: 0.02,
                batch_norm: 0.01,
            },
        };
        let network = bytes("reference/resnet-basic.safetensors");
        let prior = backend.batch_norm_prior(ResNet::read(&network).unwrap());
        let parameters = &state.parameters;
        let mut batch =
            ImageBatch::new(backend, &mut queue, options, parameters, Some(&prior)).unwrap();
        batch.resume(backend, &mut queue, &state.adam).unwrap();
        Self {
            backend,
            queue,
            batch,
            prior,
            in_pieces: false,
        }
    }

    fn read(&mut self, matrix: Matrix) -> Vec<f32> {
        let mut values = vec![0.0; matrix.rows * matrix.columns];
        self.backend.download(&mut self.queue, matrix);
        self.backend.finish(&mut self.queue).unwrap();
        self.backend.downloaded(&self.queue, matrix, &mut values);
        values
    }

    fn begin(&mut self, step: u64, changes: Changes) {
        let change = changes.of(step);
        self.batch
            .begin(self.backend, &mut self.queue, &change)
            .unwrap();
    }

    fn priors(&mut self) {
        let prior = Some(&mut self.prior);
        self.batch
            .priors(self.backend, &mut self.queue, prior, true);
    }

    fn end(&mut self, step: u64) {
        let rate = rate(step);
        self.batch.end(self.backend, &mut self.queue, rate).unwrap();
    }

    /// A step down a gradient that depends on the images.
    fn step(&mut self, step: u64, changes: Changes) -> Outcome {
        if self.in_pieces {
            self.backend.begin_piece(&mut self.queue);
        }
        self.begin(step, changes);
        let augmented = self.read(self.batch.augmented());
        let goal = noise(100 + step, augmented.len());
        let pairs = augmented.iter().zip(goal);
        let gradient: Vec<f32> = pairs.map(|(value, goal)| value.sin() - goal).collect();
        if self.in_pieces {
            self.backend.begin_piece(&mut self.queue);
        }
        self.backend
            .upload(&mut self.queue, &gradient, self.batch.daugmented());
        self.priors();
        self.end(step);
        self.backend.finish(&mut self.queue).unwrap();
        let losses = self.batch.losses(self.backend, &mut self.queue).unwrap();
        Outcome {
            augmented,
            losses,
            state: self.state(),
        }
    }

    fn state(&mut self) -> State {
        State {
            parameters: self
                .batch
                .parameters(self.backend, &mut self.queue)
                .unwrap(),
            adam: self
                .batch
                .adam_state(self.backend, &mut self.queue)
                .unwrap(),
        }
    }
}

/// Which changes the steps make.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Changes {
    Nothing,
    RollFlip,
    Affine,
}

impl Changes {
    fn of(self, step: u64) -> Change {
        let mut random = ChaCha8Rng::seed_from_u64(step);
        match self {
            Self::Nothing => Change::Nothing,
            Self::RollFlip => Change::RollFlip(RollFlip::draw(&mut random, 16, 24)),
            Self::Affine => {
                let limits = AffineLimits::default();
                Change::Affine([(); SHAPE[0]].map(|()| limits.draw(&mut random)).to_vec())
            }
        }
    }
}

fn start(parametrisation: Parametrisation) -> State {
    let parameters = parametrisation.draw(SHAPE, &mut ChaCha8Rng::seed_from_u64(5));
    State {
        adam: AdamState {
            steps_done: 0,
            first: vec![0.0; parameters.len()],
            second: vec![0.0; parameters.len()],
        },
        parameters,
    }
}

fn rate(step: u64) -> f64 {
    0.05 / (1.0 + step as f64)
}

/// Where parameters come to by the moments that Adam has after its step.
fn moved(start: &[f32], adam: &AdamState, rate: f64, parametrisation: Parametrisation) -> Vec<f32> {
    let AdamSettings {
        beta1,
        beta2,
        epsilon,
        ..
    } = AdamSettings::default();
    let steps = adam.steps_done as f64;
    let means = adam.first.iter().zip(&adam.second);
    let values = start.iter().zip(means).enumerate();
    let moved = values.map(|(index, (value, (first, second)))| {
        let mean = f64::from(*first) / (1.0 - beta1.powf(steps));
        let root = (f64::from(*second) / (1.0 - beta2.powf(steps))).sqrt();
        let value = f64::from(*value) - rate * mean / (root + epsilon);
        let channel = index / (SHAPE[2] * SHAPE[3]) % 3;
        let (mean, deviation) = (NORMALISATION.0[channel], NORMALISATION.1[channel]);
        match parametrisation {
            Parametrisation::Fourier => value as f32,
            Parametrisation::Pixels => {
                (value as f32).clamp((0.0 - mean) / deviation, (1.0 - mean) / deviation)
            }
        }
    });
    moved.collect()
}

/// Each combination that a recipe can ask for.
fn combinations() -> Vec<(Parametrisation, Changes)> {
    let mut all = Vec::new();
    for parametrisation in [Parametrisation::Pixels, Parametrisation::Fourier] {
        for changes in [Changes::Nothing, Changes::RollFlip, Changes::Affine] {
            all.push((parametrisation, changes));
        }
    }
    all
}

#[test]
fn twenty_steps_are_those_of_the_cpu_from_the_same_parameters() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    let cpu = Cpu::default();
    for (parametrisation, changes) in combinations() {
        let mut state = start(parametrisation);
        let mut device = Run::new(&cuda, parametrisation, &state);
        for step in 0..20 {
            let found = device.step(step, changes);
            let expected = Run::new(&cpu, parametrisation, &state).step(step, changes);
            let name =
                |what: &str| format!("{parametrisation:?}, {changes:?}, step {step}: {what}");
            // A few roundings of values of this size; a Fourier sum has a few dozen.
            assert_close(
                &name("augmented"),
                &found.augmented,
                &expected.augmented,
                2e-6,
            );
            let (own, other) = (&found.state, &expected.state);
            assert_eq!(own.adam.steps_done, step + 1);
            assert_close(&name("first"), &own.adam.first, &other.adam.first, 5e-6);
            assert_close(&name("second"), &own.adam.second, &other.adam.second, 1e-5);
            // Adam divides a gradient by its size, so that a small one that is known badly moves a parameter as far as a large one:
            // the step is judged by the moments of the device.
            let moved = moved(&state.parameters, &own.adam, rate(step), parametrisation);
            assert_close(&name("parameters"), &own.parameters, &moved, 1e-6);
            assert_ne!(own.parameters, state.parameters);
            for (own, other) in [
                (
                    found.losses.total_variation,
                    expected.losses.total_variation,
                ),
                (found.losses.mean_norm, expected.losses.mean_norm),
                (found.losses.batch_norm, expected.losses.batch_norm),
            ] {
                assert!(
                    (own - other).abs() <= 1e-6 * other && other > 0.0,
                    "{own} {other}"
                );
            }
            state = found.state;
        }
    }
}

#[test]
fn steps_captured_as_graphs_have_the_bits_of_steps_launch_by_launch() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    for (parametrisation, changes) in combinations() {
        let start = start(parametrisation);
        let mut plain = Run::new(&cuda, parametrisation, &start);
        let mut pieces = Run::new(&cuda, parametrisation, &start);
        pieces.in_pieces = true;
        for step in 0..6 {
            let [expected, found] = [&mut plain, &mut pieces].map(|own| own.step(step, changes));
            let name = format!("{parametrisation:?}, {changes:?}, step {step}");
            assert!(found.augmented == expected.augmented, "{name}");
            assert_eq!(found.losses, expected.losses, "{name}");
            assert!(found.state == expected.state, "{name}");
        }
        if emulator.is_emulated() {
            let before = emulator.counts();
            pieces.step(6, changes);
            let after = emulator.counts();
            assert_eq!(after.graph_launches - before.graph_launches, 2);
            assert_eq!(after.launches, before.launches);
        }
    }
}

#[test]
fn a_seed_gives_the_same_bits_again_on_the_device() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    for (parametrisation, changes) in combinations() {
        let run = || {
            let mut device = Run::new(&cuda, parametrisation, &start(parametrisation));
            let mut last = None;
            for step in 0..5 {
                last = Some(device.step(step, changes).state);
            }
            last.unwrap()
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn a_step_waits_for_nothing_and_copies_what_is_drawn_alone() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    for (parametrisation, changes) in combinations() {
        let mut device = Run::new(&cuda, parametrisation, &start(parametrisation));
        device.step(0, changes);
        for step in 1..3 {
            let before = emulator.counts();
            device.begin(step, changes);
            device.priors();
            device.end(step);
            let after = emulator.counts();
            assert_eq!(after.synchronisations, before.synchronisations);
            assert_eq!(after.waiting_copies, before.waiting_copies);
            assert_eq!(after.allocations, before.allocations);
            // The change, and the rates of the optimiser.
            assert_eq!(after.copies_to_device - before.copies_to_device, 2);
            // Flags and losses.
            assert_eq!(after.copies_to_host - before.copies_to_host, 1);
            device.backend.finish(&mut device.queue).unwrap();
            device.batch.losses(&cuda, &mut device.queue).unwrap();
        }
    }
}

#[test]
fn what_is_not_finite_is_named_and_the_step_changes_nothing() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    for parametrisation in [Parametrisation::Pixels, Parametrisation::Fourier] {
        let mut device = Run::new(&cuda, parametrisation, &start(parametrisation));
        device.step(0, Changes::RollFlip);
        let before = device.state();
        device.begin(1, Changes::RollFlip);
        let mut gradient = vec![0.5; SHAPE.iter().product()];
        gradient[130] = f32::NAN;
        let target = device.batch.daugmented();
        cuda.upload(&mut device.queue, &gradient, target);
        device.end(1);
        cuda.finish(&mut device.queue).unwrap();
        let refused = device.batch.losses(&cuda, &mut device.queue);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "augmentation backward: value 130 of daugmented, shape [3, 3, 7, 6], is NaN; all values must be finite numbers"
        );
        assert_eq!(device.state(), before);
        let next = device.step(1, Changes::RollFlip);
        assert_eq!(next.state.adam.steps_done, 2);
    }
    let mut broken = start(Parametrisation::Pixels);
    broken.parameters[3] = f32::INFINITY;
    let mut device = Run::new(&cuda, Parametrisation::Pixels, &broken);
    device.begin(0, Changes::Nothing);
    device.end(0);
    cuda.finish(&mut device.queue).unwrap();
    let refused = device.batch.losses(&cuda, &mut device.queue);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "image parameters: value 3 of parameters, shape [378], is inf; all values must be finite numbers"
    );
}

#[test]
fn a_device_without_room_for_a_batch_says_so_and_takes_a_smaller_one() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    let mut queue = cuda.queue();
    let mut make = |images: usize| {
        let shape = [images, 3, 16, 16];
        let options = ImageBatchOptions {
            parametrisation: Parametrisation::Pixels,
            shape,
            normalisation: NORMALISATION,
            adam: AdamSettings::default(),
            priors: PriorWeights::default(),
        };
        let parameters = noise(1, shape.iter().product());
        ImageBatch::new(&cuda, &mut queue, options, &parameters, None).map(|_| ())
    };
    let room = 1 << 18;
    emulator.set_memory(emulator.counts().bytes_in_use + room);
    match make(100) {
        Err(OperationError::Device(DeviceError::OutOfMemory { bytes })) => {
            assert!(bytes as u64 > room, "{bytes}");
        }
        other => panic!("{other:?}"),
    }
    make(2).unwrap();
}
