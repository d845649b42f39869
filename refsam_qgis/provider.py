"""The Processing provider ``refsam``."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication, QgsProcessingModelAlgorithm, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.build_reference_set import BuildReferenceSet
from .algorithms.engine_status import EngineStatus
from .algorithms.evaluate import Evaluate
from .algorithms.files import VECTOR_FORMATS
from .algorithms.segment_by_reference import SegmentByReference
from .algorithms.segment_everything import SegmentEverything
from .algorithms.segment_folder import SegmentFolder
from .algorithms.segment_with_prompts import SegmentWithPrompts
from .algorithms.train_adapters import TrainAdapters

ICON = Path(__file__).parent / "icons" / "refsam.svg"
EXAMPLES = Path(__file__).parent / "model_examples"
"""Folder of the ``.model3`` files that are offered as algorithms."""
ALGORITHMS = (
    SegmentByReference, SegmentFolder, BuildReferenceSet, SegmentWithPrompts, SegmentEverything, Evaluate,
    TrainAdapters, EngineStatus,
)  # fmt: skip


class RefSAMProvider(QgsProcessingProvider):
    """Lists RefSAM's algorithms, whether or not the engine is installed, and examples of models made of them."""

    def __init__(self) -> None:
        super().__init__()
        self._awaited: set[str] = set()
        QgsApplication.processingRegistry().providerAdded.connect(self._complete_examples)

    def id(self) -> str:
        """Public id; models and scripts store it."""
        return "refsam"

    def name(self) -> str:
        """Name in the toolbox."""
        return "RefSAM"

    def icon(self) -> QIcon:
        """Icon in the toolbox."""
        return QIcon(str(ICON))

    def svgIconPath(self) -> str:
        """The same, as the model designer draws it."""
        return str(ICON)

    def loadAlgorithms(self) -> None:
        """Add every algorithm, and the examples made of them."""
        self._awaited = set()
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())
        for path in sorted(EXAMPLES.glob("*.model3")):
            model = QgsProcessingModelAlgorithm()
            if model.fromFile(str(path)):
                self._awaited |= _missing_providers(model)
                self.addAlgorithm(model)

    def _complete_examples(self, provider_id: str) -> None:
        """Read the examples again when a provider appears, maybe this one, without which their outputs were unknown."""
        if provider_id in self._awaited:
            self.refreshAlgorithms()

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """Rasters are written as GeoTIFF alone."""
        return ["tif"]

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        """Those of the formats that this QGIS can write; the first is the default."""
        written = set(super().supportedOutputVectorLayerExtensions())
        return [ending for ending in VECTOR_FORMATS if ending in written]

    def defaultRasterFileExtension(self) -> str:
        """Extension of temporary rasters."""
        return "tif"


def _missing_providers(model: QgsProcessingModelAlgorithm) -> set[str]:
    """Return the ids of the providers of those steps of a model that are not there yet."""
    steps = model.childAlgorithms().values()
    return {step.algorithmId().split(":")[0] for step in steps if step.algorithm() is None}
