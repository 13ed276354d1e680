"""A store that is written again without its key frame keeps all else that was asked for, the encryption key above all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_support import hold_keys, make_scene, scene_field

import stac_latent
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.shipped import lin
from stac_latent.cube.keyframe.encode import ReferenceCoder
from stac_latent.cube.raw.source import ItemSource
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.writer import WriteJob, write
from stac_latent.field.error_bound import ErrorBound
from stac_latent.secure import Key

KEY = Key(bytes(range(32)))
CODEC = lin(["red", "nir"])


@pytest.fixture(scope="module")
def dates(tmp_path_factory):
    """A folder with a bundle, a key frame that is catalogued, and the source of another date."""
    folder = tmp_path_factory.mktemp("dates")
    first, second = (
        make_scene(folder / "raw", scene_field((40, 48), i), name=f"d{i}").item for i in range(2)
    )
    (frame,) = stac_latent.encode(first, CODEC, folder / "cat")
    save_bundle(CODEC, folder / "bundle")
    return folder, LatentRef.from_item(frame, "latent"), ItemSource(second, CODEC)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("bound", [None, ErrorBound.of(2, CODEC.bands)])
def test_without_a_key_frame_that_does_not_pay(dates, tmp_path, monkeypatch, key, bound):
    folder, frame, source = dates
    tried = []
    monkeypatch.setattr(ReferenceCoder, "pays", property(lambda _: bool(tried.append(1))))
    hold_keys({KEY.id: KEY})
    job = WriteJob(
        [source], [CODEC], tmp_path / "new", "coded", folder / "bundle", frame, bound=bound, key=key
    )
    written = write(job)
    assert tried == [1]  # the key frame was tried, and left out
    assert written.key_frame is None
    assert written.fields.get("latent:key_id") == (None if key is None else KEY.id)
    assert written.fields.get("latent:error_bound") == (None if bound is None else 2)
    write(replace(job, path=tmp_path / "plain", key_frame=None, key=None))
    plain = [p for p in (tmp_path / "plain").rglob("*") if p.is_file() and "c" in p.parts]
    chunks = [p.relative_to(tmp_path / "plain") for p in plain]
    assert chunks
    for name in chunks:
        same = (tmp_path / "new" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
        assert same == (key is None), f"{name}: is it encrypted?"
