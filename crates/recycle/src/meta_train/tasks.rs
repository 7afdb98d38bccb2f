//! The classes and images of a task: those of one adapter, or mixed over several (cross-task interpolation).

use super::MetaTrainError;
use super::member::TaskSource;
use super::recipe::MetaTrainRecipe;
use crate::episode::EpisodeClass;
use crate::random::{Purpose, generator};
use rand::seq::SliceRandom;
use rand::seq::index::sample;
use rand::{Rng, RngExt};

/// A class of all pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PooledClass {
    pub source: usize,
    /// Number in its pool.
    pub class: usize,
    /// What classes of different pools must not share in one task; `None` for a class that has a number only.
    label: Option<String>,
    /// Images of one side and number of tokens go into one batch.
    batch: (usize, usize),
    pub training: Vec<usize>,
    pub held_out: Vec<usize>,
}

/// Classes of a task; their `class` counts all pooled classes, their images are those of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub classes: Vec<EpisodeClass>,
    /// The source whose classes these are; `None` for those of several.
    pub teacher: Option<usize>,
}

/// Which images tasks are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolPart {
    Training,
    HeldOut,
}

/// Everything that tasks are drawn from.
#[derive(Debug)]
pub(super) struct Tasks {
    pub classes: Vec<PooledClass>,
    training: Drawable,
    held_out: Drawable,
    /// Fewest images of a class in a task.
    least_images: usize,
}

/// Classes with enough images.
#[derive(Debug, Default)]
struct Drawable {
    /// Of each source with at least two of them.
    within: Vec<Vec<usize>>,
    /// Those that a mixed task may begin with.
    mixed: Vec<usize>,
}

impl PooledClass {
    fn images(&self, part: PoolPart) -> &[usize] {
        match part {
            PoolPart::Training => &self.training,
            PoolPart::HeldOut => &self.held_out,
        }
    }

    /// Whether both may be in one task of several adapters.
    fn goes_with(&self, other: &Self) -> bool {
        let same_label = self.label.is_some() && self.label == other.label;
        self.batch == other.batch && !same_label
    }
}

impl Tasks {
    /// # Errors
    /// [`MetaTrainError::TooFewImages`], [`MetaTrainError::NothingMixed`]
    pub fn new(sources: &[TaskSource], recipe: &MetaTrainRecipe) -> Result<Self, MetaTrainError> {
        let mut classes = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            for (class, label) in source.pool().classes().enumerate() {
                let labels = source.pool().labels().iter().enumerate();
                let own = labels.filter(|(_, label)| **label as usize == class);
                let mut own: Vec<usize> = own.map(|(image, _)| image).collect();
                let position = classes.len() as u64;
                own.shuffle(&mut generator(recipe.seed, Purpose::HeldOut, position));
                let mut training = own.split_off(recipe.held_out_of(own.len()));
                training.sort_unstable();
                own.sort_unstable();
                classes.push(PooledClass {
                    source: index,
                    class,
                    label: (label.parse() != Ok(class)).then(|| label.to_owned()),
                    batch: (source.side(), source.kept),
                    training,
                    held_out: own,
                });
            }
        }
        let least_images = recipe.least_images();
        let training = Drawable::of(&classes, PoolPart::Training, least_images);
        let held_out = Drawable::of(&classes, PoolPart::HeldOut, least_images);
        let share = recipe.share_of_mixed_episodes;
        if training.mixed.is_empty() && share >= 1.0 {
            return Err(MetaTrainError::NothingMixed);
        }
        if training.within.is_empty() && (training.mixed.is_empty() || share <= 0.0) {
            return Err(MetaTrainError::TooFewImages);
        }
        if recipe.held_out > 0.0 && held_out.within.is_empty() && held_out.mixed.is_empty() {
            return Err(MetaTrainError::TooFewHeldOut);
        }
        Ok(Self {
            classes,
            training,
            held_out,
            least_images,
        })
    }

    /// The task of step `step`.
    pub fn training(&self, recipe: &MetaTrainRecipe, step: u64) -> Task {
        self.step(recipe, recipe.share_of_mixed_episodes, step)
    }

    /// The task of step `step` where none mixes the classes of several adapters.
    pub fn of_one_adapter(&self, recipe: &MetaTrainRecipe, step: u64) -> Task {
        self.step(recipe, 0.0, step)
    }

    /// Whether an adapter has enough images for [`Self::of_one_adapter`].
    pub fn has_one_adapter(&self) -> bool {
        !self.training.within.is_empty()
    }

    fn step(&self, recipe: &MetaTrainRecipe, share_mixed: f64, step: u64) -> Task {
        let mut random = generator(recipe.seed, Purpose::Episodes, step);
        self.draw(recipe, share_mixed, PoolPart::Training, &mut random)
    }

    /// The tasks of every validation; none where nothing is held out.
    pub fn validation(&self, recipe: &MetaTrainRecipe) -> Vec<Task> {
        if recipe.held_out <= 0.0 {
            return Vec::new();
        }
        let mut random = generator(recipe.seed, Purpose::Validation, 0);
        (0..recipe.validation_tasks)
            .map(|_| {
                let share = recipe.share_of_mixed_episodes;
                self.draw(recipe, share, PoolPart::HeldOut, &mut random)
            })
            .collect()
    }

    fn draw(
        &self,
        recipe: &MetaTrainRecipe,
        share_mixed: f64,
        part: PoolPart,
        random: &mut impl Rng,
    ) -> Task {
        let drawable = match part {
            PoolPart::Training => &self.training,
            PoolPart::HeldOut => &self.held_out,
        };
        let wants_mixed = random.random_bool(share_mixed);
        let is_mixed = match (drawable.within.is_empty(), drawable.mixed.is_empty()) {
            (false, false) => wants_mixed,
            (is_mixed, _) => is_mixed,
        };
        let shots = recipe.shots.draw(random);
        let chosen = if is_mixed {
            self.mixed(&drawable.mixed, recipe.way, part, random)
        } else {
            let own = &drawable.within[random.random_range(0..drawable.within.len())];
            let places = sample(random, own.len(), recipe.way.min(own.len()));
            places.into_iter().map(|place| own[place]).collect()
        };
        let classes: Vec<EpisodeClass> = chosen
            .into_iter()
            .map(|class| self.images_of(class, part, (shots, recipe.queries), random))
            .collect();
        let teacher = classes.first().filter(|_| !is_mixed);
        Task {
            teacher: teacher.map(|first| self.classes[first.class].source),
            classes,
        }
    }

    /// Up to `way` classes of at least two sources.
    fn mixed(
        &self,
        drawable: &[usize],
        way: usize,
        part: PoolPart,
        random: &mut impl Rng,
    ) -> Vec<usize> {
        let first = drawable[random.random_range(0..drawable.len())];
        let mut order: Vec<usize> = (0..self.classes.len()).collect();
        order.shuffle(random);
        let fits = |chosen: &[usize], class: usize| {
            let own = &self.classes[class];
            own.images(part).len() >= self.least_images
                && chosen
                    .iter()
                    .all(|&other| other != class && own.goes_with(&self.classes[other]))
        };
        let mut chosen = vec![first];
        let of_others = |class: usize| self.classes[class].source != self.classes[first].source;
        let second = order
            .iter()
            .find(|&&class| of_others(class) && fits(&chosen, class));
        chosen.extend(second);
        for class in order {
            if chosen.len() < way && fits(&chosen, class) {
                chosen.push(class);
            }
        }
        chosen
    }

    fn images_of(
        &self,
        class: usize,
        part: PoolPart,
        (shots, queries): (usize, usize),
        random: &mut impl Rng,
    ) -> EpisodeClass {
        let own = self.classes[class].images(part);
        // At least one image is left for the queries.
        let shots = shots.min(own.len() - 1);
        let count = (shots + queries).min(own.len());
        let places = sample(random, own.len(), count).into_iter();
        let images: Vec<usize> = places.map(|place| own[place]).collect();
        let (supports, queries) = images.split_at(shots);
        EpisodeClass {
            class,
            supports: supports.to_vec(),
            queries: queries.to_vec(),
        }
    }
}

impl Drawable {
    fn of(classes: &[PooledClass], part: PoolPart, least_images: usize) -> Self {
        let usable = |class: &&usize| classes[**class].images(part).len() >= least_images;
        let all: Vec<usize> = (0..classes.len()).collect();
        let all: Vec<usize> = all.iter().filter(usable).copied().collect();
        let sources = classes.last().map_or(0, |last| last.source + 1);
        let within = (0..sources).map(|source| {
            let own = all.iter().filter(|&&class| classes[class].source == source);
            own.copied().collect::<Vec<usize>>()
        });
        let has_partner = |&class: &usize| {
            all.iter().any(|&other| {
                let (own, other) = (&classes[class], &classes[other]);
                own.source != other.source && own.goes_with(other)
            })
        };
        Self {
            within: within.filter(|own| own.len() >= 2).collect(),
            mixed: all.iter().copied().filter(has_partner).collect(),
        }
    }
}
