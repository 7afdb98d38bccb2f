//! An opened backbone with its encoder, and the work that command line and server share.
//! Knows image bytes, features and answers; knows no HTTP and no terminal.

mod answer;
pub mod classifiers;
mod classify;
mod encoding;
pub mod evaluation;
mod feature_cache;
pub mod pool_quality;
pub mod registry;
pub mod table;

pub use answer::{
    Answer, Attention, Certainty, Classification, ClassifyOptions, CopiesWanted, Embedding, Fault,
    FittedClassifier, NamedImage, Neighbour, RefusedSupport, SupportClass,
};

use crate::inference::{
    Device, EncodeError, EncodeRow, EncoderChoice, EncoderInfo, EncoderService, OrtOptions,
    Outputs, ServiceLimits, open_encoder,
};
use classifiers::ClassifierFits;
use encoding::PictureEncoder;
use engine::distance::Distance;
use model::backbone::{Backbone, BackboneError, EMBEDDED_NAME, embedded, load_folder};
use model::image_input::ImageLimits;
use model::tensor::Tensor;
use recycle::classifier::{ClassifierError, ClassifierSettings};
use recycle::head::HeadChoice;
use registry::{BARE, EMBEDDED_SOURCE, Registry, RegistryError, ServedAdapter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::AdapterRecord;
use thiserror::Error;

/// Why a request as a whole could not be answered, or a backbone not be opened.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum AppError {
    /// Fewer than 2 classes, more than [`MOST_CLASSES`], a label that is empty or appears twice.
    #[error("{0}")]
    BadClasses(String),
    /// None of a class's images could be used.
    #[error("class \"{label}\" has no usable image")]
    EmptyClass {
        label: String,
        refused: Vec<RefusedSupport>,
    },
    #[error("{0}")]
    UnknownBackbone(String),
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    #[error("image size {size} px is not a multiple of the patch size {patch} px of {backbone}")]
    ImageSize {
        size: usize,
        patch: usize,
        backbone: String,
    },
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(
        "through the adapter {adapter} a picture gives numbers that are not finite; its tensors are too large"
    )]
    AdapterNotFinite { adapter: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A classifier that was made with another backbone.
    #[error(transparent)]
    Classifier(#[from] ClassifierError),
}

/// Most classes of one classification.
pub const MOST_CLASSES: usize = 1000;

/// For every backbone. Cosine, because the scale of squared distances differs from backbone to backbone and a temperature would not
/// carry over; on dinov2-s8 the two are equal within their confidence intervals (docs/experiments/NOTEBOOK.md, which also says how
/// the temperature was chosen).
pub const DEFAULT_CLASSIFIER: ClassifierSettings = ClassifierSettings {
    head: HeadChoice::Auto,
    distance: Distance::Cosine,
};

/// What to open, and with which means.
#[derive(Debug, Clone)]
pub struct AppOptions {
    /// Name of the embedded backbone, or a Hugging Face folder.
    pub backbone: String,
    /// Square image size in pixels; `None` takes the backbone's.
    pub image_size: Option<usize>,
    /// Where exported graphs are cached.
    pub data_folder: PathBuf,
    /// Threads of one computation; 0 takes one per core.
    pub threads: usize,
    /// Where ONNX Runtime computes.
    pub device: Device,
    /// Which engine computes.
    pub encoder: EncoderChoice,
    /// What pictures may be like.
    pub limits: ImageLimits,
}

/// Loads the backbone called `name`: the embedded one, or a folder's.
///
/// # Errors
/// [`AppError::UnknownBackbone`] where it is neither, [`AppError::Backbone`] where the folder does not fit.
pub fn open_backbone(name: &str) -> Result<Backbone, AppError> {
    if name == EMBEDDED_NAME {
        return Ok(embedded()?);
    }
    if Path::new(name).is_dir() {
        return Ok(load_folder(Path::new(name))?);
    }
    Err(AppError::UnknownBackbone(format!(
        "backbone \"{name}\" is not known: it is neither \"{EMBEDDED_NAME}\" nor a folder"
    )))
}

/// The backbone called `name`, and what answers call it: its registered name where it has one. A path is never shown.
///
/// # Errors
/// [`AppError`] where it is unknown or its folder cannot be read.
pub async fn find_backbone(
    name: &str,
    registry: Option<&Registry>,
) -> Result<(String, Backbone), AppError> {
    if let Some(registry) = registry
        && let Ok(registered) = name.parse()
        && let Ok(record) = registry.store().backbone(&registered).await
        && record.source != EMBEDDED_SOURCE
    {
        return Ok((name.to_owned(), load_folder(Path::new(&record.source))?));
    }
    let backbone = open_backbone(name)?;
    if name == EMBEDDED_NAME {
        return Ok((name.to_owned(), backbone));
    }
    if let Some(registry) = registry
        && let Ok(digest) = backbone.digest.parse()
        && let Ok(record) = registry.store().backbone_by_digest(&digest).await
    {
        return Ok((record.name.to_string(), backbone));
    }
    let folder = Path::new(name).canonicalize().ok();
    let shown = folder.as_deref().and_then(Path::file_name).map_or_else(
        || name.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    Ok((shown, backbone))
}

/// Where exported graphs are cached in a data folder.
pub fn graph_cache(data_folder: &Path) -> PathBuf {
    data_folder.join("cache").join("onnx")
}

/// An opened backbone, ready to answer.
pub struct App {
    /// Its registered name where it has one.
    pub backbone_name: String,
    /// The weights, and how pictures become their input.
    pub backbone: Arc<Backbone>,
    pictures: PictureEncoder,
    registry: Option<Registry>,
    fits: Arc<ClassifierFits>,
}

impl App {
    /// Opens a backbone and its encoder. `options.backbone` may also be a name that `registry` knows.
    ///
    /// # Errors
    /// [`AppError`] where the backbone is unknown or does not fit, or the encoder cannot start.
    pub async fn open(options: &AppOptions, registry: Option<Registry>) -> Result<Self, AppError> {
        let (name, mut backbone) = find_backbone(&options.backbone, registry.as_ref()).await?;
        if let Some(size) = options.image_size {
            if backbone.config.grid(size).is_none() {
                return Err(AppError::ImageSize {
                    size,
                    patch: backbone.config.patch_size,
                    backbone: options.backbone.clone(),
                });
            }
            backbone.preprocess = backbone.preprocess.with_image_size(size);
        }
        let backbone = Arc::new(backbone);
        let for_encoder = Arc::clone(&backbone);
        let ort_options = OrtOptions {
            threads: options.threads,
            device: options.device,
            cache_folder: Some(graph_cache(&options.data_folder)),
        };
        let choice = options.encoder;
        let encoder = EncoderService::start(
            move || open_encoder(for_encoder, choice, ort_options),
            ServiceLimits::default(),
        )?;
        let mut app = Self::with_encoder(name, backbone, options.limits, encoder);
        app.registry = registry;
        Ok(app)
    }

    /// Joins a backbone and an encoder that runs it.
    pub fn with_encoder(
        backbone_name: String,
        backbone: Arc<Backbone>,
        limits: ImageLimits,
        encoder: EncoderService,
    ) -> Self {
        Self {
            backbone_name,
            backbone: Arc::clone(&backbone),
            pictures: PictureEncoder::new(backbone, limits, encoder),
            registry: None,
            fits: Arc::default(),
        }
    }

    /// Gives the app a registry of adapters.
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// The registry of adapters.
    ///
    /// # Errors
    /// [`RegistryError::Absent`] where the app was opened without one.
    pub fn registry(&self) -> Result<&Registry, RegistryError> {
        self.registry.as_ref().ok_or(RegistryError::Absent)
    }

    /// Which engine answers, and where.
    pub fn encoder_info(&self) -> &EncoderInfo {
        self.pictures.encoder.info()
    }

    /// The adapter that a request for `wanted` goes through: the named one, or the backbone's default where none is named.
    /// `None` is the bare backbone, which [`BARE`] asks for.
    ///
    /// # Errors
    /// [`AppError::Registry`]: it is unknown, for another backbone, or cannot be read.
    pub async fn adapter(&self, wanted: Option<&str>) -> Result<Option<ServedAdapter>, AppError> {
        match (&self.registry, wanted) {
            (Some(registry), wanted) => Ok(registry
                .for_request(wanted, &self.backbone_name, &self.backbone.digest)
                .await?),
            (None, None | Some(BARE)) => Ok(None),
            (None, Some(wanted)) => Err(RegistryError::unknown_adapter(wanted).into()),
        }
    }

    /// What answers, for people: backbone and adapter, each with the start of its digest.
    pub fn answering(&self, adapter: Option<&ServedAdapter>) -> String {
        let backbone = format!("{} ({:.12})", self.backbone_name, self.backbone.digest);
        match adapter {
            None => format!("{backbone}, no adapter"),
            Some(ServedAdapter { record, .. }) => format!(
                "{backbone}, adapter {} ({:.12})",
                record.label(),
                record.digest.as_str()
            ),
        }
    }

    /// Features of `images`, in order.
    ///
    /// # Errors
    /// [`AppError::Encode`]; an unusable image is not an error but part of the result.
    pub async fn embed(
        &self,
        images: Vec<NamedImage>,
        adapter: Option<&ServedAdapter>,
    ) -> Result<Vec<Embedding>, AppError> {
        let names: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
        let encoded = self.pictures.encode(images, adapter).await?;
        Ok(names
            .into_iter()
            .zip(encoded)
            .map(|(image, result)| match result {
                Ok(encoded) => Embedding::Embedded {
                    image,
                    feature: encoded.feature,
                },
                Err(error) => Embedding::Failed { image, error },
            })
            .collect())
    }

    /// Runs one small inference through the whole path: what `/readyz` checks.
    ///
    /// # Errors
    /// [`AppError::Encode`] with the reason.
    pub async fn probe(&self) -> Result<(), AppError> {
        let config = &self.backbone.config;
        let size = self.backbone.image_size();
        let row = EncodeRow::bare(Arc::new(Tensor::zeros([3, size, size])));
        let encoded = self.encoder().encode(vec![row], Outputs::default());
        let encoded = encoded.await?;
        let sound = encoded.first().is_some_and(|encoded| {
            encoded.feature.len() == config.feature_width()
                && encoded.feature.iter().all(|value| value.is_finite())
        });
        if sound {
            Ok(())
        } else {
            Err(AppError::Encode(EncodeError::Engine(
                "the probe image gave no usable feature".into(),
            )))
        }
    }

    /// Looks through `adapter` at one picture, so that one that cannot answer is not made anybody's default. One of another backbone is only read.
    ///
    /// # Errors
    /// [`AppError::AdapterNotFinite`], [`AppError::Registry`] where its files cannot be read.
    pub async fn check_adapter(&self, record: &AdapterRecord) -> Result<(), AppError> {
        let adapter = self.registry()?.load(record).await?;
        if record.backbone_digest.as_str() != self.backbone.digest {
            return Ok(());
        }
        let size = self.backbone.image_size();
        let row = EncodeRow {
            adapter: Some(Arc::new(adapter)),
            ..EncodeRow::bare(Arc::new(Tensor::zeros([3, size, size])))
        };
        let encoded = self.encoder().encode(vec![row], Outputs::default()).await?;
        encoding::check_finite(&encoded, Some(record))
    }

    /// What pictures may be like.
    pub fn limits(&self) -> &ImageLimits {
        &self.pictures.limits
    }

    fn encoder(&self) -> &EncoderService {
        &self.pictures.encoder
    }
}
