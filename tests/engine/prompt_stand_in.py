"""A stand-in for SAM that finds the patch of one colour which prompts show."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from scipy.ndimage import label

from refsam_qgis.engine.models.promptable import EncodedImage
from tests.engine.stand_ins import GROUND


class PatchPrompter:
    """Answers in the image's own pixels: logit 4 on the patch of the first point or of the box, -4 elsewhere.

    Of three masks, the second is rated best; the others cover everything. On the ground there is nothing to find.
    """

    device = torch.device("cpu")
    sam = SimpleNamespace(mask_threshold=0.0)

    def __init__(self):
        self.encoded = []
        self.asked = []

    def encode(self, image, valid):
        self.encoded.append(tuple(image.shape[1:]))
        differs = (image.numpy() != np.array(GROUND, np.uint8)[:, None, None]).any(0)
        return EncodedImage(torch.from_numpy(label(differs & valid.numpy())[0]), tuple(image.shape[1:]), (1024, 1024))

    def predict(self, image, prompts, multimask):
        self.asked.append((prompts, multimask))
        patches = []
        for index in range(len(prompts.points if prompts.points is not None else prompts.boxes)):
            if prompts.boxes is not None:
                x0, y0, x1, y1 = (int(v) for v in prompts.boxes[index] + 0.5)
                chosen = image.features[y0:y1, x0:x1].flatten()
                number = int(chosen.bincount()[1:].argmax()) + 1 if bool(chosen.any()) else 0
            else:
                x, y = (int(v) for v in prompts.points[index, 0] + 0.5)
                number = int(image.features[y, x])
            patches.append((image.features == number) & (number > 0))
        logits = torch.stack(patches)[:, None].float() * 8 - 4
        rating = torch.full((len(patches), 1), 0.9)
        if multimask:
            logits = torch.cat([torch.full_like(logits, 4), logits, torch.full_like(logits, 4)], dim=1)
            rating = torch.cat([rating - 0.5, rating, rating - 0.4], dim=1)
        return logits, rating

    def enlarge(self, image, logits):
        return logits

    def stability(self, logits):
        return torch.where((logits > 0).flatten(1).any(1), 1.0, torch.nan)
