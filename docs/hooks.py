"""Puts the committed benchmark results into pages when the site is built.

``python docs/hooks.py`` writes the same tables to ``benchmarks/results/README.md``, for those who read the pages as Markdown.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")
"""Links to files of the repository beside ``docs/``, which the site does not have."""

LOSSLESS = 200.0
"""PSNR that stands for no error at all."""
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SPEC = Path(__file__).parents[1] / "extensions" / "latent" / "spec"
"""Pages of the specification, which the site shows below ``spec/``."""
_HERE = "](../../../docs/"
"""How these pages link to those of ``docs/``."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the specification."""
    from mkdocs.structure.files import File

    for path in sorted(SPEC.glob("*.md")):
        files.append(File.generated(config, f"spec/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace ``{{ benchmarks }}`` by one table for each file of results, ``{{ time }}`` and others by theirs.

    Links to files outside ``docs/`` become their text.
    """
    markdown = markdown.replace("](../extensions/latent/spec/", "](spec/")
    markdown = OUTSIDE.sub(r"\1", markdown.replace(_HERE, "](docs:")).replace("](docs:", "](../")
    if "{{ guard }}" in markdown:
        found = json.loads((RESULTS / "guard.json").read_text(encoding="utf-8"))
        markdown = markdown.replace("{{ guard }}", guard(found))
    if "{{ error_bound }}" in markdown:
        found = json.loads((RESULTS / "error_bound.json").read_text(encoding="utf-8"))
        markdown = markdown.replace("{{ error_bound }}", bounds(found))
    for name in ("kills", "fuzz", "items", "encryption"):
        if f"{{{{ {name} }}}}" in markdown:
            result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
            markdown = markdown.replace(f"{{{{ {name} }}}}", FACTS[name](result))
    if "{{ arrays }}" in markdown:
        found = json.loads((RESULTS / "arrays.json").read_text(encoding="utf-8"))
        markdown = markdown.replace("{{ arrays }}", arrays(found))
    if "{{ chips }}" in markdown:
        found = json.loads((RESULTS / "chips.json").read_text(encoding="utf-8"))
        markdown = markdown.replace("{{ chips }}", chips(found))
    if "{{ time }}" in markdown:
        found = json.loads((RESULTS / "time.json").read_text(encoding="utf-8"))
        markdown = markdown.replace("{{ time }}", series(found))
    for name, form in (("rates", rates), ("speeds", speeds), ("loads", loads)):
        if f"{{{{ {name} }}}}" in markdown:
            markdown = markdown.replace(f"{{{{ {name} }}}}", form(RESULTS))
    return (
        markdown.replace("{{ benchmarks }}", tables(RESULTS)) if "{{ benchmarks }}" in markdown else markdown
    )


def kills(result: dict[str, Any]) -> str:
    """What ``benchmarks/kills.py`` found, in a sentence."""
    return (
        f"{result['kills']} kills: {result['incomplete_items']} Items incomplete, {result['items_twice']} twice, "
        f"{result['items_done_again']} done again; {result['catalogues_that_differ']} final catalogues differ from an undisturbed one"
    )


def fuzz(result: dict[str, Any]) -> str:
    """What ``fuzz/run.py`` found, in a sentence."""
    runs, before = result["runs"], result.get("earlier", {}).get("inputs", 0)
    kinds = len({name.partition(",")[0] for name in runs})
    slowest = max(run["slowest_s"] for run in runs.values())
    now = sum(run["inputs"] for run in runs.values())
    first = f"{before:,} inputs to earlier versions of the readers, and " if before else ""
    return f"{first}{now:,} inputs to {kinds} readers as they are, {result['failures_left']} failures left; the slowest took {slowest:.1f} s"


def encryption(result: dict[str, Any]) -> str:
    """What ``benchmarks/encryption.py`` found, in a sentence."""
    row = result["rows"][0]
    plain, sealed = row["plain"], row["encrypted"]
    return (
        f"{sealed['bytes']:,} bytes in {sealed['files']} files in place of {plain['bytes']:,} in {plain['files']} "
        f"(+{row['more_bytes_percent']:.1f} %), and {1000 * sealed['read_all_s']:.0f} ms of processor time for all of it in place of "
        f"{1000 * plain['read_all_s']:.0f}"
    )


def items(result: dict[str, Any]) -> str:
    """What ``fuzz/items.py`` counted, in a sentence."""
    right, refused, wrong = (sum(run[k] for run in result["runs"]) for k in ("right", "refused", "wrong"))
    return (
        f"{right + refused + wrong:,} Items, {right:,} right, {refused:,} refused in words, {wrong:,} wrong."
    )


FACTS: dict[str, Any] = {"kills": kills, "fuzz": fuzz, "items": items, "encryption": encryption}


def tables(folder: Path) -> str:
    """Markdown of every results file: races as tables, other files as dotted names and values."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        form = next(
            (
                f
                for stem, f in (
                    ("rd-", race),
                    ("speed-", speed),
                    ("load-", load),
                    ("time", series),
                    ("error_bound", bounds),
                    ("guard", guard),
                    ("arrays", arrays),
                    ("chips", chips),
                )
                if path.stem.startswith(stem)
            ),
            names,
        )
        parts.append(f"## {path.stem}\n\n{form(result)}\n")
    return "\n".join(parts)


def rates(folder: Path) -> str:
    """Bytes of ours over those of the best peer at equal PSNR, by their BD-rates, for each data set that was raced on."""
    rows = []
    for path in sorted(folder.glob("rd-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found = {n: 1 + r["bd_rate"] / 100 for n, r in result["summary"].items() if r["bd_rate"] is not None}
        peer = min((n for n in found if n in result["peers"]), key=found.__getitem__)
        ours = [n for n in found if n not in result["peers"]]
        best = min(ours, key=found.__getitem__)
        plain = found["lin"] / found[peer]
        low, high = result["interval"]
        covered = f"{result['dataset']['title']}; {len(result['tiles'])} tiles, {low:g} to {high:g} dB"
        rows.append([covered, f"{plain:.2f}", f"{found[best] / found[peer]:.2f} ({best})", peer])
    return table(["Data", "`lin` without a fit / best peer", "Best of ours / best peer", "Best peer"], rows)


def speeds(folder: Path) -> str:
    """Megapixels of all bands for each second of a processor."""
    result = json.loads((folder / "speed-s2.json").read_text(encoding="utf-8"))
    threads = max(r["threads"] for r in result["rows"])
    mine = [r for r in result["rows"] if r["threads"] == threads]
    rows = []
    for what in ("encode", "decode"):
        found = {r["coder"]: r[f"{what}_mpixel_cpu_s"] for r in mine}
        ours = max((n for n in found if n not in result["peers"]), key=found.__getitem__)
        lossy = [r["coder"] for r in mine if r["coder"] in result["peers"] and r["psnr"] < LOSSLESS]
        peer = max(lossy, key=found.__getitem__)
        ratio = f"{found[ours] / found[peer]:.2g}"
        rows.append([what, f"{found[ours]:.3g} ({ours})", f"{found[peer]:.3g} ({peer})", ratio])
    return table(
        ["Mpixel for each second of a processor", "Ours", "Fastest peer with loss", "Ours / peer"], rows
    )


def loads(folder: Path) -> str:
    """The first table of ``bench load``."""
    return load(json.loads((folder / "load-s2.json").read_text(encoding="utf-8"))).split("\n\n", 1)[1]


def load(result: dict[str, Any]) -> str:
    """What ``bench load`` found: ours, the best peer and the limit; all formats; where the time of a load goes."""
    shown = [
        [
            row["title"],
            *(number(None if row[k] is None else 1000 * row[k], ".3g") for k in ("ours", "best")),
            row["peer"] or "",
            number(None if row["limit"] is None else 1000 * row["limit"], ".2g"),
            number(row["ratio"], ".2f"),
        ]
        for row in result["table"]
    ]
    formats = list(result["formats"])
    each = [
        [row["title"], *(number(cpu(result, row["task"], f), ".3g") for f in formats)]
        for row in result["table"]
    ]
    sizes = [
        ["megabytes", *(f"{result['formats'][f]['bytes'] / 1e6:.3g}" for f in formats)],
        ["PSNR", *(f"{result['formats'][f]['psnr']:.1f}" for f in formats)],
    ]
    sizes[1] = ["PSNR", *("lossless" if v and float(v) >= LOSSLESS else v for v in sizes[1][1:])]
    spent = result["budget"] or {}
    total = spent.get("load", 1)
    parts = ", ".join(f"{k} {100 * v / total:.0f} %" for k, v in spent.items() if k != "load")
    return (
        f"{result['scene']['title']}; {result['codec']} at {result['psnr']:g} dB.\n\n"
        + table(["Milliseconds of a processor", "Ours", "Best peer", "", "Limit", "Ours / peer"], shown)
        + "\n\n"
        + table(["Each format, milliseconds", *formats], each + sizes)
        + (f"\n\nOurs, the whole scene, by part: {parts}." if parts else "")
    )


def cpu(result: dict[str, Any], task: str, form: str) -> float | None:
    """Milliseconds of a task in a format."""
    found = [r["cpu_s"] for r in result["rows"] if (r["task"], r["format"]) == (task, form)]
    return 1000 * found[0] if found else None


def bounds(result: dict[str, Any]) -> str:
    """Tables of bytes at equal error bounds, relative to ours; a star where a tile broke the bound."""
    parts = []
    for case in result["cases"]:
        peers = list(dict.fromkeys(k for r in case["rows"] for k in r["bytes"] if not k.startswith("ours")))
        lines = [
            f"**{case['name']}** ({len(case['tiles'])} tiles, base `{case['codec']}`)\n",
            "| Bound | Ours, bits per value | " + " | ".join([*peers, "Ours, default base"]) + " |",
            "| --- " * (len(peers) + 3) + "|",
        ]
        for row in case["rows"]:
            own = row["bytes"]["ours, coarse"]
            cells = [str(row["bound"]), f"{8 * own / case['samples']:.3g}"]
            for name in [*peers, "ours, default"]:
                size = row["bytes"].get(name)
                star = r"\*" if row["broken"].get(name) else ""
                cells.append("" if size is None else f"{size / own:.2f}{star}")
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def arrays(result: dict[str, Any]) -> str:
    """Tables of bytes at equal bounds as shares of zstd's, a star where the bound is broken, and of seconds of CPU."""
    coders = list(dict.fromkeys(row["codec"] for case in result["cases"] for row in case["rows"]))
    sizes, times = [], []
    for case in result["cases"]:
        found = {row["codec"]: row for row in case["rows"] if "bytes" in row}
        shares = []
        for name in coders[1:]:
            row = found.get(name)
            star = r"\*" if row and not row["kept"] else ""
            shares.append("" if row is None else f"{row['bytes_to_zstd']:.3f}{star}")
        label = [case["name"], f"{case['bound']:g}"]
        sizes.append([*label, f"{found['zstd']['bytes']:,}", *shares])
        speeds = (
            ""
            if (row := found.get(name)) is None
            else f"{row['encode_to_zstd']:.2g} / {row['decode_to_zstd']:.2g}"
            for name in coders[1:]
        )
        times.append([*label, *speeds])
    return "\n\n".join(
        (
            "Bytes, as shares of zstd's (a star where the bound is broken):",
            table(["Chunk", "Bound", "zstd, bytes", *coders[1:]], sizes),
            "CPU time to encode / to decode, in those of zstd (level 3):",
            table(["Chunk", "Bound", *coders[1:]], times),
        )
    )


def chips(result: dict[str, Any]) -> str:
    """Tables of bytes of a chip and of seconds of CPU for all of them, one for each set of chips."""
    head = [
        "",
        "Payload",
        "Rest of the store",
        "Item",
        "Thumbnail",
        "All",
        "Files",
        "CPU s to write",
        "CPU s to read",
    ]
    out = []
    for title, found in (("EuroSAT", result["eurosat"]), ("SSL4EO-S12", result["ssl4eo"])):
        rows = []
        for name, row in found.items():
            if not isinstance(row, dict):
                continue
            sizes = [row[key] for key in ("payload", "metadata", "items", "thumbnails")]
            rest = [f"{row['files']:,}", f"{row['write_s']:.1f}", f"{row['read_s']:.1f}"]
            rows.append([name, *(f"{n:,}" for n in (*sizes, sum(sizes))), *rest])
            if "items_as_table" in row:
                sizes[2] = row["items_as_table"]
                rows.append(
                    [f"{name}, Items as a table", *(f"{n:,}" for n in (*sizes, sum(sizes))), "", "", ""]
                )
        bands, side, _ = found["shape"]
        out += [
            f"{title}: {found['chips']} chips of {side} pixels, {bands} bands; bytes of a chip.",
            table(head, rows),
        ]
    return "\n\n".join(out)


def guard(result: dict[str, Any]) -> str:
    """Table of kinds of data and how many of their tiles are flagged."""
    rows = [
        [k["title"], str(k["tiles"]), f"{100 * k['share']:.0f} %", f"{k['median_score']:.2f}"]
        for k in result["kinds"].values()
    ]
    return table(["Data", "Tiles", "Flagged", "Median score"], rows)


def names(result: dict[str, Any]) -> str:
    """Table of dotted names and values."""
    return table(["", ""], [[name, value] for name, value in flat(result)])


def race(result: dict[str, Any]) -> str:
    """What ``bench rd`` found: rates at equal PSNR, BD-rates, the worst tile of each coder."""
    low, high = result["interval"]
    levels = [f"{p:g}" for p in (36, 38, 40, 42, 44, 46, 48, 50) if low <= p <= high]
    head = ["coder", *(f"{p} dB" for p in levels), "BD-rate", "pooled", "worst tile"]
    rows = []
    for name, row in sorted(
        result["summary"].items(), key=lambda i: (i[1]["bd_rate"] is None, i[1]["bd_rate"] or 0)
    ):
        rates = [number(row["bits_per_pixel_at_psnr"].get(p), ".3f") for p in levels]
        worst = f"{number(row['worst_bd_rate'], '+.1f')} % {row['worst_tile'] or ''}"
        shares = [f"{number(row[k], '+.1f')} %" for k in ("bd_rate", "bd_rate_pooled")]
        rows.append([name, *rates, *shares, worst])
    text = (
        f"{result['dataset']['title']}; {len(result['tiles'])} tiles, PSNR with peak {result['dataset']['peak']}. Mean bits per "
        f"pixel and band over {len(result['covered'])} tiles; BD-rate against {result['anchor']}, {low:g} to {high:g} dB.\n\n"
    )
    lossless = [[n, number(r["bits_per_pixel"], ".3f")] for n, r in result["lossless"].items()]
    extra = "\n\n" + table(["lossless", "bits per pixel and band"], lossless) if lossless else ""
    skipped = "".join(f"\n- skipped {n}: {reason}" for n, reason in result["skipped"].items())
    return text + table(head, rows) + extra + ("\n" + skipped if skipped else "")


def series(result: dict[str, Any]) -> str:
    """What ``benchmarks/time.py`` found: bytes against key frames over bytes of all dates alone."""
    rows = []
    for found in result["series"]:
        title = f"{found['series']}: {found['dates']} dates, {found['clear']} clear"
        for way in dict.fromkeys(row["way"] for row in found["rows"]):
            mine = [row for row in found["rows"] if row["way"] == way]
            cells = [
                f"{row['share']:.2f}"
                + (f" ({row['share_clear']:.2f})" if "share_clear" in row else f" at {row['psnr']:.1f} dB")
                for row in mine
            ]
            rows.append([title, way, *cells, *[""] * (3 - len(cells))])
            title = ""
    text = f"{result['about']['codec']}. Bytes over those of every date alone, at equal PSNR; of the clear dates in brackets.\n\n"
    return text + table(["series", "key frames", "38 dB", "42 dB", "46 dB"], rows)


def speed(result: dict[str, Any]) -> str:
    """What ``bench speed`` found."""
    keys = ("encode_mpixel_s", "decode_mpixel_s", "bits_per_pixel", "psnr")
    rows = [[r["coder"], str(r["threads"]), *(number(r[k], ".3g") for k in keys)] for r in result["rows"]]
    text = table(["coder", "threads", "encode Mpixel/s", "decode Mpixel/s", "bpppb", "PSNR"], rows)
    stored = [(r["coder"], r["windows"]) for r in result["rows"] if "cold" in r.get("windows", {})]
    windows = [
        [n, *(number(w[k]["median_ms"], ".1f") for k in ("cold", "opened", "aligned", "warm"))]
        for n, w in stored
    ]
    head = ["one window of 512 pixels", "cold ms", "opened ms", "from a corner of chunks ms", "warm ms"]
    return f"{result['scene']['title']}.\n\n{text}" + ("\n\n" + table(head, windows) if windows else "")


def number(value: Any, form: str) -> str:
    """A number, or nothing."""
    return "" if value is None else format(value, form)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Leaves of nested dictionaries; numbers to four digits; of lists, the number of entries."""
    if isinstance(value, list):
        value = f"{len(value)} entries"
    if isinstance(value, dict):
        return [
            leaf for key, part in value.items() for leaf in flat(part, f"{name} / {key}" if name else key)
        ]
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value))]


def readme(folder: Path) -> str:
    """Markdown of all results, as ``benchmarks/results/README.md`` has it."""
    return (
        "# Results\n\nTables of the files in this folder, which the pages of the documentation show. "
        f"`python docs/hooks.py` writes them anew.\n\n## Ours and the best peer\n\n{rates(folder)}\n\n{speeds(folder)}\n\n{tables(folder)}"
    )


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(readme(RESULTS), encoding="utf-8")
