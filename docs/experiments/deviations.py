"""Where the default recipes leave the paper (arXiv 2412.02220), with the line of results that says what the difference is worth; `tables.py` writes the table."""

from typing import NamedTuple

NOT_MEASURED = "not measured"


class Gain(NamedTuple):
    """Lines of a table of paired differences. `sign` is 1 where the line has the deviation and what it is compared with has not, -1 the other way round."""

    name: str
    sign: int
    seeds: list
    table: str = "ablations"
    split: str = "test"


# What, in the paper, here, gain. A dagger: measured on three adapters and 200 episodes.
DEVIATIONS = [
    ("start of meta-training", "`B` = 0", "sum of the adapters' changes, compressed to the rank", Gain("from-zero", -1, ["1"])),
    ("merge coefficients", "none", "learned in 60 steps before that", Gain("factors-first", 1, ["1"])),
    ("scores", "plain features, `σ` = 1", "features of length one, `σ` = 5", Gain("plain-features", -1, ["1"])),
    ("rank", "4", "16", Gain("rank-4", -1, ["1"])),
    ("layers with a low-rank pair", "all", "last six", Gain("last-6", 1, ["1"])),
    ("augmentation in meta-training", "mirroring", "also colour and affine changes", Gain("no-augmentation", -1, ["0", "2"])),
    ("negatives in meta-training", "none", "half of the images", Gain("inverted-besides", 1, ["0", "2"])),
    ("tasks", "of one adapter (published code)", "half of them mixed", Gain("teacher-only", -1, ["0", "2"])),
    ("moving average", "none", "decay 0.98", Gain("no-average", -1, ["2"])),
    ("state that is kept", "last", "lowest validation loss", Gain("together-last", -1, ["0", "1", "2"], "glyphs", "signs")),
    ("loss of the images †", "cross-entropy and priors", "minus the bare backbone's cross-entropy", Gain("few-plain", -1, ["2"])),
    ("images are made of †", "pixels", "a Fourier spectrum", Gain("few-pixels", -1, ["2", "2b"])),
    ("BatchNorm prior †", "of a trained ResNet", "none (measured against random filters)", Gain("few-batch-norm", -1, ["2"])),
    ("tokens in meta-training", "all", "half, for speed", None),
    ("peak learning rate", "1e-3", "6e-4", None),
    ("episodes", "240000", "1200", None),
    ("learning-rate cycle", "100 steps, down to 1e-5", "200 steps, down to 1e-6", None),
    ("augmentation in inversion", "roll and flip of the batch", "affine warp of each image", None),
    ("images that are kept", "alias of the images being optimised", "copy of the best judged", None),
    ("adapter's head", "weight", "weight and bias", None),
    ("residual of a pruned layer", "after LayerNorm 2", "before it", None),
    ("kept tokens", "found again from black pixels", "stored as indices", None),
]
