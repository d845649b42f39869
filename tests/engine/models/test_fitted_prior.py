"""A class map fitted to references, against scikit-learn's ridge regression and on painted squares."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from refsam_qgis.engine.models import fitted_prior
from refsam_qgis.engine.models.embedding import PixelEmbedding
from refsam_qgis.engine.models.fit_rules import REGRESSION_ALONE, FitRules
from refsam_qgis.engine.models.fitted_prior import FittedHead, FittedPrior, thin
from refsam_qgis.engine.models.pixel_features import FEATURES, pixel_features
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED

GAIN, LIMIT = FitRules().gain, FitRules().limit

CPU = torch.device("cpu")
SIDE = 256
GROUND, ROOF, FIELD = (0.35, 0.45, 0.25), (0.7, 0.2, 0.15), (0.25, 0.35, 0.6)
ONE, OTHER = (slice(32, 96), slice(32, 96)), (slice(144, 208), slice(128, 192))


def painted(*patches, seed=0, noise=0.04):
    """Ground ``(1, 3, SIDE, SIDE)`` with patches of other colours."""
    image = torch.tensor(GROUND).view(3, 1, 1).repeat(1, SIDE, SIDE)
    for place, colour in patches:
        image[(slice(None), *place)] = torch.tensor(colour).view(3, 1, 1)
    grain = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + noise * grain).clamp(0, 1)[None]


def mask_of(place, value=FOREGROUND, rest=BACKGROUND):
    mask = torch.full((1, SIDE, SIDE), rest, dtype=torch.uint8)
    mask[(0, *place)] = value
    return mask


def inner(place):
    """Cells of a patch that lie whole inside it, away from its edge."""
    return tuple(slice(part.start // 4 + 3, part.stop // 4 - 3) for part in place)


def same(head, other):
    ours, theirs = head.dump(), other.dump()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture(scope="module")
def prior():
    return FittedPrior(CPU)


@pytest.fixture(scope="module")
def two_roofs():
    return pixel_features(painted((ONE, ROOF), (OTHER, ROOF), seed=1))


def expected_logits(prior, features, masks, target):
    """Reference: scikit-learn in double precision on the same random features, without looking at `fit`."""
    size = features.shape[-1]
    rules = prior.rules
    flat = features.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    blocks = masks.numpy().reshape(len(masks), size, masks.shape[-2] // size, size, masks.shape[-1] // size)
    inside, outside, doubtful = (
        (blocks == value).mean((2, 4)).reshape(-1) for value in (FOREGROUND, BACKGROUND, UNMARKED)
    )
    known = inside + outside + doubtful > 0.5
    mean, deviation = flat[known].mean(0), flat[known].std(0, ddof=1)
    deviation = deviation + 1e-3 * abs(mean) + 1e-6

    def expand(values):
        standard = np.clip((values - mean) / deviation, -LIMIT, LIMIT)
        angles = standard @ prior._frequencies.double().numpy()
        waves = np.hstack([np.cos(angles), np.sin(angles)]) / np.sqrt(rules.frequencies)
        # Ten times the offset's column is a hundredth of the penalty on its weight.
        return np.hstack([waves, rules.linear * standard, np.full((len(values), 1), 10)])

    def least(share):
        return share * (share >= 0.3)

    def solve(positive, negative, share=0.5):
        weights = np.concatenate(
            [share * positive / positive.sum(), (1 - share) * negative / max(negative.sum(), 1e-6)]
        )
        ridge = Ridge(alpha=rules.ridge, fit_intercept=False, solver="cholesky")
        return ridge.fit(np.vstack([rows, rows]), np.repeat([1.0, -1.0], len(rows)), weights)

    rows = expand(flat)
    positive, rest = least(inside), least(outside + doubtful)
    taken = np.zeros_like(rest)
    if doubtful.any():
        taken = np.where((solve(positive, rest).predict(rows) > 0) & (doubtful > 0), rest, 0)
    marked, all_rest = inside.sum(), (outside + doubtful).sum()
    frequency = (marked + all_rest * taken.sum() / rest.sum()) / (marked + all_rest)
    assert 0.01 < frequency < 0.2
    fits = [solve(positive, rest - taken, share) for share in (0.5, frequency)]
    asked = target.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    mean_of_both = np.mean([ridge.predict(expand(asked)) for ridge in fits], axis=0)
    return GAIN * mean_of_both.reshape(len(target), *target.shape[-2:])


@pytest.mark.parametrize("others", [None, BACKGROUND, UNMARKED])
@pytest.mark.parametrize("rest", [BACKGROUND, UNMARKED])
@pytest.mark.parametrize("shots", [1, 2])
def test_logits_equal_scikit_learn(two_roofs, rest, shots, others):
    """Objects like those marked are what the rest is, or known not to be of the class, or not looked at."""
    prior = FittedPrior(CPU, FitRules(frequencies=60, ridge=1e-3, pixels=20_000))
    features = torch.cat([two_roofs, pixel_features(painted((OTHER, ROOF), seed=2))])[:shots]
    masks = torch.cat([mask_of((slice(30, 97), slice(33, 95)), rest=rest), mask_of(OTHER, rest=rest)])[:shots]
    masks[:, 220:] = IGNORE
    if others is not None:
        masks[(0, *OTHER)] = others
    target = pixel_features(painted((OTHER, ROOF), (ONE, FIELD), seed=3))
    ours = prior.logits(target, prior.fit(features, masks))[0].double().numpy()
    expected = expected_logits(prior, features, masks, target)[0]
    assert expected.std() > 1
    # Single precision decides some of the round's doubtful pixels, those at 0, in another way.
    np.testing.assert_allclose(ours, expected, atol=0.05 if UNMARKED in (rest, others) else 0.02)


def kernel_error(frequencies, draw=None):
    """Root mean square of what products of waves differ by from exp(-s^2 |x - y|^2 / 2) (Rahimi and Recht)."""
    prior = FittedPrior(CPU, FitRules(frequencies=frequencies, linear=0.0))
    width = prior.rules.scale / (FEATURES / 8) ** 0.5
    if draw is not None:
        prior._frequencies = draw * width
    points = torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(0)).clamp(-LIMIT, LIMIT)
    waves = prior._waves(points)[:, :-1]
    expected = torch.exp(-(width**2) * torch.cdist(points, points).square() / 2)
    assert expected.min() < 0.4
    return float((waves @ waves.T - expected).square().mean().sqrt())


def test_waves_are_a_gaussian_kernel():
    assert kernel_error(20_000) < 0.005 < kernel_error(128) < 0.04


def test_frequencies_at_right_angles_are_worth_more_than_any():
    """Yu et al. 2016: as Gaussian vectors one by one, but the kernel is closer."""
    drawn = fitted_prior.orthogonal(4 * FEATURES + 3, 5)
    assert drawn.shape == (FEATURES, 4 * FEATURES + 3)
    block = torch.nn.functional.normalize(drawn[:, FEATURES : 2 * FEATURES], dim=0)
    torch.testing.assert_close(block.T @ block, torch.eye(FEATURES), atol=1e-5, rtol=0)
    lengths = drawn.norm(dim=0)
    assert float(lengths.square().mean()) == pytest.approx(FEATURES, rel=0.05)
    assert float(lengths.std()) == pytest.approx(0.5**0.5, rel=0.2)  # of a chi distribution
    draws = [torch.randn(FEATURES, 128, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    plain = np.mean([kernel_error(128, draw) for draw in draws])
    assert np.mean([kernel_error(128, fitted_prior.orthogonal(128, seed)) for seed in range(8)]) < 0.8 * plain


def test_a_marked_colour_is_told_from_others(prior):
    reference = pixel_features(painted((ONE, ROOF), (OTHER, FIELD), seed=1))
    target = pixel_features(painted((OTHER, ROOF), (ONE, FIELD), seed=2))
    for marked, found, other in ((ONE, OTHER, ONE), (OTHER, ONE, OTHER)):
        logits = prior.logits(target, prior.fit(reference, mask_of(marked)))[0]
        truth = torch.zeros_like(logits, dtype=torch.bool)
        truth[tuple(slice(part.start // 4, part.stop // 4) for part in found)] = True
        assert ((logits > 0) & truth).sum() / ((logits > 0) | truth).sum() > 0.9
        assert logits[inner(found)].min() > 1 and logits[inner(other)].max() < -1


def test_trees_find_what_is_like_the_marked(prior):
    reference = pixel_features(painted((ONE, ROOF), (OTHER, FIELD), seed=1))
    target = pixel_features(painted((OTHER, ROOF), (ONE, FIELD), seed=2))
    found = prior.map(target, prior.fit(reference, mask_of(ONE)))
    assert found.votes.shape == found.values.shape
    assert found.votes[0][inner(OTHER)].min() > 1 and found.votes[0][inner(ONE)].max() < -1
    limit = float(torch.logit(torch.tensor(fitted_prior.SURE)))
    assert found.votes.abs().max() <= limit + 1e-4


def test_samples_at_hand_are_asked_about_alike(prior, two_roofs):
    head = prior.fit(two_roofs, mask_of(ONE))
    samples = fitted_prior.thin(two_roofs)
    assert samples.shape == (1, 32, 32, FEATURES)
    torch.testing.assert_close(samples[0, 3, 5], two_roofs[0, :, 6:8, 10:12].mean((1, 2)))
    found, again = prior.map(two_roofs, head, samples=samples), prior.map(two_roofs, head)
    assert torch.equal(found.votes, again.votes) and torch.equal(found.values, again.values)
    coarse = prior.logits(torch.nn.functional.avg_pool2d(two_roofs, 2), head)[:, None]
    expected = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.values, expected)


def test_trees_weigh_the_class_between_one_half_and_its_frequency(prior):
    """Where all features are the same no test tells anything, so each leaf says what the class weighs."""
    flat = torch.ones(1, FEATURES, SIDE // 4, SIDE // 4)
    mask = mask_of((slice(0, 64), slice(0, 64)))
    share = (0.5 * float((mask == FOREGROUND).float().mean())) ** 0.5
    votes = prior.map(flat, prior.fit(flat, mask)).votes
    torch.testing.assert_close(votes, torch.logit(torch.tensor(share)).expand_as(votes), atol=1e-3, rtol=0)


def test_unmarked_twins_do_not_speak_against_the_class_in_trees(prior, two_roofs):
    said = [
        prior.map(two_roofs, prior.fit(two_roofs, mask_of(ONE, rest=rest))).votes[0] for rest in (UNMARKED, BACKGROUND)
    ]
    assert said[0][inner(OTHER)].mean() > said[1][inner(OTHER)].mean() + 1
    assert said[0][inner(OTHER)].min() > 0


def test_without_trees_or_background_nobody_votes(prior, two_roofs):
    for fitter, mask in ((FittedPrior(CPU, REGRESSION_ALONE), mask_of(ONE)), (prior, mask_of(ONE, rest=IGNORE))):
        found = fitter.map(two_roofs, fitter.fit(two_roofs, mask))
        assert found.values.any() and not found.votes.any()


def test_fits_are_equal_for_equal_input(two_roofs):
    rules = FitRules(pixels=200)
    first, second = (FittedPrior(CPU, rules).fit(two_roofs, mask_of(ONE)) for _ in range(2))
    assert same(first, second)
    other = FittedPrior(CPU, replace(rules, seed=rules.seed + 1)).fit(two_roofs, mask_of(ONE))
    assert not torch.equal(other.weights, first.weights)


def test_stored_heads_are_the_same_bit_by_bit(prior, two_roofs):
    head = prior.fit(two_roofs, mask_of(ONE))
    tensors = head.dump()
    assert all(tensor.device == CPU and tensor.is_contiguous() for tensor in tensors.values())
    restored = FittedHead.restore({**tensors, "another": torch.zeros(1)}, CPU)
    assert same(head, restored)
    for missing in tensors:
        with pytest.raises(ValueError, match="no fitted head"):
            FittedHead.restore({name: value for name, value in tensors.items() if name != missing}, CPU)


@pytest.fixture(scope="module")
def embedding():
    torch.manual_seed(0)
    return PixelEmbedding(16).requires_grad_(False)


@pytest.mark.parametrize("rest", [BACKGROUND, UNMARKED])
def test_the_learned_fit_is_of_marked_places_of_the_image_alone(embedding, two_roofs, rest):
    """Every place of `thin` by itself; doubtful ones that look like the class are left out of a second fit."""
    prior, mask = FittedPrior(CPU, embedding=embedding), mask_of(ONE, rest=rest)
    mask[:, :, 224:] = IGNORE
    samples = thin(two_roofs)
    known = torch.ones(1, 32, 32, dtype=torch.bool)
    known[:, :, 28:] = False
    embedded = embedding(samples, known).view(1, 1024, -1)
    inside = torch.zeros(1, 32, 32)
    inside[(0, *(slice(part.start // 8, part.stop // 8) for part in ONE))] = 1
    of_class, of_rest = inside.view(1, -1), (known.float() - inside).view(1, -1)
    head = embedding.fit(embedded, of_class, of_rest)
    if rest == UNMARKED:
        like_class = (embedded @ head[..., None])[..., 0] > 0
        assert (like_class & (of_rest > 0)).any()
        head = embedding.fit(embedded, of_class, of_rest * ~like_class)
    torch.testing.assert_close(prior.fit(two_roofs, mask).learned, head[0])


def test_what_the_learned_fit_says_is_enlarged(embedding, two_roofs):
    prior = FittedPrior(CPU, embedding=embedding)
    head = prior.fit(two_roofs, mask_of(ONE))
    inside = torch.ones(1, 64, 64, dtype=torch.bool)
    inside[:, :, 40:] = False
    found = prior.map(two_roofs, head, inside)
    said = embedding.ask(embedding(thin(two_roofs), inside[:, ::2, ::2]), head.learned)
    assert said.std() > 0.1
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(found.learned, 2), said, atol=0.15, rtol=0.1)
    at_hand = prior.map(two_roofs, head, inside, thin(two_roofs), prior.embed(thin(two_roofs), inside))
    assert torch.equal(at_hand.learned, found.learned)
    restored = FittedHead.restore(head.dump(), CPU)
    assert torch.equal(prior.map(two_roofs, restored, inside).learned, found.learned)


def test_without_an_embedding_or_a_say_nothing_is_learned(embedding, two_roofs):
    for prior in (FittedPrior(CPU), FittedPrior(CPU, REGRESSION_ALONE, embedding)):
        head = prior.fit(two_roofs, mask_of(ONE))
        assert head.learned.shape == (0,) and prior.embed(thin(two_roofs)) is None
        assert not prior.map(two_roofs, head).learned.any()


def test_references_share_the_pixels():
    shares = torch.zeros(3, 400)
    shares[0, :300], shares[1, 100:110], shares[2] = 1.0, 0.5, 0.2
    shares[2, 7] = 1.0
    chosen = fitted_prior._choose(shares, 100, 0.3, torch.Generator().manual_seed(0))
    assert chosen.sum(1).tolist() == [34, 10, 1]  # a third each, of what belongs to a mark
    assert not (chosen & (shares < 0.3)).any()
    assert not fitted_prior._choose(torch.zeros(2, 9), 100, 0.3, torch.Generator()).any()


@pytest.mark.parametrize("side", [30, 64, 100])
def test_pixels_larger_than_a_feature_are_repeated(two_roofs, side):
    mask = torch.rand(1, side, side, generator=torch.Generator().manual_seed(0)) < 0.4
    index = (torch.arange(64) * side) // 64
    shares = fitted_prior._shares(mask, two_roofs).view(1, 64, 64)
    if side <= 64:
        assert torch.equal(shares, mask[:, index][:, :, index].float())
    else:
        assert shares.mean() == pytest.approx(float(mask.float().mean()), abs=0.01) and len(shares.unique()) > 2


def test_every_dot_of_a_tiny_mark_counts():
    """None covers much of a feature; those that only touch one do not speak for it."""
    shares = torch.tensor([[0.0, 0.25, 0.2, 0.24, 0.05, 0.13, 0.32]])
    for last, expected in ((0.25, [1, 2, 3, 5, 6]), (0.32, [1, 2, 3, 6])):
        shares[0, 6] = last
        chosen = fitted_prior._choose(shares, 100, 0.3, torch.Generator().manual_seed(0))
        assert chosen[0].nonzero()[:, 0].tolist() == expected


@pytest.mark.parametrize("place", [ONE, (slice(0, 8), slice(0, 8)), (slice(0, 250), slice(0, 250))])
def test_one_fit_is_balanced_the_other_has_the_frequencies_of_the_references(place):
    """With a penalty above all that a difference could pay for, the offset is left: 0 balanced, else 2 share - 1."""
    mask = mask_of(place)
    share = float((mask == FOREGROUND).float().mean())
    blunt = FittedPrior(CPU, FitRules(ridge=1e6)).fit(pixel_features(painted((ONE, ROOF))), mask)
    expected = (0 + 2 * max(share, fitted_prior.RAREST) - 1) / 2
    assert float(blunt.weights[-1]) * 1e4 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("rest", [BACKGROUND, UNMARKED, IGNORE])
@pytest.mark.parametrize("side", [64, 16, 100, 256, 512])
def test_masks_of_any_side(prior, two_roofs, side, rest):
    """Smaller than the grid, not a multiple of it, and the image's own."""
    mask = mask_of(ONE, rest=rest)
    index = ((2 * torch.arange(side) + 1) * SIDE) // (2 * side)
    logits = prior.logits(two_roofs, prior.fit(two_roofs, mask[:, index][:, :, index]))[0]
    assert torch.isfinite(logits).all() and logits[inner(ONE)].min() > 0
    assert rest == IGNORE or logits[:, 52:].max() < 0


@pytest.mark.parametrize("rest", [BACKGROUND, UNMARKED])
def test_one_pixel_of_a_large_chip(prior, rest):
    image = torch.nn.functional.interpolate(painted((ONE, ROOF), (OTHER, FIELD)), scale_factor=2)
    features = pixel_features(image)
    mask = torch.full((1, 2048, 2048), rest, dtype=torch.uint8)
    mask[0, 512, 517] = FOREGROUND
    logits = prior.logits(features, prior.fit(features, mask))[0]
    assert torch.isfinite(logits).all()
    assert logits[32, 32] > 0 > logits[:, 104:].max()


@pytest.mark.parametrize("rest", [BACKGROUND, UNMARKED])
def test_a_thin_scribble_on_a_large_chip(prior, rest):
    """Two pixels wide, slanted, on a chip of 2048: it covers a small part of every feature it crosses."""
    features = pixel_features(painted((ONE, ROOF), (OTHER, ROOF), seed=4))
    mask = torch.full((1, 2048, 2048), IGNORE, dtype=torch.uint8)
    mask[:, :, 1100:] = rest  # a guard ring around the stroke, and the rest
    mask[(0, *(slice(part.start * 8, part.stop * 8) for part in OTHER))] = IGNORE
    rows = torch.arange(300, 700)
    for offset in (0, 1):
        mask[0, rows, 300 + rows // 3 + offset] = FOREGROUND
    logits = prior.logits(features, prior.fit(features, mask))[0]
    assert (logits[inner(ONE)] > 0).float().mean() > 0.95
    assert (logits[inner(OTHER)] > 0).float().mean() > 0.9
    assert (logits[:, 52:] < 0).float().mean() > 0.95


def test_class_alone_finds_what_is_like_it(prior):
    """Nothing says what the class is not: then all that is like it is found."""
    features = pixel_features(painted(seed=5))
    head = prior.fit(features, torch.full((1, SIDE, SIDE), FOREGROUND, dtype=torch.uint8))
    logits = prior.logits(pixel_features(painted((ONE, ROOF), seed=6)), head)[0]
    assert torch.isfinite(logits).all() and logits[32:, 32:].min() > 0.5 * GAIN


@pytest.mark.parametrize("size", [1, 4, 40])
def test_a_point_and_nothing_else(prior, two_roofs, size):
    mask = torch.full((1, SIDE, SIDE), IGNORE, dtype=torch.uint8)
    mask[:, 60 : 60 + size, 60 : 60 + size] = FOREGROUND
    logits = prior.logits(two_roofs, prior.fit(two_roofs, mask))[0]
    assert torch.isfinite(logits).all()
    assert logits[15, 15] > 0.5 * GAIN and logits[inner(OTHER)].median() > 0


def test_no_class_pixel_is_refused(prior, two_roofs):
    for value in (BACKGROUND, UNMARKED, IGNORE):
        with pytest.raises(ValueError, match="at least one class pixel"):
            prior.fit(two_roofs, torch.full((1, SIDE, SIDE), value, dtype=torch.uint8))


def test_objects_that_nobody_marked_are_found_again(two_roofs):
    target = pixel_features(painted((OTHER, ROOF), (ONE, FIELD), seed=7))
    found = {}
    for rounds in (1, 2):
        prior = FittedPrior(CPU, FitRules(rounds=rounds))
        partial = prior.fit(two_roofs, mask_of(ONE, rest=UNMARKED))
        found[rounds] = prior.logits(two_roofs, partial)[0][inner(OTHER)].mean()
        logits = prior.logits(target, partial)[0]
        assert rounds == 1 or (logits[inner(OTHER)].min() > 0 and logits[inner(ONE)].max() < 0)
    assert found[2] > 0.8 * GAIN and found[2] > found[1] + 0.2
    prior = FittedPrior(CPU)
    complete = prior.logits(two_roofs, prior.fit(two_roofs, mask_of(ONE)))[0]
    assert complete[inner(OTHER)].mean() < found[2] - 0.2  # there it was said to be background


def test_second_thoughts_are_for_doubtful_pixels_only(two_roofs):
    once, twice = (FittedPrior(CPU, FitRules(rounds=rounds)) for rounds in (1, 2))
    mask = mask_of(ONE)
    assert torch.equal(once.fit(two_roofs, mask).weights, twice.fit(two_roofs, mask).weights)
    mask[(0, *OTHER)] = UNMARKED
    assert not torch.equal(once.fit(two_roofs, mask).weights, twice.fit(two_roofs, mask).weights)


def test_what_is_ignored_does_not_matter(prior, two_roofs):
    mask = mask_of(ONE)
    mask[:, 128:] = IGNORE
    other = two_roofs.clone()
    other[:, :, 32:] = torch.randn(other[:, :, 32:].shape, generator=torch.Generator().manual_seed(0)) * 1e3
    ours, theirs = prior.fit(two_roofs, mask), prior.fit(other, mask)
    assert same(ours, theirs)
    other[:, :, 31, 0] += 1
    assert not torch.equal(prior.fit(other, mask).weights, ours.weights)


@pytest.mark.parametrize("rest", [BACKGROUND, UNMARKED, IGNORE])
@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_a_constant_image_gives_finite_logits(prior, grey, rest):
    flat = pixel_features(torch.full((1, 3, SIDE, SIDE), grey))
    head = prior.fit(flat, mask_of(ONE, rest=rest))
    for target in (flat, pixel_features(painted((ONE, ROOF)))):
        logits = prior.logits(target, head)
        assert torch.isfinite(logits).all() and logits.abs().max() < 50


def test_copies_of_a_reference_say_what_it_says(prior, two_roofs):
    """All but the deviation's degree of freedom, and which pixels are drawn where there are too many."""
    one = prior.logits(two_roofs, prior.fit(two_roofs, mask_of(ONE)))
    three = prior.logits(two_roofs, prior.fit(two_roofs.repeat(3, 1, 1, 1), mask_of(ONE).repeat(3, 1, 1)))
    torch.testing.assert_close(three, one, atol=0.6, rtol=0)
    assert ((three > 0) == (one > 0)).float().mean() > 0.995
    all_pixels = FittedPrior(CPU, FitRules(pixels=3 * 64 * 64))
    one = all_pixels.logits(two_roofs, all_pixels.fit(two_roofs, mask_of(ONE)))
    three = all_pixels.logits(two_roofs, all_pixels.fit(two_roofs.repeat(3, 1, 1, 1), mask_of(ONE).repeat(3, 1, 1)))
    torch.testing.assert_close(three, one, atol=0.02, rtol=0)


def test_the_order_of_references_hardly_matters(prior):
    features = pixel_features(torch.cat([painted((ONE, ROOF), seed=1), painted((OTHER, FIELD), seed=2)]))
    masks = torch.cat([mask_of(ONE), mask_of(OTHER)])
    logits = prior.logits(features, prior.fit(features, masks))
    turned = prior.logits(features, prior.fit(features.flip(0), masks.flip(0)))
    assert ((logits > 0) == (turned > 0)).float().mean() > 0.99
    # Both kinds are the class, though their mean is neither.
    assert logits[0][inner(ONE)].min() > 0 and logits[1][inner(OTHER)].min() > 0


def test_each_target_of_a_batch_is_asked_alone(prior, two_roofs):
    head = prior.fit(two_roofs, mask_of(ONE))
    batch = torch.cat([two_roofs, pixel_features(painted((OTHER, ROOF), seed=8))])
    together = prior.logits(batch, head)
    assert together.shape == (2, 64, 64)
    for alone, features in zip(together, batch, strict=True):
        torch.testing.assert_close(prior.logits(features[None], head)[0], alone, atol=1e-4, rtol=1e-4)


def test_far_values_say_no_more(prior, two_roofs):
    head = prior.fit(two_roofs, mask_of(ONE))
    far, farther = (head.mean.view(1, -1, 1, 1) + factor * head.deviation.view(1, -1, 1, 1) for factor in (5, 5000))
    torch.testing.assert_close(prior.logits(far, head), prior.logits(farther, head))


def test_rules_are_plain_numbers():
    assert all(isinstance(value, int | float) for value in asdict(FitRules()).values())


def closeness_by_hand(prior, head, features, inside):
    """Reference: NumPy, over every pixel that is looked at."""
    deviations = (features[0].permute(1, 2, 0) - head.mean) / head.deviation
    squares = np.clip(deviations.numpy(), -LIMIT, LIMIT)[::4, ::4] ** 2
    return 2 / (1 + squares[inside[0, ::4, ::4].numpy()].mean())


def test_closeness_falls_the_farther_a_target_is(prior, two_roofs):
    head = prior.fit(two_roofs, mask_of(ONE))
    everywhere = torch.ones(1, *two_roofs.shape[-2:], dtype=torch.bool)
    own = prior.map(two_roofs, head)
    assert float(own.closeness) == pytest.approx(closeness_by_hand(prior, head, two_roofs, everywhere), rel=1e-4)
    assert float(own.closeness) == pytest.approx(1, abs=0.1)  # the references themselves
    like, darker, other = (
        float(prior.map(pixel_features(image), head).closeness)
        for image in (
            painted((OTHER, ROOF), seed=2),
            0.6 * painted((OTHER, ROOF), seed=2),
            painted(((slice(None), slice(None)), FIELD)),
        )
    )
    assert 1.2 > like > darker > other > 0


def test_closeness_is_that_of_the_image_alone(prior, two_roofs):
    """Padding looks like nothing in the references, and must not make a tile at the border one that is far away."""
    head = prior.fit(two_roofs, mask_of(ONE))
    image = painted((ONE, ROOF), seed=3)
    image[..., 128:] = 0
    features = pixel_features(image)
    inside = torch.ones(1, *features.shape[-2:], dtype=torch.bool)
    inside[..., inside.shape[-1] // 2 :] = False
    found = float(prior.map(features, head, inside).closeness)
    assert found == pytest.approx(closeness_by_hand(prior, head, features, inside), rel=1e-4)
    assert found > 1.5 * float(prior.map(features, head).closeness)
    assert float(prior.map(features, head, torch.zeros_like(inside)).closeness) == 2  # nothing to be far away
