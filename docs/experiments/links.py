#!/usr/bin/env python3
"""Checks the links of README.md, CHANGELOG.md, docs/ and assets/: every file and heading that is linked to exists, and every item of the code that is linked to by
its name is declared in the linked file.

    python3 docs/experiments/links.py

A link to an item is its path in backticks, such as [`engine::distance::Distance::between`](../crates/engine/src/distance.rs). Modules in the path may be left
out from the end, as a re-export would. Needs the standard library only.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
# Text may be code with brackets in it; a target has no blanks.
LINK = re.compile(r"\[((?:`[^`]*`|[^\[\]`]|\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*?)\s*#*\s*$", re.MULTILINE)
ITEM = re.compile(r"`(\w+(?:::\w+)+)`")
DECLARED = r"\b(?:fn|struct|enum|union|trait|type|const|static|mod|macro_rules!)\s+{name}\b"
VARIANT = r"^\s*{name}\s*(?:[,({{]|=\s*\d)"


def documents():
    yield from (ROOT / name for name in ("README.md", "CHANGELOG.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from sorted((ROOT / "assets").rglob("README.md"))


def without_code(text):
    return FENCE.sub("", text)


def anchors(path):
    """The ids that GitHub gives the headings of a Markdown file."""
    found, counts = set(), {}
    for heading in HEADING.findall(without_code(path.read_text(encoding="utf-8"))):
        text = LINK.sub(r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = counts.get(slug, 0)
        counts[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def modules(path):
    """The module path of a source file: crates/recycle/src/tune/mod.rs is recycle::tune, src/app/mod.rs is app."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    source = parts.index("src")
    crate = parts[source - 1 : source] if source else []
    inner = parts[source + 1 :]
    if inner and inner[-1] in ("mod", "lib", "main"):
        inner.pop()
    return [*crate, *inner]


def wrong_item(item, path):
    """What is wrong with a link from the name of an item to a file."""
    *owners, name = item.split("::")
    source = path.read_text(encoding="utf-8")
    owner = owners.pop() if owners and owners[-1][0].isupper() else None
    own = modules(path)
    if owners != own[: len(owners)]:
        return f"{'::'.join(owners)} is no module of that file, which is {'::'.join(own)}"
    if owner and not re.search(rf"\b(?:struct|enum|trait|type|impl(?:<[^>]*>)?(?:\s+[\w:<>]+\s+for)?)\s+{owner}\b", source):
        return f"there is no {owner} in that file"
    declared = re.search(DECLARED.format(name=name), source)
    if not declared and not (owner and re.search(VARIANT.format(name=name), source, re.MULTILINE)):
        return f"there is no {name} in that file"
    return None


def problems_of(document):
    text = without_code(document.read_text(encoding="utf-8"))
    for label, target in LINK.findall(text):
        # An image that is itself a link.
        targets = [target, *(inner for _, inner in LINK.findall(label))]
        for target in targets:
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (document.parent / name).resolve() if name else document
            if not path.exists():
                yield f"{target}: there is no such file"
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                yield f"{target}: there is no such heading"
            elif path.suffix == ".rs" and (item := ITEM.fullmatch(label)) and (wrong := wrong_item(item[1], path)):
                yield f"{label} -> {target}: {wrong}"


def main():
    found = [f"{document.relative_to(ROOT)}: {problem}" for document in documents() for problem in problems_of(document)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
