//! The default backbone, inside the binary.

use super::{Backbone, BackboneConfig, BackboneError, load_parts};

/// Name of the embedded backbone, the default of `--backbone`.
pub const EMBEDDED_NAME: &str = "dinov2-s8";

/// Digest of the embedded backbone, so that who only needs to know which one it is need not read its weights.
pub const EMBEDDED_DIGEST: &str =
    "3d535ec348eb011c05cebff96e6c2349aaa51c59401742f6e292d433fbf80c3a";

/// Statistics of the embedded backbone's tokens, in the format that `engine::loss::TokenStatistics` reads.
pub use assets::TOKEN_STATISTICS as EMBEDDED_TOKEN_STATISTICS;

/// The embedded backbone's configuration alone.
///
/// # Errors
/// What is wrong with it; only a damaged binary can cause that.
pub fn embedded_config() -> Result<BackboneConfig, Vec<String>> {
    BackboneConfig::from_json(assets::CONFIG)
}

/// Loads the embedded backbone: the first 8 layers of DINOv2-small (see NOTICE).
///
/// # Errors
/// As [`super::load_folder`]; only a damaged binary can cause one.
pub fn embedded() -> Result<Backbone, BackboneError> {
    load_parts(
        EMBEDDED_NAME,
        assets::CONFIG,
        assets::PREPROCESSOR_CONFIG,
        &[("model.safetensors".to_owned(), assets::WEIGHTS)],
    )
}
