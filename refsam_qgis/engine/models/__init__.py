"""Networks: SAM, the ViRefSAM prompt encoder and adapters, and the training-free mode."""
