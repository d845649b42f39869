from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE
from refsam_qgis.engine.references.chips import Chip, ChipSet, chip_side, resize_mask, stack


def chip(side, marked, gsd=1.0):
    """A grey chip with a marked, white part."""
    mask = np.full((side, side), BACKGROUND, np.uint8)
    mask[marked] = FOREGROUND
    image = np.where(mask == FOREGROUND, np.uint8(255), np.uint8(90))
    return Chip(np.stack([image] * 3), mask, np.ones((side, side), bool), gsd, {"raster": "a.tif"})


def test_chips_of_one_resolution_stay_as_they_are():
    chips = [chip(40, np.s_[3:9, 4:7]), chip(40, np.s_[30:32, 1:9])]
    shots = stack(chips)
    for k, one in enumerate(chips):
        assert (shots.images[k].numpy() == one.image).all() and (shots.masks[k].numpy() == one.mask).all()


def test_coarse_chips_are_brought_to_the_finest_side():
    fine, coarse = chip(96, np.s_[24:48, 24:48], 1.0), chip(32, np.s_[8:16, 8:16], 3.0)
    shots = stack([fine, coarse])
    assert shots.images.shape == (2, 3, 96, 96)
    assert (shots.masks[0] == shots.masks[1]).all()
    expected = Image.fromarray(coarse.image[0]).resize((96, 96), Image.Resampling.BILINEAR)
    difference = shots.images[1, 0].numpy().astype(int) - np.asarray(expected).astype(int)
    assert abs(difference).max() <= 1
    assert (shots.images[0].numpy() == fine.image).all()


def test_what_no_model_sees_is_not_enlarged_to():
    assert stack([chip(1500, np.s_[:9, :9]), chip(500, np.s_[:3, :3])]).images.shape[-1] == 1024


def test_small_objects_survive_in_a_smaller_mask():
    mask = np.zeros((100, 100), np.uint8)
    spots = [(1, 1), (50, 33), (99, 0)]
    for spot in spots:
        mask[spot] = FOREGROUND
    mask[60:90, 60:90] = FOREGROUND
    mask[:, 40:50] = IGNORE
    small, valid = resize_mask(mask, mask != IGNORE, 10)
    assert [small[row // 10, column // 10] for row, column in spots] == [FOREGROUND] * 3
    assert (small[6:9, 6:9] == FOREGROUND).all() and (small == FOREGROUND).sum() == 12
    assert (small[:, 4] == IGNORE).all() and (valid == (small != IGNORE)).all()


def test_a_smaller_mask_is_taken_from_the_middle_of_its_pixels():
    """So the mask of a turned chip is the turned mask."""
    mask = np.random.default_rng(0).integers(1, 3, (9, 9)).astype(np.uint8)
    mask[mask == FOREGROUND] = IGNORE
    for side in (3, 5, 7, 15):
        small, _ = resize_mask(mask, mask != IGNORE, side)
        turned, _ = resize_mask(np.rot90(mask, 2), np.rot90(mask != IGNORE, 2), side)
        assert np.array_equal(np.rot90(turned, 2), small)
    assert resize_mask(mask, mask != IGNORE, 3)[0].tolist() == mask[1::3, 1::3].tolist()


def test_a_small_object_in_a_hole_stays_valid():
    mask = np.full((100, 100), IGNORE, np.uint8)
    mask[3, 8] = FOREGROUND
    small, valid = resize_mask(mask, mask != IGNORE, 10)
    assert small[0, 0] == FOREGROUND and valid[0, 0] and valid.sum() == 1


def test_a_chip_has_a_pixel_however_little_it_covers():
    assert [chip_side(size, 2.0, "a.tif") for size in (0.1, 1.0, 7.0, 16384.0)] == [1, 1, 4, 8192]


def test_a_larger_ground_size_pads_without_scaling():
    one = chip(40, np.s_[3:9, 4:7], 0.5)
    wider = ChipSet(20.0, {"a": [one]}, [one]).at_ground_size(50.0)
    padded = wider.classes["a"][0]
    assert wider.ground_size == 50.0 and padded.side == 100 and padded.gsd == 0.5
    assert (padded.image[:, :40, :40] == one.image).all() and (padded.mask[:40, :40] == one.mask).all()
    assert padded.valid.sum() == 1600 and (padded.mask[~padded.valid] == IGNORE).all()
    assert not padded.image[:, ~padded.valid].any()
    assert wider.negatives[0].side == 100


@pytest.mark.parametrize(
    ("marked", "rows", "columns"),
    [(np.s_[70:80, 10:30], (60, 71), (0, 11)), (np.s_[:, :], (0, 71), (0, 71)), (np.s_[0:50, :], (0, 50), (0, 71))],
    ids=["object", "everywhere", "half"],
)
def test_a_smaller_ground_size_cuts_around_the_class(marked, rows, columns):
    one = chip(100, marked)
    row = np.arange(100, dtype=np.uint8)
    one.image[0], one.image[1] = row[:, None], row
    cut = ChipSet(100.0, {"a": [one]}).at_ground_size(30.0).classes["a"][0]
    assert cut.image.shape == (3, 30, 30)
    top, left = int(cut.image[0, 0, 0]), int(cut.image[1, 0, 0])
    assert rows[0] <= top < rows[1] and columns[0] <= left < columns[1]
    assert (cut.mask == one.mask[top : top + 30, left : left + 30]).all()
    held = (cut.mask == FOREGROUND).sum()
    if (one.mask == FOREGROUND).sum() < 450:
        assert held == (one.mask == FOREGROUND).sum()
    else:
        assert held > 0


def test_a_class_that_fills_much_is_cut_with_its_surroundings():
    cut = ChipSet(100.0, {"a": [chip(100, np.s_[0:50, :])]}).at_ground_size(30.0).classes["a"][0]
    assert (cut.mask == FOREGROUND).mean() == pytest.approx(0.5)


def test_too_large_chips_are_one_sentence():
    with pytest.raises(RefSAMError, match=r"covers 9000 pixels of the reference raster 'a.tif'; use") as caught:
        ChipSet(4.0, {"a": [chip(4, np.s_[:2])]}).at_ground_size(9000.0)
    assert caught.value.code == "reference"


def test_digests_are_of_the_content():
    one, other = chip(40, np.s_[3:9, 4:7]), chip(40, np.s_[3:9, 4:8])
    assert one.digest == Chip(one.image, one.mask, one.valid, one.gsd, {"raster": "b.tif"}).digest
    assert len({one.digest, other.digest, chip(40, np.s_[3:9, 4:7], 2.0).digest}) == 3


@pytest.mark.parametrize("ground_size", [8193.0, float("inf")])
def test_a_chip_of_too_many_pixels_is_refused(ground_size):
    assert chip_side(8192.0, 1.0, "a.tif") == 8192
    with pytest.raises(RefSAMError, match=r"pixels of the reference raster 'a\.tif'; use a smaller"):
        chip_side(ground_size, 1.0, "a.tif")
