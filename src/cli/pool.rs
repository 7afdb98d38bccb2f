//! `pool`: the synthetic images of adapters.

use super::CliError;
use super::options::{Common, block_on, print_json, print_line};
use super::pool_quality::QualityOptions;
use crate::jobs::FailedInversion;
use crate::jobs::pool::PoolSummary;
use clap::{Args, Subcommand};
use model::adapter::NamedFile;
use model::image_input::{Levels, encode_png};
use recycle::pool::Pool;
use serde::Serialize;
use std::path::{Path, PathBuf};
use store::{JobFault, PoolRecord, Store, StoreError};

#[derive(Debug, Subcommand)]
#[command(after_help = "A pool is named by its id, or by the start of it.

Examples:
  lora-recycle pool list
  lora-recycle pool sheet 0192f3c4 --out sheet.png
  lora-recycle pool export 0192f3c4 --out folder
  lora-recycle pool quality 0192f3c4 0192f3c5 --real pictures/
  lora-recycle pool rm 0192f3c4")]
pub enum PoolCommand {
    /// List pools, newest first
    List,
    /// Show one pool
    Show(Which),
    /// Write all images as one picture, a row a class
    Sheet(Written),
    /// Write the pool's files into a folder
    Export(Written),
    /// Measure images: how varied, how hard, how near to real ones; which adapters are alike, what each adds
    Quality(Quality),
    /// Delete a pool for good
    Rm(Which),
}

#[derive(Debug, Args)]
pub struct Quality {
    /// Ids of pools, or the starts of them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    options: QualityOptions,
}

#[derive(Debug, Args)]
pub struct Which {
    /// Id of the pool, or the start of it
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
pub struct Written {
    #[command(flatten)]
    which: Which,
    /// Where to write
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

impl PoolCommand {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        block_on(async {
            match self {
                Self::List => list(common).await,
                Self::Show(which) => show(common, &which.find(&reader(common).await?).await?),
                Self::Sheet(written) => sheet(common, written).await,
                Self::Export(written) => export(common, written).await,
                Self::Quality(quality) => measure(common, quality).await,
                Self::Rm(which) => remove(common, which).await,
            }
        })?
    }
}

async fn reader(common: &Common) -> Result<Store, CliError> {
    match common.read_registry_if_there().await? {
        Some(registry) => Ok(registry.store().clone()),
        None => Err(StoreError::NoDatabase {
            folder: common.data_folder()?,
        }
        .into()),
    }
}

impl Which {
    async fn find(&self, store: &Store) -> Result<PoolRecord, CliError> {
        find(&self.id, store).await
    }
}

async fn find(id: &str, store: &Store) -> Result<PoolRecord, CliError> {
    let mut found = store.list_pools(None).await?;
    let wanted = id.to_ascii_lowercase();
    found.retain(|pool| !wanted.is_empty() && pool.id.to_string().starts_with(&wanted));
    match found.pop() {
        Some(only) if found.is_empty() => Ok(only),
        Some(_) => Err(CliError::user(format!(
            "the ids of {} pools start with \"{}\"",
            found.len() + 1,
            id
        ))
        .hint("write more of the id")),
        None => Err(CliError::user(format!("there is no pool \"{id}\""))
            .hint("`lora-recycle pool list` shows what there is")),
    }
}

async fn measure(common: &Common, quality: &Quality) -> Result<(), CliError> {
    let store = reader(common).await?;
    let mut pools = Vec::with_capacity(quality.ids.len());
    for id in &quality.ids {
        pools.push(find(id, &store).await?);
    }
    let app = common.open_app().await?;
    quality.options.run(common, &app, &pools).await
}

fn summary(pool: &PoolRecord) -> Result<PoolSummary, CliError> {
    serde_json::from_value(pool.summary.clone())
        .map_err(|error| CliError::internal(format!("the summary of pool {}: {error}", pool.id)))
}

/// A pool, with why its images should not be learned from where they should not.
#[derive(Serialize)]
struct Described<'a> {
    #[serde(flatten)]
    pool: &'a PoolRecord,
    failure: Option<JobFault>,
}

fn described(pool: &PoolRecord) -> Described<'_> {
    Described {
        pool,
        failure: FailedInversion::of(pool).map(|failed| failed.fault()),
    }
}

async fn list(common: &Common) -> Result<(), CliError> {
    let registry = common.read_registry_if_there().await?;
    let pools = match &registry {
        Some(registry) => registry.store().list_pools(None).await?,
        None => Vec::new(),
    };
    if common.json {
        return print_json(&pools.iter().map(described).collect::<Vec<_>>());
    }
    if pools.is_empty() {
        eprintln!("there is no pool; `lora-recycle invert ADAPTER` makes one");
    }
    pools.iter().try_for_each(|pool| {
        let PoolSummary {
            images, quality, ..
        } = summary(pool)?;
        let verdict = match FailedInversion::of(pool) {
            Some(_) => "\tfailed",
            None => "",
        };
        let bare = quality
            .bare_cross_entropy
            .map_or_else(|| "-".to_owned(), |bare| format!("{bare:.2}"));
        print_line(&format!(
            "{}\t{}\t{images} images\tteacher accuracy {:.1} %\tbare cross-entropy {bare}{verdict}",
            pool.id,
            pool.adapter_label,
            100.0 * quality.teacher_accuracy,
        ))
    })
}

fn show(common: &Common, pool: &PoolRecord) -> Result<(), CliError> {
    if common.json {
        return print_json(&described(pool));
    }
    let own = summary(pool)?;
    print_line(&format!("id\t{}", pool.id))?;
    print_line(&format!("adapter\t{}", pool.adapter_label))?;
    print_line(&format!(
        "images\t{} of {} × {} pixels, {} steps",
        own.images, own.image_size, own.image_size, own.steps_done
    ))?;
    if let Some(JobFault { message, hint, .. }) = FailedInversion::of(pool).map(|own| own.fault()) {
        print_line(&format!("failure\t{message}"))?;
        print_line(&format!("hint\t{}", hint.unwrap_or_default()))?;
    }
    print_line(&format!("retention\t{}", pool.retention.as_str()))?;
    for class in &own.quality.classes {
        print_line(&format!(
            "class\t{}\t{} images\tteacher accuracy {:.1} %\tconfidence {:.1} %",
            class.label,
            class.images,
            100.0 * class.teacher_accuracy,
            100.0 * class.teacher_confidence
        ))?;
    }
    print_line(&format!("recipe\t{}", pool.recipe))
}

/// All files of a pool, read and checked.
async fn read(store: &Store, record: &PoolRecord) -> Result<(Vec<NamedFile>, Pool), CliError> {
    let mut files = Vec::with_capacity(record.files.len());
    for file in &record.files {
        let bytes = store.read_pool_file(record, &file.name).await?;
        files.push(NamedFile::new(file.name.clone(), bytes));
    }
    let pool = Pool::from_files(&files).map_err(|error| {
        CliError::user(error.to_string()).hint("delete the pool and make it anew")
    })?;
    Ok((files, pool))
}

async fn sheet(common: &Common, written: &Written) -> Result<(), CliError> {
    let store = reader(common).await?;
    let record = written.which.find(&store).await?;
    let (_, pool) = read(&store, &record).await?;
    let png = encode_png(&contact_sheet(&pool)).map_err(CliError::internal)?;
    write(&written.out, &png)?;
    print_line(&written.out.display().to_string())
}

/// Pixels between two images of a sheet.
const GAP: usize = 2;

/// A row a class, on white.
fn contact_sheet(pool: &Pool) -> Levels {
    let side = pool.manifest().image_size;
    let classes = pool.classes().count();
    let mut places = vec![0; classes];
    let mut columns = 0;
    let positions: Vec<(usize, usize)> = pool
        .labels()
        .iter()
        .map(|&label| {
            let row = label as usize;
            let column = places[row];
            places[row] += 1;
            columns = columns.max(places[row]);
            (row, column)
        })
        .collect();
    let step = side + GAP;
    let (height, width) = (classes * step - GAP, (columns * step).saturating_sub(GAP));
    let mut planes = vec![255; 3 * height * width];
    let images = pool.images().chunks_exact(3 * side * side);
    for (image, (row, column)) in images.zip(positions) {
        for (line, levels) in image.chunks_exact(side).enumerate() {
            let (channel, y) = (line / side, row * step + line % side);
            let start = (channel * height + y) * width + column * step;
            planes[start..start + side].copy_from_slice(levels);
        }
    }
    Levels {
        height,
        width,
        planes,
    }
}

async fn export(common: &Common, written: &Written) -> Result<(), CliError> {
    let store = reader(common).await?;
    let record = written.which.find(&store).await?;
    let (files, _) = read(&store, &record).await?;
    let out = &written.out;
    std::fs::create_dir(out).map_err(|error| {
        CliError::user(format!("{}: {error}", out.display()))
            .hint("name a folder that is not there yet")
    })?;
    for file in files {
        write(&out.join(file.path), &file.bytes)?;
    }
    print_line(&out.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    std::fs::write(path, bytes)
        .map_err(|error| CliError::user(format!("{}: {error}", path.display())))
}

async fn remove(common: &Common, which: &Which) -> Result<(), CliError> {
    let registry = match common.open_registry().await? {
        Ok(registry) => registry,
        Err(error) => {
            return Err(CliError::user(error.to_string())
                .hint("stop the server, or delete the pool on its page /admin/pools"));
        }
    };
    let store = registry.store();
    let pool = which.find(store).await?;
    let freed = store.delete_pool(pool.id).await?;
    if common.json {
        return print_json(&serde_json::json!({"id": pool.id, "freed_bytes": freed.bytes}));
    }
    print_line(&format!(
        "deleted\t{}\t{} bytes freed",
        pool.id, freed.bytes
    ))
}
