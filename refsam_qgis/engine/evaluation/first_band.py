"""The first band of a raster and where it counts, as a raster of its own."""

from __future__ import annotations

from xml.etree import ElementTree

from rasterio import DatasetReader
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import MaskFlags

from ..rasters.georeference import open_raster


def open_first_band(dataset: DatasetReader, path: str, masked: bool) -> DatasetReader:
    """Open the first band of a raster as a virtual raster of that band alone, without a georeference.

    What warps it needs to know neither how its holes are declared (nodata, mask or alpha band) nor what bands lie
    beside it, to which GDAL may not be able to add an alpha band.

    Args:
        dataset: The raster.
        path: Where it was opened.
        masked: Whether pixels that it declares to hold no data are masked; all hold data otherwise.
    """
    root = ElementTree.Element("VRTDataset", rasterXSize=str(dataset.width), rasterYSize=str(dataset.height))
    _add_band(root, typename_fwd[dtype_rev[dataset.dtypes[0]]], path, "1")
    if masked and MaskFlags.all_valid not in dataset.mask_flag_enums[0]:
        _add_band(ElementTree.SubElement(root, "MaskBand"), "Byte", path, "mask,1")
    return open_raster(ElementTree.tostring(root, encoding="unicode"))


def _add_band(parent: ElementTree.Element, kind: str, path: str, source: str) -> None:
    band = ElementTree.SubElement(parent, "VRTRasterBand", dataType=kind)
    simple = ElementTree.SubElement(band, "SimpleSource")
    ElementTree.SubElement(simple, "SourceFilename", relativeToVRT="0").text = path
    ElementTree.SubElement(simple, "SourceBand").text = source
