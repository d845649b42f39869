"""Encodings of every method survive being stored: what is drawn by them afterwards is the same to the bit."""

from __future__ import annotations

import pytest
import torch

from refsam_qgis.engine.encodings import PortableEncodings
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.fitted import FittedSegmenter, FittedStockSegmenter
from refsam_qgis.engine.models.segmenter import Shots
from refsam_qgis.engine.models.training_free import TrainingFreeSegmenter
from refsam_qgis.engine.models.virefsam import ViRefSAM, ViRefSAMSegmenter
from tests.engine.pocket_sam import pocket_sam

BUILD = {
    "training_free": lambda sam, config: TrainingFreeSegmenter(sam),
    "fitted_stock": lambda sam, config: FittedStockSegmenter(sam),
    "fitted": lambda sam, config: FittedSegmenter(ViRefSAM(sam, config)),
    "virefsam": lambda sam, config: ViRefSAMSegmenter(ViRefSAM(sam, config)),
}


@pytest.fixture
def tiles():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8, generator=generator)
    valid = torch.ones(1, 96, 96, dtype=torch.bool)
    valid[:, 80:] = False
    return images, valid


@pytest.mark.parametrize("method", BUILD)
@pytest.mark.parametrize("adapted", ["all", "none", "last_1"])
def test_encodings_survive_being_stored(tiles, method, adapted):
    images, valid = tiles
    segmenter = BUILD[method](pocket_sam(256), ViRefSAMConfig(adapted_blocks=adapted))
    assert isinstance(segmenter, PortableEncodings)
    masks = torch.zeros(1, 96, 96, dtype=torch.uint8)
    masks[:, 20:60, 20:60] = 1
    reference = segmenter.describe(Shots(images, masks, torch.ones_like(valid)))
    encoding = segmenter.encode(images, valid)
    tensors = segmenter.dump_encoding(encoding)
    assert all(tensor.device.type == "cpu" for tensor in tensors.values())
    # No pixels, no pixel features; tokens once where they enter an adapted block, once where they left its attention.
    channels = 256 + (2 * 16 if adapted == "last_1" else 16)
    assert sum(tensor.numel() for tensor in tensors.values()) <= channels * 64 * 64
    from_file = {name: tensor.contiguous() for name, tensor in tensors.items()}
    restored = segmenter.restore_encoding(from_file, images, valid)
    ours, theirs = (getattr(one, "frozen", one).features for one in (restored, encoding))
    assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()
    assert torch.equal(segmenter.segment(restored, reference), segmenter.segment(encoding, reference))
    with pytest.raises(ValueError, match="the tensors hold no features"):
        segmenter.restore_encoding({"vectors": tensors["features"]}, images, valid)


def test_kinds_tell_what_was_computed():
    sam = pocket_sam(256)

    def kind(method, **config):
        return BUILD[method](sam, ViRefSAMConfig(**config)).encoding_kind()

    assert kind("training_free") == kind("fitted_stock") == kind("virefsam") == kind("fitted")
    assert kind("virefsam", adapted_blocks="none") != kind("virefsam")
    assert kind("fitted", adapted_blocks="none") == kind("virefsam", adapted_blocks="none")
