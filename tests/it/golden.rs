//! Checkpoints and reference values in `tests/golden`.

use lora_recycle::backbone::{embedded, load_folder};
use std::path::Path;

#[test]
fn every_golden_checkpoint_loads() {
    for name in ["vit-tiny", "dinov2-tiny", "clip-tiny"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        let backbone = load_folder(&folder).unwrap();
        assert_eq!(backbone.config.layers, 4, "{name}");
        assert_eq!(backbone.config.width, 32, "{name}");
    }
}

#[test]
fn the_embedded_backbone_loads() {
    let backbone = embedded().unwrap();
    assert_eq!(backbone.config.layers, 8);
    assert_eq!(backbone.feature_width(), 384);
}
