<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis styleCategories="Symbology" version="3.22.0">
  <pipe>
    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" classificationMin="0" classificationMax="1">
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="0" maximumValue="1">
          <item value="0" color="#440154" alpha="0" label="0"/>
          <item value="0.25" color="#3b528b" alpha="110" label="0.25"/>
          <item value="0.5" color="#21918c" alpha="190" label="0.5"/>
          <item value="0.75" color="#5ec962" alpha="230" label="0.75"/>
          <item value="1" color="#fde725" alpha="255" label="1"/>
        </colorrampshader>
      </rastershader>
    </rasterrenderer>
  </pipe>
</qgis>
