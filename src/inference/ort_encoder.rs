//! The encoder on ONNX Runtime: adapters are inputs of the graph, so that one batch mixes them.

use super::adapter_slots::{AdapterSlots, RankClass, runs};
use super::device::{Device, Loaded, load_for, one_line};
use super::encoder::{
    EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, Outputs, check_adapters,
    common_image_size,
};
use super::ort_library::OrtLibrary;
use super::ort_session::{CUDA_PROVIDER, Placed, SessionOptions, open_session, placement};
use super::slot_table::AdaptedMaps;
use engine::cuda::{Availability, availability};
use model::backbone::Backbone;
use model::backbone::onnx::{GRAPH_VERSION, Operators, SLOT_INPUT, export_with_adapters};
use model::digest::hex;
use model::tensor::Tensor;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::TensorRef;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    library: OrtLibrary,
    backbone: Arc<Backbone>,
    options: OrtOptions,
    cuda: bool,
    providers: Vec<String>,
    sessions: HashMap<(usize, AdaptedMaps), Session>,
    slots: AdapterSlots,
}

impl OrtEncoder {
    /// Opens the backbone and prepares the session for the backbone's image size.
    ///
    /// # Errors
    /// [`EncodeError::Engine`] where the library, the device or the graph cannot be used.
    pub fn open(backbone: Arc<Backbone>, options: OrtOptions) -> Result<Self, EncodeError> {
        let loaded = load_for(options.device).map_err(engine)?;
        Self::open_with(loaded, backbone, options)
    }

    /// As [`Self::open`], with a library that is loaded.
    pub(super) fn open_with(
        loaded: Loaded,
        backbone: Arc<Backbone>,
        options: OrtOptions,
    ) -> Result<Self, EncodeError> {
        let image_size = backbone.image_size();
        let mut encoder = Self {
            library: loaded.library,
            backbone,
            options,
            cuda: loaded.cuda,
            providers: Vec::new(),
            sessions: HashMap::new(),
            slots: AdapterSlots::default(),
        };
        match encoder.begin(image_size) {
            Err(error) if encoder.cuda && encoder.options.device == Device::Auto => {
                let reason = one_line(&why_not(error));
                tracing::warn!("the CPU computes, CUDA does not work: {reason}");
                encoder.cuda = false;
                encoder.sessions.clear();
                encoder.begin(image_size)?;
            }
            Err(error) if encoder.cuda => return Err(EncodeError::Engine(why_not(error))),
            begun => begun?,
        }
        Ok(encoder)
    }

    /// Opens the first session. On CUDA an image goes through it, since a session may open on a device that cannot run it.
    fn begin(&mut self, image_size: usize) -> Result<(), EncodeError> {
        self.prepare(image_size, AdaptedMaps::None)?;
        if self.cuda {
            let image = Tensor::zeros([3, image_size, image_size]);
            self.encode(&[EncodeRow::bare(Arc::new(image))], Outputs::default())?;
        }
        Ok(())
    }

    fn prepare(&mut self, image_size: usize, maps: AdaptedMaps) -> Result<(), EncodeError> {
        if !self.sessions.contains_key(&(image_size, maps)) {
            let session = self.open_session(image_size, maps)?;
            let placed = placement(&session)?;
            if self.cuda {
                tell_nodes_on_cpu(&placed);
            }
            if self.sessions.is_empty() {
                self.providers = placed.into_iter().map(|own| own.provider).collect();
            }
            self.sessions.insert((image_size, maps), session);
        }
        Ok(())
    }

    fn open_session(&self, image_size: usize, maps: AdaptedMaps) -> Result<Session, EncodeError> {
        let Some(folder) = &self.options.cache_folder else {
            return self.session_from(&graph(&self.backbone, image_size, maps, self.cuda)?);
        };
        let suffix = match maps {
            AdaptedMaps::None => "",
            AdaptedMaps::QueryValue => "-lora-qv",
            AdaptedMaps::All => "-lora",
        };
        let variant = if self.cuda { "-cuda" } else { "" };
        let key = cache_key(&self.backbone);
        let path = folder.join(format!("{key}-{image_size}{suffix}{variant}.onnx"));
        let cached = std::fs::read(&path).ok();
        let refused = match cached.as_ref().map(|bytes| self.session_from(bytes)) {
            Some(Ok(session)) => return Ok(session),
            Some(Err(error)) => Some(error),
            None => None,
        };
        let bytes = graph(&self.backbone, image_size, maps, self.cuda)?;
        if let Some(error) = refused {
            if cached.as_ref() == Some(&bytes) {
                return Err(error);
            }
            tracing::warn!(path = %path.display(), %error, "a cached graph is unusable and is made again");
        }
        if let Err(error) = write_atomically(&path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "the graph could not be cached; the next start will be slower");
        }
        self.session_from(&bytes)
    }

    fn session_from(&self, model: &[u8]) -> Result<Session, EncodeError> {
        let options = SessionOptions {
            threads: self.options.threads,
            cuda: self.cuda,
            cpu_fallback: true,
        };
        open_session(&self.library.environment, model, options)
    }

    /// Encodes rows of one image size, which are those of a run.
    fn encode_run(
        &mut self,
        rows: &[&EncodeRow],
        class: RankClass,
        image_size: usize,
        outputs: Outputs,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let maps = AdaptedMaps::of(rows);
        self.prepare(image_size, maps)?;
        let slots = match maps {
            AdaptedMaps::None => Vec::new(),
            AdaptedMaps::QueryValue | AdaptedMaps::All => {
                self.slots.assign(rows, class, &self.backbone.config)
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
            for input in self.slots.inputs(class, maps) {
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
        let mut options = RunOptions::new().map_err(engine)?;
        if class.is_large() && !self.cuda {
            // Else the session keeps what the largest computation so far took.
            options
                .set("memory.enable_memory_arena_shrinkage", "cpu:0")
                .map_err(engine)?;
        }
        let options = options.with_outputs(selected);
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
            device: match self.providers.first() {
                Some(first) if first == CUDA_PROVIDER => "cuda".into(),
                _ => "cpu".into(),
            },
            providers: self.providers.clone(),
            version: self.library.version.clone(),
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
        let mut answers: Vec<Option<Encoded>> = rows.iter().map(|_| None).collect();
        for run in runs(rows, &self.backbone.config) {
            let of_run: Vec<&EncodeRow> = run.rows.iter().map(|&index| &rows[index]).collect();
            let encoded = self.encode_run(&of_run, run.class, image_size, outputs)?;
            for (index, encoded) in run.rows.into_iter().zip(encoded) {
                answers[index] = Some(encoded);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn tidy(&mut self) {
        self.slots.tidy(&self.backbone.config);
    }
}

/// The graph for CUDA does without ONNX Runtime's fused attention, which needs cuDNN there.
fn graph(
    backbone: &Backbone,
    image_size: usize,
    maps: AdaptedMaps,
    cuda: bool,
) -> Result<Vec<u8>, EncodeError> {
    let operators = match cuda {
        true => Operators::Standard,
        false => Operators::OnnxRuntime,
    };
    export_with_adapters(backbone, image_size, operators, maps.targets())
        .map_err(|error| EncodeError::BadInput(error.to_string()))
}

/// Nodes of the largest graph of `backbone` that CUDA cannot compute. CUDA is ready, as [`load_for`] says.
///
/// # Errors
/// [`EncodeError`] where CUDA does not work, or the graph cannot be made.
pub fn nodes_off_cuda(backbone: &Backbone) -> Result<Vec<String>, EncodeError> {
    let library = load_for(Device::Cuda).map_err(engine)?.library;
    let model = graph(backbone, backbone.image_size(), AdaptedMaps::All, true)?;
    let open = |cpu_fallback| {
        let options = SessionOptions {
            threads: 0,
            cuda: true,
            cpu_fallback,
        };
        open_session(&library.environment, &model, options)
    };
    let Err(refused) = open(false) else {
        return Ok(Vec::new());
    };
    // ONNX Runtime refuses without naming nodes, and names them where it does not refuse.
    let placed = placement(&open(true)?)?;
    let others = placed
        .into_iter()
        .filter(|own| own.provider != CUDA_PROVIDER);
    let nodes: Vec<String> = others.flat_map(|own| own.nodes).collect();
    match nodes.is_empty() {
        // It was another reason.
        true => Err(refused),
        false => Ok(nodes),
    }
}

/// Why a session on CUDA was not opened: what the driver says about the device where that explains it, else ONNX Runtime's words.
fn why_not(error: EncodeError) -> String {
    match availability(0) {
        Availability::Missing(missing) => missing.join("\n"),
        Availability::Ready(_) => error.to_string(),
    }
}

/// Answers are right then, but slower.
fn tell_nodes_on_cpu(placed: &[Placed]) {
    for other in placed.iter().filter(|own| own.provider != CUDA_PROVIDER) {
        tracing::warn!(provider = other.provider, nodes = ?other.nodes, "not all of the graph is computed on CUDA");
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
