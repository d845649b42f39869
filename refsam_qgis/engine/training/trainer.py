"""Stage 2: VCP and DTA learn by episodes around a frozen SAM (method A6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from ..errors import RefSAMError
from ..models.fit_rules import FitRules
from ..models.fitted_prior import FittedMap, FittedPrior
from ..models.guided_filter import GuidedFilter
from ..models.pixel_features import STRIDE, pixel_features
from ..models.prototypes import compute_prototypes
from ..models.pseudo_mask import PseudoMask
from ..models.sam import freeze
from ..models.virefsam import FrozenEncoding, ViRefSAM
from .batch import to_device
from .episodes import EpisodeConfig, Episodes
from .losses import diversity, mask_loss
from .state import Schedule, TrainingState

WINDOW, CPU_WINDOW = 512, 256
"""Side of the training views in input pixels; on a CPU, four times as many steps are worth more than large views."""
FITTED_SHARE = 0.7
"""Share of the batches with a fitted prior in a training whose weights serve both priors."""


@dataclass(frozen=True)
class TrainerConfig:
    """Stage 2.

    Attributes:
        learning_rate: Peak of the cosine schedule.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's.
        diversity_weight: gamma in L = BCE + Dice + gamma L_reg (method Eq. 8).
        pseudo_mask_weight: Weight of the same BCE + Dice on the pseudo-mask; 0 as the paper is read.
        train_encoder: Train SAM's image encoder along.
        fitted_share: Share of the batches whose pseudo-mask is a prior fitted to the references; in the others it is
            the prototypes' cosine. The weights learn to serve both.
    """

    learning_rate: float = 2e-4
    warmup: int = 100
    weight_decay: float = 1e-4
    diversity_weight: float = 0.2
    pseudo_mask_weight: float = 0.0
    train_encoder: bool = False
    fitted_share: float = 0.0


def encode_views(
    model: ViRefSAM, images: Tensor, origin: tuple[int, int], only_features: bool = False
) -> FrozenEncoding:
    """Encode training views ``(B, 3, S, S)`` uint8, windows of SAM's frame, without adapters."""
    pixels = (images.float() - model.sam.pixel_mean) / model.sam.pixel_std
    learns = any(weight.requires_grad for weight in model.sam.image_encoder.parameters())
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        return model.encode(pixels, origin, only_features)


def run_episodes(
    model: ViRefSAM, batch: dict[str, Any], generator: torch.Generator | None, prior: FittedMap | None = None
) -> tuple[Tensor, PseudoMask, Tensor]:
    """Segment the targets of a batch of episodes.

    Args:
        model: The model.
        batch: From `Episodes`, on the model's device.
        generator: Draws the Voronoi seeds; ``None`` for the deterministic ones of evaluation.
        prior: What `fit_priors` says, to take the place of the prototypes' cosine.

    Returns:
        Logits ``(B, S/4, S/4)``, pseudo-mask ``(B, S/16, S/16)``, embeddings ``(B, N_q, 256)``.
    """
    references, origin = batch["references"], batch["origin"]
    count, shots = references.shape[:2]
    features = encode_views(model, references.flatten(0, 1), origin, only_features=True).features
    features = features.view(count, shots, *features.shape[1:])
    prototypes = compute_prototypes(features, batch["reference_masks"], model.config.background_cells, generator)
    answer: tuple[Tensor, PseudoMask, Tensor] = model(
        encode_views(model, batch["target"], origin), prototypes, origin, prior
    )
    return answer


@torch.no_grad()
def fit_priors(model: ViRefSAM, batch: dict[str, Any], rules: FitRules | None = None) -> FittedMap:
    """Fit a class map to the references of each episode and ask it about the target, ``(B, S/4, S/4)``.

    Args:
        model: The model.
        batch: As for `run_episodes`.
        rules: How to fit; those of the model's blend by default.
    """
    fitter = FittedPrior(model.device, rules or model.blend.rules, model.embedding)
    targets = pixel_features(batch["target"].float() / 255)
    maps = []
    for references, masks, target in zip(batch["references"], batch["reference_masks"], targets, strict=True):
        head = fitter.fit(pixel_features(references.float() / 255), masks)
        maps.append(fitter.map(target[None], head))
    return FittedMap(*(torch.cat([getattr(found, part.name) for found in maps]) for part in fields(FittedMap)))


def target_edges(batch: dict[str, Any]) -> GuidedFilter:
    """What smooths the answers to episodes along the edges of their targets, as a run does."""
    return GuidedFilter(F.avg_pool2d(batch["target"].float() / 255, STRIDE))


def episode_loss(model: ViRefSAM, batch: dict[str, Any], config: TrainerConfig, generator: torch.Generator) -> Tensor:
    """L = BCE + Dice + gamma L_reg (method Eq. 8) on logits scaled up to half the view's side."""
    fitted = float(torch.rand((), generator=generator)) < config.fitted_share
    prior = fit_priors(model, batch) if fitted else None
    logits, pseudo, embeddings = run_episodes(model, batch, generator, prior)
    target = F.avg_pool2d(batch["mask"].float()[:, None], 2)[:, 0]
    weight = F.avg_pool2d(batch["counted"].float()[:, None], 2)[:, 0]

    def supervised(coarse: Tensor) -> Tensor:
        scaled = F.interpolate(coarse[:, None], size=target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return mask_loss(scaled, target, weight).mean()

    loss = supervised(logits)
    if config.diversity_weight and embeddings.shape[1] > 1:
        loss = loss + config.diversity_weight * diversity(embeddings, model.config.diversity)
    if config.pseudo_mask_weight:
        loss = loss + config.pseudo_mask_weight * supervised(pseudo.logits)
    return loss


@dataclass(frozen=True)
class _Refusal:
    """Code and sentence of an error."""

    code: str
    sentence: str


class _Carried(Dataset[Any]):
    """Batches of episodes, or what kept one from being drawn.

    Of an exception in a loader's own process torch makes a bare `RuntimeError`, which says nothing to a person.
    """

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes

    def __getitem__(self, index: int) -> dict[str, Any] | _Refusal:
        try:
            return self._episodes[index]
        except RefSAMError as error:
            return _Refusal(error.code, str(error))


def train_adapters(
    model: ViRefSAM,
    episodes: Episodes,
    draws: EpisodeConfig,
    config: TrainerConfig,
    state: TrainingState,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    workers: int = 1,
    *,
    look: Callable[[int], None] = lambda step: None,
    identity: str = "",
) -> None:
    """Train the prompt encoder and the adapters from where `state` stands to the last batch of `episodes`.

    Args:
        model: The model; its SAM stays as it is, but for the encoder where the configuration trains it along.
        episodes: Batches of episodes.
        draws: The configuration of `episodes`; part of what a resumed run has to match.
        config: Rates and weights.
        state: Optimiser, step and where they are saved; resumed when a file is there.
        on_step: Told each step's loss; may raise to stop, after which the run can be resumed.
        workers: Processes that draw the episodes.
        look: Told the steps taken, before the first of this call and after each, to validate; may raise like `on_step`.
        identity: What else a resumed run has to match, such as a digest of the data.
    """
    device = model.device
    schedule = Schedule(config.learning_rate, config.warmup, draws.steps)
    settings = {**asdict(draws), **asdict(config), "identity": identity}
    model.sam.image_encoder.requires_grad_(config.train_encoder)
    state.begin(list(model.parameters()), model, config.weight_decay, settings)
    remaining = Subset(_Carried(episodes), range(state.step, draws.steps))
    loader = DataLoader(remaining, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
    try:
        look(state.step)
        for batch in loader:
            if isinstance(batch, _Refusal):
                raise RefSAMError(batch.code, batch.sentence)
            model.train()
            batch = to_device(batch, device)
            generator = torch.Generator().manual_seed(draws.seed * 1_000_003 + state.step)
            loss = episode_loss(model, batch, config, generator)
            state.optimise(loss, schedule)
            on_step(state.step, float(loss.detach()))
            look(state.step)
    finally:
        state.save()
        freeze(model.sam)
        model.eval()
