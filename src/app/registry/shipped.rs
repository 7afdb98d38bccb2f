//! The meta-LoRA that comes with the program: what a new data folder begins with.

use super::{ImportOptions, Registry, RegistryError, StoredAdapter};
use clap::ValueEnum;
use model::adapter::{NamedFile, Package};
use model::backbone::EMBEDDED_DIGEST;
use serde::{Deserialize, Serialize};
use store::{AliasKey, Attribution, Name};

/// Its name in the registry, and in place of a path what `adapter import` calls it.
pub const SHIPPED_NAME: &str = "signs-and-shapes";
/// What stands for its path where an adapter is imported, and the tag that it bears in a new data folder.
pub const SHIPPED_WORD: &str = "shipped";

/// For people who look at it.
const NOTES: &str = "Comes with the program. Recycled from twenty adapters that were tuned on letters, with a damped effect: better at letters, signs \
                     and drawn shapes, no worse at clothes and photographs. docs/experiments/NOTEBOOK.md has the figures and the way it was made.";

const FILES: [(&str, &[u8]); 2] = [
    (
        "adapter_config.json",
        include_bytes!("../../../assets/signs-and-shapes/adapter_config.json"),
    ),
    (
        "adapter_model.safetensors",
        include_bytes!("../../../assets/signs-and-shapes/adapter_model.safetensors"),
    ),
];

/// What becomes of the meta-LoRA that comes with the program in a new data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Shipped {
    /// It answers where no other adapter is asked for.
    #[default]
    Default,
    /// It is there, and the bare backbone answers.
    Present,
    /// It is not there.
    None,
}

/// The files of the meta-LoRA that comes with the program.
pub fn shipped_package() -> Package {
    let files = FILES.map(|(name, bytes)| NamedFile::new(name, bytes.to_vec()));
    Package::of(files.to_vec())
}

impl Registry {
    /// Puts the meta-LoRA that comes with the program into a new registry.
    ///
    /// # Errors
    /// [`RegistryError`] of the store.
    pub(super) async fn begin_with(&self, shipped: Shipped) -> Result<(), RegistryError> {
        if shipped == Shipped::None {
            return Ok(());
        }
        let name: Name = SHIPPED_NAME.parse()?;
        let options = ImportOptions {
            tags: [SHIPPED_WORD.parse()?].into(),
            notes: NOTES.into(),
            ..ImportOptions::default()
        };
        let StoredAdapter { record, .. } = self.import(shipped_package(), name, options).await?;
        if shipped == Shipped::Default {
            let key = AliasKey::BackboneDefault(super::parse_digest(EMBEDDED_DIGEST)?);
            let by = Attribution {
                actor: "the program".into(),
                reason: "a new data folder begins with it".into(),
            };
            self.store().move_alias(&key, record.id, &by).await?;
        }
        Ok(())
    }
}
