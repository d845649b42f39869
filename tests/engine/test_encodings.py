from __future__ import annotations

import os
import shutil
import threading
import time
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch

from refsam_qgis.engine import encodings as module
from refsam_qgis.engine import tile_key
from refsam_qgis.engine.encodings import EncodingCache, open_encodings
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models.weight_files import COMPACT_SAM
from refsam_qgis.engine.rasters.grid import Tile
from refsam_qgis.engine.rasters.source import RasterSource
from refsam_qgis.engine.report import describe_input
from tests.engine.stand_ins import ColourSegmenter, PortableSegmenter

TILES = [Tile(i, j, 50 * i, 50 * j) for i in range(3) for j in range(3)]


def tensors(tile, side=16):
    generator = torch.Generator().manual_seed(1000 * tile.row + tile.column)
    features = torch.randn(1, 8, side, side, generator=generator)
    return {"features": features, "prefix": features.to(torch.bfloat16)}


def fill(folder, tiles):
    cache = EncodingCache(folder)
    for tile in tiles:
        cache.offer(tile, lambda tile=tile: tensors(tile))
        wait_for(cache)
    cache.close()


def wait_for(cache):
    while cache._pending:
        cache._pending.popleft().result()


def kept(folder, tiles=TILES):
    """Which of the tiles come back, bit by bit the same and in their own precision."""
    cache = EncodingCache(folder)
    found = {tile: cache.load(tile) for tile in tiles}
    cache.close()
    for tile, loaded in found.items():
        assert loaded is None or all(
            torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype
            for name, value in tensors(tile).items()
        )
    return [tile for tile, loaded in found.items() if loaded is not None]


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "encodings" / "key"


def test_encodings_come_back_bit_by_bit(folder):
    fill(folder, TILES[:4])
    assert kept(folder) == TILES[:4] and len(files(folder)) == 4
    assert kept(folder.with_name("other")) == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_one_is_ignored_and_removed(folder, damage):
    fill(folder, TILES[:2])
    path = folder / "0_50.encoding"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": content, "cut": content[:-9], "empty": b"", "foreign": b"text" * 50}[damage])
    assert kept(folder) == TILES[:1] and files(folder) == ["0_0.encoding"]
    fill(folder, TILES[1:2])
    assert kept(folder) == TILES[:2]


def test_what_a_crash_left_half_written_is_swept_when_it_is_old(folder):
    fill(folder, TILES[:1])
    for name, age in ((".old.part", 7200), (".new.part", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert kept(folder) == TILES[:1]
    assert files(folder) == [".new.part", "0_0.encoding"]


def test_what_was_not_used_for_longest_makes_room_but_never_the_own(folder, monkeypatch):
    one, other, own = (folder.with_name(name) for name in ("one", "other", "own"))
    fill(one, TILES[:3])
    fill(other, TILES[:3])
    size = (one / "0_0.encoding").stat().st_size
    long_ago = time.time() - 1000
    for number, path in enumerate(sorted([*one.iterdir(), *other.iterdir()])):
        os.utime(path, (long_ago + number,) * 2)
    assert kept(one, TILES[:1]) == TILES[:1]  # used just now
    monkeypatch.setattr(module, "MAX_BYTES", int(6.5 * size))
    fill(own, TILES[:2])
    assert kept(one, TILES[:3]) == TILES[:1] and kept(other, TILES[:3]) == TILES[:3]
    fill(own, TILES[2:])
    assert kept(own) == TILES[:6] and files(one) == files(other) == []
    assert not one.exists() and not other.exists()


def test_a_smaller_limit_holds_from_the_next_run_on(folder, monkeypatch):
    fill(folder, TILES)
    size = (folder / "0_0.encoding").stat().st_size
    monkeypatch.setattr(module, "MAX_BYTES", int(3.5 * size))
    assert kept(folder.with_name("next")) == []
    assert len(files(folder)) == 3


def test_a_nearly_full_disk_is_left_alone(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**20))
    fill(folder, TILES)
    assert files(folder) == []


def test_an_unusable_folder_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    folder = tmp_path / "file" / "key"
    fill(folder, TILES)
    assert kept(folder) == []


def test_nobody_waits_for_a_slow_disk(folder, monkeypatch):
    go = threading.Event()
    write = module.write_tensors
    monkeypatch.setattr(module, "write_tensors", lambda *arguments: go.wait() and write(*arguments))
    dumped = []
    cache = EncodingCache(folder)
    for tile in TILES:
        cache.offer(tile, lambda tile=tile: dumped.append(tile) or tensors(tile))
    assert dumped == TILES[: module.BEING_WRITTEN]  # the others were not even fetched from the device
    go.set()
    cache.close()
    assert kept(folder) == dumped


def test_two_at_a_time_do_each_other_no_harm(folder):
    threads = [threading.Thread(target=fill, args=(folder, TILES)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(folder) == TILES and len(files(folder)) == len(TILES)


@pytest.fixture
def image(write_raster):
    return write_raster(np.random.default_rng(0).integers(0, 256, (3, 100, 100), dtype=np.uint8))


def folder_of(path, side=64, options=None, model=None, bands=None, stretch="auto"):
    with RasterSource(path, bands, stretch) as raster:
        source = describe_input(raster)
    with open_encodings(True, source, side, options or ModelOptions(), model or PortableSegmenter()) as cache:
        return cache._folder


@pytest.mark.parametrize("change", ["raster", "side", "bands", "stretch", "weights", "size", "kind"])
def test_what_changes_encodings_has_a_folder_of_its_own(image, tmp_path, change):
    before = folder_of(image)
    assert folder_of(image) == before
    options: dict = {}
    if change == "raster":
        os.utime(image, (1, 1))
    elif change == "weights":
        weights = tmp_path / "sam.safetensors"
        weights.write_bytes(COMPACT_SAM.read_bytes()[:-1])
        options["options"] = ModelOptions(checkpoint=str(weights))
    elif change == "size":
        options["options"] = ModelOptions("vit_b", str(COMPACT_SAM))
    elif change == "kind":
        options["model"] = PortableSegmenter(kind="other blocks")
    else:
        options[change] = {"side": 65, "bands": (3, 2, 1), "stretch": "percentile"}[change]
    assert folder_of(image, **options) != before


@pytest.mark.parametrize("change", ["device", "RefSAM", "torch"])
def test_other_machines_and_versions_have_folders_of_their_own(image, monkeypatch, change):
    """They may compute other bits."""
    before = folder_of(image)
    if change == "device":
        monkeypatch.setattr(tile_key, "describe_device", lambda device: {"name": "another"})
    elif change == "RefSAM":
        monkeypatch.setattr(tile_key, "__version__", "another")
    else:
        monkeypatch.setattr(torch, "__version__", "another")
    assert folder_of(image) != before


def test_nothing_is_kept_of_a_raster_that_may_change_unnoticed(image):
    assert folder_of(f"/vsisubfile/0_{os.path.getsize(image)},{image}") is None


@pytest.mark.parametrize("same", [{"method": "virefsam"}, {"adapters": "other"}])
def test_other_adapters_and_methods_share_encodings_of_one_kind(image, tmp_path, same):
    if "adapters" in same:
        same = {"adapters": str(tmp_path / "other.safetensors")}
        (tmp_path / "other.safetensors").write_bytes(b"other")
    assert folder_of(image, options=replace(ModelOptions(), **same)) == folder_of(image)


def test_networks_without_portable_encodings_keep_none(image):
    assert folder_of(image, model=ColourSegmenter()) is None
