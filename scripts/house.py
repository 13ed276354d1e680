"""What the architecture promises, in figures; and the drawing of its layers.

    python scripts/house.py            # figure, goal and present; what is not at its goal is listed
    python scripts/house.py --write    # the drawing in ARCHITECTURE.md, made from the imports

``tests/test_architecture.py`` holds each figure at its goal, or at :attr:`Figure.held` where it is not there yet: lower that
number when the figure falls.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stac_latent"
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted(PACKAGE.rglob("*.py"))
}
BEGIN, END = "<!-- drawing: python scripts/house.py --write -->\n```text\n", "```\n<!-- end of drawing -->\n"

SMALL = {
    "aliases.py": "types that every room shares, below all of them",
    "catalog/bands.py": "three rooms of the catalogue need it",
    "cli/command.py": "a class of Typer's, apart from what is printed",
    "cli/surroundings.py": "runs before anything else",
    "cube/band_names.py": "reading and writing share it",
    "bytestring/options.py": "three forms of byte strings share it",
    "cube/grid/boxes.py": "every part of the cube places grids with it",
    "cube/odc_private.py": "the one place that imports private modules of odc",
    "cube/open_codec.py": "a verb of its own, above the registry",
    "cube/open_store.py": "reading, key frames and verification share it",
    "extension/schemas.py": "the one place for addresses of schemas",
    "field/psnr.py": "rate control below and metrics above share it",
    "index/remote.py": "the one module of the index that reads addresses",
    "page/colours.py": "page and notebooks share it",
    "store/zarr/ood_scores.py": "an array of the store with a layout of its own",
    "store/zarr/open_store.py": "the one place where stores are opened",
    "system/digests.py": "the one place where digests are made",
    "system/exports.py": "every room's names go through it",
    "system/settings.py": "the one place that reads numbers of the environment",
}
"""Modules of less than 60 lines, and why each is one."""
LONG_SIGNATURES = {
    "kernel": "compiled loops take arrays one by one",
    "stac_latent/cli/": "the parameters of a command are its options",
    "stac_latent/stages/context/_numpy.py": "the signatures of the compiled loops beside it",
}
"""Functions that may have more than eight parameters, by decorator or by path, besides what rooms export; and why."""


@dataclass(frozen=True)
class Import:
    """One import of a module: what, and whether it runs when the module is imported."""

    target: str
    kind: str


@dataclass(frozen=True)
class Figure:
    """One promise: its words, the goal, what the test holds until that is reached, and what counts."""

    words: str
    goal: int
    held: int
    measure: Callable[[], list[tuple[int, str]]]

    @property
    def found(self) -> list[tuple[int, str]]:
        """What counts, with its share, largest first."""
        return sorted(self.measure(), reverse=True)


def rooms() -> list[str]:
    """Names in the table of ARCHITECTURE.md, lowest first."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.split("## Rooms", 1)[1].split("\n## ", 1)[0]
    return [
        name.rstrip("/").removesuffix(".py")
        for name in re.findall(r"^\| `([\w./]+)` \|", table, re.MULTILINE)
    ]


def room(module: str) -> str:
    """Room of a module: the file or folder directly below the package."""
    return module.split(".")[1] if "." in module else "__init__"


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Syntax of a file."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def calls(path: Path, name: str) -> Iterator[ast.Call]:
    """Calls of a function or method of this name."""
    for node in nodes(path):
        if isinstance(node, ast.Call) and name == getattr(node.func, "id", getattr(node.func, "attr", None)):
            yield node


@cache
def imports(module: str) -> list[Import]:
    """Imports of a module, those for type checkers left out."""
    skip, late = set(), set()
    for node in nodes(MODULES[module]):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            skip |= {id(x) for statement in node.body for x in ast.walk(statement)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            late |= {id(x) for x in ast.walk(node)}
    found = []
    for node in nodes(MODULES[module]):
        if id(node) in skip:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module} has a relative import")
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in whole]
        found += [Import(name, "late" if id(node) in late else "top") for name in names]
    return found


def upward() -> set[tuple[str, str]]:
    """Imports of a room by one that is not above it."""
    order = {name: level for level, name in enumerate(rooms())}
    return {
        (module, item.target)
        for module in MODULES
        for item in imports(module)
        if item.target.startswith("stac_latent.")
        and "__init__" not in (room(module), room(item.target))
        and room(item.target) != room(module)
        and order[room(item.target)] > order[room(module)]
    }


def circles() -> list[list[str]]:
    """Sets of modules that import each other, late imports included."""
    graph = {m: {i.target for i in imports(m)} & set(MODULES) for m in MODULES}
    reach: dict[str, set[str]] = {}
    for start, targets in graph.items():
        seen: set[str] = set()
        todo = list(targets)
        while todo:
            if (m := todo.pop()) not in seen:
                seen.add(m)
                todo += graph[m]
        reach[start] = seen
    sets = {frozenset(n for n in seen if m in reach[n]) for m, seen in reach.items() if m in seen}
    return [sorted(s) for s in sets]


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _folders() -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    for path in MODULES.values():
        found.setdefault(path.parent, []).append(path.name)
    return found


def exported() -> set[tuple[str, str]]:
    """Modules and names that rooms export through ``lazy``."""
    found = set()
    for module, path in MODULES.items():
        for node in calls(path, "lazy"):
            where: dict[str, list[str]] = ast.literal_eval(node.args[1])
            found |= {(f"{module}.{part}", name) for part, names in where.items() for name in names}
    return found


def long_signatures() -> Iterator[tuple[int, str]]:
    """Functions with more than eight parameters that neither rooms export nor :data:`LONG_SIGNATURES` allows."""
    public = exported()
    for module, path in MODULES.items():
        if any(_shown(path).startswith(prefix) for prefix in LONG_SIGNATURES):
            continue
        own = [n for n in nodes(path) if isinstance(n, ast.ClassDef) and (module, n.name) in public]
        methods = {id(x) for n in own for x in n.body if isinstance(x, ast.FunctionDef) and x.name[0] != "_"}
        for node in nodes(path):
            if not isinstance(node, ast.FunctionDef) or (module, node.name) in public or id(node) in methods:
                continue
            if {ast.unparse(d).split("(")[0] for d in node.decorator_list} & set(LONG_SIGNATURES):
                continue
            a = node.args
            names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x]
            count = len([n for n in names if n not in ("self", "cls")])
            if count > 8:
                yield 1, f"{module}.{node.name}: {count}"


def probes() -> Iterator[tuple[int, str]]:
    """``getattr`` and ``hasattr`` on a stage: what it can do belongs to its class."""
    for module, path in MODULES.items():
        stages = {"stage", "tail"}
        for node in nodes(path):
            if isinstance(node, ast.comprehension | ast.For) and "stages" in ast.unparse(node.iter):
                stages |= {x.id for x in ast.walk(node.target) if isinstance(x, ast.Name)}
        for node in (*calls(path, "getattr"), *calls(path, "hasattr")):
            asked = ast.unparse(node.args[0])
            if asked in stages or re.search(r"(\.tail|\bstages\[[^\]]*\]|\._stage)$", asked):
                yield 1, f"{module}:{node.lineno}: {ast.unparse(node)}"


def patched_sizes() -> Iterator[tuple[int, str]]:
    """``monkeypatch.setattr`` of a constant in tests: sizes and limits belong to arguments. Switches and registries do not count."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in calls(path, "setattr"):
            last = [a for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            value = node.args[-1]
            switch = isinstance(value, ast.Dict | ast.UnaryOp) or ast.unparse(value) in (
                "True",
                "False",
                "set()",
            )
            if last and str(last[0].value).rpartition(".")[2].isupper() and not switch:
                yield 1, f"{_shown(path)}:{node.lineno}: {ast.unparse(node)}"


def small() -> Iterator[tuple[int, str]]:
    """Modules of less than 60 lines without a reason."""
    for path in MODULES.values():
        plain = path.name not in ("__init__.py", "__main__.py")
        if plain and _lines(path) < 60 and str(path.relative_to(PACKAGE)) not in SMALL:
            yield 1, f"{_shown(path)}: {_lines(path)} lines"


SUMS = [
    Figure("modules in circles of imports, late ones included", 0, 0, lambda: [(1, m) for c in circles() for m in c]),
    Figure("imports that point upward", 0, 0, lambda: [(1, f"{a} -> {b}") for a, b in upward()]),
    Figure("modules below 60 lines without a reason", 0, 0, lambda: list(small())),
    Figure("functions with more than 8 parameters, but for public ones", 0, 0, lambda: list(long_signatures())),
    Figure("probes of what a stage can do", 0, 0, lambda: list(probes())),
    Figure("sizes and limits that tests patch", 0, 0, lambda: list(patched_sizes())),
]  # fmt: skip
"""Figures that are counts."""
LARGEST = [
    Figure("modules in the package's root", 10, 10, lambda: [(len(_folders()[PACKAGE]), "stac_latent")]),
    Figure("modules in a folder", 14, 14, lambda: [(len(n), _shown(d)) for d, n in _folders().items()]),
    Figure("lines of the longest module", 600, 600, lambda: [(_lines(p), _shown(p)) for p in MODULES.values()]),
]  # fmt: skip
"""Figures that are the largest of something."""


def present(figure: Figure) -> int:
    """The figure as it is now."""
    values = [n for n, _ in figure.found]
    return sum(values) if figure in SUMS else max(values)


def levels() -> list[list[str]]:
    """Rooms by level: each imports only from levels below its own, and something from the level right below."""
    against = upward()
    level: dict[str, int] = {}
    for name in rooms():
        below = {
            room(i.target)
            for m in MODULES
            if room(m) == name
            for i in imports(m)
            if i.target.startswith("stac_latent.") and (m, i.target) not in against
        }
        level[name] = 1 + max((level[b] for b in below - {name, "__init__"}), default=-1)
    return [[n for n in rooms() if level[n] == k] for k in range(max(level.values()) + 1)]


def drawing() -> str:
    """Rooms in their levels, the highest first, with the folders in each."""
    lines = []
    for row in reversed(levels()):
        parts = []
        for name in row:
            folder = PACKAGE / name
            inner = sorted(d.parent.name for d in folder.glob("*/__init__.py"))
            within = f" ({' '.join(inner)})" if inner else ""
            parts.append(f"{name}{'/' if folder.is_dir() else ''}{within}")
        lines.append("   ".join(parts))
    width = max(map(len, lines)) + 2
    rule = "─" * width
    body = f"\n├{rule}┤\n".join(f"│ {line:<{width - 2}} │" for line in lines)
    return f"┌{rule}┐\n{body}\n└{rule}┘\n"


def main() -> None:
    """Print the figures, or write the drawing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="Write the drawing into ARCHITECTURE.md.")
    if parser.parse_args().write:
        page = ROOT / "ARCHITECTURE.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        page.write_text(before + BEGIN + drawing() + END + rest.partition(END)[2], encoding="utf-8")
        return
    print(f"{'goal':>5} {'held':>5} {'now':>5}")
    for figure in (*SUMS, *LARGEST):
        now = present(figure)
        print(
            f"{figure.goal:>5} {figure.held:>5} {now:>5}  {figure.words}{'' if now <= figure.goal else ':'}"
        )
        if now > figure.goal:
            over = [(n, what) for n, what in figure.found if figure in SUMS or n > figure.goal]
            print(*(f"{'':>20}{what}{'' if figure in SUMS else f' ({n})'}" for n, what in over), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
