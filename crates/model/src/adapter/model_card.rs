//! The README that goes with an exported adapter: what it is, what it changes, how PEFT loads it.

use super::layer_names::NameStyle;
use super::{Adapter, ExportOptions, Target};
use serde_json::json;
use std::fmt::Write;

pub(super) fn write(
    adapter: &Adapter,
    options: &ExportOptions<'_>,
    class: &str,
    has_classifier: bool,
) -> String {
    let mut card = String::from("---\nlibrary_name: peft\n");
    if let Some(base) = options.base_model {
        // JSON's quoting is YAML's too; a title or path must not add keys of its own.
        let _ = writeln!(card, "base_model: {}", json!(base));
    }
    card.push_str("tags:\n- lora\n- image-classification\n---\n\n");
    let title = one_line(options.title);
    let _ = writeln!(card, "# {title}\n");
    let version = match options.names {
        NameStyle::V4 => "4",
        NameStyle::V5 => "5",
    };
    let config = &options.backbone.config;
    let _ = writeln!(
        card,
        "A LoRA adapter for the {} backbone `{}` ({} layers, width {}).\nModule names are those of transformers {version}.\n",
        config.architecture.name(),
        one_line(&options.backbone.name),
        config.layers,
        config.width,
    );
    let _ = writeln!(
        card,
        "- adapter digest: `{}`\n- backbone digest: `{}`\n",
        adapter.digest(),
        options.backbone.digest
    );
    changes(&mut card, adapter);
    head(&mut card, adapter, has_classifier);
    let base = options.base_model.unwrap_or("path/of/the/backbone");
    let labels = match (&adapter.head, has_classifier) {
        (Some(head), true) => format!(", num_labels={}", head.weight.shape()[0]),
        _ => String::new(),
    };
    let _ = writeln!(
        card,
        "## Use\n\n```python\nfrom peft import PeftModel\nfrom transformers import {class}\n\nbase = {class}.from_pretrained({}{labels})\nmodel = PeftModel.from_pretrained(base, \"path/of/this/folder\")\n```",
        json!(base)
    );
    card
}

fn changes(card: &mut String, adapter: &Adapter) {
    card.push_str("| map | layers | rank | scale |\n|---|---|---|---|\n");
    for target in Target::ALL {
        let here: Vec<_> = adapter
            .pairs
            .iter()
            .filter(|(site, _)| site.target == target)
            .collect();
        if here.is_empty() {
            continue;
        }
        let layers: Vec<String> = here
            .iter()
            .map(|(site, _)| site.layer.to_string())
            .collect();
        let mut ranks: Vec<usize> = here.iter().map(|(_, pair)| pair.rank()).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut scales: Vec<f32> = here.iter().map(|(_, pair)| pair.scale).collect();
        scales.sort_unstable_by(f32::total_cmp);
        scales.dedup();
        let _ = writeln!(
            card,
            "| {} | {} | {} | {} |",
            target.name(),
            layers.join(", "),
            joined(&ranks),
            joined(&scales)
        );
    }
    card.push('\n');
}

fn head(card: &mut String, adapter: &Adapter, has_classifier: bool) {
    let Some(head) = &adapter.head else {
        return;
    };
    let place = if has_classifier {
        "in `classifier`"
    } else {
        "in `head.safetensors`, which PEFT does not read"
    };
    let _ = writeln!(
        card,
        "The adapter has a head of {} classes, {place}.\n",
        head.weight.shape()[0]
    );
    for label in &head.labels {
        let _ = writeln!(card, "- {}", one_line(label));
    }
    if !head.labels.is_empty() {
        card.push('\n');
    }
}

fn joined<T: ToString>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(T::to_string).collect();
    texts.join(", ")
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
