//! What a request for recycling says.

use super::recipe_file::RecipeFile;
use crate::app::evaluation::EvaluationRecipe;
use crate::base64_bytes::Base64Bytes;
use crate::jobs::invert::{BATCH_NORM, InversionRecipeRequest, TOKEN_STATISTICS};
use crate::jobs::pictures::VALIDATION;
use crate::jobs::real_images::REAL;
use crate::jobs::{ClassPictures, JobRequest, LabelledImage, by_class};
use recycle::meta_train::MetaTrainRecipe;
use recycle::over_preset::OverPreset;
use serde::{Deserialize, Serialize};
use store::{Name, Retention};
use utoipa::ToSchema;
use uuid::Uuid;

/// Which adapters to make one meta-LoRA of, and how: either `adapters` with their recipes, or the recipe file of an earlier run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecycleRequest {
    /// Name of the meta-LoRA; it becomes the next version. Needed but with `recipe_file`, which has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Adapters with a head, all of one backbone: name, name:version, name@alias or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<String>,
    /// Of meta-training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<MetaTrainRecipeRequest>,
    /// Of the images, where they are not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inversion: Option<InversionRecipeRequest>,
    /// How long the images are kept.
    #[serde(default)]
    #[schema(default = "keep")]
    pub retention: Retention,
    /// In place of `adapters`, `recipe` and `inversion`: what an earlier run gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_file: Option<RecipeFile>,
    /// How the meta-LoRA is measured on `pictures` and `archive`; only with these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationRecipe>,
    /// Learn also from images that did not come out, whose adapter recognises less than 90 % of them.
    #[serde(default)]
    pub use_failed_images: bool,
    /// Times a few steps and says what it would cost, without making anything.
    #[serde(default)]
    pub dry_run: bool,
    /// Jobs that must succeed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Uuid>,
    /// Pictures of classes that no adapter has seen, to measure the meta-LoRA on.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "by_class")]
    #[schema(value_type = Vec<ClassPictures>)]
    pub pictures: Vec<LabelledImage>,
    /// Instead of or beside `pictures`: a zip whose folders are classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub archive: Option<Base64Bytes>,
    /// A zip of pictures of other classes than those of `archive`, one folder per class, on which the best state is chosen in place of
    /// held-out synthetic images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub validation: Option<Base64Bytes>,
    /// A zip of real pictures of the classes of the adapters, one folder per class, that stand in for synthetic images, as a control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub real: Option<Base64Bytes>,
    /// A ResNet in torchvision's layout (safetensors), whose BatchNorm statistics are a prior of the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub batch_norm: Option<Base64Bytes>,
    /// A file that `prior build` made; left out, that of the embedded backbone where it is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, content_encoding = "base64")]
    pub token_statistics: Option<Base64Bytes>,
}

/// The recipe of a [`RecycleRequest`].
pub type MetaTrainRecipeRequest = OverPreset<MetaTrainRecipe>;

impl JobRequest for RecycleRequest {
    fn pictures(&mut self) -> Option<&mut Vec<LabelledImage>> {
        Some(&mut self.pictures)
    }

    fn files(&mut self) -> Vec<(&'static str, &mut Option<Base64Bytes>)> {
        vec![
            ("archive", &mut self.archive),
            (VALIDATION, &mut self.validation),
            (REAL, &mut self.real),
            (BATCH_NORM, &mut self.batch_norm),
            (TOKEN_STATISTICS, &mut self.token_statistics),
        ]
    }
}
