"""Authoring: a codec as an MLM Item, and the link that pins it."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_latent.catalog.items import codec_item, decoder_link, file_fields
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.codec import Codec
from stac_latent.errors import BundleError, CatalogError
from stac_latent.extension import SCHEMA_URI, LatentExtension
from stac_latent.spec import Band, Quantization, Spec
from stac_latent.validation import validate

SCHEMAS = Path(__file__).parents[3] / "shared" / "schemas"
MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
SPACE = "sha256:" + "1" * 64
BANDS = (
    Band("B04", "uint16", 0, 1e-4, -0.1, gsd=10, common_name="red"),
    Band("B08", "uint16", 0, 1e-4, -0.1, gsd=10, common_name="nir"),
)


class StandIn:
    """As much of a codec as an Item needs."""

    def __init__(self, name="two-bands", kind="codec", bands=BANDS):
        self.name, self.space = name, SPACE
        self.spec = Spec(kind, SPACE, 16, (8, 8), (1, 1), bands, quantization=Quantization("linear", (0.5,)))

    def chain(self):
        return [{"stage": "klt", "bits": 14}, {"stage": "uniform", "step": [4]}]


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "codecs" / "two-bands"
    folder.mkdir(parents=True)
    (folder / "codec.json").write_bytes(b'{"format": "x"}')
    (folder / "codec.safetensors").write_bytes(b"\x00" * 40)
    return folder


def write(item, path):
    path.write_text(json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False)))
    return path


def test_file_fields(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_fields(path) == {"file:checksum": f"1220{hashlib.sha256(b'abc').hexdigest()}", "file:size": 3}
    with pytest.raises(CatalogError, match=r"cannot describe '.*gone': No such file.*write the file before"):
        file_fields(tmp_path / "gone")


def test_codec_item_describes_the_bundle(bundle):
    item = codec_item(StandIn(), bundle, properties={"license": "Apache-2.0"})
    assert item.id == item.properties["mlm:name"] == "two-bands"
    assert item.properties["mlm:architecture"] == "klt > uniform"
    assert item.properties["mlm:tasks"] == ["regression"]
    assert item.properties["mlm:input"] == [
        {
            "name": "field",
            "bands": ["B04", "B08"],
            "input": {"shape": [2, -1, -1], "dim_order": ["bands", "height", "width"], "data_type": "uint16"},
        }
    ]
    (output,) = item.properties["mlm:output"]
    assert output["result"] == {
        "shape": [16, -1, -1],
        "dim_order": ["channel", "height", "width"],
        "data_type": "float32",
    }
    assert item.properties["license"] == "Apache-2.0"
    assert LatentExtension.ext(item).spaces == [SPACE]
    assert LatentExtension.ext(item).kinds == ["codec"]
    codec, weights = item.assets["codec"], item.assets["weights"]
    assert (codec.href, weights.href) == ("./codec.json", "./codec.safetensors")
    assert codec.extra_fields["file:checksum"] == file_fields(bundle / "codec.json")["file:checksum"]
    assert weights.extra_fields["file:size"] == 40
    assert weights.extra_fields["mlm:artifact_type"] == "safetensors.torch.save_file"
    assert "mlm:model" in codec.roles
    assert "mlm:model" in weights.roles
    assert LatentExtension.ext(codec).space == SPACE
    assert [Band.from_stac(b) for b in codec.extra_fields["bands"]] == list(BANDS)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the folder of published schemas is absent")
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        (StandIn(), {}),
        (StandIn(kind="embedding"), {}),
        (StandIn(bands=(Band("t2m", "float32", float("nan"), unit="K"),)), {}),
        (StandIn(bands=(Band("vv", "float32"), Band("lc", "uint8"))), {}),
        (StandIn(), {"bbox": None}),
        (StandIn(), {"bbox": (5.0, 45.0, 16.0, 55.0)}),
    ],
)
def test_codec_items_are_valid(bundle, codec, options):
    item = codec_item(codec, bundle, **options)
    assert {MLM, SCHEMA_URI} <= set(item.stac_extensions)
    assert validate(item, SCHEMAS) == []
    read = pystac.Item.from_dict(json.loads(json.dumps(item.to_dict(include_self_link=False))))
    assert validate(read, SCHEMAS) == []


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the folder of published schemas is absent")
def test_a_real_codec(tmp_path):
    from stac_latent import open_codec

    codec = open_codec("s2-10m-4b")
    assert isinstance(codec, Codec)
    save_bundle(codec, tmp_path)
    item = codec_item(codec, tmp_path)
    assert validate(item, SCHEMAS) == []
    assert item.properties["latent:spaces"] == [codec.space]
    assert np.prod(item.properties["mlm:input"][0]["input"]["shape"]) == 4


def test_embedders_are_for_search(bundle):
    item = codec_item(StandIn(kind="embedding"), bundle)
    assert item.properties["mlm:tasks"] == ["similarity-search"]
    assert item.properties["latent:kinds"] == ["embedding"]


def test_bands_of_several_types(bundle):
    item = codec_item(StandIn(bands=(Band("vv", "float32"), Band("lc", "uint8"))), bundle)
    assert item.properties["mlm:input"][0]["input"]["data_type"] == "other"


def test_place_and_time(bundle):
    start, end = datetime(2017, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    item = codec_item(StandIn(), bundle, bbox=(5.0, 45.0, 16.0, 55.0), interval=(start, end))
    assert item.bbox == [5.0, 45.0, 16.0, 55.0]
    assert item.geometry["coordinates"][0][2] == [16.0, 55.0]
    assert item.properties["start_datetime"] == "2017-01-01T00:00:00Z"
    assert codec_item(StandIn(), bundle, bbox=None).geometry is None


def test_equal_codecs_make_equal_bytes(bundle, tmp_path):
    first, second = (codec_item(StandIn(), bundle).to_dict(include_self_link=False) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert not {"created", "updated", "datetime"} & {
        k for k, v in first["properties"].items() if v is not None
    }


def test_hrefs_are_relative_to_where_the_item_will_be(bundle, tmp_path):
    item = codec_item(StandIn(), bundle, href=tmp_path / "items" / "codec.json")
    assert item.assets["codec"].href == "../codecs/two-bands/codec.json"


@pytest.mark.parametrize("name", ["x", "4bands", "two_", "a/b"])
def test_names_that_mlm_does_not_allow(bundle, name):
    with pytest.raises(
        CatalogError, match=f"'{name}' cannot be an mlm:name: expected at least three of letters.*rename"
    ):
        codec_item(StandIn(name), bundle)


@pytest.mark.parametrize("missing", ["codec.json", "codec.safetensors"])
def test_what_is_no_bundle(bundle, missing):
    (bundle / missing).unlink()
    with pytest.raises(
        BundleError, match=rf"is no codec bundle: {missing} is not there; save the codec there first"
    ):
        codec_item(StandIn(), bundle)


def test_decoder_link(bundle, tmp_path):
    path = write(codec_item(StandIn(), bundle), bundle / "item.json")
    link = decoder_link(tmp_path / "scenes" / "a" / "a.json", path, SPACE)
    assert link.to_dict(transform_href=False) == {
        "rel": "latent:decoder",
        "href": "../../codecs/two-bands/item.json",
        "type": "application/geo+json",
        "title": "Codec sha256:11111111",
        "latent:space": SPACE,
        **file_fields(path),
    }
    assert decoder_link("a.json", path, SPACE, rel="latent:encoder").rel == "latent:encoder"
    with pytest.raises(CatalogError, match="cannot describe"):
        decoder_link("a.json", tmp_path / "gone.json", SPACE)


def test_decoder_link_to_another_place(bundle):
    path = write(codec_item(StandIn(), bundle), bundle / "item.json")
    link = decoder_link("https://example.com/items/a.json", path, SPACE)
    assert link.target == path.as_posix()


def test_a_link_follows_its_item(bundle, tmp_path):
    path = write(codec_item(StandIn(), bundle), bundle / "item.json")
    scene = pystac.Item("a", None, None, datetime(2026, 1, 1, tzinfo=UTC), {})
    here = tmp_path / "scenes" / "a.json"
    here.parent.mkdir()
    LatentExtension.add_to(scene)
    scene.add_link(decoder_link(here, path, SPACE))
    scene.save_object(include_self_link=False, dest_href=str(here))
    link = pystac.Item.from_file(here).get_single_link("latent:decoder")
    assert Path(link.get_absolute_href()).resolve() == path
    assert link.extra_fields["file:size"] == path.stat().st_size


folders = st.lists(st.sampled_from("abc"), min_size=0, max_size=4).map("/".join)


@given(scene=folders, codec=folders)
def test_links_lead_from_anywhere_to_anywhere(tmp_path_factory, scene, codec):
    root = tmp_path_factory.getbasetemp()
    path = root / "links" / codec / "item.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    start = root / "links" / scene / "scene.json"
    link = decoder_link(start, path, SPACE)
    assert link.target.startswith(".")
    assert (start.parent / link.target).resolve() == path.resolve()
