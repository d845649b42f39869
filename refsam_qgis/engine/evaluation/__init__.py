"""Measuring few-shot segmentation: protocol, metrics and the baselines to compare with."""

from .protocol import run_protocol

__all__ = ["run_protocol"]
