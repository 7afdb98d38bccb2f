//! What does not fit is refused before any arithmetic, with the operation and both shapes.

use super::properties::{BOTH, noise, pixels, wide_adapter};
use engine::augment::{Affine, Colour, ColourLimits, RollFlip, recolour, warp};
use engine::image_parameters::{ImageParameters, Parametrisation};
use engine::loss::{
    LeaveOneOut, PrototypeScores, Scoring, SiteStatistics, cross_entropy, distillation,
    linear_head, linear_head_backward, mean_norm, total_variation,
};
use engine::operation::OperationError;
use engine::session::{Device, Entry, Input, Pruning, Session, SessionOptions, Wanted};
use engine::vit::{Differentiate, NormInputGradients};
use model::adapter::{Adapter, LowRankPair, Site, Target};
use model::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use test_support::fixtures::backbone;

const OPTIONS: SessionOptions = SessionOptions {
    threads: 2,
    images_per_micro_batch: 3,
    device: Device::Cpu,
};

fn session() -> Session {
    Session::new(&backbone("vit-tiny"), OPTIONS).unwrap()
}

/// What a forward pass of `input` says, which must name the operation and each of `parts`.
#[track_caller]
fn assert_refused(session: &mut Session, input: Input<'_>, parts: &[&str]) {
    let message = session
        .forward_for(&input, Wanted::default(), Differentiate::default())
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("forward: "), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
}

/// The low-rank pair of the query of layer 0.
fn query(a: Tensor, b: Tensor, scale: f32) -> Adapter {
    let site = Site {
        layer: 0,
        target: Target::Query,
    };
    Adapter {
        pairs: [(site, LowRankPair { a, b, scale })].into(),
        head: None,
    }
}

#[test]
fn pixels_of_a_wrong_shape_and_values_that_are_not_numbers_are_refused() {
    let mut session = session();
    let before = session
        .forward(&Input::pixels(&pixels()), Wanted::default())
        .unwrap()
        .features
        .clone();
    let cases: [(Vec<usize>, &[&str]); 6] = [
        (vec![2, 3, 27, 27], &["[2, 3, 27, 27]", "[7, 7]"]),
        (vec![2, 3, 28, 21], &["[2, 3, 28, 21]", "[7, 7]"]),
        (vec![2, 1, 28, 28], &["[2, 1, 28, 28]", "[0, 3, 0, 0]"]),
        (vec![3, 28, 28], &["[3, 28, 28]", "[0, 3, 0, 0]"]),
        (
            vec![0, 3, 28, 28],
            &["[0, 3, 28, 28]", "no axis may be zero"],
        ),
        (vec![2, 3, 0, 0], &["[2, 3, 0, 0]", "no axis may be zero"]),
    ];
    for (shape, parts) in cases {
        let pixels = Tensor::zeros(shape);
        assert_refused(&mut session, Input::pixels(&pixels), parts);
    }
    for value in [f32::NAN, f32::INFINITY] {
        let mut broken = pixels();
        broken.data_mut()[5] = value;
        let parts = ["value 5 of pixels", "[10, 3, 28, 28]"];
        assert_refused(&mut session, Input::pixels(&broken), &parts);
    }
    // Nothing that was refused has left a trace.
    let pixels = pixels();
    let after = session.forward(&Input::pixels(&pixels), Wanted::default());
    assert_eq!(after.unwrap().features, before);
}

#[test]
fn hidden_states_of_a_wrong_shape_are_refused() {
    let mut session = session();
    let refuse = |session: &mut Session, layer: usize, shape: &[usize], parts: &[&str]| {
        let values = Tensor::zeros(shape);
        let input = Input {
            entry: Entry::Hidden {
                layer,
                values: &values,
            },
            ..Input::pixels(&values)
        };
        assert_refused(session, input, parts);
    };
    refuse(&mut session, 1, &[2, 17, 31], &["[2, 17, 31]", "[32]"]);
    refuse(&mut session, 1, &[34, 32], &["[34, 32]", "[32]"]);
    refuse(&mut session, 1, &[0, 17, 32], &["[0, 17, 32]"]);
    refuse(&mut session, 1, &[2, 0, 32], &["[2, 0, 32]"]);
    refuse(&mut session, 4, &[2, 17, 32], &["entry layer", "[4]"]);
}

#[test]
fn chosen_tokens_that_do_not_ascend_from_the_class_token_are_refused() {
    let mut session = session();
    let pixels = pixels();
    let refuse = |session: &mut Session, tokens: Vec<u32>, parts: &[&str]| {
        let input = Input {
            tokens: Some(&tokens),
            ..Input::pixels(&pixels)
        };
        assert_refused(session, input, parts);
    };
    let ten = |one: &[u32]| one.repeat(10);
    refuse(&mut session, vec![], &["[0]", "[10]"]);
    refuse(&mut session, vec![0; 9], &["[9]", "[10]"]);
    for one in [[0, 5, 17], [1, 2, 3], [0, 2, 2], [0, 3, 2]] {
        refuse(&mut session, ten(&one), &["image 0", "17"]);
    }
}

#[test]
fn an_adapter_of_other_shapes_or_with_broken_values_is_refused() {
    let mut session = session();
    let pixels = pixels();
    let refuse = |session: &mut Session, adapter: Adapter, parts: &[&str]| {
        let input = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        assert_refused(session, input, parts);
    };
    let zeros = |shape: [usize; 2]| Tensor::zeros(shape);
    let narrow = query(zeros([4, 31]), zeros([32, 4]), 1.0);
    refuse(&mut session, narrow, &["[4, 31]", "[32, 32]"]);
    let torn = query(zeros([4, 32]), zeros([32, 3]), 1.0);
    refuse(&mut session, torn, &["[32, 3]", "[4, 32]"]);
    let empty = query(zeros([0, 32]), zeros([32, 0]), 1.0);
    refuse(&mut session, empty, &["[0, 32]", "no axis may be zero"]);
    let endless = query(zeros([4, 32]), zeros([32, 4]), f32::INFINITY);
    refuse(&mut session, endless, &["scale", "inf"]);
    let mut broken = query(zeros([4, 32]), zeros([32, 4]), 1.0);
    for pair in broken.pairs.values_mut() {
        pair.b.data_mut()[7] = f32::NAN;
    }
    refuse(&mut session, broken, &["value 7 of lora B", "[32, 4]"]);
    let deep = wide_adapter(&backbone("vit-tiny"), &[4], 2);
    refuse(&mut session, deep, &["layer", "[4]"]);
}

#[test]
fn pruning_of_a_layer_that_is_not_there_or_by_more_than_all_is_refused() {
    let mut session = session();
    let pixels = pixels();
    for (layer, ratio, parts) in [
        (4, 0.5, ["pruned layer", "[4]"]),
        (1, 1.5, ["pruning ratio", "1.5"]),
        (1, -0.1, ["pruning ratio", "-0.1"]),
        (1, f64::NAN, ["pruning ratio", "NaN"]),
    ] {
        let pruning = [Pruning { layer, ratio }];
        let input = Input {
            pruning: &pruning,
            ..Input::pixels(&pixels)
        };
        assert_refused(&mut session, input, &parts);
    }
}

#[test]
fn a_backward_that_does_not_fit_is_refused_and_the_forward_pass_still_waits_for_the_right_one() {
    let mut session = session();
    let pixels = pixels();
    let adapter = wide_adapter(&backbone("vit-tiny"), &[0, 3], 2);
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&pixels)
    };
    let error = session.backward(&[0.0; 320], None).unwrap_err();
    assert_eq!(error, OperationError::NoForward);
    session
        .forward_for(&input, Wanted::default(), BOTH)
        .unwrap();
    let refusal = |session: &mut Session, dfeatures: &[f32]| {
        session.backward(dfeatures, None).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(&mut session, &[0.0; 319]),
        "backward: dfeatures with shape [10, 32]: 319 values where 320 are needed"
    );
    let mut broken = noise(1, 320);
    broken[9] = f32::NAN;
    assert!(refusal(&mut session, &broken).starts_with("backward: value 9 of dfeatures"));
    let short = NormInputGradients {
        offset: &[0.0; 3],
        slope: &[0.0; 256],
    };
    let error = session.backward(&noise(1, 320), Some(short)).unwrap_err();
    assert!(
        matches!(error, OperationError::NoGradient { .. }),
        "{error}"
    );
    let found = session.backward(&noise(1, 320), None).unwrap();
    assert!(
        found
            .pixels
            .as_ref()
            .unwrap()
            .data()
            .iter()
            .any(|&value| value != 0.0)
    );
    // It was used up.
    let error = session.backward(&noise(1, 320), None).unwrap_err();
    assert_eq!(error, OperationError::NoForward);
}

#[test]
fn gradients_that_a_pass_cannot_have_are_refused() {
    let mut session = session();
    let pixels = pixels();
    let hidden = session.hidden_states(&Input::pixels(&pixels), 2).unwrap();
    let bare = Input::pixels(&pixels);
    let mut refuse = |input: &Input<'_>, pixels: bool, pairs: bool| {
        let differentiate = Differentiate { pixels, pairs };
        let error = session
            .forward_for(input, Wanted::default(), differentiate)
            .unwrap_err();
        assert!(
            matches!(error, OperationError::NoGradient { .. }),
            "{error}"
        );
        error.to_string()
    };
    assert_eq!(
        refuse(&bare, false, true),
        "gradient of low-rank pairs: the pass has no adapter"
    );
    let adapter = wide_adapter(&backbone("vit-tiny"), &[1, 3], 2);
    let cached = Input {
        entry: Entry::Hidden {
            layer: 2,
            values: &hidden,
        },
        adapter: Some(&adapter),
        ..bare
    };
    assert!(refuse(&cached, true, false).starts_with("gradient of pixels: "));
    assert!(refuse(&cached, false, true).starts_with("gradient of low-rank pairs: "));
}

#[test]
fn weights_that_are_not_numbers_are_refused_when_a_session_opens() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let mut damaged = backbone("vit-tiny");
        let weight = &mut damaged.weights.layers[1].mlp_in.weight;
        let shape = weight.shape().to_vec();
        weight.data_mut()[3] = value;
        let Err(error) = Session::new(&damaged, OPTIONS) else {
            panic!("a session opened on {value}");
        };
        let message = error.to_string();
        assert!(
            message.starts_with("load weights: value 3 of a weight"),
            "{message}"
        );
        assert!(message.contains(&format!("{shape:?}")), "{message}");
    }
}

#[test]
fn a_loss_that_refuses_fails_its_step_and_the_session_goes_on() {
    let mut session = session();
    let pixels = pixels();
    let input = Input::pixels(&pixels);
    let differentiate = Differentiate {
        pixels: true,
        pairs: false,
    };
    let mut run = |refuse: bool| {
        let step = session.step(&input, differentiate, |images, features, dfeatures| {
            if refuse && images.start > 3 {
                return Err(OperationError::NoForward);
            }
            dfeatures.copy_from_slice(features);
            Ok(1.0)
        });
        step.map(|(loss, gradients)| (loss, gradients.pixels.clone()))
    };
    let before = run(false).unwrap();
    assert_eq!(run(true).unwrap_err(), OperationError::NoForward);
    assert_eq!(run(false).unwrap(), before);
}

/// One operation on a batch whose first axis and first value are given; everything else fits.
type Operation = (&'static str, fn(usize, f32) -> Result<(), OperationError>);

/// `count` values, the first of them `first`.
fn values(count: usize, first: f32) -> Vec<f32> {
    let mut values = vec![0.5; count];
    if let Some(value) = values.first_mut() {
        *value = first;
    }
    values
}

const NORMALISATION: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);

const OPERATIONS: [Operation; 13] = [
    ("cross-entropy", |rows, first| {
        cross_entropy(&values(rows * 2, first), &vec![0; rows], 2, None).map(drop)
    }),
    ("distillation", |rows, first| {
        distillation(&vec![0.0; rows * 2], &values(rows * 2, first), 2, 1.0, None).map(drop)
    }),
    ("linear head", |rows, first| {
        let mut logits = vec![0.0; rows * 2];
        linear_head(&values(rows * 3, first), 3, &[1.0; 6], None, &mut logits)
    }),
    ("linear head backward", |rows, first| {
        let (features, dlogits) = (vec![0.5; rows * 3], values(rows * 2, first));
        linear_head_backward(&features, 3, &[1.0; 6], &dlogits, Default::default())
    }),
    ("prototype scores", |rows, first| {
        let (queries, mut scores) = (values(rows * 3, first), vec![0.0; rows * 2]);
        PrototypeScores::new(Scoring::default()).forward(
            &[0.5; 6],
            &[0, 1],
            &queries,
            [2, 3],
            &mut scores,
        )
    }),
    ("leave-one-out cross-entropy", |rows, first| {
        let labels: Vec<usize> = (0..rows).map(|row| row % 2).collect();
        LeaveOneOut::new(Scoring::default())
            .loss(&values(rows * 3, first), &labels, [2, 3], None, None)
            .map(drop)
    }),
    ("token-statistics prior", |rows, first| {
        let statistics = SiteStatistics {
            mean: vec![0.0; 3],
            variance: vec![1.0; 3],
        };
        statistics
            .loss(&values(rows * 3, first), 1.0, None)
            .map(drop)
    }),
    ("total variation", |images, first| {
        total_variation(&values(images * 12, first), [images, 3, 2, 2], 1.0, None).map(drop)
    }),
    ("L2 prior", |images, first| {
        mean_norm(&values(images * 12, first), [images, 3, 2, 2], 1.0, None).map(drop)
    }),
    ("roll and flip", |images, first| {
        let mut target = vec![0.0; images * 12];
        RollFlip::default().apply(&values(images * 12, first), [images, 3, 2, 2], &mut target)
    }),
    ("affine warp", |images, first| {
        let (changes, mut target) = (vec![Affine::default(); images], vec![0.0; images * 12]);
        let source = values(images * 12, first);
        warp(&source, [images, 3, 2, 2], &changes, &mut target)
    }),
    ("recolour", |images, first| {
        let mut generator = ChaCha8Rng::seed_from_u64(1);
        let changes: Vec<Colour> = (0..images)
            .map(|_| ColourLimits::default().draw(&mut generator))
            .collect();
        let (source, mut target) = (values(images * 12, first), vec![0.0; images * 12]);
        recolour(
            &source,
            [images, 3, 2, 2],
            &changes,
            NORMALISATION,
            &mut target,
        )
    }),
    ("image parameters", |images, first| {
        let shape = [images, 3, 2, 2];
        let mut parameters = ImageParameters::new(Parametrisation::Pixels, shape, NORMALISATION)?;
        let mut target = vec![0.0; images * 12];
        parameters.images(&values(images * 12, first), &mut target)
    }),
];

#[test]
fn losses_priors_and_augmentations_refuse_batches_of_zero_and_broken_values_by_name() {
    for (name, operation) in OPERATIONS {
        operation(4, 0.25).unwrap();
        let empty = operation(0, 0.25).unwrap_err();
        assert!(
            matches!(empty, OperationError::Empty { .. }),
            "{name}: {empty}"
        );
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let broken = operation(4, value).unwrap_err();
            assert!(
                matches!(broken, OperationError::NotFinite { .. }),
                "{name}: {broken}"
            );
            for error in [&empty, &broken] {
                let message = error.to_string();
                assert!(message.starts_with(&format!("{name}: ")), "{message}");
                assert!(message.contains("shape ["), "{message}");
            }
        }
    }
}
