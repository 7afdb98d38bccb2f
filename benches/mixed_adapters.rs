//! What adapters cost in a batch on ONNX Runtime: the same images without adapters and with 8 in turns, dinov2-s8 at 98 px.
//! Rounds alternate, so that a slow moment of the machine meets all; medians and their ratio to the bare batch are printed.

#![allow(clippy::print_stdout, reason = "figures go to stdout")]

use lora_recycle::inference::{Device, EncodeRow, Encoder, OrtEncoder, OrtOptions, Outputs};
use model::adapter::{Adapter, LowRankPair, Site, Target};
use model::backbone::{Backbone, embedded};
use model::tensor::Tensor;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const ADAPTERS: usize = 8;
const ROUNDS: usize = 31;
const THREADS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let backbone = Arc::new(embedded()?);
    let options = OrtOptions {
        threads: THREADS,
        device: Device::Cpu,
        cache_folder: None,
    };
    let mut encoder = OrtEncoder::open(Arc::clone(&backbone), options)?;
    let query_value = [Target::Query, Target::Value];
    println!(
        "{THREADS} threads, {ROUNDS} alternating rounds, {ADAPTERS} adapters, dinov2-s8 at 98 px"
    );
    for batch in [8, 32] {
        let kinds = [
            ("bare", batch_of(&backbone, batch, &[])?),
            (
                "query and value, rank 4",
                batch_of(&backbone, batch, &adapters(&backbone, &[4], &query_value)?)?,
            ),
            (
                "query and value, ranks 1 to 16",
                batch_of(
                    &backbone,
                    batch,
                    &adapters(&backbone, &[1, 2, 4, 8, 16], &query_value)?,
                )?,
            ),
            (
                "all six linear maps, rank 4",
                batch_of(&backbone, batch, &adapters(&backbone, &[4], &Target::ALL)?)?,
            ),
        ];
        let mut milliseconds = vec![Vec::new(); kinds.len()];
        for round in 0..=ROUNDS {
            for ((_, rows), times) in kinds.iter().zip(&mut milliseconds) {
                let start = Instant::now();
                encoder.encode(rows, Outputs::default())?;
                // The first round opens sessions and fills slots.
                if round > 0 {
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        let medians: Vec<f64> = milliseconds.iter_mut().map(|times| median(times)).collect();
        for ((name, _), median) in kinds.iter().zip(&medians) {
            println!(
                "batch {batch:2}  {name:<32} {median:7.1} ms  {:.2}",
                median / medians[0]
            );
        }
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn wave(shape: &[usize], seed: f32, size: f32) -> Result<Tensor, Box<dyn Error>> {
    let count = shape.iter().product();
    let values = (0..count).map(|index: usize| (index as f32 * 0.37 + seed).sin() * size);
    Ok(Tensor::new(shape, values.collect())?)
}

fn adapters(
    backbone: &Backbone,
    ranks: &[usize],
    targets: &[Target],
) -> Result<Vec<Arc<Adapter>>, Box<dyn Error>> {
    (0..ADAPTERS)
        .map(|index| {
            let rank = ranks[index % ranks.len()];
            let mut adapter = Adapter::default();
            for layer in 0..backbone.config.layers {
                for &target in targets {
                    let (outputs, inputs) = target.widths(&backbone.config);
                    let seed = (index * 7 + layer) as f32;
                    let pair = LowRankPair {
                        a: wave(&[rank, inputs], seed, 0.05)?,
                        b: wave(&[outputs, rank], seed, 0.05)?,
                        scale: 1.0,
                    };
                    adapter.pairs.insert(Site { layer, target }, pair);
                }
            }
            Ok(Arc::new(adapter))
        })
        .collect()
}

fn batch_of(
    backbone: &Backbone,
    batch: usize,
    adapters: &[Arc<Adapter>],
) -> Result<Vec<EncodeRow>, Box<dyn Error>> {
    let size = backbone.image_size();
    (0..batch)
        .map(|row| {
            Ok(EncodeRow {
                pixels: Arc::new(wave(&[3, size, size], row as f32, 1.0)?),
                adapter: adapters.get(row % ADAPTERS).cloned(),
                pinned: false,
            })
        })
        .collect()
}
