"""Stage 0: what points and boxes ask for, and a decoder that begins by looking at their place."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.training.prompt_geometry import (
    DISC_RADIUS,
    GeometryConfig,
    begin_decoder,
    draw_shapes,
    embed_geometry,
    learn_geometry,
)
from refsam_qgis.engine.training.state import TrainingState


@pytest.fixture
def sam():
    torch.manual_seed(0)
    return build_sam("compact")


def drawn_by_pillow(shapes, index, window):
    canvas = Image.new("L", (window, window))
    if shapes.has_box[index]:
        ImageDraw.Draw(canvas).rectangle(shapes.boxes[index].tolist(), fill=1)
    else:
        x, y = shapes.points[index, 0].tolist()
        ImageDraw.Draw(canvas).ellipse([x - DISC_RADIUS, y - DISC_RADIUS, x + DISC_RADIUS, y + DISC_RADIUS], fill=1)
    return np.asarray(canvas)[2::4, 2::4]


def test_shapes_are_where_their_prompts_are():
    shapes = draw_shapes(60, 256, torch.Generator().manual_seed(3))
    for index in range(60):
        target = shapes.target[index].numpy()
        expected = drawn_by_pillow(shapes, index, 256)
        assert (target != expected).sum() <= 4 * np.sqrt(expected.sum()) + 4  # the border may fall on the other side
        if shapes.has_box[index] and shapes.labels[index, 0] == 1:
            x, y = shapes.points[index, 0]
            left, top, right, bottom = shapes.boxes[index]
            assert left <= x <= right and top <= y <= bottom
    kinds = {(bool(box), bool(label == 1)) for box, label in zip(shapes.has_box, shapes.labels[:, 0], strict=True)}
    assert kinds == {(False, True), (True, False), (True, True)}


def test_prompt_tokens_are_those_of_segment_anything(sam):
    shapes = draw_shapes(9, 256, torch.Generator().manual_seed(1))
    boxed = shapes.has_box
    with torch.no_grad():
        tokens = embed_geometry(sam, shapes.points, shapes.labels, shapes.boxes, boxed, (5, 9))
        shift = torch.tensor([9 * 16.0, 5 * 16.0])
        expected, _ = sam.prompt_encoder(
            points=(shapes.points + shift, shapes.labels), boxes=shapes.boxes + shift.repeat(2), masks=None
        )
    torch.testing.assert_close(tokens[boxed], expected[boxed])
    torch.testing.assert_close(tokens[~boxed][:, :-2], expected[~boxed][:, :-2])
    assert (tokens[~boxed][:, -2:] == sam.prompt_encoder.not_a_point_embed.weight).all()


def rivals_of_own_place(sam):
    """Share of the image that points look at more than at their own place, in the decoder's first attention to it."""
    points = torch.tensor([[[x, y]] for x in (200.0, 500.0, 900.0) for y in (120.0, 600.0, 1000.0)])
    shares = []

    def look(attention, args, given, answer):
        queries, keys = (
            attention._separate_heads(side, attention.num_heads)
            for side in (attention.q_proj(given["q"]), attention.k_proj(given["k"]))
        )
        # Heads are 16 wide, and five tokens of the decoder's own come before the point.
        weights = (queries @ keys.transpose(-1, -2) / 4).softmax(-1).mean(1)[:, 5]
        column, row = (points[:, 0] // 16).long().unbind(-1)
        own = weights.gather(1, (row * 64 + column)[:, None])
        shares.append((weights > own).float().mean().item())

    first = sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    hook = first.register_forward_hook(look, with_kwargs=True)
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(points=(points, torch.ones(9, 1)), boxes=None, masks=None)
        sam.mask_decoder(
            image_embeddings=torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(0)),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
    hook.remove()
    return shares[0]


def test_a_begun_decoder_looks_at_the_place_of_a_point(sam):
    assert rivals_of_own_place(sam) > 0.3
    begin_decoder(sam)
    assert rivals_of_own_place(sam) < 0.15


def test_geometry_is_learned_by_prompt_encoder_and_decoder_alone(sam, tmp_path):
    begin_decoder(sam)
    weights = {name: value.clone() for name, value in sam.state_dict().items()}
    losses = []
    config = GeometryConfig(steps=4, prompts=6, window=128, warmup=1)
    learn_geometry(sam, config, TrainingState(tmp_path / "s.pt"), lambda step, values: losses.append(values["mask"]))
    changed = {name.split(".")[0] for name, value in sam.state_dict().items() if not torch.equal(value, weights[name])}
    assert changed == {"prompt_encoder", "mask_decoder"}
    assert losses[-1] < losses[0]
    assert not any(weight.requires_grad for weight in sam.parameters())
