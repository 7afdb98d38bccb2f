//! A recipe as it stands in a request: a preset, and fields laid over it.

use crate::inversion::InversionRecipe;
use crate::meta_train::MetaTrainRecipe;
use crate::recipe::{Preset, RecipeError};
use crate::tune::TuneRecipe;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A recipe that requests write as a preset and fields laid over it.
pub trait Recipe: Serialize + Default + 'static {
    /// The first stands where none is named, and is the default.
    const PRESETS: &'static [Preset<Self>];

    /// Reads a recipe from JSON over the preset that it names.
    ///
    /// # Errors
    /// [`RecipeError`] for an unknown preset or field, or a value of another type.
    fn from_json(json: &Value) -> Result<Self, RecipeError>;
}

impl Recipe for TuneRecipe {
    const PRESETS: &'static [Preset<Self>] = &[Preset::new("default", TuneRecipe::default)];

    fn from_json(json: &Value) -> Result<Self, RecipeError> {
        Self::from_json(json)
    }
}

impl Recipe for InversionRecipe {
    const PRESETS: &'static [Preset<Self>] = &InversionRecipe::PRESETS;

    fn from_json(json: &Value) -> Result<Self, RecipeError> {
        Self::from_json(json)
    }
}

impl Recipe for MetaTrainRecipe {
    const PRESETS: &'static [Preset<Self>] = &MetaTrainRecipe::PRESETS;

    fn from_json(json: &Value) -> Result<Self, RecipeError> {
        Self::from_json(json)
    }
}

/// A recipe as it stands in a request: `preset`, and any of its fields laid over that. It is written with all fields.
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

    /// As the recipe, with no field required, each with its default, and `preset` besides.
    impl<R: Recipe + ToSchema> PartialSchema for OverPreset<R> {
        fn schema() -> RefOr<Schema> {
            let RefOr::T(Schema::Object(mut object)) = R::schema() else {
                return R::schema();
            };
            object.required.clear();
            if let Ok(Value::Object(defaults)) = serde_json::to_value(R::default()) {
                for (name, default) in defaults {
                    if let Some(property) = object.properties.get_mut(&name) {
                        set_default(property, default);
                    }
                }
            }
            let names = R::PRESETS.iter().map(|preset| preset.name);
            let first = names.clone().next().unwrap_or_default();
            let preset = ObjectBuilder::new()
                .schema_type(Type::String)
                .description(Some("What stands in for the fields that are left out."))
                .enum_values(Some(names))
                .default(Some(first.into()));
            object.properties.insert("preset".into(), preset.into());
            object.description = Some(match R::PRESETS.len() {
                0 | 1 => "Every field may be left out.".to_owned(),
                _ => format!(
                    "Every field may be left out; the defaults are those of the preset `{first}`, unless `preset` names another."
                ),
            });
            RefOr::T(Schema::Object(object))
        }
    }

    /// Puts the default of a field beside its description. An object goes into words: many generators of clients have no place for it.
    fn set_default(property: &mut RefOr<Schema>, default: Value) {
        let words = match &default {
            Value::Object(_) => Some(format!(" By default `{default}`.")),
            _ => None,
        };
        let value = words.is_none().then_some(default);
        let add_to = |description: &mut Option<String>| {
            if let Some(words) = &words {
                let text = description.get_or_insert_default();
                text.push_str(words);
            }
        };
        match property {
            RefOr::Ref(reference) => {
                reference.default = value;
                reference.description += words.as_deref().unwrap_or_default();
            }
            RefOr::T(Schema::Object(object)) => {
                object.default = value;
                add_to(&mut object.description);
            }
            RefOr::T(Schema::Array(array)) => {
                array.default = value;
                add_to(&mut array.description);
            }
            RefOr::T(Schema::OneOf(choice)) => {
                choice.default = value;
                add_to(&mut choice.description);
            }
            RefOr::T(_) => {}
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
        for preset in R::PRESETS {
            let preset = json!({"preset": preset.name});
            let read: OverPreset<R> = serde_json::from_value(preset).unwrap();
            let written = json!(read);
            assert!(written.get("preset").is_none(), "{written}");
            assert_eq!(
                serde_json::from_value::<OverPreset<R>>(written).unwrap(),
                read
            );
        }
        let first = R::from_json(&json!({"preset": R::PRESETS[0].name})).unwrap();
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
