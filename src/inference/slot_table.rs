//! One table of slots: low-rank pairs of adapters whose ranks are alike, stacked as an ONNX graph takes them.

use super::encoder::EncodeRow;
use model::adapter::{Adapter, Site};
use model::backbone::onnx::lora_inputs;
use model::backbone::{BackboneConfig, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Ranks are padded to a multiple of this, so that graphs see few different shapes.
const RANK_STEP: usize = 4;

/// Most adapters of a table that are ready at once, and most in one computation.
pub const MOST_SLOTS: usize = 32;

/// The linear maps that a graph takes low-rank pairs for. Few combinations: each is a session with its own weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum AdaptedMaps {
    /// None: the bare backbone.
    #[default]
    None,
    QueryValue,
    All,
}

impl AdaptedMaps {
    /// The smallest combination that holds what `rows` need.
    pub fn of(rows: &[&EncodeRow]) -> Self {
        Self::of_adapters(rows.iter().filter_map(|row| row.changing_adapter()))
    }

    pub(super) fn of_adapters<'a>(adapters: impl Iterator<Item = &'a Arc<Adapter>>) -> Self {
        adapters
            .flat_map(|adapter| adapter.pairs.keys())
            .map(|site| match site.target {
                Target::Query | Target::Value => Self::QueryValue,
                Target::Key | Target::Output | Target::MlpIn | Target::MlpOut => Self::All,
            })
            .max()
            .unwrap_or(Self::None)
    }

    pub fn targets(self) -> &'static [Target] {
        match self {
            Self::None => &[],
            Self::QueryValue => &[Target::Query, Target::Value],
            Self::All => &Target::ALL,
        }
    }
}

/// An adapter that is ready.
struct Slot {
    adapter: Arc<Adapter>,
    last_used: u64,
    pinned: bool,
}

impl Slot {
    /// Whether anybody else holds the adapter: one that was deleted or long unused can never be asked for again.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.adapter) > 1
    }

    /// Lowest goes first: those not pinned before the others, each by their last use.
    fn eviction_order(&self) -> (bool, u64) {
        (self.pinned, self.last_used)
    }
}

/// The low-rank pairs of one linear map, all slots.
struct StackedPairs {
    site: Site,
    outputs: usize,
    inputs: usize,
    names: [String; 2],
    /// `Aᵀ`, `[slots, in, rank]`
    a: Vec<f32>,
    /// `scale·Bᵀ`, `[slots, rank, out]`
    b: Vec<f32>,
}

/// One input of a graph.
pub struct LoraInput<'s> {
    pub name: &'s str,
    pub shape: [usize; 3],
    pub values: &'s [f32],
}

/// The slots of one class of ranks. Slot 0 holds zeros: the bare backbone.
#[derive(Default)]
pub(super) struct SlotTable {
    slots: Vec<Slot>,
    /// Places whose adapter is not stacked yet.
    changed: BTreeSet<usize>,
    /// Padded largest rank of the adapters in the table.
    rank: usize,
    /// What the adapters in the table need together.
    maps: AdaptedMaps,
    stacked: Vec<StackedPairs>,
}

impl SlotTable {
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn place(&self, adapter: &Arc<Adapter>) -> Option<usize> {
        // The table holds the adapter, so that no other has its address.
        self.slots
            .iter()
            .position(|slot| Arc::ptr_eq(&slot.adapter, adapter))
    }

    pub fn mark_used(&mut self, place: usize, use_number: u64, pinned: bool) {
        self.slots[place].last_used = use_number;
        self.slots[place].pinned = pinned;
    }

    /// Gives `adapter` a new slot, or that of the adapter worth least of those that are not `used`.
    pub fn put(
        &mut self,
        adapter: &Arc<Adapter>,
        used: &BTreeSet<*const Adapter>,
        use_number: u64,
    ) {
        let slot = Slot {
            adapter: Arc::clone(adapter),
            last_used: use_number,
            pinned: false,
        };
        let place = match self.worth_least(used) {
            Some((_, place)) if self.slots.len() >= MOST_SLOTS => {
                self.slots[place] = slot;
                place
            }
            _ => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.changed.insert(place);
    }

    /// The place of the adapter to displace first, with what orders it among others; none of those that are `used`.
    pub fn worth_least(&self, used: &BTreeSet<*const Adapter>) -> Option<((bool, u64), usize)> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| !used.contains(&Arc::as_ptr(&slot.adapter)))
            .map(|(place, slot)| (slot.eviction_order(), place))
            .min()
    }

    /// Takes an adapter out; the last one moves into its place.
    pub fn remove(&mut self, place: usize) {
        self.slots.swap_remove(place);
        self.changed.insert(place);
    }

    pub fn drop_unheld(&mut self) {
        while let Some(place) = self.slots.iter().position(|slot| !slot.is_held()) {
            self.remove(place);
        }
    }

    /// Bytes of the stacked pairs with `fresh` adapters among them.
    pub fn bytes_with(&self, fresh: &[&Arc<Adapter>], config: &BackboneConfig) -> usize {
        let adapters = || self.adapters().chain(fresh.iter().copied());
        let count = (self.slots.len() + fresh.len()).min(MOST_SLOTS);
        let maps = AdaptedMaps::of_adapters(adapters());
        let rank = adapters().map(|own| own.largest_rank()).max().unwrap_or(0);
        stacked_bytes(1 + count, rank, maps, config)
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let values = |pairs: &StackedPairs| pairs.a.capacity() + pairs.b.capacity();
        size_of::<f32>() * self.stacked.iter().map(values).sum::<usize>()
    }

    fn adapters(&self) -> impl Iterator<Item = &Arc<Adapter>> {
        self.slots.iter().map(|slot| &slot.adapter)
    }

    /// The inputs of a graph for `maps`, after [`Self::stack`].
    pub fn inputs(&self, maps: AdaptedMaps) -> impl Iterator<Item = LoraInput<'_>> {
        let (slots, rank) = (1 + self.slots.len(), self.rank);
        self.stacked
            .iter()
            .filter(move |pairs| maps.targets().contains(&pairs.site.target))
            .flat_map(move |pairs| {
                let [a, b] = &pairs.names;
                [
                    LoraInput {
                        name: a,
                        shape: [slots, pairs.inputs, rank],
                        values: &pairs.a,
                    },
                    LoraInput {
                        name: b,
                        shape: [slots, rank, pairs.outputs],
                        values: &pairs.b,
                    },
                ]
            })
    }

    /// Brings the stacked pairs up to date.
    pub fn stack(&mut self, config: &BackboneConfig) {
        if self.changed.is_empty() {
            return;
        }
        let rank = self.adapters().map(|own| own.largest_rank()).max();
        let rank = padded(rank.unwrap_or(0));
        let maps = AdaptedMaps::of_adapters(self.adapters());
        if (self.maps, self.rank) != (maps, rank) {
            self.stacked = sites(maps, config)
                .map(|site| StackedPairs::empty(site, config))
                .collect();
            (self.maps, self.rank) = (maps, rank);
            self.changed = (0..self.slots.len()).collect();
        }
        let slots = 1 + self.slots.len();
        let changed = std::mem::take(&mut self.changed);
        for pairs in &mut self.stacked {
            resize_exactly(&mut pairs.a, slots * pairs.inputs * rank);
            resize_exactly(&mut pairs.b, slots * rank * pairs.outputs);
            for &place in changed.range(..self.slots.len()) {
                pairs.write(1 + place, rank, &self.slots[place].adapter);
            }
        }
    }
}

/// Bytes of the stacked pairs of `slots` slots.
pub(super) fn stacked_bytes(
    slots: usize,
    rank: usize,
    maps: AdaptedMaps,
    config: &BackboneConfig,
) -> usize {
    let widths = sites(maps, config).map(|site| {
        let (outputs, inputs) = site.target.widths(config);
        outputs + inputs
    });
    size_of::<f32>() * slots * padded(rank) * widths.sum::<usize>()
}

fn sites(maps: AdaptedMaps, config: &BackboneConfig) -> impl Iterator<Item = Site> {
    let targets = maps.targets().iter();
    (0..config.layers).flat_map(move |layer| {
        let site = move |&target| Site { layer, target };
        targets.clone().map(site)
    })
}

fn padded(rank: usize) -> usize {
    rank.next_multiple_of(RANK_STEP)
}

/// Neither room for more nor what is left of more than twice as much.
fn resize_exactly(values: &mut Vec<f32>, length: usize) {
    values.reserve_exact(length.saturating_sub(values.len()));
    values.resize(length, 0.0);
    if values.capacity() / 2 > length {
        values.shrink_to_fit();
    }
}

impl StackedPairs {
    fn empty(site: Site, config: &BackboneConfig) -> Self {
        let (outputs, inputs) = site.target.widths(config);
        Self {
            site,
            outputs,
            inputs,
            names: lora_inputs(site.layer, site.target),
            a: Vec::new(),
            b: Vec::new(),
        }
    }

    /// Writes the low-rank pair of `adapter` into `slot`, padded with zeros to `rank`.
    fn write(&mut self, slot: usize, rank: usize, adapter: &Adapter) {
        let a = &mut self.a[slot * self.inputs * rank..][..self.inputs * rank];
        let b = &mut self.b[slot * rank * self.outputs..][..rank * self.outputs];
        a.fill(0.0);
        b.fill(0.0);
        let Some(pair) = adapter.pairs.get(&self.site) else {
            return;
        };
        for (row, values) in pair.a.data().chunks_exact(self.inputs).enumerate() {
            for (column, value) in values.iter().enumerate() {
                a[column * rank + row] = *value;
            }
        }
        for (row, values) in pair.b.data().chunks_exact(pair.rank()).enumerate() {
            for (column, value) in values.iter().enumerate() {
                b[column * self.outputs + row] = value * pair.scale;
            }
        }
    }
}
