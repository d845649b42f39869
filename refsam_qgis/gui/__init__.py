"""What a person sees beside the toolbox."""
