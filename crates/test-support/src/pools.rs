//! Synthetic images of the tiny backbones, made by a few steps of inversion.

use crate::fixtures::{adapter, backbone};
use engine::session::{Device, SessionOptions};
use model::adapter::Adapter;
use recycle::inversion::{Inversion, InversionOutcome, InversionRecipe, PriorData};
use recycle::pool::{Pool, Provenance};
use recycle::steps::{StepReport, Steps};
use std::collections::BTreeMap;

/// Several workers and several micro-batches each, so that tests meet both.
pub const OPTIONS: SessionOptions = SessionOptions {
    threads: 2,
    images_per_micro_batch: 3,
    device: Device::Cpu,
};

/// The adapter of the reference, with labels. Its head is far from sure of anything, so it is made sharper.
pub fn teacher(model: &str) -> Adapter {
    let mut adapter = adapter(model);
    let head = adapter.head.as_mut().unwrap();
    head.labels = ["ant", "bee", "cat", "dog", "eel"]
        .map(str::to_owned)
        .to_vec();
    head.weight
        .data_mut()
        .iter_mut()
        .for_each(|value| *value *= 4.0);
    adapter
}

/// An inversion that takes a moment.
pub fn quick() -> InversionRecipe {
    InversionRecipe {
        steps: 40,
        images_per_class: 2,
        ..InversionRecipe::fast()
    }
}

/// All reports and the outcome.
pub fn invert(model: &str, recipe: InversionRecipe) -> (Vec<StepReport>, InversionOutcome) {
    let data = PriorData::default();
    finish(Inversion::new(&backbone(model), teacher(model), data, recipe, OPTIONS).unwrap())
}

/// Drives `inversion` to its end: all reports and the outcome.
pub fn finish(mut inversion: Inversion) -> (Vec<StepReport>, InversionOutcome) {
    let mut reports = Vec::new();
    while !inversion.is_done() {
        assert!(inversion.outcome().unwrap().is_none());
        reports.push(inversion.step().unwrap());
    }
    (reports, inversion.outcome().unwrap().unwrap())
}

/// A short inversion with pruning.
pub fn recipe() -> InversionRecipe {
    InversionRecipe {
        steps: 3,
        pruning: BTreeMap::from([(1, 0.5)]),
        ..quick()
    }
}

/// A pool for `dinov2-tiny`.
pub fn pool() -> Pool {
    pool_on("dinov2-tiny")
}

/// A pool for one of the tiny backbones.
pub fn pool_on(model: &str) -> Pool {
    let (_, outcome) = invert(model, recipe());
    let backbone = backbone(model);
    let from = Provenance {
        adapter_digest: &teacher(model).digest(),
        backbone_digest: &backbone.digest,
        patch_size: backbone.config.patch_size,
        recipe: &recipe(),
    };
    Pool::new(outcome, from).unwrap()
}
