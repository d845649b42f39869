"""A class map fitted to the references at run time, in the place of the prototypes' cosine (method Eq. 3).

A prototype keeps one mean of all that a reference says. Here every marked pixel has its say: kernel ridge regression of
class against background over pixel features, with the kernel written as random Fourier features (Rahimi and Recht 2007)
so that fitting is a small linear system and asking is one matrix product. Frequencies stand at right angles to each
other, which comes as close to the kernel with far fewer of them (Yu et al., Orthogonal Random Features, 2016).

Two fits share the say: one to as much of the class as of background marks too much, one to the frequencies of the
references is too cautious where the class is rare.

Beside the regression stand extremely randomised trees (`extra_trees`), which err in other places, and a regression in
a space that was learned (`embedding`), which holds where the target lies in other light than the references.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from .cells import average_cells
from .embedding import PixelEmbedding
from .extra_trees import ExtraTrees, grow
from .fit_rules import RAREST, FitRules
from .pixel_features import FEATURES
from .segmenter import BACKGROUND, FOREGROUND, UNMARKED

LOOKED_AT = 4
"""Every so many features along both axes tell how close a target is to the references."""
ASKED_AT_ONCE = 4096
"""Features whose waves are computed together, so that they stay in a CPU's cache; a GPU takes more."""
EVERY = 2
"""Rows and columns of features that a head is asked about together: one by one takes four times as long for nothing."""
SURE = 0.999
"""Most, and one minus this the least, that trees can say of a place."""
REGRESSIONS = ("mean", "deviation", "weights", "learned")
"""What is stored of a head beside its trees."""


@dataclass(frozen=True)
class FittedHead:
    """What was fitted to the references of one class.

    Attributes:
        mean: ``(FEATURES,)`` of the references' features.
        deviation: ``(FEATURES,)`` likewise.
        weights: ``(2 * frequencies + FEATURES + 1,)`` of cosines, sines, the features themselves, and the offset.
        learned: ``(EMBEDDED + 1,)`` of embedded features; ``(0,)`` where they were not asked.
        trees: Of features as they are.
    """

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    learned: Tensor
    trees: ExtraTrees

    def dump(self) -> dict[str, Tensor]:
        """Return tensors on the CPU from which `restore` makes the same head."""
        regression = {f"head.{name}": getattr(self, name) for name in REGRESSIONS}
        trees = {f"trees.{name}": value for name, value in vars(self.trees).items()}
        return {name: value.cpu().contiguous() for name, value in {**regression, **trees}.items()}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], device: torch.device) -> FittedHead:
        """Undo `dump`.

        Raises:
            ValueError: If the tensors are those of something else.
        """
        try:
            mean, deviation, weights, learned = (tensors[f"head.{name}"].to(device) for name in REGRESSIONS)
            trees = ExtraTrees(*(tensors[f"trees.{field.name}"].to(device) for field in fields(ExtraTrees)))
        except KeyError as error:
            raise ValueError("the tensors hold no fitted head") from error
        return cls(mean, deviation, weights, learned, trees)


@dataclass(frozen=True)
class FittedMap:
    """What a head says of targets.

    Attributes:
        values: ``(B, h, w)``; above 0 where the class seems to be.
        closeness: ``(B,)`` in 0..2: 1 where a target's features scatter about the references' mean as theirs do, less
            the farther away it lies, and the less the values mean.
        votes: ``(B, h, w)`` logits of what the trees say; 0 where there are none.
        learned: ``(B, h, w)`` logits of the fit in the learned embedding; 0 where it was not asked.
    """

    values: Tensor
    closeness: Tensor
    votes: Tensor
    learned: Tensor


class FittedPrior:
    """Fits heads to references and asks them about targets; the same waves for all.

    Args:
        device: Where features and heads lie.
        rules: How to fit.
        embedding: The learned one, where there is one.
    """

    def __init__(
        self, device: torch.device, rules: FitRules | None = None, embedding: PixelEmbedding | None = None
    ) -> None:
        self.rules = rules or FitRules()
        self._embedding = embedding if self.rules.learned else None
        scale = self.rules.scale / (FEATURES / 8) ** 0.5
        self._frequencies = (orthogonal(self.rules.frequencies, self.rules.seed) * scale).to(device)

    def fit(self, features: Tensor, masks: Tensor) -> FittedHead:
        """Fit to the references of one class.

        Pixels that nobody looked at are doubtful: they count as background until the fit says that they look like the
        class.

        Args:
            features: ``(K, FEATURES, h, w)`` of the references.
            masks: ``(K, H, W)`` uint8 of the values in `segmenter`.

        Raises:
            ValueError: If no pixel is marked as the class.
        """
        inside, outside, doubtful = _marks(masks, features)
        if not bool((inside > 0).any()):
            raise ValueError("the references need at least one class pixel")
        flat = features.permute(0, 2, 3, 1).flatten(1, 2)
        known = (inside + outside + doubtful) > 0.5
        deviation, mean = torch.std_mean(flat[known] if int(known.sum()) > 1 else flat.flatten(0, 1), dim=0)
        deviation = deviation + 1e-3 * mean.abs() + 1e-6
        generator = torch.Generator().manual_seed(self.rules.seed)
        rest = outside + doubtful
        chosen_inside = _choose(inside, self.rules.pixels, self.rules.least_share, generator)
        chosen_rest = _choose(rest, self.rules.pixels, self.rules.least_share, generator)
        chosen = chosen_inside | chosen_rest
        waves = self._waves((flat[chosen] - mean) / deviation)
        of_class, of_rest = (inside * chosen_inside)[chosen], (rest * chosen_rest)[chosen]
        doubt = (doubtful > 0)[chosen]
        background = of_rest
        for _ in range(self.rules.rounds - 1 if bool(doubt.any()) else 0):
            like_class = doubt & (waves @ self._solve(waves, of_class, background, 0.5) > 0)
            background = torch.where(like_class, 0.0, of_rest)
        # What looks like the class where nobody looked is of the class when it comes to how frequent that is.
        taken = 1 - background.sum() / of_rest.sum().clamp_min(1e-6)
        frequency = float((inside.sum() + rest.sum() * taken) / (inside.sum() + rest.sum()))
        shares = (0.5, min(max(frequency, RAREST), 1 - RAREST))
        weights = torch.stack([self._solve(waves, of_class, background, share) for share in shares]).mean(0)
        trees = ExtraTrees.none()
        if self.rules.trees:
            positive = of_class > of_rest
            kept = positive | (background > 0)
            # Between as much of the class as of background, and the frequencies of the references.
            share = (shares[0] * shares[1]) ** 0.5
            trees = grow(flat[chosen][kept].cpu().float(), positive[kept].cpu(), share, self.rules, generator)
        return FittedHead(mean, deviation, weights, self.learn(features, masks), trees.to(flat.device))

    def embed(self, samples: Tensor, inside: Tensor | None = None) -> Tensor | None:
        """Embed what heads are asked about, for any class; ``None`` where there is no embedding.

        Args:
            samples: `thin` of features ``(B, FEATURES, h, w)``.
            inside: As for `map`.
        """
        if self._embedding is None:
            return None
        embedded: Tensor = self._embedding(samples, None if inside is None else _thin_mask(inside))
        return embedded

    def learn(self, features: Tensor, masks: Tensor) -> Tensor:
        """Fit in the learned embedding alone: ``(EMBEDDED + 1,)``, ``(0,)`` where there is none; arguments of `fit`."""
        if self._embedding is None:
            return features.new_zeros(0)
        samples = thin(features)
        inside, outside, doubtful = _marks(masks, samples.permute(0, 3, 1, 2))
        known = (inside + outside + doubtful) > 0.5
        # One by one: the hidden layers of many references would be by far the largest tensors of all.
        images = zip(samples[:, None], known.view(len(samples), 1, *samples.shape[1:3]), strict=True)
        embedded = torch.cat([self._embedding(*image) for image in images]).flatten(0, 2)[None]
        least = (inside.amax(1, keepdim=True) / 2).clamp_max(self.rules.least_share)
        of_class = ((inside >= least) & (inside > 0)).float().view(1, -1)
        rest = ((outside + doubtful > 0.5) & known).float().view(1, -1) * (1 - of_class)
        head = self._embedding.fit(embedded, of_class, rest)
        doubt = (doubtful > 0.5).view(1, -1)
        if bool(doubt.any()):
            like_class = doubt & ((embedded @ head[..., None])[..., 0] > 0)
            head = self._embedding.fit(embedded, of_class, torch.where(like_class, 0.0, rest))
        return head[0]

    def map(
        self,
        features: Tensor,
        head: FittedHead,
        inside: Tensor | None = None,
        samples: Tensor | None = None,
        embedded: Tensor | None = None,
    ) -> FittedMap:
        """Ask a head about targets.

        Args:
            features: ``(B, FEATURES, h, w)``.
            head: The head.
            inside: ``(B, h, w)`` bool; False where there is no image. All of it by default.
            samples: `thin` of the features, where they are at hand.
            embedded: `embed` of the samples, where it is at hand.
        """
        samples = thin(features) if samples is None else samples
        share = head.trees.ask(samples.flatten(0, 2)).clamp(1 - SURE, SURE)
        said = [self._values(samples, head), torch.logit(share).view(samples.shape[:3])]
        embedded = self.embed(samples, inside) if embedded is None else embedded
        if self._embedding is not None and embedded is not None:
            said.append(self._embedding.ask(embedded, head.learned))
        else:
            said.append(torch.zeros_like(said[0]))
        fine = F.interpolate(torch.stack(said, dim=1), scale_factor=EVERY, mode="bilinear", align_corners=False)
        values, votes, learned = fine.unbind(1)
        return FittedMap(values, self._closeness(features, head, inside), votes, learned)

    def _closeness(self, features: Tensor, head: FittedHead, inside: Tensor | None) -> Tensor:
        """``(B,)``: 2 / (1 + m), where m is the mean square of the standardised features."""
        some = features[..., ::LOOKED_AT, ::LOOKED_AT].permute(0, 2, 3, 1)
        squares = ((some - head.mean) / head.deviation).clamp(-self.rules.limit, self.rules.limit).square().mean(-1)
        weight = torch.ones_like(squares) if inside is None else inside[:, ::LOOKED_AT, ::LOOKED_AT].to(squares)
        mean = (squares * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1)
        return 2 / (1 + mean)

    def logits(self, features: Tensor, head: FittedHead) -> Tensor:
        """Class map ``(B, h, w)`` of features ``(B, FEATURES, h, w)``; above 0 where the class seems to be."""
        return self._values(features.permute(0, 2, 3, 1), head)

    def _values(self, places: Tensor, head: FittedHead) -> Tensor:
        """What the regression says of places ``(B, h, w, FEATURES)``: ``(B, h, w)``."""
        # Part by part: the waves of a whole map would be by far the largest tensor of all.
        values = torch.cat([self._ask((some - head.mean) / head.deviation, head.weights) for some in _parts(places)])
        return self.rules.gain * values.view(places.shape[:3])

    def _ask(self, standard: Tensor, weights: Tensor) -> Tensor:
        """``self._waves(standard) @ weights`` for ``(n, FEATURES)``, without setting its parts side by side."""
        count = self.rules.frequencies
        of_cosines, of_sines, of_features, offset = torch.split(weights, [count, count, standard.shape[1], 1])
        standard = standard.clamp_(-self.rules.limit, self.rules.limit)
        angles = standard @ self._frequencies
        of_waves = angles.cos() @ of_cosines + angles.sin_() @ of_sines
        values: Tensor = of_waves * count**-0.5 + standard @ (of_features * self.rules.linear) + offset
        return values

    def _waves(self, standard: Tensor) -> Tensor:
        """Random Fourier features, the features themselves and a one: ``(n, FEATURES)`` -> ``(n, M)``."""
        standard = standard.clamp(-self.rules.limit, self.rules.limit)
        angles = standard @ self._frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1) * self.rules.frequencies**-0.5
        return torch.cat([waves, self.rules.linear * standard, torch.ones_like(standard[:, :1])], dim=1)

    def _solve(self, waves: Tensor, of_class: Tensor, of_rest: Tensor, share: float) -> Tensor:
        """Ridge regression to +1 on the class and -1 on the rest, the class having a share of the weight."""
        positive = of_class * (share / of_class.sum().clamp_min(1e-6))
        negative = of_rest * ((1 - share) / of_rest.sum().clamp_min(1e-6))
        penalty = torch.full((waves.shape[1],), self.rules.ridge, device=waves.device)
        penalty[-1] *= 1e-2  # the offset is hardly held back
        gram = (waves * (positive + negative)[:, None]).T @ waves + torch.diag(penalty)
        # On the CPU: the system is small, doubles are exact enough for any mark, and not every device can solve.
        solved: Tensor = torch.linalg.solve(gram.cpu().double(), (waves.T @ (positive - negative)).cpu().double())
        return solved.to(waves)


def thin(features: Tensor) -> Tensor:
    """What heads are asked about, of features ``(B, FEATURES, h, w)``: ``(B, h/2, w/2, FEATURES)``, for any class."""
    return F.avg_pool2d(features, EVERY).permute(0, 2, 3, 1).contiguous()


def _thin_mask(inside: Tensor) -> Tensor:
    """Where `thin` of ``(B, h, w)`` bool is mostly inside."""
    return F.avg_pool2d(inside[:, None].float(), EVERY)[:, 0] > 0.5


def orthogonal(count: int, seed: int) -> Tensor:
    """Directions and lengths of Gaussian vectors, but every `FEATURES` of them at right angles to each other.

    Args:
        count: Number of vectors.
        seed: Of the draw.

    Returns:
        ``(FEATURES, count)`` of unit variance.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    for _ in range(-(-count // FEATURES)):
        directions, lengths = torch.randn(2, FEATURES, FEATURES, generator=generator, dtype=torch.float64)
        blocks.append(torch.linalg.qr(directions).Q * lengths.norm(dim=0))
    return torch.cat(blocks, dim=1)[:, :count].float()


def _parts(places: Tensor) -> tuple[Tensor, ...]:
    """Split features ``(B, h, w, FEATURES)`` into parts ``(n, FEATURES)`` that pass through the waves together."""
    at_once = ASKED_AT_ONCE if places.device.type == "cpu" else ASKED_AT_ONCE * 64
    return torch.split(places.flatten(0, 2), at_once)


def _marks(masks: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of class, background and unmarked, as `_shares` tells them."""
    inside, outside, doubtful = (_shares(masks == value, features) for value in (FOREGROUND, BACKGROUND, UNMARKED))
    return inside, outside, doubtful


def _shares(chosen: Tensor, features: Tensor) -> Tensor:
    """Share of each feature that a mask ``(K, H, W)`` covers: ``(K, h*w)`` in 0..1."""
    size = (features.shape[-2], features.shape[-1])
    values = chosen.to(features.device, torch.float32)[:, None]
    shrunk = F.interpolate(values, size=size, mode="nearest") if values.shape[-1] < size[1] else values
    return average_cells(shrunk, size).flatten(1)


def _choose(share: Tensor, most: int, least_share: float, generator: torch.Generator) -> Tensor:
    """Which features ``(K, n)`` stand for a mark: those well covered, at most so many, equally many a reference."""
    chosen = torch.zeros_like(share, dtype=torch.bool)
    quota = -(-most // share.shape[0])
    for row, shares in zip(chosen, share, strict=True):
        least = min(least_share, float(shares.max()) / 2)
        if least > 0:
            places = torch.nonzero(shares >= least)[:, 0]
            row[places[torch.randperm(len(places), generator=generator)[:quota].to(places.device)]] = True
    return chosen
