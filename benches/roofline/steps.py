"""The steps that are counted: what passes and kernels they are made of.

Passes are those of passes.py. What inversion does to pixels is counted from the comments of crates/engine/src/cuda/kernels (its README says which
kernels each operation of the engine takes), with images, parameters and Adam's moments on the device.
"""

from dataclasses import dataclass

from operations import FUNCTION, Operations
from passes import WORKSPACE, Model, Pass, backward, forward, memory

MODELS = [Model("ViT-B/16 at 224 px", 768, 12, 12, 3072, 16, 224), Model("ViT-S/14 at 98 px", 384, 12, 6, 1536, 14, 98)]
# Query and value matrices of all layers.
RANKS = {"query": 16, "value": 16}
PRUNING = {6: 0.75}
INVERTED, TRAINED = 25, 100  # images of a step
POOL = 20 * 40  # pictures to learn from: of 20 adapters


@dataclass
class Step:
    name: str
    model: Model
    batch: int
    operations: Operations
    # On the device.
    bytes: int

    def seconds(self, device):
        return sum(device.seconds(operation)[0] for operation in self.operations.all)

    def total(self, attribute, bus=False):
        return sum(getattr(operation, attribute) for operation in self.operations.all if operation.crosses_bus == bus)


def queue_pass(ops, own):
    forward(ops, own)
    if own.pixels or own.pairs:
        backward(ops, own)


def of_pass(name, own, exact):
    """A step that is one pass, forward and, where it is differentiated, backward."""
    ops = Operations(exact)
    queue_pass(ops, own)
    weights, activations = memory(own)
    return Step(name, own.model, own.images, ops, weights + WORKSPACE + activations)


class PixelSide:
    """The pixel side of an inversion step for `images` images: parameters to images, their change, priors, and the way back."""

    def __init__(self, model, images, fourier):
        self.fourier = fourier
        self.images, self.side = images, model.side
        self.values = images * model.pixels
        self.planes = 3 * images
        half = model.side // 2 + 1
        self.half = half
        self.spectrum = self.planes * model.side * half * 2
        self.parameters = self.spectrum if fourier else self.values

    def forward(self, ops):
        """Parameters to changed images."""
        ops.fill_zero(6)  # losses of the priors
        ops.fill_zero(self.values)  # the gradient at the changed images
        ops.upload(8 * self.images if self.fourier else 3)  # draws: four doubles an image, or three numbers for all
        if self.fourier:
            side, half = self.side, self.half
            ops.kernel("scale_spectrum", self.spectrum + side * half, 2 * self.spectrum, fp32=self.spectrum)
            ops.product("Fourier, columns", side, 2 * half, 2 * side, batch=self.planes)
            ops.product("Fourier, rows", self.planes * side, side, 2 * half)
            ops.kernel("levels_forward", self.values, 2 * self.values, fp32=(3 + 3 * FUNCTION) * self.values)
            # Doubles: about 50 operations a pixel, whatever the number of channels.
            ops.kernel("warp", self.values, self.values, fp32=7 * self.values, fp64=50 * self.values // 3)
        else:
            ops.kernel("roll_flip", self.values, self.values)

    def total_variation(self, ops):
        """Total variation, added to the gradient at the changed images."""
        blocks = -(-self.values // 256)
        ops.kernel("total_variation", 2 * self.values, self.values + 2 * blocks, fp32=24 * self.values, fp64=12 * self.values)
        ops.kernel("sum_parts", 2 * blocks, 2, fp64=blocks)
        ops.download(8)  # flags of the step before, losses

    def backward(self, ops):
        """Gradient at the changed images to that at the parameters, and Adam."""
        side, half = self.side, self.half
        if self.fourier:
            # A few copies of the picture and some targets in each: about 600 operations in double a pixel.
            ops.kernel("warp_adjoint", self.values, self.values, fp32=10 * self.values, fp64=600 * self.values // 3)
            ops.kernel("levels_backward", 2 * self.values, self.values, fp32=(3 + FUNCTION) * self.values)
            ops.product("Fourier, rows, back", self.planes * side, 2 * half, side)
            ops.product("Fourier, columns, back", 2 * side, 2 * half, side, batch=self.planes)
            ops.kernel("scale_spectrum_backward", 2 * self.spectrum + side * half, self.spectrum, fp32=2 * self.spectrum)
        else:
            ops.kernel("roll_flip_adjoint", self.values, self.values)
        # Parameters, gradients at the changed images and at the images; with a spectrum images and gradients at parameters too.
        for suspect in [self.parameters, self.values, self.values] + ([self.values, self.parameters] if self.fourier else []):
            ops.kernel("flag_not_finite", suspect, 0, fp32=suspect)
        ops.upload(2)  # Adam's step
        ops.kernel("adam", 4 * self.parameters, 3 * self.parameters, fp32=(12 + 2 * FUNCTION) * self.parameters)
        ops.download(8)  # flags, losses

    def bytes(self):
        """Parameters, their gradient and two moments; images and what the spectrum is worked on beside those of the passes."""
        extra = 2 * self.spectrum + 3 * self.values if self.fourier else self.values
        return 4 * (4 * self.parameters + extra)


def inversion(name, model, images, fourier=False, pruning=None, bare=False, exact=False):
    side = PixelSide(model, images, fourier)
    # The teacher's adapter is part of a copy of the weights.
    views = [Pass(model, images, pruning=pruning or {}, pixels=True, images_on_device=True)]
    if bare:
        views.append(Pass(model, images, pixels=True, images_on_device=True))
    ops = Operations(exact)
    side.forward(ops)
    side.total_variation(ops)
    for view in views:
        forward(ops, view)
    # The host waits here, once.
    for view in views:
        backward(ops, view)
        ops.add_scaled(images, model.pixels)
    side.backward(ops)
    weights, activations = (sum(own) for own in zip(*map(memory, views)))
    return Step(name, model, images, ops, weights + WORKSPACE + activations + side.bytes())


def meta_training(name, model, images, sparsity_percent, exact=False):
    patches = model.patches
    kept = patches - patches * sparsity_percent // 100 if sparsity_percent else None
    return of_pass(name, Pass(model, images, kept=kept, ranks=RANKS, pairs=True, pool=POOL), exact)


def steps_of(model, exact=False):
    inverted = lambda name, **settings: inversion(name, model, INVERTED, exact=exact, **settings)
    return [
        of_pass("forward, bare", Pass(model, INVERTED), exact),
        of_pass("input gradient, bare", Pass(model, INVERTED, pixels=True), exact),
        inverted("inversion: pixels, teacher"),
        inverted("inversion: pixels, teacher pruned", pruning=PRUNING),
        inverted("inversion: pixels, teacher and bare", bare=True),
        inverted("inversion: Fourier, teacher and bare", fourier=True, bare=True),
        inverted("inversion: Fourier, teacher pruned and bare", fourier=True, pruning=PRUNING, bare=True),
        meta_training("meta-training, dense", model, TRAINED, 0, exact),
        meta_training("meta-training, 50 % sparse", model, TRAINED, 50, exact),
        meta_training("meta-training, 75 % sparse", model, TRAINED, 75, exact),
    ]
