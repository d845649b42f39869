"""A fault of torch's vector mathematics on some processors, and the way around it."""

from __future__ import annotations

import torch


def settle() -> None:
    """Take the first root of this process in one thread alone.

    Where several threads share the first vector function of a process, roots come out wrong by 2e-4 of their value now
    and then, and later ones do not (torch 2.13.0 with MKL, seen on a processor with AVX-512): two runs would differ.
    Once a single thread has asked, all are right.
    """
    torch.ones(1).sqrt()
