//! The default backbone, inside the binary.

use super::{Backbone, BackboneError, load_parts};

/// Name of the embedded backbone, the default of `--backbone`.
pub const EMBEDDED_NAME: &str = "dinov2-s8";

/// Loads the embedded backbone: the first 8 layers of DINOv2-small (see NOTICE).
///
/// # Errors
/// As [`super::load_folder`]; only a damaged binary can cause one.
pub fn embedded() -> Result<Backbone, BackboneError> {
    load_parts(
        EMBEDDED_NAME,
        include_bytes!("../../assets/dinov2-s8/config.json"),
        include_bytes!("../../assets/dinov2-s8/preprocessor_config.json"),
        &[(
            "model.safetensors".to_owned(),
            include_bytes!("../../assets/dinov2-s8/model.safetensors").as_slice(),
        )],
    )
}
