"""The stage in which the embedding of pixel features is learned, by episodes around a fit in closed form.

In a step, what some views show is fitted in the embedding, each class of each view by itself, and asked of other
views: of the same place, of other places and other sensors, where the class may be absent (R2-D2). Clusters of the
features are asked for too, as classes that nobody named; and the features have to be found again in the embedding.
Both keep apart what no label tells apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.embedding import EMBEDDED, PixelEmbedding
from ..models.pixel_features import FEATURES
from .losses import binary_cross_entropy, dice
from .state import Schedule, TrainingState
from .view_pool import UNLABELLED, PlaceViews, PoolConfig

LEAST_PLACES = 6
"""Places of the class, and of the rest, that a view must show to be fitted to."""
FOUND_AGAIN = 4.0
"""Usual spreads within which features have to be found again."""
FEW = 6
"""Of few marks, one part in so many is left of the class."""
CLUSTERS, CLUSTER_ROUNDS = (4, 14), 3
"""Fewest and most clusters of a place, and rounds of k-means that find them."""
MOST_OF_CLUSTER = 0.8
"""Largest share of a view that a cluster may take up."""


@dataclass(frozen=True)
class EmbeddingConfig:
    """How the embedding is learned.

    Attributes:
        steps: Optimiser steps.
        generated: Generated places in a step.
        real: Draws of real places in a step, where there are some.
        views: Views of each.
        places: Places of a view that take part.
        tasks: Most classes of views that are fitted to in a step.
        clusters: Draws of clusters in a step, besides.
        elsewhere: Views of other places that each class is asked of.
        several_share: Share of views of which two classes are asked for as if they were one.
        few_share: Share of the fits to few marks of the class.
        cluster_weight: Weight of a question about a cluster; that of a class is 1.
        dice_weight: Weight of Dice beside cross-entropy, where the class is.
        reconstruction: Weight of finding the features again.
        learning_rate: Peak of the cosine schedule.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's.
        seed: Of every draw.
    """

    steps: int = 1000
    generated: int = 4
    real: int = 3
    views: int = 3
    places: int = 1024
    tasks: int = 40
    clusters: int = 10
    elsewhere: int = 2
    several_share: float = 0.5
    few_share: float = 0.3
    cluster_weight: float = 0.5
    dice_weight: float = 0.5
    reconstruction: float = 0.3
    learning_rate: float = 2e-3
    warmup: int = 30
    weight_decay: float = 0.01
    seed: int = 0


class _Views(NamedTuple):
    """Views of a step.

    Attributes:
        features: ``(V, places, FEATURES)``.
        classes: ``(V, places)`` as in `PlaceViews`.
        embedded: ``(V, places, EMBEDDED + 1)``.
        owners: Draw that each view is of.
    """

    features: Tensor
    classes: Tensor
    embedded: Tensor
    owners: list[PlaceViews]


class _Task(NamedTuple):
    """A class of a view.

    Attributes:
        view: That is fitted to.
        marked: ``(places,)`` bool; the class.
        counted: ``(places,)`` bool; the class and what is known not to be of it.
        asked: Views that are asked about it, with what is true of their places and which count, ``(places,)`` bool.
        weight: Of each question.
    """

    view: int
    marked: Tensor
    counted: Tensor
    asked: list[tuple[int, Tensor, Tensor]]
    weight: float


class _Learner(nn.Module):
    """An embedding, and what only its training needs."""

    def __init__(self, embedding: PixelEmbedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.back = nn.Linear(EMBEDDED, FEATURES)


def learn_embedding(
    embedding: PixelEmbedding,
    pool: Sequence[PlaceViews],
    drawn: PoolConfig,
    config: EmbeddingConfig,
    state: TrainingState,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> None:
    """Teach an embedding from where `state` stands to the last step.

    Args:
        embedding: Left without gradients.
        pool: `draw_pool` of `drawn`.
        drawn: How the pool was drawn; part of what a resumed run has to match.
        config: Sizes, shares and rates.
        state: Optimiser, step and where they are saved; resumed when a file is there.
        on_step: Told each step's ``loss`` and ``reconstruction``; may raise to stop.
    """
    generator = torch.Generator()
    torch.manual_seed(config.seed)
    learner = _Learner(embedding).requires_grad_(True).to(embedding.mean.device)
    _measure_features(embedding, pool)
    state.begin(list(learner.parameters()), learner, config.weight_decay, {**asdict(drawn), **asdict(config)})
    schedule = Schedule(config.learning_rate, config.warmup, config.steps)
    places = pool[: drawn.generated], pool[drawn.generated :]
    try:
        while state.step < config.steps:
            rng = np.random.default_rng([config.seed, state.step])
            generator.manual_seed(config.seed * 1_000_003 + state.step)
            losses = _losses(learner, _draw(learner.embedding, places, config, rng, generator), config, rng, generator)
            state.optimise(losses["loss"] + config.reconstruction * losses["reconstruction"], schedule)
            on_step(state.step, {name: float(loss.detach()) for name, loss in losses.items()})
    finally:
        state.save()
        embedding.requires_grad_(False)


def _measure_features(embedding: PixelEmbedding, pool: Sequence[PlaceViews]) -> None:
    """Set what the features are standardised by."""
    some = torch.cat([views.features[:, ::64].flatten(0, 1).float() for views in pool])
    deviation, mean = torch.std_mean(some, dim=0)
    embedding.mean.copy_(mean)
    embedding.deviation.copy_(deviation + 1e-4)


def _draw(
    embedding: PixelEmbedding,
    places: tuple[Sequence[PlaceViews], Sequence[PlaceViews]],
    config: EmbeddingConfig,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> _Views:
    """Draw the views of a step and embed some of their places."""
    device = embedding.mean.device
    chosen = [
        draws[index]
        for draws, count in zip(places, (config.generated, config.real), strict=True)
        if draws
        for index in rng.choice(len(draws), min(count, len(draws)), replace=False)
    ]
    features, classes, means, owners = [], [], [], []
    for draw in chosen:
        for view in rng.choice(len(draw.features), min(config.views, len(draw.features)), replace=False):
            whole = draw.features[view].to(device).float()
            some = torch.randperm(len(whole), generator=generator)[: config.places]
            features.append(whole[some.to(device)])
            classes.append(draw.classes[view][some].to(device))
            means.append(torch.cat(embedding.describe(whole[None])))
            owners.append(draw)
    seen = torch.stack(features)
    mean, spread = torch.stack(means, dim=1)
    return _Views(seen, torch.stack(classes), embedding.embed(seen, mean, spread), owners)


def _losses(
    learner: _Learner, views: _Views, config: EmbeddingConfig, rng: np.random.Generator, generator: torch.Generator
) -> dict[str, Tensor]:
    """What the answers of a step cost."""
    embedding = learner.embedding
    standard = embedding.standardise(views.features).clamp(-FOUND_AGAIN, FOUND_AGAIN)
    reconstruction = F.mse_loss(learner.back(views.embedded[..., :-1]), standard)
    every = list(_classes(views, config, rng))
    tasks = [every[index] for index in rng.permutation(len(every))[: config.tasks]]
    tasks += list(_clusters(views, standard, config, rng, generator))
    if not tasks:
        return {"loss": 0.0 * reconstruction, "reconstruction": reconstruction}
    marked = torch.stack([_few(task.marked, config, rng, generator) for task in tasks])
    rest = torch.stack([task.counted & ~task.marked for task in tasks])
    # Not by indexing: its gradients are added up in no fixed order.
    fitted = torch.tensor([task.view for task in tasks], device=marked.device)
    heads = embedding.fit(views.embedded.index_select(0, fitted), marked.float(), rest.float())
    asked = [(task, number, *question) for number, task in enumerate(tasks) for question in task.asked]
    view, task_of = torch.tensor([(view, number) for _, number, view, _, _ in asked], device=marked.device).unbind(1)
    said = embedding.ask(views.embedded.index_select(0, view), heads.index_select(0, task_of))
    truth = torch.stack([true for *_, true, _ in asked]).float()[:, None]
    counted = torch.stack([known for *_, known in asked]).float()[:, None]
    weight = said.new_tensor([task.weight for task, *_ in asked])
    there = ((truth * counted).sum((1, 2)) >= LEAST_PLACES).float()
    each = binary_cross_entropy(said[:, None], truth, counted)
    each = each + config.dice_weight * there * dice(said[:, None], truth, counted)
    return {"loss": (weight * each).sum() / weight.sum(), "reconstruction": reconstruction}


def _classes(views: _Views, config: EmbeddingConfig, rng: np.random.Generator) -> Iterator[_Task]:
    """Yield the labelled classes of all views, some of them two by two."""
    for view, owner in enumerate(views.owners):
        shown = [number for number in torch.unique(views.classes[view]).tolist() if number > 0]
        groups = [[number] for number in shown]
        if len(shown) > 1 and rng.random() < config.several_share:
            groups.append(rng.choice(shown, 2, replace=False).tolist())
        for group in groups:
            names = [owner.names[number - 1] for number in group]
            marked, counted = _where(views, view, names)
            if min(int(marked.sum()), int((counted & ~marked).sum())) < LEAST_PLACES:
                continue
            same = [i for i, other in enumerate(views.owners) if other is owner and i != view]
            # Another place is asked if it would label the class; what is of one place alone it does not show.
            abroad = set(names) - owner.own
            others = [i for i, o in enumerate(views.owners) if o is not owner and abroad <= set(o.names)]
            asked = same + rng.permutation(others)[: config.elsewhere].astype(int).tolist()
            if asked:
                yield _Task(view, marked, counted, [(i, *_where(views, i, names)) for i in asked], 1.0)


def _where(views: _Views, view: int, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Where a view shows one of some classes, and where that is known."""
    classes, own = views.classes[view], views.owners[view].names
    numbers = [number for number, name in enumerate(own, start=1) if name in names]
    return torch.isin(classes, classes.new_tensor(numbers)), classes != UNLABELLED


def _clusters(
    views: _Views, standard: Tensor, config: EmbeddingConfig, rng: np.random.Generator, generator: torch.Generator
) -> Iterator[_Task]:
    """Yield clusters of the features of all views of a place, found in half of them."""
    owners = list({id(owner): owner for owner in views.owners}.values())
    for _ in range(config.clusters):
        owner = owners[int(rng.integers(len(owners)))]
        own = [i for i, other in enumerate(views.owners) if other is owner]
        half = torch.from_numpy(rng.choice(FEATURES, FEATURES // 2, replace=False)).to(standard.device)
        found = _k_means(standard[own][..., half].flatten(0, 1).detach(), int(rng.integers(*CLUSTERS)), generator)
        found = found.view(len(own), -1)
        marked = found == found[0, int(rng.integers(found.shape[1]))]
        size = int(marked[0].sum())
        if len(own) > 1 and LEAST_PLACES <= size <= MOST_OF_CLUSTER * found.shape[1]:
            every = torch.ones_like(marked[0])
            asked = [(view, marked[place], every) for place, view in enumerate(own) if place]
            yield _Task(own[0], marked[0], every, asked, config.cluster_weight)


def _k_means(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Cluster ``(n, M)`` roughly: which of `count` clusters each is of, ``(n,)``."""
    centres = values[torch.randperm(len(values), generator=generator)[:count].to(values.device)]
    for _ in range(CLUSTER_ROUNDS):
        nearest = F.one_hot(torch.cdist(values, centres).argmin(1), count).to(values)
        sizes = nearest.sum(0)[:, None]
        centres = torch.where(sizes > 0, nearest.T @ values / sizes.clamp_min(1), centres)
    return torch.cdist(values, centres).argmin(1)


def _few(marked: Tensor, config: EmbeddingConfig, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    """All marks of a class, or now and then few of them; the others do not count then."""
    if rng.random() >= config.few_share:
        return marked
    places = torch.nonzero(marked)[:, 0]
    kept = torch.randperm(len(places), generator=generator)[: max(4, len(places) // FEW)]
    few = torch.zeros_like(marked)
    few[places[kept.to(places.device)]] = True
    return few
