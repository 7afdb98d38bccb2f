//! Labelled pictures in the size that a backbone sees, as levels of one byte: what tuning learns from and what a file of them
//! holds. They are normalised when they are used, so that the values equal those that serving computes.

use super::random::{Purpose, generator};
use model::tensor::Tensor;
use model::tensor_file::{Stored, TensorError, TensorFile, TensorFileError, write_stored};
use rand::seq::SliceRandom;
use rand::seq::index::sample;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most classes of one set.
pub const MOST_CLASSES: usize = 1000;
/// Longest label, in characters.
pub const LONGEST_LABEL: usize = 200;
/// Largest side of a picture, in pixels.
pub const LARGEST_IMAGE_SIZE: usize = 2048;

/// Why pictures and labels do not make a set, or cannot be cut as asked.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum LabelledImagesError {
    #[error("labelled pictures: {0}")]
    File(#[from] TensorFileError),
    #[error("labelled pictures: {0}")]
    Tensor(#[from] TensorError),
    #[error("labelled pictures: the list of classes is not valid: {0}")]
    Classes(String),
    #[error("labelled pictures cannot be written: {0}")]
    Write(String),
    #[error("{found} classes; at least {least} and at most {MOST_CLASSES} are needed")]
    ClassCount { found: usize, least: usize },
    #[error("class {class} is asked for, but there are {classes} classes, counted from 0")]
    NoSuchClass { class: usize, classes: usize },
    #[error("class {index} is called \"{label}\"; a label has 1 to {LONGEST_LABEL} characters")]
    Label { index: usize, label: String },
    #[error("two classes are called \"{0}\"; give each its own label")]
    EqualLabels(String),
    #[error("class \"{0}\" has no pictures")]
    EmptyClass(String),
    #[error("the pictures are {0} × {0} pixels; 1 to {LARGEST_IMAGE_SIZE} are supported")]
    ImageSize(usize),
    #[error("{levels} levels do not make {labels} pictures of 3 × {image_size} × {image_size}")]
    Levels {
        levels: usize,
        labels: usize,
        image_size: usize,
    },
    #[error("picture {index} has label {label}, but there are {classes} classes, counted from 0")]
    UnknownClass {
        index: usize,
        label: u32,
        classes: usize,
    },
    #[error("{way}-way tasks cannot be cut from {classes} classes; choose 2 to {classes}")]
    Way { way: usize, classes: usize },
}

/// Pictures `[N, 3, S, S]` with one class each. Each class has at least one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledImages {
    classes: Vec<String>,
    image_size: usize,
    images: Vec<u8>,
    labels: Vec<u32>,
}

/// Positions of pictures for learning and for checking; ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// To learn from.
    pub training: Vec<usize>,
    /// To check on.
    pub held_out: Vec<usize>,
}

const CLASSES_KEY: &str = "classes";

impl LabelledImages {
    /// `images` `[N, 3, image_size, image_size]` and `labels` `[N]`, numbers of `classes`.
    ///
    /// # Errors
    /// [`LabelledImagesError`] names what does not fit.
    pub fn new(
        classes: Vec<String>,
        image_size: usize,
        images: Vec<u8>,
        labels: Vec<u32>,
    ) -> Result<Self, LabelledImagesError> {
        check_classes(&classes, 2)?;
        if !(1..=LARGEST_IMAGE_SIZE).contains(&image_size) {
            return Err(LabelledImagesError::ImageSize(image_size));
        }
        if labels.len().checked_mul(3 * image_size * image_size) != Some(images.len()) {
            return Err(LabelledImagesError::Levels {
                levels: images.len(),
                labels: labels.len(),
                image_size,
            });
        }
        let mut counts = vec![0; classes.len()];
        for (index, &label) in labels.iter().enumerate() {
            match counts.get_mut(label as usize) {
                Some(count) => *count += 1,
                None => {
                    return Err(LabelledImagesError::UnknownClass {
                        index,
                        label,
                        classes: classes.len(),
                    });
                }
            }
        }
        if let Some(empty) = counts.iter().position(|&count| count == 0) {
            return Err(LabelledImagesError::EmptyClass(classes[empty].clone()));
        }
        Ok(Self {
            classes,
            image_size,
            images,
            labels,
        })
    }

    /// Labels of the classes, as [`Self::labels`] counts them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Side in pixels of each picture.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// `[N]`, numbers of [`Self::classes`].
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Positions of the pictures of each class, ascending.
    pub fn by_class(&self) -> Vec<Vec<usize>> {
        by_class(&self.labels, self.classes.len())
    }

    /// `[N, 3, S, S]`
    pub fn all_levels(&self) -> &[u8] {
        &self.images
    }

    /// Levels of picture `index`, `[3, S, S]`.
    ///
    /// # Panics
    /// When there is no such picture.
    pub fn levels(&self, index: usize) -> &[u8] {
        let length = 3 * self.image_size * self.image_size;
        &self.images[index * length..(index + 1) * length]
    }

    /// The pictures at `indices`, normalised by `table` (see [`model::backbone::Preprocess::normalised_levels`]), mirrored
    /// where `flips` says; all as they are where it is empty. `[indices, 3, S, S]`
    ///
    /// # Panics
    /// When there is no such picture.
    pub fn pixels(&self, indices: &[usize], flips: &[bool], table: &[[f32; 256]; 3]) -> Tensor {
        let side = self.image_size;
        let mut pixels = Tensor::zeros([indices.len(), 3, side, side]);
        let targets = pixels.data_mut().chunks_exact_mut(3 * side * side);
        for (position, (&index, target)) in indices.iter().zip(targets).enumerate() {
            normalise(self.levels(index), table, target);
            if flips.get(position).is_some_and(|&flip| flip) {
                target.chunks_exact_mut(side).for_each(<[f32]>::reverse);
            }
        }
        pixels
    }

    /// Holds out the share `held_out` of each class, at least one picture and at most all but one; none of a class of one, and
    /// none at all for 0. The same seed holds out the same pictures.
    pub fn split(&self, held_out: f64, seed: u64) -> Split {
        let mut split = Split {
            training: Vec::new(),
            held_out: Vec::new(),
        };
        for class in 0..self.classes.len() {
            let own = (0..self.len()).filter(|&index| self.labels[index] as usize == class);
            let mut own: Vec<usize> = own.collect();
            own.shuffle(&mut generator(seed, Purpose::HeldOut, class as u64));
            let most = own.len() - 1;
            let count = match held_out > 0.0 {
                true => ((own.len() as f64 * held_out).round() as usize).clamp(1.min(most), most),
                false => 0,
            };
            let (out, training) = own.split_at(count);
            split.held_out.extend_from_slice(out);
            split.training.extend_from_slice(training);
        }
        split.training.sort_unstable();
        split.held_out.sort_unstable();
        split
    }

    /// `count` random choices of `way` classes, each for [`Self::subset`]; ascending.
    ///
    /// # Errors
    /// [`LabelledImagesError::Way`]
    pub fn episodes(
        &self,
        count: usize,
        way: usize,
        seed: u64,
    ) -> Result<Vec<Vec<usize>>, LabelledImagesError> {
        let classes = self.classes.len();
        if !(2..=classes).contains(&way) {
            return Err(LabelledImagesError::Way { way, classes });
        }
        let episodes = (0..count).map(|episode| {
            let mut random = generator(seed, Purpose::Episodes, episode as u64);
            let mut chosen = sample(&mut random, classes, way).into_vec();
            chosen.sort_unstable();
            chosen
        });
        Ok(episodes.collect())
    }

    /// The pictures of these classes alone, renumbered in the order given.
    ///
    /// # Errors
    /// Classes that are not there, appear twice or are fewer than two.
    pub fn subset(&self, classes: &[usize]) -> Result<Self, LabelledImagesError> {
        let mut names = Vec::with_capacity(classes.len());
        for &class in classes {
            match self.classes.get(class) {
                Some(name) => names.push(name.clone()),
                None => {
                    return Err(LabelledImagesError::NoSuchClass {
                        class,
                        classes: self.classes.len(),
                    });
                }
            }
        }
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for (index, &label) in self.labels.iter().enumerate() {
            let own = classes.iter().position(|&class| class == label as usize);
            if let Some(own) = own {
                images.extend_from_slice(self.levels(index));
                labels.push(own as u32);
            }
        }
        Self::new(names, self.image_size, images, labels)
    }

    /// One safetensors file: `images` (U8), `labels` (U32), the classes in its metadata.
    ///
    /// # Errors
    /// [`LabelledImagesError::Write`]
    pub fn to_bytes(&self) -> Result<Vec<u8>, LabelledImagesError> {
        let side = self.image_size;
        let classes = serde_json::to_string(&self.classes)
            .map_err(|error| LabelledImagesError::Write(error.to_string()))?;
        let metadata = BTreeMap::from([(CLASSES_KEY.to_owned(), classes)]);
        let tensors: [(&str, &[usize], Stored<'_>); 2] = [
            (
                "images",
                &[self.len(), 3, side, side],
                Stored::U8(&self.images),
            ),
            ("labels", &[self.len()], Stored::U32(&self.labels)),
        ];
        write_stored(&tensors, &metadata).map_err(LabelledImagesError::Write)
    }

    /// Reads [`Self::to_bytes`]. Memory stays in proportion to the file.
    ///
    /// # Errors
    /// [`LabelledImagesError`] names what does not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LabelledImagesError> {
        let file = TensorFile::parse(bytes)?;
        let classes = file.metadata().get(CLASSES_KEY);
        let classes = classes.ok_or_else(|| LabelledImagesError::Classes("missing".into()))?;
        let classes: Vec<String> = serde_json::from_str(classes)
            .map_err(|error| LabelledImagesError::Classes(error.to_string()))?;
        let count = file
            .shape("labels")
            .map_or(0, |shape| shape[..].iter().product());
        let shape = file.shape("images").unwrap_or_default();
        let side = shape.last().copied().unwrap_or(0);
        let images = file.read_bytes("images", &[count, 3, side, side])?;
        let labels = file.read_indices("labels", &[count])?;
        Self::new(classes, side, images.to_vec(), labels)
    }
}

/// Class names are `least` to [`MOST_CLASSES`], none empty or longer than [`LONGEST_LABEL`], no two equal.
pub(super) fn check_classes(classes: &[String], least: usize) -> Result<(), LabelledImagesError> {
    let found = classes.len();
    if !(least..=MOST_CLASSES).contains(&found) {
        return Err(LabelledImagesError::ClassCount { found, least });
    }
    let mut seen = BTreeSet::new();
    for (index, label) in classes.iter().enumerate() {
        if label.trim().is_empty() || label.chars().count() > LONGEST_LABEL {
            return Err(LabelledImagesError::Label {
                index,
                label: label.chars().take(LONGEST_LABEL).collect(),
            });
        }
        if !seen.insert(label) {
            return Err(LabelledImagesError::EqualLabels(label.clone()));
        }
    }
    Ok(())
}

/// Positions of each of `classes` among `labels`, ascending; labels past them are left out.
pub fn by_class(labels: &[u32], classes: usize) -> Vec<Vec<usize>> {
    let mut positions = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        if let Some(own) = positions.get_mut(label as usize) {
            own.push(index);
        }
    }
    positions
}

/// Overwrites `target` with the normalised values of `levels`, both `[images, 3, side, side]` or one image of it.
pub fn normalise(levels: &[u8], table: &[[f32; 256]; 3], target: &mut [f32]) {
    let plane = target.len() / 3;
    debug_assert_eq!(levels.len(), target.len());
    for (channel, table) in table.iter().enumerate() {
        let range = channel * plane..(channel + 1) * plane;
        for (value, &level) in target[range.clone()].iter_mut().zip(&levels[range]) {
            *value = table[usize::from(level)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    /// `counts[class]` pictures of 2 × 2 pixels, numbered by their first level.
    fn set(counts: &[usize]) -> LabelledImages {
        let labels = counts
            .iter()
            .enumerate()
            .flat_map(|(class, &count)| vec![class as u32; count]);
        let labels: Vec<u32> = labels.collect();
        let images = (0..labels.len()).flat_map(|index| [index as u8; 12]);
        LabelledImages::new(names(counts.len()), 2, images.collect(), labels).unwrap()
    }

    #[test]
    fn each_class_keeps_a_picture_to_learn_from_and_one_to_check_where_it_has_two() {
        let images = set(&[1, 2, 10, 7]);
        let split = images.split(0.2, 3);
        let of = |indices: &[usize], class: u32| {
            let labels = indices.iter().map(|&index| images.labels()[index]);
            labels.filter(|&label| label == class).count()
        };
        let held_out: Vec<usize> = (0..4).map(|class| of(&split.held_out, class)).collect();
        assert_eq!(held_out, [0, 1, 2, 1]);
        let mut all = [split.training.clone(), split.held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert_eq!(images.split(0.2, 3), split);
        assert_ne!(images.split(0.2, 4), split);
        assert!(images.split(0.0, 3).held_out.is_empty());
        assert_eq!(images.split(1.0, 3).training.len(), 4);
    }

    #[test]
    fn cuts_are_distinct_classes_and_repeat_with_their_seed() {
        let images = set(&[2; 9]);
        let episodes = images.episodes(20, 4, 1).unwrap();
        for classes in &episodes {
            assert_eq!(classes.iter().collect::<BTreeSet<_>>().len(), 4);
            let cut = images.subset(classes).unwrap();
            assert_eq!((cut.len(), cut.classes().len()), (8, 4));
            for index in 0..cut.len() {
                let class = &cut.classes()[cut.labels()[index] as usize];
                let number = usize::from(cut.levels(index)[0]);
                assert_eq!(*class, images.classes()[images.labels()[number] as usize]);
            }
        }
        assert_eq!(images.episodes(20, 4, 1).unwrap(), episodes);
        assert_ne!(images.episodes(20, 4, 2).unwrap(), episodes);
        // The first cuts do not depend on how many are made.
        assert_eq!(images.episodes(3, 4, 1).unwrap(), episodes[..3]);
        assert_eq!(
            images.episodes(1, 10, 1).unwrap_err().to_string(),
            "10-way tasks cannot be cut from 9 classes; choose 2 to 9"
        );
    }

    #[test]
    fn a_written_set_reads_back_equal_and_a_broken_one_is_refused() {
        let images = set(&[3, 1]);
        let bytes = images.to_bytes().unwrap();
        assert_eq!(LabelledImages::from_bytes(&bytes), Ok(images));
        for end in [0, 7, 40, bytes.len() - 1] {
            assert!(LabelledImages::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        let file = |labels: &[u32], shape: &[usize], classes: &str| {
            let metadata = BTreeMap::from([("classes".to_owned(), classes.to_owned())]);
            let length = shape.iter().product();
            let levels = vec![0; length];
            let tensors = [
                ("images", shape, Stored::U8(&levels)),
                ("labels", &[labels.len()][..], Stored::U32(labels)),
            ];
            let bytes = write_stored(&tensors, &metadata).unwrap();
            LabelledImages::from_bytes(&bytes).unwrap_err().to_string()
        };
        let two = r#"["a","b"]"#;
        assert_eq!(
            file(&[0, 2], &[2, 3, 1, 1], two),
            "picture 1 has label 2, but there are 2 classes, counted from 0"
        );
        assert_eq!(
            file(&[0, 0], &[2, 3, 1, 1], two),
            "class \"b\" has no pictures"
        );
        assert_eq!(
            file(&[0, 1], &[2, 3, 1, 2], two),
            "labelled pictures: images: shape [2, 3, 1, 2], expected [2, 3, 2, 2]"
        );
        assert_eq!(
            file(&[0, 1], &[2, 3, 0, 0], two),
            "the pictures are 0 × 0 pixels; 1 to 2048 are supported"
        );
        assert_eq!(
            file(&[0, 1], &[2, 3, 1, 1], r#"["a","a"]"#),
            "two classes are called \"a\"; give each its own label"
        );
        assert_eq!(
            file(&[0, 0], &[2, 3, 1, 1], r#"["a"]"#),
            "1 classes; at least 2 and at most 1000 are needed"
        );
        assert!(file(&[0, 1], &[2, 3, 1, 1], "[1]").contains("list of classes"));
    }

    #[test]
    fn pixels_are_looked_up_by_channel_and_mirrored_where_asked() {
        let images = LabelledImages::new(names(2), 2, (0..24).collect(), vec![0, 1]).unwrap();
        let table: [[f32; 256]; 3] =
            std::array::from_fn(|c| std::array::from_fn(|level| (1000 * c + level) as f32));
        let pixels = images.pixels(&[1, 0], &[false, true], &table);
        assert_eq!(pixels.shape(), [2, 3, 2, 2]);
        assert_eq!(pixels.row(0)[..6], [12.0, 13.0, 14.0, 15.0, 1016.0, 1017.0]);
        assert_eq!(pixels.row(1)[..6], [1.0, 0.0, 3.0, 2.0, 1005.0, 1004.0]);
    }
}
