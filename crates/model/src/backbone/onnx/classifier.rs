//! A classifier that runs alone: a picture of any size in, a probability for each class out. Preprocessing, backbone and head are one graph.

use super::export::{Exporter, OnnxError, Operators, checked_grid};
use super::graph::{Attribute, Axis, Graph, Value};
use crate::backbone::{Backbone, Preprocess, Resample, ResizeTarget};

/// What reads the features: `softmax(weight · u + offset)`, with `u` the feature scaled to length one.
#[derive(Debug, Clone, Copy)]
pub struct ReadOut<'a> {
    /// The classes.
    pub labels: &'a [String],
    /// `[classes, width]`, row by row
    pub weight: &'a [f32],
    /// `[classes]`
    pub offset: &'a [f32],
}

/// No feature is scaled by more than the inverse of this.
const SHORTEST_FEATURE: f32 = 1e-12;

/// Writes preprocessing, backbone and head as an ONNX model of standard operators.
///
/// Input `image` `[height, width, 3]`, 8 bits a level, red, green, blue, upright, of any size; outputs `scores` `[classes]`, which sum to 1, and
/// `label`, text. `metadata` and the labels, as a JSON array `labels`, are in the metadata.
///
/// # Errors
/// [`OnnxError`]: a resampling filter that ONNX does not have, or no fixed size of the image, or as for a backbone.
pub fn export_classifier(
    backbone: &Backbone,
    read_out: ReadOut<'_>,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, OnnxError> {
    let image_size = backbone.preprocess.image_size();
    let image_size = image_size.ok_or(OnnxError::NoImageSize)?;
    let grid = checked_grid(backbone, image_size)?;
    let mut graph = Graph::default();
    let sides = [Axis::Free("height"), Axis::Free("width"), Axis::Fixed(3)];
    let image = graph.level_input("image", &sides);
    let pixels = preprocessed(&mut graph, &backbone.preprocess, &image)?;
    let mut exporter = Exporter {
        graph,
        config: &backbone.config,
        operators: Operators::Standard,
        adapted: &[],
        grid,
    };
    let feature = exporter.forward(backbone, &pixels).feature;
    let mut graph = exporter.graph;
    read(&mut graph, read_out, &feature);
    let labels = serde_json::json!(read_out.labels).to_string();
    let mut all = vec![
        ("backbone_digest", backbone.digest.as_str()),
        ("labels", labels.as_str()),
    ];
    all.extend(metadata);
    Ok(graph.into_model("classifier", &all))
}

/// `[height, width, 3]` levels to normalised pixels `[1, 3, side, side]`.
fn preprocessed(
    graph: &mut Graph,
    preprocess: &Preprocess,
    image: &str,
) -> Result<Value, OnnxError> {
    let planes = graph.node_with(
        "image.planes",
        "",
        "Transpose",
        &[image],
        [("perm", Attribute::Ints(vec![2, 0, 1]))],
    );
    let front = graph.integers("image.front", &[0]);
    let mut levels = graph.node("image.batch", "Unsqueeze", &[&planes, &front]);
    if let Some(target) = preprocess.resize {
        levels = resized(graph, target, preprocess.resample, &levels)?;
    }
    if let Some((height, width)) = preprocess.centre_crop {
        levels = cropped(graph, height, width, &levels);
    }
    let levels = graph.node_with(
        "levels",
        "",
        "Cast",
        &[&levels],
        [("to", Attribute::Int(1))],
    );
    // In the order in which the server computes.
    let rescale = graph.constant("rescale", &[1], &[preprocess.rescale]);
    let scaled = graph.node("levels.scaled", "Mul", &[&levels, &rescale]);
    let (mean, deviation) = preprocess.normalisation();
    let mean = graph.constant("mean", &[1, 3, 1, 1], &mean);
    let centred = graph.node("levels.centred", "Sub", &[&scaled, &mean]);
    let deviation = graph.constant("standard_deviation", &[1, 3, 1, 1], &deviation);
    Ok(graph.node("pixels", "Div", &[&centred, &deviation]))
}

/// Height and width of `[1, 3, height, width]`, each `[1]`.
fn sides(graph: &mut Graph, name: &str, image: &str) -> [Value; 2] {
    let shape = graph.node(&format!("{name}.shape"), "Shape", &[image]);
    [("height", 2), ("width", 3)].map(|(side, place)| {
        let place = graph.integers(&format!("{name}.{side}.place"), &[place]);
        graph.node(&format!("{name}.{side}"), "Gather", &[&shape, &place])
    })
}

/// Resized in two passes with levels of 8 bits between them, of which the first is the one that the server begins with: their order shows.
fn resized(
    graph: &mut Graph,
    target: ResizeTarget,
    resample: Resample,
    image: &str,
) -> Result<Value, OnnxError> {
    let mode = match resample {
        Resample::Bilinear => "linear",
        Resample::Bicubic => "cubic",
        Resample::Nearest | Resample::Box | Resample::Hamming | Resample::Lanczos => {
            return Err(OnnxError::Resample(resample));
        }
    };
    let [height, width] = sides(graph, "resize.from", image);
    let [new_height, new_width] = match target {
        ResizeTarget::Exact { height, width } => [("height", height), ("width", width)]
            .map(|(side, length)| graph.integers(&format!("resize.to.{side}"), &[length as i64])),
        ResizeTarget::ShortestEdge(edge) => {
            let edge = graph.integers("resize.edge", &[edge as i64]);
            let shortest = graph.node("resize.shortest", "Min", &[&height, &width]);
            [("height", &height), ("width", &width)].map(|(side, length)| {
                let product = format!("resize.to.{side}.product");
                let product = graph.node(&product, "Mul", &[&edge, length]);
                // Whole numbers: cut, not rounded.
                graph.node(&format!("resize.to.{side}"), "Div", &[&product, &shortest])
            })
        }
    };
    let zero = graph.integers("resize.zero", &[0]);
    let two = graph.integers("resize.two", &[2]);
    let lost_height = graph.node("resize.lost_height", "Sub", &[&height, &new_height]);
    let lost_width = graph.node("resize.lost_width", "Sub", &[&width, &new_width]);
    let twice = graph.node("resize.twice_lost_width", "Mul", &[&two, &lost_width]);
    let is_lower = graph.node("resize.is_lower", "Greater", &[&lost_height, &zero]);
    let is_much = graph.node("resize.is_much_lower", "Greater", &[&lost_height, &twice]);
    let columns_first = graph.node("resize.columns_first", "And", &[&is_lower, &is_much]);
    let between_height = graph.node(
        "resize.between.height",
        "Where",
        &[&columns_first, &new_height, &height],
    );
    let between_width = graph.node(
        "resize.between.width",
        "Where",
        &[&columns_first, &width, &new_width],
    );
    let planes = graph.integers("resize.planes", &[1, 3]);
    let mut pass = |name: &str, image: &str, height: &str, width: &str| {
        let sizes = graph.node_with(
            &format!("{name}.sizes"),
            "",
            "Concat",
            &[&planes, height, width],
            [("axis", Attribute::Int(0))],
        );
        graph.node_with(
            name,
            "",
            "Resize",
            &[image, "", "", &sizes],
            [
                ("antialias", Attribute::Int(1)),
                // As Pillow has it.
                ("cubic_coeff_a", Attribute::Float(-0.5)),
                ("exclude_outside", Attribute::Int(1)),
                ("mode", Attribute::Text(mode)),
            ],
        )
    };
    let between = pass("resize.first", image, &between_height, &between_width);
    Ok(pass("resize.second", &between, &new_height, &new_width))
}

/// The middle `height` × `width`; black where the image is smaller.
fn cropped(graph: &mut Graph, height: usize, width: usize, image: &str) -> Value {
    let (above, left) = (height as i64, width as i64);
    // Black all around makes every crop a part of the image.
    let room = graph.integers("crop.room", &[0, 0, above, left, 0, 0, above, left]);
    let black = graph.levels("crop.black", &[0]);
    let framed = graph.node("crop.framed", "Pad", &[image, &room, &black]);
    let from = sides(graph, "crop.from", image);
    let two = graph.integers("crop.two", &[2]);
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for (side, (length, crop)) in from.iter().zip([above, left]).enumerate() {
        // crop + ⌊(length − crop) / 2⌋, without a negative number.
        let own = graph.integers(&format!("crop.{side}.length"), &[crop]);
        let sum = graph.node(&format!("crop.{side}.sum"), "Add", &[length, &own]);
        let start = graph.node(&format!("crop.{side}.start"), "Div", &[&sum, &two]);
        ends.push(graph.node(&format!("crop.{side}.end"), "Add", &[&start, &own]));
        starts.push(start);
    }
    let mut both = |name: &str, values: &[Value]| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        graph.node_with(name, "", "Concat", &values, [("axis", Attribute::Int(0))])
    };
    let (starts, ends) = (both("crop.starts", &starts), both("crop.ends", &ends));
    let axes = graph.integers("crop.axes", &[2, 3]);
    graph.node("crop", "Slice", &[&framed, &starts, &ends, &axes])
}

/// From the feature `[1, width]` to the outputs.
fn read(graph: &mut Graph, read_out: ReadOut<'_>, feature: &str) {
    let ReadOut {
        labels,
        weight,
        offset,
    } = read_out;
    let classes = labels.len();
    let width = weight.len() / classes.max(1);
    let axis = graph.integers("unit.axis", &[1]);
    let squares = graph.node("unit.squares", "Mul", &[feature, feature]);
    let sum = graph.node("unit.sum", "ReduceSum", &[&squares, &axis]);
    let length = graph.node("unit.length", "Sqrt", &[&sum]);
    let least = graph.constant("unit.least", &[1], &[SHORTEST_FEATURE]);
    let length = graph.node("unit.divisor", "Max", &[&length, &least]);
    let unit = graph.node("unit", "Div", &[feature, &length]);
    let mut transposed = vec![0.0; weight.len()];
    for (class, row) in weight.chunks_exact(width.max(1)).enumerate() {
        for (place, &value) in row.iter().enumerate() {
            transposed[place * classes + class] = value;
        }
    }
    let weight = graph.constant("head.weight", &[width, classes], &transposed);
    let offset = graph.constant("head.offset", &[classes], offset);
    let product = graph.node("head.product", "MatMul", &[&unit, &weight]);
    let logits = graph.node("head.logits", "Add", &[&product, &offset]);
    let shares = graph.node_with(
        "shares",
        "",
        "Softmax",
        &[&logits],
        [("axis", Attribute::Int(1))],
    );
    let front = graph.integers("scores.front", &[0]);
    let scores = graph.node("scores.of_image", "Squeeze", &[&shares, &front]);
    graph.output("scores", &scores, &[Axis::Fixed(classes)]);
    let best = graph.node_with(
        "best",
        "",
        "ArgMax",
        &[&scores],
        [("axis", Attribute::Int(0)), ("keepdims", Attribute::Int(0))],
    );
    let labels = graph.texts("labels", labels);
    let label = graph.node("label.of_best", "Gather", &[&labels, &best]);
    graph.text_output("label", &label);
}
