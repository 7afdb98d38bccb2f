//! Where classifiers are changed: in this process, with the lock on the data folder, or through the server that holds it.

use crate::app::App;
use crate::app::classifiers::{AnsweringPatch, ClassifierToMake, NewExample};
use crate::app::registry::{Registry, RegistryError};
use crate::cli::CliError;
use crate::cli::jobs::{beside, receive, send};
use crate::cli::options::Common;
use crate::web::ClassifierFormat;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use store::{
    Author, Changed, ClassRecord, ClassifierFilter, ClassifierRecord, Privacy, Store, StoreError,
};
use uuid::Uuid;

/// Who changes things on the command line, as histories show it.
const ACTOR: &str = "command line";

/// The classifiers, in whichever way they can be reached for changes.
pub enum Place {
    /// This process holds the lock.
    Alone(Registry),
    /// A server holds the lock; reading bypasses it.
    Server {
        store: Store,
        /// Address of all classifiers.
        base: String,
    },
}

/// What came of adding pictures.
#[derive(Default)]
pub struct Added {
    pub new: usize,
    pub there_already: usize,
    /// Name and reason of each that could not be used.
    pub refused: Vec<(String, String)>,
}

/// What a change came to: a sentence, or nothing where nothing was to be changed.
pub type Sentence = Option<String>;

impl Place {
    /// Takes the lock, or finds the server that holds it.
    pub async fn open(common: &Common) -> Result<Self, CliError> {
        match common.open_registry().await? {
            Ok(registry) => Ok(Self::Alone(registry)),
            Err(RegistryError::Store(StoreError::InUse { holder, .. })) => {
                let (store, base) = beside(&common.data_folder()?, holder).await?;
                Ok(Self::Server {
                    store,
                    base: format!("{base}/classifiers"),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    pub fn store(&self) -> &Store {
        match self {
            Self::Alone(registry) => registry.store(),
            Self::Server { store, .. } => store,
        }
    }

    /// What encodes pictures here; a server has its own.
    pub async fn app(&self, common: &Common) -> Result<Option<App>, CliError> {
        match self {
            Self::Alone(registry) => Ok(Some(common.open_app_with(registry.clone()).await?)),
            Self::Server { .. } => Ok(None),
        }
    }

    pub async fn create(
        &self,
        app: Option<&App>,
        name: &str,
        adapter: Option<&str>,
        privacy: Privacy,
    ) -> Result<Uuid, CliError> {
        match (self, app) {
            (Self::Server { base, .. }, _) => {
                let body = json!({"name": name, "adapter": adapter, "privacy": privacy});
                let made: Value = send(reqwest::Client::new().post(base).json(&body)).await?;
                let id = made["id"].as_str().and_then(|id| id.parse().ok());
                id.ok_or_else(|| CliError::internal("the server's answer has no id"))
            }
            (Self::Alone(_), Some(app)) => {
                let make = ClassifierToMake {
                    id: None,
                    name: name.to_owned(),
                    adapter: adapter.map(str::to_owned),
                    privacy,
                };
                Ok(app.create_classifier(make, ACTOR).await?.id)
            }
            (Self::Alone(_), None) => Err(without_encoder()),
        }
    }

    /// Changes what `PATCH /classifiers/{id}` changes.
    pub async fn set(
        &self,
        app: Option<&App>,
        id: Uuid,
        name: Option<&str>,
        adapter: Option<Option<&str>>,
        answering: AnsweringPatch,
    ) -> Result<(), CliError> {
        match (self, app) {
            (Self::Server { base, .. }, _) => {
                let mut body = serde_json::Map::new();
                let mut put = |field: &str, value: Option<Value>| {
                    if let Some(value) = value {
                        body.insert(field.to_owned(), value);
                    }
                };
                put("name", name.map(Value::from));
                put("adapter", adapter.map(|name| json!(name)));
                put("head", answering.head.map(|head| json!(head)));
                put("reject", answering.reject.map(|share| json!(share)));
                let patch = reqwest::Client::new().patch(format!("{base}/{id}"));
                let _: Value = send(patch.json(&body)).await?;
                Ok(())
            }
            (Self::Alone(_), Some(app)) => {
                let name = name.map(str::to_owned);
                app.change_classifier(id, None, name, adapter, answering, ACTOR)
                    .await?;
                Ok(())
            }
            (Self::Alone(_), None) => Err(without_encoder()),
        }
    }

    /// What `GET /classifiers/{id}/check` answers.
    pub async fn check(&self, app: Option<&App>, id: Uuid) -> Result<Value, CliError> {
        match (self, app) {
            (Self::Server { base, .. }, _) => {
                send(reqwest::Client::new().get(format!("{base}/{id}/check"))).await
            }
            (Self::Alone(_), Some(app)) => {
                let check = app.check_classifier(id).await?;
                serde_json::to_value(check).map_err(|error| CliError::internal(error.to_string()))
            }
            (Self::Alone(_), None) => Err(without_encoder()),
        }
    }

    pub async fn add(
        &self,
        app: Option<&App>,
        id: Uuid,
        new: Vec<NewExample>,
        group: Uuid,
        added: &mut Added,
    ) -> Result<(), CliError> {
        match (self, app) {
            (Self::Server { base, .. }, _) => {
                let mut form = Form::new().percent_encode_noop();
                for NewExample { label, image } in new {
                    let plain = |c: char| if c.is_control() || c == '"' { '_' } else { c };
                    let name: String = image.name.chars().map(plain).collect();
                    form = form
                        .part("support", Part::bytes(image.bytes).file_name(name))
                        .text("label", label);
                }
                let address = format!("{base}/{id}/images?undo_group={group}");
                let post = reqwest::Client::new().post(address).multipart(form);
                let answer: Value = send(post).await?;
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                for image in answer["images"].as_array().into_iter().flatten() {
                    let fault = image["error"].get("message").map(text);
                    let is_new = image["is_new"] == true;
                    added.note(text(&image["image"]), is_new, fault);
                }
            }
            (Self::Alone(_), Some(app)) => {
                let by = Author {
                    group: Some(group),
                    ..ACTOR.into()
                };
                let done = app.add_examples(id, None, new, by).await?;
                for example in done.examples {
                    let is_new = example.result.as_ref().is_ok_and(|added| added.is_new);
                    let fault = example.result.err().map(|fault| fault.message);
                    added.note(example.image, is_new, fault);
                }
            }
            (Self::Alone(_), None) => return Err(without_encoder()),
        }
        Ok(())
    }

    pub async fn move_pictures(
        &self,
        id: Uuid,
        pictures: &[Uuid],
        to: Uuid,
    ) -> Result<Sentence, CliError> {
        match self {
            Self::Alone(registry) => {
                let store = registry.store();
                let moved = store.move_pictures(id, None, pictures, to, ACTOR).await?;
                Ok(sentence(moved))
            }
            Self::Server { base, .. } => {
                let address = format!("{base}/{id}/images");
                let body = json!({"images": pictures, "class": to});
                told(reqwest::Client::new().patch(address).json(&body)).await
            }
        }
    }

    pub async fn delete_pictures(&self, id: Uuid, pictures: &[Uuid]) -> Result<Sentence, CliError> {
        match self {
            Self::Alone(registry) => {
                let store = registry.store();
                let deleted = store.delete_pictures(id, None, pictures, ACTOR).await?;
                Ok(sentence(deleted))
            }
            Self::Server { base, .. } => {
                let address = format!("{base}/{id}/images");
                let body = json!({ "images": pictures });
                told(reqwest::Client::new().delete(address).json(&body)).await
            }
        }
    }

    pub async fn delete_class(&self, id: Uuid, class: Uuid) -> Result<Sentence, CliError> {
        match self {
            Self::Alone(registry) => {
                let deleted = registry.store().delete_class(id, None, class, ACTOR).await;
                Ok(sentence(deleted?))
            }
            Self::Server { base, .. } => {
                let address = format!("{base}/{id}/classes/{class}");
                told(reqwest::Client::new().delete(address)).await
            }
        }
    }

    pub async fn undo(&self, id: Uuid) -> Result<Sentence, CliError> {
        match self {
            Self::Alone(registry) => {
                let undone = registry.store().undo_classifier(id, None, ACTOR).await;
                Ok(sentence(undone?))
            }
            Self::Server { base, .. } => {
                told(reqwest::Client::new().post(format!("{base}/{id}/undo"))).await
            }
        }
    }

    /// The classifier `id` as the server packs it.
    pub async fn download(&self, id: Uuid, format: ClassifierFormat) -> Result<Vec<u8>, CliError> {
        match self {
            Self::Alone(_) => Err(without_encoder()),
            Self::Server { base, .. } => {
                let address = format!("{base}/{id}/export?format={}", format.as_str());
                receive(reqwest::Client::new().get(address)).await
            }
        }
    }

    /// Stores the classifier of a bundle and gives its id, and whether it answers with the same bits.
    pub async fn import(
        &self,
        app: Option<&App>,
        zip: Vec<u8>,
        name: Option<String>,
    ) -> Result<(Uuid, bool), CliError> {
        match (self, app) {
            (Self::Server { base, .. }, _) => {
                let file = Part::bytes(zip).file_name("classifier.zip");
                let address = reqwest::Url::parse(&format!("{base}/import"));
                let mut address = address.map_err(|error| CliError::internal(error.to_string()))?;
                if let Some(name) = name {
                    address.query_pairs_mut().append_pair("name", &name);
                }
                let post = reqwest::Client::new().post(address);
                let answer: Value = send(post.multipart(Form::new().part("file", file))).await?;
                let id = answer["id"].as_str().and_then(|id| id.parse().ok());
                let id = id.ok_or_else(|| CliError::internal("the server's answer has no id"))?;
                Ok((id, answer["is_exact"] == true))
            }
            (Self::Alone(_), Some(app)) => {
                let imported = app.import_classifier(zip, name, None, ACTOR).await?;
                Ok((imported.record.id, imported.is_exact))
            }
            (Self::Alone(_), None) => Err(without_encoder()),
        }
    }

    /// Bytes that were freed.
    pub async fn delete(&self, id: Uuid) -> Result<u64, CliError> {
        match self {
            Self::Alone(registry) => Ok(registry.store().delete_classifier(id, None).await?.bytes),
            Self::Server { base, .. } => {
                let delete = reqwest::Client::new().delete(format!("{base}/{id}"));
                let answer: Value = send(delete).await?;
                Ok(answer["freed_bytes"].as_u64().unwrap_or_default())
            }
        }
    }
}

impl Added {
    fn note(&mut self, image: String, is_new: bool, fault: Option<String>) {
        match fault {
            Some(fault) => self.refused.push((image, fault)),
            None if is_new => self.new += 1,
            None => self.there_already += 1,
        }
    }
}

fn without_encoder() -> CliError {
    CliError::internal("pictures need an encoder, and none was opened")
}

fn sentence(changed: Changed) -> Sentence {
    changed.change.map(|record| record.change.to_string())
}

async fn told(request: reqwest::RequestBuilder) -> Result<Sentence, CliError> {
    let answer: Value = send(request).await?;
    Ok(answer["change"]["summary"].as_str().map(str::to_owned))
}

/// The classifier that `text` names: by its name, or its id where several have the name.
pub async fn find(store: &Store, text: &str) -> Result<ClassifierRecord, CliError> {
    if let Ok(id) = text.parse::<Uuid>() {
        return Ok(store.classifier(id).await?);
    }
    let filter = ClassifierFilter {
        name: Some(text.to_owned()),
        ..ClassifierFilter::default()
    };
    let mut found = store.list_classifiers(&filter).await?;
    match found.pop() {
        Some(only) if found.is_empty() => Ok(only),
        Some(_) => Err(CliError::user(format!(
            "{} classifiers are called \"{text}\"",
            found.len() + 1
        ))
        .hint("name it by its id; `lora-recycle classifier list` shows them")),
        None => Err(CliError::user(format!("there is no classifier \"{text}\""))
            .hint("`lora-recycle classifier list` shows what there is")),
    }
}

/// The class of `id` called `text`, without regard to case.
pub async fn find_class(store: &Store, id: Uuid, text: &str) -> Result<ClassRecord, CliError> {
    let key = store::class_name_key(text)?;
    let classes = store.classes(id).await?;
    let mut names = Vec::new();
    for class in classes {
        if store::class_name_key(&class.name)? == key {
            return Ok(class);
        }
        names.push(class.name);
    }
    Err(CliError::user(format!("there is no class \"{text}\""))
        .hint(format!("its classes are {}", names.join(", "))))
}
