"""Defects that scripts/mutants plants in the code that launches kernels, one at a time.

Each: the file of crates/engine/src/cuda that is changed, the test of crates/engine/tests/cuda that must catch it, what is wrong, the text that is
replaced (it must occur once) and what replaces it.
"""

PASS = "session::features_and_all_gradients_are_those_of_the_cpu_with_an_adapter_and_pruned_tokens"
STEPS = "images::twenty_steps_are_those_of_the_cpu_from_the_same_parameters"
GRAPHS = "images::steps_captured_as_graphs_have_the_bits_of_steps_launch_by_launch"

LAUNCHES = [
    # Arguments.
    ("attention.rs", PASS, "attention: biases of queries and values exchanged",
     "        query_bias: queue.vector(input.query_bias, width),\n        value_bias: queue.vector(input.value_bias, width),",
     "        query_bias: queue.vector(input.value_bias, width),\n        value_bias: queue.vector(input.query_bias, width),"),
    ("tokens.rs", PASS, "patchify: patch size and grid exchanged",
     "        patches: queue.rows_mut(patches),\n        tokens: int(grid.tokens),\n        patch_size: int(grid.patch_size),\n        patch_grid: int(grid.grid),",
     "        patches: queue.rows_mut(patches),\n        tokens: int(grid.tokens),\n        patch_size: int(grid.grid),\n        patch_grid: int(grid.patch_size),"),
    ("optimise.rs", STEPS, "adam: first and second moments exchanged",
     "        first: queue.values_mut(first),\n        second: queue.values_mut(second),", "        first: queue.values_mut(second),\n        second: queue.values_mut(first),"),
    ("pixels.rs", "pictures::pictures_on_the_device_give_the_bits_of_the_same_pictures_copied_to_it", "normalise_levels: which are mirrored is not passed",
     "flips: flips.map_or(Ints(0), |flips| queue.ints(flips)),", "flips: Ints(0),"),
    # Grids and shared memory.
    ("geometry.rs", STEPS, "by_value: the last block is missing", "grid: [values.div_ceil(threads as usize), 1, 1],", "grid: [values / threads as usize, 1, 1],"),
    ("geometry.rs", STEPS, "by_image: one image is missing", "grid: [line.grid[0], images, 1],", "grid: [line.grid[0], images - 1, 1],"),
    ("attention.rs", PASS, "attention: heads and images exchanged in the grid",
     "grid: [rows.div_ceil(KEPT_ROWS), shape.heads, shape.images],", "grid: [rows.div_ceil(KEPT_ROWS), shape.images, shape.heads],"),
    ("tokens.rs", PASS, "choose_rows: no shared memory",
     "        shared: (tokens - 1) * size_of::<i32>(),", "        shared: 0,"),
    # Products.
    ("product.rs", PASS, "gemm: leading dimension of the left operand is its number of columns",
     "                a.address as *const _,\n                value,\n                a.stride,", "                a.address as *const _,\n                value,\n                k,"),
    ("product.rs", PASS, "gemm: transposition of the operands exchanged",
     "                operation(b),\n                operation(a),", "                operation(a),\n                operation(b),"),
    ("product.rs", STEPS, "gemm: step from one result to the next is that of the right operand", "                step(repeat.c),", "                step(repeat.b),"),
    ("queue.rs", PASS, "product: accumulation dropped", "            beta: f32::from(u8::from(add)),", "            beta: 0.0,"),
    ("linear.rs", PASS, "low-rank path: the scale is dropped", "    queue.product(a, b, x.columns, scale, u, false);", "    queue.product(a, b, x.columns, 1.0, u, false);"),
    # Order of work and waiting.
    ("queue.rs", PASS, "finish: the host does not wait", "        let waited = self.device.lane.stream.synchronize();\n        self.recordings", "        let waited = Ok(());\n        self.recordings"),
    ("queue.rs", "pieces::memory_that_grows_in_the_middle_of_a_piece_takes_nothing_from_it", "enter: memory goes before the work that names it",
     "        {\n            self.catch_up();\n        }\n        let (device, own)", "        {\n        }\n        let (device, own)"),
    # Graphs.
    ("recording.rs", GRAPHS, "graph: launched with the values of the time before", "                own.values.values_mut()[..values.len()].copy_from_slice(values);\n", ""),
    ("queue.rs", GRAPHS, "graph: all uploads read the values of the first", "                *first = all_values.len();", "                *first = 0;"),
    ("recording.rs", "pieces::a_graph_that_may_still_read_its_values_is_not_given_others", "graph: its values are overwritten while it may read them",
     "            Some(own) if !own.in_flight => {", "            Some(own) => {"),
    ("recording.rs", "pieces::pieces_take_the_values_of_their_time_and_only_those_that_are_known_are_captured", "graph: found by the length of its work",
     "position(|own| own.work == work)", "position(|own| own.work.len() == work.len())"),
    ("recording.rs", GRAPHS, "graph: captured with values that are not pinned",
     "unsafe { queue_all(device, lane, work, values.values().as_ptr()) }", "unsafe { queue_all(device, lane, work, vec![0.0; values.length()].as_ptr()) }"),
    ("recording.rs", GRAPHS, "graph: captured in the stream of other work", "    let graph = lane.stream.capture(|| {", "    let graph = device.lane.stream.capture(|| {"),
]
