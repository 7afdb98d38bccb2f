//! Reading and writing safetensors files that may be broken or hostile.
//! Knows the container only: which tensors belong in it is for the caller to say. Never reads pickle.

use crate::tensor::Tensor;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

/// Why a file is not a usable safetensors file.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum TensorFileError {
    #[error("the file is empty")]
    Empty,
    #[error(
        "this is a pickle file; pickle can run code and is never read. Save it as safetensors instead"
    )]
    Pickle,
    #[error("the file is truncated: its header needs {needed} bytes, the file has {found}")]
    HeaderPastEnd { needed: u64, found: u64 },
    #[error("the header is {found} bytes long, more than the {limit} allowed")]
    HeaderTooLarge { found: u64, limit: u64 },
    #[error("the header is not valid: {0}")]
    Header(String),
    #[error("the header names the tensor \"{0}\" twice")]
    Duplicate(String),
    #[error("the file is truncated or has gaps: {0}")]
    Data(String),
    #[error("the file names more than {limit} tensors")]
    TooManyTensors { limit: usize },
    #[error("a tensor's name has {found} bytes, more than the {limit} allowed")]
    NameTooLong { found: usize, limit: usize },
    #[error("the tensor \"{name}\" has {found} axes, more than the {limit} allowed")]
    TooManyAxes {
        name: String,
        found: usize,
        limit: usize,
    },
}

/// What a file from outside may hold; checked while its header is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorFileLimits {
    /// Most tensors.
    pub most_tensors: usize,
    /// Longest name of a tensor, in bytes.
    pub longest_name_bytes: usize,
    /// Most axes of a tensor.
    pub most_axes: usize,
}

impl TensorFileLimits {
    /// For files of any kind.
    const ANY: Self = Self {
        most_tensors: MOST_TENSORS,
        longest_name_bytes: usize::MAX,
        most_axes: usize::MAX,
    };

    fn check_axes(&self, name: &str, shape: &[usize]) -> Result<(), TensorFileError> {
        if shape.len() > self.most_axes {
            return Err(TensorFileError::TooManyAxes {
                name: name.to_owned(),
                found: shape.len(),
                limit: self.most_axes,
            });
        }
        Ok(())
    }
}

/// Longest header that is parsed, in bytes.
pub const LARGEST_HEADER: u64 = 16 << 20;

/// Most tensors of a file. The largest vision transformers have some thousand.
pub const MOST_TENSORS: usize = 10_000;

/// A parsed file: tensors by name, borrowed from its bytes.
pub struct TensorFile<'a> {
    tensors: SafeTensors<'a>,
    shapes: BTreeMap<String, Vec<usize>>,
    metadata: BTreeMap<String, String>,
}

/// Why one tensor of a sound file cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum TensorError {
    #[error("{0}: missing")]
    Missing(String),
    #[error("{name}: storage type {dtype} is not supported; supported are F32, F16 and BF16")]
    Dtype { name: String, dtype: String },
    #[error("{name}: storage type {found}, expected {expected}")]
    OtherType {
        name: String,
        found: String,
        expected: &'static str,
    },
    #[error("{name}: shape {found:?}, expected {expected:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("{name}: value {index} is {value}, not a finite number")]
    NotFinite {
        name: String,
        index: usize,
        value: String,
    },
}

impl<'a> TensorFile<'a> {
    /// Parses the container; values are looked at only when a tensor is read.
    ///
    /// # Errors
    /// [`TensorFileError`] says what is wrong with the file as a whole.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TensorFileError> {
        Self::parse_within(bytes, TensorFileLimits::ANY)
    }

    /// As [`Self::parse`], for a file from outside.
    ///
    /// # Errors
    /// As [`Self::parse`], and where the file is beyond `limits`.
    pub fn parse_within(
        bytes: &'a [u8],
        limits: TensorFileLimits,
    ) -> Result<Self, TensorFileError> {
        let header = header(bytes)?;
        let names = Names::parse(header, limits)?;
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|error| TensorFileError::Data(error.to_string()))?;
        for (name, view) in tensors.iter() {
            limits.check_axes(name, view.shape())?;
        }
        let shapes = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), view.shape().to_vec()))
            .collect();
        Ok(Self {
            tensors,
            shapes,
            metadata: names.metadata,
        })
    }

    /// Tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// The free-form strings of the header's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Shape of the tensor `name`, where there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// Reads a tensor of whatever shape, widened to `f32`.
    ///
    /// # Errors
    /// Missing, of another storage type than F32, F16 and BF16, or with a NaN or infinite value.
    pub fn read(&self, name: &str) -> Result<Tensor, TensorError> {
        let view = self
            .tensors
            .tensor(name)
            .map_err(|_| TensorError::Missing(name.into()))?;
        let bytes = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::F16 => bytes
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            Dtype::BF16 => bytes
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            other => {
                return Err(TensorError::Dtype {
                    name: name.into(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        let tensor = Tensor::new(view.shape(), values).map_err(|error| TensorError::Shape {
            name: name.into(),
            found: vec![error.found],
            expected: error.shape,
        })?;
        match tensor.first_non_finite() {
            Some(index) => Err(TensorError::NotFinite {
                name: name.into(),
                index,
                value: tensor.data()[index].to_string(),
            }),
            None => Ok(tensor),
        }
    }

    /// Reads a tensor that must hold as many values as `expected` and have its axes once axes of length 1 are left out
    /// (`[1, 1, 384]` is taken for `[384]`); the result has the shape `expected`.
    ///
    /// # Errors
    /// As [`Self::read`], and [`TensorError::Shape`].
    pub fn read_shaped(&self, name: &str, expected: &[usize]) -> Result<Tensor, TensorError> {
        let found = self
            .shape(name)
            .ok_or_else(|| TensorError::Missing(name.into()))?;
        let squeeze = |shape: &[usize]| -> Vec<usize> {
            shape.iter().copied().filter(|&axis| axis != 1).collect()
        };
        let mismatch = || TensorError::Shape {
            name: name.into(),
            found: found.to_vec(),
            expected: expected.to_vec(),
        };
        if squeeze(found) != squeeze(expected) {
            return Err(mismatch());
        }
        let tensor = self.read(name)?;
        Tensor::new(expected, tensor.into_data()).map_err(|_| mismatch())
    }

    /// Reads an integer tensor (I64), e.g. labels or token indices.
    ///
    /// # Errors
    /// Missing, or of another storage type.
    pub fn read_integers(&self, name: &str) -> Result<Vec<i64>, TensorError> {
        let view = self
            .tensors
            .tensor(name)
            .map_err(|_| TensorError::Missing(name.into()))?;
        if view.dtype() != Dtype::I64 {
            return Err(TensorError::Dtype {
                name: name.into(),
                dtype: format!("{:?}", view.dtype()),
            });
        }
        Ok(view
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect())
    }
}

impl TensorFile<'_> {
    /// The bytes of a tensor stored as U8, e.g. levels of pixels.
    ///
    /// # Errors
    /// Missing, or of another storage type or shape.
    pub fn read_bytes(&self, name: &str, shape: &[usize]) -> Result<&[u8], TensorError> {
        self.stored(name, shape, (Dtype::U8, "U8"))
    }

    /// Reads a tensor stored as U32, e.g. positions of tokens.
    ///
    /// # Errors
    /// As [`Self::read_bytes`].
    pub fn read_indices(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>, TensorError> {
        let bytes = self.stored(name, shape, (Dtype::U32, "U32"))?;
        let values = bytes.chunks_exact(4);
        Ok(values
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }

    fn stored(
        &self,
        name: &str,
        shape: &[usize],
        (dtype, expected): (Dtype, &'static str),
    ) -> Result<&[u8], TensorError> {
        let view = self
            .tensors
            .tensor(name)
            .map_err(|_| TensorError::Missing(name.into()))?;
        if view.dtype() != dtype {
            return Err(TensorError::OtherType {
                name: name.into(),
                found: format!("{:?}", view.dtype()),
                expected,
            });
        }
        if view.shape() != shape {
            return Err(TensorError::Shape {
                name: name.into(),
                found: view.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        Ok(view.data())
    }
}

/// The JSON header of a file whose start has been checked.
fn header(bytes: &[u8]) -> Result<&[u8], TensorFileError> {
    if bytes.is_empty() {
        return Err(TensorFileError::Empty);
    }
    // Protocol 2 and later start with 0x80; torch.save wraps the pickle in a zip archive.
    // A header of 640 bytes starts so too, but the JSON object after its length gives it away.
    let pickle = bytes.len() > 1
        && bytes[0] == 0x80
        && (2..=5).contains(&bytes[1])
        && bytes.get(8) != Some(&b'{');
    if pickle || bytes.starts_with(b"PK\x03\x04") {
        return Err(TensorFileError::Pickle);
    }
    let found = bytes.len() as u64;
    let Some(length) = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
        return Err(TensorFileError::HeaderPastEnd { needed: 8, found });
    };
    let needed = length.saturating_add(8);
    if needed > found {
        return Err(TensorFileError::HeaderPastEnd { needed, found });
    }
    if length > LARGEST_HEADER {
        return Err(TensorFileError::HeaderTooLarge {
            found: length,
            limit: LARGEST_HEADER,
        });
    }
    Ok(&bytes[8..needed as usize])
}

/// Names in the header, checked for duplicates, which the safetensors crate would silently merge.
#[derive(Default)]
struct Names {
    seen: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
    /// The first that was found while names were read.
    problem: Option<TensorFileError>,
}

impl Names {
    fn parse(header: &[u8], limits: TensorFileLimits) -> Result<Self, TensorFileError> {
        let mut deserializer = serde_json::Deserializer::from_slice(header);
        let names = deserializer
            .deserialize_map(NamesVisitor(limits))
            .map_err(|error| TensorFileError::Header(error.to_string()))?;
        match names.problem {
            Some(problem) => Err(problem),
            None => Ok(names),
        }
    }

    /// Keeps the name of a tensor, or what is wrong with it.
    fn add(&mut self, name: String, limits: TensorFileLimits) {
        let problem = if name.len() > limits.longest_name_bytes {
            Some(TensorFileError::NameTooLong {
                found: name.len(),
                limit: limits.longest_name_bytes,
            })
        } else if self.seen.contains(&name) {
            Some(TensorFileError::Duplicate(name))
        } else if name != METADATA && self.tensors() >= limits.most_tensors {
            Some(TensorFileError::TooManyTensors {
                limit: limits.most_tensors,
            })
        } else {
            self.seen.insert(name);
            None
        };
        self.problem = self.problem.take().or(problem);
    }

    fn tensors(&self) -> usize {
        self.seen.len() - usize::from(self.seen.contains(METADATA))
    }
}

/// The entry of a header that is not a tensor.
const METADATA: &str = "__metadata__";

struct NamesVisitor(TensorFileLimits);

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON object of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Names, M::Error> {
        let mut names = Names::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                names.metadata = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            names.add(name, self.0);
        }
        Ok(names)
    }
}

/// Values of one tensor in the type that they are stored in.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// 32-bit floating point.
    F32(&'a [f32]),
    /// Unsigned bytes.
    U8(&'a [u8]),
    /// 32-bit unsigned.
    U32(&'a [u32]),
}

impl Stored<'_> {
    fn to_bytes(self) -> (Dtype, Vec<u8>) {
        match self {
            Self::F32(values) => (
                Dtype::F32,
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            Self::U8(values) => (Dtype::U8, values.to_vec()),
            Self::U32(values) => (
                Dtype::U32,
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
        }
    }
}

/// Serialises tensors as F32.
///
/// # Errors
/// A sentence where the container cannot hold them.
pub fn write(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    let stored: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.shape(), Stored::F32(tensor.data())))
        .collect();
    write_stored(&stored, metadata)
}

/// Serialises tensors, each a name, a shape and values.
///
/// # Errors
/// A sentence where the container cannot hold them, e.g. values that do not fill their shape.
pub fn write_stored(
    tensors: &[(&str, &[usize], Stored<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    let bytes: Vec<_> = tensors
        .iter()
        .map(|(_, _, stored)| stored.to_bytes())
        .collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, shape, _), (dtype, bytes)) in tensors.iter().zip(&bytes) {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.to_vec(), bytes)
            .map_err(|error| format!("{name}: {error}"))?;
        views.push((*name, view));
    }
    let metadata = (!metadata.is_empty()).then(|| {
        metadata
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    });
    let mut file = safetensors::serialize(views, metadata).map_err(|error| error.to_string())?;
    sort_header(&mut file)?;
    Ok(file)
}

/// Puts the header's entries in order of their names: the library leaves metadata in the order of a hash table, which differs from
/// run to run, and equal contents must give equal bytes.
fn sort_header(file: &mut [u8]) -> Result<(), String> {
    let fail = |error: serde_json::Error| error.to_string();
    let length = file
        .first_chunk::<8>()
        .and_then(|bytes| usize::try_from(u64::from_le_bytes(*bytes)).ok())
        .ok_or("the header has no length")?;
    let header = file
        .get_mut(8..)
        .and_then(|rest| rest.get_mut(..length))
        .ok_or("the header is cut off")?;
    let mut entries: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(fail)?;
    if let Some(metadata) = entries.get_mut(METADATA) {
        let sorted: BTreeMap<String, String> =
            serde_json::from_value(metadata.take()).map_err(fail)?;
        *metadata = serde_json::to_value(sorted).map_err(fail)?;
    }
    let text = serde_json::to_vec(&entries).map_err(fail)?;
    let (start, padding) = header
        .split_at_mut_checked(text.len())
        .ok_or("the sorted header is longer")?;
    start.copy_from_slice(&text);
    padding.fill(b' ');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_give_equal_bytes_whatever_the_order_of_a_hash_table() {
        let names = ["format", "labels", "digest", "input", "a", "b", "c", "d"];
        let metadata: BTreeMap<String, String> = names
            .iter()
            .map(|name| ((*name).to_owned(), format!("\"{name}\", ä")))
            .collect();
        let tensors = BTreeMap::from([
            ("b".to_owned(), Tensor::zeros([2, 3])),
            ("a".to_owned(), Tensor::zeros([1])),
        ]);
        let first = write(&tensors, &metadata).unwrap();
        for _ in 0..20 {
            assert_eq!(write(&tensors, &metadata).unwrap(), first);
        }
        let read = TensorFile::parse(&first).unwrap();
        assert_eq!(read.metadata(), &metadata);
        assert_eq!(read.read("b").unwrap().shape(), [2, 3]);
    }

    #[test]
    fn a_header_of_a_length_that_looks_like_pickle_is_read() {
        // 640 and 896 bytes start with the two bytes of pickle's protocols 2 and 3.
        for length in [640, 896] {
            let mut metadata = BTreeMap::from([("note".to_owned(), String::new())]);
            let tensors = BTreeMap::from([("a".to_owned(), Tensor::zeros([1]))]);
            let header = |file: &[u8]| u64::from_le_bytes(*file.first_chunk::<8>().unwrap());
            while header(&write(&tensors, &metadata).unwrap()) < length {
                metadata.get_mut("note").unwrap().push('x');
            }
            let file = write(&tensors, &metadata).unwrap();
            assert_eq!(header(&file), length);
            assert!(TensorFile::parse(&file).is_ok());
        }
    }
}
