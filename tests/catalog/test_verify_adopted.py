"""Verify over adopted embeddings: what is sound passes, what is not is named."""

from __future__ import annotations

import adopt_support as files
import numpy as np
import pyarrow as pa

from stac_latent import adopt
from stac_latent.catalog.verify import verify


def problems(folder):
    return [p for row in verify(str(folder / "catalog.json")) for p in row.problems]


def test_sound_files_of_every_container_pass(tmp_path, run):
    codes, scale = files.tessera_codes(0)
    adopt(
        "alphaearth",
        files.write_tiff(tmp_path / "2024" / "a.tif", files.alphaearth_codes(0), nodata=-128),
        tmp_path / "c",
    )
    adopt("tessera", files.write_tessera(tmp_path, codes, scale), tmp_path / "c")
    adopt("tessera-zarr", files.write_tessera_zarr(tmp_path, codes, scale), tmp_path / "c")
    columns = files.clay_columns(files.vectors_of(0, 4, 768))
    adopt(
        "clay",
        files.write_table(tmp_path / "a.gpq", columns, files.geo_footer()),
        tmp_path / "c",
        version="v0",
    )
    found = verify(str(tmp_path / "c" / "catalog.json"))
    assert [(r.adopted, r.compared, r.problems) for r in found] == [(True, False, [])] * 4
    code, out, _ = run("verify", tmp_path / "c" / "catalog.json")
    assert code == 0
    assert "4 checked, 0 failed; 0 compared with their raw files; 4 adopted, read alone" in out


def test_files_that_are_cut_off_or_gone_or_others_are_named(tmp_path):
    table = files.write_table(
        tmp_path / "a.gpq", files.clay_columns(files.vectors_of(0, 4, 768)), files.geo_footer()
    )
    adopt("clay", table, tmp_path / "t", version="v0")
    whole = table.read_bytes()
    table.write_bytes(whole[:-100])
    (problem,) = problems(tmp_path / "t")
    assert "was changed since it was adopted" in problem
    table.unlink()
    (problem,) = problems(tmp_path / "t")
    assert "a.gpq does not exist" in problem
    tile = files.write_tessera(tmp_path, *files.tessera_codes(0))
    adopt("tessera", tile, tmp_path / "r")
    tile.with_name(f"{tile.stem}_scales.npy").unlink()
    (problem,) = problems(tmp_path / "r")
    assert "_scales.npy does not exist" in problem


def test_what_does_not_decode_is_named(tmp_path):
    path = files.write_tiff(tmp_path / "2024" / "a.tif", files.alphaearth_codes(0), nodata=-128)
    adopt("alphaearth", path, tmp_path / "c")
    (item,) = adopt("alphaearth", path, tmp_path / "d")
    item.assets["embeddings"].extra_fields["latent:dimensions"] = 63
    found = verify([item])
    assert "has shape (64, 11, 13) (channel, y, x)" in found[0].problems[0]
    columns = files.major_tom_columns(files.vectors_of(0, 4))
    columns["timestamp"] = pa.array(["2020", "2021", "2022", "2023"])
    table = files.write_table(tmp_path / "t.parquet", columns, files.geo_footer())
    (item,) = adopt("major-tom", table, tmp_path / "t", version="1")
    item.assets["embeddings"].extra_fields["latent:time_column"] = "when"
    item.properties["table:row_count"] = 7
    found = verify([item])
    assert found[0].problems == [
        f"{table} has 4 rows, its item says 7; adopt it again",
        f"{table} has no column 'when', which its item names as that of the times; adopt it again",
    ]


def test_a_scale_that_is_far_larger_than_others_is_named_and_loads(tmp_path):
    codes, scale = files.tessera_codes(0)
    scale[7, 9] = 1000 * np.nanmedian(scale)
    (_item,) = adopt("tessera", files.write_tessera(tmp_path, codes, scale), tmp_path / "c")
    (problem,) = problems(tmp_path / "c")
    assert "in rows 0 to 9, columns 0 to 12 is more than 100 times the usual" in problem
