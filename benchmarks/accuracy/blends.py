"""How fitted map, decoder and prototypes are best joined: ways to join them, measured on the development sets.

    python -m benchmarks.accuracy.blends --data DATA/train/dubai

Each way is a logistic regression on training episodes, some across places and some across sensors, as `calibrate` fits
the one that ships, on tiles of full size with one reference. What is measured is class-wise mIoU at one
threshold for all, and the share of pixels marked on targets without the class, at a quarter of the size; and how well
training episodes that were held out are answered, by which `calibrate` finds out whether the decoder is worth asking.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models.blend import enlarge
from refsam_qgis.engine.models.checkpoints import load_adapters, load_sam
from refsam_qgis.engine.models.fit_rules import FitRules
from refsam_qgis.engine.models.guided_filter import GuidedFilter
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.models.weight_files import COMPACT_ADAPTERS
from refsam_qgis.engine.training.calibrate import draw_pixels, fit_logistic, held_out_loss, shrink
from refsam_qgis.engine.training.episodes import Episodes
from refsam_qgis.engine.training.other_sensors import OtherSensorEpisodes
from refsam_qgis.engine.training.sources import CALIBRATION_CLASSES, Place
from refsam_qgis.engine.training.trainer import fit_priors, run_episodes, target_edges

from .development_lists import (
    DRAWS,
    STREAM,
    class_iou,
    each,
    marked_share,
    split_scenes,
    targets_with_class,
    targets_without_class,
)
from .options import RECORDS, markdown_table, percent

THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


@dataclass(frozen=True)
class Seen:
    """What is known of one target, ``(S/4, S/4)`` each.

    Attributes:
        class_name: What is sought.
        prior: The fitted map's logits.
        decoded: The decoder's.
        cosine: The prototypes'.
        likeness: The cosine to the class prototype alone.
        votes: What the trees say.
        learned: What the fit in the learned embedding says.
        closeness: Of the target to the references.
        edges: Smooths maps along the edges of the target.
        truth: Where the class is.
        counted: Where that is known.
    """

    class_name: str
    prior: Tensor
    decoded: Tensor
    cosine: Tensor
    likeness: Tensor
    votes: Tensor
    learned: Tensor
    closeness: float
    edges: GuidedFilter
    truth: Tensor
    counted: Tensor


def _close(seen: Seen, *maps: Tensor) -> list[Tensor]:
    return [seen.closeness * value for value in maps]


def _all(seen: Seen) -> list[Tensor]:
    return [*_close(seen, seen.prior, seen.decoded, seen.cosine), seen.likeness]


def _undrawn(seen: Seen) -> list[Tensor]:
    return [*_close(seen, seen.prior, seen.cosine), seen.likeness]


def _voted(seen: Seen) -> list[Tensor]:
    return [*_undrawn(seen), seen.votes]


def _learned(seen: Seen) -> list[Tensor]:
    return [*_voted(seen), seen.learned]


def _smoothed(seen: Seen, maps: list[Tensor]) -> list[Tensor]:
    return [seen.edges.smooth(value[None])[0] for value in maps]


BLENDS: dict[str, Callable[[Seen], list[Tensor]]] = {
    "prior": lambda seen: [seen.prior],
    "decoder": lambda seen: [seen.decoded],
    "cosine": lambda seen: [seen.cosine],
    "prior, decoder, cosine": lambda seen: [seen.prior, seen.decoded, seen.cosine],
    "close × (prior, decoder), cosine": lambda seen: [*_close(seen, seen.prior, seen.decoded), seen.cosine],
    "close × (prior, decoder, cosine)": lambda seen: _close(seen, seen.prior, seen.decoded, seen.cosine),
    "prior, decoder, cosine, likeness": lambda seen: [seen.prior, seen.decoded, seen.cosine, seen.likeness],
    "close × prior, likeness": lambda seen: [*_close(seen, seen.prior), seen.likeness],
    "close × (prior, decoder), likeness": lambda seen: [*_close(seen, seen.prior, seen.decoded), seen.likeness],
    "close × (prior, decoder, cosine), likeness": _all,
    "close × (prior, cosine), likeness": _undrawn,
    "close × (prior, decoder, cosine), likeness; smoothed": lambda seen: _smoothed(seen, _all(seen)),
    "close × (prior, cosine), likeness; smoothed": lambda seen: _smoothed(seen, _undrawn(seen)),
    "close × (prior, cosine), likeness, trees": _voted,
    "trees; smoothed": lambda seen: _smoothed(seen, [seen.votes]),
    "close × cosine, likeness, trees; smoothed": lambda seen: _smoothed(
        seen, [*_close(seen, seen.cosine), seen.likeness, seen.votes]
    ),
    "close × (prior, cosine, trees), likeness; smoothed": lambda seen: _smoothed(
        seen, [*_close(seen, seen.prior, seen.cosine, seen.votes), seen.likeness]
    ),
    "close × (prior, cosine), likeness, trees; smoothed": lambda seen: _smoothed(seen, _voted(seen)),
    "learned; smoothed": lambda seen: _smoothed(seen, [seen.learned]),
    "trees, learned; smoothed": lambda seen: _smoothed(seen, [seen.votes, seen.learned]),
    "likeness, trees, learned; smoothed": lambda seen: _smoothed(seen, [seen.likeness, seen.votes, seen.learned]),
    "close × (prior, cosine), likeness, trees, learned; smoothed (ships)": lambda seen: _smoothed(seen, _learned(seen)),
}


def main() -> None:
    """Measure all ways, print the table and write the record."""
    parser = argparse.ArgumentParser(description="Ways to join fitted map, decoder and prototypes.")
    parser.add_argument("--data", type=Path, required=True, help="folder of real training images, such as train/dubai")
    parser.add_argument("--episodes", type=int, default=40, help="of each set")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--record", type=Path, default=RECORDS / "blends.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_adapters(load_sam(ModelOptions()), COMPACT_ADAPTERS).eval()
    known, unseen = split_scenes(arguments.data)
    training = [seen for drawn in _training(known, arguments.episodes).values() for seen in _look(model, drawn)]
    sets, absent = (
        {name: list(_look(model, drawn)) for name, drawn in lists.items()}
        for lists in (
            targets_with_class(known, unseen, arguments.episodes),
            targets_without_class(known, unseen, arguments.episodes // 2),
        )
    )
    rows = [row for name in BLENDS for row in _measure(name, training, sets, absent)]
    arguments.record.write_text(json.dumps(rows, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    print(_table(rows))


def _training(known: Sequence[Place], count: int) -> dict[str, Iterator[dict[str, Tensor]]]:
    """Episodes that ways to join are learned from, by name."""
    within = replace(DRAWS, steps=count)
    across = replace(within, other_place_share=1.0, seed=8)
    real = replace(within, real_share=1.0)
    apart = replace(within, without_focus_share=0.5, steps=2 * count, seed=11)
    untaught = sorted(CALIBRATION_CLASSES)
    drawn = {
        "generated within": Episodes(within, (), untaught, STREAM),
        "generated across": Episodes(across, (), untaught, STREAM),
        "real within": Episodes(real, known, stream=STREAM),
        "real across": Episodes(replace(real, seed=1), known, stream=STREAM, support=known),
        "other sensors": OtherSensorEpisodes(apart, known, stream=STREAM),
    }
    return {name: each(episodes) for name, episodes in drawn.items()}


@torch.no_grad()
def _look(model: ViRefSAM, batches: Iterator[dict[str, Tensor]]) -> Iterator[Seen]:
    model.blend.set(decoded=1.0)  # the decoder, as far as it is trusted
    for batch in batches:
        prior = fit_priors(model, batch, FitRules())
        trusted, pseudo, _ = run_episodes(model, batch, None, prior)
        yield Seen(
            class_name=str(batch["classes"][0]),
            prior=model.blend.calibrate(prior.values)[0],
            decoded=trusted[0] / prior.closeness[0],
            cosine=enlarge(pseudo.cosine, trusted)[0],
            likeness=enlarge(pseudo.likeness, trusted)[0],
            votes=prior.votes[0],
            learned=prior.learned[0],
            closeness=float(prior.closeness[0]),
            edges=target_edges(batch),
            truth=shrink(batch["mask"], trusted).view_as(trusted[0]) > 0.5,
            counted=shrink(batch["counted"], trusted).view_as(trusted[0]) > 0.5,
        )


def _measure(
    name: str, training: list[Seen], sets: Mapping[str, list[Seen]], absent: Mapping[str, list[Seen]]
) -> Iterator[dict[str, object]]:
    blend = BLENDS[name]
    generator = torch.Generator().manual_seed(0)
    values, truth = [], []
    for seen in training:
        chosen = draw_pixels(seen.counted.flatten(), generator)
        values.append(torch.stack(blend(seen), dim=-1).flatten(0, 1)[chosen].double())
        truth.append(seen.truth.flatten()[chosen].double())
    *weights, offset = fit_logistic(torch.cat(values), torch.cat(truth)).tolist()
    loss = held_out_loss(values, truth)

    def probability(seen: Seen) -> Tensor:
        joined = sum((w * value for w, value in zip(weights, blend(seen), strict=True)), torch.tensor(offset))
        return torch.sigmoid(joined)

    said, said_of_absent = (
        {key: [(seen, probability(seen)) for seen in group] for key, group in groups.items()}
        for groups in (sets, absent)
    )
    for threshold in THRESHOLDS:
        yield {
            "blend": name,
            "weights": [round(weight, 3) for weight in weights],
            "offset": round(offset, 3),
            "held_out_loss": round(loss, 4),
            "threshold": threshold,
            "miou": {key: round(_miou(group, threshold), 4) for key, group in said.items()},
            "marked_without_class": {key: round(_marked(group, threshold), 4) for key, group in said_of_absent.items()},
        }


def _miou(group: list[tuple[Seen, Tensor]], threshold: float) -> float:
    return class_iou(
        (seen.class_name, probability > threshold, seen.truth, seen.counted) for seen, probability in group
    )


def _marked(group: list[tuple[Seen, Tensor]], threshold: float) -> float:
    """Mean share of the pixels that are marked."""
    return float(np.mean([marked_share(probability > threshold, seen.counted) for seen, probability in group]))


def _table(rows: list[dict[str, object]]) -> str:
    header = [
        "joined",
        "weights; offset",
        "held-out loss",
        "cut at",
        "mIoU %: generated",
        "scene within",
        "scene across",
        "other sensors",
        "mean",
    ]
    lines = []
    for row in rows:
        scores, marked = list(row["miou"].values()), list(row["marked_without_class"].values())  # type: ignore[attr-defined]
        weights = " ".join(map(str, row["weights"]))  # type: ignore[call-overload]
        figures = [*map(percent, scores), percent(float(np.mean(scores))), percent(float(np.mean(marked)))]
        named = [str(row["blend"]), f"{weights}; {row['offset']}", str(row["held_out_loss"]), str(row["threshold"])]
        lines.append([*named, *figures])
    return markdown_table([*header, "marked without the class %"], lines)


if __name__ == "__main__":
    main()
