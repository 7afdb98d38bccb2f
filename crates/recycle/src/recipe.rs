//! What all recipes share: how they are read from JSON over a preset, and how a bad one is refused.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

/// A recipe that cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum RecipeError {
    #[error("the recipe is not a JSON object with known fields: {0}")]
    Json(String),
    #[error("the preset \"{found}\" is not known; known are {known}")]
    Preset { found: String, known: String },
    /// Everything that is wrong, one sentence each.
    #[error("the recipe cannot be used: {}", .0.join("; "))]
    Problems(Vec<String>),
}

/// A recipe with a name.
pub struct Preset<R> {
    /// Stable name, as requests and files write it.
    pub name: &'static str,
    /// Names of earlier versions: still read, no longer shown.
    pub old_names: &'static [&'static str],
    /// Makes the recipe.
    pub recipe: fn() -> R,
}

impl<R> Preset<R> {
    /// A preset that never had another name.
    pub const fn new(name: &'static str, recipe: fn() -> R) -> Self {
        Self {
            name,
            old_names: &[],
            recipe,
        }
    }

    /// Whether this is its name, or was.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.old_names.contains(&name)
    }
}

/// Reads a recipe: the fields of `json` laid over the preset that its field `preset` names, else over the first one.
///
/// # Errors
/// [`RecipeError`] for an unknown preset or field, or a value of another type.
pub(super) fn read<R: Serialize + DeserializeOwned>(
    json: &Value,
    presets: &[Preset<R>],
) -> Result<R, RecipeError> {
    let fail = |error: serde_json::Error| RecipeError::Json(error.to_string());
    let mut fields: Map<String, Value> = serde_json::from_value(json.clone()).map_err(fail)?;
    let preset = match fields.remove("preset") {
        None => presets.first(),
        Some(name) => {
            let name = name.as_str().unwrap_or_default();
            presets.iter().find(|known| known.is_called(name))
        }
    };
    let Some(preset) = preset else {
        let names: Vec<&str> = presets.iter().map(|preset| preset.name).collect();
        return Err(RecipeError::Preset {
            found: json["preset"].as_str().unwrap_or("?").to_owned(),
            known: names.join(", "),
        });
    };
    let Value::Object(mut whole) = serde_json::to_value((preset.recipe)()).map_err(fail)? else {
        return Err(RecipeError::Json("a preset is not an object".into()));
    };
    whole.extend(fields);
    serde_json::from_value(Value::Object(whole)).map_err(fail)
}

/// Collects what is wrong with a recipe.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub fn check(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.0.push(problem());
        }
    }

    /// `value` is a finite number above zero.
    pub fn positive(&mut self, name: &str, value: f64) {
        self.check(value.is_finite() && value > 0.0, || {
            format!("{name} is {value}; it must be above 0")
        });
    }

    /// `value` lies in `range`, which `says` puts into words.
    pub fn within(&mut self, name: &str, value: f64, holds: bool, says: &str) {
        self.check(value.is_finite() && holds, || {
            format!("{name} is {value}; it must be {says}")
        });
    }

    pub fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    pub fn finish(self) -> Result<(), RecipeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RecipeError::Problems(self.0))
        }
    }
}
