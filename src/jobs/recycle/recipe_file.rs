//! The recipe file: everything from which somebody with the same adapters rebuilds the same meta-LoRA.

use crate::jobs::{RequestError, Services};
use recycle::inversion::InversionRecipe;
use recycle::meta_train::MetaTrainRecipe;
use serde::{Deserialize, Serialize};
use store::{AdapterFilter, Digest, Name, PoolRecord};
use utoipa::ToSchema;

const FORMAT: &str = "lora-recycle-recipe";
const VERSION: u32 = 1;

/// The contents of a recipe file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Tells the file from others.
    #[schema(example = "lora-recycle-recipe")]
    pub format: String,
    /// Of the layout of the file.
    #[schema(example = 1)]
    pub version: u32,
    /// Of the program that wrote it.
    pub program_version: String,
    /// Of the meta-LoRA.
    pub name: Name,
    /// The order of summation, and with it the last bits, depend on it.
    pub threads: usize,
    /// That all adapters change.
    pub backbone: Named,
    /// In the order in which they are summed.
    pub adapters: Vec<Ingredient>,
    /// How the images were made.
    pub inversion: InversionRecipe,
    /// How the meta-LoRA was learned.
    pub meta_training: MetaTrainRecipe,
    /// Of the pictures that the best state was chosen on: they are not in the file, and who rebuilds needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Digest>,
    /// SHA-256 over the LoRA matrices of the meta-LoRA: what a rebuilt one is compared with.
    pub digest: String,
}

/// Something by its name, which may change, and its digest, which does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecipeFileBackbone)]
pub struct Named {
    /// At that time and place.
    pub name: String,
    /// By which it is found again.
    pub digest: Digest,
}

/// An adapter and the images that were made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RecipeFileAdapter)]
pub struct Ingredient {
    /// `name:version`
    pub adapter: String,
    /// Of the adapter's files, by which it is found again.
    pub digest: Digest,
    /// Over its images, labels, teacher logits and kept tokens.
    pub pool_digest: Digest,
}

impl RecipeFile {
    /// The head of the file.
    pub fn format() -> (String, u32, String) {
        (FORMAT.into(), VERSION, env!("CARGO_PKG_VERSION").into())
    }

    /// Whether this program reads it.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.format == FORMAT && self.version == VERSION {
            return Ok(());
        }
        Err(RequestError::invalid(
            "recipe_file",
            format!(
                "the file is {} of version {}; this program reads {FORMAT} of version {VERSION}",
                self.format, self.version
            ),
        ))
    }

    /// Whether the pictures to validate on are those of the file.
    pub fn check_validation(&self, given: Option<&Digest>) -> Result<(), RequestError> {
        if self.validation.as_ref() == given {
            return Ok(());
        }
        Err(RequestError::invalid(
            "validation",
            match &self.validation {
                Some(wanted) => format!(
                    "the recipe's result was chosen on pictures with the digest {wanted}; give the same pictures to validate on"
                ),
                None => "the recipe's result was not chosen on pictures; leave them out".into(),
            },
        ))
    }

    /// Ids of the file's adapters in this registry, by their digests.
    pub async fn adapters_here(&self, services: &Services) -> Result<Vec<String>, RequestError> {
        let filter = AdapterFilter {
            backbone_digest: Some(self.backbone.digest.clone()),
            ..AdapterFilter::default()
        };
        let all = services.store().list_adapters(&filter).await?;
        let here = self.adapters.iter().map(|wanted| {
            // Of equal adapters the one with the same name, so that labels stay what they were.
            let mut equal = all.iter().filter(|own| own.digest == wanted.digest);
            let named = equal.clone().find(|own| own.label() == wanted.adapter);
            named.or_else(|| equal.next()).map_or_else(
                || {
                    Err(RequestError::invalid(
                        "recipe_file",
                        format!(
                            "the adapter {} with the digest {} is not in this registry; import it first",
                            wanted.adapter, wanted.digest
                        ),
                    ))
                },
                |own| Ok(own.id.to_string()),
            )
        });
        here.collect()
    }
}

/// SHA-256 over what of a pool decides meta-training, as `sha256sum` lists it: previews and manifest are left out.
pub(super) fn pool_digest(pool: &PoolRecord) -> Digest {
    let tensors = pool
        .files
        .iter()
        .filter(|file| file.name.ends_with(".safetensors"));
    let mut lines: Vec<String> = tensors
        .map(|file| format!("{}  {}\n", file.digest, file.name))
        .collect();
    lines.sort();
    Digest::of(lines.concat().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use recycle::meta_train::Start;

    #[test]
    fn a_recipe_file_of_an_earlier_version_is_read_and_one_of_another_format_is_refused() {
        let text = include_str!("../../../assets/signs-and-shapes/recipe.json");
        assert!(text.contains("\"factors\": null"), "of an earlier version"); // old spelling
        let mut file: RecipeFile = serde_json::from_str(text).expect("a recipe file");
        assert!(file.check().is_ok());
        assert_eq!(file.meta_training.start, Start::Merge { scale: None });
        assert_eq!(file.meta_training.merge_coefficients, None);
        file.version += 1;
        assert!(file.check().is_err());
    }
}
