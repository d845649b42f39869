"""Fixtures that write small rasters, vectors and labelled images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

from tests.engine.stand_ins import HALF_METRE, UTM


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a folder of its own for journals, caches and logs."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("REFSAM_HOME", str(folder))
    return folder


@pytest.fixture
def write_raster(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes ``(bands, h, w)`` values as a GeoTIFF and returns its path."""

    def write(
        values: NDArray[Any],
        name: str = "image.tif",
        crs: str | None = UTM,
        transform: Affine | None = HALF_METRE,
        colormap: dict[int, tuple[int, ...]] | None = None,
        colorinterp: Sequence[Any] | None = None,
        mask: NDArray[np.uint8] | None = None,
        **profile: Any,
    ) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = values.shape
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs=crs,
            transform=transform, **profile,
        ) as dataset:  # fmt: skip
            if colorinterp is not None:
                dataset.colorinterp = colorinterp  # a GeoTIFF with pixels does not take each of them
            dataset.write(values)
            if colormap is not None:
                dataset.write_colormap(1, colormap)
            if mask is not None:
                dataset.write_mask(mask)
        return str(path)

    return write


@pytest.fixture
def write_virtual(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a VRT of a raster's bands and returns its path.

    As text: its own file stays the same when its source changes, and the source need not be there.
    """

    def write(source: str, name: str, shape: tuple[int, int, int]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bands, height, width = shape
        listed = "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{source}'
            f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in range(1, bands + 1)
        )
        transform = ", ".join(str(value) for value in HALF_METRE.to_gdal())
        path.write_text(
            f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{UTM}</SRS>'
            f"<GeoTransform>{transform}</GeoTransform>{listed}</VRTDataset>",
            encoding="utf-8",
        )
        return str(path)

    return write


@pytest.fixture
def write_vector(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes geometries (in map coordinates) with fields and returns the path."""

    def write(
        geometries: Sequence[Any], name: str = "marks.gpkg", crs: str | None = UTM, **fields: Sequence[Any]
    ) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        gpd.GeoDataFrame(fields, geometry=list(geometries), crs=crs).to_file(path)
        return str(path)

    return write


@pytest.fixture
def red_buildings(tmp_path: Path) -> Path:
    """Three scenes of red buildings on grey ground; the unseen one has images without a building too."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "classes.json").write_text(json.dumps({"0": "background", "1": "building"}), encoding="utf-8")
    rng = np.random.default_rng(0)
    for name, built in (("east_1", True), ("west_1", True), ("tile7_1", True), ("tile7_2", False)):
        ids = np.zeros((128, 128), np.uint8)
        ids[30:90, 40:100] = built
        colours = np.where(ids[..., None] == 1, (180, 60, 50), (110, 115, 105)) + rng.normal(0, 8, (128, 128, 3))
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
        Image.fromarray(ids).save(folder / f"{name}_mask.png")
    return folder
