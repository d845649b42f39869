import subprocess
import sys

import pytest

FIRST_ROOTS = """
import torch
from refsam_qgis.engine.models.sam import build_sam

torch.set_num_threads(max(2, torch.get_num_threads()))
with torch.inference_mode():
    build_sam("compact")
    tokens = torch.randn(4096, 192)
    torch.nn.functional.gelu(torch.nn.Linear(192, 576)(tokens))
    torch.softmax(torch.randn(6, 256, 4096), -1)
    grid = torch.randn(1, 64, 64, 256).permute(0, 3, 1, 2)
    variance = (grid - grid.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True)
    print(float((variance.sqrt().double() - variance.double().sqrt()).abs().max()))
"""


@pytest.mark.parametrize("attempt", range(3))
def test_the_first_roots_of_a_process_are_right(attempt):
    """What segment_anything's normalisations compute; without the precaution, wrong where the fault is, mostly."""
    done = subprocess.run([sys.executable, "-c", FIRST_ROOTS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1e-6
