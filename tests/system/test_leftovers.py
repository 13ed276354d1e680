"""What killed processes leave, full disks, and files that change under an index: never read as data, cleared by the next run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from nearest_support import clustered, write

from stac_latent import adopt
from stac_latent.errors import CatalogError, EncryptionError
from stac_latent.index import ivf
from stac_latent.index import memory_map as layouts
from stac_latent.index.metric import Form
from stac_latent.index.nearest import nearest
from stac_latent.index.paths import files_of
from stac_latent.secure import keygen
from stac_latent.system.files import (
    clear_killed,
    files_below,
    placed,
    put,
    replacing,
    replacing_folder,
    temporary,
    workplace,
    write_whole,
)  # fmt: skip

LEAVE = """
import os, sys
from pathlib import Path
from stac_latent.system.files import workplace
with workplace(Path(sys.argv[1])) as work:
    (work / "table.parquet").write_bytes(b"half")
    os._exit(9)
"""


def killed_while_making(path):
    assert subprocess.run([sys.executable, "-c", LEAVE, str(path)], check=False).returncode == 9
    (left,) = path.parent.glob(f".{path.name}.*")
    return left


def test_a_killed_publication_is_no_table_and_goes_with_the_next(tmp_path):
    path = tmp_path / "tables" / "t.parquet"
    left = killed_while_making(path)
    with pytest.raises(CatalogError, match=r"holds no \.parquet file"):
        files_of(tmp_path / "tables")
    write(path, clustered(50, 8))
    shutil.copy(path, left / "table.parquet")  # whole, but not published
    assert files_of(tmp_path / "tables") == [path]
    assert len(nearest(tmp_path / "tables", np.ones(8, "f4"), 60)) == 50
    with workplace(path):
        assert not left.exists()
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_what_an_earlier_process_of_the_same_number_left(tmp_path):
    """The first process of a container is always number 1."""
    path = tmp_path / "t.parquet"
    mine = temporary(path, "part")
    earlier = mine.with_name(mine.name.replace(mine.name.split("-")[-1], "ffff0.part"))
    mine.write_bytes(b"")
    earlier.write_bytes(b"")
    clear_killed(path)
    assert [p.name for p in tmp_path.iterdir()] == [mine.name]


def test_folders_that_links_lead_to_are_searched_once(tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    write(here / "a.parquet", clustered(20, 8))
    write(elsewhere / "b.parquet", clustered(30, 8, seed=2))
    (here / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(here)
    assert [p.relative_to(here).as_posix() for p in files_of(here)] == ["a.parquet", "more/b.parquet"]
    assert len(nearest(here, np.ones(8, "f4"), 100)) == 50
    assert sorted(p.name for p in files_below(here) if p.suffix == ".parquet") == ["a.parquet", "b.parquet"]


# -- indexes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "t.parquet", clustered(400, 8))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_layout_holds_what_the_table_holds(tmp_path, dtype):
    path = write(tmp_path / "t.parquet", clustered(3000, 8), dtype=dtype, group=8 << 10)
    assert pq.ParquetFile(path).num_row_groups > 1
    folder = layouts.write_cache(layouts_table(path))
    stored = pq.read_table(path)
    vectors = np.stack(stored["vector"].to_numpy(zero_copy_only=False))
    np.testing.assert_array_equal(np.load(folder / "vectors.npy"), vectors)
    if dtype == "int8":
        scale = stored["scale"].to_numpy()
        np.testing.assert_array_equal(np.load(folder / "scale.npy"), scale)
        vectors = vectors * scale[:, None]
    np.testing.assert_allclose(
        np.load(folder / "norms.npy"), np.linalg.norm(vectors.astype("f8"), axis=1), rtol=1e-6
    )


def layouts_table(path):
    from stac_latent.index.table import open_table

    return open_table(path)


def test_a_full_disk_ends_in_a_message(table, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(layouts, "_append", full)
    with pytest.raises(
        CatalogError, match=r"could not write the index .*No space left.*; free some space, or search"
    ):
        nearest(table, np.ones(8, "f4"), 3, index=True)
    assert not list(table.parent.glob("*.index"))
    assert not list(table.parent.glob(".*"))


def test_a_disk_that_is_full_for_the_index_alone(table, monkeypatch):
    pytest.importorskip("faiss")
    honest = ivf._faiss()

    class Full:
        def __getattr__(self, name):
            return getattr(honest, name)

        def write_index(self, index, path):
            Path(path).write_bytes(b"half")
            raise RuntimeError(f"write error in {path}: 4 != 9 (No space left on device)")

    monkeypatch.setattr(ivf, "_faiss", Full)
    with pytest.raises(CatalogError, match=r"the disk is full.*free some space, or search without an index"):
        ivf.build_index(table, Form.of("cosine", 8))
    assert sorted(p.name for p in layouts.cache_folder(layouts_table(table)).iterdir()) == [
        "meta.json", "norms.npy", "rows.arrow", "vectors.npy"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["meta.json", "vectors.npy", "norms.npy", "rows.arrow", "ivf-cosine.json", "ivf-cosine.faiss"]
)
def test_empty_files_of_an_index_are_as_if_it_were_not_there(table, name):
    pytest.importorskip("faiss")
    ivf.build_index(table, Form.of("cosine", 8))
    expected = list(nearest(table, np.ones(8, "f4"), 5)["id"])
    path = layouts.cache_folder(layouts_table(table)) / name
    layouts._mapped.cache_clear()  # as in another process
    path.write_bytes(b"")
    assert list(nearest(table, np.ones(8, "f4"), 5, index=True)["id"]) == expected
    assert path.stat().st_size > 0


def test_an_index_of_old_vectors_is_not_kept_for_new_ones(table, monkeypatch):
    """A build that ends when the table was published and laid out anew."""
    pytest.importorskip("faiss")
    honest = ivf._write

    def late(found):
        monkeypatch.setattr(ivf, "_write", honest)
        write(table.with_name("new.parquet"), clustered(400, 8, seed=7)).replace(table)
        layouts.write_cache(layouts_table(table))
        honest(found)

    monkeypatch.setattr(ivf, "_write", late)
    with pytest.raises(CatalogError, match="was published anew while its index was built; build it again"):
        ivf.build_index(table, Form.of("cosine", 8))
    folder = layouts.cache_folder(layouts_table(table))
    assert not list(folder.glob("ivf*"))
    made = ivf.build_index(table, Form.of("cosine", 8))
    facts = made.path.with_suffix(".json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"layout": "another", "nprobe": 77}))
    assert ivf.open_index(made.cache, Form.of("cosine", 8)).nprobe != 77


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_replaced_is_back_if_the_new_one_cannot_be_placed(tmp_path, kind):
    path, part = tmp_path / "cube", tmp_path / "part"
    path.mkdir() if kind == "folder" else path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        put(part, path)
    assert path.is_dir() if kind == "folder" else path.read_bytes() == b"old"
    part.mkdir() if kind == "folder" else part.write_bytes(b"new")
    number = part.stat().st_ino
    put(part, path)
    assert path.stat().st_ino == number
    assert [p.name for p in tmp_path.iterdir()] == ["cube"]


@pytest.mark.parametrize("made", [replacing, replacing_folder])
def test_what_is_made_is_whole_or_the_old_one(tmp_path, made):
    path = tmp_path / "folder" / "cube"
    path.parent.mkdir()

    def write(part, text):
        (part / "zarr.json" if part.is_dir() else part).write_text(text)

    def found():
        assert [p.name for p in path.parent.iterdir()] == ["cube"]
        return (path / "zarr.json" if path.is_dir() else path).read_text()

    for text in ("first", "second"):
        with made(path) as part:
            write(part, text)
        assert found() == text
    with pytest.raises(KeyboardInterrupt), made(path) as part:  # noqa: PT012
        write(part, "half")
        raise KeyboardInterrupt
    assert found() == "second"
    left = killed_while_making(path)
    with made(path) as part:
        write(part, "third")
        assert not left.exists()
    assert found() == "third"


def test_a_file_takes_the_place_of_no_folder(tmp_path):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "a.json" / "kept").touch()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "a.json", b"{}")
    assert [p.name for p in tmp_path.rglob("*")] == ["a.json", "kept"]


@pytest.mark.parametrize("before", [True, False])
def test_what_is_placed_goes_again_if_the_block_fails(tmp_path, before):
    path, part = tmp_path / "cube.zarr", tmp_path / "part"
    part.mkdir()
    if before:
        path.mkdir()
        (path / "old").touch()
    with pytest.raises(ValueError, match="not catalogued"), placed(part, path):
        raise ValueError("not catalogued")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == (
        ["cube.zarr", "cube.zarr/old"] if before else []
    )


def test_a_publication_that_is_interrupted_between_table_and_item(tmp_path, monkeypatch):
    """Both are the old ones, or both the new."""
    from stac_latent.catalog.publish.publish import _commit

    old, work = tmp_path / "out", tmp_path / "work"
    moves = {"table": old / "t.parquet", "item.json": old / "t.parquet.json"}
    honest = Path.replace
    for moment in range(4):
        for folder, names in ((old, ("t.parquet", "t.parquet.json")), (work, moves)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in names:
                (folder / name).write_text(folder.name)
        calls = []

        def replace(self, target, calls=calls, moment=moment):
            done = honest(self, target)
            calls.append(target)
            if len(calls) == moment + 1:
                raise KeyboardInterrupt
            return done

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                _commit(work, moves)
        assert [p.read_text() for p in moves.values()] == ["out", "out"]


def test_a_full_disk_keeps_no_half_of_a_key(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", full)
        with pytest.raises(
            EncryptionError, match=r"cannot write a key to .*: No space left on device; no key was kept"
        ):
            keygen(tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_adopt_in_a_message(tmp_path, monkeypatch):
    from adopt_support import alphaearth_codes, write_tiff

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "2024" / "a.tif"
    write_tiff(path, alphaearth_codes(0))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        CatalogError, match=r"could not write .*out \(\[Errno 28\] .*\); nothing half-written is kept; free"
    ):
        adopt("alphaearth", path, tmp_path / "out")
