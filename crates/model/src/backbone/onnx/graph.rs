//! Assembles nodes, constants and named values into an ONNX graph.

use super::proto::*;
use prost::Message;

/// Name of a value in the graph.
pub type Value = String;

/// Opset of the standard operators: the first with `Gelu`.
const OPSET: i64 = 20;
/// Intermediate representation that goes with [`OPSET`].
const IR_VERSION: i64 = 9;
/// Domain of ONNX Runtime's fused operators.
pub const MICROSOFT: &str = "com.microsoft";

#[derive(Default)]
pub struct Graph {
    proto: GraphProto,
    uses_microsoft: bool,
}

/// An attribute of a node.
pub enum Attribute {
    Float(f32),
    Int(i64),
    Ints(Vec<i64>),
    Text(&'static str),
}

/// A dimension of an input or output.
pub enum Axis {
    Fixed(usize),
    Free(&'static str),
}

impl Graph {
    /// Adds a float constant.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Value {
        self.raw(
            name,
            shape,
            data_type::FLOAT,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    /// Adds an integer constant with one axis.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> Value {
        self.raw(
            name,
            &[values.len()],
            data_type::INT64,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    /// Adds a constant of levels, 0 to 255, without an axis or with one.
    pub fn levels(&mut self, name: &str, values: &[u8]) -> Value {
        let shape = [values.len()];
        let shape = if values.len() == 1 {
            &[][..]
        } else {
            &shape[..]
        };
        self.raw(name, shape, data_type::UINT8, values.to_vec())
    }

    /// Adds a constant of texts with one axis.
    pub fn texts(&mut self, name: &str, texts: &[String]) -> Value {
        self.proto.initializer.push(TensorProto {
            dims: vec![texts.len() as i64],
            data_type: data_type::STRING,
            string_data: texts.iter().map(|text| text.clone().into_bytes()).collect(),
            name: name.into(),
            ..TensorProto::default()
        });
        name.into()
    }

    fn raw(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> Value {
        self.proto.initializer.push(TensorProto {
            dims: shape.iter().map(|&axis| axis as i64).collect(),
            data_type,
            name: name.into(),
            raw_data,
            ..TensorProto::default()
        });
        name.into()
    }

    /// Adds a node with one output, which carries the node's name.
    pub fn node(&mut self, name: &str, op_type: &str, inputs: &[&str]) -> Value {
        self.node_with(name, "", op_type, inputs, [])
    }

    /// Adds a node with attributes, of the standard domain (`""`) or [`MICROSOFT`]'s.
    pub fn node_with<const N: usize>(
        &mut self,
        name: &str,
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        attributes: [(&str, Attribute); N],
    ) -> Value {
        self.push(&[name], domain, op_type, inputs, attributes);
        name.to_owned()
    }

    /// Adds a node with several outputs, named after the first; an empty name leaves an output out.
    pub fn push<const N: usize>(
        &mut self,
        outputs: &[&str],
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        attributes: [(&str, Attribute); N],
    ) {
        self.uses_microsoft |= domain == MICROSOFT;
        let attribute = attributes
            .into_iter()
            .map(|(name, attribute)| {
                let mut proto = AttributeProto {
                    name: name.into(),
                    ..Default::default()
                };
                match attribute {
                    Attribute::Float(value) => {
                        proto.f = value;
                        proto.r#type = attribute_type::FLOAT;
                    }
                    Attribute::Int(value) => {
                        proto.i = value;
                        proto.r#type = attribute_type::INT;
                    }
                    Attribute::Ints(values) => {
                        proto.ints = values;
                        proto.r#type = attribute_type::INTS;
                    }
                    Attribute::Text(text) => {
                        proto.s = text.into();
                        proto.r#type = attribute_type::STRING;
                    }
                }
                proto
            })
            .collect();
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: outputs.iter().map(|&output| output.to_owned()).collect(),
            name: outputs[0].to_owned(),
            op_type: op_type.to_owned(),
            attribute,
            domain: domain.to_owned(),
        });
    }

    /// Declares a float input of the graph.
    pub fn input(&mut self, name: &str, shape: &[Axis]) -> Value {
        self.proto
            .input
            .push(value_info(name, data_type::FLOAT, shape));
        name.to_owned()
    }

    /// Declares an integer input of the graph.
    pub fn integer_input(&mut self, name: &str, shape: &[Axis]) -> Value {
        self.proto
            .input
            .push(value_info(name, data_type::INT64, shape));
        name.to_owned()
    }

    /// Declares an input of levels, 0 to 255.
    pub fn level_input(&mut self, name: &str, shape: &[Axis]) -> Value {
        self.proto
            .input
            .push(value_info(name, data_type::UINT8, shape));
        name.to_owned()
    }

    /// Declares `value`, one text, as an output of the graph under `name`.
    pub fn text_output(&mut self, name: &str, value: &str) {
        self.node(name, "Identity", &[value]);
        self.proto
            .output
            .push(value_info(name, data_type::STRING, &[]));
    }

    /// Declares `value` as a float output of the graph under `name`.
    pub fn output(&mut self, name: &str, value: &str, shape: &[Axis]) {
        self.node(name, "Identity", &[value]);
        self.proto
            .output
            .push(value_info(name, data_type::FLOAT, shape));
    }

    /// Serialises the graph as a model file.
    pub fn into_model(mut self, name: &str, metadata: &[(&str, &str)]) -> Vec<u8> {
        self.proto.name = name.into();
        let mut opset_import = vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }];
        if self.uses_microsoft {
            opset_import.push(OperatorSetIdProto {
                domain: MICROSOFT.into(),
                version: 1,
            });
        }
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "lora-recycle".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.proto),
            opset_import,
            metadata_props: metadata
                .iter()
                .map(|&(key, value)| StringStringEntryProto {
                    key: key.into(),
                    value: value.into(),
                })
                .collect(),
        }
        .encode_to_vec()
    }
}

fn value_info(name: &str, elem_type: i32, shape: &[Axis]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|axis| DimensionProto {
            value: Some(match axis {
                Axis::Fixed(length) => Dimension::Value(*length as i64),
                Axis::Free(name) => Dimension::Parameter((*name).into()),
            }),
        })
        .collect();
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type,
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
    }
}
