//! Sessions of ONNX Runtime, and which execution provider each node of their graph was given to.

#![allow(
    unsafe_code,
    reason = "reads the assignment through ONNX Runtime's C interface"
)]

use super::encoder::EncodeError;
use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::{AsPointer, sys};
use std::ffi::{CStr, c_char};

/// What ONNX Runtime calls its provider for CUDA.
pub const CUDA_PROVIDER: &str = ep::CUDA::NAME;

/// How a session computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Of one computation; 0 takes one per core.
    pub threads: usize,
    /// On CUDA, or an error that says why not.
    pub cuda: bool,
    /// Whether nodes that CUDA cannot compute go to the CPU; else they are an error.
    pub cpu_fallback: bool,
}

/// Nodes of a graph that one execution provider computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// As ONNX Runtime calls it, such as `CPUExecutionProvider`.
    pub provider: String,
    /// Operator and name of each node.
    pub nodes: Vec<String>,
}

/// Opens a session for the ONNX file `model`.
///
/// # Errors
/// [`EncodeError::Engine`] with ONNX Runtime's words.
pub fn open_session(
    environment: &Environment,
    model: &[u8],
    options: SessionOptions,
) -> Result<Session, EncodeError> {
    let set = || -> Result<Session, ort::Error> {
        let mut builder = Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(options.threads)?
            // A thread that spins while it waits takes a core from sessions of other sizes and adapters, from jobs, and on a machine
            // that shares its cores from the very thread that it waits for.
            .with_config_entry("session.intra_op.allow_spinning", "0")?
            .with_config_entry("session.record_ep_graph_assignment_info", "1")?;
        if options.cuda {
            let cuda = ep::CUDA::default()
                // Answers agree with the CPU's to the rounding of f32.
                .with_tf32(false)
                // The graphs need none of it, so that it makes no difference whether it is installed.
                .with_arbitrary_config("enable_cudnn", "0");
            builder = builder.with_execution_providers([cuda.build().error_on_failure()])?;
        }
        if !options.cpu_fallback {
            builder = builder.with_config_entry("session.disable_cpu_ep_fallback", "1")?;
        }
        builder.commit_from_memory(model)
    };
    set().map_err(|error| EncodeError::Engine(error.to_string().trim_end().to_owned()))
}

/// Which provider computes which nodes of `session`, the one with the most nodes first.
///
/// # Errors
/// [`EncodeError::Engine`] where ONNX Runtime does not say.
pub fn placement(session: &Session) -> Result<Vec<Placed>, EncodeError> {
    let mut placed: Vec<Placed> = Vec::new();
    assigned(session, |provider, node| {
        match placed.iter_mut().find(|own| own.provider == provider) {
            Some(own) => own.nodes.push(node),
            None => placed.push(Placed {
                provider,
                nodes: vec![node],
            }),
        }
    })
    .map_err(|error| EncodeError::Engine(error.to_string()))?;
    placed.sort_by_key(|own| std::cmp::Reverse(own.nodes.len()));
    Ok(placed)
}

/// Calls `each` with provider and node.
fn assigned(session: &Session, mut each: impl FnMut(String, String)) -> Result<(), ort::Error> {
    let api = ort::api();
    // SAFETY: the session is alive for as long as its pointers are used here; ONNX Runtime owns the lists and the texts, and writes
    // to the places that it is given. It has recorded the assignment, since `open_session` asks for it; else it answers with an error.
    unsafe {
        let parts = list(|parts, count| {
            (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), parts, count)
        })?;
        for &part in parts {
            let provider = text(|out| (api.EpAssignedSubgraph_GetEpName)(part, out))?;
            let nodes = list(|nodes, count| (api.EpAssignedSubgraph_GetNodes)(part, nodes, count))?;
            for &node in nodes {
                let operator = text(|out| (api.EpAssignedNode_GetOperatorType)(node, out))?;
                let name = text(|out| (api.EpAssignedNode_GetName)(node, out))?;
                each(provider.clone(), format!("{operator} {name}"));
            }
        }
    }
    Ok(())
}

/// A list that ONNX Runtime owns.
///
/// # Safety
/// `call` writes a list and its length, and the list is not used after what it belongs to.
unsafe fn list<'a, T>(
    call: impl FnOnce(*mut *const *const T, *mut usize) -> sys::OrtStatusPtr,
) -> Result<&'a [*const T], ort::Error> {
    let (mut first, mut count) = (std::ptr::null(), 0);
    // SAFETY: a status of ONNX Runtime.
    unsafe { ort::Error::result_from_status(call(&raw mut first, &raw mut count)) }?;
    if first.is_null() || count == 0 {
        return Ok(&[]);
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// A text that ONNX Runtime owns.
///
/// # Safety
/// `call` writes a text that ends with a zero.
unsafe fn text(
    call: impl FnOnce(*mut *const c_char) -> sys::OrtStatusPtr,
) -> Result<String, ort::Error> {
    let mut text = std::ptr::null();
    // SAFETY: a status of ONNX Runtime.
    unsafe { ort::Error::result_from_status(call(&raw mut text)) }?;
    if text.is_null() {
        return Ok(String::new());
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    Ok(text.to_string_lossy().into_owned())
}
