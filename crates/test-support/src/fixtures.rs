//! The tiny backbones and the adapters that belong to them.

use crate::project;
use crate::reference::Reference;
use model::adapter::{
    Adapter, BackboneCandidate, FileLimits, Head, HeadInput, import, read_folder,
};
use model::backbone::{Backbone, load_folder};

/// The backbones below `tests/golden` that carry an adapter.
pub const MODELS: [&str; 3] = ["vit-tiny", "dinov2-tiny", "clip-tiny"];

/// One of [`MODELS`], with its weights.
pub fn backbone(model: &str) -> Backbone {
    load_folder(&project("tests/golden").join(model)).unwrap()
}

/// The tuned adapter of a model, with its head.
pub fn adapter(model: &str) -> Adapter {
    let path = project("tests/golden").join(model).join("adapter-peft-v4");
    let files = read_folder(&path, &FileLimits::default()).unwrap();
    let candidate = BackboneCandidate::of(model, &backbone(model));
    let mut adapter = import(&files, &[candidate]).unwrap().adapter;
    // PEFT has no place for a head on CLIP's features.
    adapter.head.get_or_insert_with(|| Head {
        weight: Reference::golden(model).tensor("head_weight"),
        bias: None,
        input: HeadInput::Feature,
        labels: vec![],
    });
    adapter
}
