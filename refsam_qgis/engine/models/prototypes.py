"""Class and background prototypes of reference features (method Eq. 1, Voronoi recipe of FPTrans)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .cells import average_cells
from .segmenter import BACKGROUND, FOREGROUND, UNMARKED


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of one class for each of B episodes.

    Attributes:
        vectors: ``(B, 1 + K*N_b, C)``; index 0 is the class, the rest are background cells.
        valid: ``(B, 1 + K*N_b)`` bool; False for background cells that do not exist.
        shots: Number of references K; the background cells of one shot stand together.
    """

    vectors: Tensor
    valid: Tensor
    shots: int = 1

    def expand(self, batch: int) -> Prototypes:
        """Repeat one episode's prototypes over a batch of targets."""
        return Prototypes(self.vectors.expand(batch, -1, -1), self.valid.expand(batch, -1), self.shots)

    def dump(self) -> dict[str, Tensor]:
        """Return tensors on the CPU from which `restore` makes the same prototypes."""
        return {
            "vectors": self.vectors.cpu().contiguous(),
            "valid": self.valid.cpu().contiguous(),
            "shots": torch.tensor(self.shots),
        }

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], device: torch.device) -> Prototypes:
        """Undo `dump`.

        Raises:
            ValueError: If the tensors are those of something else.
        """
        if not {"vectors", "valid", "shots"} <= set(tensors):
            raise ValueError("the tensors are no prototypes")
        return cls(tensors["vectors"].to(device), tensors["valid"].to(device), int(tensors["shots"]))


def compute_prototypes(
    features: Tensor, masks: Tensor, cells: int, generator: torch.Generator | None = None
) -> Prototypes:
    """Pool reference features into class and background prototypes.

    The class prototype is the mean over the shots that hold the class; the background prototypes of all shots stand
    side by side (method A5). Masks are averaged over each feature cell, so an object smaller than a cell still counts.

    Args:
        features: ``(B, K, C, h, w)``.
        masks: ``(B, K, H, W)`` uint8 of the values in `segmenter`; H and W are at least h and w.
        cells: Background cells per shot, N_b.
        generator: Draws the first Voronoi seed in training; without one the seed is the background cell farthest from
            the class, so that equal input gives equal prototypes.

    Returns:
        The prototypes. A shot without background adds invalid cells.

    Raises:
        ValueError: If an episode has no class pixel at all.
    """
    batch, shots, channels, rows, columns = features.shape
    flat = features.flatten(3).transpose(2, 3)
    foreground = _share(masks, FOREGROUND, rows, columns)
    mass = foreground.sum(-1)
    if not bool((mass.sum(-1) > 0).all()):
        raise ValueError("every episode needs at least one class pixel in its references")
    shot_means = torch.einsum("bkn,bknc->bkc", foreground, flat) / mass.clamp_min(1e-6)[..., None]
    present = (mass > 0).to(flat.dtype)
    class_vector = torch.einsum("bk,bkc->bc", present, shot_means) / present.sum(-1, keepdim=True)

    background = _share(masks, BACKGROUND, rows, columns)
    unmarked = _share(masks, UNMARKED, rows, columns)
    if bool((unmarked > 0).any()):
        background = background + unmarked * _unlike_class(flat, class_vector, foreground, unmarked)
    vectors, valid = _voronoi_means(
        flat.flatten(0, 1), foreground.flatten(0, 1), background.flatten(0, 1), (rows, columns), cells, generator
    )
    return Prototypes(
        vectors=torch.cat([class_vector[:, None], vectors.reshape(batch, shots * cells, channels)], dim=1),
        valid=torch.cat([valid.new_ones(batch, 1), valid.reshape(batch, shots * cells)], dim=1),
        shots=shots,
    )


def _share(masks: Tensor, value: int, rows: int, columns: int) -> Tensor:
    """Share of each feature cell that carries a mask value: ``(B, K, H, W)`` -> ``(B, K, h*w)`` in 0..1."""
    return average_cells((masks == value).to(torch.float32), (rows, columns)).flatten(2)


def _unlike_class(flat: Tensor, class_vector: Tensor, foreground: Tensor, unmarked: Tensor) -> Tensor:
    """Which cells nobody marked are background rather than objects that were left out: ``(B, K, n)`` of 0 or 1.

    A cell counts as background when it is less like the class than the midpoint between the marked cells' mean
    similarity and the unmarked cells' mean similarity.
    """
    similarity = F.cosine_similarity(flat, class_vector[:, None, None], dim=-1)
    dims = (1, 2)
    marked_mean = (similarity * foreground).sum(dims) / foreground.sum(dims).clamp_min(1e-6)
    unmarked_mean = (similarity * unmarked).sum(dims) / unmarked.sum(dims).clamp_min(1e-6)
    middle = (marked_mean + unmarked_mean) / 2
    return (similarity < middle[:, None, None]).to(flat.dtype)


def _voronoi_means(
    flat: Tensor,
    foreground: Tensor,
    background: Tensor,
    grid: tuple[int, int],
    cells: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Mean feature of each Voronoi cell of the background.

    Seeds are spread by farthest-point sampling over the background, and every background position belongs to its
    nearest seed (squared Euclidean distance).

    Args:
        flat: ``(N, n, C)`` features.
        foreground: ``(N, n)`` share of the class.
        background: ``(N, n)`` share of the background.
        grid: Rows and columns, n = rows * columns.
        cells: Number of seeds.
        generator: See `compute_prototypes`.

    Returns:
        Means ``(N, cells, C)`` and validity ``(N, cells)``.
    """
    position = _positions(grid, flat.device)
    candidate = background > 0
    nearest = torch.full_like(background, torch.inf)
    owner = torch.zeros_like(background, dtype=torch.long)
    valid = torch.zeros(flat.shape[0], cells, dtype=torch.bool, device=flat.device)
    priority = _first_seed_priority(foreground, position, generator)
    for cell in range(cells):
        score = torch.where(candidate, priority if cell == 0 else nearest, torch.full_like(nearest, -1.0))
        best, seed = score.max(dim=1)
        # A background with fewer positions than cells has nothing left at a distance: that cell does not exist.
        valid[:, cell] = best >= 0 if cell == 0 else best > 0
        distance = (position[None] - position[seed][:, None]).square().sum(-1)
        closer = (distance < nearest) & valid[:, cell, None]
        owner = torch.where(closer, torch.full_like(owner, cell), owner)
        nearest = torch.where(closer, distance, nearest)
    weights = F.one_hot(owner, cells).to(flat.dtype) * background[..., None]
    mass = weights.sum(1)
    means = torch.einsum("nps,npc->nsc", weights, flat) / mass.clamp_min(1e-6)[..., None]
    return means, valid & (mass > 0)


def _first_seed_priority(foreground: Tensor, position: Tensor, generator: torch.Generator | None) -> Tensor:
    """Score ``(N, n)`` >= 0 whose maximum over the background is the first seed."""
    if generator is not None:
        return torch.rand(foreground.shape, generator=generator).to(foreground.device)
    pairwise = (position[:, None] - position[None]).square().sum(-1)
    to_class = torch.where(foreground[:, None] > 0, pairwise[None], torch.inf).amin(-1)
    return torch.where(to_class.isinf(), torch.zeros_like(to_class), to_class)


def _positions(grid: tuple[int, int], device: torch.device) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.stack([rows, columns], dim=-1).reshape(-1, 2).to(device, torch.float32)
