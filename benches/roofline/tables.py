"""The tables of docs/PERFORMANCE.md that scripts/roofline writes."""

from devices import DEVICES
from steps import INVERTED, MODELS, TRAINED, inversion, meta_training, steps_of

# Devices whose bounds are shown kernel by kernel: the slowest and the fastest memory.
SHOWN = [device for device in DEVICES if device.name in ("L4", "H200")]

# Kernels that take less than this share of a step on all of these are shown together.
SMALL = 0.005


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def short(value):
    """Three digits."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def devices_table():
    head = ["device", "memory, GB", "bandwidth, GB/s", "TF32, TFLOP/s", "FP32", "FP64", "L2, MB", "bus, GB/s", "source"]
    figures = lambda own: (own.memory_gb, own.bandwidth_gb_per_s, own.tf32, own.fp32, own.fp64, own.l2_mb, own.bus_gb_per_s)
    return markdown(head, [[own.name, *(f"{figure:g}" for figure in figures(own)), own.source] for own in DEVICES])


def steps_table(model):
    head = ["step", "images", "GFLOP", "GB", "launches", "products", "MB over the bus", "GiB on the device"] + [f"{own.name}, ms" for own in DEVICES]
    rows = []
    for step in steps_of(model):
        counts = step.operations.counts()
        figures = [step.total("flops") / 1e9, step.total("bytes") / 1e9]
        rows.append([
            step.name, str(step.batch), *map(short, figures), str(counts["launches"]), str(counts["products"]),
            short(step.total("bytes", bus=True) / 1e6), short(step.bytes / 2**30), *(short(1e3 * step.seconds(own)) for own in DEVICES),
        ])
    return markdown(head, rows)


def exact_table(model):
    head = ["step", "images"] + [f"{own.name}, ms" for own in DEVICES]
    rows = [[step.name, str(step.batch), *(short(1e3 * step.seconds(own)) for own in DEVICES)] for step in steps_of(model, exact=True)]
    return markdown(head, rows)


def kernels_table(step):
    """What each kernel takes of a step, the dearest on the last device shown first; small ones together."""
    head = ["kernel or product", "launches", "GFLOP", "GB", "FLOP/byte"] + [word for own in SHOWN for word in (f"{own.name}, ms", "bound by")]
    by_purpose = {}
    for operation in step.operations.all:
        by_purpose.setdefault(operation.purpose, []).append(operation)
    least = {device: SMALL * step.seconds(device) for device in SHOWN}
    seconds = lambda own, device: sum(device.seconds(operation)[0] for operation in own)
    large, small = {}, []
    for purpose, own in by_purpose.items():
        if any(seconds(own, device) >= least[device] for device in SHOWN):
            large[purpose] = own
        else:
            small += own
    rows = sorted(large.items(), key=lambda row: -seconds(row[1], SHOWN[-1]))
    rows.append((f"{len(by_purpose) - len(large)} others", small))
    return markdown(head, [_kernel_row(purpose, own) for purpose, own in rows])


def _kernel_row(purpose, own):
    flops, size = sum(operation.flops for operation in own), sum(operation.bytes for operation in own)
    cells = []
    for device in SHOWN:
        # Layers differ in their tokens: what bounds most of the time stands for all.
        times = {}
        for operation in own:
            seconds, bound = device.seconds(operation)
            times[bound] = times.get(bound, 0.0) + seconds
        cells += [short(1e3 * sum(times.values())), max(times, key=times.get)]
    return [purpose, str(len(own)), short(flops / 1e9), short(size / 1e9), short(flops / size), *cells]


def all_tables():
    base, small = MODELS
    parts = [
        ("Published figures, dense:", devices_table()),
        (f"{base.name}, products in TF32:", steps_table(base)),
        (f"{small.name}, products in TF32:", steps_table(small)),
        (f"{base.name}, products in FP32, as the tests compute:", exact_table(base)),
        (f"Kernel by kernel, {base.name}, inversion of {INVERTED} images (Fourier, teacher and bare), TF32:",
         kernels_table(inversion("", base, INVERTED, fourier=True, bare=True))),
        (f"Kernel by kernel, {base.name}, dense meta-training of {TRAINED} images, TF32:", kernels_table(meta_training("", base, TRAINED, 0))),
    ]
    return "\n" + "\n".join(f"{title}\n\n{table}" for title, table in parts) + "\n"
