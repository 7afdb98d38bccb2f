//! Every reference tensor that the engine can compute, by name.

use super::reference::{
    FORWARD, GRADIENT, LOSS, MODELS, Reference, adapter, backbone, published_adapter, site,
};
use lora_recycle::adapter::{Adapter, HeadInput};
use lora_recycle::backbone::{Pooling, embedded};
use lora_recycle::engine::loss::{
    LinearHeadGradients, PrototypeScores, Scoring, cross_entropy, distillation, linear_head,
    linear_head_backward,
};
use lora_recycle::engine::session::{Input, Pruning, Session, SessionOptions, Wanted};
use lora_recycle::engine::vit::Differentiate;

const OPTIONS: SessionOptions = SessionOptions {
    threads: 2,
    images_per_micro_batch: 3,
};

const PIXELS: Differentiate = Differentiate {
    pixels: true,
    factors: false,
};

const FACTORS: Differentiate = Differentiate {
    pixels: false,
    factors: true,
};

#[test]
fn bare_backbones_give_the_reference_features_attention_and_hidden_states() {
    for model in MODELS {
        let reference = Reference::open(&format!("{model}/reference.safetensors"));
        let pixels = reference.tensor("pixel_values");
        let mut session = Session::new(&backbone(model), OPTIONS).unwrap();
        let all = Wanted {
            class_attention: true,
            last_hidden_state: true,
            ..Wanted::default()
        };
        let output = session.forward(&Input::pixels(&pixels), all).unwrap();
        reference.check("features", output.features.data(), FORWARD);
        let attention = output.class_attention.as_ref().unwrap();
        assert_eq!(attention.shape(), [10, 16]);
        reference.check("cls_attention", attention.data(), FORWARD);
        let state = output.last_hidden_state.as_ref().unwrap();
        assert_eq!(state.shape(), [10, 17, 32]);
        reference.check("last_hidden_state", state.data(), FORWARD);
        // Without the hidden states the last layer computes the class token only.
        let wanted = Wanted {
            class_attention: true,
            ..Wanted::default()
        };
        let output = session.forward(&Input::pixels(&pixels), wanted).unwrap();
        reference.check("features", output.features.data(), FORWARD);
        let attention = output.class_attention.as_ref().unwrap();
        reference.check("cls_attention", attention.data(), FORWARD);
    }
}

#[test]
fn adapted_backbones_give_the_reference_features_and_attention() {
    for model in MODELS {
        let reference = Reference::open(&format!("{model}/reference.safetensors"));
        let pixels = reference.tensor("pixel_values");
        let adapter = adapter(model);
        let input = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        let mut session = Session::new(&backbone(model), OPTIONS).unwrap();
        let wanted = Wanted {
            class_attention: true,
            ..Wanted::default()
        };
        let output = session.forward(&input, wanted).unwrap();
        reference.check("adapter_features", output.features.data(), FORWARD);
        let attention = output.class_attention.as_ref().unwrap();
        reference.check("adapter_cls_attention", attention.data(), FORWARD);
    }
}

/// Logits, mean cross-entropy and its gradient at what the head reads.
pub fn head_loss(
    adapter: &Adapter,
    features: &[f32],
    labels: &[usize],
) -> (Vec<f32>, f32, Vec<f32>) {
    let head = adapter.head.as_ref().unwrap();
    let (classes, width) = (head.weight.shape()[0], head.weight.shape()[1]);
    let bias = head.bias.as_ref().map(|bias| bias.data());
    let mut logits = vec![0.0; labels.len() * classes];
    linear_head(features, width, head.weight.data(), bias, &mut logits).unwrap();
    let mut dlogits = vec![0.0; logits.len()];
    let loss = cross_entropy(&logits, labels, classes, Some(&mut dlogits)).unwrap();
    let mut dfeatures = vec![0.0; features.len()];
    let gradients = LinearHeadGradients {
        dfeatures: Some(&mut dfeatures),
        ..LinearHeadGradients::default()
    };
    linear_head_backward(features, width, head.weight.data(), &dlogits, gradients).unwrap();
    (logits, loss, dfeatures)
}

#[test]
fn tuned_heads_give_the_reference_logits_loss_and_gradient_at_the_pixels() {
    for model in MODELS {
        let reference = Reference::open(&format!("{model}/reference.safetensors"));
        let pixels = reference.tensor("pixel_values");
        let labels = reference.labels();
        let adapter = adapter(model);
        let input = Input {
            adapter: Some(&adapter),
            read: adapter.head.as_ref().unwrap().input,
            ..Input::pixels(&pixels)
        };
        let mut session = Session::new(&backbone(model), OPTIONS).unwrap();
        let output = session
            .forward_for(&input, Wanted::default(), PIXELS)
            .unwrap();
        let (logits, loss, dfeatures) = head_loss(&adapter, output.features.data(), &labels);
        reference.check("adapter_logits", &logits, FORWARD);
        reference.check("adapter_ce", &[loss], LOSS);
        let gradients = session.backward(&dfeatures, None).unwrap();
        let dpixels = gradients.pixels.as_ref().unwrap();
        assert_eq!(dpixels.shape(), pixels.shape());
        reference.check("adapter_ce_grad_pixels", dpixels.data(), GRADIENT);
    }
}

#[test]
fn episodes_give_the_reference_losses_and_gradients_at_the_factors() {
    for model in MODELS {
        let reference = Reference::open(&format!("{model}/reference.safetensors"));
        let pixels = reference.tensor("pixel_values");
        let adapter = adapter(model);
        let input = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        let mut session = Session::new(&backbone(model), OPTIONS).unwrap();
        let output = session
            .forward_for(&input, Wanted::default(), FACTORS)
            .unwrap();
        let width = output.features.shape()[1];
        let (supports, queries) = output.features.data().split_at(5 * width);
        let mut scores = [0.0; 25];
        let mut prototypes = PrototypeScores::new(Scoring::default());
        prototypes
            .forward(supports, &[0, 1, 2, 3, 4], queries, [5, width], &mut scores)
            .unwrap();
        reference.check("episode_scores", &scores, FORWARD);
        let teacher = reference.tensor("teacher_logits");
        let mut dscores = [0.0; 25];
        let kl = distillation(teacher.data(), &scores, 5, 1.0, Some(&mut dscores)).unwrap();
        reference.check("episode_kl", &[kl], LOSS);
        let mut dfeatures = vec![0.0; 10 * width];
        let (dsupports, dqueries) = dfeatures.split_at_mut(5 * width);
        prototypes.backward(&dscores, dsupports, dqueries).unwrap();
        let gradients = session.backward(&dfeatures, None).unwrap();
        assert!(gradients.pixels.is_none());
        let mut checked = 0;
        for name in reference.names() {
            let Some(module) = name.strip_prefix("episode_grad.") else {
                continue;
            };
            let (module, factor) = module.split_once(".lora_").unwrap();
            let own = &gradients.factors[&site(module)];
            let found = if factor == "A.weight" {
                &own.da
            } else {
                &own.db
            };
            assert_eq!(found.shape(), reference.tensor(&name).shape());
            reference.check(&name, found.data(), GRADIENT);
            checked += 1;
        }
        assert_eq!(checked, 2 * gradients.factors.len());
    }
}

#[test]
fn pruning_and_sparse_tokens_give_the_published_codes_values() {
    let reference = Reference::open("clip-tiny/official/reference.safetensors");
    let inputs = Reference::open("clip-tiny/reference.safetensors");
    let pixels = inputs.tensor("pixel_values");
    let labels = inputs.labels();
    let adapter = published_adapter();
    let mut session = Session::new(&backbone("clip-tiny"), OPTIONS).unwrap();
    let tokens: Vec<u32> = reference
        .integers("sparse.tokens")
        .iter()
        .map(|&token| token as u32)
        .collect();
    let prune = |layer, ratio| Pruning { layer, ratio };
    /// Name in the reference file, pruning, tokens that enter.
    type Case<'a> = (&'a str, Vec<Pruning>, Option<&'a [u32]>);
    let cases: [Case; 5] = [
        ("full", vec![], None),
        ("prune_l1_none", vec![prune(1, 0.0)], None),
        ("prune_l1_50", vec![prune(1, 0.5)], None),
        (
            "prune_l0_25_l2_50",
            vec![prune(0, 0.25), prune(2, 0.5)],
            None,
        ),
        ("sparse", vec![], Some(&tokens)),
    ];
    for (case, pruning, tokens) in cases {
        println!("{case}");
        let input = Input {
            adapter: Some(&adapter),
            pruning: &pruning,
            tokens,
            ..Input::pixels(&pixels)
        };
        let wanted = Wanted {
            class_attention: true,
            kept_tokens: true,
            ..Wanted::default()
        };
        let output = session.forward_for(&input, wanted, PIXELS).unwrap();
        if case != "full" {
            let kept = output.kept_tokens.as_ref().unwrap().iter();
            let kept: Vec<i64> = kept.map(|&token| i64::from(token)).collect();
            assert_eq!(kept, reference.integers(&format!("{case}.kept_tokens")));
            let attention = output.class_attention.as_ref().unwrap();
            let name = format!("{case}.last_cls_attention");
            reference.check(&name, attention.data(), FORWARD);
        }
        let (logits, loss, dfeatures) = head_loss(&adapter, output.features.data(), &labels);
        reference.check(&format!("{case}.logits"), &logits, FORWARD);
        reference.check(&format!("{case}.ce"), &[loss], LOSS);
        let gradients = session.backward(&dfeatures, None).unwrap();
        let dpixels = gradients.pixels.as_ref().unwrap();
        let name = format!("{case}.ce_grad_pixels");
        reference.check(&name, dpixels.data(), GRADIENT);
    }
}

#[test]
fn the_embedded_backbone_gives_the_reference_features_at_other_image_sizes() {
    let reference = Reference::open("../../assets/dinov2-s8/reference.safetensors");
    let backbone = embedded().unwrap();
    assert_eq!(backbone.config.pooling, Pooling::Mean);
    let mut session = Session::new(&backbone, SessionOptions::default()).unwrap();
    for size in [98, 126, 224] {
        let pixels = reference.tensor(&format!("pixels_{size}"));
        let mean = Input::pixels(&pixels);
        let output = session.forward(&mean, Wanted::default()).unwrap();
        let name = format!("mean_patch_{size}");
        reference.check(&name, output.features.data(), FORWARD);
        let class = Input {
            read: HeadInput::Cls,
            ..mean
        };
        let output = session.forward(&class, Wanted::default()).unwrap();
        reference.check(&format!("cls_{size}"), output.features.data(), FORWARD);
    }
}
