//! `classifier`: classifiers that stay, alone or beside a running server.

mod carry;
mod check;
mod place;
mod set;

use super::adapter::{ask_to_delete, size};
use super::images::{class_folders, expand, read};
use super::options::{Common, block_on, print_json, print_line};
use super::{CliError, word};
use crate::app::classifiers::NewExample;
use clap::{Args, Subcommand};
use place::{Added, Place, Sentence};
use serde_json::json;
use std::path::{Path, PathBuf};
use store::{ClassifierFilter, ClassifierRecord, PictureFilter, Privacy, Store, StoreError};
use uuid::Uuid;

pub use place::find;

/// Pictures and bytes that are added as one change; also what one request to a server carries.
const MOST_AT_ONCE: usize = 500;
const MOST_BYTES_AT_ONCE: usize = 64 << 20;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "A classifier is named by its name, or by its id where several have the name. Where a server holds the data folder,
it makes the changes.

Examples:
  lora-recycle classifier create Trees trees/        each sub-folder of trees/ is a class
  lora-recycle classify --classifier Trees new.jpg
  lora-recycle classifier move Trees IMG_12.jpg --to Ash
  lora-recycle classifier undo Trees"
)]
pub enum ClassifierCommand {
    /// Make a classifier of a folder whose sub-folders are the classes
    Create(Create),
    /// List classifiers, newest first
    List,
    /// Show a classifier with its classes, and with --pictures what is in them
    Show(Show),
    /// Add pictures to a classifier
    Add(Add),
    /// Move pictures to another class
    Move(Move),
    /// Delete a classifier, a class or pictures
    Rm(Remove),
    /// Say how good a classifier is by its own examples, and what would make it better
    Check(check::Check),
    /// Change the name of a classifier, the adapter that it sees through, or how it answers
    Set(set::Set),
    /// Take back the last change
    Undo(Undo),
    /// Write a classifier as a file, for another installation or for other programs
    Export(carry::Export),
    /// Read a classifier that another installation exported
    Import(carry::Import),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier create Trees trees/
  lora-recycle classifier create Trees trees/ --adapter meta@champion
  lora-recycle classifier create Faces faces/ --privacy features     keep no pictures")]
pub struct Create {
    /// Name of the classifier
    name: String,
    /// Folder whose sub-folders are the classes
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Adapter that it sees through: name@alias follows the alias, name and name:version stay with that version, "none" is the bare
    /// backbone, and "auto" lets it choose what tells its examples apart best [default: the backbone's default adapter, whenever that moves]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// What is kept of its pictures: pictures, or only features and thumbnails; it then stays with its adapter
    #[arg(long, value_name = "WORD", default_value = "pictures", value_parser = word::<Privacy>)]
    privacy: Privacy,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier show Trees
  lora-recycle classifier show Trees --pictures")]
pub struct Show {
    /// The classifier
    name: String,
    /// List its pictures too
    #[arg(long)]
    pictures: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier add Trees more-trees/               each sub-folder is a class
  lora-recycle classifier add Trees --class Oak a.jpg b.jpg")]
pub struct Add {
    /// The classifier
    name: String,
    /// The class that all pictures are for; without it each sub-folder is a class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Folders with classes; with --class, pictures and folders of pictures
    #[arg(required = true, value_name = "DIR|IMAGE")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier move Trees IMG_12.jpg IMG_13.jpg --to Ash")]
pub struct Move {
    /// The classifier
    name: String,
    /// Pictures, by name or id
    #[arg(required = true, value_name = "PICTURE")]
    pictures: Vec<String>,
    /// The class that they go to
    #[arg(long, value_name = "CLASS")]
    to: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier rm Trees --picture IMG_12.jpg       an undo gives it back
  lora-recycle classifier rm Trees --class Oak                an undo gives it back
  lora-recycle classifier rm Trees                            all of it, for good")]
pub struct Remove {
    /// The classifier
    name: String,
    /// Delete this class with its pictures
    #[arg(long, value_name = "CLASS", conflicts_with = "pictures")]
    class: Option<String>,
    /// Delete this picture, by name or id; may be given several times
    #[arg(long = "picture", value_name = "PICTURE")]
    pictures: Vec<String>,
    /// Do not ask before a whole classifier is deleted
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle classifier undo Trees        called again, it takes back the change before")]
pub struct Undo {
    /// The classifier
    name: String,
}

impl ClassifierCommand {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        block_on(async {
            match self {
                Self::Create(create) => create.run(common).await,
                Self::List => list(common).await,
                Self::Show(show) => show.run(common).await,
                Self::Add(add) => add.run(common).await,
                Self::Move(own) => own.run(common).await,
                Self::Rm(remove) => remove.run(common).await,
                Self::Check(check) => check.run(common).await,
                Self::Set(set) => set.run(common).await,
                Self::Export(export) => export.run(common).await,
                Self::Import(import) => import.run(common).await,
                Self::Undo(undo) => {
                    change(common, &undo.name, async |place, id| place.undo(id).await).await
                }
            }
        })?
    }
}

/// A picture that is still to be read, and its class.
type ToRead = (String, PathBuf);

impl Create {
    async fn run(&self, common: &Common) -> Result<(), CliError> {
        let files = labelled(&self.folder)?;
        let place = Place::open(common).await?;
        let app = place.app(common).await?;
        let adapter = self.adapter.as_deref();
        let made = place.create(app.as_ref(), &self.name, adapter, self.privacy);
        let id = made.await?;
        let added = add_files(&place, app.as_ref(), id, files).await;
        if !matches!(&added, Ok(added) if added.new > 0) {
            // One without pictures is of no use to whoever named a folder.
            place.delete(id).await?;
        }
        finish_adding(common, place.store(), id, &added?).await
    }
}

impl Add {
    async fn run(&self, common: &Common) -> Result<(), CliError> {
        let files: Vec<ToRead> = match &self.class {
            Some(class) => {
                let paths = expand(&self.paths)?;
                paths
                    .into_iter()
                    .map(|path| (class.clone(), path))
                    .collect()
            }
            None => {
                let folders = self.paths.iter().map(|folder| labelled(folder));
                folders.collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        let place = Place::open(common).await?;
        let id = find(place.store(), &self.name).await?.id;
        let app = place.app(common).await?;
        let added = add_files(&place, app.as_ref(), id, files).await?;
        finish_adding(common, place.store(), id, &added).await
    }
}

fn labelled(folder: &Path) -> Result<Vec<ToRead>, CliError> {
    let classes = class_folders(folder)?;
    let files = classes.into_iter().flat_map(|(label, paths)| {
        let with_label = move |path| (label.clone(), path);
        paths.into_iter().map(with_label)
    });
    Ok(files.collect())
}

/// Reads and adds the files, as many at a time as one change takes.
async fn add_files(
    place: &Place,
    app: Option<&crate::app::App>,
    id: Uuid,
    files: Vec<ToRead>,
) -> Result<Added, CliError> {
    let mut added = Added::default();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    // All of them are undone at once.
    let group = Uuid::now_v7();
    for (label, path) in files {
        let image = match read(&path) {
            Ok(image) => image,
            Err(error) => {
                let reason = error.message().to_owned();
                added.refused.push((path.display().to_string(), reason));
                continue;
            }
        };
        if !chunk.is_empty()
            && (chunk.len() >= MOST_AT_ONCE || bytes + image.bytes.len() > MOST_BYTES_AT_ONCE)
        {
            place
                .add(app, id, std::mem::take(&mut chunk), group, &mut added)
                .await?;
            bytes = 0;
        }
        bytes += image.bytes.len();
        chunk.push(NewExample { label, image });
    }
    if !chunk.is_empty() {
        place.add(app, id, chunk, group, &mut added).await?;
    }
    Ok(added)
}

async fn finish_adding(
    common: &Common,
    store: &Store,
    id: Uuid,
    added: &Added,
) -> Result<(), CliError> {
    for (image, reason) in &added.refused {
        eprintln!("warning: {image}: {reason}");
    }
    if added.new + added.there_already == 0 {
        return Err(CliError::user("none of the pictures could be used"));
    }
    let record = store.classifier(id).await?;
    if common.json {
        return print_json(&json!({
            "classifier": record,
            "added": added.new,
            "there_already": added.there_already,
            "refused": added.refused.iter().map(|(image, reason)| json!({"image": image, "message": reason})).collect::<Vec<_>>(),
        }));
    }
    print_line(&format!(
        "{}: added {} pictures, {} were there already, {} left out; now {}",
        record.name,
        added.new,
        added.there_already,
        added.refused.len(),
        contents(&record)
    ))
}

fn contents(record: &ClassifierRecord) -> String {
    format!(
        "{} classes, {} pictures, {}",
        record.classes,
        record.pictures,
        size(record.stored_bytes)
    )
}

/// Makes one change to the classifier `name` and says what it was.
async fn change(
    common: &Common,
    name: &str,
    work: impl AsyncFnOnce(&Place, Uuid) -> Result<Sentence, CliError>,
) -> Result<(), CliError> {
    let place = Place::open(common).await?;
    let id = find(place.store(), name).await?.id;
    let sentence = work(&place, id).await?;
    if common.json {
        let record = place.store().classifier(id).await?;
        return print_json(&json!({"revision": record.revision, "change": sentence}));
    }
    match sentence {
        Some(sentence) => print_line(&sentence),
        None => {
            eprintln!("there was nothing to change");
            Ok(())
        }
    }
}

impl Move {
    async fn run(&self, common: &Common) -> Result<(), CliError> {
        change(common, &self.name, async |place, id| {
            let to = place::find_class(place.store(), id, &self.to).await?.id;
            let pictures = pictures(place.store(), id, &self.pictures).await?;
            place.move_pictures(id, &pictures, to).await
        })
        .await
    }
}

impl Remove {
    async fn run(&self, common: &Common) -> Result<(), CliError> {
        if let Some(class) = &self.class {
            return change(common, &self.name, async |place, id| {
                let class = place::find_class(place.store(), id, class).await?;
                place.delete_class(id, class.id).await
            })
            .await;
        }
        if !self.pictures.is_empty() {
            return change(common, &self.name, async |place, id| {
                let pictures = pictures(place.store(), id, &self.pictures).await?;
                place.delete_pictures(id, &pictures).await
            })
            .await;
        }
        let place = Place::open(common).await?;
        let record = find(place.store(), &self.name).await?;
        let label = format!("{} ({})", record.name, contents(&record));
        ask_to_delete(&[label], self.yes)?;
        let freed_bytes = place.delete(record.id).await?;
        if common.json {
            return print_json(&json!({ "freed_bytes": freed_bytes }));
        }
        print_line(&format!("freed {}", size(freed_bytes)))
    }
}

/// Ids of the pictures that `wanted` names, each by its name or id.
async fn pictures(store: &Store, id: Uuid, wanted: &[String]) -> Result<Vec<Uuid>, CliError> {
    let all = store.list_pictures(id, &PictureFilter::default()).await?;
    let mut found = Vec::new();
    for text in wanted {
        let named = |picture: &&store::PictureRecord| {
            picture.name == *text || picture.id.to_string() == *text
        };
        let ids: Vec<Uuid> = all.iter().filter(named).map(|picture| picture.id).collect();
        match ids[..] {
            [only] => found.push(only),
            [] => {
                return Err(CliError::user(format!("there is no picture \"{text}\""))
                    .hint("`lora-recycle classifier show NAME --pictures` lists them"));
            }
            _ => {
                let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
                return Err(CliError::user(format!(
                    "{} pictures are called \"{text}\"",
                    ids.len()
                ))
                .hint(format!("name one by its id: {}", ids.join(", "))));
            }
        }
    }
    Ok(found)
}

async fn list(common: &Common) -> Result<(), CliError> {
    let registry = common.read_registry_if_there().await?;
    let records = match &registry {
        Some(registry) => {
            let all = ClassifierFilter::default();
            registry.store().list_classifiers(&all).await?
        }
        None => Vec::new(),
    };
    if common.json {
        return print_json(&records);
    }
    if records.is_empty() {
        eprintln!("there are no classifiers; `lora-recycle classifier create NAME DIR` makes one");
    }
    records.iter().try_for_each(|record| {
        print_line(&format!(
            "{}\t{}\t{}",
            record.name,
            record.id,
            contents(record)
        ))
    })
}

impl Show {
    async fn run(&self, common: &Common) -> Result<(), CliError> {
        let Some(registry) = common.read_registry_if_there().await? else {
            let folder = common.data_folder()?;
            return Err(StoreError::NoDatabase { folder }.into());
        };
        let store = registry.store();
        let record = find(store, &self.name).await?;
        let classes = store.classes(record.id).await?;
        let pictures = match self.pictures {
            true => {
                let all = PictureFilter::default();
                store.list_pictures(record.id, &all).await?
            }
            false => Vec::new(),
        };
        if common.json {
            return print_json(&json!({
                "classifier": record,
                "classes": classes,
                "pictures": self.pictures.then_some(pictures),
            }));
        }
        print_line(&format!(
            "{}\t{}\t{}",
            record.name,
            record.id,
            contents(&record)
        ))?;
        for class in classes {
            print_line(&format!("{}\t{}", class.name, class.pictures))?;
            for picture in pictures.iter().filter(|picture| picture.class == class.id) {
                print_line(&format!("  {}\t{}", picture.name, picture.id))?;
            }
        }
        Ok(())
    }
}
