//! Times the engine's steps with criterion. With `--lines` it serves `pytorch/engine.py` instead: each line of its input is
//! `size step threads`, the answer is the time of one run in milliseconds and the peak memory of the process in MiB; the step
//! stays prepared until another is asked for.

use criterion::Criterion;
use lora_recycle::engine::measure::{Prepared, SIZES, STEPS};
use lora_recycle::process_memory::peak_mebibytes;
use std::io::{BufRead, Write};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().any(|argument| argument == "--lines") {
        return lines();
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for size in SIZES {
        let mut group = criterion.benchmark_group(size.name);
        for (name, step) in STEPS {
            let mut prepared = Prepared::new(size, step, 2)?;
            group.bench_function(name, |bencher| bencher.iter(|| prepared.run()));
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

fn lines() -> Result<(), Box<dyn std::error::Error>> {
    let mut current: Option<(String, Prepared)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let prepared = match current.take() {
            Some((name, prepared)) if name == line => prepared,
            _ => prepare(&line)?,
        };
        let (_, prepared) = current.insert((line, prepared));
        let start = Instant::now();
        prepared.run()?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        println!("{milliseconds} {}", peak_mebibytes().unwrap_or(0.0));
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn prepare(line: &str) -> Result<Prepared, Box<dyn std::error::Error>> {
    let [size, step, threads] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("\"{line}\" is not: size step threads").into());
    };
    let size = SIZES.into_iter().find(|own| own.name == size);
    let step = STEPS.into_iter().find(|(name, _)| *name == step);
    let (Some(size), Some((_, step))) = (size, step) else {
        return Err(format!("\"{line}\" names no size and step that are measured").into());
    };
    Ok(Prepared::new(size, step, threads.parse()?)?)
}
