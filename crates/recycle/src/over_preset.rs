//! A recipe as it is written in a request: a preset, and fields that override those of the preset.

use crate::inversion::InversionRecipe;
use crate::meta_train::MetaTrainRecipe;
use crate::recipe::{Preset, RecipeError};
use crate::tune::TuneRecipe;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A recipe that requests write as a preset and fields laid over it.
pub trait Recipe: Serialize + Default + 'static {
    /// The presets; the first is the default.
    fn presets() -> &'static [Preset<Self>];

    /// Reads a recipe from JSON over the preset that it names.
    ///
    /// # Errors
    /// [`RecipeError`] for an unknown preset or field, or a value of another type.
    fn from_json(json: &Value) -> Result<Self, RecipeError>;
}

impl Recipe for TuneRecipe {
    fn presets() -> &'static [Preset<Self>] {
        &Self::PRESETS
    }

    fn from_json(json: &Value) -> Result<Self, RecipeError> {
        Self::from_json(json)
    }
}

impl Recipe for InversionRecipe {
    fn presets() -> &'static [Preset<Self>] {
        &Self::PRESETS
    }

    fn from_json(json: &Value) -> Result<Self, RecipeError> {
        Self::from_json(json)
    }
}

impl Recipe for MetaTrainRecipe {
    fn presets() -> &'static [Preset<Self>] {
        &Self::PRESETS
    }

    fn from_json(json: &Value) -> Result<Self, RecipeError> {
        Self::from_json(json)
    }
}

/// A recipe as it is written in a request: `preset`, and any of its fields instead of the preset's. It is written with all fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OverPreset<R>(pub R);

impl<R: Serialize> Serialize for OverPreset<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, R: Recipe> Deserialize<'de> for OverPreset<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self::default()),
            json => R::from_json(&json).map(Self).map_err(D::Error::custom),
        }
    }
}

#[cfg(feature = "openapi")]
mod document {
    use super::{OverPreset, Recipe};
    use serde_json::Value;
    use std::borrow::Cow;
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
    use utoipa::{PartialSchema, ToSchema};

    /// As the recipe, with no field required and `preset` besides.
    impl<R: Recipe + ToSchema> PartialSchema for OverPreset<R> {
        fn schema() -> RefOr<Schema> {
            let RefOr::T(Schema::Object(mut object)) = R::schema() else {
                return R::schema();
            };
            object.required.clear();
            let names = || R::presets().iter().map(|preset| preset.name);
            let preset = ObjectBuilder::new()
                .schema_type(Type::String)
                .description(Some("What the fields that are left out are taken from."))
                .enum_values(Some(names()))
                .default(names().next().map(Value::from));
            object.properties.insert("preset".into(), preset.into());
            let only = R::presets().len() == 1;
            let defaults = match only {
                true => "Every field may be left out.".to_owned(),
                false => format!(
                    "Every field may be left out; the defaults are those of the preset `{}`, unless `preset` names another.",
                    names().next().unwrap_or_default()
                ),
            };
            object.description = Some(defaults);
            RefOr::T(Schema::Object(object))
        }
    }

    impl<R: Recipe + ToSchema> ToSchema for OverPreset<R> {
        fn name() -> Cow<'static, str> {
            format!("{}Request", R::name()).into()
        }

        fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            R::schemas(schemas);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    fn check<R: Recipe + DeserializeOwned + PartialEq + std::fmt::Debug>() {
        for preset in R::presets() {
            let named = json!({"preset": preset.name});
            let read: OverPreset<R> = serde_json::from_value(named).unwrap();
            let written = json!(read);
            assert!(written.get("preset").is_none(), "{written}");
            assert_eq!(
                serde_json::from_value::<OverPreset<R>>(written).unwrap(),
                read
            );
        }
        let first = R::from_json(&json!({"preset": R::presets()[0].name})).unwrap();
        assert_eq!(first, R::default());
        assert_eq!(R::from_json(&json!({})).unwrap(), R::default());
        let null: OverPreset<R> = serde_json::from_value(Value::Null).unwrap();
        assert_eq!(null.0, R::default());
    }

    #[test]
    fn every_preset_is_read_by_its_name_and_comes_back_field_by_field() {
        check::<TuneRecipe>();
        check::<InversionRecipe>();
        check::<MetaTrainRecipe>();
    }
}
