"""Both segmenters with a fitted prior, around a SAM small enough to run on whole frames."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models import training_free, virefsam
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.fitted import FittedSegmenter, FittedStockSegmenter, _colours
from refsam_qgis.engine.models.fitted_prior import FittedMap, FittedPrior
from refsam_qgis.engine.models.guided_filter import GuidedFilter
from refsam_qgis.engine.models.pixel_features import FEATURES, pixel_features
from refsam_qgis.engine.models.sam import normalise
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, Shots
from refsam_qgis.engine.models.virefsam import ViRefSAM, ViRefSAMSegmenter
from refsam_qgis.engine.references.descriptions import PortableReferences, describe
from refsam_qgis.engine.training.trainer import fit_priors
from tests.engine.models.conftest import randomise
from tests.engine.pocket_sam import pocket_sam

SIDE = 128
ROOF = (slice(16, 56), slice(24, 72))
TWIN = (slice(80, 112), slice(64, 120))


def picture(*places, seed=0):
    """A tile ``(1, 3, SIDE, SIDE)`` of rough ground with red places."""
    grain = 30 * torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    image = torch.tensor([80.0, 110.0, 60.0]).view(3, 1, 1) + grain
    for rows, columns in places:
        image[:, rows, columns] = torch.tensor([190.0, 50.0, 40.0]).view(3, 1, 1) + grain[:, rows, columns]
    return image.to(torch.uint8)[None]


def whole(images):
    return torch.ones(len(images), *images.shape[-2:], dtype=torch.bool)


def shots(count=1, seed=0):
    images = picture(ROOF, seed=seed).repeat(count, 1, 1, 1)
    masks = torch.full((count, SIDE, SIDE), BACKGROUND, dtype=torch.uint8)
    masks[(slice(None), *ROOF)] = FOREGROUND
    return Shots(images, masks, whole(images))


@pytest.fixture(scope="module")
def guided():
    """ViRefSAM with open gates and a decoder that has some say."""
    torch.manual_seed(3)
    model = ViRefSAM(pocket_sam(256), ViRefSAMConfig(queries=8))
    randomise(model.vcp, 2)
    randomise(model.dta, 3)
    return FittedSegmenter(model)


@pytest.fixture(scope="module")
def stock():
    return FittedStockSegmenter(pocket_sam())


@pytest.fixture(params=["guided", "stock"])
def segmenter(request):
    return request.getfixturevalue(request.param)


def tensors_of(segmenter, reference):
    return segmenter.dump_reference(reference)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def answer(segmenter, reference, *places, seed=1):
    image = picture(*places, seed=seed)
    return segmenter.segment(segmenter.encode(image, whole(image)), reference)


def test_encodings_at_hand_describe_alike(segmenter, monkeypatch):
    first, second = shots(seed=0), shots(seed=5)
    both = Shots(*(torch.cat([getattr(one, name) for one in (first, second)]) for name in ("images", "masks", "valid")))
    encodings = [segmenter.encode(one.images, one.valid) for one in (first, second)]
    described = tensors_of(segmenter, segmenter.describe(both))
    monkeypatch.setattr(type(segmenter), "encode", None)
    assert same(tensors_of(segmenter, segmenter.describe(both, encodings)), described)
    assert not same(tensors_of(segmenter, segmenter.describe(both, encodings[::-1])), described)


def test_encodings_hold_details_of_the_frame(segmenter):
    image = picture(ROOF)
    encoding = segmenter.encode(image, whole(image))
    assert encoding.details.shape == (1, FEATURES, 256, 256)
    enlarged = F.interpolate(image.float(), (1024, 1024), mode="bilinear", antialias=True) / 255
    # The deviation of what is flat is rounding, some 3e-4 of it.
    torch.testing.assert_close(encoding.details, pixel_features(enlarged), atol=2e-3, rtol=1e-3)


def test_colours_undo_the_normalisation():
    image = torch.randint(0, 256, (1, 3, 1024, 1024), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    colours = _colours(normalise(image, whole(image), pocket_sam()), pocket_sam())
    torch.testing.assert_close(colours, image / 255, atol=1e-6, rtol=0)


def test_training_fits_what_a_run_fits(guided):
    """No difference between the prior that the weights learn with and the one that they run with."""
    enlarge = dict(size=(1024, 1024), mode="nearest")
    reference, target = (F.interpolate(picture(*places).float(), **enlarge).byte() for places in ([ROOF], [TWIN]))
    masks = F.interpolate(shots().masks[:, None].float(), **enlarge).byte()[:, 0]
    batch = {"references": reference[None], "reference_masks": masks[None], "target": target}
    trained = fit_priors(guided.model, batch)
    described = guided.describe(Shots(reference, masks, whole(reference)))
    encoding = guided.encode(target, whole(target))
    ran = FittedPrior(guided.device).map(encoding.details, described.head, encoding.inside)
    assert ran.values.std() > 1
    torch.testing.assert_close(trained.values, ran.values, atol=0.1, rtol=0)
    assert (trained.values - ran.values).abs().mean() < 5e-3
    torch.testing.assert_close(trained.closeness, ran.closeness, atol=1e-3, rtol=0)


def test_the_answer_is_the_models_with_the_fitted_prior(guided):
    reference = guided.describe(shots())
    image = picture(TWIN, seed=1)
    encoding = guided.encode(image, whole(image))
    prior = FittedPrior(guided.device).map(encoding.details, reference.head)
    plain = ViRefSAMSegmenter(guided.model)
    prototypes = plain.describe(shots())
    assert torch.equal(prototypes.vectors, reference.prototypes.vectors)
    with torch.no_grad():
        drawn = guided.model(plain.encode(image, whole(image)), prototypes, prior=prior)[0]
    ours = guided.segment(encoding, reference)
    assert ours.shape == (1, 256, 256) and ours.dtype == torch.float32
    colours = F.avg_pool2d(F.interpolate(image.float(), (1024, 1024), mode="bilinear", antialias=True) / 255, 4)
    torch.testing.assert_close(ours, GuidedFilter(colours).smooth(drawn), atol=0.02, rtol=0.02)
    assert (ours - drawn).abs().max() > 0.1
    assert (ours - plain.segment(encoding.frozen, prototypes)).abs().max() > 0.1


def test_a_decoder_without_a_say_is_not_asked(guided, monkeypatch):
    model = copy.deepcopy(guided.model)
    model.blend.set(prior=0.4, cosine=0.2, likeness=2.0, trees=0.3, shift=-1.0)
    silent = FittedSegmenter(model)
    image = picture(TWIN, seed=1)
    reference, encoding = silent.describe(shots()), guided.encode(image, whole(image))
    prior = FittedPrior(silent.device).map(encoding.details, reference.head, encoding.inside)
    with torch.no_grad():
        asked = model(encoding.frozen, reference.prototypes, prior=prior)[0]

    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(virefsam, "decode", never)
    monkeypatch.setattr(ViRefSAM, "_adapt", never)
    alone = silent.encode(image, whole(image))
    assert alone.frozen.prefix is None and alone.frozen.attended is None
    torch.testing.assert_close(silent.segment(alone, reference), encoding.edges.smooth(asked), atol=1e-5, rtol=1e-5)
    with pytest.raises(AssertionError):
        guided.segment(encoding, reference)


def test_encodings_without_tokens_are_of_another_kind(guided):
    model = copy.deepcopy(guided.model)
    model.blend.set(prior=1.0)
    kinds = [segmenter.encoding_kind() for segmenter in (guided, FittedSegmenter(model))]
    assert kinds == [guided._plain.encoding_kind(), ["features", model.feature_depth]]
    assert kinds[0] != kinds[1]


def test_what_is_beyond_the_raster_makes_no_tile_far_away(guided):
    reference = guided.describe(shots())
    image = picture(ROOF, seed=1)
    inside = whole(image)
    inside[..., 72:] = False
    encoding = guided.encode(torch.where(inside[:, None], image, torch.zeros_like(image)), inside)
    assert 0.5 < encoding.inside.float().mean() < 0.6
    prior = FittedPrior(guided.device)
    seen, all_of_it = (
        float(prior.map(encoding.details, reference.head, part).closeness) for part in (encoding.inside, None)
    )
    assert seen > 1.1 * all_of_it


def test_answers_at_the_edge_of_the_raster_are_smoothed_by_the_raster_alone(guided):
    image = picture(ROOF, seed=1)
    inside = whole(image)
    inside[..., 72:] = False
    edges = guided.encode(torch.where(inside[:, None], image, torch.zeros_like(image)), inside).edges
    counted = F.interpolate(inside[:, None].float(), (256, 256))[:, 0] > 0
    logits = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    one, other = (edges.smooth(torch.where(counted, logits, beyond)) for beyond in (-9.0, 9.0))
    torch.testing.assert_close(one[..., :140], other[..., :140])


def test_each_target_of_a_batch_is_segmented_alone(segmenter):
    reference = segmenter.describe(shots())
    images = torch.cat([picture(TWIN, seed=1), picture(ROOF, seed=9)])
    turned = segmenter.segment(segmenter.encode(images.flip(0), whole(images)), reference).flip(0)
    alone = torch.cat([answer(segmenter, reference, TWIN, seed=1), answer(segmenter, reference, ROOF, seed=9)])
    assert (alone[0] - alone[1]).abs().max() > 1
    torch.testing.assert_close(turned, alone, atol=1e-3, rtol=1e-3)


def test_copies_of_a_shot_say_what_it_says(segmenter):
    """Nearly, where all marked pixels are looked at: the deviation of the features has one degree of freedom less."""
    answers = []
    for count in (1, 3):
        marked = shots(count)
        marked.masks.fill_(IGNORE)
        marked.masks[:, 24:40, 32:48], marked.masks[:, 24:40, 90:106] = FOREGROUND, BACKGROUND
        answers.append(answer(segmenter, segmenter.describe(marked), TWIN))
    one, three = answers
    assert one.std() > 0.5
    assert ((one > 0) == (three > 0)).float().mean() > 0.99
    assert (one - three).abs().mean() < 0.02 * one.std()


def iou(found, *places):
    truth = torch.zeros(256, 256, dtype=torch.bool)
    for rows, columns in places:
        truth[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop] = True
    return float((found & truth).sum() / (found | truth).sum())


def test_the_reference_itself_is_answered_by_its_mask(guided):
    """As far as the prior goes: the decoder's weights are random."""
    certain = FittedSegmenter(copy.deepcopy(guided.model))
    torch.nn.init.constant_(certain.model.blend.decoded_weight, 0.0)
    reference = certain.describe(shots())
    assert iou(answer(certain, reference, ROOF, seed=0)[0] > 0, ROOF) > 0.97
    assert iou(answer(certain, reference, ROOF, TWIN, seed=1)[0] > 0, ROOF, TWIN) > 0.93
    assert (answer(certain, reference, seed=1) > 0).float().mean() < 0.005


@pytest.fixture
def asked(monkeypatch):
    """Let SAM draw nothing; keeps the number of prompts that it was given."""
    prompts = []

    def nothing(sam, features, position, sparse, dense):
        prompts.append(len(sparse))
        return torch.full((len(sparse), 1, 256, 256), -9.0), torch.zeros(len(sparse), 1)

    monkeypatch.setattr(training_free, "decode", nothing)
    return prompts


def test_a_stock_sam_is_asked_for_each_part_and_the_map_stands_in(stock, asked):
    reference = stock.describe(shots())
    assert iou(answer(stock, reference, ROOF, seed=0)[0] > 0, ROOF) > 0.9
    assert asked == [1]
    assert iou(answer(stock, reference, ROOF, TWIN, seed=1)[0] > 0, ROOF, TWIN) > 0.9
    assert asked == [1, 2]
    assert (answer(stock, reference, seed=1) < 0).all() and asked == [1, 2]


def test_where_the_map_stands_in_it_is_the_fitted_one(stock, asked):
    reference = stock.describe(shots())
    encoding = stock.encode(picture(TWIN), whole(picture(TWIN)))
    fitted = FittedPrior(stock.device).map(encoding.details, reference)
    assert fitted.votes.any()
    fine = (fitted.values + fitted.votes) / 2
    answered = stock.segment(encoding, reference)
    found = answered > 0
    assert found.sum() > 1000 and torch.equal(answered[found], fine[found])
    assert (answered <= fine).all()


def test_an_object_smaller_than_a_cell_is_asked_for_and_found(stock, asked, monkeypatch):
    values = torch.full((1, 256, 256), -3.0)
    values[0, 101, 202] = 2.0
    monkeypatch.setattr(stock, "_ask", lambda encoding, head: FittedMap(values, torch.ones(1), values, values))
    found = answer(stock, stock.describe(shots()), TWIN)
    assert asked == [1] and torch.equal(found > 0, values > 0)


def test_without_background_to_grow_trees_from_the_regression_speaks_alone(stock, asked):
    given = shots()
    alone = Shots(given.images, torch.where(given.masks == FOREGROUND, given.masks, IGNORE), given.valid)
    reference = stock.describe(alone)
    encoding = stock.encode(picture(TWIN), whole(picture(TWIN)))
    fitted = FittedPrior(stock.device).map(encoding.details, reference)
    answered = stock.segment(encoding, reference)
    found = answered > 0
    assert found.any() and not fitted.votes.any() and torch.equal(answered[found], fitted.values[found])


def test_a_stock_sam_draws_what_the_map_supports(stock, monkeypatch):
    """A drawn mask over the roof is taken; one beside it is not."""
    reference = stock.describe(shots())
    drawn = torch.full((1, 1, 256, 256), -9.0)
    drawn[..., 36:108, 52:140] = 7.0
    monkeypatch.setattr(training_free, "decode", lambda *arguments: (drawn, torch.zeros(1, 1)))
    found = answer(stock, reference, ROOF, seed=0)[0]
    assert torch.equal(found > 0, drawn[0, 0] > 0)
    monkeypatch.setattr(training_free, "decode", lambda *arguments: (drawn.roll(100, 2), torch.zeros(1, 1)))
    assert iou(answer(stock, reference, ROOF, seed=0)[0] > 0, ROOF) > 0.9


def test_what_lies_under_nodata_does_not_matter(segmenter):
    ours, theirs = shots(), shots()
    for one, content in ((ours, 0), (theirs, 200)):
        one.images[..., 100:] = content
        one.valid[..., 100:] = False
        one.masks[..., 100:] = IGNORE
    described = tensors_of(segmenter, segmenter.describe(ours))
    assert same(tensors_of(segmenter, segmenter.describe(theirs)), described)
    assert not same(tensors_of(segmenter, segmenter.describe(replace(theirs, valid=whole(theirs.images)))), described)


@pytest.mark.parametrize("side", [40, 200])
def test_chips_of_any_side(segmenter, side):
    index = ((2 * torch.arange(side) + 1) * SIDE) // (2 * side)
    full = shots()
    cut = Shots(*(value[..., index, :][..., index] for value in (full.images, full.masks, full.valid)))
    logits = answer(segmenter, segmenter.describe(cut), TWIN)
    assert torch.isfinite(logits).all() and logits.shape == (1, 256, 256)


def test_the_class_alone_is_no_error(segmenter):
    """Nothing but class, and nothing but a point of it."""
    full = shots()
    full.masks.fill_(FOREGROUND)
    assert torch.isfinite(answer(segmenter, segmenter.describe(full), TWIN)).all()
    full.masks.fill_(IGNORE)
    full.masks[0, 30, 40] = FOREGROUND
    assert torch.isfinite(answer(segmenter, segmenter.describe(full), TWIN)).all()


def test_descriptions_are_kept_on_disk_bit_by_bit(segmenter, tmp_path, monkeypatch):
    checkpoint = tmp_path / "sam.pth"
    checkpoint.write_bytes(b"weights")
    options = ModelOptions("vit_b", str(checkpoint), method="fitted")
    assert isinstance(segmenter, PortableReferences)
    computed = describe(segmenter, options, shots())
    logits = answer(segmenter, computed, TWIN)
    monkeypatch.setattr(type(segmenter), "describe", None)
    kept = describe(segmenter, options, shots())
    assert same(tensors_of(segmenter, kept), tensors_of(segmenter, computed))
    assert torch.equal(answer(segmenter, kept, TWIN), logits)


def test_foreign_descriptions_are_refused(segmenter):
    tensors = tensors_of(segmenter, segmenter.describe(shots()))
    for missing in tensors:
        with pytest.raises(ValueError, match="the tensors"):
            segmenter.restore_reference({name: value for name, value in tensors.items() if name != missing})
