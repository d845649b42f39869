<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis styleCategories="Symbology" version="3.22.0">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="0.7" alphaBand="-1">
      <colorPalette/>
    </rasterrenderer>
  </pipe>
</qgis>
