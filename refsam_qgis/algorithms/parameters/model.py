"""Which network runs, with which weights, where."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingParameterFile

from ...engine.job import DEVICES, METHODS, MODELS, ModelOptions
from ..base import RefSAMAlgorithm
from ..values import Values

MODEL = "MODEL"
CHECKPOINT = "CHECKPOINT"
ADAPTERS = "ADAPTERS"
METHOD = "METHOD"
DEVICE = "DEVICE"


def declare(algorithm: RefSAMAlgorithm, references: bool = True) -> None:
    """Declare the parameters; `ADAPTERS` and `METHOD` only for algorithms that work by `references`."""
    tr = algorithm.tr
    algorithm.add_choice(
        MODEL, tr("Model"), MODELS, tr("'compact' comes with RefSAM; the others need their SAM checkpoint.")
    )
    algorithm.add(
        QgsProcessingParameterFile(
            CHECKPOINT, tr("SAM checkpoint"), optional=True, fileFilter=tr("Weights (*.pth *.safetensors)")
        ),
        tr("The weights of the model, in the form published with Segment Anything."),
        advanced=True,
    )
    if references:
        algorithm.add(
            QgsProcessingParameterFile(
                ADAPTERS, tr("Adapters"), optional=True, fileFilter=tr("Adapters (*.safetensors)")
            ),
            tr("Trained adapters for the model. Without them 'compact' uses its own, the others none."),
            advanced=True,
        )
        algorithm.add_choice(
            METHOD,
            tr("Method"),
            METHODS,
            tr(
                "'auto' is 'fitted': a class map fitted to the examples guides SAM, with adapters where there are "
                "some. 'virefsam' goes by prototypes, as its paper does, and needs adapters. 'training_free' goes by "
                "prototypes and the SAM checkpoint alone."
            ),
        )
    algorithm.add_choice(DEVICE, tr("Device"), DEVICES, tr("Where the model runs; 'auto' takes the fastest."))


def problem(values: Values) -> str:
    """Return why the model cannot be loaded; empty when nothing is known against it."""
    model = values.choice(MODEL)
    if model != "compact" and not values.file(CHECKPOINT):
        sentence = "Model '{}' needs its SAM checkpoint; choose the file, or the model 'compact'."
        return values.algorithm.tr(sentence).format(model)
    return ""


def read(values: Values, references: bool = True) -> ModelOptions:
    """Return the options; `references` as in `declare`."""
    chosen: dict[str, Any] = {}
    if references:
        chosen = {"adapters": values.file(ADAPTERS), "method": values.choice(METHOD)}
    return ModelOptions(
        model=values.choice(MODEL), checkpoint=values.file(CHECKPOINT), device=values.choice(DEVICE), **chosen
    )
