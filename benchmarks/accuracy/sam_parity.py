"""Prompt and automatic-mask results beside segment_anything's own, with the same weights on the same image.

    python -m benchmarks.accuracy.sam_parity --raster FILE --models compact vit_b

Weights are random, scaled so that masks follow the prompts; with `--checkpoint` they are those of a file. Each image is
a window of the raster: SAM's own 1024 squared, where nothing is scaled, and smaller ones, oblong too, which
segment_anything scales with Pillow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import MODELS, ModelOptions
from refsam_qgis.engine.models.automatic_masks import MaskRules, generate_masks, point_grid
from refsam_qgis.engine.models.checkpoints import load_sam
from refsam_qgis.engine.models.promptable import EncodedImage, PromptableSegmenter, Prompts
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.rasters.source import RasterSource

from .options import RECORDS, markdown_table
from .sam_reference import as_pixels, make_responsive, segment_anything_own

SIZES = ((1024, 1024), (512, 512), (600, 450))
PROMPTS = 8
SIDE = 4
"""Points along a side of the automatic masks' grid: each takes a tenth of a second on a CPU."""


def main() -> None:
    """Compare, print the table and write the record."""
    arguments = _parse()
    records = []
    try:
        with RasterSource(str(arguments.raster)) as raster:
            images = [_read(raster, size) for size in SIZES[: arguments.images]]
        for model in arguments.models:
            sam = _sam(model, arguments.checkpoint)
            records += [_compare(model, sam, image) for image in images]
    except RefSAMError as error:
        sys.exit(str(error))
    print(_table(records))
    arguments.record.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prompts and automatic masks beside segment_anything's own.")
    parser.add_argument("--raster", type=Path, required=True, help="at least 1024 by 1024 pixels")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["compact"])
    parser.add_argument("--checkpoint", help="SAM weights (of one model); 'bundled' for the compact model's own")
    parser.add_argument("--images", type=int, default=len(SIZES), help="how many of the sizes are compared")
    parser.add_argument("--record", type=Path, default=RECORDS / "sam_parity.json", help="JSON to write")
    return parser.parse_args()


def _read(raster: RasterSource, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read an image ``(3, h, w)`` from the middle of a raster."""
    height, width = size
    window = Window((raster.width - width) // 2, (raster.height - height) // 2, width, height)
    rgb, valid = raster.read(window)
    if not valid.all():
        raise RefSAMError("input", f"Raster '{raster.path}' has no {height} by {width} pixels in its middle.")
    return rgb


def _sam(model: str, checkpoint: str | None) -> Any:
    if checkpoint is not None:
        return load_sam(ModelOptions(model, None if checkpoint == "bundled" else checkpoint))
    torch.manual_seed(0)
    return make_responsive(build_sam(model))


def _compare(model: str, sam: Any, image: NDArray[np.uint8]) -> dict[str, Any]:
    segmenter = PromptableSegmenter(sam)
    encoded = segmenter.encode(torch.from_numpy(image), torch.ones(image.shape[1:], dtype=torch.bool))
    own = segment_anything_own()
    predictor = own.SamPredictor(sam)
    predictor.set_image(as_pixels(image))
    record: dict[str, Any] = {
        "model": model,
        "height": image.shape[1],
        "width": image.shape[2],
        "embedding": float((encoded.features - predictor.features).abs().max()),
        "embedding_range": float(predictor.features.abs().max()),
    }
    record |= _compare_prompts(segmenter, encoded, predictor)
    return record | _compare_everything(segmenter, encoded, image)


def _compare_prompts(segmenter: PromptableSegmenter, encoded: EncodedImage, predictor: Any) -> dict[str, Any]:
    """Points alone, boxes alone, and a point on and one beside an object in a box."""
    rng = np.random.default_rng(0)
    size = np.array(encoded.size[::-1])
    logits, ious, pixels, values, masks_seen = 0.0, 0.0, 0, 0.0, 0
    for index in range(PROMPTS):
        corners = np.sort(rng.uniform(0, size - 1, (2, 2)), axis=0)
        box = corners.ravel() if index % 3 else None
        points = rng.uniform(0, size - 1, (1 + index % 2, 2)) if index % 3 != 1 else None
        labels = None if points is None else np.array([1, 0])[: len(points)]
        multimask = index % 3 != 2
        masks, predicted, _ = predictor.predict(points, labels, box, multimask_output=multimask, return_logits=True)
        asked = (None if p is None else torch.from_numpy(p)[None].float() for p in (points, labels, box))
        low, rated = segmenter.predict(encoded, Prompts(*asked), multimask)
        ours = segmenter.enlarge(encoded, low[0]).cpu().numpy()
        logits = max(logits, float(np.abs(ours - masks).max()))
        ious = max(ious, float(np.abs(rated[0].cpu().numpy() - predicted).max()))
        pixels += int(((ours > 0) != (masks > 0)).sum())
        values = max(values, float(np.abs(masks).max()))
        masks_seen += len(masks)
    return {
        "prompted_masks": masks_seen, "logits": logits, "logit_range": values, "predicted_iou": ious, "pixels": pixels,
    }  # fmt: skip


def _compare_everything(
    segmenter: PromptableSegmenter, encoded: EncodedImage, image: NDArray[np.uint8]
) -> dict[str, Any]:
    """The masks of a grid of points, those rated better than half of them; boxes of random masks are alike."""
    points = point_grid(SIDE, encoded.size)
    _, rated = segmenter.predict(encoded, Prompts(torch.from_numpy(points)[:, None], torch.ones(len(points), 1)), True)
    ranked = rated.flatten().sort().values
    # Between two ratings, so that rounding cannot decide.
    cutoff = max(float(ranked[len(ranked) // 2 - 1 :][:2].mean()), 0.0)
    ours = generate_masks(segmenter, encoded, points, MaskRules(cutoff, 0.3, 1.0))
    theirs = segment_anything_own().SamAutomaticMaskGenerator(
        segmenter.sam, SIDE, points_per_batch=SIDE, pred_iou_thresh=cutoff, stability_score_thresh=0.3,
        box_nms_thresh=1.0,
    ).generate(as_pixels(image))  # fmt: skip
    shared = range(min(len(ours), len(theirs)))
    return {
        "automatic_masks": len(ours),
        "automatic_masks_theirs": len(theirs),
        "automatic_pixels": sum(int((ours.mask(i) != theirs[i]["segmentation"]).sum()) for i in shared),
        "automatic_predicted_iou": max(
            (abs(float(ours.predicted_iou[i]) - theirs[i]["predicted_iou"]) for i in shared), default=0.0
        ),
        "automatic_stability": max(
            (abs(float(ours.stability[i]) - theirs[i]["stability_score"]) for i in shared), default=0.0
        ),
    }


def _table(records: list[dict[str, Any]]) -> str:
    """Largest differences of each model and image."""
    header = [
        "model", "image", "embedding", "prompts: logits (range)", "predicted IoU", "pixels of masks",
        "automatic: ours/theirs", "predicted IoU", "stability", "pixels of masks",
    ]  # fmt: skip
    rows = [
        [
            r["model"], f"{r['width']}×{r['height']}", f"{r['embedding']:.1e}",
            f"{r['logits']:.1e} ({r['logit_range']:.0f})", f"{r['predicted_iou']:.1e}",
            f"{r['pixels']} of {r['prompted_masks'] * r['height'] * r['width']:,}",
            f"{r['automatic_masks']}/{r['automatic_masks_theirs']}", f"{r['automatic_predicted_iou']:.1e}",
            f"{r['automatic_stability']:.1e}",
            f"{r['automatic_pixels']} of {r['automatic_masks'] * r['height'] * r['width']:,}",
        ]
        for r in records
    ]  # fmt: skip
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
