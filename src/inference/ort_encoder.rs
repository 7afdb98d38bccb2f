//! The encoder on ONNX Runtime.

use super::encoder::{
    EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs, common_image_size,
};
use super::ort_library::{ORT_VERSION, load_ort_library};
use crate::backbone::onnx::{GRAPH_VERSION, Operators, export};
use crate::backbone::{Backbone, hex};
use crate::tensor::Tensor;
use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{OutputSelector, RunOptions, Session};
use ort::value::TensorRef;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where ONNX Runtime computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Device {
    /// CUDA where it works, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// CUDA, or an error that says why not.
    Cuda,
}

/// How an [`OrtEncoder`] is opened.
#[derive(Debug, Clone, Default)]
pub struct OrtOptions {
    /// Threads of one computation; 0 takes one a core.
    pub threads: usize,
    pub device: Device,
    /// Folder for exported graphs; without one they are made anew in memory.
    pub cache_folder: Option<PathBuf>,
}

/// Runs a backbone through ONNX Runtime, one session an image size.
pub struct OrtEncoder {
    environment: Environment,
    backbone: Arc<Backbone>,
    options: OrtOptions,
    device: &'static str,
    sessions: HashMap<usize, Session>,
}

impl OrtEncoder {
    /// Opens the backbone and prepares the session for its own image size.
    ///
    /// # Errors
    /// [`EncodeError::Engine`] where the library, the device or the graph cannot be used.
    pub fn open(backbone: Arc<Backbone>, options: OrtOptions) -> Result<Self, EncodeError> {
        let environment = load_ort_library().map_err(engine)?;
        let cuda = match options.device {
            Device::Cpu => false,
            Device::Auto | Device::Cuda => ep::CUDA::is_available().unwrap_or(false),
        };
        if options.device == Device::Cuda && !cuda {
            return Err(EncodeError::Engine(
                "this ONNX Runtime has no CUDA execution provider. Set ORT_DYLIB_PATH to the library of onnxruntime-gpu, or use --device cpu".into(),
            ));
        }
        let image_size = backbone.image_size();
        let mut encoder = Self {
            environment,
            backbone,
            options,
            device: if cuda { "cuda" } else { "cpu" },
            sessions: HashMap::new(),
        };
        let prepared = encoder.prepare(image_size);
        if prepared.is_err() && cuda && encoder.options.device == Device::Auto {
            tracing::warn!(error = ?prepared.err(), "CUDA is present but does not work, the CPU is used");
            encoder.device = "cpu";
            encoder.prepare(image_size)?;
        } else {
            prepared?;
        }
        Ok(encoder)
    }

    fn prepare(&mut self, image_size: usize) -> Result<(), EncodeError> {
        if !self.sessions.contains_key(&image_size) {
            let session = self.open_session(image_size)?;
            self.sessions.insert(image_size, session);
        }
        Ok(())
    }

    fn open_session(&self, image_size: usize) -> Result<Session, EncodeError> {
        let Some(folder) = &self.options.cache_folder else {
            return self.session_from(&self.graph(image_size)?);
        };
        let path = folder.join(format!("{}-{image_size}.onnx", cache_key(&self.backbone)));
        if let Ok(bytes) = std::fs::read(&path) {
            match self.session_from(&bytes) {
                Ok(session) => return Ok(session),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a cached graph is unusable and is made anew");
                }
            }
        }
        let bytes = self.graph(image_size)?;
        if let Err(error) = write_atomically(&path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "the graph could not be cached; the next start will be slower");
        }
        self.session_from(&bytes)
    }

    fn graph(&self, image_size: usize) -> Result<Vec<u8>, EncodeError> {
        export(&self.backbone, image_size, Operators::OnnxRuntime)
            .map_err(|error| EncodeError::BadInput(error.to_string()))
    }

    fn session_from(&self, model: &[u8]) -> Result<Session, EncodeError> {
        let mut builder = Session::builder(&self.environment)
            .map_err(engine)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(engine)?
            .with_intra_threads(self.options.threads)
            .map_err(engine)?;
        if self.device == "cuda" {
            builder = builder
                .with_execution_providers([ep::CUDA::default().build().error_on_failure()])
                .map_err(engine)?;
        }
        builder.commit_from_memory(model).map_err(engine)
    }
}

impl Encoder for OrtEncoder {
    fn info(&self) -> EncoderInfo {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        EncoderInfo {
            engine: "onnxruntime".into(),
            device: self.device.into(),
            version: ORT_VERSION.into(),
            threads: if self.options.threads == 0 {
                cores
            } else {
                self.options.threads
            },
        }
    }

    fn encode(
        &mut self,
        rows: &[EncodeRow],
        outputs: Outputs,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let Some(image_size) = common_image_size(rows)? else {
            return Ok(Vec::new());
        };
        if rows.iter().any(|row| row.adapter.is_some()) {
            return Err(EncodeError::BadInput(
                "this encoder serves the bare backbone only".into(),
            ));
        }
        self.prepare(image_size)?;
        let Some(session) = self.sessions.get_mut(&image_size) else {
            return Err(EncodeError::Stopped);
        };
        let mut pixels = Vec::with_capacity(rows.len() * 3 * image_size * image_size);
        for row in rows {
            pixels.extend_from_slice(row.pixels.data());
        }
        let shape = [rows.len(), 3, image_size, image_size];
        let input = TensorRef::from_array_view((shape, pixels.as_slice())).map_err(engine)?;
        let mut selected = OutputSelector::no_default()
            .with("feature")
            .with("cls_attention");
        if outputs.last_hidden_state {
            selected = selected.with("last_hidden_state");
        }
        let options = RunOptions::new().map_err(engine)?.with_outputs(selected);
        let answer = session
            .run_with_options(ort::inputs!["pixels" => input], &options)
            .map_err(engine)?;
        let matrix = |name: &str| -> Result<Tensor, EncodeError> {
            let (shape, values) = answer[name].try_extract_tensor::<f32>().map_err(engine)?;
            let shape: Vec<usize> = shape.iter().map(|&axis| axis as usize).collect();
            Tensor::new(shape, values.to_vec()).map_err(engine)
        };
        let features = matrix("feature")?;
        let attention = matrix("cls_attention")?;
        let hidden = outputs
            .last_hidden_state
            .then(|| matrix("last_hidden_state"))
            .transpose()?;
        (0..rows.len())
            .map(|row| Encoded::of_row(row, &features, &attention, hidden.as_ref()))
            .collect()
    }
}

fn engine(error: impl std::fmt::Display) -> EncodeError {
    EncodeError::Engine(error.to_string())
}

/// Names a cached graph: everything that it is made from.
fn cache_key(backbone: &Backbone) -> String {
    let mut hasher = Sha256::new();
    hasher.update(backbone.digest.as_bytes());
    hasher.update(format!("{:?} {GRAPH_VERSION}", backbone.config).as_bytes());
    hex(&hasher.finalize()[..16])
}

fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
