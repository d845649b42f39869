"""A compact SAM with random weights large enough that every part matters."""

import pytest
import torch

from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.virefsam import ViRefSAM


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Give every weight a random value, those included that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = 0.02 if parameter.ndim > 1 else 0.1
        centre = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
        with torch.no_grad():
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="session")
def sam():
    torch.manual_seed(0)
    model = build_sam("compact")
    randomise(model, 0)
    return model.requires_grad_(False)


@pytest.fixture
def model(sam):
    torch.manual_seed(1)
    return ViRefSAM(sam).eval()


@pytest.fixture
def trained(model):
    """A model whose gates and adapters are open."""
    randomise(model.vcp, 2)
    randomise(model.dta, 3)
    return model
