"""Measuring few-shot segmentation: protocols, metrics and the baselines to compare with."""

from .measure import evaluate_method
from .protocol import run_protocol

__all__ = ["evaluate_method", "run_protocol"]
