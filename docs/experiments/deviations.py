"""Where the default recipes leave the paper (arXiv 2412.02220), with the line of results that says what the difference is worth; `tables.py` writes the table."""

from typing import NamedTuple


class Gain(NamedTuple):
    """Lines of a table of paired differences. `sign` is 1 where the line has the deviation and what it is compared with has not, -1 the other way round.

    With `without`, the gain is that of `name` over another line of the same table. The two were not paired, so that it has no interval.
    """

    name: str
    sign: int
    seeds: list
    without: str | None = None
    table: str = "ablations"
    split: str = "test"


# What, in the paper, here, gain. A dagger: measured on three adapters and 200 episodes.
DEVIATIONS = [
    ("start of meta-training", "`B` = 0", "compressed sum of the changes", Gain("from-zero", -1, ["1"])),
    ("merge coefficients", "none", "learned before that", Gain("factors-first", 1, ["1"])),  # old spelling
    ("feature vectors in scores", "plain, `σ` = 1", "unit length, `σ` = 5", Gain("plain-features", -1, ["1"])),
    ("rank", "4", "16", Gain("rank-4", -1, ["1"])),
    ("adapted layers", "all", "last six", Gain("last-6", 1, ["1"])),
    ("tokens in meta-training", "all", "half", Gain("sparsity-50", 1, ["1"], "sparsity-0")),
    ("peak learning rate", "1e-3", "6e-4", Gain("rate-6e-4", 1, ["1"], "rate-1e-3")),
    ("augmentation in meta-training", "mirroring", "also colour and affine", Gain("no-augmentation", -1, ["0", "2"])),
    ("negatives in meta-training", "none", "half of the images", Gain("inverted-besides", 1, ["0", "2"])),
    ("mixed tasks", "none (published code)", "half", Gain("teacher-only", -1, ["0", "2"])),
    ("moving average", "none", "decay 0.98", Gain("no-average", -1, ["2"])),
    ("state that is kept", "last", "lowest validation loss", Gain("together-last", -1, ["0", "1", "2"], None, "glyphs", "signs")),
    ("images are hard for the bare backbone †", "no", "yes", Gain("few-plain", -1, ["2"])),
    ("images are made of †", "pixels", "a Fourier spectrum", Gain("few-pixels", -1, ["2", "2b"])),
    ("BatchNorm prior (random filters) †", "yes", "no", Gain("few-batch-norm", -1, ["2"])),
]
