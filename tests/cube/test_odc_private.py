"""The private parts of odc-stac and odc-loader that are used: where, and of which versions they hold."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pystac
import pytest
from odc.geo.geom import box

from stac_latent.cube.odc_private import (
    LocalContext,
    StacAuxReader,
    StacMDParser,
    is_raster_data,
    normalize_geometry,
)

OURS = Path(__file__).parents[2] / "stac_latent"


def test_versions():
    """Of another minor version, see what changed in the modules that are imported from, then widen this and ``pyproject.toml``."""
    project = (OURS.parent / "pyproject.toml").read_text(encoding="utf-8")
    for name, known in {"odc-stac": "0.5.", "odc-loader": "0.6."}.items():
        assert version(name).startswith(known), f"odc_private.py was not read against {name} {version(name)}"
        bound = f"<0.{int(known.split('.')[1]) + 1}"
        assert re.search(rf'"{name}>=[\d.]+,{bound}"', project)


def test_private_modules_of_odc_are_imported_in_one_place():
    private = re.compile(r"(from|import) odc\.[\w.]*\b_\w+", re.MULTILINE)
    users = [p.name for p in OURS.rglob("*.py") if private.search(p.read_text(encoding="utf-8"))]
    assert users == ["odc_private.py"]


def test_parser_and_reader_have_the_methods_that_the_driver_hands_on_to():
    assert list(inspect.signature(StacMDParser).parameters) == ["cfg"]
    parser = StacMDParser({})
    assert list(inspect.signature(parser.extract).parameters) == ["md"]
    assert list(inspect.signature(parser.driver_data).parameters) == ["md", "band_key"]
    assert callable(StacAuxReader().read)
    assert list(inspect.signature(LocalContext).parameters) == []


@pytest.mark.parametrize(
    ("media", "roles", "expected"),
    [
        ("image/tiff; application=geotiff", ["data"], True),
        ("image/png", ["thumbnail"], False),
        ("application/vnd.zarr; version=3", ["latent"], False),
        ("application/json", None, False),
        (None, ["data"], True),
    ],
)
def test_what_counts_as_a_raster(media, roles, expected):
    assert is_raster_data(pystac.Asset("a.bin", media_type=media, roles=roles)) is expected


def test_geometries():
    area = box(1, 2, 3, 4, "EPSG:4326")
    assert normalize_geometry(area) is area
    assert normalize_geometry(area.json) == area
    with pytest.raises(ValueError, match="geometry"):
        normalize_geometry("here")
