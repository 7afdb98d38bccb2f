//! The encoder on ONNX Runtime: adapters are inputs of the graph, so that one batch mixes them.

use super::adapter_slots::{AdaptedMaps, AdapterSlots, runs};
use super::encoder::{
    EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs, check_adapters,
    common_image_size,
};
use super::ort_library::{ORT_VERSION, load_ort_library};
use model::backbone::Backbone;
use model::backbone::onnx::{GRAPH_VERSION, Operators, SLOT_INPUT, export_with_adapters};
use model::digest::hex;
use model::tensor::Tensor;
use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
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
    /// The CPU, also where CUDA works.
    Cpu,
    /// CUDA, or an error that says why not.
    Cuda,
}

/// How an [`OrtEncoder`] is opened.
#[derive(Debug, Clone, Default)]
pub struct OrtOptions {
    /// Threads of one computation; 0 takes one per core.
    pub threads: usize,
    /// Where to compute.
    pub device: Device,
    /// Folder for exported graphs; without one they are made again in memory.
    pub cache_folder: Option<PathBuf>,
}

/// Runs a backbone through ONNX Runtime, one session per image size and set of adapted linear maps.
pub struct OrtEncoder {
    environment: Environment,
    backbone: Arc<Backbone>,
    options: OrtOptions,
    device: &'static str,
    sessions: HashMap<(usize, AdaptedMaps), Session>,
    slots: AdapterSlots,
}

impl OrtEncoder {
    /// Opens the backbone and prepares the session for the backbone's image size.
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
            slots: AdapterSlots::default(),
        };
        let prepared = encoder.prepare(image_size, AdaptedMaps::None);
        if prepared.is_err() && cuda && encoder.options.device == Device::Auto {
            tracing::warn!(error = ?prepared.err(), "CUDA is present but does not work, the CPU is used");
            encoder.device = "cpu";
            encoder.prepare(image_size, AdaptedMaps::None)?;
        } else {
            prepared?;
        }
        Ok(encoder)
    }

    fn prepare(&mut self, image_size: usize, maps: AdaptedMaps) -> Result<(), EncodeError> {
        if !self.sessions.contains_key(&(image_size, maps)) {
            let session = self.open_session(image_size, maps)?;
            self.sessions.insert((image_size, maps), session);
        }
        Ok(())
    }

    fn open_session(&self, image_size: usize, maps: AdaptedMaps) -> Result<Session, EncodeError> {
        let Some(folder) = &self.options.cache_folder else {
            return self.session_from(&self.graph(image_size, maps)?);
        };
        let suffix = match maps {
            AdaptedMaps::None => "",
            AdaptedMaps::QueryValue => "-lora-qv",
            AdaptedMaps::All => "-lora",
        };
        let key = cache_key(&self.backbone);
        let path = folder.join(format!("{key}-{image_size}{suffix}.onnx"));
        if let Ok(bytes) = std::fs::read(&path) {
            match self.session_from(&bytes) {
                Ok(session) => return Ok(session),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a cached graph is unusable and is made again");
                }
            }
        }
        let bytes = self.graph(image_size, maps)?;
        if let Err(error) = write_atomically(&path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "the graph could not be cached; the next start will be slower");
        }
        self.session_from(&bytes)
    }

    fn graph(&self, image_size: usize, maps: AdaptedMaps) -> Result<Vec<u8>, EncodeError> {
        export_with_adapters(
            &self.backbone,
            image_size,
            Operators::OnnxRuntime,
            maps.targets(),
        )
        .map_err(|error| EncodeError::BadInput(error.to_string()))
    }

    fn session_from(&self, model: &[u8]) -> Result<Session, EncodeError> {
        let mut builder = Session::builder(&self.environment)
            .map_err(engine)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(engine)?
            .with_intra_threads(self.options.threads)
            .map_err(engine)?
            // A thread that spins while it waits takes a core from sessions of other sizes and adapters, from jobs, and on a machine
            // that shares its cores from the very thread that it waits for.
            .with_config_entry("session.intra_op.allow_spinning", "0")
            .map_err(engine)?;
        if self.device == "cuda" {
            builder = builder
                .with_execution_providers([ep::CUDA::default().build().error_on_failure()])
                .map_err(engine)?;
        }
        builder.commit_from_memory(model).map_err(engine)
    }

    /// Encodes rows of one image size that name few enough adapters.
    fn encode_run(
        &mut self,
        rows: &[EncodeRow],
        image_size: usize,
        outputs: Outputs,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let maps = AdaptedMaps::of(rows);
        self.prepare(image_size, maps)?;
        let slots = match maps {
            AdaptedMaps::None => Vec::new(),
            AdaptedMaps::QueryValue | AdaptedMaps::All => {
                self.slots.assign(rows, &self.backbone.config)
            }
        };
        let Some(session) = self.sessions.get_mut(&(image_size, maps)) else {
            return Err(EncodeError::Stopped);
        };
        let mut pixels = Vec::with_capacity(rows.len() * 3 * image_size * image_size);
        for row in rows {
            pixels.extend_from_slice(row.pixels.data());
        }
        let shape = [rows.len(), 3, image_size, image_size];
        let pixels = TensorRef::from_array_view((shape, pixels.as_slice())).map_err(engine)?;
        let mut inputs: Vec<(&str, SessionInputValue)> = vec![("pixels", pixels.into())];
        if maps != AdaptedMaps::None {
            let shape = [slots.len()];
            let slots = TensorRef::from_array_view((shape, slots.as_slice())).map_err(engine)?;
            inputs.push((SLOT_INPUT, slots.into()));
            for input in self.slots.inputs(maps) {
                let values = TensorRef::from_array_view((input.shape, input.values));
                inputs.push((input.name, values.map_err(engine)?.into()));
            }
        }
        let mut selected = OutputSelector::no_default()
            .with("feature")
            .with("cls_attention");
        if outputs.last_hidden_state {
            selected = selected.with("last_hidden_state");
        }
        let options = RunOptions::new().map_err(engine)?.with_outputs(selected);
        let answer = session.run_with_options(inputs, &options).map_err(engine)?;
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
        check_adapters(rows, &self.backbone.config)?;
        let mut encoded = Vec::with_capacity(rows.len());
        for run in runs(rows) {
            encoded.extend(self.encode_run(run, image_size, outputs)?);
        }
        Ok(encoded)
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
