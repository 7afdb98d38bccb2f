//! Low-rank pairs of the adapters that are being served, stacked by slot as an ONNX graph takes them.
//! Knows adapters and the names of the graph's inputs; knows no session and computes nothing.

use super::encoder::EncodeRow;
use model::adapter::{Adapter, Site};
use model::backbone::onnx::lora_inputs;
use model::backbone::{BackboneConfig, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most adapters that are ready at once, and most in one computation.
pub const MOST_SLOTS: usize = 32;

/// Ranks are padded to a multiple of this, so that graphs see few different shapes.
const RANK_STEP: usize = 4;

/// The linear maps that a graph takes low-rank pairs for. Few combinations: each is a session of its own, with its own weights.
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
    pub fn of(rows: &[EncodeRow]) -> Self {
        Self::of_adapters(rows.iter().filter_map(EncodeRow::changing_adapter))
    }

    fn of_adapters<'a>(adapters: impl Iterator<Item = &'a Arc<Adapter>>) -> Self {
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
    /// Lowest goes first: adapters that nobody else holds any more (deleted or long unused), then those not pinned, each by
    /// their last use.
    fn eviction_order(&self) -> (bool, bool, u64) {
        let held = Arc::strong_count(&self.adapter) > 1;
        (held, held && self.pinned, self.last_used)
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

/// The table of slots. Slot 0 holds zeros: the bare backbone.
#[derive(Default)]
pub struct AdapterSlots {
    slots: Vec<Slot>,
    /// Padded largest rank of the adapters in the table.
    rank: usize,
    /// What the adapters in the table need together.
    maps: AdaptedMaps,
    stacked: Vec<StackedPairs>,
    uses: u64,
}

impl AdapterSlots {
    /// Makes the adapters of `rows`, which fit the backbone, ready and says for each row in which slot they stand. `rows` name
    /// at most [`MOST_SLOTS`] adapters.
    pub fn assign(&mut self, rows: &[EncodeRow], config: &BackboneConfig) -> Vec<i64> {
        self.uses += 1;
        let used: BTreeSet<*const Adapter> = rows
            .iter()
            .filter_map(EncodeRow::changing_adapter)
            .map(Arc::as_ptr)
            .collect();
        let mut fresh = Vec::new();
        let mut slots = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(adapter) = row.changing_adapter() else {
                slots.push(0);
                continue;
            };
            let place = match self.place(adapter) {
                Some(place) => place,
                None => {
                    let place = self.take_place(adapter, &used);
                    fresh.push(place);
                    place
                }
            };
            self.slots[place].last_used = self.uses;
            self.slots[place].pinned = row.pinned;
            slots.push(1 + place as i64);
        }
        self.stack(config, &fresh);
        slots
    }

    /// The inputs of a graph for `maps`, after [`Self::assign`].
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

    fn place(&self, adapter: &Arc<Adapter>) -> Option<usize> {
        // The table holds the adapter, so that its address is no other's.
        self.slots
            .iter()
            .position(|slot| Arc::ptr_eq(&slot.adapter, adapter))
    }

    /// A new slot, or that of the adapter worth least of those that this batch does not use.
    fn take_place(&mut self, adapter: &Arc<Adapter>, used: &BTreeSet<*const Adapter>) -> usize {
        let slot = Slot {
            adapter: Arc::clone(adapter),
            last_used: self.uses,
            pinned: false,
        };
        let displaced = (0..self.slots.len())
            .filter(|&place| !used.contains(&Arc::as_ptr(&self.slots[place].adapter)))
            .min_by_key(|&place| self.slots[place].eviction_order());
        match displaced {
            Some(place)
                if self.slots.len() >= MOST_SLOTS
                    || Arc::strong_count(&self.slots[place].adapter) == 1 =>
            {
                self.slots[place] = slot;
                place
            }
            _ => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    /// Brings the stacked pairs up to date; `fresh` are the places with a new adapter.
    fn stack(&mut self, config: &BackboneConfig, fresh: &[usize]) {
        if fresh.is_empty() {
            return;
        }
        let adapters = || self.slots.iter().map(|slot| &slot.adapter);
        let rank = adapters()
            .map(|adapter| adapter.largest_rank())
            .max()
            .unwrap_or(0)
            .next_multiple_of(RANK_STEP);
        let maps = AdaptedMaps::of_adapters(adapters());
        let same_layout = (self.maps, self.rank) == (maps, rank);
        if !same_layout {
            self.stacked = (0..config.layers)
                .flat_map(|layer| {
                    maps.targets()
                        .iter()
                        .map(move |&target| Site { layer, target })
                })
                .map(|site| StackedPairs::empty(site, config))
                .collect();
            (self.maps, self.rank) = (maps, rank);
        }
        let slots = 1 + self.slots.len();
        for pairs in &mut self.stacked {
            pairs.a.resize(slots * pairs.inputs * rank, 0.0);
            pairs.b.resize(slots * rank * pairs.outputs, 0.0);
            if same_layout {
                for &place in fresh {
                    pairs.write(1 + place, rank, &self.slots[place].adapter);
                }
            } else {
                for (place, slot) in self.slots.iter().enumerate() {
                    pairs.write(1 + place, rank, &slot.adapter);
                }
            }
        }
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

/// Splits `rows` into runs that name at most [`MOST_SLOTS`] adapters each.
pub fn runs(rows: &[EncodeRow]) -> Vec<&[EncodeRow]> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut named = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        let Some(adapter) = row.changing_adapter() else {
            continue;
        };
        if !named.contains(&Arc::as_ptr(adapter)) && named.len() == MOST_SLOTS {
            runs.push(&rows[start..index]);
            start = index;
            named.clear();
        }
        named.insert(Arc::as_ptr(adapter));
    }
    runs.push(&rows[start..]);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::adapter::LowRankPair;
    use model::backbone::embedded;
    use model::tensor::Tensor;

    fn row(config: &BackboneConfig, rank: usize, target: Target) -> EncodeRow {
        let (outputs, inputs) = target.widths(config);
        let pair = LowRankPair {
            a: Tensor::zeros([rank, inputs]),
            b: Tensor::zeros([outputs, rank]),
            scale: 1.0,
        };
        let site = Site { layer: 0, target };
        let adapter = Adapter {
            pairs: [(site, pair)].into(),
            head: None,
        };
        EncodeRow::adapted(Arc::new(Tensor::zeros([3, 1, 1])), Arc::new(adapter))
    }

    #[test]
    fn a_pinned_adapter_keeps_its_slot_while_the_least_recently_used_goes() {
        let config = embedded().expect("the embedded backbone").config;
        let mut slots = AdapterSlots::default();
        let mut assign = |row: &EncodeRow| {
            let rows = std::slice::from_ref(row);
            slots.assign(rows, &config)[0]
        };
        let pinned = EncodeRow {
            pinned: true,
            ..row(&config, 2, Target::Query)
        };
        let others: Vec<EncodeRow> = (0..MOST_SLOTS)
            .map(|_| row(&config, 2, Target::Query))
            .collect();
        let place = assign(&pinned);
        let places: Vec<i64> = others.iter().map(&mut assign).collect();
        // All slots were taken before the last one: the first of the others had not been used for longest.
        assert_eq!(places[MOST_SLOTS - 1], places[0]);
        assert_eq!(assign(&pinned), place);
        assert_eq!(assign(&others[0]), places[1]);
        assert!(places.iter().all(|&other| other != place && other != 0));
    }

    #[test]
    fn adapters_that_nobody_holds_go_first_and_take_their_rank_with_them() {
        let config = embedded().expect("the embedded backbone").config;
        let mut slots = AdapterSlots::default();
        let mut place_of = |row: &EncodeRow| {
            let rows = std::slice::from_ref(row);
            slots.assign(rows, &config)[0]
        };
        let kept = row(&config, 3, Target::Value);
        let deleted = row(&config, 16, Target::MlpOut);
        assert_eq!(place_of(&kept), 1);
        assert_eq!(place_of(&deleted), 2);
        drop(deleted);
        let next = row(&config, 5, Target::Query);
        assert_eq!(place_of(&next), 2);
        assert_eq!(slots.rank, 8);
        let all: Vec<[usize; 3]> = slots
            .inputs(AdaptedMaps::QueryValue)
            .map(|input| input.shape)
            .collect();
        let width = config.width;
        let expected = [[3, width, 8], [3, 8, width]].repeat(2 * config.layers);
        assert_eq!(all, expected);
    }
}
