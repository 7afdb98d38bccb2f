//! What the synthetic images of an adapter are worth, and which adapters are nearly the same.

use super::evaluation::EncodingPass;
use super::registry::RegistryError;
use super::{App, AppError};
use model::adapter::Adapter;
use recycle::labelled_images::{LabelledImages, by_class};
use recycle::quality::{QualityError, RealComparison, compare_with_real, diversity};
use serde::Serialize;
use std::collections::BTreeSet;
use store::PoolRecord;
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

/// Why a pool cannot be measured.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum PoolQualityError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Quality(#[from] QualityError),
}

impl From<RegistryError> for PoolQualityError {
    fn from(error: RegistryError) -> Self {
        AppError::from(error).into()
    }
}

/// How good a pool is, on its images as they are stored.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PoolQuality {
    /// Its id.
    pub pool: Uuid,
    /// `name:version`
    pub adapter: String,
    /// Images of the pool.
    pub images: usize,
    /// Share of the images that the adapter recognises.
    pub teacher_accuracy: f64,
    /// Of the adapter on the images, mean.
    pub teacher_cross_entropy: f64,
    /// Leave-one-out, of the bare backbone; near 0 the images teach nothing. Null for a single class or a single image per class.
    pub bare_cross_entropy: Option<f64>,
    /// Mean over classes; null where no class has two images.
    pub diversity: Option<f64>,
    /// In the order of the pool.
    pub classes: Vec<ClassDiversity>,
    /// Only where there is a folder of real images to compare with.
    pub real: Option<RealComparison>,
    /// The other adapters that have synthetic images, most similar first.
    pub similar: Vec<SimilarAdapter>,
}

/// How different the images of a class are.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClassDiversity {
    /// Of the class.
    pub label: String,
    /// Images of the class.
    pub images: usize,
    /// Mean of 1 − cos over pairs of bare features; null for a single image.
    pub diversity: Option<f64>,
}

/// How alike another adapter is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SimilarAdapter {
    /// `name:version`
    pub adapter: String,
    /// Cosine of the weight changes; null where one changes nothing.
    pub similarity: Option<f64>,
    /// Whether the two are so alike that one of them adds hardly anything.
    pub near_duplicate: bool,
    /// Labels that both heads have.
    pub shared_classes: Vec<String>,
}

/// Adapters tuned on overlapping choices of the same letters reach 0.2; this much means nearly the same training twice.
const NEAR_DUPLICATE: f64 = 0.9;

/// Most adapters that are compared and shown.
const MOST_COMPARED: usize = 200;
const MOST_SHOWN: usize = 10;

impl App {
    /// Measures a pool, beside the features of real pictures where there are any; see [`Self::bare_features`].
    ///
    /// # Errors
    /// [`PoolQualityError`]: the pool is for another backbone or cannot be read, or there are too few images.
    pub async fn pool_quality(
        &self,
        record: &PoolRecord,
        real: Option<&[Vec<f32>]>,
    ) -> Result<PoolQuality, PoolQualityError> {
        self.check_pool_backbone(record).await?;
        let pool = self.registry()?.read_pool(record).await?;
        let quality = pool.manifest().quality.clone();
        let positions = by_class(pool.labels(), quality.classes.len());
        let levels = (pool.images(), pool.manifest().image_size);
        let features = self
            .features_by_class(levels, (&positions, &[]), None, EncodingPass::SILENT)
            .await?;
        let classes: Vec<ClassDiversity> = quality
            .classes
            .iter()
            .zip(&features.plain)
            .map(|(class, features)| ClassDiversity {
                label: class.label.clone(),
                images: class.images,
                diversity: diversity(features),
            })
            .collect();
        let known: Vec<f64> = classes.iter().filter_map(|own| own.diversity).collect();
        let all: Vec<Vec<f32>> = features.plain.into_iter().flatten().collect();
        let images = all.len();
        let real = match real {
            Some(real) => Some(compared(all, real.to_vec()).await?),
            None => None,
        };
        Ok(PoolQuality {
            pool: record.id,
            adapter: record.adapter_label.clone(),
            images,
            teacher_accuracy: quality.teacher_accuracy,
            teacher_cross_entropy: quality.teacher_cross_entropy,
            bare_cross_entropy: quality.bare_cross_entropy,
            diversity: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
            classes,
            real,
            similar: self.similar_adapters(record).await?,
        })
    }

    /// Whether a pool is for the backbone that answers here.
    ///
    /// # Errors
    /// [`RegistryError::OtherBackbone`]
    pub async fn check_pool_backbone(&self, record: &PoolRecord) -> Result<(), RegistryError> {
        if record.backbone_digest.as_str() == self.backbone.digest {
            return Ok(());
        }
        let store = self.registry()?.store();
        let known = store.backbone_by_digest(&record.backbone_digest).await;
        Err(RegistryError::OtherBackbone {
            adapter: record.adapter_label.clone(),
            adapter_backbone: known
                .map_or_else(|_| "another".to_owned(), |own| own.name.to_string()),
            adapter_backbone_digest: record.backbone_digest.to_string(),
            backbone: self.backbone_name.clone(),
            backbone_digest: self.backbone.digest.clone(),
        })
    }

    /// Features of real pictures on the bare backbone.
    ///
    /// # Errors
    /// [`AppError::Encode`]
    pub async fn bare_features(&self, images: &LabelledImages) -> Result<Vec<Vec<f32>>, AppError> {
        let levels = (images.all_levels(), images.image_size());
        let features = self
            .features_by_class(
                levels,
                (&images.by_class(), &[]),
                None,
                EncodingPass::SILENT,
            )
            .await?;
        Ok(features.plain.into_iter().flatten().collect())
    }

    async fn similar_adapters(
        &self,
        record: &PoolRecord,
    ) -> Result<Vec<SimilarAdapter>, RegistryError> {
        let registry = self.registry()?;
        // The adapter itself may be gone, while its images stay.
        let Ok(own) = registry.store().adapter(record.adapter_id).await else {
            return Ok(Vec::new());
        };
        let own = registry.load(&own).await?;
        let labels = |adapter: &Adapter| -> BTreeSet<String> {
            let head = adapter.head.iter();
            head.flat_map(|head| head.labels.iter().cloned()).collect()
        };
        let own_labels = labels(&own);
        let mut seen = BTreeSet::from([record.adapter_id]);
        let mut similar = Vec::new();
        for pool in registry.store().list_pools(None).await? {
            let is_other = pool.backbone_digest == record.backbone_digest;
            if !is_other || !seen.insert(pool.adapter_id) || seen.len() > MOST_COMPARED {
                continue;
            }
            let Ok(other) = registry.store().adapter(pool.adapter_id).await else {
                continue;
            };
            let label = other.label();
            let other = registry.load(&other).await?;
            let similarity = own.change_cosine(&other);
            similar.push(SimilarAdapter {
                adapter: label,
                similarity,
                near_duplicate: similarity.is_some_and(|own| own >= NEAR_DUPLICATE),
                shared_classes: own_labels.intersection(&labels(&other)).cloned().collect(),
            });
        }
        let rank = |own: &SimilarAdapter| own.similarity.unwrap_or(f64::NEG_INFINITY);
        similar.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
        similar.truncate(MOST_SHOWN);
        Ok(similar)
    }
}

/// All distances take long enough to hold up other requests of a worker.
async fn compared(
    synthetic: Vec<Vec<f32>>,
    real: Vec<Vec<f32>>,
) -> Result<RealComparison, PoolQualityError> {
    let compare = move || compare_with_real(&synthetic, &real);
    let compared = tokio::task::spawn_blocking(compare).await;
    Ok(compared.map_err(RegistryError::from)??)
}
