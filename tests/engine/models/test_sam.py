import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from refsam_qgis.engine.models.encoder import embed_patches, encode, project, run_blocks
from refsam_qgis.engine.models.sam import build_sam, normalise, segment_anything_modules
from refsam_qgis.engine.training.scenes import render_scene, sample_style


def picture(rows: int, columns: int) -> torch.Tensor:
    rng = np.random.default_rng(4)
    side = max(rows, columns)
    image = render_scene(sample_style(rng), rng, side).image[:rows, :columns]
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def test_embedding_equals_segment_anything(sam):
    image = picture(300, 300)
    ours = encode(sam.image_encoder, normalise(image[None], torch.ones(1, 300, 300, dtype=torch.bool), sam))
    scaled = torch.nn.functional.interpolate(image[None].float(), (1024, 1024), mode="bilinear", antialias=True)
    theirs = sam.image_encoder(sam.preprocess(scaled))
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_real_image_equals_segment_anything(sam, shared_data):
    path = sorted((shared_data / "train" / "dubai").glob("*.jpg"))[0]
    with Image.open(path) as opened:
        image = torch.from_numpy(np.asarray(opened.convert("RGB"))[:512, :512].copy()).permute(2, 0, 1)
    ours = encode(sam.image_encoder, normalise(image[None], torch.ones(1, 512, 512, dtype=torch.bool), sam))
    scaled = torch.nn.functional.interpolate(image[None].float(), (1024, 1024), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, sam.image_encoder(sam.preprocess(scaled)), atol=1e-4, rtol=0)


def test_tile_over_the_edge_is_padded_as_sam_pads(sam):
    image = picture(256, 256)
    valid = torch.zeros(1, 256, 256, dtype=torch.bool)
    valid[:, :256, :160] = True
    ours = normalise(image[None], valid, sam)
    oblong = image[None, :, :, :160].float()
    scaled = torch.nn.functional.interpolate(oblong, (1024, 640), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, sam.preprocess(scaled))


def test_nodata_does_not_change_the_input(sam):
    image = picture(128, 128)
    valid = torch.ones(1, 128, 128, dtype=torch.bool)
    valid[:, 30:40, 30:40] = False
    changed = image.clone()
    changed[:, 31:39, 31:39] = 0
    inner = (slice(None), slice(None), slice(248, 312), slice(248, 312))
    for pixels in (image, changed):
        assert normalise(pixels[None], valid, sam)[inner].abs().max() == 0


def test_all_nodata_tile_is_all_padding(sam):
    nothing = torch.zeros(1, 64, 64, dtype=torch.bool)
    assert normalise(torch.full((1, 3, 64, 64), 9, dtype=torch.uint8), nothing, sam).abs().max() == 0


@pytest.mark.parametrize(("model", "parameters"), [("vit_b", 89_670_912)])
def test_published_sizes(model, parameters):
    sam = build_sam(model)
    assert sum(p.numel() for p in sam.image_encoder.parameters()) == parameters


def test_window_14_with_padding_equals_segment_anything():
    modeling = segment_anything_modules().modeling
    torch.manual_seed(0)
    encoder = modeling.ImageEncoderViT(
        img_size=320, embed_dim=32, depth=2, num_heads=2, use_rel_pos=True, rel_pos_zero_init=False, window_size=14,
        global_attn_indexes=(1,), out_chans=16,
    )  # fmt: skip
    for block in encoder.blocks:
        torch.nn.init.normal_(block.attn.rel_pos_h)
        torch.nn.init.normal_(block.attn.rel_pos_w)
    torch.nn.init.normal_(encoder.pos_embed)
    pixels = torch.randn(2, 3, 320, 320)
    inner = []
    encoder.blocks[0].register_forward_hook(lambda block, inputs, tokens: inner.append(tokens))
    with torch.no_grad():
        torch.testing.assert_close(encode(encoder, pixels), encoder(pixels), atol=1e-5, rtol=1e-5)
        tokens = run_blocks(encoder, embed_patches(encoder, pixels), range(1))
        torch.testing.assert_close(tokens, inner[0], atol=1e-5, rtol=1e-5)
        through_neck = encoder.neck(inner[0].permute(0, 3, 1, 2))
        torch.testing.assert_close(project(encoder, tokens), through_neck, atol=1e-5, rtol=1e-5)


def test_segment_anything_import_leaves_no_trace():
    program = (
        "import sys\n"
        "from refsam_qgis.engine.models.sam import segment_anything_modules\n"
        "segment_anything_modules()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('segment_anything', 'torchvision')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
