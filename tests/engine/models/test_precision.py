import copy
from types import SimpleNamespace

import pytest
import torch

from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models import checkpoints
from refsam_qgis.engine.models.checkpoints import load_segmenter
from refsam_qgis.engine.models.decoder import decode_all
from refsam_qgis.engine.models.encoder import encode
from refsam_qgis.engine.models.precision import choose_precision, name_precision, set_precision
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.segmenter import FOREGROUND, Shots
from refsam_qgis.engine.report import describe_device
from tests.engine.models.test_encoder import build, pixels

CPU = torch.device("cpu")


def has(monkeypatch, avx512=False, amx=False, cuda=False):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    # torch says yes for any CUDA device if it may emulate.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda or including_emulation)


@pytest.mark.parametrize(
    ("device", "hardware", "expected"),
    [
        ("cpu", {}, torch.float32),
        ("cpu", {"cuda": True}, torch.float32),
        ("cpu", {"avx512": True}, torch.bfloat16),
        ("cpu", {"amx": True}, torch.bfloat16),
        ("cuda", {}, torch.float32),
        ("cuda", {"cuda": True}, torch.bfloat16),
        ("mps", {"avx512": True, "cuda": True}, torch.float32),
    ],
)
def test_bfloat16_where_the_hardware_has_it(monkeypatch, device, hardware, expected):
    has(monkeypatch, **hardware)
    assert choose_precision(torch.device(device)) == expected


def test_reports_and_keys_tell_the_precision(monkeypatch):
    has(monkeypatch)
    assert name_precision(CPU) == describe_device(CPU)["precision"] == "float32"
    has(monkeypatch, avx512=True)
    assert name_precision(CPU) == describe_device(CPU)["precision"] == "bfloat16"


def test_segmenters_are_loaded_in_the_precision_of_their_device(monkeypatch):
    for precision in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(checkpoints, "choose_precision", lambda device, own=precision: own)
        sam = load_segmenter(ModelOptions(device="cpu")).model.sam
        assert sam.image_encoder.blocks[0].attn.qkv.weight.dtype == precision
        assert sam.mask_decoder.transformer.layers[0].self_attn.q_proj.weight.dtype == precision
        assert sam.mask_decoder.output_upscaling[0].weight.dtype == precision
        for exact in (
            sam.image_encoder.blocks[0].norm1,
            sam.mask_decoder.iou_token,
            sam.mask_decoder.transformer.layers[0].norm1,
            sam.mask_decoder.output_hypernetworks_mlps[0].layers[0],
            sam.prompt_encoder.mask_downscaling[0],
        ):
            assert exact.weight.dtype == torch.float32


@pytest.mark.parametrize("amx", [True, False])
@torch.no_grad()
def test_bfloat16_is_close_to_float32(monkeypatch, amx):
    """By either way of attending: fused where the hardware has tiles, in parts that its cache holds elsewhere."""
    has(monkeypatch, avx512=True, amx=amx)
    encoder, values = build(depth=4), pixels(1)
    rounded = copy.deepcopy(encoder)
    set_precision(rounded, torch.bfloat16)
    expected, ours = encode(encoder, values), encode(rounded, values)
    assert ours.dtype == torch.float32 and not torch.equal(ours, expected)
    assert torch.nn.functional.cosine_similarity(ours, expected, dim=1).min() > 0.99
    assert torch.nn.functional.cosine_similarity(ours.flatten(), expected.flatten(), dim=0) >= 0.9995


@pytest.mark.parametrize("amx", [True, False])
@torch.no_grad()
def test_attention_is_fused_in_bfloat16_only_where_that_is_quick(monkeypatch, amx):
    """torch's fused attention widens bfloat16 to float32 on a CPU without tiles: twice to four times as slow."""
    has(monkeypatch, avx512=True, amx=amx)
    fused = []
    own = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: fused.append(a[0].dtype) or own(*a, **k)
    )
    encoder = build()
    set_precision(encoder, torch.bfloat16)
    encode(encoder, pixels(1))
    assert bool(fused) == amx


@torch.no_grad()
def test_the_decoder_in_bfloat16_is_close_to_float32():
    torch.manual_seed(0)
    sam = build_sam("compact")
    decoder = copy.deepcopy(sam.mask_decoder)
    draw = torch.Generator().manual_seed(0)
    prompted = [
        torch.randn(shape, generator=draw)
        for shape in ((2, 256, 64, 64), (1, 256, 64, 64), (2, 9, 256), (2, 256, 64, 64))
    ]
    rounded = SimpleNamespace(mask_decoder=decoder)
    for part in (decoder.transformer, decoder.output_upscaling):
        set_precision(part, torch.bfloat16)
    (expected, scores), (ours, our_scores) = (decode_all(one, *prompted) for one in (sam, rounded))
    assert ours.dtype == our_scores.dtype == torch.float32 and not torch.equal(ours, expected)
    assert (ours - expected).abs().max() < 0.1 * expected.std()
    torch.testing.assert_close(our_scores, scores, atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(choose_precision(CPU) != torch.bfloat16, reason="takes a minute where bfloat16 is emulated")
@torch.inference_mode()
def test_bfloat16_marks_what_float32_marks(monkeypatch):
    """The bundled model as a user gets it on a processor with bfloat16."""
    image = torch.full((1, 3, 128, 128), 60, dtype=torch.uint8)
    image += torch.randint(0, 20, image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 128, 128, dtype=torch.uint8)
    masks[:, 40:70, 30:60] = FOREGROUND
    image[0, :, 40:70, 30:60] += 120
    valid = torch.ones(1, 128, 128, dtype=torch.bool)
    found = []
    for precision in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(checkpoints, "choose_precision", lambda device, own=precision: own)
        segmenter = load_segmenter(ModelOptions(device="cpu"))
        reference = segmenter.describe(Shots(image, masks, valid))
        encoding = segmenter.encode(image.roll(31, -1), valid)
        found.append((encoding.frozen.features, segmenter.segment(encoding, reference) > 0))
    (features, mask), (rounded_features, rounded_mask) = found
    assert not torch.equal(features, rounded_features)
    assert torch.nn.functional.cosine_similarity(features.flatten(), rounded_features.flatten(), dim=0) >= 0.9995
    assert mask.sum() > 100
    assert (mask & rounded_mask).sum() / (mask | rounded_mask).sum() >= 0.99
