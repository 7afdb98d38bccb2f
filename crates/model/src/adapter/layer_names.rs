//! How Hugging Face's models call the linear maps of a layer, before and after transformers 5.
//! Knows names only; which of them an adapter may use is for the import to say.

use super::{Site, Target};
use crate::backbone::Architecture;
use serde::{Deserialize, Serialize};

/// Whose module names a PEFT folder uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NameStyle {
    /// transformers 4
    V4,
    /// transformers 5
    V5,
}

/// One way to read the path of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub architecture: Architecture,
    pub style: NameStyle,
    /// What precedes the layers, with its dot: `vit.`, `vision_model.` or nothing.
    pub prefix: String,
    pub site: Site,
}

const ARCHITECTURES: [Architecture; 3] =
    [Architecture::Vit, Architecture::Dinov2, Architecture::Clip];

/// The path of a site's module below `prefix`.
pub(super) fn module_path(
    architecture: Architecture,
    style: NameStyle,
    prefix: &str,
    site: Site,
) -> String {
    format!(
        "{prefix}{}.{}.{}",
        stem(architecture, style),
        site.layer,
        part(architecture, style, site.target)
    )
}

/// Every family and style in which `path` is the name of a linear map; empty for all other modules.
pub(super) fn readings(path: &str) -> Vec<Reading> {
    let mut readings = Vec::new();
    for architecture in ARCHITECTURES {
        for style in [NameStyle::V4, NameStyle::V5] {
            for prefix in prefixes(architecture) {
                let Some(site) = path
                    .strip_prefix(prefix)
                    .and_then(|rest| rest.strip_prefix(stem(architecture, style)))
                    .and_then(|rest| rest.strip_prefix('.'))
                    .and_then(|rest| rest.split_once('.'))
                    .and_then(|(layer, part)| site(architecture, style, layer, part))
                else {
                    continue;
                };
                readings.push(Reading {
                    architecture,
                    style,
                    prefix: (*prefix).to_owned(),
                    site,
                });
            }
        }
    }
    readings
}

fn site(architecture: Architecture, style: NameStyle, layer: &str, rest: &str) -> Option<Site> {
    let plain = layer.len() <= 6
        && layer.bytes().all(|byte| byte.is_ascii_digit())
        && (layer.len() == 1 || !layer.starts_with('0'));
    let layer = plain.then(|| layer.parse().ok()).flatten()?;
    let target = Target::ALL
        .into_iter()
        .find(|&target| part(architecture, style, target) == rest)?;
    Some(Site { layer, target })
}

/// Why a path without readings cannot carry a LoRA here.
pub(super) fn refusal(path: &str) -> String {
    let holds = |part: &str| path.split('.').any(|step| step == part);
    if holds("text_model") || holds("text_projection") {
        "belongs to CLIP's text model, which has no part in image features; tune with target_modules that name vision_model only".into()
    } else if path.contains("patch_embedding") {
        "is the patch embedding convolution; LoRA is supported on query, key, value, output and MLP of the layers only".into()
    } else if holds("visual_projection") {
        "is CLIP's projection; LoRA is supported on query, key, value, output and MLP of the layers only".into()
    } else if holds("qkv") || holds("in_proj") {
        "is a fused query-key-value map of another library; split it into query, key and value first".into()
    } else if holds("classifier") || holds("score") || holds("head") {
        "is a classification head with a LoRA; put the head into modules_to_save instead".into()
    } else {
        "is not a linear map of a vit, dinov2 or clip layer".into()
    }
}

/// What may precede the layers: models with and without a task head.
fn prefixes(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Vit => &["vit.", ""],
        Architecture::Dinov2 => &["dinov2.", ""],
        Architecture::Clip => &["vision_model.", ""],
    }
}

fn stem(architecture: Architecture, style: NameStyle) -> &'static str {
    match (architecture, style) {
        (Architecture::Vit, NameStyle::V5) => "layers",
        (Architecture::Vit, NameStyle::V4) | (Architecture::Dinov2, _) => "encoder.layer",
        (Architecture::Clip, _) => "encoder.layers",
    }
}

fn part(architecture: Architecture, style: NameStyle, target: Target) -> &'static str {
    match (architecture, style) {
        (Architecture::Clip, _) => match target {
            Target::Query => "self_attn.q_proj",
            Target::Key => "self_attn.k_proj",
            Target::Value => "self_attn.v_proj",
            Target::Output => "self_attn.out_proj",
            Target::MlpIn => "mlp.fc1",
            Target::MlpOut => "mlp.fc2",
        },
        (_, NameStyle::V5) => match target {
            Target::Query => "attention.q_proj",
            Target::Key => "attention.k_proj",
            Target::Value => "attention.v_proj",
            Target::Output => "attention.o_proj",
            Target::MlpIn => "mlp.fc1",
            Target::MlpOut => "mlp.fc2",
        },
        (_, NameStyle::V4) => match (target, architecture) {
            (Target::Query, _) => "attention.attention.query",
            (Target::Key, _) => "attention.attention.key",
            (Target::Value, _) => "attention.attention.value",
            (Target::Output, _) => "attention.output.dense",
            (Target::MlpIn, Architecture::Vit) => "intermediate.dense",
            (Target::MlpOut, Architecture::Vit) => "output.dense",
            (Target::MlpIn, _) => "mlp.fc1",
            (Target::MlpOut, _) => "mlp.fc2",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_path_reads_back_as_its_site() {
        for architecture in ARCHITECTURES {
            for style in [NameStyle::V4, NameStyle::V5] {
                for target in Target::ALL {
                    let site = Site { layer: 11, target };
                    let prefix = prefixes(architecture)[0];
                    let path = module_path(architecture, style, prefix, site);
                    assert!(
                        readings(&path).iter().any(|reading| {
                            reading.architecture == architecture
                                && reading.style == style
                                && reading.site == site
                        }),
                        "{path}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_layer_number_is_read_only_as_it_is_written() {
        assert!(readings("vit.layers.07.attention.q_proj").is_empty());
        assert!(readings("vit.layers.-1.attention.q_proj").is_empty());
        assert!(readings("vit.layers..attention.q_proj").is_empty());
        assert!(readings("vit.layers.99999999999999999999.attention.q_proj").is_empty());
    }
}
