//! A PEFT folder: which tensor is which, what the configuration asks for, and how both go with a backbone.

use super::{
    BACKBONE_DIGEST_KEY, CheckedLayout, HEAD_FILE, HEAD_INPUT_KEY, HeadNames, ImportInput,
    WEIGHTS_LIMITS, build, choose, finish_head, labels_in_metadata,
};
use crate::adapter::layer_names::{NameStyle, Reading, module_path, readings, refusal};
use crate::adapter::peft_config::{PeftConfig, labels_of};
use crate::adapter::report::{BackboneCandidate, ImportReport, TensorEntry, TensorStatus};
use crate::adapter::{Adapter, Head, HeadInput, Site, Target};
use crate::backbone::Architecture;
use crate::tensor_file::TensorFile;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const PREFIX: &str = "base_model.model.";

/// What a tensor's name says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// `A` or `B` of the module at this path.
    LoraMatrix(Side, String),
    HeadWeight,
    HeadBias,
    Ignored(&'static str),
    Refused(String),
}

/// Which matrix of a low-rank pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// `[rank, in]`, called `lora_A` by PEFT.
    A,
    /// `[out, rank]`, called `lora_B` by PEFT.
    B,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::A => "lora_A",
            Self::B => "lora_B",
        }
    }
}

fn tensor_name(path: &str, side: Side) -> String {
    format!("{PREFIX}{path}.{}.weight", side.name())
}

fn role(name: &str) -> Role {
    let Some(path) = name.strip_prefix(PREFIX) else {
        return Role::Refused(format!(
            "is not a name that PEFT gives; its names start with {PREFIX}"
        ));
    };
    if path.contains("lora_magnitude_vector") {
        return Role::Refused("is a magnitude of DoRA, which is not supported".into());
    }
    if path.contains("lora_embedding_") {
        return Role::Refused("is a LoRA on an embedding, which is not supported".into());
    }
    for side in [Side::A, Side::B] {
        // An adapter's name may come between, where the state was saved by hand.
        if let Some((module, rest)) = path.split_once(&format!(".{}.", side.name())) {
            let plain = rest == "weight"
                || rest
                    .strip_suffix(".weight")
                    .is_some_and(|name| !name.contains('.'));
            if !plain {
                return Role::Refused("is a bias of a LoRA, which is not supported".into());
            }
            if module == "pooler.dense" || module.ends_with(".pooler.dense") {
                return Role::Ignored("the pooler has no part in the feature");
            }
            return Role::LoraMatrix(side, module.to_owned());
        }
    }
    head_role(path)
}

/// The LoRA matrix of a backbone of this architecture that PEFT calls `name`, in either name style; `None` for all other tensors.
pub fn peft_lora_matrix(architecture: Architecture, name: &str) -> Option<(Site, Side)> {
    let Role::LoraMatrix(side, path) = role(name) else {
        return None;
    };
    let reading = readings(&path)
        .into_iter()
        .find(|reading| reading.architecture == architecture)?;
    Some((reading.site, side))
}

/// `classifier.weight`, or as older versions wrote it `classifier.modules_to_save.default.weight`.
fn head_role(path: &str) -> Role {
    let steps: Vec<&str> = path.split('.').collect();
    match steps.as_slice() {
        ["classifier", "weight"] | ["classifier", "modules_to_save", _, "weight"] => {
            Role::HeadWeight
        }
        ["classifier", "bias"] | ["classifier", "modules_to_save", _, "bias"] => Role::HeadBias,
        ["classifier", "original_module", "weight" | "bias"] => {
            Role::Ignored("the head before tuning; the tuned one is used")
        }
        [.., "bias"] => Role::Refused("is a bias; tuned biases are not supported".into()),
        _ => Role::Refused("is not a tensor of a LoRA or of a classifier".into()),
    }
}

pub(super) fn import(
    source: &ImportInput<'_, '_>,
    config: PeftConfig,
    report: &mut ImportReport,
) -> Option<(Adapter, BackboneCandidate)> {
    let roles: Vec<(&str, Role)> = source.file.names().map(|name| (name, role(name))).collect();
    let digest = config.backbone_digest.as_deref().or_else(|| {
        source
            .file
            .metadata()
            .get(BACKBONE_DIGEST_KEY)
            .map(String::as_str)
    });
    let chosen = choose(source.candidates, digest, report, |candidate| {
        Check {
            file: source.file,
            config: &config,
            roles: &roles,
            candidate,
            checked: CheckedLayout::default(),
        }
        .run()
    });
    let (candidate, mut checked) = chosen?;
    let mut adapter = build(source, &mut checked, report);
    report.tensors = checked.entries;
    let mut labels = labels_in_metadata(source.file)
        .or_else(|| config.labels.clone())
        .or_else(|| labels_in_model_config(source));
    if let Some((head, head_labels)) = read_head_file(source, candidate, report) {
        if adapter.head.is_some() {
            report.errors.push(format!(
                "there are two heads, a classifier and {HEAD_FILE}; remove one of them"
            ));
        }
        adapter.head = Some(head);
        labels = head_labels.or(labels);
    }
    finish_head(&mut adapter, labels, report);
    Some((adapter, candidate.clone()))
}

/// One candidate's check in progress.
struct Check<'a, 'b> {
    file: &'a TensorFile<'b>,
    config: &'a PeftConfig,
    roles: &'a [(&'a str, Role)],
    candidate: &'a BackboneCandidate,
    checked: CheckedLayout,
}

impl Check<'_, '_> {
    fn run(mut self) -> CheckedLayout {
        self.check_class();
        let naming = self.naming();
        let mut found: BTreeMap<(Site, Side), String> = BTreeMap::new();
        for (name, role) in self.roles {
            let mut entry = TensorEntry {
                name: (*name).to_owned(),
                status: TensorStatus::Used,
                shape: self.file.shape(name).map(<[usize]>::to_vec),
                site: None,
                detail: None,
            };
            match role {
                Role::Ignored(reason) => {
                    entry.status = TensorStatus::Ignored;
                    entry.detail = Some((*reason).to_owned());
                }
                Role::Refused(reason) => refuse(&mut entry, reason.clone()),
                Role::HeadWeight | Role::HeadBias => self.head(role, &mut entry),
                Role::LoraMatrix(side, path) => {
                    self.lora_matrix(*side, path, naming.as_ref(), &mut entry);
                    if let (Some(site), false) = (entry.site, entry.status.is_problem())
                        && let Some(other) = found.insert((site, *side), entry.name.clone())
                    {
                        refuse(&mut entry, format!("is the same as {other}"));
                    }
                }
            }
            self.checked.add(entry);
        }
        self.missing(naming.as_ref(), &found);
        self.missing_head();
        self.checked.style = naming.map(|(style, _)| style);
        self.checked
    }

    fn problem(&mut self, sentence: String) {
        self.checked.problems.push(sentence);
    }

    fn check_class(&mut self) {
        let Some(class) = &self.config.base_model_class else {
            return;
        };
        let family = [
            ("Dinov2", Architecture::Dinov2),
            ("ViT", Architecture::Vit),
            ("CLIP", Architecture::Clip),
        ]
        .into_iter()
        .find(|(start, _)| class.starts_with(start))
        .map(|(_, architecture)| architecture);
        if let Some(family) = family
            && family != self.candidate.config.architecture
        {
            let sentence = format!(
                "the adapter was made on {class}, {} is a {} model",
                self.candidate.name,
                self.candidate.config.architecture.name()
            );
            self.problem(sentence);
        }
    }

    /// Style and prefix that read every LoRA matrix's path; the style of transformers 4 where both do.
    fn naming(&mut self) -> Option<(NameStyle, String)> {
        let mut common: Option<BTreeSet<(NameStyle, String)>> = None;
        let mut mixed = None;
        for (name, role) in self.roles {
            let Role::LoraMatrix(_, path) = role else {
                continue;
            };
            let here: BTreeSet<_> = self
                .readings(path)
                .into_iter()
                .map(|reading| (reading.style, reading.prefix))
                .collect();
            if here.is_empty() {
                continue;
            }
            let both: BTreeSet<_> = match &common {
                None => here,
                Some(common) => common.intersection(&here).cloned().collect(),
            };
            if both.is_empty() {
                mixed.get_or_insert_with(|| (*name).to_owned());
            } else {
                common = Some(both);
            }
        }
        if let Some(name) = mixed {
            self.problem(format!(
                "{name}: the other names of the file are of another style; one adapter uses one style"
            ));
        }
        common.and_then(|common| common.into_iter().next())
    }

    fn readings(&self, path: &str) -> Vec<Reading> {
        let mut readings = readings(path);
        readings.retain(|reading| reading.architecture == self.candidate.config.architecture);
        readings
    }

    fn lora_matrix(
        &self,
        side: Side,
        path: &str,
        naming: Option<&(NameStyle, String)>,
        entry: &mut TensorEntry,
    ) {
        let model = &self.candidate.config;
        let Some(reading) = self.readings(path).into_iter().find(|reading| {
            naming
                .is_some_and(|(style, prefix)| reading.style == *style && reading.prefix == *prefix)
        }) else {
            let family = readings(path).into_iter().next();
            let reason = match family {
                Some(other) if other.architecture != model.architecture => format!(
                    "is a name of {} models, {} is a {} model",
                    other.architecture.name(),
                    self.candidate.name,
                    model.architecture.name()
                ),
                Some(_) => "is a name of another style than the others".into(),
                None => refusal(path),
            };
            return refuse(entry, reason);
        };
        let site = reading.site;
        entry.site = Some(site);
        if site.layer >= model.layers {
            return refuse(
                entry,
                format!(
                    "is for layer {}, {} has {} layers (0 to {})",
                    site.layer,
                    self.candidate.name,
                    model.layers,
                    model.layers - 1
                ),
            );
        }
        if self.config.targets(path) == Some(false) {
            return refuse(
                entry,
                "is not among target_modules; PEFT would leave it out silently".into(),
            );
        }
        let rank = self.config.rank_at(path);
        let (outputs, inputs) = site.target.widths(model);
        let expected = match side {
            Side::A => [rank, inputs],
            Side::B => [outputs, rank],
        };
        let found = entry.shape.clone().unwrap_or_default();
        if found != expected {
            entry.status = TensorStatus::Misshapen;
            entry.detail = Some(format!("shape {found:?}, expected {expected:?}"));
            return;
        }
        let usual = module_path(model.architecture, NameStyle::V4, &reading.prefix, site);
        if entry.name != tensor_name(&usual, side) {
            entry.status = TensorStatus::Renamed;
            entry.detail = Some(format!("read as {}", tensor_name(&usual, side)));
        }
    }

    /// What the configuration asks for and the file does not hold, and the pairs that are complete.
    fn missing(
        &mut self,
        naming: Option<&(NameStyle, String)>,
        found: &BTreeMap<(Site, Side), String>,
    ) {
        let Some((style, prefix)) = naming else {
            if !self
                .roles
                .iter()
                .any(|(_, role)| matches!(role, Role::LoraMatrix(..)))
            {
                self.problem("the file holds no LoRA tensors".into());
            }
            return;
        };
        let model = &self.candidate.config;
        for layer in 0..model.layers {
            for target in Target::ALL {
                let site = Site { layer, target };
                let path = module_path(model.architecture, *style, prefix, site);
                let side = |side| found.get(&(site, side)).cloned();
                let (a, b) = (side(Side::A), side(Side::B));
                let wanted = match self.config.targets(&path) {
                    Some(wanted) => wanted,
                    None => a.is_some() || b.is_some(),
                };
                if !wanted {
                    continue;
                }
                for (name, side) in [(&a, Side::A), (&b, Side::B)] {
                    // A tensor that is there but does not fit has its own row.
                    let present = self.roles.iter().any(
                        |(_, role)| matches!(role, Role::LoraMatrix(s, p) if *s == side && *p == path),
                    );
                    if name.is_none() && !present {
                        self.checked.add(TensorEntry {
                            name: tensor_name(&path, side),
                            status: TensorStatus::Missing,
                            shape: None,
                            site: Some(site),
                            detail: Some("missing; the configuration asks for it".into()),
                        });
                    }
                }
                if let (Some(a), Some(b)) = (a, b) {
                    let scale = self.config.scale_at(&path);
                    self.checked.pairs.insert(site, (a, b, scale));
                }
            }
        }
    }

    fn head(&mut self, role: &Role, entry: &mut TensorEntry) {
        let model = &self.candidate.config;
        if !self
            .config
            .modules_to_save
            .iter()
            .any(|module| module == "classifier")
        {
            return refuse(
                entry,
                "is a head, but modules_to_save does not name the classifier; PEFT would leave it out silently".into(),
            );
        }
        let input = match self.head_input() {
            Ok(input) => input,
            Err(reason) => return refuse(entry, reason),
        };
        let found = entry.shape.clone().unwrap_or_default();
        let (expected, fits) = match role {
            Role::HeadWeight => (
                format!("[classes, {}]", input.width(model)),
                matches!(found[..], [classes, inputs] if classes > 0 && inputs == input.width(model)),
            ),
            _ => {
                let classes = self.roles.iter().find_map(|(name, role)| {
                    (*role == Role::HeadWeight).then(|| self.file.shape(name)?.first().copied())?
                });
                (
                    classes.map_or("[classes]".into(), |classes| format!("[{classes}]")),
                    found.len() == 1 && classes.is_none_or(|classes| found == [classes]),
                )
            }
        };
        if !fits {
            entry.status = TensorStatus::Misshapen;
            entry.detail = Some(format!("shape {found:?}, expected {expected}"));
            return;
        }
        let plain = ["weight", "bias"]
            .iter()
            .any(|part| entry.name == format!("{PREFIX}classifier.{part}"));
        if !plain {
            entry.status = TensorStatus::Renamed;
        }
        entry.detail = Some("the head".into());
        let names = self.checked.head.get_or_insert_with(|| HeadNames {
            weight: String::new(),
            bias: None,
            input,
        });
        let slot_is_free = match role {
            Role::HeadWeight => {
                let free = names.weight.is_empty();
                names.weight.clone_from(&entry.name);
                free
            }
            _ => names.bias.replace(entry.name.clone()).is_none(),
        };
        if !slot_is_free {
            refuse(entry, "appears twice under different names".into());
        }
    }

    /// What the family's classifier reads, or what the export of this program noted.
    fn head_input(&self) -> Result<HeadInput, String> {
        if let Some(noted) = self.file.metadata().get(HEAD_INPUT_KEY) {
            return parse_head_input(noted);
        }
        match self.candidate.config.architecture {
            Architecture::Vit => Ok(HeadInput::Cls),
            Architecture::Dinov2 => Ok(HeadInput::ClsMean),
            Architecture::Clip => Err(
                "is the head of CLIPForImageClassification, which reads the mean of the patch tokens; that is not supported, use a head on the image embedding".into(),
            ),
        }
    }

    fn missing_head(&mut self) {
        let wanted = self
            .config
            .modules_to_save
            .iter()
            .any(|module| module == "classifier");
        let weight = self.roles.iter().any(|(_, role)| *role == Role::HeadWeight);
        if wanted && !weight {
            self.checked.add(TensorEntry {
                name: format!("{PREFIX}classifier.weight"),
                status: TensorStatus::Missing,
                shape: None,
                site: None,
                detail: Some("missing; modules_to_save asks for it".into()),
            });
        }
    }
}

fn refuse(entry: &mut TensorEntry, reason: String) {
    entry.status = TensorStatus::Refused;
    entry.detail = Some(reason);
}

fn parse_head_input(noted: &str) -> Result<HeadInput, String> {
    serde_json::from_value(Value::from(noted))
        .map_err(|_| format!("reads \"{noted}\", which is not one of feature, cls and cls_mean"))
}

/// Labels of a model's `config.json` beside the adapter.
fn labels_in_model_config(source: &ImportInput<'_, '_>) -> Option<Vec<String>> {
    let file = source
        .files
        .iter()
        .find(|file| file.path == "config.json")?;
    match serde_json::from_slice(&file.bytes) {
        Ok(Value::Object(root)) => labels_of(&root),
        _ => None,
    }
}

/// A head beside PEFT's files, and its labels.
fn read_head_file(
    source: &ImportInput<'_, '_>,
    candidate: &BackboneCandidate,
    report: &mut ImportReport,
) -> Option<(Head, Option<Vec<String>>)> {
    let file = source.files.iter().find(|file| file.path == HEAD_FILE)?;
    let read = || -> Result<(Head, Option<Vec<String>>), String> {
        let tensors = TensorFile::parse_within(&file.bytes, WEIGHTS_LIMITS)
            .map_err(|error| error.to_string())?;
        let input = tensors
            .metadata()
            .get(HEAD_INPUT_KEY)
            .map_or(Ok(HeadInput::Feature), |noted| parse_head_input(noted))?;
        if let Some(name) = tensors
            .names()
            .find(|name| !matches!(*name, "weight" | "bias"))
        {
            return Err(format!("{name}: is neither weight nor bias"));
        }
        let weight = tensors.read("weight").map_err(|error| error.to_string())?;
        let inputs = input.width(&candidate.config);
        let classes = match *weight.shape() {
            [classes, found] if classes > 0 && found == inputs => classes,
            _ => {
                return Err(format!(
                    "weight: shape {:?}, expected [classes, {inputs}]",
                    weight.shape()
                ));
            }
        };
        let bias = match tensors.shape("bias") {
            None => None,
            Some(shape) if *shape == [classes] => {
                Some(tensors.read("bias").map_err(|error| error.to_string())?)
            }
            Some(shape) => return Err(format!("bias: shape {shape:?}, expected [{classes}]")),
        };
        let head = Head {
            weight,
            bias,
            input,
            labels: Vec::new(),
        };
        Ok((head, labels_in_metadata(&tensors)))
    };
    read()
        .map_err(|error| report.errors.push(format!("{HEAD_FILE}: {error}")))
        .ok()
}
