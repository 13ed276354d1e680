"""Every code block of README and docs is run, or says why not; links and commands are what they claim to be."""

from __future__ import annotations

import importlib
import json
import os
import pydoc
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pystac
import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "ARCHITECTURE.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "extensions" / "latent" / "spec").glob("*.md")),
    ROOT / "extensions" / "latent" / "conformance" / "README.md",
]
NAMES = [str(p.relative_to(ROOT)) for p in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.{10,}) -->\s*$")
NEEDS = re.compile(r"<!-- needs: (\w+) -->\s*$")
OUTPUT = re.compile(r"<!-- output -->\s*$")
COMMAND = re.compile(r"<!-- command: (\w+) -->.*?^```bash\n(.*?)\n```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, whether it is to be run, and whether it is what the one before it prints."""

    language: str
    text: str
    run: bool
    output: bool
    line: int


def blocks(page):
    """Fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for m in FENCE.finditer(text):
        before = text[: m.start()]
        needs = NEEDS.search(before)
        run = NOT_RUN.search(before) is None and (needs is None or find_spec(needs[1]) is not None)
        found.append(Block(m[1], m[2], run, OUTPUT.search(before) is not None, before.count("\n") + 1))
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder as the reader has it: the repository's catalogues, and nothing else."""
    (tmp_path / "catalogs").symlink_to(ROOT / "catalogs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def execute(code, namespace, where):
    """Run a Python block."""
    exec(compile(code, where, "exec"), namespace)  # noqa: S102


def shell(code):
    """Run a bash block with the commands of this environment."""
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_run(page, folder, capsys):
    namespace, count, printed = {"__name__": "docs"}, 0, None
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.output and printed is not None:
            assert printed.strip() == block.text.strip(), f"{where}: this is not what is printed"
        if not block.run or block.language == "text":
            printed = None
            continue
        capsys.readouterr()
        if block.language == "python":
            execute("\n" * block.line + block.text, namespace, str(page))
            printed = capsys.readouterr().out
        elif block.language == "bash":
            printed = shell(block.text)
        elif block.language == "toml":
            assert tomllib.loads(block.text), where
        elif block.language == "json":
            assert json.loads(block.text), where
        else:
            pytest.fail(
                f"{where}: language {block.language!r} is none that is run; use text for what is no code"
            )
        count += 1
    assert count == len([b for b in blocks(page) if b.run and b.language != "text"])


def test_every_page_is_looked_at():
    assert len(PAGES) > 12
    assert sum(len([b for b in blocks(p) if b.run]) for p in PAGES) > 20
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("\n```") % 2 == 0, f"{page.name}: a fence is not closed"


def test_jobs_of_the_page_on_shards_run(folder):
    """The scripts for SLURM, Kubernetes and AWS Batch, with the numbers that these would give: together they do all, and each a part."""
    found = blocks(ROOT / "docs" / "howto-shards.md")
    script, job = (next(b for b in found if b.language == name) for name in ("bash", "yaml"))
    container = yaml.safe_load(job.text)["spec"]["template"]["spec"]["containers"][0]
    (folder / "raw").mkdir()
    for i in range(3):
        item = pystac.Item.from_file(str(ROOT / "catalogs/sample/raw/spyndex-s2-sample/item.json"))
        item.make_asset_hrefs_absolute()
        item.id = f"scene-{i}"
        item.save_object(include_self_link=False, dest_href=str(folder / "raw" / f"{i}.json"))
    items = [pystac.Item.from_file(str(p)) for p in sorted((folder / "raw").glob("*.json"))]
    pystac.ItemCollection(items).save_object(str(folder / "items.json"))
    own = "SOURCE=items.json; CATALOGUE=latents; SLURM_ARRAY_TASK_COUNT=2; SLURM_ARRAY_TASK_ID="
    for number in (1, 2):
        shell(f"{own}{number}\n{script.text}")
    assert len(list(folder.glob("latents/*/scene-*/latent.zarr"))) == 3
    (text,) = container["args"]
    assert container["command"] == ["sh", "-c"]
    shell(f"SOURCE=items.json; JOB_COMPLETION_INDEX=4\n{text.replace('/shared/', '')}")
    batch = json.loads(next(b for b in found if b.language == "json").text)
    assert batch["containerProperties"]["command"][:2] == ["sh", "-c"]
    text = batch["containerProperties"]["command"][2].replace("/shared/", "").replace("/16", "/2")
    for index in (0, 1):
        shell(f"SOURCE=items.json; AWS_BATCH_JOB_ARRAY_INDEX={index}\n{text} --report {index}.json")
    reports = [json.loads((folder / f"{i}.json").read_text()) for i in (0, 1)]
    assert sum(r["skipped"] for r in reports) == 3


def test_plugin_page_has_a_test_that_passes(folder):
    """The suite that the page on plug-ins inherits is run as pytest would."""
    code = "".join(b.text for b in blocks(ROOT / "docs" / "plugins.md") if b.language == "python")
    (folder / "test_plugin.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_plugin.py"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b1\d passed", done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "extensions/latent/README.md"])
def test_pages_name_no_machine(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:root|home|work|tmp|opt)/[^\s)]*", text) == []
    assert re.findall(r"\b(TODO|FIXME|TBD)\b", text) == []


def test_readme_has_the_two_commands():
    found = dict(COMMAND.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(found) == {"demo", "test"}
    assert found["demo"] == "python -m pip install -e . && stac-latent demo"
    assert found["test"] == 'python -m pip install -e ".[test]" && python -m pytest'


DEEP = re.compile(r"\bstac_latent\.[a-z_]+\.[a-z_]+(?=\.| import)")
"""A module within a room. Pages name rooms and what they give: modules move."""


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        *sorted((ROOT / "notebooks").glob("*.py")),
        ROOT / "SECURITY.md",
        ROOT / "extensions/latent/README.md",
    ],
    ids=lambda p: p.name,
)
def test_pages_import_from_rooms_alone(page):
    found = DEEP.findall(page.read_text(encoding="utf-8"))
    assert found == [], f"import from the room, and export the name there: {found}"


def test_examples_import_from_rooms_alone():
    found = {}
    for path in (ROOT / "stac_latent").rglob("*.py"):
        lines = re.findall(r"^\s*(?:>>>|\.\.\.) (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        found |= {str(path): line for line in lines if DEEP.search(line)}
    assert found == {}


def test_the_page_of_the_api_has_all_that_the_rooms_give():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
    assert [name for name in shown if pydoc.locate(name) is None] == []
    for path in sorted((ROOT / "stac_latent").rglob("__init__.py")):
        if "= lazy(" in path.read_text(encoding="utf-8"):
            package = ".".join(path.relative_to(ROOT).parent.parts)
            given = {f"{package}.{n}" for n in importlib.import_module(package).__all__ if n != "BUILTIN"}
            assert given <= set(shown), f"docs/api.md lacks {sorted(given - set(shown))}"


def test_readme_table_names_the_installed_codecs():
    from stac_latent.codec.registry import codec_names

    for page in ("README.md", "docs/codecs.md"):
        table = "\n".join(
            line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("|")
        )
        assert [n for n in codec_names() if f"`{n}`" not in table] == [], page


def test_navigation_names_every_page():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    flat = re.findall(r"'([\w-]+\.md)'", str(config["nav"]))
    assert sorted(flat) == sorted(p.name for p in (ROOT / "docs").glob("*.md"))
    spec = re.findall(r"'spec/([\w-]+\.md)'", str(config["nav"]))
    assert sorted(spec) == sorted(p.name for p in (ROOT / "extensions" / "latent" / "spec").glob("*.md"))


def test_benchmark_page_shows_the_results():
    namespace = {"__file__": str(ROOT / "docs" / "hooks.py"), "__name__": "hooks"}
    execute((ROOT / "docs" / "hooks.py").read_text(encoding="utf-8"), namespace, "hooks.py")
    page = namespace["on_page_markdown"]((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    assert "{{" not in page
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert f"## {path.stem}" in page
    readme = (ROOT / "benchmarks" / "results" / "README.md").read_text(encoding="utf-8")
    assert readme == namespace["readme"](ROOT / "benchmarks" / "results"), "run: python docs/hooks.py"
    assert namespace["on_page_markdown"]("unchanged") == "unchanged"
    assert namespace["on_page_markdown"]("[a](../b/c.json), [d](e.md)") == "a, [d](e.md)"
    assert namespace["on_page_markdown"]("[a](../../../docs/lin.md#b)") == "[a](../lin.md#b)"


def test_changelog_and_version_agree():
    from stac_latent import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert "## [" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_page_on_commands_names_them_all():
    from stac_latent.cli import app

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    known = {c.name or c.callback.__name__ for c in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE)) == known


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_pages_that_are_filled_in_say_where_the_figures_are(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\{\{ (\w+) \}\}", text):
        assert "(../benchmarks/results" in text
        file = {"rates": "rd-s2", "speeds": "speed-s2", "loads": "load-s2"}.get(name, name)
        assert name == "benchmarks" or f"{file}.json" in text
