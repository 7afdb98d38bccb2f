"""What each operation of the CUDA backend costs: bytes to and from the device's memory, FLOPs, launches.

The counterpart of crates/engine/src/cuda/*.rs, one method an operation of `Backend`, in the same order of arguments where there are some.
Each value that a kernel takes is counted once however often it is read, and each that it gives once: what is read again comes from a
cache. FLOPs of products and of attention are those that are executed, tiles filled up with zeros included. A function such as `exp`, `erfc`
or a division counts as 8 FLOPs; such figures are rough and matter nowhere but where a kernel is said to be bound by FP32 or FP64.
"""

from collections import Counter
from dataclasses import dataclass

VALUE = 4  # bytes
FUNCTION = 8  # FLOPs
# Of attention.h and moments.rs.
KEPT_ROWS, PASSING_ROWS, PART_ROWS = 64, 32, 256


def up_to(value, multiple):
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Operation:
    # Of the kernel; "product", "fill", "copy to the device" or "copy to the host" for what the libraries do.
    name: str
    # The step of the pass that asks for it; the same as `name` where the name says all.
    purpose: str
    read: int
    written: int
    # FLOPs: on tensor cores, and of ordinary arithmetic.
    tf32: int = 0
    fp32: int = 0
    fp64: int = 0

    @property
    def bytes(self):
        return self.read + self.written

    @property
    def flops(self):
        return self.tf32 + self.fp32 + self.fp64

    @property
    def crosses_bus(self):
        return self.name.startswith("copy to")


class Operations:
    """A list of operations, in the order in which they are queued. `exact` is `Precision::Fp32`."""

    def __init__(self, exact=False):
        self.exact = exact
        self.all = []

    def counts(self):
        """What the fake driver counts: launches of kernels, products, fills, copies."""
        kinds = {"product": "products", "fill": "fills", "copy to the device": "copies_to_device", "copy to the host": "copies_to_host"}
        counts = Counter(kinds.get(operation.name, "launches") for operation in self.all)
        return {kind: counts[kind] for kind in ("launches", *kinds.values())}

    def by_purpose(self):
        """Launches by kernel, and products by what they are for."""
        return dict(sorted(Counter(operation.purpose for operation in self.all).items()))

    def kernel(self, name, read, written, **flops):
        self.all.append(Operation(name, name, VALUE * read, VALUE * written, **flops))

    def product(self, purpose, m, n, k, add=False, batch=1):
        """c [m, n] = a [m, k] · b [k, n], or added to c; `batch` of them in one call, all with the same a."""
        if 0 in (m, n, k):
            return
        b, c = batch * k * n, batch * m * n
        rate = {"fp32" if self.exact else "tf32": 2 * c * k}
        self.all.append(Operation("product", f"product: {purpose}", VALUE * (m * k + b + add * c), VALUE * c, **rate))

    def fill_zero(self, values):
        if values:
            self.all.append(Operation("fill", "fill", 0, VALUE * values))

    def upload(self, values):
        if values:
            self.all.append(Operation("copy to the device", "copy to the device", 0, VALUE * values))

    def download(self, values):
        if values:
            self.all.append(Operation("copy to the host", "copy to the host", VALUE * values, 0))

    # ---- tokens.cu ----

    def patchify(self, rows, columns, positions):
        self.kernel("patchify", rows * columns + rows * positions, rows * columns)

    def patchify_backward(self, rows, columns, positions, pixels):
        if positions:
            self.fill_zero(pixels)
        self.kernel("patchify_backward", rows * columns + rows * positions, rows * columns)

    def embed(self, rows, width, positions, embedding_rows):
        self.kernel("embed", rows * width + rows * positions + (embedding_rows + 2) * width, rows * width, fp32=2 * rows * width)

    def choose_rows(self, images, tokens, keep):
        patches = tokens - 1 if keep else 0
        self.kernel("choose_rows", images * patches, images * (1 + keep), fp32=images * 4 * patches**2)

    def gather(self, rows, width):
        self.kernel("gather", rows * width + rows, rows * width)

    def scatter_add(self, rows, width):
        self.kernel("scatter_add", 2 * rows * width + rows, rows * width, fp32=rows * width + 2 * rows**2)

    def pool(self, images, width):
        self.kernel("pool", images * width, images * width)

    def pool_backward(self, rows, images, width):
        self.kernel("pool_backward", images * width, rows * width)

    # ---- norm.cu ----

    def norm(self, rows, width):
        self.kernel("norm_forward", rows * width + 2 * width, rows * (width + 2), fp32=8 * rows * width)

    def norm_backward(self, rows, width):
        self.kernel("norm_backward", rows * (3 * width + 2) + width, rows * width, fp32=13 * rows * width)

    def residual_norm(self, rows, width, chosen, norm):
        read = 2 * rows * width + width + rows * chosen
        if norm:
            self.kernel("residual_norm", read + 2 * width, rows * (2 * width + 2), fp32=10 * rows * width)
        else:
            self.kernel("residual", read, rows * width, fp32=2 * rows * width)

    # ---- activation.cu, elementwise.cu, moments.cu ----

    def activation(self, rows, columns):
        self.kernel("gelu_forward", rows * columns + columns, rows * columns, fp32=(4 + FUNCTION) * rows * columns)

    def activation_backward(self, rows, columns):
        self.kernel("gelu_backward", 2 * rows * columns + columns, rows * columns, fp32=(8 + 2 * FUNCTION) * rows * columns)

    def add_affine(self, rows, width):
        self.kernel("add_affine", 2 * rows * width + 2 * width, rows * width, fp32=3 * rows * width)

    def add_scaled(self, rows, columns):
        self.kernel("add_scaled", 2 * rows * columns, rows * columns, fp32=2 * rows * columns)

    def column_sums(self, rows, columns):
        parts = -(-rows // PART_ROWS)
        if parts != 1:
            self.fill_zero(4 * columns)
        if parts == 0:
            return
        # A double is two values.
        self.kernel("column_sums", rows * columns, parts * 4 * columns, fp64=3 * rows * columns)
        if parts > 1:
            self.kernel("add_column_sums", (parts + 1) * 4 * columns, 4 * columns, fp64=parts * 2 * columns)

    # ---- attention.cu, attention_backward.cu ----

    def attention(self, images, queries, tokens, heads, head_width):
        width, by_query, by_token = heads * head_width, images * queries, images * tokens
        read, written = (by_query + 2 * by_token + 2) * width, by_query * (width + heads)
        self._attention("attention_forward", images, (queries, tokens), heads, head_width, 2, 8 + FUNCTION, read, written)

    def attention_backward(self, images, queries, tokens, heads, head_width):
        width, by_query, by_token = heads * head_width, images * queries, images * tokens
        values = (2 * by_query + 2 * by_token + 1) * width
        read, written = values + by_query * heads, by_query * (width + heads)
        # Twice over the keys: two products, then three.
        self._attention("attention_backward_query", images, (queries, tokens), heads, head_width, 5, 2 * (6 + FUNCTION), read, written)
        read, written = values + 2 * by_query * heads, 2 * by_token * width
        self._attention("attention_backward_key", images, (tokens, queries), heads, head_width, 4, 6 + FUNCTION, read, written)

    def _attention(self, name, images, kept_and_passing, heads, head_width, products, per_score, read, written):
        """Blocks keep 64 rows of one side in registers, and tiles of 32 rows of the other go past them."""
        kept, passing = kept_and_passing
        head = 32 if head_width <= 32 else 64
        scores = images * heads * up_to(kept, KEPT_ROWS) * up_to(passing, PASSING_ROWS)
        # `_fp32` makes three products in TF32 in place of one.
        tf32 = scores * products * 2 * head * (3 if self.exact else 1)
        suffix = f"_{head}" + ("_fp32" if self.exact else "")
        self.kernel(name + suffix, read, written, tf32=tf32, fp32=scores * per_score)

    def class_attention(self, images, tokens, width, heads):
        # Keys alone, not values.
        read = images * (1 + tokens) * width + width
        self.kernel("class_attention", read, images * (tokens - 1), fp32=images * tokens * (2 * width + heads * (4 + FUNCTION)))
