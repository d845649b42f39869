"""Labelled data sets in the form in which they are published."""

from __future__ import annotations

import importlib

from .dataset import Benchmark, Dataset, PublishedDataset

__all__ = ["Benchmark", "Dataset", "PublishedDataset", "find_benchmark"]

MODULES = {"folder": ".folder", "isaid5i": ".isaid", "loveda2i": ".loveda", "coco20i": ".coco"}
"""Module of each of `job.PROTOCOLS`; only that of the protocol at hand is imported."""


def find_benchmark(protocol: str) -> Benchmark:
    """Return how a protocol, one of `job.PROTOCOLS`, uses its data set."""
    benchmark: Benchmark = importlib.import_module(MODULES[protocol], __package__).BENCHMARK
    return benchmark
