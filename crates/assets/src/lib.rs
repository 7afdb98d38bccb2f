//! The files of the embedded backbone, the first 8 layers of DINOv2-small (see NOTICE). The compiler takes long over 30 MB, so they are a
//! crate that seldom changes.

/// `config.json`
pub static CONFIG: &[u8] = include_bytes!("../../../assets/dinov2-s8/config.json");

/// `preprocessor_config.json`
pub static PREPROCESSOR_CONFIG: &[u8] =
    include_bytes!("../../../assets/dinov2-s8/preprocessor_config.json");

/// `model.safetensors`
pub static WEIGHTS: &[u8] = include_bytes!("../../../assets/dinov2-s8/model.safetensors");

/// Statistics of the embedded backbone's tokens over 940 crops of photographs and paintings (see NOTICE), in the format that
/// `engine::loss::TokenStatistics` reads.
pub static TOKEN_STATISTICS: &[u8] =
    include_bytes!("../../../assets/dinov2-s8/token_statistics.safetensors");
