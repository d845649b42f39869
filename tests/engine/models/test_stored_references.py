"""Descriptions of both methods survive being stored, bit by bit."""

import pytest
import torch

from refsam_qgis.engine.models.prototypes import Prototypes
from refsam_qgis.engine.models.training_free import CalibratedPrototypes, TrainingFreeSegmenter
from refsam_qgis.engine.models.virefsam import ViRefSAMSegmenter
from refsam_qgis.engine.references.descriptions import PortableReferences

PROTOTYPES = Prototypes(
    torch.randn(1, 11, 256, generator=torch.Generator().manual_seed(0)) / 3, torch.arange(11)[None] % 3 > 0, 2
)


@pytest.mark.parametrize("method", ["virefsam", "training_free"])
def test_descriptions_survive_being_stored(model, sam, method):
    segmenter = ViRefSAMSegmenter(model) if method == "virefsam" else TrainingFreeSegmenter(sam)
    reference = PROTOTYPES if method == "virefsam" else CalibratedPrototypes(PROTOTYPES, 0.1)
    assert isinstance(segmenter, PortableReferences)
    tensors = segmenter.dump_reference(reference)
    assert all(tensor.device.type == "cpu" for tensor in tensors.values())
    restored = segmenter.restore_reference(tensors)
    prototypes = restored if method == "virefsam" else restored.prototypes
    assert torch.equal(prototypes.vectors, PROTOTYPES.vectors) and torch.equal(prototypes.valid, PROTOTYPES.valid)
    assert prototypes.shots == 2 and (method == "virefsam" or restored.threshold == 0.1)
    for foreign in ({}, {"vectors": PROTOTYPES.vectors}):
        with pytest.raises(ValueError, match="the tensors"):
            segmenter.restore_reference(foreign)
