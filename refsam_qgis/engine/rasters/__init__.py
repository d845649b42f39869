"""The raster path: windowed reading, tiling, blended mosaics, vectorising and whole-or-nothing outputs."""
