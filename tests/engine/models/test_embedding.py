import pytest
import torch
from sklearn.linear_model import Ridge

from refsam_qgis.engine.models.embedding import EMBEDDED, LENGTH, PixelEmbedding
from refsam_qgis.engine.models.pixel_features import FEATURES
from refsam_qgis.engine.models.precision import set_precision


@pytest.fixture
def embedding():
    torch.manual_seed(0)
    embedding = PixelEmbedding(24).requires_grad_(False)
    for weight in embedding.scale_and_shift.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return embedding


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_places_are_of_one_length_with_a_one_for_the_offset(embedding):
    found = embedding(numbers(2, 6, 5, FEATURES))
    assert found.shape == (2, 6, 5, EMBEDDED + 1)
    torch.testing.assert_close(found[..., :-1].norm(dim=-1), torch.full((2, 6, 5), LENGTH))
    assert (found[..., -1] == 1).all()


def test_an_image_is_described_by_its_own_mean_and_spread(embedding):
    embedding.mean += 2
    embedding.deviation *= 4
    flat = numbers(3, 50, FEATURES)
    mean, spread = embedding.describe(flat)
    standard = (flat - 2) / 4
    torch.testing.assert_close(mean, standard.mean(1, keepdim=True))
    torch.testing.assert_close(spread, standard.std(1, correction=0, keepdim=True), atol=1e-4, rtol=1e-3)


def test_what_is_no_image_says_nothing_of_it(embedding):
    samples, inside = numbers(1, 4, 6, FEATURES), torch.ones(1, 4, 6, dtype=torch.bool)
    inside[:, :, 4:] = False
    other = samples.clone()
    other[:, :, 4:] = 3
    one, two = embedding(samples, inside), embedding(other, inside)
    assert torch.equal(one[:, :, :4], two[:, :, :4])
    assert not torch.allclose(embedding(samples)[:, :, :4], embedding(other)[:, :, :4])
    torch.testing.assert_close(one[:, :, :4], embedding(samples[:, :, :4]))
    assert torch.isfinite(embedding(samples, torch.zeros_like(inside))).all()


@pytest.mark.parametrize("marked", [5, 60])
def test_a_fit_is_the_mean_of_two_ridge_regressions(embedding, marked):
    """Of scikit-learn's: one to both kinds alike, one to their frequencies."""
    embedded = embedding(numbers(1, 10, 12, FEATURES)).view(1, 120, -1)
    of_class = torch.zeros(1, 120)
    of_class[0, :marked] = 1
    found = embedding.fit(embedded, of_class, 1 - of_class)[0]
    target = 2 * of_class[0] - 1
    expected = 0
    for share in (0.5, marked / 120):
        weight = of_class[0] * share / marked + (1 - of_class[0]) * (1 - share) / (120 - marked)
        ridge = Ridge(alpha=float(embedding.ridge.exp()), fit_intercept=False)
        ridge.fit(embedded[0].double().numpy(), target.numpy(), sample_weight=weight.double().numpy())
        expected = expected + torch.from_numpy(ridge.coef_) / 2
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-3)


def test_places_without_weight_do_not_count(embedding):
    embedded = numbers(1, 30, EMBEDDED + 1)
    of_class, of_rest = torch.zeros(2, 1, 30)
    of_class[0, :8], of_rest[0, 8:20] = 1, 1
    other = embedded.clone()
    other[:, 20:] = 9
    assert torch.equal(embedding.fit(embedded, of_class, of_rest), embedding.fit(other, of_class, of_rest))


@pytest.mark.parametrize("lacking", ["class", "rest"])
def test_a_fit_to_one_kind_alone_is_finite(embedding, lacking):
    one, none = torch.ones(1, 20), torch.zeros(1, 20)
    pair = (none, one) if lacking == "class" else (one, none)
    head = embedding.fit(numbers(1, 20, EMBEDDED + 1), *pair)
    assert torch.isfinite(head).all()


def test_heads_are_asked_each_for_itself(embedding):
    embedding.gain.fill_(0.5)
    embedding.offset.fill_(-2.0)
    embedded, heads = numbers(3, 7, EMBEDDED + 1), numbers(3, EMBEDDED + 1, seed=1)
    expected = torch.einsum("tnd,td->tn", embedded, heads) * torch.tensor(0.5).exp() - 2
    torch.testing.assert_close(embedding.ask(embedded, heads), expected)
    torch.testing.assert_close(embedding.ask(embedded, heads[0]), embedding.ask(embedded, heads[:1].expand(3, -1)))


def test_bfloat16_is_close(embedding):
    samples = numbers(2, 6, 5, FEATURES)
    exact = embedding(samples)
    set_precision(embedding, torch.bfloat16)
    rounded = embedding(samples)
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.999
