"""What holds for every algorithm of the provider."""

import pytest
from qgis.core import (
    QgsApplication,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelOutput,
    QgsProcessingProvider,
)

from refsam_qgis import provider as provider_module
from refsam_qgis.algorithms.base import GROUPS
from refsam_qgis.algorithms.segment_everything import SegmentEverything
from refsam_qgis.plugin import RefSAMPlugin
from refsam_qgis.provider import ALGORITHMS

NAMES = {
    "segmentbyreference", "segmentfolder", "buildreferenceset", "segmentwithprompts", "segmenteverything", "evaluate",
    "trainadapters", "enginestatus",
}  # fmt: skip


@pytest.fixture(params=[cls().name() for cls in ALGORITHMS])
def algorithm(provider, request):
    return provider.algorithm(request.param).create()


def test_the_algorithms_are_those_of_the_contract(provider):
    assert {a.name() for a in provider.algorithms() if a.group() != "Examples"} == NAMES


def test_every_parameter_is_explained(algorithm):
    assert [p.name() for p in algorithm.parameterDefinitions() if not p.help()] == []


def test_every_algorithm_is_explained(algorithm):
    assert algorithm.group() and algorithm.groupId() in GROUPS
    assert algorithm.tags() and algorithm.shortDescription()
    first_run = [p for p in algorithm.parameterDefinitions() if not p.flags() & p.Flag.FlagAdvanced]
    assert all(p.help() in algorithm.shortHelpString() for p in first_run)


def test_enums_are_static_strings(algorithm):
    enums = [p for p in algorithm.parameterDefinitions() if p.type() == "enum"]
    assert all(p.usesStaticStrings() for p in enums)


def test_runs_in_the_background_and_in_batches(algorithm):
    assert not algorithm.flags() & algorithm.Flag.FlagNoThreading
    assert algorithm.flags() & algorithm.Flag.FlagCanCancel
    assert algorithm.flags() & algorithm.Flag.FlagSupportsBatch


def test_is_listed_and_explains_when_the_engine_is_missing(algorithm, monkeypatch, tmp_path):
    monkeypatch.delenv("REFSAM_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path))
    possible, message = algorithm.canExecute()
    if algorithm.name() == "enginestatus":  # it is asked what is missing
        assert possible
    else:
        assert not possible and "install_engine.py" in message and str(tmp_path) in message


def test_the_provider_has_name_and_icon(provider):
    assert provider.name() == "RefSAM" and not provider.icon().isNull()


@pytest.fixture
def examples(monkeypatch, tmp_path):
    """A folder with a file that is no model."""
    monkeypatch.setattr(provider_module, "EXAMPLES", tmp_path)
    (tmp_path / "damaged.model3").write_text("no model")
    return tmp_path


def write_model(folder, *algorithms):
    """Write a model of unconnected steps, each of which gives its OUTPUT."""
    model = QgsProcessingModelAlgorithm("Chain", "Examples")
    for algorithm in algorithms:
        step = QgsProcessingModelChildAlgorithm(algorithm)
        output = QgsProcessingModelOutput(algorithm, algorithm)
        output.setChildOutputName("OUTPUT")
        step.setModelOutputs({algorithm: output})
        model.addChildAlgorithm(step)
    assert model.toFile(str(folder / "chain.model3"))


def test_models_in_the_folder_of_examples_are_offered(examples, provider):
    write_model(examples)
    provider.refreshAlgorithms()
    assert {a.name() for a in provider.algorithms() if a.group() == "Examples"} == {"Chain"}


class Later(QgsProcessingProvider):
    """A provider of one algorithm."""

    def id(self):
        return "later"

    def name(self):
        return "Later"

    def loadAlgorithms(self):
        self.addAlgorithm(SegmentEverything())


@pytest.fixture
def chain(examples, qgis_app):
    """A model of steps from two providers, written while both are there; none is afterwards."""
    registry = QgsApplication.processingRegistry()
    plugin, later = RefSAMPlugin(None), Later()
    plugin.initProcessing()
    registry.addProvider(later)
    write_model(examples, "refsam:segmentbyreference", "later:segmenteverything")
    plugin.unload()
    registry.removeProvider(later)


def test_examples_know_the_outputs_of_algorithms_that_come_later(chain, provider):
    registry = QgsApplication.processingRegistry()

    def outputs():
        model = registry.algorithmById("refsam:Chain")
        return sorted(output.description() for output in model.outputDefinitions())

    assert outputs() == ["refsam:segmentbyreference"]
    registry.addProvider(Later())
    assert outputs() == ["later:segmenteverything", "refsam:segmentbyreference"]
    registry.removeProvider("later")


def test_fields_are_those_of_vector_layers(provider):
    """QGIS 3.22 crashes when it opens a dialog whose field parameter has a raster as its parent."""
    parents = {
        (algorithm.name(), parameter.name()): algorithm.parameterDefinition(parameter.parentLayerParameterName())
        for algorithm in provider.algorithms()
        for parameter in algorithm.parameterDefinitions()
        if parameter.type() == "field"
    }
    assert parents
    assert {parent.type() for parent in parents.values()} == {"source"}, parents
