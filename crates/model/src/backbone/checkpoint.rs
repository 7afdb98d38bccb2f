//! Loads a Hugging Face checkpoint folder and says everything that is wrong with one that does not fit.

use super::Backbone;
use super::config::{Architecture, BackboneConfig, Pooling};
use super::preprocess::Preprocess;
use super::weights::{LayerNorm, LayerWeights, Linear, Weights};
use crate::tensor::Tensor;
use crate::tensor_file::{TensorError, TensorFile, TensorFileError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a folder is not a usable backbone.
#[derive(Debug, Error)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum BackboneError {
    #[error("{path}: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} has no {file}", path = folder.display())]
    NoFile { folder: PathBuf, file: &'static str },
    #[error(
        "{path} has its weights as pickle ({file}); pickle can run code and is never read. Save the model as model.safetensors instead",
        path = folder.display()
    )]
    Pickle { folder: PathBuf, file: String },
    #[error("{file}: {source}")]
    TensorFile {
        file: String,
        source: TensorFileError,
    },
    #[error("{origin} does not fit:\n{}", problems.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
    DoesNotFit {
        origin: String,
        problems: Vec<String>,
    },
}

impl BackboneError {
    /// What is wrong, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::DoesNotFit { problems, .. } => problems.clone(),
            other => vec![other.to_string()],
        }
    }
}

/// Loads `config.json`, `preprocessor_config.json` and `model.safetensors` (or its shards) from `folder`.
///
/// # Errors
/// [`BackboneError`]; [`BackboneError::DoesNotFit`] lists every problem found, not only the first.
pub fn load_folder(folder: &Path) -> Result<Backbone, BackboneError> {
    let config = read_named(folder, "config.json")?;
    let preprocess = read_named(folder, "preprocessor_config.json")?;
    let shards = read_shards(folder)?;
    let origin = folder.display().to_string();
    let shards: Vec<(String, &[u8])> = shards
        .iter()
        .map(|(name, bytes)| (name.clone(), bytes.as_slice()))
        .collect();
    load_parts(&origin, &config, &preprocess, &shards)
}

/// Loads a backbone from the contents of its files; `shards` are `(file name, bytes)`. `origin` names them in errors.
///
/// # Errors
/// As [`load_folder`].
pub fn load_parts(
    origin: &str,
    config: &[u8],
    preprocess: &[u8],
    shards: &[(String, &[u8])],
) -> Result<Backbone, BackboneError> {
    let does_not_fit = |problems| BackboneError::DoesNotFit {
        origin: origin.to_owned(),
        problems,
    };
    let mut problems = Vec::new();
    let config = BackboneConfig::from_json(config)
        .map_err(|mut found| problems.append(&mut found))
        .ok();
    let preprocess = Preprocess::from_json(preprocess)
        .map_err(|mut found| problems.append(&mut found))
        .ok();
    let (Some(mut config), Some(preprocess)) = (config, preprocess) else {
        return Err(does_not_fit(problems));
    };

    let mut files = Vec::new();
    for (name, bytes) in shards {
        files.push(
            TensorFile::parse(bytes).map_err(|source| BackboneError::TensorFile {
                file: format!("{origin}/{name}"),
                source,
            })?,
        );
    }
    let mut source = ShardReader::new(&files, config.architecture);
    let weights = source.weights(&mut config);
    source.report_unused();
    if let Some(size) = preprocess.image_size()
        && config.grid(size).is_none()
    {
        source.problems.push(format!(
            "preprocessor_config.json asks for {size} px, not a multiple of the patch size {}",
            config.patch_size
        ));
    }
    if source.problems.is_empty() {
        Ok(Backbone::new(config, preprocess, weights))
    } else {
        Err(does_not_fit(source.problems))
    }
}

fn read_named(folder: &Path, file: &'static str) -> Result<Vec<u8>, BackboneError> {
    let path = folder.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(bytes),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound && folder.is_dir() => {
            Err(BackboneError::NoFile {
                folder: folder.into(),
                file,
            })
        }
        Err(source) => Err(BackboneError::Read { path, source }),
    }
}

/// Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names.
fn read_shards(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, BackboneError> {
    const SINGLE: &str = "model.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    if folder.join(SINGLE).exists() {
        return Ok(vec![(SINGLE.into(), read_named(folder, SINGLE)?)]);
    }
    if !folder.join(INDEX).exists() {
        for pickle in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
            if folder.join(pickle).exists() {
                return Err(BackboneError::Pickle {
                    folder: folder.into(),
                    file: pickle.into(),
                });
            }
        }
        return Err(BackboneError::NoFile {
            folder: folder.into(),
            file: SINGLE,
        });
    }
    let does_not_fit = |problem: String| BackboneError::DoesNotFit {
        origin: folder.display().to_string(),
        problems: vec![problem],
    };
    let index: Value = serde_json::from_slice(&read_named(folder, INDEX)?)
        .map_err(|error| does_not_fit(format!("{INDEX} is not valid JSON: {error}")))?;
    let files: BTreeSet<&str> = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| does_not_fit(format!("{INDEX} has no weight_map")))?
        .values()
        .filter_map(Value::as_str)
        .collect();
    let mut shards = Vec::new();
    for file in files {
        // The index is not ours: it must not lead out of the folder.
        if Path::new(file).file_name() != Some(file.as_ref()) || !file.ends_with(".safetensors") {
            return Err(does_not_fit(format!(
                "{INDEX} names \"{file}\", which is not a safetensors file of this folder"
            )));
        }
        let path = folder.join(file);
        let bytes = std::fs::read(&path).map_err(|source| BackboneError::Read { path, source })?;
        shards.push((file.to_owned(), bytes));
    }
    Ok(shards)
}

/// Takes tensors by name out of all shards, recording what was wrong and what was left over.
struct ShardReader<'f, 'a> {
    files: &'f [TensorFile<'a>],
    owner: BTreeMap<&'f str, usize>,
    used: BTreeSet<String>,
    architecture: Architecture,
    prefix: &'static str,
    problems: Vec<String>,
}

impl<'f, 'a> ShardReader<'f, 'a> {
    fn new(files: &'f [TensorFile<'a>], architecture: Architecture) -> Self {
        let mut owner = BTreeMap::new();
        let mut problems = Vec::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                if owner.insert(name, index).is_some() {
                    problems.push(format!("{name}: appears in more than one file"));
                }
            }
        }
        // Models saved with a task head carry the family's name before each tensor.
        let prefix = match architecture {
            Architecture::Clip => "vision_model.",
            Architecture::Vit if owner.keys().any(|name| name.starts_with("vit.")) => "vit.",
            Architecture::Dinov2 if owner.keys().any(|name| name.starts_with("dinov2.")) => {
                "dinov2."
            }
            Architecture::Vit | Architecture::Dinov2 => "",
        };
        Self {
            files,
            owner,
            used: BTreeSet::new(),
            architecture,
            prefix,
            problems,
        }
    }

    fn weights(&mut self, config: &mut BackboneConfig) -> Weights {
        let width = config.width;
        let patch_inputs = 3 * config.patch_size * config.patch_size;
        let positions = 1 + config.native_grid() * config.native_grid();
        let clip = self.architecture == Architecture::Clip;
        let patch = if clip {
            "embeddings.patch_embedding"
        } else {
            "embeddings.patch_embeddings.projection"
        };
        let patch_shape = [width, 3, config.patch_size, config.patch_size];
        let patch = Linear {
            weight: reshape(
                self.take(&format!("{patch}.weight"), &patch_shape),
                &[width, patch_inputs],
            ),
            bias: (!clip).then(|| self.take(&format!("{patch}.bias"), &[width])),
        };
        let (cls, position, final_norm) = if clip {
            (
                "embeddings.class_embedding",
                "embeddings.position_embedding.weight",
                "post_layernorm",
            )
        } else {
            (
                "embeddings.cls_token",
                "embeddings.position_embeddings",
                "layernorm",
            )
        };
        let cls_token = self.take(cls, &[width]);
        let position = self.take(position, &[positions, width]);
        // The published spelling of CLIP's first norm lacks an e.
        let pre_norm = clip.then(|| self.affine("pre_layrnorm", width));
        let layers = (0..config.layers)
            .map_while(|index| {
                // A file cannot hold more layers than tensors; do not list thousands of missing ones.
                (self.problems.len() < MOST_PROBLEMS).then(|| self.layer(index, config))
            })
            .collect();
        let final_norm = self.affine(final_norm, width);
        let projection_name = "visual_projection.weight";
        if self.architecture == Architecture::Clip
            && config.projection_width.is_none()
            && let Some(shape) = self.shape_of(projection_name)
        {
            config.projection_width = shape.first().copied();
        }
        let projection = config
            .projection_width
            .map(|out| self.take_named(projection_name, &[out, config.pooled_width()]));
        if projection.is_some() && config.pooling == Pooling::ClsMean {
            self.problems
                .push("pooling cls_mean does not go with a CLIP projection".into());
        }
        Weights {
            patch,
            cls_token,
            position,
            pre_norm,
            layers,
            final_norm,
            projection,
        }
    }

    fn layer(&mut self, index: usize, config: &BackboneConfig) -> LayerWeights {
        let (width, mlp) = (config.width, config.mlp_width);
        let bias = config.qkv_bias;
        let names = match self.architecture {
            Architecture::Vit => &VIT_LAYER,
            Architecture::Dinov2 => &DINOV2_LAYER,
            Architecture::Clip => &CLIP_LAYER,
        };
        let name = |part: &str| format!("{}.{index}.{part}", names.stem);
        let scaled = self.architecture == Architecture::Dinov2;
        LayerWeights {
            norm1: self.affine(&name(names.norm1), width),
            query: self.linear(&name(names.query), width, width, bias),
            key: self.linear(&name(names.key), width, width, bias),
            value: self.linear(&name(names.value), width, width, bias),
            output: self.linear(&name(names.output), width, width, true),
            scale1: scaled.then(|| self.take(&name("layer_scale1.lambda1"), &[width])),
            norm2: self.affine(&name(names.norm2), width),
            mlp_in: self.linear(&name(names.mlp_in), mlp, width, true),
            mlp_out: self.linear(&name(names.mlp_out), width, mlp, true),
            scale2: scaled.then(|| self.take(&name("layer_scale2.lambda1"), &[width])),
        }
    }

    fn linear(&mut self, name: &str, out: usize, inputs: usize, bias: bool) -> Linear {
        Linear {
            weight: self.take(&format!("{name}.weight"), &[out, inputs]),
            bias: bias.then(|| self.take(&format!("{name}.bias"), &[out])),
        }
    }

    fn affine(&mut self, name: &str, width: usize) -> LayerNorm {
        LayerNorm {
            weight: self.take(&format!("{name}.weight"), &[width]),
            bias: self.take(&format!("{name}.bias"), &[width]),
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Tensor {
        let full = format!("{}{name}", self.prefix);
        self.take_named(&full, shape)
    }

    fn take_named(&mut self, name: &str, shape: &[usize]) -> Tensor {
        self.used.insert(name.to_owned());
        let read = match self.owner.get(name) {
            Some(&file) => self.files[file].read_shaped(name, shape),
            None => Err(TensorError::Missing(name.into())),
        };
        read.unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            Tensor::default()
        })
    }

    fn shape_of(&self, name: &str) -> Option<Vec<usize>> {
        let &file = self.owner.get(name)?;
        self.files[file].shape(name).map(<[usize]>::to_vec)
    }

    /// Tensors that nobody asked for are an error: a model with more layers than its configuration would be another model.
    fn report_unused(&mut self) {
        for &name in self.owner.keys() {
            if !self.used.contains(name) && !ignored(self.architecture, name) {
                self.problems.push(format!("{name}: not expected"));
            }
        }
        if self.problems.len() > MOST_PROBLEMS {
            let more = self.problems.len() - MOST_PROBLEMS;
            self.problems.truncate(MOST_PROBLEMS);
            self.problems.push(format!("and {more} more"));
        }
    }
}

/// Longest list of problems that is shown.
const MOST_PROBLEMS: usize = 100;

/// Tensors of a full model that have no part in the feature.
fn ignored(architecture: Architecture, name: &str) -> bool {
    match architecture {
        Architecture::Vit | Architecture::Dinov2 => {
            let name = name
                .strip_prefix("vit.")
                .or_else(|| name.strip_prefix("dinov2."))
                .unwrap_or(name);
            name.starts_with("classifier.")
                || name.starts_with("pooler.")
                || name == "embeddings.mask_token"
        }
        Architecture::Clip => {
            name.starts_with("text_model.")
                || name.starts_with("text_projection.")
                || name == "logit_scale"
                || name == "vision_model.embeddings.position_ids"
        }
    }
}

fn reshape(tensor: Tensor, shape: &[usize]) -> Tensor {
    // A tensor that was not found is empty and stays so; its problem is on the list already.
    Tensor::new(shape, tensor.into_data()).unwrap_or_default()
}

/// Names of the parts of a layer in one family's checkpoints.
struct LayerNames {
    stem: &'static str,
    norm1: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    output: &'static str,
    norm2: &'static str,
    mlp_in: &'static str,
    mlp_out: &'static str,
}

const VIT_LAYER: LayerNames = LayerNames {
    stem: "encoder.layer",
    norm1: "layernorm_before",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    output: "attention.output.dense",
    norm2: "layernorm_after",
    mlp_in: "intermediate.dense",
    mlp_out: "output.dense",
};

const DINOV2_LAYER: LayerNames = LayerNames {
    stem: "encoder.layer",
    norm1: "norm1",
    query: "attention.attention.query",
    key: "attention.attention.key",
    value: "attention.attention.value",
    output: "attention.output.dense",
    norm2: "norm2",
    mlp_in: "mlp.fc1",
    mlp_out: "mlp.fc2",
};

const CLIP_LAYER: LayerNames = LayerNames {
    stem: "encoder.layers",
    norm1: "layer_norm1",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    output: "self_attn.out_proj",
    norm2: "layer_norm2",
    mlp_in: "mlp.fc1",
    mlp_out: "mlp.fc2",
};
