"""Builds the examples for the model designer through QGIS's own API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import canonicalize

from qgis.core import (
    QgsApplication,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)
from qgis.core import QgsProcessingModelChildParameterSource as Source
from qgis.PyQt.QtCore import QPointF, QSizeF

from refsam_qgis.engine.job import FolderJob
from refsam_qgis.host.qgis_compat import DOUBLE, FOLDER, RASTER, VECTOR_POLYGON, VECTOR_WITH_GEOMETRY

FOLDER_OF_MODELS = Path(__file__).resolve().parents[1] / "refsam_qgis" / "model_examples"
GROUP = "Examples"
COLUMN, ROW = 300.0, 110.0
"""Distance of the boxes of a model in the designer."""
BOX = QSizeF(240, 46)

OPTIONAL = QgsProcessingParameterDefinition.Flag.FlagOptional
Sources = Mapping[str, Source]
Place = tuple[float, float]
"""Column and row of a box."""


class Draft:
    """A model that is being put together on a lattice of columns and rows.

    Args:
        name: Name in the toolbox.
        about: What the model does.
    """

    def __init__(self, name: str, about: str) -> None:
        self.model = QgsProcessingModelAlgorithm(name, GROUP)
        self._help = {"ALG_DESC": about, "ALG_CREATOR": "RefSAM"}
        self._order: list[str] = []

    def input(self, definition: QgsProcessingParameterDefinition, place: Place, help_text: str) -> None:
        """Add an input; its help is shown in the dialog of the model, too."""
        definition.setHelp(help_text)
        component = QgsProcessingModelParameter(definition.name())
        _place(component, place)
        component.setDescription(definition.description())
        self.model.addModelParameter(definition, component)
        self._help[definition.name()] = help_text
        self._order.append(definition.name())

    def step(
        self,
        child_id: str,
        algorithm: str,
        about: str,
        place: Place,
        sources: Sources,
        outputs: Mapping[str, tuple[str, Place]] | None = None,
    ) -> None:
        """Add an algorithm.

        Args:
            child_id: Its id in the model.
            algorithm: Its id in QGIS.
            about: What is written on its box.
            place: Of its box.
            sources: Where its parameters come from; the others are set to their defaults, as the designer does.
            outputs: Its outputs that are the model's, by name: what is written on their boxes, and their place.
        """
        child = QgsProcessingModelChildAlgorithm(algorithm)
        child.setChildId(child_id)
        child.setDescription(about)
        _place(child, place)
        for name, source in sources.items():
            child.addParameterSources(name, [source])
        for parameter in child.algorithm().parameterDefinitions():
            if parameter.name() not in sources and not (parameter.isDestination() or parameter.flags() & OPTIONAL):
                child.addParameterSources(parameter.name(), [Source.fromStaticValue(parameter.defaultValue())])
        results = {}
        for name, (label, place_of_output) in (outputs or {}).items():
            output = QgsProcessingModelOutput(label, label)
            output.setChildId(child_id)
            output.setChildOutputName(name)
            _place(output, place_of_output)
            results[label] = output
        child.setModelOutputs(results)
        self.model.addChildAlgorithm(child)

    def finish(self) -> QgsProcessingModelAlgorithm:
        """Return the whole model."""
        self.model.setParameterOrder(self._order)
        self.model.setHelpContent(self._help)
        self.model.updateDestinationParameters()
        return self.model


def _place(component: Any, place: Place) -> None:
    column, row = place
    component.setPosition(QPointF(COLUMN * (column + 0.5), ROW * (row + 0.5)))
    component.setSize(BOX)


def build_set_segment_summarise() -> QgsProcessingModelAlgorithm:
    """Examples → reference set → polygons → those that are good and large enough → sums per zone."""
    draft = Draft(
        "Find objects and summarise by zone",
        "Builds a reference set from marked examples, finds the same objects in another raster, keeps those with a "
        "high enough score and area, and counts them in each zone.",
    )
    _declare_examples(draft)
    draft.input(
        QgsProcessingParameterRasterLayer("raster", "Raster to search"), (1, 2.7), "Where the objects are found."
    )
    draft.input(
        _number("min_score", "Lowest score", 0.5, 1.0), (2, 3.2), "Objects with a lower score (0 to 1) are left out."
    )
    draft.input(_number("min_area", "Smallest area (m²)", 0.0), (2, 4.2), "Smaller objects are left out.")
    draft.input(
        QgsProcessingParameterFeatureSource("zones", "Zones", [VECTOR_POLYGON]),
        (2, 6.2),
        "Polygons in which the objects are counted and their areas added up.",
    )
    draft.step(
        "build", "refsam:buildreferenceset", "Build reference set", (1, 1),
        {
            "RASTERS": Source.fromModelParameter("example_raster"),
            "REFERENCES": Source.fromModelParameter("examples"),
            "CLASS_FIELD": Source.fromModelParameter("class_field"),
        },
    )  # fmt: skip
    draft.step(
        "segment", "refsam:segmentbyreference", "Segment by reference", (2, 1.6),
        {
            "INPUT": Source.fromModelParameter("raster"),
            "REFERENCE_SET": Source.fromChildOutput("build", "OUTPUT"),
        },
    )  # fmt: skip
    draft.step(
        "keep", "native:extractbyexpression", "Keep good and large ones", (3, 2.2),
        {
            "INPUT": Source.fromChildOutput("segment", "OUTPUT"),
            # The designer draws what an expression depends on, which it does not for a text with expressions in it.
            # qgis_process leaves parameters that were not given without a value.
            "EXPRESSION": Source.fromExpression(
                """'"score" >= ' || coalesce(@min_score, 0.5) || ' AND "area_m2" >= ' || coalesce(@min_area, 0)"""
            ),
        },
        {"OUTPUT": ("Objects", (4, 2.2))},
    )  # fmt: skip
    draft.step(
        "point", "native:pointonsurface", "A point in each object", (3, 3.6),
        {"INPUT": Source.fromChildOutput("keep", "OUTPUT")},
    )  # fmt: skip
    draft.step(
        "index", "native:createspatialindex", "Index the points", (3, 4.9),
        {"INPUT": Source.fromChildOutput("point", "OUTPUT")},
    )  # fmt: skip
    draft.step(
        "count", "native:countpointsinpolygon", "Count the objects", (3, 6.2),
        {
            "POLYGONS": Source.fromModelParameter("zones"),
            "POINTS": Source.fromChildOutput("index", "OUTPUT"),
            "FIELD": Source.fromStaticValue("objects"),
        },
    )  # fmt: skip
    draft.step(
        "area", "native:countpointsinpolygon", "Add up their areas", (4, 5.4),
        {
            "POLYGONS": Source.fromChildOutput("count", "OUTPUT"),
            "POINTS": Source.fromChildOutput("index", "OUTPUT"),
            "WEIGHT": Source.fromStaticValue("area_m2"),
            "FIELD": Source.fromStaticValue("objects_m2"),
        },
        {"OUTPUT": ("Zones with objects", (4, 6.7))},
    )  # fmt: skip
    return draft.finish()


def segment_folder_dissolve() -> QgsProcessingModelAlgorithm:
    """Folder → polygons of all rasters in one layer → one multi-polygon per class."""
    draft = Draft(
        "Segment folder and dissolve by class",
        "Finds the classes of a reference set in all rasters of a folder, puts the polygons of all rasters into one "
        "layer and dissolves them into one feature per class.",
    )
    draft.input(
        QgsProcessingParameterFile("folder", "Folder to search", behavior=FOLDER), (0, 0), "Folder with the rasters."
    )
    draft.input(
        QgsProcessingParameterString("pattern", "File names", FolderJob.pattern),
        (0, 1),
        "Which files of it are searched.",
    )
    draft.input(
        QgsProcessingParameterFile("reference_set", "Reference set", fileFilter="Reference sets (*.refset)"),
        (0, 2),
        "A file made by 'Build reference set'.",
    )
    draft.step(
        "segment", "refsam:segmentfolder", "Segment folder", (1, 1),
        {
            "INPUT_FOLDER": Source.fromModelParameter("folder"),
            "PATTERN": Source.fromModelParameter("pattern"),
            "REFERENCE_SET": Source.fromModelParameter("reference_set"),
        },
        {
            "OUTPUT_FOLDER": ("Results of each raster", (2, 0)),
            "OUTPUT": ("All polygons", (2, 1)),
            "FAILURES": ("Failures", (2, 2)),
        },
    )  # fmt: skip
    draft.step(
        "dissolve", "native:dissolve", "Dissolve by class", (1, 3.2),
        {
            "INPUT": Source.fromChildOutput("segment", "OUTPUT"),
            "FIELD": Source.fromStaticValue(["class"]),
            "SEPARATE_DISJOINT": Source.fromStaticValue(False),  # asked for since QGIS 3.26
        },
        {"OUTPUT": ("Classes", (2, 3.2))},
    )  # fmt: skip
    return draft.finish()


def segment_evaluate() -> QgsProcessingModelAlgorithm:
    """Examples → polygons → accuracy against the truth."""
    draft = Draft(
        "Segment and evaluate",
        "Finds the objects of marked examples in a raster and measures how well they agree with the truth.",
    )
    _declare_examples(draft)
    draft.input(QgsProcessingParameterRasterLayer("raster", "Raster to search"), (0, 3), "Where the objects are found.")
    draft.input(
        QgsProcessingParameterMapLayer("truth", "Truth", types=[VECTOR_POLYGON, RASTER]),
        (0, 4),
        "What is really there: polygons, or a raster of class numbers.",
    )
    draft.input(
        QgsProcessingParameterString("truth_field", "Class field of the truth", optional=True),
        (0, 5),
        "Name of the attribute of the truth that holds the class. Without it all are of one class.",
    )
    draft.step(
        "segment", "refsam:segmentbyreference", "Segment by reference", (1, 1.5),
        {
            "INPUT": Source.fromModelParameter("raster"),
            "REFERENCE_RASTER": Source.fromModelParameter("example_raster"),
            "REFERENCES": Source.fromModelParameter("examples"),
            "CLASS_FIELD": Source.fromModelParameter("class_field"),
        },
        {"OUTPUT": ("Objects", (2, 1)), "MASK": ("Mask", (2, 2))},
    )  # fmt: skip
    draft.step(
        "evaluate", "refsam:evaluate", "Evaluate against truth", (1, 4.5),
        {
            "RESULT": Source.fromChildOutput("segment", "OUTPUT"),
            "RESULT_FIELD": Source.fromStaticValue("class"),
            "TRUTH": Source.fromModelParameter("truth"),
            "TRUTH_FIELD": Source.fromModelParameter("truth_field"),
        },
        {"OUTPUT": ("Accuracy", (2, 4)), "PICTURE": ("Confusion", (2, 5))},
    )  # fmt: skip
    return draft.finish()


def _declare_examples(draft: Draft) -> None:
    draft.input(
        QgsProcessingParameterRasterLayer("example_raster", "Raster of the examples"),
        (0, 0),
        "The raster that the examples were drawn on.",
    )
    draft.input(
        QgsProcessingParameterFeatureSource("examples", "Examples", [VECTOR_WITH_GEOMETRY]),
        (0, 1),
        "Polygons around examples, lines drawn over them (scribbles), or points on them.",
    )
    draft.input(
        QgsProcessingParameterField("class_field", "Class field", "", "examples", optional=True),
        (0, 2),
        "Attribute that holds the class of each example. Without it all are of one class.",
    )


def _number(name: str, label: str, default: float, maximum: float | None = None) -> QgsProcessingParameterNumber:
    parameter = QgsProcessingParameterNumber(name, label, DOUBLE, default, minValue=0)
    if maximum is not None:
        parameter.setMaximum(maximum)
    return parameter


MODELS: dict[str, Callable[[], QgsProcessingModelAlgorithm]] = {
    "find_objects_and_summarise.model3": build_set_segment_summarise,
    "segment_folder_and_dissolve.model3": segment_folder_dissolve,
    "segment_and_evaluate.model3": segment_evaluate,
}
"""What makes the model of each file."""


def write(model: QgsProcessingModelAlgorithm, path: Path) -> None:
    """Write a model with sorted XML attributes, which Qt writes in another order each time.

    Raises:
        OSError: When it cannot be written.
    """
    if not model.toFile(str(path)):
        raise OSError(f"'{path}' cannot be written.")
    path.write_text(canonicalize(from_file=str(path)) + "\n", encoding="utf-8")


def main() -> None:
    """Write all models."""
    from qgis.analysis import QgsNativeAlgorithms

    from refsam_qgis.provider import RefSAMProvider

    application = QgsApplication([], False)
    application.initQgis()
    for provider in (QgsNativeAlgorithms(), RefSAMProvider()):
        application.processingRegistry().addProvider(provider)
    FOLDER_OF_MODELS.mkdir(exist_ok=True)
    for name, build in MODELS.items():
        model = build()
        valid, issues = model.validate()
        if not valid:
            raise SystemExit(f"{name}: {'; '.join(issues)}")
        write(model, FOLDER_OF_MODELS / name)
        print(FOLDER_OF_MODELS / name)
    application.exitQgis()


if __name__ == "__main__":
    main()
