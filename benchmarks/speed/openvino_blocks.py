"""The parts of SAM's encoder in OpenVINO beside RefSAM's own: is it worth having as a further backend?

    pip install openvino
    python -m benchmarks.speed.openvino_blocks --models compact vit_b

Attention in windows, attention over the whole grid and the MLP of a block are converted by themselves, which takes
little memory where a whole ``vit_b`` takes 11 GB. Both run on the same random weights and tokens in one process,
RefSAM's first: with OpenVINO's threads beside them those of torch may be slower. An encoder's ratio is the sum over its
blocks; `best` has each part from whichever is faster.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refsam_qgis.engine.job import MODELS
from refsam_qgis.engine.models.encoder import attend_tokens, run_blocks
from refsam_qgis.engine.models.precision import set_precision
from refsam_qgis.engine.models.sam import INPUT_SIZE, build_sam
from refsam_qgis.engine.report import describe_device

from ..accuracy.options import markdown_table
from .measured_run import RECORDS

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
UNCOUNTED = 3
"""Calls before those whose time counts."""
ROWS_AT_ONCE = 4
"""Rows of queries of the whole grid whose scores are held together."""


class Part(nn.Module):
    """Half of a ViT block."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block


class Attention(Part):
    """x + Attn(LN1 x) of a ViT block on tokens ``(1, h, w, d)``, in operations that OpenVINO fuses."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Pad after projecting, as RefSAM does, attend in windows, and add what comes out."""
        block: Any = self.block
        attention, window = block.attn, block.window_size
        rows, columns, width = tokens.shape[1:]
        side = window or rows
        qkv = attention.qkv(block.norm1(tokens))
        missing = -rows % side
        if missing:
            ground = attention.qkv.bias
            qkv = torch.cat([qkv, ground.expand(1, rows, missing, -1)], dim=2)
            qkv = torch.cat([qkv, ground.expand(1, missing, columns + missing, -1)], dim=1)
        across, heads = (rows + missing) // side, attention.num_heads
        split = qkv.view(across, side, across, side, 3, heads, width // heads).permute(4, 0, 2, 5, 1, 3, 6)
        query, key, value = split.reshape(3, across**2, heads, side, side, width // heads).unbind(0)
        distance = torch.arange(side)[:, None] - torch.arange(side)[None, :]
        down, over = (
            table[distance + table.shape[0] // 2] for table in (attention.rel_pos_h, attention.rel_pos_w)
        )  # fmt: skip
        vertical = torch.einsum("bnhwc,hkc->bnhwk", query, down)
        horizontal = torch.einsum("bnhwc,wkc->bnhwk", query, over)
        key, value = key.flatten(2, 3), value.flatten(2, 3)
        mixed = []
        for top in range(0, side, side if window else ROWS_AT_ONCE):
            own = slice(top, top + (side if window else ROWS_AT_ONCE))
            bias = (vertical[:, :, own, :, :, None] + horizontal[:, :, own, :, None, :]).flatten(4, 5).flatten(2, 3)
            mixed.append(F.scaled_dot_product_attention(query[:, :, own].flatten(2, 3), key, value, attn_mask=bias))
        merged = torch.cat(mixed, dim=2).view(across, across, heads, side, side, width // heads)
        merged = merged.permute(0, 3, 1, 4, 2, 5).reshape(1, rows + missing, columns + missing, width)
        attended: Tensor = tokens + attention.proj(merged[:, :rows, :columns])
        return attended


class Mlp(Part):
    """h + MLP(LN2 h) of a ViT block."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix the channels of tokens."""
        block: Any = self.block
        mixed: Tensor = tokens + block.mlp(block.norm2(tokens))
        return mixed


def main() -> None:
    """Measure, print the table and write the record."""
    parser = argparse.ArgumentParser(description="The parts of SAM's encoder in OpenVINO beside RefSAM's own.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["compact", "vit_b"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--record", type=Path, default=RECORDS / "openvino_blocks.json")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        for precision in arguments.precisions:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows += process.submit(measure, model, precision, arguments.repeats).result()
    arguments.record.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    names = ["model", "precision", "part", "blocks", "refsam_ms", "openvino_ms", "ratio", "error"]
    print(markdown_table(names, [[str(row[name]) for name in names] for row in rows]))


def measure(model: str, precision: str, repeats: int) -> list[dict[str, Any]]:
    """Measure each part of a model, and add up what its encoder would take."""
    torch.manual_seed(0)
    sam: Any = build_sam(model).eval()
    exact, ours = sam.image_encoder, copy.deepcopy(sam.image_encoder)
    set_precision(ours, getattr(torch, precision))
    tokens = torch.randn(1, INPUT_SIZE // 16, INPUT_SIZE // 16, exact.pos_embed.shape[-1])
    inside = [index for index, block in enumerate(exact.blocks) if block.window_size]
    over_all = [index for index in range(len(exact.blocks)) if index not in inside]
    parts: list[tuple[str, list[int], type[Part]]] = [
        ("attention in windows", inside, Attention),
        ("attention over all", over_all, Attention),
        ("MLP", [*inside, *over_all], Mlp),
    ]
    shared = {
        "model": model, "precision": precision, "machine": describe_device(torch.device("cpu")),
        "threads": torch.get_num_threads(), "date": date.today().isoformat(),
    }  # fmt: skip
    with torch.inference_mode():  # from here on: weights made in it are slower, for some reason
        rows = [{**shared, **row} for row in _compare(exact, ours, parts, tokens, precision, repeats)]
    total, every = (sum(row["blocks"] * row[f"{who}_ms"] for row in rows) for who in ("refsam", "openvino"))
    best = sum(row["blocks"] * min(row["refsam_ms"], row["openvino_ms"]) for row in rows)
    for name, summed in (("all", every), ("best", best)):
        of_all = {"refsam_ms": round(total, 1), "openvino_ms": round(summed, 1), "ratio": round(summed / total, 3)}
        rows.append({**shared, "part": name, "blocks": len(exact.blocks), "error": "", **of_all})
    return rows


def _compare(
    exact: Any,
    ours: Any,
    parts: list[tuple[str, list[int], type[Part]]],
    tokens: Tensor,
    precision: str,
    repeats: int,
) -> list[dict[str, Any]]:
    calls = {name: _own(ours, blocks[0], tokens, part is Attention) for name, blocks, part in parts}
    own = {name: (_median(call, repeats), call().clone()) for name, call in calls.items()}  # before OpenVINO is there
    rows: list[dict[str, Any]] = []
    for name, blocks, part in parts:
        call = _openvino(part(exact.blocks[blocks[0]]), tokens, PRECISIONS[precision])
        taken, expected = own[name]
        theirs, error = _median(call, repeats), float((call() - expected).abs().max())
        found = {"refsam_ms": taken, "openvino_ms": theirs, "ratio": round(theirs / taken, 3), "error": f"{error:.1e}"}
        rows.append({"part": name, "blocks": len(blocks), **found})
    return rows


def _own(encoder: Any, index: int, tokens: Tensor, attention: bool) -> Callable[[], Tensor]:
    if attention:
        return lambda: attend_tokens(encoder.blocks[index], tokens)
    return lambda: run_blocks(encoder, tokens, range(index, index + 1), attended=tokens.clone())


def _openvino(part: Part, tokens: Tensor, precision: str) -> Callable[[], Tensor]:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }  # fmt: skip
    model = openvino.convert_model(part.eval(), example_input=tokens)
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    given = tokens.numpy()
    return lambda: torch.from_numpy(request.infer({0: given}, share_inputs=True, share_outputs=True)[0])


def _median(call: Callable[[], Tensor], repeats: int) -> float:
    """Median milliseconds of a call after some that do not count."""
    taken = []
    for number in range(UNCOUNTED + repeats):
        started = time.perf_counter()
        call()
        if number >= UNCOUNTED:
            taken.append(1000 * (time.perf_counter() - started))
    return round(median(taken), 1)


if __name__ == "__main__":
    main()
