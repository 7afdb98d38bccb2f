"""The chart of results in docs/METHOD.md: accuracy on all test signs by method, seed and number of shots, with intervals. `tables.py` writes it."""

from glyphs import CHOSEN, MERGES, RANK

# The bound that validation letters choose in all seeds.
BOUND = "real-together"
LABELS = {
    BOUND: "upper bound (real pictures)", CHOSEN: "standard (meta-LoRA)", "knots": "knots", "sum": "sum", "ties": "ties", "core": "core-space",
    "ctm": "compress-then-merge", "tsv": "tsv", "average": "average (exact)", "linear": "linear probe", "bare": "bare backbone", "pixels": "pixels",  # old spelling
}
COLOURS = {BOUND: "#5b6b7b", CHOSEN: "#c2410c"}
LEFT, TOP, PANEL, GAP, ROW = 250, 62, 290, 40, 30
LOWEST, HIGHEST = 20, 100


def rows_of(table, name, shot):
    """A row for each seed; of a merge that of the chosen scale, compressed to the rank."""
    if name in MERGES:
        found = [row for scaled in MERGES[name] for row in table.find(split="signs", shot=shot, name=scaled, asked_rank=RANK)]
    else:
        found = table.find(split="signs", shot=shot, name=name)
    return sorted(found, key=lambda row: row["seed"])


def chart(table):
    height = TOP + ROW * len(LABELS) + 52
    width = LEFT + 2 * PANEL + GAP + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="13" fill="#1f2933">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="15">Accuracy in % on 59 signs, 5-way; a dot for each seed, with its 95 % interval</text>',
    ]
    for index, label in enumerate(LABELS.values()):
        weight = ' font-weight="bold"' if index < 2 else ""
        out.append(f'<text x="{LEFT - 12}" y="{TOP + ROW * index + ROW / 2 + 4:.1f}" text-anchor="end"{weight}>{label}</text>')
    for panel, shot in enumerate((1, 5)):
        left = LEFT + panel * (PANEL + GAP)

        def x(value, left=left):
            return left + PANEL * (value - LOWEST) / (HIGHEST - LOWEST)

        bottom = TOP + ROW * len(LABELS)
        out.append(f'<text x="{left + PANEL / 2:.1f}" y="48" text-anchor="middle">{shot} shot{"s" if shot > 1 else ""}</text>')
        for tick in range(LOWEST, HIGHEST + 1, 20):
            out.append(f'<line x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" y2="{bottom}" stroke="#d5dbe1"/>')
            out.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" fill="#52606d">{tick}</text>')
        for index, name in enumerate(LABELS):
            colour = COLOURS.get(name, "#2563a8")
            rows = rows_of(table, name, shot)
            for place, row in enumerate(rows):
                y = TOP + ROW * index + ROW / 2 + 7 * (place - (len(rows) - 1) / 2)
                accuracy, ci = float(row["accuracy"]), float(row["ci95"])
                out.append(f'<line x1="{x(accuracy - ci):.1f}" y1="{y:.1f}" x2="{x(accuracy + ci):.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="1.5"/>')
                out.append(f'<circle cx="{x(accuracy):.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>')
    out.append(f'<text x="{LEFT}" y="{height - 10}" fill="#52606d">Merges are compressed to rank {RANK}; seeds from top to bottom: 0, 1, 2.</text>')
    return "\n".join([*out, "</svg>", ""])
