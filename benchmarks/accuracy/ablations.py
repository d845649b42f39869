"""What each part of ViRefSAM is worth: the model trained again without it, from the same weights, on the same episodes.

    python -m benchmarks.accuracy.ablations --data DATA/train/dubai

Every variant starts from the same SAM and, where it has them, the same random weights, takes the same steps, and is
measured on development sets only: generated scenes with classes that training never asks for, and one real scene and
one real class kept out of training. Finished variants are kept in the work folder and a stopped one goes on where it
was, so the command can be given again. It needs torch, numpy, Pillow, safetensors and segment_anything.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models.checkpoints import choose_device, load_sam
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.fitted import FittedReference, FittedSegmenter
from refsam_qgis.engine.models.fitted_prior import FittedPrior
from refsam_qgis.engine.models.pixel_features import FEATURES
from refsam_qgis.engine.models.prototypes import Prototypes
from refsam_qgis.engine.models.sam import CHANNELS, INPUT_SIZE
from refsam_qgis.engine.models.segmenter import FOREGROUND, ReferenceSegmenter
from refsam_qgis.engine.models.virefsam import ViRefSAM, ViRefSAMSegmenter
from refsam_qgis.engine.models.weight_files import checkpoint_path, digest
from refsam_qgis.engine.training.development import generated_episodes, mean_ious, real_episodes
from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.folds import leave_out
from refsam_qgis.engine.training.sources import FolderPlace
from refsam_qgis.engine.training.state import TrainingState
from refsam_qgis.engine.training.trainer import FITTED_SHARE, TrainerConfig, train_adapters
from refsam_qgis.engine.training.validation import EpisodeList

from .options import RECORDS, markdown_table, percent

WORK = Path(__file__).resolve().parents[2] / "build" / "ablations"
FULL = "full"
SETS = ("generated", "left_out_class", "left_out_scene")
SCORES = ("generated %", "left-out class %", "left-out scene %", "pseudo-mask %")
"""Columns: mIoU on each set, and of the pseudo-mask alone on their average."""
SHOTS = (1, 3, 5, 10)
"""Numbers of references that the full model is measured with, on episodes of their own; training varies them anyway."""
TIMINGS = 3
"""Full frames that each variant is timed on, all variants taking turns."""


@dataclass(frozen=True)
class Variant:
    """A way to build and train the model.

    Attributes:
        title: What the table calls it.
        model: Its parts.
        training: What its training does otherwise than that of the full model.
        fitted: Measure it with a prior fitted to the references, instead of the prototypes' cosine.
    """

    title: str
    model: ViRefSAMConfig = field(default_factory=ViRefSAMConfig)
    training: Mapping[str, Any] = field(default_factory=dict)
    fitted: bool = False


VARIANTS = {
    FULL: Variant("full"),
    "prior_fitted": Variant("prior: fitted", training={"fitted_share": 1.0}, fitted=True),
    "prior_both": Variant("prior: both", training={"fitted_share": FITTED_SHARE}, fitted=True),
    "no_interaction": Variant("without visual interaction", ViRefSAMConfig(visual_interaction=False)),
    "no_queries": Variant("without object queries", ViRefSAMConfig(object_queries=False)),
    "no_adapters": Variant("without DTA", ViRefSAMConfig(adapted_blocks="none")),
    "no_position_code": Variant("DTA without position code", ViRefSAMConfig(position_code=False)),
    "one_background": Variant("one background prototype", ViRefSAMConfig(background_cells=1)),
    "no_diversity": Variant("without diversity term", training={"diversity_weight": 0.0}),
    "trained_encoder": Variant(
        "encoder trained, without DTA", ViRefSAMConfig(adapted_blocks="none"), {"train_encoder": True}
    ),
    "last_3": Variant("DTA in the last 3 blocks", ViRefSAMConfig(adapted_blocks="last_3")),
    "last_1": Variant("DTA in the last block", ViRefSAMConfig(adapted_blocks="last_1")),
    "global": Variant("DTA in the global blocks", ViRefSAMConfig(adapted_blocks="global")),
    "inner_features": Variant("features of block 3 of 6", ViRefSAMConfig(feature_block=2)),
    "shared_prefix": Variant(
        "features of block 3, DTA in the last 3", ViRefSAMConfig(adapted_blocks="last_3", feature_block=2)
    ),
    "shared_prefix_5": Variant(
        "features of block 5, DTA in the last", ViRefSAMConfig(adapted_blocks="last_1", feature_block=4)
    ),
    "one_pass": Variant(
        "the same with one background prototype",
        ViRefSAMConfig(background_cells=1, adapted_blocks="last_1", feature_block=4),
    ),
}
"""Named for the compact model's six blocks."""


def main() -> None:
    """Train and measure what is not finished yet, print the table and write the record."""
    options = _parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        finished = _Finished(options.work / "finished.json", _settings(options))
        training, sets = _read_data(options)
        for name in options.variants:
            if name not in finished.variants:
                finished.add(name, _train_and_measure(name, options, training, sets))
        costs = _measure_costs(options)
    except RefSAMError as error:
        sys.exit(str(error))
    variants = {name: {**finished.variants[name], **costs[name]} for name in options.variants}
    print(_table(variants))
    if FULL in variants:
        print("", _shots_table(variants[FULL]["miou_by_shots"]), sep="\n")
    record = {"settings": finished.settings, "machine": _machine(options), "variants": variants}
    options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real images with masks, such as train/dubai")
    parser.add_argument("--scene", default="tile7", help="real scene left out of training")
    parser.add_argument("--class", dest="left_out", default="building", help="real class left out of training")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=120, help="steps of each training")
    parser.add_argument("--batch", type=int, default=4, help="episodes of a step")
    parser.add_argument("--window", type=int, default=256, help="side of training and development views")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--episodes", type=int, default=40, help="episodes of each development set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="SAM weights of the compact size; the bundled ones unless given")
    parser.add_argument("--device", default=ModelOptions.device)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw episodes")
    parser.add_argument("--threads", type=int, default=0, help="threads of the computation; 0 leaves it to torch")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of states, logs and finished variants")
    parser.add_argument("--record", type=Path, default=RECORDS / "ablations.json", help="JSON to write")
    return parser.parse_args()


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    names = ("scene", "left_out", "steps", "batch", "window", "learning_rate", "episodes", "seed")
    sam = digest(checkpoint_path(ModelOptions(checkpoint=options.checkpoint)))
    return {"data": options.data and options.data.name, "sam_sha256": sam, **{n: getattr(options, n) for n in names}}


class _Finished:
    """The variants that were measured, in a file; refuses one of other settings."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self.settings = settings
        self.variants: dict[str, dict[str, Any]] = {}
        if path.is_file():
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["settings"] != settings:
                raise RefSAMError("input", f"'{path}' was made with other settings; use those or another --work.")
            self.variants = document["variants"]

    def add(self, name: str, result: dict[str, Any]) -> None:
        self.variants[name] = result
        document = {"settings": self.settings, "variants": self.variants}
        self._path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _read_data(options: argparse.Namespace) -> tuple[list[FolderPlace], dict[str, list[FolderPlace]]]:
    """Real places to train on, and those of each real development set."""
    if options.data is None:
        return [], {}
    training, unseen = leave_out(options.data, options.scene, options.left_out)
    left_out = {options.left_out}
    others = set(unseen.class_names()) - left_out
    sets = {"left_out_class": [unseen.only(left_out)], "left_out_scene": [unseen.only(others)]}
    return training, {name: found for name, found in sets.items() if found[0].class_names()}


def _train_and_measure(
    name: str, options: argparse.Namespace, training: list[FolderPlace], sets: dict[str, list[FolderPlace]]
) -> dict[str, Any]:
    variant = VARIANTS[name]
    model = _start(variant, options).to(choose_device(options.device))
    draws = EpisodeConfig(steps=options.steps, batch=options.batch, window=options.window, seed=options.seed)
    warmup = min(TrainerConfig.warmup, max(1, options.steps // 10))
    recipe = {"learning_rate": options.learning_rate, "warmup": warmup, "pseudo_mask_weight": 0.5}
    trainer = TrainerConfig(**{**recipe, **variant.training})
    state = TrainingState(options.work / f"{name}.state")
    log = _Log(options.work / f"{name}.log", name, options.steps)
    identity = json.dumps([_settings(options), asdict(variant.model)])
    train_adapters(model, Episodes(draws, training), draws, trainer, state, log, options.workers, identity=identity)
    scores = _score(model, _episodes(options, sets, 1), variant.fitted)
    print(name, scores, flush=True)
    result = {
        "title": variant.title,
        "model": asdict(variant.model),
        "training": asdict(trainer),
        "measured_with": "fitted prior" if variant.fitted else "cosine",
        "trainable": _trainable(model, trainer),
        "miou": scores,
    }
    return {**result, "miou_by_shots": _score_shots(model, options, sets)} if name == FULL else result


def _start(variant: Variant, options: argparse.Namespace) -> ViRefSAM:
    """The untrained variant; what it shares with the full model starts as there."""
    sam = load_sam(ModelOptions(checkpoint=options.checkpoint))
    torch.manual_seed(options.seed)
    full = ViRefSAM(sam).trainable_state()
    model = ViRefSAM(sam, variant.model)
    own = model.trainable_state()
    alike = {name: value for name, value in full.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(alike, strict=False)
    return model


class _Log:
    """Writes the mean loss of every 20 steps."""

    def __init__(self, path: Path, name: str, steps: int) -> None:
        self._path, self._name, self._steps = path, name, steps
        self._recent: list[float] = []
        self._started = time.monotonic()

    def __call__(self, step: int, loss: float) -> None:
        self._recent.append(loss)
        if step % 20 and step != self._steps:
            return
        seconds = time.monotonic() - self._started
        line = f"{self._name} step {step} loss {statistics.mean(self._recent):.4f} after {seconds:.0f} s"
        self._recent.clear()
        print(line, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _episodes(options: argparse.Namespace, sets: dict[str, list[FolderPlace]], shots: int) -> dict[str, EpisodeList]:
    wanted = (options.episodes, options.window, options.seed, shots)
    real = {name: real_episodes(places, *wanted) for name, places in sets.items()}
    return {"generated": generated_episodes(*wanted), **real}


def _score(model: ViRefSAM, episodes: Mapping[str, EpisodeList], fitted: bool = False) -> dict[str, float]:
    return {name: round(value, 4) for name, value in mean_ious(model, episodes, fitted).items()}


def _score_shots(
    model: ViRefSAM, options: argparse.Namespace, sets: dict[str, list[FolderPlace]]
) -> dict[str, dict[str, float]]:
    """Scores by number of references: the same targets each time, with the first K of their references."""
    most = _episodes(options, sets, max(SHOTS))
    drawn = {name: [episodes[i] for i in range(len(episodes))] for name, episodes in most.items()}
    return {
        str(shots): _score(model, {name: [_first(batch, shots) for batch in drawn[name]] for name in drawn})
        for shots in SHOTS
    }


def _first(batch: dict[str, Any], shots: int) -> dict[str, Any]:
    """Leave out all but the first references."""
    return {**batch, **{key: batch[key][:, :shots] for key in ("references", "reference_masks")}}


def _trainable(model: ViRefSAM, trainer: TrainerConfig) -> int:
    """Number of weights that were trained."""
    weights = list(model.vcp.parameters()) + list(model.dta.parameters())
    if trainer.fitted_share:
        weights += model.blend.parameters()
    if trainer.train_encoder:
        weights += model.sam.image_encoder.parameters()
    return sum(weight.numel() for weight in weights)


def _measure_costs(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Seconds and encoder blocks for one full frame of each variant, its reference known; median of some turns."""
    device = choose_device(options.device)
    models = {name: _start(VARIANTS[name], options).to(device) for name in options.variants}
    generator = torch.Generator().manual_seed(options.seed)
    image = torch.randint(0, 256, (1, 3, INPUT_SIZE, INPUT_SIZE), dtype=torch.uint8, generator=generator)
    valid = torch.ones(1, INPUT_SIZE, INPUT_SIZE, dtype=torch.bool)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    blocks = {}
    for _ in range(TIMINGS):
        for name, model in models.items():
            segmenter, reference = _segmenter(model, VARIANTS[name].fitted)
            with _BlockCounter(model) as counter:
                started = time.perf_counter()
                segmenter.segment(segmenter.encode(image, valid), reference)
                seconds[name].append(time.perf_counter() - started)
            blocks[name] = counter.blocks
    return {
        name: {"encoder_blocks": blocks[name], "seconds_per_image": round(statistics.median(seconds[name]), 3)}
        for name in models
    }


def _segmenter(model: ViRefSAM, fitted: bool) -> tuple[ReferenceSegmenter, Any]:
    """The model as jobs run it, and a reference made of noise."""
    generator = torch.Generator().manual_seed(0)
    cells = model.config.background_cells
    vectors = torch.randn(1, 1 + cells, CHANNELS, generator=generator).to(model.device)
    prototypes = Prototypes(vectors, torch.ones(1, 1 + cells, dtype=torch.bool, device=model.device))
    if not fitted:
        return ViRefSAMSegmenter(model), prototypes
    features = torch.randn(1, FEATURES, 64, 64, generator=generator).to(model.device)
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, :32] = FOREGROUND
    return FittedSegmenter(model), FittedReference(prototypes, FittedPrior(model.device).fit(features, mask))


class _BlockCounter:
    """Counts the encoder blocks that a model runs while the context lasts."""

    def __init__(self, model: ViRefSAM) -> None:
        self.blocks = 0
        self._model = model
        self._hooks = ExitStack()

    def __enter__(self) -> _BlockCounter:
        def count(*_: Any) -> None:
            self.blocks += 1

        for block in self._model.sam.image_encoder.blocks:
            self._hooks.callback(block.norm1.register_forward_hook(count).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {"device": str(device), "name": name, "torch": torch.__version__, "threads": torch.get_num_threads()}


def _table(variants: dict[str, dict[str, Any]]) -> str:
    header = ["variant", *SCORES, "trained weights", "encoder blocks", "s/image"]
    rows = [
        [
            result["title"],
            *_cells(result["miou"]),
            f"{result['trainable']:,}",
            str(result["encoder_blocks"]),
            f"{result['seconds_per_image']:.2f}",
        ]
        for result in variants.values()
    ]
    return markdown_table(header, rows)


def _shots_table(scores: dict[str, dict[str, float]]) -> str:
    return markdown_table(["K", *SCORES], [[shots, *_cells(found)] for shots, found in scores.items()])


def _cells(scores: dict[str, float]) -> list[str]:
    pseudo = [scores[f"{name}_pseudo"] for name in SETS if name in scores]
    return [*(percent(scores.get(name)) for name in SETS), percent(statistics.mean(pseudo))]


if __name__ == "__main__":
    main()
