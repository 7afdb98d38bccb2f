"""The operations of one pass of a vision transformer forward and backward, in their order, and the memory that it takes.

The counterpart of crates/engine/src/vit/{plan,forward,backward}.rs and of what session/mod.rs adds, for transformers as Hugging Face's ViT: no
scales of branches, the class token is the feature. Copies are those of a pass after the first, which also brings weights.
"""

from dataclasses import dataclass, field

from operations import VALUE, up_to

TARGETS = ["query", "key", "value", "output", "mlp_in", "mlp_out"]
# Of product.rs: what cuBLAS may use for itself.
WORKSPACE = 32 << 20


@dataclass(frozen=True)
class Model:
    name: str
    width: int
    layers: int
    heads: int
    mlp_width: int
    patch_size: int
    side: int

    @property
    def patches(self):
        return (self.side // self.patch_size) ** 2

    @property
    def patch_inputs(self):
        return 3 * self.patch_size**2

    @property
    def pixels(self):
        """Values of an image."""
        return 3 * self.side**2


@dataclass(frozen=True)
class Pass:
    """One micro-batch. `kept` patches enter where they are a choice; `pruning` is the share that goes, by layer."""

    model: Model
    images: int
    kept: int | None = None
    pruning: dict = field(default_factory=dict)
    # Rank of a low-rank pair by target, the same in each layer from `first_adapted` on.
    ranks: dict = field(default_factory=dict)
    first_adapted: int = 0
    pixels: bool = False
    pairs: bool = False
    # Of class_attention, last_hidden_state, kept_tokens and norm_input_sums.
    wanted: tuple = ()
    # Images and gradients at them stay on the device.
    images_on_device: bool = False
    # Pictures that stay there, a byte a value, of which the images are some.
    pool: int = 0

    @property
    def tokens(self):
        return 1 + (self.model.patches if self.kept is None else self.kept)

    @property
    def tokens_before(self):
        """Tokens of an image before each layer and after the last."""
        tokens = [self.tokens]
        for layer in range(self.model.layers):
            tokens.append(tokens[-1] - int((tokens[-1] - 1) * self.pruning.get(layer, 0)))
        if tokens[-1] > 1 and tokens[-1] == tokens[-2] and not {"last_hidden_state", "norm_input_sums"} & set(self.wanted):
            tokens[-1] = 1  # nothing but the class token is read
        return tokens

    @property
    def first_kept(self):
        """Layers from here on are differentiated."""
        if self.pixels:
            return 0
        return self.first_adapted if self.pairs else self.model.layers + 1

    def rank(self, layer, target):
        return self.ranks.get(target, 0) if layer >= self.first_adapted else 0

    def prunes(self, layer):
        return int((self.tokens_before[layer] - 1) * self.pruning.get(layer, 0)) > 0

    def pair_values(self):
        """Values of all low-rank pairs as they are laid out."""
        width, mlp = self.model.width, self.model.mlp_width
        inputs, outputs = {"mlp_out": mlp}, {"mlp_in": mlp}
        by_layer = sum(up_to(rank * inputs.get(target, width), 16) + up_to(rank * outputs.get(target, width), 16) for target, rank in self.ranks.items())
        return by_layer * (self.model.layers - self.first_adapted)


def forward(ops, own):
    """Queues the forward pass of a micro-batch."""
    model, sparse = own.model, own.kept is not None
    width, images, tokens = model.width, own.images, own.tokens_before
    if own.ranks:
        ops.upload(own.pair_values())
    rows = images * own.tokens
    if sparse:
        ops.upload(rows)
    if own.pool:
        ops.upload(2 * images)  # which pictures, and whether they are mirrored
        ops.kernel("normalise_levels", images * model.pixels // 4 + 2 * images + 3 * 256, images * model.pixels)
    elif not own.images_on_device:
        ops.upload(images * model.pixels)
    ops.patchify(rows, model.patch_inputs, sparse)
    ops.product("patch embedding", rows, width, model.patch_inputs)
    ops.embed(rows, width, sparse, own.tokens)
    ops.norm(rows, width)
    for layer in range(model.layers):
        rows_in, rows_out = images * tokens[layer], images * tokens[layer + 1]
        if "norm_input_sums" in own.wanted:
            ops.column_sums(rows_in, width)
        _attention_half(ops, own, layer, rows_in, rows_out)
        if "kept_tokens" in own.wanted and rows_in != rows_out:
            ops.download(rows_out)
        if "norm_input_sums" in own.wanted:
            ops.column_sums(rows_out, width)
        ops.product("MLP in", rows_out, model.mlp_width, width)
        _add_low_rank(ops, own, layer, "mlp_in", rows_out)
        ops.activation(rows_out, model.mlp_width)
        ops.product("MLP out", rows_out, width, model.mlp_width)
        _add_low_rank(ops, own, layer, "mlp_out", rows_out)
        ops.residual_norm(rows_out, width, False, True)
    if "norm_input_sums" in own.wanted:
        ops.download(2 * model.layers * 4 * width)
    if "last_hidden_state" in own.wanted:
        ops.download(images * tokens[-1] * width)
    ops.pool(images, width)
    ops.download(images * width)


def _attention_half(ops, own, layer, rows_in, rows_out):
    model, images = own.model, own.images
    width, heads = model.width, model.heads
    shape = (images, rows_out // images, rows_in // images, heads, width // heads)
    _, queries, tokens, _, _ = shape
    ops.product("key and value", rows_in, 2 * width, width)
    _add_low_rank(ops, own, layer, "key", rows_in)
    _add_low_rank(ops, own, layer, "value", rows_in)
    if rows_in != rows_out:
        if own.prunes(layer) and queries > 1:
            ops.product("query", images, width, width)
            _add_low_rank(ops, own, layer, "query", images)
            ops.class_attention(images, tokens, width, heads)
        ops.choose_rows(images, tokens, queries - 1)
        ops.gather(rows_out, width)
    ops.product("query", rows_out, width, width)
    _add_low_rank(ops, own, layer, "query", rows_out)
    if layer + 1 == model.layers and "class_attention" in own.wanted:
        ops.class_attention(images, tokens, width, heads)
        ops.download(images * (tokens - 1))
    ops.attention(*shape)
    ops.product("attention's output", rows_out, width, width)
    _add_low_rank(ops, own, layer, "output", rows_out)
    ops.residual_norm(rows_out, width, rows_in != rows_out, True)


def _sides(model, target):
    """Inputs and outputs of a linear map."""
    return (model.mlp_width if target == "mlp_out" else model.width, model.mlp_width if target == "mlp_in" else model.width)


def _add_low_rank(ops, own, layer, target, rows):
    rank = own.rank(layer, target)
    inputs, outputs = _sides(own.model, target)
    ops.product("low-rank, down", rows, rank, inputs)
    ops.product("low-rank, up", rows, outputs, rank, add=True)


def backward(ops, own, norm_inputs=False):
    """Queues the backward pass, from the gradients of the features on. `norm_inputs`: gradients at the inputs of the LayerNorms are added."""
    model, images, tokens = own.model, own.images, own.tokens_before
    width, mlp = model.width, model.mlp_width
    if norm_inputs:
        ops.upload(2 * model.layers * width)
        ops.upload(2 * model.layers * width)
    if own.pairs:
        ops.fill_zero(own.pair_values())
    ops.upload(images * width)
    rows = images * tokens[-1]
    ops.pool_backward(rows, images, width)
    ops.fill_zero(rows * width)
    ops.norm_backward(rows, width)
    for layer in range(model.layers - 1, own.first_kept - 1, -1):
        stops = layer == own.first_kept and not own.pixels
        rows_in, rows_out = images * tokens[layer], images * tokens[layer + 1]
        trains = lambda *targets: own.pairs and any(own.rank(layer, target) for target in targets)
        ops.product("MLP out, back", rows_out, mlp, width)
        if trains("mlp_out"):
            ops.activation(rows_out, mlp)
        _low_rank_backward(ops, own, layer, "mlp_out", rows_out)
        ops.activation_backward(rows_out, mlp)
        ops.product("MLP in, back", rows_out, width, mlp)
        if trains("mlp_in"):
            ops.norm(rows_out, width)
        _low_rank_backward(ops, own, layer, "mlp_in", rows_out)
        ops.norm_backward(rows_out, width)
        if norm_inputs:
            ops.add_affine(rows_out, width)
        _attention_backward(ops, own, layer, stops, trains("query", "key", "value"))
        if stops:
            break
        if rows_in != rows_out:
            ops.fill_zero(rows_in * width)
            ops.scatter_add(rows_out, width)
        ops.norm_backward(rows_in, width)
        if norm_inputs:
            ops.add_affine(rows_in, width)
    if own.pixels:
        rows = images * own.tokens
        ops.product("patch embedding, back", rows, model.patch_inputs, width)
        ops.patchify_backward(rows, model.patch_inputs, own.kept is not None, images * model.pixels)
        if not own.images_on_device:
            ops.download(images * model.pixels)
    if own.pairs:
        ops.download(own.pair_values())


def _attention_backward(ops, own, layer, stops, trains):
    model, images, tokens = own.model, own.images, own.tokens_before
    width, heads = model.width, model.heads
    rows_in, rows_out = images * tokens[layer], images * tokens[layer + 1]
    ops.product("attention's output, back", rows_out, width, width)
    _low_rank_backward(ops, own, layer, "output", rows_out)
    ops.attention_backward(images, tokens[layer + 1], tokens[layer], heads, width // heads)
    if not stops:
        ops.product("key and value, back", rows_in, width, 2 * width)
    if trains:
        ops.norm(rows_in, width)
    _low_rank_backward(ops, own, layer, "key", rows_in)
    _low_rank_backward(ops, own, layer, "value", rows_in)
    chooses = rows_in != rows_out
    if chooses or not stops:
        ops.product("query, back", rows_out, width, width, add=not chooses)
    if chooses and trains:
        ops.gather(rows_out, width)
    _low_rank_backward(ops, own, layer, "query", rows_out)
    if chooses and not stops:
        ops.scatter_add(rows_out, width)


def _low_rank_backward(ops, own, layer, target, rows):
    rank = own.rank(layer, target)
    inputs, outputs = _sides(own.model, target)
    ops.product("low-rank, down", rows, rank, outputs)
    if own.pairs:
        ops.product("low-rank, gradients", rank, outputs, rows, add=True)
        ops.product("low-rank, gradients", rank, inputs, rows, add=True)
    ops.product("low-rank, up", rows, inputs, rank, add=True)


def memory(own, norm_inputs=False):
    """Bytes on the device: of the weights, and of a pass."""
    model = own.model
    width, mlp, layers = model.width, model.mlp_width, model.layers
    # Keys have no bias, which a softmax would take out again.
    layer = 4 * width**2 + 2 * width * mlp + 8 * width + mlp
    weights = layers * layer + width * model.patch_inputs + 4 * width + (1 + model.patches) * width
    lengths = sum(_lengths(own)) + own.pair_values() * (2 if own.pairs else 1)
    if norm_inputs:
        lengths += 4 * layers * width
    if "norm_input_sums" in own.wanted:
        parts = -(-own.images * own.tokens // 256)
        lengths += parts * 4 * width if parts > 1 else 0
    if own.pool:
        lengths += -(-own.pool * model.pixels // VALUE) + 3 * 256
    return VALUE * weights, VALUE * lengths


def _lengths(own):
    """Values of the buffers as plan.rs lays them out: kept, scratch, pixels."""
    model, images, tokens = own.model, own.images, own.tokens_before
    width, mlp, heads, layers = model.width, model.mlp_width, model.heads, model.layers
    take = lambda rows, columns: up_to(rows * columns, 16)
    most, rank = images * own.tokens, max(own.ranks.values(), default=0)
    differentiated = own.first_kept <= layers
    attention = take(1, images * own.tokens * heads)
    rows_of = lambda layer: images * tokens[layer]

    scratch = [(most, width)] * 7 + [(most, 2 * width), (most, heads), (most, mlp)]
    scratch += [(most, mlp)] * differentiated + [(most, 2)] * 2 + [(most, rank)] * 6
    scratch += [(images, width), (images, rank), (images, own.tokens)]
    scratch += [(most, model.patch_inputs)] * (model.patch_inputs > mlp)
    forward_length = sum(take(*size) for size in scratch) + attention

    kept = [(most, 1)] * (own.kept is not None) + [(2 * layers, 4 * width)] * ("norm_input_sums" in own.wanted)
    kept += [(rows_of(layer), width) for layer in range(own.first_kept, layers + 1)]
    for layer in range(layers):
        rows_in, rows_out = rows_of(layer), rows_of(layer + 1)
        kept += [(rows_out, 1)] * (rows_in != rows_out)
        if layer < own.first_kept:
            continue
        kept += [(rows_in, 2), (rows_out, 2), (rows_out, width), (rows_in, 2 * width), (rows_out, heads), (rows_out, width), (rows_out, mlp)]
        if own.pairs:
            kept += [(rows_in if target in ("key", "value") else rows_out, own.rank(layer, target)) for target in own.ranks]
            kept += [(rows_out, width)] * bool(own.rank(layer, "output"))
    kept += [(rows_of(layers), 2)] * differentiated

    backward_length = 0
    if differentiated:
        chooses = any(rows_of(layer) != rows_of(layer + 1) for layer in range(layers))
        trains_out = own.pairs and own.ranks.get("mlp_out", 0) > 0
        scratch = [(most, width)] * (6 + 3 * chooses) + [(most, max(mlp, model.patch_inputs)), (most, mlp * trains_out), (most, 2 * width), (most, rank), (most, 2)]
        backward_length = sum(take(*size) for size in scratch) + attention
    scratch_length = max(forward_length, backward_length) + 2 * take(images, width)
    pixels = (1 + own.pixels) * take(images, model.pixels) + take(2 * images, 1)
    return sum(take(*size) for size in kept), scratch_length, pixels
