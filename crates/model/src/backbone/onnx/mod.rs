//! ONNX files of a backbone, written without Python.
//! Knows the ONNX messages and a backbone's weights; knows no runtime that would execute them.

mod classifier;
mod export;
mod graph;
mod layer;
mod proto;

pub use classifier::{ReadOut, export_classifier};
pub use export::{
    GRAPH_VERSION, OnnxError, Operators, SLOT_INPUT, export, export_with_adapters, lora_inputs,
};
