//! The BatchNorm prior: how far a batch's statistics at every BatchNorm are from the running ones.

use super::pass::{ResNetPlan, Scratch};
use super::weights::ResNet;
use crate::loss::{Moments, StatisticsTerm, linear_head};
use crate::operation::{Checks, OperationError};
use rayon::prelude::*;

/// Sum over a ResNet's BatchNorm inputs of ‖batch mean − running mean‖₂ + ‖biased batch variance − running variance‖₂.
///
/// Workers run whole images; the statistics, which couple the images, are joined in the order of the images, so the result
/// does not depend on the number of threads. Buffers are allocated when the batch's shape changes and kept otherwise.
#[derive(Debug)]
pub struct BatchNormPrior {
    network: ResNet,
    buffers: Option<Buffers>,
    terms: Vec<StatisticsTerm>,
}

#[derive(Debug)]
struct Buffers {
    plan: ResNetPlan,
    images: Vec<ImageBuffers>,
    /// One for each group of images that a worker runs.
    scratch: Vec<Scratch>,
    /// Of the whole batch, one for each BatchNorm.
    joined: Vec<Moments>,
}

#[derive(Debug)]
struct ImageBuffers {
    kept: Vec<f32>,
    moments: Vec<Moments>,
}

impl BatchNormPrior {
    /// The prior that compares with the statistics stored in `network`.
    pub fn new(network: ResNet) -> Self {
        let terms = network.units().map(|_| StatisticsTerm::default()).collect();
        Self {
            network,
            buffers: None,
            terms,
        }
    }

    /// The prior of `pixels` `[batch, 3, height, width]`, not weighted. Adds `weight` × gradient to `dpixels`.
    ///
    /// # Errors
    /// Not three channels, an axis of length zero, lengths that do not fit, values or a weight that are not finite.
    pub fn loss(
        &mut self,
        pixels: &[f32],
        shape: [usize; 4],
        weight: f32,
        dpixels: Option<&mut [f32]>,
    ) -> Result<f32, OperationError> {
        let checks = Checks("BatchNorm prior");
        checks.setting(
            "the weight",
            weight,
            weight.is_finite(),
            "it must be a finite number",
        )?;
        checks.finite("pixels", pixels, &shape)?;
        checks.channels("pixels", shape)?;
        if let Some(dpixels) = &dpixels {
            checks.length("dpixels", dpixels, &shape)?;
        }
        Ok(self.add_loss(pixels, shape, weight, dpixels) as f32)
    }

    /// [`Self::loss`] of what is known to fit.
    pub(crate) fn add_loss(
        &mut self,
        pixels: &[f32],
        shape: [usize; 4],
        weight: f32,
        dpixels: Option<&mut [f32]>,
    ) -> f64 {
        let [_, _, height, width] = shape;
        let image_length = 3 * height * width;
        let network = &self.network;
        let buffers = run(network, &mut self.buffers, pixels, shape);
        for moments in &mut buffers.joined {
            moments.clear();
        }
        for image in &buffers.images {
            for (joined, moments) in buffers.joined.iter_mut().zip(&image.moments) {
                joined.merge(moments);
            }
        }
        let units = network.units().zip(&buffers.joined);
        for (term, (unit, moments)) in self.terms.iter_mut().zip(units) {
            let norm = &unit.norm;
            term.set(moments, &norm.running_mean, &norm.running_variance, weight);
        }
        if let Some(dpixels) = dpixels {
            let group = group_size(shape[0]);
            let (plan, terms) = (&buffers.plan, &self.terms);
            let groups = buffers
                .images
                .par_chunks_mut(group)
                .zip(dpixels.par_chunks_mut(group * image_length));
            groups
                .zip(&mut buffers.scratch)
                .for_each(|((images, dpixels), scratch)| {
                    for (image, dimage) in images.iter().zip(dpixels.chunks_exact_mut(image_length))
                    {
                        plan.backward(network, &image.kept, terms, dimage, scratch);
                    }
                });
        }
        self.terms.iter().map(|term| term.loss).sum()
    }

    /// Name and value of each term of the last [`Self::loss`], in the order of computation; none before it.
    pub fn terms(&self) -> impl Iterator<Item = (&str, f32)> {
        let names = self.network.units().map(|unit| unit.norm.name.as_str());
        let known = if self.buffers.is_some() {
            self.terms.len()
        } else {
            0
        };
        names
            .zip(self.terms.iter().map(|term| term.loss as f32))
            .take(known)
    }

    /// Logits `[batch, classes]` of `pixels` `[batch, 3, height, width]`, or `None` for a network without `fc`: the check that
    /// a file holds the network it is thought to hold.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub fn logits(
        &mut self,
        pixels: &[f32],
        shape: [usize; 4],
    ) -> Result<Option<Vec<f32>>, OperationError> {
        let checks = Checks("ResNet logits");
        checks.finite("pixels", pixels, &shape)?;
        checks.channels("pixels", shape)?;
        let Some(head) = &self.network.head else {
            return Ok(None);
        };
        let channels = head.weight.len() / head.bias.len();
        let buffers = run(&self.network, &mut self.buffers, pixels, shape);
        let mut features = Vec::with_capacity(shape[0] * channels);
        for image in &buffers.images {
            let output = buffers.plan.last_output(&image.kept);
            let positions = output.len() / channels;
            features.extend(output.chunks_exact(positions).map(|plane| {
                let sum: f64 = plane.iter().map(|&value| f64::from(value)).sum();
                (sum / positions as f64) as f32
            }));
        }
        let mut logits = vec![0.0; shape[0] * head.bias.len()];
        linear_head(
            &features,
            channels,
            &head.weight,
            Some(&head.bias),
            &mut logits,
        )?;
        Ok(Some(logits))
    }
}

/// Runs all images forward with the moments of each, in buffers that fit `shape`.
fn run<'a>(
    network: &ResNet,
    buffers: &'a mut Option<Buffers>,
    pixels: &[f32],
    shape: [usize; 4],
) -> &'a mut Buffers {
    let [batch, _, height, width] = shape;
    let group = group_size(batch);
    let fits = buffers.as_ref().is_some_and(|buffers| {
        buffers.plan.size == [height, width]
            && buffers.images.len() == batch
            && buffers.scratch.len() == batch.div_ceil(group)
    });
    if !fits {
        *buffers = None;
    }
    let buffers =
        buffers.get_or_insert_with(|| Buffers::new(network, batch, [height, width], group));
    let image_length = 3 * height * width;
    let plan = &buffers.plan;
    let groups = buffers
        .images
        .par_chunks_mut(group)
        .zip(pixels.par_chunks(group * image_length));
    groups
        .zip(&mut buffers.scratch)
        .for_each(|((images, pixels), scratch)| {
            for (buffers, image) in images.iter_mut().zip(pixels.chunks_exact(image_length)) {
                plan.forward(network, image, &mut buffers.kept, scratch);
                plan.moments(&buffers.kept, &mut buffers.moments);
            }
        });
    buffers
}

/// Images that one worker runs one after the other.
fn group_size(batch: usize) -> usize {
    batch.div_ceil(rayon::current_num_threads().max(1))
}

impl Buffers {
    fn new(network: &ResNet, batch: usize, size: [usize; 2], group: usize) -> Self {
        let plan = ResNetPlan::new(network, size);
        let moments = || -> Vec<Moments> {
            let units = network.units();
            units
                .map(|unit| Moments::empty(unit.convolution.output_channels))
                .collect()
        };
        let images = (0..batch).map(|_| ImageBuffers {
            kept: vec![0.0; plan.kept_values],
            moments: moments(),
        });
        Self {
            images: images.collect(),
            scratch: (0..batch.div_ceil(group)).map(|_| plan.scratch()).collect(),
            joined: moments(),
            plan,
        }
    }
}
