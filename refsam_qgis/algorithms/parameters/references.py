"""Where the examples are: marks on a raster, or a reference set."""

from __future__ import annotations

from dataclasses import dataclass

from qgis.core import (
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterLayer,
)

from ...engine.job import ANNOTATIONS, ReferenceSource
from ...host.qgis_compat import VECTOR_WITH_GEOMETRY
from ..base import RefSAMAlgorithm
from ..engine_vectors import name_in_copy
from ..files import not_a_file
from ..values import Values

REFERENCES = "REFERENCES"
CLASS_FIELD = "CLASS_FIELD"
REFERENCE_RASTER = "REFERENCE_RASTER"
ANNOTATION = "ANNOTATION"
NEGATIVES = "NEGATIVES"
REFERENCE_SET = "REFERENCE_SET"

REFSET_FILTER = "Reference sets (*.refset)"


def declare_marks(algorithm: RefSAMAlgorithm, optional: bool) -> None:
    """Declare `REFERENCES`, `CLASS_FIELD`, `ANNOTATION` and `NEGATIVES`."""
    tr = algorithm.tr
    algorithm.add(
        QgsProcessingParameterFeatureSource(REFERENCES, tr("Examples"), [VECTOR_WITH_GEOMETRY], optional=optional),
        tr("Polygons around examples, lines drawn over them (scribbles), or points on them."),
    )
    algorithm.add(
        QgsProcessingParameterField(CLASS_FIELD, tr("Class field"), parentLayerParameterName=REFERENCES, optional=True),
        tr("Attribute that holds the class of each example. Without it all are of one class."),
    )
    algorithm.add_choice(
        ANNOTATION,
        tr("Annotation"),
        ANNOTATIONS,
        tr(
            "'complete': every object of the class around the examples is marked. "
            "'partial': there may be more of them nearby that are not marked."
        ),
        advanced=False,
    )
    algorithm.add(
        QgsProcessingParameterFeatureSource(NEGATIVES, tr("Counter-examples"), [VECTOR_WITH_GEOMETRY], optional=True),
        tr("Marks, on the raster of the examples, on what looks like a class but is not to be found."),
        advanced=True,
    )


def declare(algorithm: RefSAMAlgorithm, without_raster: str) -> None:
    """Declare all parameters.

    Args:
        algorithm: That gets them.
        without_raster: What holds without `REFERENCE_RASTER`, a translated sentence.
    """
    tr = algorithm.tr
    declare_marks(algorithm, optional=True)
    algorithm.add(
        QgsProcessingParameterRasterLayer(REFERENCE_RASTER, tr("Raster of the examples"), optional=True),
        f"{tr('The raster the examples were drawn on. Bands that are chosen are its too, if it has as many.')} "
        f"{without_raster}",
    )
    algorithm.add(
        QgsProcessingParameterFile(REFERENCE_SET, tr("Reference set"), optional=True, fileFilter=tr(REFSET_FILTER)),
        tr("A file made by 'Build reference set', instead of the examples and their raster."),
    )


def problem(values: Values, needs_raster: bool = False) -> str:
    """Return what is missing or too much; empty when the references are fit to be read.

    Args:
        values: Of the algorithm.
        needs_raster: Whether there is no other raster on which the examples could have been drawn.
    """
    tr = values.algorithm.tr
    given = {name for name in (REFERENCES, REFERENCE_RASTER, NEGATIVES) if values.parameters.get(name)}
    if values.file(REFERENCE_SET):
        if given:
            return tr(
                "A reference set is chosen, and {} besides; leave one of them empty, since the set holds all it needs."
            ).format(" and ".join(sorted(given)))
        return ""
    if REFERENCES not in given:
        return tr("There are no examples; choose a layer of marks, or a reference set.")
    if needs_raster and REFERENCE_RASTER not in given:
        return tr("The raster of the examples is missing; choose the one they were drawn on.")
    return not_a_file(values.optional_raster(REFERENCE_RASTER))


@dataclass(frozen=True)
class Marks:
    """Layers of marks, taken while in their thread.

    Attributes:
        references: The examples.
        class_field: Their attribute with the class; empty for none.
        annotation: ``complete`` or ``partial``.
        negatives: The counter-examples, or ``None``.
    """

    references: QgsProcessingFeatureSource
    class_field: str
    annotation: str
    negatives: QgsProcessingFeatureSource | None

    def export(self, raster: str | None, values: Values, feedback: QgsProcessingFeedback) -> ReferenceSource:
        """Copy the marks to where the engine reads them.

        Args:
            raster: The raster they were drawn on; ``None`` for the job's own input.
            values: Of the algorithm.
            feedback: Says when to stop.

        Raises:
            QgsProcessingException: When there are none, or they cannot be copied.
        """
        copy = values.algorithm.engine_vectors.copy
        path = copy(self.references, [self.class_field], values, feedback, "example")
        negatives = None
        if self.negatives is not None:
            # There may be none: the engine then says so, and goes on.
            negatives = copy(self.negatives, [], values, feedback, "counter-example", may_be_empty=True)
        return ReferenceSource(
            vector=path,
            raster=raster,
            class_field=name_in_copy(self.class_field) or None,
            annotation=self.annotation,
            negatives=negatives,
        )


@dataclass(frozen=True)
class References:
    """What `prepare` takes: marks with their raster, or the path of a reference set."""

    marks: Marks | None
    raster: str | None
    refset: str | None

    def export(self, values: Values, feedback: QgsProcessingFeedback) -> ReferenceSource:
        """Return the references as the job wants them; see `Marks.export`."""
        if self.marks is None:
            return ReferenceSource(refset=self.refset)
        return self.marks.export(self.raster, values, feedback)


def prepare_marks(values: Values) -> Marks | None:
    """Take the layers of marks while in their thread; ``None`` when there are none."""
    references = values.source(REFERENCES)
    if references is None:
        return None
    return Marks(references, values.text(CLASS_FIELD), values.choice(ANNOTATION), values.source(NEGATIVES))


def prepare(values: Values) -> References:
    """Take all that `declare` declared while in the layers' thread."""
    raster = values.optional_raster(REFERENCE_RASTER)
    path = None if raster is None else values.algorithm.engine_rasters.path(raster)
    return References(prepare_marks(values), path, values.file(REFERENCE_SET))
