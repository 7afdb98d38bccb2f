//! What pruned tokens hold: how like the patches that stay and those that are left out are to their class, and to other classes.
//!
//!     cargo run --release -p recycle --example token_contents -- [--sparsity 0.75] ADAPTER POOL [ADAPTER POOL …]
//!
//! ADAPTER is a folder as `lora-recycle adapter export` writes it, on the embedded backbone; POOL one of `lora-recycle pool export`, of
//! that adapter. Patches are looked at after the last LayerNorm, all of them in the pass. A class is the mean of its other
//! images' tokens, of the class token or of all patches. A line of JSON for each pair: mean cosine to the own class and to the
//! most similar other one, and the share of patches that are nearest to their class.

#![allow(clippy::print_stdout, reason = "figures go to stdout")]

use clap::Parser;
use engine::distance::Distance;
use engine::session::{Input, Session, SessionOptions, Wanted};
use model::adapter::{BackboneCandidate, FileLimits, import, read_folder};
use model::backbone::{EMBEDDED_NAME, embedded};
use model::tensor::Tensor;
use recycle::kept_tokens::most_attended;
use recycle::labelled_images::normalise;
use recycle::pool::Pool;
use serde_json::{Value, json};
use std::error::Error;
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    /// Share of the patches that the class token looks at least in the last layer
    #[arg(long, default_value_t = 0.75)]
    sparsity: f64,
    #[arg(required = true, num_args = 2..)]
    folders: Vec<PathBuf>,
}

/// Sums over tokens of one kind.
#[derive(Default)]
struct Likeness {
    own: f64,
    other: f64,
    nearest: usize,
    tokens: usize,
}

impl Likeness {
    fn add(&mut self, token: &[f32], own: usize, prototypes: &[Vec<f32>]) {
        let cosine = |prototype: &Vec<f32>| -> f64 {
            let products = token.iter().zip(prototype);
            products.map(|(a, b)| f64::from(a * b)).sum()
        };
        let others = prototypes
            .iter()
            .enumerate()
            .filter(|(class, _)| *class != own);
        let other = others.map(|(_, prototype)| cosine(prototype));
        let other = other.fold(f64::NEG_INFINITY, f64::max);
        let own = cosine(&prototypes[own]);
        self.own += own;
        self.other += other;
        self.nearest += usize::from(own > other);
        self.tokens += 1;
    }

    fn report(&self) -> Value {
        let mean = |sum: f64| sum / self.tokens as f64;
        json!({
            "own_class": mean(self.own),
            "other_class": mean(self.other),
            "nearest_to_own": mean(self.nearest as f64),
            "tokens": self.tokens,
        })
    }
}

/// Means of unit vectors by class, without those of image `left_out`; scaled to unit length.
fn prototypes(sums: &[Vec<f32>], labels: &[u32], classes: usize, left_out: usize) -> Vec<Vec<f32>> {
    let mut means = vec![vec![0.0; sums[0].len()]; classes];
    for (image, (sum, &label)) in sums.iter().zip(labels).enumerate() {
        if image != left_out {
            let mean = means[label as usize].iter_mut().zip(sum);
            mean.for_each(|(mean, value)| *mean += value);
        }
    }
    let means = means.into_iter();
    means.map(|mean| Distance::Cosine.prepare(mean)).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let backbone = embedded()?;
    let candidate = BackboneCandidate::of(EMBEDDED_NAME, &backbone);
    let mut session = Session::new(&backbone, SessionOptions::default())?;
    let table = backbone.preprocess.normalised_levels();
    for pair in arguments.folders.chunks(2) {
        let [adapter, pool] = pair else {
            return Err("each adapter needs its pool after it".into());
        };
        let files = read_folder(adapter, &FileLimits::default())?;
        let imported = import(&files, std::slice::from_ref(&candidate));
        let adapter = imported.map_err(|report| report.errors.join("; "))?.adapter;
        let pool = Pool::from_files(&read_folder(pool, &FileLimits::default())?)?;
        // Its digest may be another one after an export.
        let head = adapter.head.as_ref().map(|head| &head.labels[..]);
        if head.is_some_and(|labels| !labels.iter().eq(pool.classes())) {
            return Err("the images are not those of the adapter before them".into());
        }
        let (labels, side) = (pool.labels(), pool.manifest().image_size);
        let classes = pool.classes().count();
        let mut pixels = Tensor::zeros([labels.len(), 3, side, side]);
        normalise(pool.images(), &table, pixels.data_mut());
        let input = Input {
            adapter: Some(&adapter),
            ..Input::pixels(&pixels)
        };
        let wanted = Wanted {
            class_attention: true,
            last_hidden_state: true,
            ..Wanted::default()
        };
        let output = session.forward(&input, wanted)?;
        let (Some(attention), Some(hidden)) = (&output.class_attention, &output.last_hidden_state)
        else {
            return Err("the pass gave no tokens".into());
        };
        let (tokens, width) = (hidden.shape()[1], hidden.shape()[2]);
        let patches = attention.shape()[1];
        let dropped = (patches as f64 * arguments.sparsity) as usize;
        let tokens_of_all = hidden.data().chunks_exact(width);
        let unit: Vec<f32> = tokens_of_all
            .flat_map(|token| Distance::Cosine.prepare(token.to_vec()))
            .collect();
        let of_image = |image: usize| unit.chunks_exact(width).skip(image * tokens).take(tokens);
        // Class tokens, and the sums of all patches of an image.
        let mut class_tokens = Vec::with_capacity(labels.len());
        let mut patch_sums = Vec::with_capacity(labels.len());
        for image in 0..labels.len() {
            let mut sum = vec![0.0; width];
            for token in of_image(image).skip(tokens - patches) {
                sum.iter_mut()
                    .zip(token)
                    .for_each(|(sum, value)| *sum += value);
            }
            class_tokens.extend(of_image(image).next().map(<[f32]>::to_vec));
            patch_sums.push(sum);
        }
        let mut report = serde_json::Map::new();
        for (name, sums) in [("class_token", &class_tokens), ("patches", &patch_sums)] {
            let mut likeness = [Likeness::default(), Likeness::default()];
            for (image, &label) in labels.iter().enumerate() {
                let prototypes = prototypes(sums, labels, classes, image);
                let attention = &attention.data()[image * patches..][..patches];
                let kept = most_attended(attention, dropped);
                let own = of_image(image).skip(tokens - patches);
                for (patch, token) in own.enumerate() {
                    let is_pruned = !kept.contains(&(patch as u32 + 1));
                    likeness[usize::from(is_pruned)].add(token, label as usize, &prototypes);
                }
            }
            let [kept, pruned] = likeness.map(|own| own.report());
            report.insert(name.to_owned(), json!({"kept": kept, "pruned": pruned}));
        }
        let digest = &pool.manifest().adapter_digest;
        println!(
            "{}",
            json!({"adapter": digest, "sparsity": arguments.sparsity, "of": report})
        );
    }
    Ok(())
}
