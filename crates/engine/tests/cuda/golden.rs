//! The reference values, without a detour over the CPU backend.

use crate::session::on;
use engine::session::{Input, SessionOptions, Wanted};
use engine::tolerance::FORWARD;
use test_support::emulated_device::Emulator;
use test_support::fixtures::{MODELS, adapter, backbone};
use test_support::reference::Reference;

#[test]
fn features_and_attention_are_the_reference_values_with_an_adapter_and_without() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    for model in MODELS {
        let (backbone, adapter) = (backbone(model), adapter(model));
        let reference = Reference::golden(model);
        let pixels = reference.tensor("pixel_values");
        let mut session = on(cuda.clone(), &backbone, SessionOptions::default());
        for (prefix, adapter) in [("", None), ("adapter_", Some(&adapter))] {
            let input = Input {
                adapter,
                ..Input::pixels(&pixels)
            };
            let wanted = Wanted {
                class_attention: true,
                ..Wanted::default()
            };
            let output = session.forward(&input, wanted).unwrap();
            let features = output.features.data();
            reference.check(&format!("{prefix}features"), features, FORWARD);
            let attention = output.class_attention.as_ref().unwrap();
            let name = format!("{prefix}cls_attention");
            reference.check(&name, attention.data(), FORWARD);
        }
    }
}
