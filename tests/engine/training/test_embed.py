from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from refsam_qgis.engine.models.embedding import EMBEDDED, PixelEmbedding
from refsam_qgis.engine.models.pixel_features import FEATURES
from refsam_qgis.engine.training import embed
from refsam_qgis.engine.training.embed import EmbeddingConfig, learn_embedding
from refsam_qgis.engine.training.state import TrainingState
from refsam_qgis.engine.training.view_pool import UNKNOWN, UNLABELLED, PlaceViews, PoolConfig

DRAWN = PoolConfig(generated=6, real=2)
CONFIG = EmbeddingConfig(steps=6, places=64, generated=2, real=1, tasks=8, clusters=2, warmup=1)


def place(seed, names=("roof", "lawn"), own=frozenset(), lights=(0.0, 2.0, -2.0)):
    """Three views of two classes and of background, in three lights: a feature tells them apart, another the light."""
    draws = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 3, (3, 128), generator=draws)
    features = 0.3 * torch.randn(3, 128, FEATURES, generator=draws)
    features[..., 0] += 2.0 * classes + torch.tensor(lights)[:, None]
    features[..., 1] += torch.tensor(lights)[:, None]
    return PlaceViews(features.half(), classes, tuple(names), frozenset(own))


POOL = [place(seed) for seed in range(8)]


def learned(tmp_path, name="state", config=CONFIG, pool=POOL, told=lambda step, losses: None):
    torch.manual_seed(3)
    embedding = PixelEmbedding(16).requires_grad_(False)
    learn_embedding(embedding, pool, DRAWN, config, TrainingState(tmp_path / f"{name}.pt"), told)
    return embedding


def iou_across_light(embedding):
    """Of class 1, fitted to the first view of a new place and asked of one in other light."""
    views = place(99)
    standard = embedding(views.features.float().view(3, 16, 8, FEATURES)).view(3, 128, -1)
    mask = views.classes == 1
    head = embedding.fit(standard[:1], mask[:1].float(), (~mask[:1]).float())
    found = embedding.ask(standard[1], head[0]) > 0
    return float((found & mask[1]).sum() / (found | mask[1]).sum())


def test_it_learns_to_see_through_light(tmp_path):
    config = replace(CONFIG, steps=150, warmup=10, learning_rate=5e-3)
    losses = []
    before = learned(tmp_path, "before", replace(config, steps=1))
    after = learned(tmp_path, "after", config, told=lambda step, loss: losses.append(loss["loss"]))
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])
    assert iou_across_light(after) > max(0.8, iou_across_light(before) + 0.1)


def test_it_is_left_frozen_and_knows_the_features_it_saw(tmp_path):
    embedding = learned(tmp_path)
    assert not any(weight.requires_grad for weight in embedding.parameters())
    some = torch.cat([views.features[:, ::64].flatten(0, 1).float() for views in POOL])
    torch.testing.assert_close(embedding.mean, some.mean(0))
    torch.testing.assert_close(embedding.deviation, some.std(0) + 1e-4)


def test_a_stopped_run_ends_with_the_same_weights(tmp_path):
    whole = learned(tmp_path, "whole").state_dict()

    def stop(step, losses):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned(tmp_path, "parts", told=stop)
    assert all(torch.equal(value, whole[name]) for name, value in learned(tmp_path, "parts").state_dict().items())


def views_of(*draws):
    """All views of some draws, embedded as they are."""
    features = torch.cat([draw.features.float() for draw in draws])
    classes = torch.cat([draw.classes for draw in draws])
    embedded = torch.cat([features[..., :EMBEDDED], torch.ones_like(features[..., :1])], dim=-1)
    return embed._Views(features, classes, embedded, [draw for draw in draws for _ in draw.features])


@pytest.mark.parametrize(
    ("names", "own", "asked_elsewhere"),
    [
        (("lawn", "roof"), (), True),  # numbered in another order
        (("lake", "lawn"), (), False),  # a place that would not label a roof
        (("lake", "lawn"), ("roof",), True),  # a roof as no other place has it
    ],
)
def test_classes_are_asked_of_places_that_know_them(names, own, asked_elsewhere):
    first, second = place(0, own=own), place(1, names=names)
    views = views_of(first, second)
    config = replace(CONFIG, several_share=0.0, elsewhere=9)
    tasks = [t for t in embed._classes(views, config, np.random.default_rng(0)) if t.view == 0]
    roof = next(t for t in tasks if torch.equal(t.marked, first.classes[0] == 1))
    assert [view for view, _, _ in roof.asked if view < 3] == [1, 2]
    assert bool([view for view, _, _ in roof.asked if view >= 3]) == asked_elsewhere
    for view, true, counted in roof.asked:
        owner = views.owners[view]
        number = owner.names.index("roof") + 1 if "roof" in owner.names else -5
        assert torch.equal(true, views.classes[view] == number) and counted.all()


def test_what_nobody_labelled_does_not_count_and_what_nobody_may_ask_for_is_background():
    draw = place(0)
    draw.classes[:, :20], draw.classes[:, 20:40] = UNLABELLED, UNKNOWN
    for task in embed._classes(views_of(draw), replace(CONFIG, several_share=0.0), np.random.default_rng(0)):
        assert not task.counted[:20].any() and task.counted[20:].all() and not task.marked[:40].any()


def test_clusters_are_those_of_k_means():
    """Of scikit-learn's, from the same centres."""
    draws = torch.Generator().manual_seed(5)
    values = 4.0 * torch.randn(3, 2, generator=draws)[torch.arange(90) % 3] + 0.5 * torch.randn(90, 2, generator=draws)
    for seed in range(5):
        first = torch.randperm(90, generator=torch.Generator().manual_seed(seed))[:3]
        expected = KMeans(3, init=values[first].numpy(), n_init=1, max_iter=embed.CLUSTER_ROUNDS).fit(values.numpy())
        found = embed._k_means(values, 3, torch.Generator().manual_seed(seed))
        assert found.tolist() == expected.labels_.tolist()


def test_clusters_are_asked_of_the_other_views_of_their_place():
    first, second = place(0), place(1)
    views = views_of(first, second)
    draws = torch.Generator().manual_seed(0)
    tasks = list(embed._clusters(views, views.features, replace(CONFIG, clusters=30), np.random.default_rng(0), draws))
    assert {task.view for task in tasks} == {0, 3}
    for task in tasks:
        assert [view for view, _, _ in task.asked] == [task.view + 1, task.view + 2]
        assert task.weight == CONFIG.cluster_weight and task.counted.all()
        assert embed.LEAST_PLACES <= task.marked.sum() <= embed.MOST_OF_CLUSTER * 128
    # What lies nearer to the marked places than to all others is of the cluster in other views too, as a rule.
    agrees = [
        float((nearest(views.features[view], views.features[task.view], task.marked) == true).float().mean())
        for task in tasks
        for view, true, _ in task.asked
    ]
    assert np.mean(agrees) > 0.8


def nearest(asked, known, marked):
    return marked[torch.cdist(asked, known).argmin(1)]


def test_of_few_marks_some_are_left():
    marked = torch.arange(120) < 60
    rng, draws = np.random.default_rng(0), torch.Generator().manual_seed(0)
    few = embed._few(marked, replace(CONFIG, few_share=1.0), rng, draws)
    assert int(few.sum()) == 10 and not (few & ~marked).any()
    assert torch.equal(embed._few(marked, replace(CONFIG, few_share=0.0), rng, draws), marked)
