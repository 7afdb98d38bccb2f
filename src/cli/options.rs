//! Options that every command takes.

use super::CliError;
use crate::app::registry::{Registry, RegistryError, Shipped, WhenNew};
use crate::app::{App, AppOptions};
use crate::inference::{Device, EncoderChoice, EncoderInfo};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use model::backbone::EMBEDDED_NAME;
use model::image_input::ImageLimits;
use recycle::episode::EpisodeShape;
use serde::Serialize;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Options of every command; each is also an environment variable and a key of the configuration file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Folder for everything that is kept [default: ~/.local/share/lora-recycle]
    #[arg(long, global = true, value_name = "DIR", env = "LORA_RECYCLE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// TOML file with defaults for these options [default: ~/.config/lora-recycle/config.toml, if there]
    #[arg(long, global = true, value_name = "FILE", env = "LORA_RECYCLE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of a backbone, or a folder with a Hugging Face vision transformer
    #[arg(long, global = true, value_name = "NAME|DIR", env = "LORA_RECYCLE_BACKBONE", default_value = EMBEDDED_NAME)]
    pub backbone: String,
    /// Side of the square image that the backbone sees; more is slower and finer [default: the backbone's]
    #[arg(
        long,
        global = true,
        value_name = "PIXELS",
        env = "LORA_RECYCLE_IMAGE_SIZE"
    )]
    pub image_size: Option<usize>,
    /// Processor threads of one computation; 0 takes one per core
    #[arg(
        long,
        global = true,
        value_name = "N",
        env = "LORA_RECYCLE_THREADS",
        default_value_t = 0
    )]
    pub threads: usize,
    /// Where ONNX Runtime computes
    #[arg(
        long,
        global = true,
        env = "LORA_RECYCLE_DEVICE",
        value_enum,
        default_value_t
    )]
    pub device: Device,
    /// What computes features
    #[arg(
        long,
        global = true,
        env = "LORA_RECYCLE_ENCODER",
        value_enum,
        default_value_t
    )]
    pub encoder: EncoderChoice,
    /// What a new data folder begins with: the adapter that comes with the program
    #[arg(
        long,
        global = true,
        env = "LORA_RECYCLE_SHIPPED_ADAPTER",
        value_enum,
        default_value_t
    )]
    pub shipped_adapter: Shipped,
    /// Print machine-readable JSON on stdout
    #[arg(long, global = true, env = "LORA_RECYCLE_JSON")]
    pub json: bool,
    /// What to log on stderr, e.g. info or lora_recycle=debug
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "LORA_RECYCLE_LOG",
        default_value = "warn,lora_recycle=info"
    )]
    pub log: String,
}

/// What a few-shot task is made of besides its examples.
#[derive(Debug, Args)]
pub struct TaskShape {
    /// Classes in a task
    #[arg(long, env = "LORA_RECYCLE_WAY", default_value_t = 5)]
    way: usize,
    /// Pictures of each class to classify
    #[arg(long, env = "LORA_RECYCLE_QUERIES", default_value_t = 15)]
    queries: usize,
}

impl TaskShape {
    pub fn with_shot(&self, shot: usize) -> EpisodeShape {
        EpisodeShape {
            way: self.way,
            shot,
            queries: self.queries,
        }
    }
}

impl Common {
    /// The data folder, created by the first command that writes to it.
    ///
    /// # Errors
    /// Where none is given and the machine has no home folder.
    pub fn data_folder(&self) -> Result<PathBuf, CliError> {
        if let Some(folder) = &self.data_dir {
            return Ok(folder.clone());
        }
        home_folder("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
            CliError::user("there is no home folder to keep data in")
                .hint("give one with --data-dir DIR")
        })
    }

    /// Opens the registry for changes, alone; a new data folder is made.
    ///
    /// # Errors
    /// Outside where there is no data folder; inside where it cannot be opened.
    pub async fn open_registry(&self) -> Result<Result<Registry, RegistryError>, CliError> {
        let folder = self.data_folder()?;
        Ok(Registry::open_or_begin(&folder, self.shipped_adapter).await)
    }

    /// Opens the registry for reading; others may have it open.
    ///
    /// # Errors
    /// Where there is no data folder, or it is unusable.
    pub async fn read_registry(&self, when_new: WhenNew) -> Result<Registry, CliError> {
        let folder = self.data_folder()?;
        Ok(Registry::open_to_read(&folder, self.shipped_adapter, when_new).await?)
    }

    /// As [`Self::read_registry`]; `None` where there is no data folder yet.
    ///
    /// # Errors
    /// Where the data folder is unusable.
    pub async fn read_registry_if_there(&self) -> Result<Option<Registry>, CliError> {
        let folder = self.data_folder()?;
        Ok(Registry::open_existing(&folder, self.shipped_adapter).await?)
    }

    /// Opens the backbone and its encoder, and the registry for reading.
    ///
    /// # Errors
    /// Where one of them cannot be opened.
    pub async fn open_app(&self) -> Result<App, CliError> {
        let registry = self.read_registry(WhenNew::Begin).await?;
        self.open_app_with(registry).await
    }

    /// Opens the backbone and its encoder beside an open registry.
    ///
    /// # Errors
    /// Where the backbone is unknown or the encoder cannot start.
    pub async fn open_app_with(&self, registry: Registry) -> Result<App, CliError> {
        let options = AppOptions {
            backbone: self.backbone.clone(),
            image_size: self.image_size,
            data_folder: self.data_folder()?,
            threads: self.threads,
            device: self.device,
            encoder: self.encoder,
            limits: ImageLimits::default(),
        };
        Ok(App::open(&options, Some(registry)).await?)
    }

    /// Logs go to stderr, so that stdout carries data only.
    pub fn start_logging(&self) {
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log)
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,lora_recycle=info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
    }
}

/// `lora-recycle` in the folder that `variable` names, or in `fallback` under the home folder.
pub fn home_folder(variable: &str, fallback: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set(variable)
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(fallback)))
        .map(|folder| folder.join("lora-recycle"))
}

/// Prints `value` as one line of JSON on stdout.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(|error| {
        CliError::internal(format!("the result cannot be written as JSON: {error}"))
    })?;
    print_line(&text)
}

/// One answer of a list, with what has computed its features.
#[derive(Serialize)]
struct Told<'a, T> {
    #[serde(flatten)]
    answer: T,
    encoder: &'a EncoderInfo,
}

/// Prints `answers` as a list in JSON, each with the encoder.
pub fn print_answers<T: Serialize>(answers: &[T], encoder: &EncoderInfo) -> Result<(), CliError> {
    let told = |answer| Told { answer, encoder };
    print_json(&answers.iter().map(told).collect::<Vec<_>>())
}

/// Prints a line on stdout; a closed pipe ends the program quietly, as with other tools.
pub fn print_line(line: &str) -> Result<(), CliError> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CliError::user(format!("stdout cannot be written: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// A bar on stderr for work of several phases.
pub fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Shows on `bar` what is done, how much of it, and of how much; where stderr is not a terminal, a line when a phase begins.
pub fn show(bar: &ProgressBar, phase: &str, done: usize, total: usize) -> ControlFlow<()> {
    if bar.message() != phase {
        if bar.is_hidden() {
            eprintln!("{phase}");
        }
        bar.reset();
        bar.set_message(phase.to_owned());
    }
    bar.set_length(total as u64);
    bar.set_position(done as u64);
    ControlFlow::Continue(())
}

/// Runs asynchronous work to its end.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::internal(format!("no threads for the program: {error}")))?;
    Ok(runtime.block_on(work))
}
