//! Which encoder serves: ONNX Runtime, or the engine where there is no library or the user says so.

use super::device::{Device, load_for};
use super::encoder::{EncodeError, Encoder};
use super::native_encoder::NativeEncoder;
use super::ort_encoder::{OrtEncoder, OrtOptions};
use super::ort_library::OrtLibraryError;
use model::backbone::Backbone;
use std::sync::Arc;

/// Which encoder computes features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum EncoderChoice {
    /// ONNX Runtime where its library is found, else the built-in engine.
    #[default]
    Auto,
    /// ONNX Runtime, or an error that says why not.
    Ort,
    /// The built-in engine, on the CPU; needs no library.
    Native,
}

/// Opens the encoder of `choice` for `backbone`.
///
/// # Errors
/// [`EncodeError::Engine`] where it cannot be had.
pub fn open_encoder(
    backbone: Arc<Backbone>,
    choice: EncoderChoice,
    options: OrtOptions,
) -> Result<Box<dyn Encoder>, EncodeError> {
    let native = |backbone: &Backbone| -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(Box::new(NativeEncoder::open(backbone, options.threads)?))
    };
    if choice == EncoderChoice::Native {
        if options.device == Device::Cuda {
            return Err(EncodeError::Engine(
                "the built-in engine serves on the CPU only. Leave --device cuda out, or use --encoder ort".into(),
            ));
        }
        return native(&backbone);
    }
    match load_for(options.device) {
        Ok(loaded) => Ok(Box::new(OrtEncoder::open_with(loaded, backbone, options)?)),
        // A library that is there but unusable is said, not worked around.
        Err(error @ OrtLibraryError::NotFound) if choice == EncoderChoice::Auto => {
            tracing::info!(%error, "the built-in engine serves in place of ONNX Runtime");
            native(&backbone)
        }
        Err(error) => Err(EncodeError::Engine(error.to_string())),
    }
}
