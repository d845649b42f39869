"""Pictures of the best, the median and the worst episode of each method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refsam_qgis.engine.evaluation.episodes import Episode, draw_episodes
from refsam_qgis.engine.evaluation.metrics import FewShotMetrics
from refsam_qgis.engine.evaluation.protocol import build_segmenter
from refsam_qgis.engine.evaluation.search import read_shots, search_all
from refsam_qgis.engine.image_folder import ImageFolder, scan_folder
from refsam_qgis.engine.job import ProtocolJob
from refsam_qgis.engine.models.checkpoints import load_segmenter
from refsam_qgis.engine.models.segmenter import FOREGROUND

EPISODES = 15
"""Episodes searched again to choose from: the first of the job's list."""
PANEL = 384
"""Side of a panel in pixels."""
RED, GREEN, BLUE = (255, 40, 40), (40, 220, 40), (60, 120, 255)


def save_pictures(job: ProtocolJob, support: str, target: Path) -> None:
    """Save one PNG per method: rows best, median, worst; columns reference, target with truth, with result.

    Reference marks are blue, truth is green and the result red.
    """
    folder = scan_folder(Path(job.folder))
    episodes = draw_episodes(folder, job.shots, job.episodes, job.seed)[:EPISODES]
    target.mkdir(parents=True, exist_ok=True)
    for method in job.methods:
        metrics = FewShotMetrics()
        rows = []
        for episode, found in search_all(build_segmenter(method, job, load_segmenter), folder, episodes, support):
            metrics.add(
                episode.class_id, found.logits, folder.read_label(folder.samples[episode.query], episode.class_id)
            )
            rows.append(_row(folder, episode, support, found.logits))
        order = np.argsort(metrics.episode_ious)[::-1]
        chosen = [rows[order[i]] for i in (0, len(order) // 2, -1)]
        name = f"{Path(job.folder).name}_{job.shots}shot_{support}_{method}.png"
        Image.fromarray(np.concatenate(chosen)).save(target / name)


def _row(folder: ImageFolder, episode: Episode, support: str, logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return one row ``(PANEL, 3 * PANEL, 3)``."""
    shots = read_shots(folder, episode, support)
    query = folder.samples[episode.query]
    image = folder.read_image(query)
    panels = (
        (shots.images[0].permute(1, 2, 0).numpy(), shots.masks[0].numpy() == FOREGROUND, BLUE),
        (image, folder.read_label(query, episode.class_id) == FOREGROUND, GREEN),
        (image, logits > 0, RED),
    )
    return np.concatenate([_panel(*panel) for panel in panels], axis=1)


def _panel(image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    tinted = image.copy()
    tinted[mask] = tinted[mask] // 2 + np.array(colour, dtype=np.uint8) // 2
    fitted = Image.fromarray(tinted)
    fitted.thumbnail((PANEL, PANEL))
    canvas = Image.new("RGB", (PANEL, PANEL))
    canvas.paste(fitted)
    return np.asarray(canvas)
