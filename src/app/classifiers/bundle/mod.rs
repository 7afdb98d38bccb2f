//! A classifier on its way to another installation: one zip with its classes, the features and thumbnails of its pictures, its head, its adapter, and
//! a list of checksums that `sha256sum -c` checks too. The pictures themselves stay where they are.
//!
//! Features decide the head, so that an installation with the same backbone makes the same head of them; the head in the bundle is for other
//! programs, and for comparing.

mod export;
mod import;

pub use import::ImportedClassifier;

use super::Answering;
use model::adapter::FileLimits;
use model::backbone::Preprocess;
use recycle::head::{Calibration, HeadKind};
use serde::{Deserialize, Serialize};
use store::Digest;

const FORMAT: &str = "lora-recycle classifier bundle";
const VERSION: u32 = 1;
const MANIFEST: &str = "classifier.json";
/// `weight` `[classes, width]` and `offset` `[classes]`.
const HEAD: &str = "head.safetensors";
/// `features` `[pictures, width]` and, where all are known, `copies` `[pictures, copies, width]`.
const FEATURES: &str = "features.safetensors";
/// A bundle of the adapter.
const ADAPTER: &str = "adapter.zip";

/// What a bundle may hold.
pub const BUNDLE_LIMITS: FileLimits = FileLimits {
    most_files: store::MOST_PICTURES + 16,
    largest_file_bytes: 512 << 20,
    largest_total_bytes: 1 << 30,
    largest_ratio: 200,
};

/// The bundle's page.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    name: String,
    backbone_name: String,
    backbone_digest: Digest,
    /// Null for the bare backbone.
    adapter: Option<BundledAdapter>,
    /// How a picture becomes the input of the backbone; for other programs.
    preprocess: Preprocess,
    /// How the features were made, a line for those of the pictures and one for each copy.
    features: Vec<String>,
    head: HeadKind,
    /// What was asked for; absent in bundles of versions that could not be asked.
    #[serde(default)]
    answering: Answering,
    /// Where the temperature comes from that is in the head.
    calibration: Calibration,
    /// The classes.
    labels: Vec<String>,
    /// Class by class.
    pictures: Vec<BundledPicture>,
}

#[derive(Serialize, Deserialize)]
struct BundledAdapter {
    name: String,
    label: String,
    /// Of its matrices; that of its files changes on the way.
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct BundledPicture {
    /// Index of its class.
    class: usize,
    name: String,
    digest: Digest,
    media_type: String,
    size_bytes: u64,
    width: u32,
    height: u32,
}

fn thumbnail_path(place: usize) -> String {
    format!("thumbnails/{place:05}.jpg")
}
