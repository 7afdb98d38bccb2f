//! What the OpenAPI document says that no type says by itself: the shapes of forms and of files.

use crate::jobs::JobRequest;
use std::borrow::Cow;
use std::marker::PhantomData;
use utoipa::openapi::schema::{
    Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, SchemaFormat, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Bytes of a file, in a form or as an answer.
pub struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        file().into()
    }
}

impl ToSchema for Binary {}

fn file() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .build()
}

fn list_of(items: Object, description: &str) -> Array {
    ArrayBuilder::new()
        .items(items)
        .description(Some(description))
        .build()
}

/// The parts of a form.
#[derive(Default)]
pub struct FormSchema(ObjectBuilder);

impl FormSchema {
    /// A part with a file that may be given any number of times.
    pub fn files(self, name: &str, description: &str) -> Self {
        Self(self.0.property(name, list_of(file(), description)))
    }

    /// A part with a file that is given once.
    pub fn file(self, name: &str, description: &str) -> Self {
        let mut file = file();
        file.description = Some(description.to_owned());
        Self(self.0.property(name, file))
    }

    /// A part with text that may be given any number of times.
    pub fn texts(self, name: &str, description: &str) -> Self {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        Self(self.0.property(name, list_of(text, description)))
    }

    /// The schema, with these parts needed.
    pub fn required<const COUNT: usize>(self, names: [&str; COUNT]) -> RefOr<Schema> {
        let whole = names.iter().fold(self.0, |form, name| form.required(*name));
        whole.into()
    }
}

/// A form with labelled pictures, of which `pictures` says what they are.
pub fn labelled_form(pictures: &str) -> FormSchema {
    FormSchema::default()
        .files("support", &format!("{pictures} {SUPPORT_PARTS}"))
        .texts("label", LABEL_PARTS)
}

const SUPPORT_PARTS: &str =
    "The part may be given any number of times, each time with a part `label`.";
const LABEL_PARTS: &str =
    "The labels of the parts `support`, in the same order: any text of 1 to 256 bytes.";

/// The request `R` as a form: a part for each field, with files as they are and labelled pictures as parts `support` and `label`.
pub struct FormOf<R>(PhantomData<R>);

impl<R: JobRequest + ToSchema> PartialSchema for FormOf<R> {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut form)) = R::schema() else {
            return R::schema();
        };
        form.description = Some(
            "The same as a form. Lists are JSON, or a part for each entry; recipes are JSON."
                .into(),
        );
        for property in form.properties.values_mut() {
            if let RefOr::T(Schema::Object(object)) = property
                && object.content_encoding == "base64"
            {
                let description = object.description.take();
                *object = file();
                object.description = description;
            }
        }
        if form.properties.remove("pictures").is_some() {
            let support = list_of(file(), &format!("Labelled image files. {SUPPORT_PARTS}"));
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            let label = list_of(text, LABEL_PARTS);
            let properties = &mut form.properties;
            properties.insert("support".into(), RefOr::T(support.into()));
            properties.insert("label".into(), RefOr::T(label.into()));
        }
        RefOr::T(Schema::Object(form))
    }
}

impl<R: JobRequest + ToSchema> ToSchema for FormOf<R> {
    fn name() -> Cow<'static, str> {
        match R::name().strip_suffix("Request") {
            Some(name) => format!("{name}Form").into(),
            None => format!("{}Form", R::name()).into(),
        }
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        R::schemas(schemas);
    }
}
