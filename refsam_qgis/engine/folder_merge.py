"""One layer of the polygons of all rasters of a folder."""

from __future__ import annotations

from collections.abc import Iterator

from rasterio.crs import CRS

from .events import Reporter, check_cancelled
from .folder_tasks import FolderTask
from .rasters.writers import merge_polygons

NOT_MERGED = (
    "It has no CRS, unlike others, so the merged layer leaves its polygons out; assign the CRS of its map to it."
)
"""Why polygons of a finished raster are not in the merged layer."""


def merge_results(path: str, tasks: list[FolderTask], reporter: Reporter, begun: float) -> list[dict[str, str]]:
    """Write the polygons of the finished rasters into one layer, in the CRS of the first that has one.

    Where some have a CRS those without are left out, as nobody knows where they lie in it; so is what has no place in
    the CRS of the layer.

    Args:
        path: Of the layer.
        tasks: All rasters.
        reporter: Hears the progress.
        begun: Progress of the whole job as merging begins.

    Returns:
        ``source`` and ``reason`` of each raster some or all of whose polygons are left out.
    """
    finished = [task for task in tasks if task.status in ("done", "skipped")]
    placed = [task for task in finished if task.identity["crs"] is not None]
    merged = placed or finished
    crs = CRS.from_wkt(placed[0].identity["crs"]) if placed else None
    others = sum(task.identity["crs"] != merged[0].identity["crs"] for task in merged)
    if others:
        reporter.log(
            f"The merged polygons are in the CRS of '{merged[0].raster.name}'; those of rasters in another one "
            f"({others}) were transformed into it."
        )
    left_out: list[dict[str, str]] = []

    def leave_out(source: str, reason: str) -> None:
        left_out.append({"source": source, "reason": reason})
        reporter.log(f"'{source}': {reason}")

    for task in finished:
        if placed and task.identity["crs"] is None:
            leave_out(task.raster.name, NOT_MERGED)

    def layers() -> Iterator[tuple[str, str]]:
        for number, task in enumerate(merged):
            check_cancelled(reporter)
            reporter.progress(begun + (1 - begun) * number / len(merged), "Merging the polygons")
            yield task.raster.name, task.raster.polygons

    merge_polygons(path, layers(), crs, leave_out)
    return left_out
