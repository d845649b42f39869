"""``refsam:trainadapters``: teach a model classes of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qgis.core import (
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
)

from ..engine.earlier_report import card_path
from ..engine.job import TrainJob
from ..host.qgis_compat import INTEGER, RASTER, VECTOR_POLYGON
from .base import RefSAMAlgorithm
from .engine_vectors import name_in_copy
from .files import not_a_file, warn_if_temporary
from .parameters import model, raster
from .values import Values


class TrainAdapters(RefSAMAlgorithm):
    """Turns rasters with class polygons into adapters for a model."""

    GROUP = "learning"

    RASTERS = "RASTERS"
    LABELS = "LABELS"
    CLASS_FIELD = "CLASS_FIELD"
    GENERATED = "GENERATED"
    STEPS = "STEPS"
    BATCH = "BATCH"
    SEED = "SEED"
    VALIDATION = "VALIDATION"
    PATIENCE = "PATIENCE"
    RESUME = "RESUME"
    ADAPTERS_OUT = "ADAPTERS_OUT"
    CURVE = "CURVE"
    VALIDATION_IOU = "VALIDATION_IOU"
    STEPS_DONE = "STEPS_DONE"
    DEVICE_USED = "DEVICE_USED"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "trainadapters"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Train adapters")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        words = "training,fine-tuning,learning,episodes,few-shot,sam,virefsam,weights,validation,loss"
        return self.tr(words).split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Trains a model's adapters on rasters on which the classes are outlined.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Adapts a model to imagery of one's own, from rasters on which every object of one or more classes is "
            "outlined. The model learns to find a class from a few examples of it, so that it gets better at classes "
            "like these and needs no training for a new one. The Segment Anything Model itself stays as it is; what "
            "is written is a small file of adapters, for the algorithms that segment by reference.\n\n"
            "Part of the scenes is kept for validation, and training stops when it gets no better there. A run that "
            "was cancelled goes on where it stopped when it is started again with the same output. Training is slow "
            "without a graphics processor.\n\n"
            "The computation runs in RefSAM's own Python environment on this machine; nothing leaves it."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add(
            QgsProcessingParameterMultipleLayers(self.RASTERS, self.tr("Rasters"), RASTER),
            self.tr("Rasters on which every object of the classes is outlined."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(self.LABELS, self.tr("Class polygons"), [VECTOR_POLYGON]),
            self.tr("The outlines of all objects, over all the rasters."),
        )
        self.add(
            QgsProcessingParameterField(
                self.CLASS_FIELD, self.tr("Class field"), parentLayerParameterName=self.LABELS, optional=True
            ),
            self.tr("Attribute that holds the class of each polygon. Without it all are of one class."),
        )
        self._declare_model()
        raster.declare_reading(self, None)
        self._declare_training()
        self._declare_outputs()

    def _declare_model(self) -> None:
        model.declare(self, references=False)
        self.add(
            QgsProcessingParameterFile(
                model.ADAPTERS,
                self.tr("Adapters to start from"),
                optional=True,
                fileFilter=self.tr("Adapters (*.safetensors)"),
            ),
            self.tr(
                "Trained adapters for the model, which are trained further. Without them 'compact' goes on from its "
                "own, the others start anew."
            ),
            advanced=True,
        )

    def _declare_training(self) -> None:
        self.add(
            QgsProcessingParameterBoolean(self.GENERATED, self.tr("Mix in generated scenes"), TrainJob.generated),
            self.tr("Drawn scenes of other classes keep the model from forgetting what is not in the rasters."),
            advanced=True,
        )
        self.add_number(
            self.STEPS,
            self.tr("Steps"),
            TrainJob.steps,
            self.tr("Training takes at most so many steps."),
            minimum=1,
            kind=INTEGER,
            advanced=False,
        )
        self.add_number(
            self.BATCH,
            self.tr("Episodes per step"),
            TrainJob.batch,
            self.tr("More give a steadier course and take more memory."),
            minimum=1,
            maximum=256,
            kind=INTEGER,
        )
        self.add_number(
            self.SEED,
            self.tr("Seed"),
            TrainJob.seed,
            self.tr("Of every random draw: the same seed gives the same training."),
            kind=INTEGER,
        )
        self.add_number(
            self.VALIDATION,
            self.tr("Share for validation"),
            TrainJob.validation,
            self.tr("Part of the scenes (0 to 0.9) that is not learned from but measured on. A lone raster is parted."),
            maximum=0.9,
        )
        self.add_number(
            self.PATIENCE,
            self.tr("Patience"),
            TrainJob.patience,
            self.tr("Training stops when validation has not become better so many times; 0 never stops early."),
            kind=INTEGER,
        )
        self.add(
            QgsProcessingParameterBoolean(self.RESUME, self.tr("Go on from an unfinished run"), TrainJob.resume),
            self.tr("Whether training goes on where an earlier run with the same output stopped."),
            advanced=True,
        )

    def _declare_outputs(self) -> None:
        self.add(
            QgsProcessingParameterFileDestination(
                self.ADAPTERS_OUT, self.tr("Trained adapters"), self.tr("Adapters (*.safetensors)")
            ),
            self.tr(
                "The file to write; a card that tells how they were trained goes beside it. A cancelled run goes on "
                "only from a file that is not temporary."
            ),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.CURVE, self.tr("Curve"), self.tr("PNG images (*.png)"), optional=True, createByDefault=False
            ),
            self.tr("An image of how the loss and the validation went."),
        )
        self.addOutput(QgsProcessingOutputNumber(self.VALIDATION_IOU, self.tr("Mean IoU in validation")))
        self.addOutput(QgsProcessingOutputNumber(self.STEPS_DONE, self.tr("Steps done")))
        self.addOutput(QgsProcessingOutputString(self.DEVICE_USED, self.tr("Device used")))

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        layers, labels = values.rasters(self.RASTERS), values.source(self.LABELS)
        if not layers:
            return self.tr("There are no rasters to learn from; choose at least one.")
        if labels is not None and labels.featureCount() == 0:
            sentence = self.tr("Layer '{}' has no features; outline the objects of the rasters in it.")
            return sentence.format(labels.sourceName())
        card_path(str(values.output_file(self.ADAPTERS_OUT)))  # raises where it would replace something
        return (
            next(filter(None, map(not_a_file, layers)), "")
            or raster.problem(values, min(layer.bandCount() for layer in layers))
            or model.problem(values)
        )

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layers."""
        self._rasters = tuple(map(self.engine_rasters.path, values.rasters(self.RASTERS)))
        self._labels = values.source(self.LABELS)

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job and hand over its outputs."""
        output, curve = values.output_file(self.ADAPTERS_OUT), values.output_file(self.CURVE)
        warn_if_temporary(self.ADAPTERS_OUT, str(output), feedback)
        class_field = values.text(self.CLASS_FIELD)
        job = TrainJob(
            output=str(output),
            rasters=self._rasters,
            labels=self.engine_vectors.copy(self._labels, [class_field], values, feedback, "class polygon"),
            class_field=name_in_copy(class_field) or None,
            generated=values.flag(self.GENERATED),
            bands=values.bands(raster.BANDS),
            stretch=values.choice(raster.STRETCH),
            model=replace(model.read(values, references=False), adapters=values.file(model.ADAPTERS)),
            steps=values.integer(self.STEPS),
            batch=values.integer(self.BATCH),
            seed=values.integer(self.SEED),
            resume=values.flag(self.RESUME),
            validation=values.number(self.VALIDATION),
            patience=values.integer(self.PATIENCE),
            curve=curve,
        )
        result = self.run_in_engine(job, feedback)
        return {
            self.ADAPTERS_OUT: output,
            **({self.CURVE: curve} if curve else {}),
            self.VALIDATION_IOU: result["best_miou"],
            self.STEPS_DONE: result["steps"],
            self.DEVICE_USED: result["device"],
        }
