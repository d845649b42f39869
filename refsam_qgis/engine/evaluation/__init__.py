"""Measuring few-shot segmentation: protocol, metrics and the baselines to compare with."""

from .evaluate import run_evaluate

__all__ = ["run_evaluate"]
