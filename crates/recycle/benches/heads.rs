//! Time to fit a head to 1000 classes of 5 examples, and to answer one query with it: `cargo bench -p recycle --bench heads`.

use engine::distance::Distance;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recycle::classifier::{Classifier, ClassifierSettings, Support};
use recycle::head::HeadChoice;
use std::hint::black_box;
use std::time::Instant;

const CLASSES: usize = 1000;
const EXAMPLES: usize = 5;
const WIDTH: usize = 384;
const ROUNDS: usize = 5;

fn main() {
    for (head, copies) in [("nearest-mean", 0), ("lda", 0), ("lda-augmented", 6)] {
        let head: HeadChoice = head.parse().unwrap_or_default();
        let settings = ClassifierSettings {
            head,
            distance: Distance::Cosine,
        };
        let (mut fits, mut queries) = (Vec::new(), Vec::new());
        for seed in 0..ROUNDS {
            let mut random = ChaCha8Rng::seed_from_u64(seed as u64);
            let mut near = |centre: &[f32]| -> Vec<f32> {
                let noise = centre
                    .iter()
                    .map(|own| own + random.random_range(-0.5f32..0.5));
                noise.collect()
            };
            let mut supports = Vec::new();
            for class in 0..CLASSES {
                let centre = near(&[0.0; WIDTH]);
                for _ in 0..EXAMPLES {
                    supports.push(Support {
                        image: String::new(),
                        class,
                        feature: near(&centre),
                        copies: (0..copies).map(|_| near(&centre)).collect(),
                    });
                }
            }
            let query = near(&[0.0; WIDTH]);
            let labels = (0..CLASSES).map(|class| class.to_string()).collect();
            let start = Instant::now();
            let classifier = match Classifier::new(labels, supports, settings) {
                Ok(classifier) => classifier,
                Err(error) => return eprintln!("{error}"),
            };
            fits.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            for _ in 0..20 {
                let _ = black_box(classifier.classify(black_box(query.clone()), 0));
            }
            queries.push(start.elapsed().as_secs_f64() / 20.0);
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        println!(
            "{head:<14} {CLASSES} classes of {EXAMPLES} examples, {copies} copies, width {WIDTH}: fitted in {:.3} s, a query {:.3} ms",
            median(&mut fits),
            1e3 * median(&mut queries)
        );
    }
}
