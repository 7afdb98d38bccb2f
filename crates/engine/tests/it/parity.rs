//! Ways through the engine that `verify` does not take, against the reference values.

use engine::session::{Device, Input, Session, SessionOptions, Wanted};
use engine::tolerance::FORWARD;
use model::adapter::HeadInput;
use model::backbone::{Pooling, embedded};
use test_support::fixtures::{MODELS, backbone};
use test_support::reference::Reference;

#[test]
fn a_last_layer_that_computes_the_class_token_alone_gives_the_reference_features() {
    let options = SessionOptions {
        threads: 2,
        images_per_micro_batch: 3,
        device: Device::Cpu,
    };
    for model in MODELS {
        let reference = Reference::golden(model);
        let pixels = reference.tensor("pixel_values");
        let mut session = Session::new(&backbone(model), options.clone()).unwrap();
        // `verify` asks for the hidden states too, and so for all tokens.
        let wanted = Wanted {
            class_attention: true,
            ..Wanted::default()
        };
        let output = session.forward(&Input::pixels(&pixels), wanted).unwrap();
        reference.check("features", output.features.data(), FORWARD);
        let attention = output.class_attention.as_ref().unwrap();
        assert_eq!(attention.shape(), [10, 16]);
        reference.check("cls_attention", attention.data(), FORWARD);
    }
}

#[test]
fn pooling_inside_the_engine_gives_the_reference_features_at_other_image_sizes() {
    let reference = Reference::open("../assets/dinov2-s8/reference.safetensors");
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
