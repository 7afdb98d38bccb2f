//! Times the engine's steps with criterion. With `--lines` it serves `benches/pytorch/engine.py` instead: each line of its
//! input is `size step threads`, the answer is the time of one run in milliseconds and the memory of the process in MiB:
//! before the step was made ready, ready, and its peak in this run. The step stays ready until another is asked for.
//! `--export-onnx FILE` writes the embedded backbone as a graph for ONNX Runtime.

#![allow(clippy::print_stdout, reason = "figures go to stdout")]

use criterion::Criterion;
use engine::measure::{EMBEDDED_SIZES, Prepared, SIZES, STEPS};
use engine::process_memory::{peak_mebibytes, reset_peak, resident_mebibytes};
use engine::session::SessionOptions;
use model::backbone::embedded;
use model::backbone::onnx::{Operators, export};
use std::io::{BufRead, Write};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--lines") {
        return lines();
    }
    if let Some(at) = arguments.iter().position(|own| own == "--export-onnx") {
        let file = arguments.get(at + 1).ok_or("--export-onnx needs a file")?;
        let image_size = EMBEDDED_SIZES[0].image_size;
        let graph = export(&embedded()?, image_size, Operators::OnnxRuntime)?;
        return Ok(std::fs::write(file, graph)?);
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for size in SIZES {
        let mut group = criterion.benchmark_group(size.name);
        for (name, step) in STEPS {
            let mut prepared = Prepared::new(size, step, SessionOptions::on_threads(2))?;
            group.bench_function(name, |bencher| bencher.iter(|| prepared.run()));
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

struct Current {
    request: String,
    prepared: Prepared,
    idle_mebibytes: f64,
    ready_mebibytes: f64,
}

fn lines() -> Result<(), Box<dyn std::error::Error>> {
    let mut current: Option<Current> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let own = match current.take() {
            Some(own) if own.request == line => own,
            _ => prepare(line)?,
        };
        let Current {
            prepared,
            idle_mebibytes,
            ready_mebibytes,
            ..
        } = current.insert(own);
        reset_peak();
        let start = Instant::now();
        prepared.run()?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let peak = peak_mebibytes().unwrap_or(0.0);
        println!("{milliseconds} {idle_mebibytes} {ready_mebibytes} {peak}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn prepare(request: String) -> Result<Current, Box<dyn std::error::Error>> {
    let [size, step, threads] = request.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("\"{request}\" is not: size step threads").into());
    };
    let mut sizes = SIZES.into_iter().chain(EMBEDDED_SIZES);
    let size = sizes.find(|own| own.name == size);
    let step = STEPS.into_iter().find(|(name, _)| *name == step);
    let (Some(size), Some((_, step))) = (size, step) else {
        return Err(format!("\"{request}\" names no size and step that are measured").into());
    };
    let idle_mebibytes = resident_mebibytes().unwrap_or(0.0);
    let prepared = Prepared::new(size, step, SessionOptions::on_threads(threads.parse()?))?;
    Ok(Current {
        prepared,
        idle_mebibytes,
        ready_mebibytes: resident_mebibytes().unwrap_or(0.0),
        request,
    })
}
