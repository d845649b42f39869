"""What a person sees of RefSAM beside the toolbox."""
