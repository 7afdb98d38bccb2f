"""Makes the table of docs/PERFORMANCE.md from the lines that engine.py prints.

    benches/pytorch/run.sh --rounds 5 --compile forward,input-gradient | python3 benches/pytorch/table.py

Milliseconds are medians with the fastest round in brackets. Memory is MiB: the peak above the idle process, and in brackets the
peak above weights and input.
"""
import json
import sys

SIDES = ("engine", "eager", "compiled", "onnxruntime")
NAMES = {"engine": "engine", "eager": "PyTorch", "compiled": "torch.compile", "onnxruntime": "ONNX Runtime"}
SGEMM_FLOP = 2 * 2048**3


def cell(side, form):
    return form(side) if side else ""


def times(side):
    return f"{side['median_ms']:.4g} ({side['fastest_ms']:.4g})"


def memory(side):
    return f"{side['peak_mib'] - side['idle_mib']} ({side['peak_mib'] - side['ready_mib']})"


def main():
    rows = [json.loads(line) for line in sys.stdin]
    print("| size | step | " + " | ".join(NAMES[name] for name in SIDES) + " | faster peer / engine | memory: engine | peer |")
    print("|---" * (len(SIDES) + 5) + "|")
    peaks = []
    for row in rows:
        if row["step"] == "sgemm-2048":
            peaks.append(SGEMM_FLOP / row["eager"]["fastest_ms"] / 1e6)
            continue
        peers = [name for name in SIDES[1:] if name in row]
        fastest = min(peers, key=lambda name: row[name]["median_ms"])
        cells = [cell(row.get(name), times) for name in SIDES]
        ratio = f"{row['ratio_median']:.2f} ({row['ratio_fastest']:.2f})"
        print(f"| {row['size']} | {row['step']} | " + " | ".join(cells) + f" | {ratio} | {memory(row['engine'])} | {memory(row[fastest])} |")
    engine = {(row["size"], row["step"]): row["engine"] for row in rows if "engine" in row}
    for (size, step), own in engine.items():
        base = engine.get((size, "input-gradient" if step.startswith("pruned") else "meta-dense"))
        if base and step not in ("forward", "input-gradient", "meta-dense"):
            shares = [(base[key] / own[key]) for key in ("median_ms", "fastest_ms")]
            above = (own["peak_mib"] - own["ready_mib"]) / (base["peak_mib"] - base["ready_mib"])
            whole = (own["peak_mib"] - own["idle_mib"]) / (base["peak_mib"] - base["idle_mib"])
            print(f"{size} {step}: {shares[0]:.2f} ({shares[1]:.2f}) x as fast as dense, memory {whole:.0%} ({above:.0%}) of it")
    if peaks:
        print(f"\nsgemm of 2048 x 2048: {', '.join(f'{peak:.0f}' for peak in peaks)} GFLOP/s at best, one figure a size.")


if __name__ == "__main__":
    main()
