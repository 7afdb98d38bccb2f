//! PEFT's `adapter_config.json`: what it says, with PEFT's matching rules, and what is refused by name.
//! Knows the configuration only; tensors are checked against it elsewhere.

use regex::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// A configuration that this program understands in full.
#[derive(Debug)]
pub(super) struct PeftConfig {
    rank: usize,
    alpha: f64,
    pub rank_stabilised: bool,
    rank_pattern: Vec<(Regex, f64)>,
    alpha_pattern: Vec<(Regex, f64)>,
    targets: ModuleSelector,
    excluded: Option<ModuleSelector>,
    layers: Option<Vec<u64>>,
    layer_patterns: Vec<Regex>,
    pub modules_to_save: Vec<String>,
    pub base_model: Option<String>,
    /// The class that the adapter was made on, e.g. `ViTForImageClassification`.
    pub base_model_class: Option<String>,
    pub backbone_digest: Option<String>,
    pub peft_version: Option<String>,
    pub labels: Option<Vec<String>>,
}

/// A choice of modules by name.
#[derive(Debug)]
enum ModuleSelector {
    AllLinear,
    Names(Vec<String>),
    Pattern(Regex),
    /// A Python pattern with look-around or back-references, which cannot be run here.
    Unchecked,
}

impl ModuleSelector {
    /// `None` where it cannot be said.
    fn selects(&self, path: &str) -> Option<bool> {
        match self {
            Self::AllLinear => Some(true),
            Self::Names(names) => Some(names.iter().any(|name| {
                path.strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })),
            Self::Pattern(pattern) => Some(pattern.is_match(path)),
            Self::Unchecked => None,
        }
    }
}

/// What reading a configuration came to.
#[derive(Debug, Default)]
pub(super) struct ReadConfig {
    pub config: Option<PeftConfig>,
    /// The document as it is, for the report.
    pub document: Option<Map<String, Value>>,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

/// Reads the bytes of an `adapter_config.json`.
pub(super) fn read(bytes: &[u8]) -> ReadConfig {
    let mut reader = Reader::default();
    let root = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(root)) => root,
        Ok(_) => {
            reader.error("adapter_config.json is not a JSON object");
            return reader.into_read(None, None);
        }
        Err(error) => {
            reader.error(format!("adapter_config.json is not valid JSON: {error}"));
            return reader.into_read(None, None);
        }
    };
    reader.root = root;
    reader.refuse_other_methods();
    let patterns = serde_json::from_slice::<Patterns>(bytes).unwrap_or_else(|error| {
        reader.error(format!("rank_pattern or alpha_pattern: {error}"));
        Patterns::default()
    });
    let config = reader.config(patterns);
    let document = std::mem::take(&mut reader.root);
    reader.into_read(Some(config), Some(document))
}

impl PeftConfig {
    /// Rank of the low-rank pair on the module `path`.
    pub fn rank_at(&self, path: &str) -> usize {
        first_match(&self.rank_pattern, path).map_or(self.rank, |rank| rank as usize)
    }

    /// `lora_alpha` on the module `path`.
    pub fn alpha_at(&self, path: &str) -> f64 {
        first_match(&self.alpha_pattern, path).unwrap_or(self.alpha)
    }

    /// The scale in front of `B·A` on the module `path`.
    pub fn scale_at(&self, path: &str) -> f32 {
        let (alpha, rank) = (self.alpha_at(path), self.rank_at(path) as f64);
        let divisor = if self.rank_stabilised {
            rank.sqrt()
        } else {
            rank
        };
        (alpha / divisor) as f32
    }

    /// Whether PEFT would adapt the linear map `path`; `None` where its rule cannot be run here.
    pub fn targets(&self, path: &str) -> Option<bool> {
        if let Some(excluded) = &self.excluded
            && excluded.selects(path)?
        {
            return Some(false);
        }
        if !self.targets.selects(path)? {
            return Some(false);
        }
        let Some(layers) = &self.layers else {
            return Some(true);
        };
        let layer = self
            .layer_patterns
            .iter()
            .find_map(|pattern| pattern.captures(path))
            .and_then(|captures| captures[1].parse::<u64>().ok());
        Some(layer.is_some_and(|layer| layers.contains(&layer)))
    }
}

/// PEFT takes the first key, in the order of the file, that matches the whole path or what follows a dot in it.
fn first_match(patterns: &[(Regex, f64)], path: &str) -> Option<f64> {
    patterns
        .iter()
        .find(|(pattern, _)| pattern.is_match(path))
        .map(|&(_, value)| value)
}

#[derive(Debug, Default, Deserialize)]
struct Patterns {
    #[serde(default)]
    rank_pattern: Option<Ordered>,
    #[serde(default)]
    alpha_pattern: Option<Ordered>,
}

/// A JSON object of numbers in the order of the file, which decides between keys.
#[derive(Debug, Default)]
struct Ordered(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrderedVisitor;
        impl<'de> Visitor<'de> for OrderedVisitor {
            type Value = Ordered;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of numbers")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Ordered, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }
        deserializer.deserialize_map(OrderedVisitor)
    }
}

/// Largest rank that is taken for a rank and not for a mistake.
pub(super) const LARGEST_RANK: usize = 8192;

/// Most keys of a pattern; a key a linear map is 72 for a model of 12 layers.
const MOST_PATTERNS: usize = 4096;

/// Keys that make something else than plain LoRA of a configuration, where they are set to anything but null, false, empty.
const OTHER_METHODS: [(&str, &str); 15] = [
    ("use_dora", "DoRA"),
    ("use_qalora", "QA-LoRA"),
    ("use_bdlora", "BD-LoRA"),
    ("lora_bias", "a bias on B"),
    ("fan_in_fan_out", "transposed weights"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("layer_replication", "layer replication"),
    ("target_parameters", "LoRA on bare parameters"),
    ("trainable_token_indices", "trainable tokens"),
    ("megatron_config", "Megatron layers"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "Monte-Carlo LoRA"),
    ("velora_config", "VeLoRA"),
    ("aqlora_config", "adaptive quantisation"),
];

/// Ways to start a tuning that leave the backbone's weights alone.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

#[derive(Default)]
struct Reader {
    root: Map<String, Value>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    fn error(&mut self, sentence: impl Into<String>) {
        self.errors.push(sentence.into());
    }

    fn into_read(
        self,
        config: Option<PeftConfig>,
        document: Option<Map<String, Value>>,
    ) -> ReadConfig {
        ReadConfig {
            config: config.filter(|_| self.errors.is_empty()),
            document,
            errors: self.errors,
            warnings: self.warnings,
        }
    }

    fn set(&self, key: &str) -> Option<&Value> {
        self.root.get(key).filter(|value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(entries) => !entries.is_empty(),
            _ => true,
        })
    }

    fn refuse_other_methods(&mut self) {
        match self.root.get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(Value::String(kind)) => {
                let sentence = format!("peft_type {kind} is not supported; only LORA is");
                self.error(sentence);
            }
            _ => self.error("adapter_config.json names no peft_type; it must be LORA"),
        }
        for (key, what) in OTHER_METHODS {
            if let Some(value) = self.set(key) {
                let sentence = format!(
                    "{key} is {}: {what} is not supported, only plain LoRA is",
                    short(value)
                );
                self.error(sentence);
            }
        }
        match self.root.get("bias") {
            None | Some(Value::Null) => {}
            Some(Value::String(bias)) if bias == "none" => {}
            Some(other) => {
                let sentence = format!(
                    "bias is {}: tuned biases are not supported; tune with bias=\"none\"",
                    short(other)
                );
                self.error(sentence);
            }
        }
        match self.root.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(start)) if PLAIN_STARTS.contains(&start.as_str()) => {}
            Some(other) => {
                let sentence = format!(
                    "init_lora_weights is {}: it changes the backbone's weights. Save the adapter again with path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
                    short(other)
                );
                self.error(sentence);
            }
        }
    }

    fn config(&mut self, patterns: Patterns) -> PeftConfig {
        let rank = self.rank();
        let alpha = match self.root.get("lora_alpha").and_then(Value::as_f64) {
            Some(alpha) if alpha.is_finite() && alpha.abs() <= 1e6 => alpha,
            _ => {
                let sentence = format!("lora_alpha is {}, not a number", self.shown("lora_alpha"));
                self.error(sentence);
                1.0
            }
        };
        let rank_pattern = self.pattern("rank_pattern", patterns.rank_pattern, |rank| {
            rank.fract() == 0.0 && (1.0..=LARGEST_RANK as f64).contains(&rank)
        });
        let alpha_pattern = self.pattern("alpha_pattern", patterns.alpha_pattern, |alpha| {
            alpha.is_finite() && alpha.abs() <= 1e6
        });
        let targets = match self.selector("target_modules") {
            Some(targets) => targets,
            None => {
                self.error("adapter_config.json names no target_modules");
                ModuleSelector::Unchecked
            }
        };
        if matches!(targets, ModuleSelector::Unchecked) && self.set("target_modules").is_some() {
            self.warnings.push(
                "target_modules is a pattern that cannot be run here; the tensors themselves say which maps are changed".into(),
            );
        }
        let excluded = self.selector("exclude_modules");
        let layers = self.layers();
        if layers.is_some()
            && matches!(
                targets,
                ModuleSelector::Pattern(_) | ModuleSelector::Unchecked
            )
        {
            self.error("layers_to_transform does not go with target_modules as a pattern");
        }
        PeftConfig {
            rank,
            alpha,
            rank_stabilised: self.flag("use_rslora"),
            rank_pattern,
            alpha_pattern,
            targets,
            excluded,
            layers,
            layer_patterns: self.layer_patterns(),
            modules_to_save: self.modules_to_save(),
            base_model: self.text("base_model_name_or_path"),
            base_model_class: self
                .root
                .get("auto_mapping")
                .and_then(|mapping| mapping.get("base_model_class"))
                .and_then(Value::as_str)
                .map(str::to_owned),
            backbone_digest: self.text("backbone_digest"),
            peft_version: self.text("peft_version"),
            labels: labels_of(&self.root),
        }
    }

    fn shown(&self, key: &str) -> String {
        self.root.get(key).map_or("missing".into(), short)
    }

    fn rank(&mut self) -> usize {
        match self.root.get("r").and_then(Value::as_u64) {
            Some(rank) if (1..=LARGEST_RANK as u64).contains(&rank) => rank as usize,
            _ => {
                let sentence = format!(
                    "r is {}, not a whole number from 1 to {LARGEST_RANK}",
                    self.shown("r")
                );
                self.error(sentence);
                1
            }
        }
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.root.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                let sentence = format!("{key} is {}, not true or false", short(other));
                self.error(sentence);
                false
            }
        }
    }

    /// A text that is there and not empty; anything else says nothing.
    fn text(&self, key: &str) -> Option<String> {
        self.root
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    fn pattern(
        &mut self,
        key: &str,
        pairs: Option<Ordered>,
        valid: impl Fn(f64) -> bool,
    ) -> Vec<(Regex, f64)> {
        let mut patterns = Vec::new();
        let pairs = pairs.unwrap_or_default().0;
        if pairs.len() > MOST_PATTERNS {
            self.error(format!(
                "{key} has {} keys, more than the {MOST_PATTERNS} allowed",
                pairs.len()
            ));
            return patterns;
        }
        for (name, value) in pairs {
            if !valid(value) {
                self.error(format!("{key} gives {value} for \"{name}\""));
            }
            match Regex::new(&format!(r"^(?:.*\.)?(?:{name})$")) {
                Ok(pattern) => patterns.push((pattern, value)),
                Err(_) => self.error(format!(
                    "{key} has the key \"{name}\", a pattern that cannot be run here; use the names of modules"
                )),
            }
        }
        patterns
    }

    fn selector(&mut self, key: &str) -> Option<ModuleSelector> {
        match self.set(key)?.clone() {
            Value::String(text) if text.eq_ignore_ascii_case("all-linear") => {
                Some(ModuleSelector::AllLinear)
            }
            Value::String(text) => Some(
                Regex::new(&format!("^(?:{text})$"))
                    .map_or(ModuleSelector::Unchecked, ModuleSelector::Pattern),
            ),
            value => match names(&value) {
                Some(names) => Some(ModuleSelector::Names(names)),
                None => {
                    self.error(format!("{key} is neither text nor a list of texts"));
                    Some(ModuleSelector::Unchecked)
                }
            },
        }
    }

    fn layers(&mut self) -> Option<Vec<u64>> {
        let value = self.set("layers_to_transform")?.clone();
        let layers = match &value {
            Value::Array(items) => items.iter().map(Value::as_u64).collect(),
            single => single.as_u64().map(|layer| vec![layer]),
        };
        if layers.is_none() {
            self.error("layers_to_transform is neither a layer nor a list of layers");
        }
        layers
    }

    fn layer_patterns(&mut self) -> Vec<Regex> {
        let named = match self.set("layers_pattern").cloned() {
            None => Vec::new(),
            Some(Value::String(text)) if text.is_empty() => Vec::new(),
            Some(Value::String(text)) => vec![text],
            Some(value) => names(&value).unwrap_or_default(),
        };
        let sources = if named.is_empty() {
            vec![r"^.*?\.[^.]*\.(\d+)\.".to_owned()]
        } else {
            named
                .iter()
                .map(|name| format!(r"^(?:.*?\.)?(?:{name})\.(\d+)\."))
                .collect()
        };
        let mut patterns = Vec::new();
        for source in sources {
            match Regex::new(&source) {
                // An extra group in the key would take the place of the layer's number.
                Ok(pattern) if pattern.captures_len() == 2 => patterns.push(pattern),
                _ => self.error("layers_pattern is a pattern that cannot be run here"),
            }
        }
        patterns
    }

    fn modules_to_save(&mut self) -> Vec<String> {
        let Some(value) = self.set("modules_to_save").cloned() else {
            return Vec::new();
        };
        let Some(modules) = names(&value) else {
            self.error("modules_to_save is not a list of texts");
            return Vec::new();
        };
        for module in &modules {
            // PEFT adds both names itself for classification tasks.
            if !matches!(module.as_str(), "classifier" | "score") {
                self.error(format!(
                    "modules_to_save names \"{module}\"; only a classifier can come with an adapter"
                ));
            }
        }
        modules
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Class names of `id2label` in an adapter's or a model's configuration, where they are more than placeholders.
pub(super) fn labels_of(root: &Map<String, Value>) -> Option<Vec<String>> {
    let map = root.get("id2label")?.as_object()?;
    let labels: Option<Vec<String>> = (0..map.len())
        .map(|class| map.get(&class.to_string())?.as_str().map(str::to_owned))
        .collect();
    labels.filter(|labels| labels.iter().any(|label| !label.starts_with("LABEL_")))
}

/// A value as JSON, cut to a length that fits a sentence.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        text
    } else {
        text.chars().take(60).chain("…".chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(change: Value) -> ReadConfig {
        let mut document =
            json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]});
        for (key, value) in change.as_object().unwrap() {
            document[key] = value.clone();
        }
        read(document.to_string().as_bytes())
    }

    #[test]
    fn the_first_key_of_the_file_wins_even_where_it_sorts_last() {
        let text = r#"{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q"],
            "alpha_pattern":{"z.*\\.q":3,"a.q":5,"q":7}}"#;
        let config = read(text.as_bytes()).config.unwrap();
        assert_eq!(config.alpha_at("z.a.q"), 3.0);
        assert_eq!(config.alpha_at("b.a.q"), 5.0);
        assert_eq!(config.alpha_at("b.c.q"), 7.0);
        assert_eq!(config.alpha_at("b.cq"), 8.0);
    }

    #[test]
    fn rank_stabilised_scale_divides_by_the_root_of_the_matched_rank() {
        let read = config(json!({"use_rslora": true, "rank_pattern": {"query": 16}}));
        let config = read.config.unwrap();
        assert_eq!(config.scale_at("encoder.layer.0.query"), 2.0);
        assert_eq!(config.scale_at("encoder.layer.0.value"), 4.0);
    }

    #[test]
    fn names_match_whole_steps_of_a_path_only() {
        let config = config(json!({"target_modules": ["q_proj"]}))
            .config
            .unwrap();
        assert_eq!(config.targets("a.0.q_proj"), Some(true));
        assert_eq!(config.targets("a.0.xq_proj"), Some(false));
    }

    #[test]
    fn layers_to_transform_leaves_other_layers_out() {
        for change in [
            json!({"layers_to_transform": [1, 11]}),
            json!({"layers_to_transform": [1, 11], "layers_pattern": "layer"}),
        ] {
            let config = config(change).config.unwrap();
            assert_eq!(config.targets("vit.encoder.layer.1.query"), Some(true));
            assert_eq!(config.targets("vit.encoder.layer.11.query"), Some(true));
            assert_eq!(config.targets("vit.encoder.layer.2.query"), Some(false));
        }
    }

    #[test]
    fn a_null_or_odd_base_model_is_no_error() {
        for value in [
            json!(null),
            json!(""),
            json!(7),
            json!(["a"]),
            json!("../../etc"),
        ] {
            let read = config(json!({"base_model_name_or_path": value}));
            assert_eq!(read.errors, Vec::<String>::new());
        }
    }

    #[test]
    fn a_pattern_with_look_around_is_left_to_the_tensors() {
        let read = config(json!({"target_modules": "(?!text).*query"}));
        assert_eq!(read.config.unwrap().targets("vit.query"), None);
        assert_eq!(read.warnings.len(), 1);
    }
}
