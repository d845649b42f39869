from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED
from refsam_qgis.engine.references import refset_file
from refsam_qgis.engine.references.chips import Chip, ChipSet
from refsam_qgis.engine.references.refset_file import (
    MANIFEST,
    VERSION,
    read_refset,
    stretches_in,
    verify_refset,
    write_refset,
)
from tests.engine.stand_ins import Recorder


def chip(seed, side=32, gsd=0.5):
    random = np.random.default_rng(seed)
    mask = random.choice(np.array([BACKGROUND, FOREGROUND, UNMARKED, IGNORE], np.uint8), (side, side))
    valid = mask != IGNORE
    valid[0] |= mask[0] == IGNORE  # a guard ring: seen, but not counted
    image = np.where(valid, random.integers(0, 256, (3, side, side), np.uint8), np.uint8(0))
    origin = {"raster": f"снимок {seed}.tif", "centre": [1.25, -7e-3]}
    limits = None if seed == 1 else np.array([[seed, 200.5]])
    return Chip(image, mask, valid, gsd, origin, (seed / 4, 12.5), seed == 1, limits)


@pytest.fixture
def chips():
    return ChipSet(16.0, {"крыша": [chip(1), chip(2, 16, 1.0)], "a/b": [chip(3)]}, [chip(4)])


@pytest.fixture
def written(tmp_path, chips):
    path = tmp_path / "set.refset"
    write_refset(str(path), chips, Recorder())
    return path


def rewrite(path, **changed):
    """Replace members (``None`` removes one); a callable changes the manifest."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, value in changed.items():
        member = MANIFEST if name == "manifest" else f"chips/00001/{name}.png"
        if callable(value):
            document = json.loads(members[member])
            value = json.dumps(value(document) or document).encode()
        members[member] = value
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            if value is not None:
                archive.writestr(name, value)


def png(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def test_what_is_written_is_read(written, chips):
    found = read_refset(str(written), Recorder())
    assert found.ground_size == 16.0 and list(found.classes) == ["крыша", "a/b"]
    assert len(found.chips()) == 4
    for (name, one), (expected_name, expected) in zip(found.chips(), chips.chips(), strict=True):
        assert name == expected_name and one.digest == expected.digest and one.origin == expected.origin
        assert one.areas == expected.areas and one.stretched is expected.stretched
        assert np.array_equal(one.limits, expected.limits) if expected.limits is not None else one.limits is None
        assert one.valid.dtype == bool and one.image.flags.c_contiguous


def test_files_without_areas_are_read(written):
    def forget(document: dict) -> None:
        for entry in document["chips"]:
            del entry["areas"]

    rewrite(written, manifest=forget)
    assert [chip.areas for _, chip in read_refset(str(written), Recorder()).chips()] == [()] * 4


@pytest.mark.parametrize(("stretch", "stretched"), [("auto", None), ("percentile", True), ("none", False)])
def test_files_of_before_say_of_some_chips_whether_they_are_stretched(written, stretch, stretched):
    def forget(document: dict) -> None:
        for entry in document["chips"]:
            del entry["stretched"], entry["limits"]
            entry["origin"]["stretch"] = stretch

    rewrite(written, manifest=forget)
    assert {chip.stretched for _, chip in read_refset(str(written), Recorder()).chips()} == {stretched}
    assert stretches_in(str(written)) == {stretched} - {None}


def test_objects_without_area_are_no_damage(written):
    """Files of before list a polygon without area as one of 0."""

    def flatten(document: dict) -> None:
        document["chips"][0]["areas"] = [0.0, 3.5, 0]

    rewrite(written, manifest=flatten)
    assert read_refset(str(written), Recorder()).classes["крыша"][0].areas == (3.5,)


def test_equal_content_is_equal_bytes(written, chips, tmp_path):
    with zipfile.ZipFile(written) as archive:
        assert {(m.date_time, m.create_system) for m in archive.infolist()} == {((1980, 1, 1, 0, 0, 0), 3)}
    again = tmp_path / "elsewhere.refset"
    write_refset(str(again), chips, Recorder())
    assert again.read_bytes() == written.read_bytes()
    read_again = tmp_path / "third.refset"
    write_refset(str(read_again), read_refset(str(written), Recorder()), Recorder())
    assert read_again.read_bytes() == written.read_bytes()


def test_other_programs_can_read_it(written, chips):
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        image = np.asarray(Image.open(archive.open("chips/00003/image.png")))
        mask = np.asarray(Image.open(archive.open("chips/00003/mask.png")))
    expected = chips.classes["a/b"][0]
    assert (image.transpose(2, 0, 1) == expected.image).all() and (mask == expected.mask).all()


def test_another_version_is_told_with_the_remedy(written):
    rewrite(written, manifest=lambda document: {**document, "version": VERSION + 1, "written_by": "RefSAM 9.0"})
    with pytest.raises(RefSAMError) as caught:
        read_refset(str(written), Recorder())
    assert caught.value.code == "reference"
    assert str(caught.value) == (
        f"Reference set '{written}' has format version 2 (written by RefSAM 9.0) and this RefSAM reads version 1; "
        "update RefSAM, or build the set anew."
    )


def change(**fields):
    return {"manifest": lambda document: {**document, **fields}}


def change_chip(**fields):
    def edit(document):
        document["chips"][0].update(fields)

    return {"manifest": edit}


def change_mask(old, new, count=None):
    """Change some pixels of one value in the mask of the first chip; nothing else is wrong with it."""
    mask = chip(1).mask
    mask[tuple(np.argwhere(mask == old)[:count].T)] = new
    return {"mask": png(mask)}


DAMAGED = {
    "no member": {"mask": None},
    "not a picture": {"image": b"no picture"},
    "half a picture": {"image": png(np.zeros((32, 32, 3), np.uint8))[:60]},
    "larger than it says": {"image": png(np.zeros((4000, 4000, 3), np.uint8))},
    "of another mode": {"image": png(np.zeros((32, 32), np.uint8))},
    "unknown mask value": change_mask(FOREGROUND, 7, 1),
    "nothing marked": change_mask(FOREGROUND, BACKGROUND),
    "marks where nothing is valid": {"valid": png(np.zeros((32, 32), np.uint8))},
    "a mark where nothing is valid": change_mask(IGNORE, FOREGROUND),
    "huge manifest": {"manifest": lambda document: {**document, "note": " " * (17 * 2**20)}},
    "broken manifest": {"manifest": b"{"},
    "binary manifest": {"manifest": b"\xff\xfe\x00"},
    "deep manifest": {"manifest": b"[" * 200_000},
    "no classes": change(classes=[]),
    "one class twice": change(classes=["крыша", "a/b", "a/b"]),
    "class that is no text": change(classes=[["a"]]),
    "class without chips": change(classes=["крыша", "a/b", "c"]),
    "chip of no class": change(classes=["крыша"]),
    "no size": change(chip_ground_size="wide"),
    "infinite size": change(chip_ground_size=float("inf")),
    "no list of chips": change(chips=3),
    "huge chip": change_chip(side=10**9, gsd=16e-9),
    "another side": change_chip(side=33),
    "side that is no number": change_chip(side="32"),
    "no resolution": change_chip(gsd=0),
    "resolution that does not fit": change_chip(gsd=0.3),
    "infinite area": change_chip(areas=[float("inf")]),
    "area that is no number": change_chip(areas=[True]),
    "no origin": change_chip(origin="../../etc"),
    "stretched in some way": change_chip(stretched="a bit"),
    "stretched between no values": change_chip(limits=[[0, float("nan")]]),
    "stretched between values of two bands": change_chip(limits=[[0, 1], [2, 3]]),
}


@pytest.mark.parametrize("changed", DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_one_sentence(written, changed):
    rewrite(written, **changed)
    with pytest.raises(RefSAMError, match=r"is damaged \(.+\); restore a copy of it or build it anew\.$") as caught:
        read_refset(str(written), Recorder())
    assert caught.value.code == "reference" and str(written) in str(caught.value)


def test_too_little_memory_is_no_damage(written, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(refset_file, "_read_chip", fail)
    with pytest.raises(MemoryError):
        read_refset(str(written), Recorder())


def test_more_pixels_than_fit_are_refused_unread(written):
    def enlarge(document):
        document["chips"] = [{**document["chips"][0], "side": 8192, "gsd": 2**-9}] * 9

    rewrite(written, manifest=enlarge)
    with pytest.raises(RefSAMError, match=r"is damaged \(its chips have more than 536,870,912 pixels"):
        read_refset(str(written), Recorder())


def test_flipped_bits_are_damage(written):
    content = bytearray(written.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 1
    written.write_bytes(content)
    with pytest.raises(RefSAMError, match="is damaged"):
        read_refset(str(written), Recorder())


def test_no_reference_sets(tmp_path, written):
    half, text, other, foreign = (tmp_path / name for name in ("half.refset", "text.refset", "other.zip", "f.refset"))
    half.write_bytes(written.read_bytes()[:-200])
    text.write_text("no archive")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "a")
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr(MANIFEST, '{"format": "something else", "version": 1}')
    cases = [(path, "is not a whole reference set") for path in (half, text, other, foreign)]
    cases += [(tmp_path / "none.refset", "No such file"), (tmp_path, "directory")]
    for path, sentence in cases:
        with pytest.raises(RefSAMError, match=sentence) as caught:
            read_refset(str(path), Recorder())
        assert caught.value.code == "reference" and str(path) in str(caught.value)


def test_nothing_is_unpacked(written, tmp_path):
    with zipfile.ZipFile(written, "a") as archive:
        archive.writestr("../escaped.txt", "x")
    before = set(tmp_path.parent.rglob("*"))
    assert len(read_refset(str(written), Recorder()).chips()) == 4
    assert set(tmp_path.parent.rglob("*")) == before


def test_more_than_is_read_is_not_written(tmp_path, chips, monkeypatch):
    path = tmp_path / "large.refset"
    cases = [
        ("MAX_PIXELS", "'large.refset' have more than 500 pixels; use a smaller chip size"),
        ("MAX_MANIFEST", "'large.refset' show more objects than a reference set can list; use fewer examples"),
    ]
    for limit, sentence in cases:
        with monkeypatch.context() as patch, pytest.raises(RefSAMError, match=sentence) as caught:
            patch.setattr(refset_file, limit, 500)
            write_refset(str(path), chips, Recorder())
        assert caught.value.code == "reference" and not path.exists()


@pytest.mark.parametrize("changed", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_cannot_be_read_is_not_kept(written, changed):
    verify_refset(str(written), "final.refset", Recorder())
    rewrite(written, **changed)
    with pytest.raises(
        RefSAMError, match=r"^Reference set 'final.refset' came out damaged \(.+\) and is not"
    ) as caught:
        verify_refset(str(written), "final.refset", Recorder())
    assert caught.value.code == "internal"


def test_reading_and_writing_can_be_cancelled(written, chips, tmp_path):
    with pytest.raises(JobCancelled):
        read_refset(str(written), Recorder(cancel_after=-1))
    with pytest.raises(JobCancelled):
        verify_refset(str(written), "final.refset", Recorder(cancel_after=-1))
    with pytest.raises(JobCancelled):
        write_refset(str(tmp_path / "b.refset"), chips, Recorder(cancel_after=-1))
