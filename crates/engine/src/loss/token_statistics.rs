//! Means and variances of a backbone's LayerNorm inputs over generic pictures: collected over many batches, kept in a
//! safetensors file (`layers.0.norm1.mean`, `layers.0.norm1.variance`, …), compared with by a prior of inversion.
//! Knows sites by name; how activations are obtained is the network's business.

use super::statistics::{Moments, StatisticsTerm};
use crate::operation::OperationError;
use model::tensor::Tensor;
use model::tensor_file::{self, TensorFile, TensorFileError};
use std::collections::BTreeMap;
use thiserror::Error;

/// Why a statistics file cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TokenStatisticsError {
    /// The file is no safetensors file, or is damaged.
    #[error("token statistics: {0}")]
    File(#[from] TensorFileError),
    /// Everything that is wrong, one sentence each.
    #[error("token statistics do not fit: {}", .0.join("; "))]
    Problems(Vec<String>),
    /// The encoder of safetensors refused them; its words.
    #[error("token statistics cannot be written: {0}")]
    Write(String),
}

/// Statistics of one LayerNorm's input, each `[width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteStatistics {
    /// Over tokens and pictures.
    pub mean: Vec<f32>,
    /// Biased.
    pub variance: Vec<f32>,
}

/// Statistics by site name, such as `layers.0.norm1`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenStatistics {
    /// By name, `layers.LAYER.norm1` and `layers.LAYER.norm2`.
    pub sites: BTreeMap<String, SiteStatistics>,
    /// The backbone they were taken from.
    pub backbone_digest: String,
}

const DIGEST_KEY: &str = "backbone_digest";

impl TokenStatistics {
    /// Reads a file and checks that every site has a mean and a variance of `width` values.
    ///
    /// # Errors
    /// [`TokenStatisticsError`], with all problems at once.
    pub fn read(bytes: &[u8], width: usize) -> Result<Self, TokenStatisticsError> {
        let file = TensorFile::parse(bytes)?;
        let mut problems = Vec::new();
        let mut sites = BTreeMap::new();
        let mut read = |name: &str| match file.read_shaped(name, &[width]) {
            Ok(tensor) => Some(tensor.into_data()),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        let mut unknown = Vec::new();
        for name in file.names() {
            if let Some(site) = name.strip_suffix(".mean") {
                let mean = read(name);
                let variance = read(&format!("{site}.variance"));
                if let (Some(mean), Some(variance)) = (mean, variance) {
                    sites.insert(site.to_owned(), SiteStatistics { mean, variance });
                }
            } else {
                let mean = name
                    .strip_suffix(".variance")
                    .map(|site| format!("{site}.mean"));
                match mean {
                    Some(mean) if file.shape(&mean).is_none() => {
                        unknown.push(format!("{mean}: missing"))
                    }
                    Some(_) => {}
                    None => unknown.push(format!("{name}: neither a mean nor a variance")),
                }
            }
        }
        problems.append(&mut unknown);
        for (site, statistics) in &sites {
            if let Some(value) = statistics.variance.iter().find(|value| **value < 0.0) {
                problems.push(format!("{site}.variance: {value} is below zero"));
            }
        }
        if sites.is_empty() && problems.is_empty() {
            problems.push("the file holds no statistics".into());
        }
        if !problems.is_empty() {
            return Err(TokenStatisticsError::Problems(problems));
        }
        let backbone_digest = file.metadata().get(DIGEST_KEY).cloned().unwrap_or_default();
        Ok(Self {
            sites,
            backbone_digest,
        })
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// [`TokenStatisticsError::Write`] where the container cannot hold them.
    pub fn write(&self) -> Result<Vec<u8>, TokenStatisticsError> {
        let mut tensors = BTreeMap::new();
        for (site, statistics) in &self.sites {
            for (part, values) in [
                ("mean", &statistics.mean),
                ("variance", &statistics.variance),
            ] {
                let tensor = Tensor::new([values.len()], values.clone())
                    .map_err(|error| TokenStatisticsError::Write(error.to_string()))?;
                tensors.insert(format!("{site}.{part}"), tensor);
            }
        }
        let metadata = BTreeMap::from([(DIGEST_KEY.to_owned(), self.backbone_digest.clone())]);
        tensor_file::write(&tensors, &metadata).map_err(TokenStatisticsError::Write)
    }
}

/// Collects statistics over any number of batches.
#[derive(Debug, Clone, Default)]
pub struct TokenStatisticsCollector {
    sites: BTreeMap<String, Moments>,
    part: Moments,
}

impl TokenStatisticsCollector {
    /// Adds `activations` `[tokens, width]` seen at `site`.
    ///
    /// # Errors
    /// Zero tokens, another width than before, values that are not finite.
    pub fn add(
        &mut self,
        site: &str,
        activations: &[f32],
        width: usize,
    ) -> Result<(), OperationError> {
        let mut part = std::mem::take(&mut self.part);
        if part.mean.len() != width {
            part = Moments::empty(width);
        }
        let rows = activations.len().checked_div(width).unwrap_or(0);
        let added = match self.sites.get(site) {
            Some(own) if own.mean.len() != width => Err(other_width(rows, width, own)),
            _ => part.of_rows(activations),
        };
        let added = added.and_then(|()| self.add_moments(site, &part));
        self.part = part;
        added
    }

    /// Adds the tokens that `moments` summarises, seen at `site`.
    ///
    /// # Errors
    /// Another width than before.
    pub fn add_moments(&mut self, site: &str, moments: &Moments) -> Result<(), OperationError> {
        let width = moments.mean.len();
        match self.sites.get_mut(site) {
            Some(own) if own.mean.len() != width => {
                return Err(other_width(moments.count as usize, width, own));
            }
            Some(own) => own.merge(moments),
            None => {
                self.sites.insert(site.to_owned(), moments.clone());
            }
        }
        Ok(())
    }

    /// Statistics of all that was added, for the backbone with `backbone_digest`.
    pub fn finish(&self, backbone_digest: &str) -> TokenStatistics {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        let sites = self.sites.iter().map(|(site, moments)| {
            let variance = (0..moments.mean.len()).map(|c| moments.variance(c) as f32);
            let statistics = SiteStatistics {
                mean: narrow(&moments.mean),
                variance: variance.collect(),
            };
            (site.clone(), statistics)
        });
        TokenStatistics {
            sites: sites.collect(),
            backbone_digest: backbone_digest.to_owned(),
        }
    }
}

fn other_width(rows: usize, width: usize, own: &Moments) -> OperationError {
    OperationError::Mismatch {
        operation: "token statistics",
        left: "activations",
        left_shape: vec![rows, width],
        right: "the site's earlier mean",
        right_shape: vec![own.mean.len()],
    }
}

impl SiteStatistics {
    /// ‖mean − stored mean‖₂ + ‖variance − stored variance‖₂ of `activations` `[tokens, width]` of the whole batch, not
    /// weighted. Adds `weight` × gradient to `dactivations`. A batch in parts uses [`Moments`] and [`StatisticsTerm`].
    ///
    /// # Errors
    /// Zero tokens, lengths that do not fit, values or a weight that are not finite.
    pub fn loss(
        &self,
        activations: &[f32],
        weight: f32,
        dactivations: Option<&mut [f32]>,
    ) -> Result<f32, OperationError> {
        let checks = crate::operation::Checks("token-statistics prior");
        let width = self.mean.len();
        let tokens = activations.len().checked_div(width).unwrap_or(0);
        checks.setting(
            "the weight",
            weight,
            weight.is_finite(),
            "it must be a finite number",
        )?;
        checks.finite("activations", activations, &[tokens, width])?;
        checks.length("the stored variance", &self.variance, &[width])?;
        if let Some(dactivations) = &dactivations {
            checks.length("dactivations", dactivations, &[tokens, width])?;
        }
        let mut moments = Moments::empty(width);
        moments.of_rows(activations)?;
        let mut term = StatisticsTerm::default();
        term.set(&moments, &self.mean, &self.variance, weight);
        if let Some(dactivations) = dactivations {
            term.add_gradient_to_rows(activations, dactivations)?;
        }
        Ok(term.loss as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::gradient_check::noise;

    fn collected() -> TokenStatistics {
        let mut collector = TokenStatisticsCollector::default();
        for (seed, tokens) in [(1, 5), (2, 1), (3, 17)] {
            let activations = noise(seed, tokens * 3);
            collector.add("layers.0.norm1", &activations, 3).unwrap();
            collector.add("final_norm", &activations[..3], 3).unwrap();
        }
        collector.finish("abc")
    }

    #[test]
    fn statistics_of_three_batches_are_those_of_their_union_and_give_it_a_loss_of_zero() {
        let union: Vec<f32> = [(1, 5), (2, 1), (3, 17)]
            .into_iter()
            .flat_map(|(seed, tokens)| noise(seed, tokens * 3))
            .collect();
        let statistics = collected();
        let site = &statistics.sites["layers.0.norm1"];
        let loss = site.loss(&union, 1.0, None).unwrap();
        // The stored values are rounded to f32; on other tokens the loss is of the size of the values, about 0.3.
        assert!(loss < 1e-6, "{loss}");
        assert!(site.loss(&union[..12], 1.0, None).unwrap() > 0.05);
    }

    #[test]
    fn a_written_file_reads_back_equal() {
        let statistics = collected();
        let bytes = statistics.write().unwrap();
        assert_eq!(TokenStatistics::read(&bytes, 3).unwrap(), statistics);
    }

    #[test]
    fn all_problems_of_a_file_are_listed() {
        let tensors = [
            ("a.mean", vec![0.0; 3]),
            ("a.variance", vec![-1.0, 0.0, 0.0]),
            ("b.mean", vec![0.0; 2]),
            ("c.variance", vec![0.0; 3]),
            ("d", vec![0.0; 3]),
        ];
        let tensors = tensors.map(|(name, values)| {
            (
                name.to_owned(),
                Tensor::new([values.len()], values).unwrap(),
            )
        });
        let bytes = tensor_file::write(&tensors.into(), &BTreeMap::new()).unwrap();
        let error = TokenStatistics::read(&bytes, 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "token statistics do not fit: b.mean: shape [2], expected [3]; b.variance: missing; c.mean: missing; \
             d: neither a mean nor a variance; a.variance: -1 is below zero"
        );
    }

    #[test]
    fn activations_of_another_width_are_refused() {
        let mut collector = TokenStatisticsCollector::default();
        collector.add("a", &[0.0; 6], 3).unwrap();
        let error = collector.add("a", &[0.0; 6], 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "token statistics: activations has shape [3, 2], which does not go with the site's earlier mean of shape [3]"
        );
    }
}
