//! Adapters that must be refused for the golden `vit-tiny`, each with a part of the message that says why.
//! Made here, not stored, so that every defect can be read in the code that makes it.

use crate::project;
use model::adapter::{BackboneCandidate, FileLimits, NamedFile, import, read_zip};
use model::tensor::Tensor;
use model::tensor_file::{self, TensorFile};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// How a broken adapter comes in.
pub enum BrokenSource {
    /// Loose files.
    Files(Vec<NamedFile>),
    /// The bytes of a zip.
    Zip(Vec<u8>),
}

/// An adapter that must be refused.
pub struct BrokenAdapter {
    /// Says what is wrong with it.
    pub name: &'static str,
    /// What is handed in.
    pub source: BrokenSource,
    /// Part of the message.
    pub expected: &'static str,
}

impl BrokenAdapter {
    /// Why it is refused, all sentences together; `None` if it was taken.
    pub fn refusal(&self, candidates: &[BackboneCandidate]) -> Option<String> {
        let files = match &self.source {
            BrokenSource::Files(files) => files.clone(),
            BrokenSource::Zip(bytes) => match read_zip(bytes, &FileLimits::default()) {
                Ok(files) => files,
                Err(error) => return Some(error.to_string()),
            },
        };
        import(&files, candidates)
            .err()
            .map(|report| report.errors.join("\n"))
    }
}

/// The files of a golden adapter, e.g. `golden("vit-tiny", "adapter-peft-v4")`.
pub fn golden(model: &str, adapter: &str) -> Vec<NamedFile> {
    let folder = project("tests/golden").join(model).join(adapter);
    model::adapter::read_folder(&folder, &FileLimits::default()).unwrap()
}

const QUERY: &str = "base_model.model.vit.encoder.layer.0.attention.attention.query";
const A: &str = "base_model.model.vit.encoder.layer.0.attention.attention.query.lora_A.weight";
const B: &str = "base_model.model.vit.encoder.layer.0.attention.attention.query.lora_B.weight";
const HEAD: &str = "base_model.model.classifier.weight";

type Tensors = BTreeMap<String, Tensor>;

/// A sound adapter in parts that can be broken.
struct Sound {
    config: Value,
    tensors: Tensors,
}

impl Sound {
    fn new() -> Self {
        let files = golden("vit-tiny", "adapter-peft-v4");
        let bytes = |name: &str| &files.iter().find(|file| file.path == name).unwrap().bytes;
        let file = TensorFile::parse(bytes("adapter_model.safetensors")).unwrap();
        Self {
            config: serde_json::from_slice(bytes("adapter_config.json")).unwrap(),
            tensors: file
                .names()
                .map(|name| (name.to_owned(), file.read(name).unwrap()))
                .collect(),
        }
    }

    fn weights(&self) -> Vec<u8> {
        tensor_file::write(&self.tensors, &BTreeMap::new()).unwrap()
    }

    fn files(&self) -> Vec<NamedFile> {
        folder(self.config.to_string(), self.weights())
    }
}

fn folder(config: impl Into<Vec<u8>>, weights: impl Into<Vec<u8>>) -> Vec<NamedFile> {
    vec![
        NamedFile::new("adapter_config.json", config),
        NamedFile::new("adapter_model.safetensors", weights),
    ]
}

fn files(name: &'static str, files: Vec<NamedFile>, expected: &'static str) -> BrokenAdapter {
    BrokenAdapter {
        name,
        source: BrokenSource::Files(files),
        expected,
    }
}

fn archive(name: &'static str, bytes: Vec<u8>, expected: &'static str) -> BrokenAdapter {
    BrokenAdapter {
        name,
        source: BrokenSource::Zip(bytes),
        expected,
    }
}

/// A configuration with `changes`; the tensors are sound.
fn config(name: &'static str, changes: Value, expected: &'static str) -> BrokenAdapter {
    let mut sound = Sound::new();
    for (key, value) in changes.as_object().unwrap() {
        sound.config[key] = value.clone();
    }
    files(name, sound.files(), expected)
}

fn tensors(
    name: &'static str,
    change: impl FnOnce(&mut Tensors),
    expected: &'static str,
) -> BrokenAdapter {
    let mut sound = Sound::new();
    change(&mut sound.tensors);
    files(name, sound.files(), expected)
}

/// A weights file of which only the bytes are given; the configuration is sound.
fn weights(name: &'static str, bytes: Vec<u8>, expected: &'static str) -> BrokenAdapter {
    files(
        name,
        folder(Sound::new().config.to_string(), bytes),
        expected,
    )
}

/// Every broken adapter, more than forty.
pub fn corpus() -> Vec<BrokenAdapter> {
    let mut corpus = broken_containers();
    corpus.extend(broken_configs());
    corpus.extend(broken_tensors());
    corpus.extend(broken_published());
    corpus.extend(broken_zips());
    corpus
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn broken_containers() -> Vec<BrokenAdapter> {
    let sound = Sound::new();
    let whole = sound.weights();
    let mut huge = (17u64 << 20).to_le_bytes().to_vec();
    huge.resize((17 << 20) + 8, b' ');
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let gap = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    vec![
        weights("empty weights", Vec::new(), "the file is empty"),
        weights(
            "truncated data",
            whole[..whole.len() - 100].to_vec(),
            "truncated or has gaps",
        ),
        weights("truncated header", whole[..64].to_vec(), "its header needs"),
        weights(
            "seven bytes",
            vec![1; 7],
            "its header needs 8 bytes, the file has 7",
        ),
        weights("huge header", huge, "more than the 16777216 allowed"),
        weights(
            "header is not JSON",
            with_header("not json", &[]),
            "the header is not valid",
        ),
        weights(
            "a name twice in the header",
            with_header(&format!(r#"{{"a":{entry},"a":{entry}}}"#), &[0; 4]),
            "names the tensor \"a\" twice",
        ),
        weights(
            "a gap in the data",
            with_header(gap, &[0; 8]),
            "truncated or has gaps",
        ),
        weights(
            "pickle under a false name",
            vec![0x80, 2, b'}', b'.'],
            "this is a pickle file",
        ),
        weights(
            "a pointer of Git LFS",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(),
            "pointer of Git LFS",
        ),
        files(
            "pickle only",
            vec![
                NamedFile::new("adapter_config.json", sound.config.to_string()),
                NamedFile::new("adapter_model.bin", vec![0x80, 2]),
            ],
            "adapter_model.bin is a pickle file",
        ),
        files(
            "no configuration",
            vec![NamedFile::new("adapter_model.safetensors", whole)],
            "adapter_config.json is missing",
        ),
        files(
            "no weights",
            vec![NamedFile::new(
                "adapter_config.json",
                sound.config.to_string(),
            )],
            "adapter_model.safetensors is missing",
        ),
        files(
            "nothing of use",
            vec![NamedFile::new("notes.txt", "hello")],
            "no adapter found",
        ),
    ]
}

fn broken_configs() -> Vec<BrokenAdapter> {
    let weights = Sound::new().weights();
    vec![
        files(
            "config is not JSON",
            folder("{", weights.clone()),
            "adapter_config.json is not valid JSON",
        ),
        files(
            "config is a list",
            folder("[]", weights),
            "is not a JSON object",
        ),
        config(
            "IA3",
            json!({"peft_type": "IA3"}),
            "peft_type IA3 is not supported",
        ),
        config(
            "no method",
            json!({"peft_type": null}),
            "names no peft_type",
        ),
        config("DoRA", json!({"use_dora": true}), "DoRA is not supported"),
        config(
            "QA-LoRA",
            json!({"use_qalora": true}),
            "QA-LoRA is not supported",
        ),
        config(
            "tuned biases",
            json!({"bias": "lora_only"}),
            "bias is \"lora_only\"",
        ),
        config(
            "bias on B",
            json!({"lora_bias": true}),
            "a bias on B is not supported",
        ),
        config(
            "transposed",
            json!({"fan_in_fan_out": true}),
            "transposed weights",
        ),
        config(
            "PiSSA",
            json!({"init_lora_weights": "pissa"}),
            "changes the backbone's weights",
        ),
        config(
            "layers doubled",
            json!({"layer_replication": [[0, 4], [2, 4]]}),
            "layer replication",
        ),
        config(
            "activated LoRA",
            json!({"alora_invocation_tokens": [1, 2]}),
            "activated LoRA",
        ),
        config("rank zero", json!({"r": 0}), "r is 0, not a whole number"),
        config(
            "rank as text",
            json!({"r": "4"}),
            "r is \"4\", not a whole number",
        ),
        config(
            "no alpha",
            json!({"lora_alpha": null}),
            "lora_alpha is null",
        ),
        config(
            "no targets",
            json!({"target_modules": null}),
            "names no target_modules",
        ),
        config(
            "targets are numbers",
            json!({"target_modules": [1]}),
            "target_modules is neither text nor a list",
        ),
        config(
            "negative rank in a pattern",
            json!({"rank_pattern": {"query": -1}}),
            "rank_pattern gives -1",
        ),
        config(
            "a pattern that is a list",
            json!({"alpha_pattern": [1]}),
            "expected an object of numbers",
        ),
        config(
            "a key that cannot be run",
            json!({"alpha_pattern": {"(?=q)query": 2}}),
            "alpha_pattern has the key",
        ),
        config(
            "rsLoRA as text",
            json!({"use_rslora": "yes"}),
            "use_rslora is \"yes\"",
        ),
        config(
            "more than a head is saved",
            json!({"modules_to_save": ["classifier", "embeddings"]}),
            "modules_to_save names \"embeddings\"",
        ),
        config(
            "the head is not announced",
            json!({"modules_to_save": null}),
            "modules_to_save does not name the classifier",
        ),
        config(
            "another rank than the tensors",
            json!({"r": 8}),
            "shape [4, 32], expected [8, 32]",
        ),
        config(
            "more targets than tensors",
            json!({"target_modules": ["query", "key", "value"]}),
            "attention.key.lora_A.weight: missing",
        ),
        config(
            "fewer targets than tensors",
            json!({"target_modules": ["query"]}),
            "is not among target_modules",
        ),
        config(
            "fewer layers than tensors",
            json!({"layers_to_transform": [0, 1]}),
            "layer.2.attention.attention.query.lora_A.weight: is not among",
        ),
        config(
            "another model class",
            json!({"auto_mapping": {"base_model_class": "Dinov2Model"}}),
            "was made on Dinov2Model",
        ),
        config(
            "another backbone",
            json!({"backbone_digest": "00ff"}),
            "backbone with digest 00ff",
        ),
    ]
}

fn renamed(tensors: &mut Tensors, from: &str, to: &str) {
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.to_owned(), tensor);
}

fn pair(tensors: &mut Tensors, module: &str) {
    tensors.insert(
        format!("base_model.model.{module}.lora_A.weight"),
        Tensor::zeros([4, 32]),
    );
    tensors.insert(
        format!("base_model.model.{module}.lora_B.weight"),
        Tensor::zeros([32, 4]),
    );
}

/// The sound tensors with `A` stored as `dtype`.
fn stored_as(dtype: Dtype, bytes_per_value: usize) -> Vec<u8> {
    let sound = Sound::new();
    let data: BTreeMap<&String, Vec<u8>> = sound
        .tensors
        .iter()
        .map(|(name, tensor)| {
            let values = tensor.data().iter().flat_map(|v| v.to_le_bytes()).collect();
            let replaced = vec![0; tensor.data().len() * bytes_per_value];
            (name, if name == A { replaced } else { values })
        })
        .collect();
    let views = sound.tensors.iter().map(|(name, tensor)| {
        let dtype = if name == A { dtype } else { Dtype::F32 };
        (
            name,
            TensorView::new(dtype, tensor.shape().to_vec(), &data[name]).unwrap(),
        )
    });
    safetensors::serialize(views, None).unwrap()
}

fn broken_tensors() -> Vec<BrokenAdapter> {
    let value = |tensors: &mut Tensors, number: f32| {
        tensors.get_mut(B).unwrap().data_mut()[5] = number;
    };
    vec![
        tensors(
            "A is missing",
            |t| {
                t.remove(A);
            },
            "query.lora_A.weight: missing",
        ),
        tensors(
            "B is missing",
            |t| {
                t.remove(B);
            },
            "query.lora_B.weight: missing",
        ),
        tensors(
            "the head is missing",
            |t| {
                t.remove(HEAD);
            },
            "classifier.weight: missing",
        ),
        tensors(
            "no tensors",
            Tensors::clear,
            "the file holds no LoRA tensors",
        ),
        tensors(
            "a number is missing",
            |t| value(t, f32::NAN),
            "value 5 is NaN, not a finite number",
        ),
        tensors(
            "an infinite number",
            |t| value(t, f32::INFINITY),
            "value 5 is inf, not a finite number",
        ),
        weights(
            "whole numbers",
            stored_as(Dtype::I64, 8),
            "storage type I64 is not supported",
        ),
        weights(
            "double precision",
            stored_as(Dtype::F64, 8),
            "storage type F64 is not supported",
        ),
        tensors(
            "A for a wider backbone",
            |t| {
                t.insert(A.into(), Tensor::zeros([4, 48]));
            },
            "shape [4, 48], expected [4, 32]",
        ),
        tensors(
            "B transposed",
            |t| {
                t.insert(B.into(), Tensor::zeros([4, 32]));
            },
            "lora_B.weight: shape [4, 32], expected [32, 4]",
        ),
        tensors(
            "A with three axes",
            |t| {
                t.insert(A.into(), Tensor::zeros([4, 32, 1]));
            },
            "shape [4, 32, 1]",
        ),
        tensors(
            "A without values",
            |t| {
                t.insert(A.into(), Tensor::zeros([0, 32]));
            },
            "shape [0, 32]",
        ),
        tensors(
            "the head is too wide",
            |t| {
                t.insert(HEAD.into(), Tensor::zeros([5, 64]));
            },
            "classifier.weight: shape [5, 64], expected [classes, 32]",
        ),
        tensors(
            "the head's bias is too long",
            |t| {
                t.insert(
                    "base_model.model.classifier.bias".into(),
                    Tensor::zeros([6]),
                );
            },
            "classifier.bias: shape [6], expected [5]",
        ),
        tensors(
            "a layer too many",
            |t| pair(t, "vit.encoder.layer.4.attention.attention.query"),
            "is for layer 4",
        ),
        tensors(
            "the patch embedding",
            |t| pair(t, "vit.embeddings.patch_embeddings.projection"),
            "patch embedding convolution",
        ),
        tensors(
            "a fused map",
            |t| pair(t, "blocks.0.attn.qkv"),
            "fused query-key-value",
        ),
        tensors(
            "a LoRA on the head",
            |t| pair(t, "classifier"),
            "classification head with a LoRA",
        ),
        tensors(
            "CLIP's text model",
            |t| pair(t, "text_model.encoder.layers.0.self_attn.q_proj"),
            "belongs to CLIP's text model",
        ),
        tensors(
            "a layer of another family",
            |t| pair(t, "vision_model.encoder.layers.0.self_attn.q_proj"),
            "is a name of clip models",
        ),
        tensors(
            "an unknown module",
            |t| pair(t, "vit.encoder.layer.0.gate"),
            "is not a linear map of a vit, dinov2 or clip layer",
        ),
        tensors(
            "mixed styles",
            |t| pair(t, "vit.layers.0.attention.q_proj"),
            "one adapter uses one style",
        ),
        tensors(
            "the same twice",
            |t| {
                t.insert(
                    format!("{QUERY}.lora_A.default.weight"),
                    Tensor::zeros([4, 32]),
                );
            },
            "is the same as",
        ),
        tensors(
            "two heads",
            |t| {
                t.insert(
                    "base_model.model.classifier.modules_to_save.default.weight".into(),
                    Tensor::zeros([5, 32]),
                );
            },
            "appears twice under different names",
        ),
        tensors(
            "a magnitude of DoRA",
            |t| {
                t.insert(
                    format!("{QUERY}.lora_magnitude_vector"),
                    Tensor::zeros([32]),
                );
            },
            "is a magnitude of DoRA",
        ),
        tensors(
            "a bias of a map",
            |t| {
                t.insert(format!("{QUERY}.bias"), Tensor::zeros([32]));
            },
            "tuned biases are not supported",
        ),
        tensors(
            "a bias of B",
            |t| {
                t.insert(format!("{QUERY}.lora_B.bias"), Tensor::zeros([32]));
            },
            "is a bias of a LoRA",
        ),
        tensors(
            "an extra tensor",
            |t| {
                t.insert("base_model.model.vit.extra".into(), Tensor::zeros([1]));
            },
            "is not a tensor of a LoRA or of a classifier",
        ),
        tensors(
            "a name that PEFT does not give",
            |t| renamed(t, A, "lora_unet_down_0"),
            "is not a name that PEFT gives",
        ),
        files(
            "another family",
            golden("dinov2-tiny", "adapter-peft-v4"),
            "was made on Dinov2ForImageClassification",
        ),
    ]
}

fn published(change: impl FnOnce(&mut Tensors)) -> Vec<NamedFile> {
    let mut tensors = Tensors::new();
    for index in 0..8 {
        tensors.insert(format!("w_a_{index:03}"), Tensor::zeros([4, 32]));
        tensors.insert(format!("w_b_{index:03}"), Tensor::zeros([32, 4]));
    }
    change(&mut tensors);
    let bytes = tensor_file::write(&tensors, &BTreeMap::new()).unwrap();
    vec![NamedFile::new("lora_0.safetensors", bytes)]
}

fn broken_published() -> Vec<BrokenAdapter> {
    vec![
        files(
            "published: a pair is missing",
            published(|t| {
                t.remove("w_b_003");
            }),
            "w_b_003: missing; a file for 4 layers",
        ),
        files(
            "published: for more layers",
            published(|t| {
                t.insert("w_a_008".into(), Tensor::zeros([4, 32]));
            }),
            "is for layer 4, the backbone has 4 layers",
        ),
        files(
            "published: ranks differ",
            published(|t| {
                t.insert("w_a_001".into(), Tensor::zeros([2, 32]));
            }),
            "w_b_001: shape [32, 4], expected [32, 2]",
        ),
        files(
            "published: head of another width",
            published(|t| {
                t.insert("fc_16in_5out".into(), Tensor::zeros([5, 16]));
            }),
            "fc_16in_5out: shape [5, 16], expected [5, 32]",
        ),
        files(
            "published: an unknown tensor",
            published(|t| {
                t.insert("w_c_000".into(), Tensor::zeros([1]));
            }),
            "is not one of w_a_NNN",
        ),
    ]
}

/// A zip of these files.
pub fn zip_of(files: &[NamedFile]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for file in files {
        writer
            .start_file(&file.path, SimpleFileOptions::default())
            .unwrap();
        writer.write_all(&file.bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// `bytes` with every `from` replaced by `to`, which is as long.
fn patched(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut found = false;
    for start in 0..=bytes.len() - from.len() {
        if bytes[start..].starts_with(from) {
            bytes[start..start + to.len()].copy_from_slice(to);
            found = true;
        }
    }
    assert!(found);
    bytes
}

/// Changes bytes of the first entry in the table of contents.
fn in_directory(mut bytes: Vec<u8>, offset: usize, value: &[u8]) -> Vec<u8> {
    let start = bytes
        .windows(4)
        .position(|four| four == b"PK\x01\x02")
        .unwrap()
        + offset;
    bytes[start..start + value.len()].copy_from_slice(value);
    bytes
}

fn broken_zips() -> Vec<BrokenAdapter> {
    let sound = Sound::new().files();
    let under = |folder: &str| -> Vec<NamedFile> {
        sound
            .iter()
            .map(|file| NamedFile::new(format!("{folder}{}", file.path), file.bytes.clone()))
            .collect()
    };
    let whole = zip_of(&sound);
    let many: Vec<NamedFile> = (0..300)
        .map(|index| NamedFile::new(format!("{index}.txt"), "x"))
        .collect();
    let mut bomb = sound.clone();
    bomb.push(NamedFile::new("notes.txt", vec![0; 4 << 20]));
    let mut two = under("first/");
    two.extend(under("second/"));
    let link = {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer
            .add_symlink(
                "adapter_config.json",
                "/etc/passwd",
                SimpleFileOptions::default(),
            )
            .unwrap();
        writer.finish().unwrap().into_inner()
    };
    let same = zip_of(&[
        NamedFile::new("aaaa.txt", "1"),
        NamedFile::new("bbbb.txt", "2"),
    ]);
    vec![
        archive(
            "zip: a path out of the folder",
            patched(zip_of(&under("XX/")), b"XX/", b"../"),
            "leads out of its folder",
        ),
        archive(
            "zip: an absolute path",
            patched(zip_of(&under("X")), b"Xadapter", b"/adapter"),
            "\"/adapter_config.json\", a path that leads out",
        ),
        archive(
            "zip: a Windows path",
            patched(zip_of(&under("XX/")), b"XX/", b"..\\"),
            "\"..\\adapter_config.json\", a path that leads out",
        ),
        archive("zip: a link", link, "is a link"),
        archive(
            "zip: a name twice",
            patched(same, b"bbbb.txt", b"aaaa.txt"),
            "two files of one name",
        ),
        archive("zip: a bomb", zip_of(&bomb), "looks like a zip bomb"),
        archive("zip: too many files", zip_of(&many), "there are 300 files"),
        archive(
            "zip: a huge file",
            in_directory(whole.clone(), 24, &[0xf0, 0xff, 0xff, 0xff]),
            "more than the 1073741824 allowed",
        ),
        archive(
            "zip: a size that lies",
            in_directory(whole.clone(), 24, &[8, 0, 0, 0]),
            "does not unpack to the 8 bytes it declares",
        ),
        archive(
            "zip: encrypted",
            in_directory(whole.clone(), 8, &[1, 0]),
            "encrypted",
        ),
        archive(
            "zip: truncated",
            whole[..whole.len() / 2].to_vec(),
            "the zip cannot be read",
        ),
        archive(
            "zip: no zip at all",
            b"hello".to_vec(),
            "the zip cannot be read",
        ),
        archive(
            "zip: two adapters",
            zip_of(&two),
            "there are 2 adapters: \"first\", \"second\"",
        ),
    ]
}
