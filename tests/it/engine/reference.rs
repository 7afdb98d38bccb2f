//! The tiny backbones and the adapters that belong to them.

pub use crate::reference::{FORWARD, GRADIENT, Reference, assert_close};
use crate::support::project;
use lora_recycle::adapter::{Adapter, Candidate, FileLimits, import, read_folder};
use lora_recycle::backbone::{Backbone, load_folder};

pub const MODELS: [&str; 3] = ["vit-tiny", "dinov2-tiny", "clip-tiny"];

pub fn backbone(model: &str) -> Backbone {
    load_folder(&project("tests/golden").join(model)).unwrap()
}

/// The tuned adapter of a model.
pub fn adapter(model: &str) -> Adapter {
    imported(model, "adapter-peft-v4")
}

/// The adapter in the published code's own layout.
pub fn published_adapter() -> Adapter {
    imported("clip-tiny", "official")
}

fn imported(model: &str, folder: &str) -> Adapter {
    let path = project("tests/golden").join(model).join(folder);
    let mut files = read_folder(&path, &FileLimits::default()).unwrap();
    files.retain(|file| file.path != "reference.safetensors");
    let candidate = Candidate::of(model, &backbone(model));
    import(&files, &[candidate]).unwrap().adapter
}
