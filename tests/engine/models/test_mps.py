"""What Apple's GPUs lack, as far as it shows on another machine."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from refsam_qgis.engine.models.cells import average_cells
from refsam_qgis.engine.models.fitted import FittedSegmenter
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.segmenter import FOREGROUND, Shots
from refsam_qgis.engine.models.training_free import TrainingFreeConfig, TrainingFreeSegmenter
from refsam_qgis.engine.models.virefsam import ViRefSAM


class Doubles(TorchDispatchMode):
    """Notes the operations that make float64 tensors, which MPS does not have."""

    def __init__(self):
        super().__init__()
        self.made = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64 and value.ndim:
                self.made.add(func.overloadpacket.__name__)
        return result


def test_no_tensor_is_float64_but_in_the_fit_which_runs_on_the_cpu():
    torch.manual_seed(0)
    sam = build_sam("compact")
    sam.image_encoder.blocks = sam.image_encoder.blocks[:1]
    images = torch.randint(0, 256, (1, 3, 100, 100), dtype=torch.uint8)
    masks = torch.zeros(1, 100, 100, dtype=torch.uint8)
    masks[:, 20:50, 30:60] = FOREGROUND
    shots = Shots(images, masks, torch.ones(1, 100, 100, dtype=torch.bool))
    segmenters = FittedSegmenter(ViRefSAM(sam)), TrainingFreeSegmenter(sam, TrainingFreeConfig(max_components=1))
    with Doubles() as doubles:
        for segmenter in segmenters:
            encoding = segmenter.encode(images, shots.valid)
            segmenter.segment(encoding, segmenter.describe(shots, [encoding]))
    assert doubles.made <= {"to", "linalg_solve"}  # `.cpu().double()` and what follows


class OnMps(torch.Tensor):
    """A tensor that says that it is on an Apple GPU until it is brought to the CPU, and pools as one there."""

    device = torch.device("mps")
    moved = False

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.adaptive_avg_pool2d and not args[0].moved:
            height, width = args[0].shape[-2:]
            if height % args[1][0] or width % args[1][1]:
                raise RuntimeError("Adaptive pool MPS: input sizes must be divisible by output sizes.")
        result = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(result, OnMps):
            result.moved = args[0].moved
        return result

    def cpu(self):
        own = self.clone()
        own.moved = True
        return own

    def to(self, device):
        assert self.moved and device == self.device
        return self


def test_unequal_cells_are_averaged_on_the_cpu():
    values = torch.rand(2, 1, 100, 96)
    for size in ((64, 64), (50, 32)):
        ours = average_cells(values.as_subclass(OnMps), size)
        assert ours.moved is (size == (64, 64))
        expected = torch.nn.functional.adaptive_avg_pool2d(values, size)
        torch.testing.assert_close(ours.as_subclass(torch.Tensor), expected)
