"""Sizes and steps of the engine's bench (crates/engine/src/measure.rs), for sides that do without PyTorch too."""

# Width, heads, patch size, image size, batch.
SIZES = {
    "vit-s-98": (384, 6, 14, 98, 40),
    "vit-s-98-one": (384, 6, 14, 98, 1),
    "vit-s-224": (384, 6, 14, 224, 8),
    "vit-b-224": (768, 12, 16, 224, 4),
}
STEPS = ["forward", "input-gradient", "pruned-input-gradient", "meta-dense", "meta-sparse-25", "meta-sparse-50", "meta-sparse-75", "meta-last-6-cached"]
LAYERS, RANK = 12, 4
