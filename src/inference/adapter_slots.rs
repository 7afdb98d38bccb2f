//! Which adapters are ready for an ONNX graph, in tables by rank, and which rows are computed together.
//! Knows adapters and the names of the graph's inputs; knows no session and computes nothing.

use super::encoder::EncodeRow;
use super::slot_table::{AdaptedMaps, LoraInput, MOST_SLOTS, SlotTable, stacked_bytes};
use model::adapter::Adapter;
use model::backbone::BackboneConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most bytes of all tables together. One computation may take more where a single adapter does.
const MOST_BYTES: usize = 512 << 20;

fn adapters_of<'r>(
    rows: impl Iterator<Item = &'r EncodeRow>,
) -> impl Iterator<Item = &'r Arc<Adapter>> {
    rows.filter_map(EncodeRow::changing_adapter)
}

/// Ranks that share a table: those up to this one that are larger than a quarter of it, and all small ones. An adapter of a
/// large rank costs the others nothing then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RankClass(usize);

impl RankClass {
    const SMALLEST: Self = Self(16);

    fn of(adapter: &Adapter) -> Self {
        let mut class = Self::SMALLEST;
        while class.0 < adapter.largest_rank() {
            class.0 = class.0.saturating_mul(4);
        }
        class
    }

    /// Whether a computation takes so much memory that it is given back at once.
    pub fn is_large(self) -> bool {
        self.0 > 64
    }
}

/// Rows that are computed at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub class: RankClass,
    /// Indices of the rows, in order.
    pub rows: Vec<usize>,
}

/// The tables of slots. Slot 0 of each holds zeros: the bare backbone.
#[derive(Default)]
pub struct AdapterSlots {
    tables: BTreeMap<RankClass, SlotTable>,
    uses: u64,
}

impl AdapterSlots {
    /// Makes the adapters of `rows`, which are those of a [`Run`], ready and says for each row in which slot of the table they
    /// are.
    pub fn assign(
        &mut self,
        rows: &[&EncodeRow],
        class: RankClass,
        config: &BackboneConfig,
    ) -> Vec<i64> {
        self.uses += 1;
        self.drop_unheld();
        let used: BTreeSet<*const Adapter> =
            adapters_of(rows.iter().copied()).map(Arc::as_ptr).collect();
        let table = self.tables.entry(class).or_default();
        let mut fresh: Vec<&Arc<Adapter>> = Vec::new();
        for adapter in adapters_of(rows.iter().copied()) {
            let is_known = |own: &&Arc<Adapter>| Arc::ptr_eq(own, adapter);
            if table.place(adapter).is_none() && !fresh.iter().any(is_known) {
                fresh.push(adapter);
            }
        }
        self.make_room(class, &fresh, &used, config);
        let table = self.tables.entry(class).or_default();
        for adapter in fresh {
            table.put(adapter, &used, self.uses);
        }
        let slots = rows.iter().map(|row| {
            let place = row.changing_adapter().and_then(|own| table.place(own));
            place.map_or(0, |place| {
                table.mark_used(place, self.uses, row.pinned);
                1 + place as i64
            })
        });
        let slots = slots.collect();
        self.stack(config);
        slots
    }

    /// The inputs of a graph for `maps`, after [`Self::assign`].
    pub fn inputs(
        &self,
        class: RankClass,
        maps: AdaptedMaps,
    ) -> impl Iterator<Item = LoraInput<'_>> {
        let table = self.tables.get(&class).into_iter();
        table.flat_map(move |table| table.inputs(maps))
    }

    /// Gives back the memory of adapters that nobody else holds any more: deleted or long unused.
    pub fn tidy(&mut self, config: &BackboneConfig) {
        self.drop_unheld();
        self.stack(config);
    }

    fn drop_unheld(&mut self) {
        for table in self.tables.values_mut() {
            table.drop_unheld();
        }
    }

    fn stack(&mut self, config: &BackboneConfig) {
        self.tables.retain(|_, table| !table.is_empty());
        for table in self.tables.values_mut() {
            table.stack(config);
        }
    }

    /// Drops what is worth least, but nothing of `used`, until `fresh` adapters of `class` fit.
    fn make_room(
        &mut self,
        class: RankClass,
        fresh: &[&Arc<Adapter>],
        used: &BTreeSet<*const Adapter>,
        config: &BackboneConfig,
    ) {
        loop {
            let tables = self.tables.iter();
            let bytes = tables.map(|(&own, table)| match own == class {
                true => table.bytes_with(fresh, config),
                false => table.bytes_with(&[], config),
            });
            if fresh.is_empty() || bytes.sum::<usize>() <= MOST_BYTES {
                return;
            }
            let least = |(&class, table): (&RankClass, &SlotTable)| {
                let (order, place) = table.worth_least(used)?;
                Some((order, class, place))
            };
            let Some((_, class, place)) = self.tables.iter().filter_map(least).min() else {
                return;
            };
            if let Some(table) = self.tables.get_mut(&class) {
                table.remove(place);
            }
        }
    }
}

/// Splits `rows` into runs of one class that name a limited number of adapters each. Rows for the bare backbone go with the
/// smallest ranks.
pub fn runs(rows: &[EncodeRow], config: &BackboneConfig) -> Vec<Run> {
    let class = |row: &EncodeRow| row.changing_adapter().map(|own| RankClass::of(own));
    let smallest = rows.iter().filter_map(class).min();
    let smallest = smallest.unwrap_or(RankClass::SMALLEST);
    let mut classes: BTreeMap<RankClass, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let class = class(row).unwrap_or(smallest);
        classes.entry(class).or_default().push(index);
    }
    let mut runs = Vec::new();
    for (class, indices) in classes {
        let most = most_adapters(indices.iter().map(|&index| &rows[index]), config);
        let mut named = BTreeSet::new();
        let mut run = Run {
            class,
            rows: Vec::new(),
        };
        for index in indices {
            if let Some(adapter) = rows[index].changing_adapter() {
                let adapter = Arc::as_ptr(adapter);
                if !named.contains(&adapter) && named.len() == most {
                    let rows = std::mem::take(&mut run.rows);
                    runs.push(Run { class, rows });
                    named.clear();
                }
                named.insert(adapter);
            }
            run.rows.push(index);
        }
        runs.push(run);
    }
    runs
}

/// Adapters of `rows` that are ready at once within the limit of memory.
fn most_adapters<'r>(
    rows: impl Iterator<Item = &'r EncodeRow> + Clone,
    config: &BackboneConfig,
) -> usize {
    let maps = AdaptedMaps::of_adapters(adapters_of(rows.clone()));
    let ranks = adapters_of(rows).map(|own| own.largest_rank());
    let slot_bytes = stacked_bytes(1, ranks.max().unwrap_or(0), maps, config);
    let most = MOST_BYTES / slot_bytes.max(1);
    // One slot holds zeros.
    most.saturating_sub(1).clamp(1, MOST_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::adapter::{LowRankPair, Site};
    use model::backbone::{Target, embedded_config};
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

    fn class_of(row: &EncodeRow) -> RankClass {
        row.changing_adapter()
            .map_or(RankClass::SMALLEST, |own| RankClass::of(own))
    }

    fn bytes(slots: &AdapterSlots) -> usize {
        slots.tables.values().map(SlotTable::bytes).sum()
    }

    #[test]
    fn a_large_rank_pads_no_other_and_its_memory_goes_with_it() {
        let config = embedded_config().expect("the embedded backbone");
        let mut slots = AdapterSlots::default();
        let small = row(&config, 16, Target::Value);
        let large = row(&config, 512, Target::Value);
        slots.assign(&[&small], class_of(&small), &config);
        let before = bytes(&slots);
        let shapes = |slots: &AdapterSlots| -> Vec<[usize; 3]> {
            let inputs = slots.inputs(RankClass::SMALLEST, AdaptedMaps::QueryValue);
            inputs.map(|input| input.shape).collect()
        };
        let shapes_before = shapes(&slots);
        assert_ne!(class_of(&large), class_of(&small));
        slots.assign(&[&large], class_of(&large), &config);
        assert_eq!(shapes(&slots), shapes_before);
        // Two slots, one of zeros, of a rank 32 times as large.
        assert_eq!(bytes(&slots), before + 32 * before);
        drop(large);
        slots.tidy(&config);
        assert_eq!(bytes(&slots), before);
        assert_eq!(shapes(&slots), shapes_before);
    }

    #[test]
    fn a_slot_that_becomes_free_is_filled_by_the_last_and_every_adapter_keeps_its_values() {
        let config = embedded_config().expect("the embedded backbone");
        let mut slots = AdapterSlots::default();
        let filled = |value: f32| {
            let mut row = row(&config, 4, Target::Query);
            let adapter = Arc::make_mut(row.adapter.as_mut().expect("an adapter"));
            for pair in adapter.pairs.values_mut() {
                pair.a.data_mut().fill(value);
            }
            row
        };
        let mut rows: Vec<EncodeRow> = (1..=6).map(|value| filled(value as f32)).collect();
        let class = RankClass::SMALLEST;
        slots.assign(&rows.iter().collect::<Vec<_>>(), class, &config);
        rows.swap_remove(1);
        rows.remove(0);
        slots.tidy(&config);
        let borrowed: Vec<&EncodeRow> = rows.iter().collect();
        let places = slots.assign(&borrowed, class, &config);
        let inputs: Vec<LoraInput<'_>> = slots.inputs(class, AdaptedMaps::QueryValue).collect();
        let [slot_count, inputs_of_map, rank] = inputs[0].shape;
        assert_eq!((slot_count, rank), (5, 4));
        for (row, place) in rows.iter().zip(places) {
            let pairs = &row.adapter.as_ref().expect("an adapter").pairs;
            let expected = pairs.values().next().expect("a pair").a.data()[0];
            let length = inputs_of_map * rank;
            let values = &inputs[0].values[place as usize * length..][..length];
            assert!(values.iter().all(|&value| value == expected));
        }
        assert!(
            inputs[0].values[..inputs_of_map * rank]
                .iter()
                .all(|&value| value == 0.0)
        );
    }

    #[test]
    fn bytes_of_all_tables_are_bounded_and_runs_name_no_more_adapters_than_fit() {
        let config = embedded_config().expect("the embedded backbone");
        let mut slots = AdapterSlots::default();
        let rows: Vec<EncodeRow> = (0..20).map(|_| row(&config, 256, Target::MlpIn)).collect();
        let runs = runs(&rows, &config);
        let all: Vec<usize> = runs.iter().flat_map(|run| run.rows.clone()).collect();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert!(runs.len() > 1);
        for run in &runs {
            let of_run: Vec<&EncodeRow> = run.rows.iter().map(|&index| &rows[index]).collect();
            let places = slots.assign(&of_run, run.class, &config);
            assert!(places.iter().all(|&place| place > 0), "{places:?}");
            assert!(bytes(&slots) <= MOST_BYTES, "{}", bytes(&slots));
        }
    }

    #[test]
    fn rows_go_by_rank_and_those_of_the_bare_backbone_with_the_smallest() {
        let config = embedded_config().expect("the embedded backbone");
        let bare = EncodeRow::bare(Arc::new(Tensor::zeros([3, 1, 1])));
        let [small, large] = [8, 100].map(|rank| row(&config, rank, Target::Query));
        let rows = [large.clone(), bare.clone(), small, large];
        let found: Vec<Vec<usize>> = runs(&rows, &config)
            .into_iter()
            .map(|run| run.rows)
            .collect();
        assert_eq!(found, [vec![1, 2], vec![0, 3]]);
        let found = runs(&[bare.clone(), bare], &config);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_pinned_adapter_keeps_its_slot_while_the_least_recently_used_goes() {
        let config = embedded_config().expect("the embedded backbone");
        let mut slots = AdapterSlots::default();
        let mut assign = |row: &EncodeRow| slots.assign(&[row], class_of(row), &config)[0];
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
        let config = embedded_config().expect("the embedded backbone");
        let mut slots = AdapterSlots::default();
        let mut place_of = |row: &EncodeRow| slots.assign(&[row], class_of(row), &config)[0];
        let kept = row(&config, 3, Target::Value);
        let deleted = row(&config, 16, Target::MlpOut);
        assert_eq!(place_of(&kept), 1);
        assert_eq!(place_of(&deleted), 2);
        drop(deleted);
        let next = row(&config, 5, Target::Query);
        assert_eq!(place_of(&next), 2);
        let all: Vec<[usize; 3]> = slots
            .inputs(RankClass::SMALLEST, AdaptedMaps::QueryValue)
            .map(|input| input.shape)
            .collect();
        let width = config.width;
        let expected = [[3, width, 8], [3, 8, width]].repeat(2 * config.layers);
        assert_eq!(all, expected);
    }
}
