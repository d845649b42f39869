"""Methods that ViRefSAM has to beat; each answers to `ReferenceSegmenter`."""
