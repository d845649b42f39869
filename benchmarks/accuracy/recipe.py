"""What each part of the recipe of the learned embedding is worth: embeddings learned without it, on the same lists.

    python -m benchmarks.accuracy.recipe --data DATA/train/dubai

Each variant is learned from nothing, by far fewer views and steps than the embedding that ships. What is measured is
its fit alone, asked about whole tiles with one reference, on an eighth of their rows and columns: class-wise mIoU and
the share marked on targets without the class, both at the cut that is best for all lists with the class together, and
the cross-entropy. Finished variants are kept in the record.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.models.checkpoints import load_embedding
from refsam_qgis.engine.models.embedding import PixelEmbedding
from refsam_qgis.engine.models.fit_rules import FitRules
from refsam_qgis.engine.models.fitted_prior import FittedPrior, thin
from refsam_qgis.engine.models.pixel_features import pixel_features
from refsam_qgis.engine.models.weight_files import COMPACT_ADAPTERS, digest
from refsam_qgis.engine.training.embed import EmbeddingConfig, learn_embedding
from refsam_qgis.engine.training.sources import Place
from refsam_qgis.engine.training.state import TrainingState
from refsam_qgis.engine.training.view_pool import SPACING, PlaceViews, PoolConfig, draw_pool

from .cells import Cells, Fields
from .data_sets import digest_folder
from .development_lists import class_iou, marked_share, split_scenes, targets_with_class, targets_without_class
from .options import RECORDS, markdown_table, percent

WORK = Path(__file__).resolve().parents[2] / "build" / "recipe"
SHIPS = "ships"
POOL = PoolConfig(generated=160, real=40)
"""Views of each variant, a fifth to a quarter of what the embedding that ships was learned from."""
CUTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
LAST = 50
"""Steps at the end of which the mean loss is told."""


@dataclass(frozen=True)
class Variant:
    """A way to learn the embedding.

    Attributes:
        title: What the table calls it.
        pool: What its views are drawn by otherwise than those of the others.
        training: What its training does otherwise.
    """

    title: str
    pool: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = {
    "full": Variant("full"),
    "again": Variant("the same from another seed", training={"seed": 1}),
    "no_clusters": Variant("without clusters", training={"clusters": 0}),
    "no_reconstruction": Variant("without finding the features again", training={"reconstruction": 0.0}),
    "labels_alone": Variant("without both", training={"clusters": 0, "reconstruction": 0.0}),
    "no_elsewhere": Variant("asked within the place alone", training={"elsewhere": 0}),
    "no_pairs": Variant("without two classes as one", training={"several_share": 0.0}),
    "no_few": Variant("without few marks", training={"few_share": 0.0}),
    "no_recolour": Variant("views in their own colours", {"plain_share": 1.0}),
    "one_scale": Variant("one ground sample distance", {"scales": 0.0}),
    "generated_alone": Variant("generated places alone", {"generated": 200, "real": 0}, {"generated": 7, "real": 0}),
    "real_alone": Variant("real places alone", {"generated": 0, "real": 200}, {"generated": 0, "real": 7}),
    "few_places": Variant("a quarter of the places", {"generated": 40, "real": 10}),
    "twice_as_long": Variant("twice the steps", training={"steps": 2}),
    SHIPS: Variant("the embedding that ships"),
}
"""A step has as many views in each; `steps` is a factor."""


@dataclass(frozen=True)
class Target:
    """A target and its references.

    Attributes:
        class_name: What is sought.
        references: ``(K, FEATURES, S/4, S/4)`` float16.
        masks: ``(K, S, S)`` uint8.
        samples: ``(1, S/8, S/8, FEATURES)`` float16.
        truth: ``(1, S/8, S/8)`` bool; where the class is.
        counted: ``(1, S/8, S/8)`` bool; where that is known.
    """

    class_name: str
    references: Tensor
    masks: Tensor
    samples: Tensor
    truth: Tensor
    counted: Tensor


def main() -> None:
    """Learn and measure what the record lacks, print the table of all that it holds."""
    options = _parse()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    cells = Cells(options.record)
    try:
        missing = [name for name in options.variants if not cells.has({"variant": name}, _settings(options, name))]
        for name, result in _measure_all(options, missing):
            cells.put({"variant": name}, _settings(options, name), result)
            print(name, f"{result['seconds']:.0f} s", file=sys.stderr)
    except RefSAMError as error:
        sys.exit(str(error))
    print(_table(cells))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What each part of the learned embedding's recipe is worth.")
    parser.add_argument("--data", type=Path, required=True, help="folder of real training images, such as train/dubai")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--episodes", type=int, default=40, help="of each list; half as many without the class")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=1, help="processes that draw views")
    parser.add_argument(
        "--work", type=Path, default=WORK, help="folder of states; a stopped training goes on from there"
    )
    parser.add_argument("--record", type=Path, default=RECORDS / "recipe.json", help="JSON to read and to write")
    return parser.parse_args()


def _configs(options: argparse.Namespace, name: str) -> tuple[PoolConfig, EmbeddingConfig]:
    variant = VARIANTS[name]
    factor = variant.training.get("steps", 1)
    config = replace(EmbeddingConfig(), **{**variant.training, "steps": factor * options.steps})
    return replace(POOL, **variant.pool), config


def _settings(options: argparse.Namespace, name: str) -> Fields:
    pool, config = _configs(options, name)
    learned = {"embedding_of": digest(COMPACT_ADAPTERS)} if name == SHIPS else {**asdict(config), "pool": asdict(pool)}
    return {"episodes": options.episodes, "data_sha256": digest_folder(options.data), **learned}


def _measure_all(options: argparse.Namespace, names: Sequence[str]) -> Iterator[tuple[str, Fields]]:
    """Yield the figures of some variants."""
    if not names:
        return
    known, unseen = split_scenes(options.data)
    present, absent = (
        {name: [_look(batch) for batch in drawn] for name, drawn in lists.items()}
        for lists in (
            targets_with_class(known, unseen, options.episodes),
            targets_without_class(known, unseen, options.episodes // 2),
        )
    )
    learner = _Learner(options, known)
    for name in names:
        start = time.monotonic()
        embedding, loss = learner.learn(name)
        found = _figures(embedding, present, absent)
        yield name, {**found, "training_loss": loss, "seconds": round(time.monotonic() - start)}


class _Learner:
    """Learns the embeddings of variants; views are drawn once for all that have them in common."""

    def __init__(self, options: argparse.Namespace, known: Sequence[Place]) -> None:
        ships = load_embedding(COMPACT_ADAPTERS)
        assert ships is not None
        self._ships = ships
        self._options, self._known = options, known
        self._pools: dict[PoolConfig, list[PlaceViews]] = {}

    def learn(self, name: str) -> tuple[PixelEmbedding, float | None]:
        """Return the embedding of a variant, and the loss of its last steps."""
        if name == SHIPS:
            return self._ships, None
        drawn, config = _configs(self._options, name)
        if drawn not in self._pools:
            self._pools[drawn] = draw_pool(drawn, self._known, self._options.workers)
        torch.manual_seed(config.seed)
        embedding = PixelEmbedding(self._ships.width)
        losses: list[float] = []
        state = TrainingState(self._options.work / f"{name}.pt")
        learn_embedding(
            embedding, self._pools[drawn], drawn, config, state, lambda _, found: losses.append(found["loss"])
        )
        state.path.unlink()  # finished; it would be refused where other settings are asked for
        return embedding, round(float(np.mean(losses[-LAST:])), 4) if losses else None


def _look(batch: Mapping[str, Any]) -> Target:
    """Compute the features of an episode, and what is true where they are."""
    references, target = (pixel_features(batch[part].flatten(0, -4).float() / 255) for part in ("references", "target"))
    truth, counted = (F.avg_pool2d(batch[part].float()[:, None], SPACING)[:, 0] > 0.5 for part in ("mask", "counted"))
    masks = batch["reference_masks"][0]
    return Target(str(batch["classes"][0]), references.half(), masks, thin(target).half(), truth, counted)


@torch.no_grad()
def _figures(
    embedding: PixelEmbedding, present: Mapping[str, list[Target]], absent: Mapping[str, list[Target]]
) -> Fields:
    """Measure an embedding's fits."""
    prior = FittedPrior(embedding.mean.device, FitRules(trees=0), embedding)

    def ask(target: Target) -> Tensor:
        head = prior.learn(target.references.float(), target.masks)
        return embedding.ask(embedding(target.samples.float()), head)

    said, said_of_absent = (
        {name: [(target, ask(target).sigmoid()) for target in group] for name, group in lists.items()}
        for lists in (present, absent)
    )
    by_cut = {
        cut: {
            name: class_iou((t.class_name, p > cut, t.truth, t.counted) for t, p in group)
            for name, group in said.items()
        }
        for cut in CUTS
    }
    cut = max(CUTS, key=lambda cut: float(np.mean(list(by_cut[cut].values()))))
    marked = {
        name: float(np.mean([marked_share(p > cut, t.counted) for t, p in group]))
        for name, group in said_of_absent.items()
    }
    every = [pair for lists in (said, said_of_absent) for group in lists.values() for pair in group]
    return {
        "cut": cut,
        "miou": {name: round(value, 4) for name, value in by_cut[cut].items()},
        "marked_without_class": {name: round(value, 4) for name, value in marked.items()},
        "cross_entropy": round(_cross_entropy(every), 4),
    }


def _cross_entropy(said: Iterable[tuple[Target, Tensor]]) -> float:
    """Mean over targets."""
    losses = [F.binary_cross_entropy(p[t.counted].clamp(1e-4, 1 - 1e-4), t.truth[t.counted].float()) for t, p in said]
    return float(torch.stack(losses).mean())


def _table(cells: Cells) -> str:
    found = {cell["key"]["variant"]: cell["result"] for cell in cells}
    lists = next(iter(found.values()))["miou"]
    header = ["embedding", *(f"mIoU %: {name}" if i == 0 else name for i, name in enumerate(lists))]
    rows = []
    for name, result in ((name, found[name]) for name in VARIANTS if name in found):
        scores, marked = list(result["miou"].values()), list(result["marked_without_class"].values())
        means = [percent(float(np.mean(scores))), percent(float(np.mean(marked)))]
        rows.append([VARIANTS[name].title, *map(percent, scores), *means, str(result["cross_entropy"])])
    return markdown_table([*header, "mean", "marked without the class %", "cross-entropy"], rows)


if __name__ == "__main__":
    main()
