import json

import pytest
import torch
from safetensors.torch import load_file

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models import checkpoints
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.fitted import FittedSegmenter, FittedStockSegmenter
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.training_free import TrainingFreeSegmenter
from refsam_qgis.engine.models.virefsam import ViRefSAM, ViRefSAMSegmenter
from refsam_qgis.engine.models.weight_files import COMPACT_ADAPTERS, COMPACT_SAM


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sam):
    """A compact SAM in SAM's own `.pth` form and in ours, and adapters for it, in a folder with a hard name."""
    folder = tmp_path_factory.mktemp("weights") / "Gewichte und 权重"
    folder.mkdir()
    torch.save(sam.state_dict(), folder / "sam.pth")
    checkpoints.save_weights(sam.state_dict(), folder / "sam.safetensors")
    model = ViRefSAM(sam)
    checkpoints.save_weights(
        model.trainable_state(), folder / "adapters.safetensors", checkpoints.adapters_metadata(model.config)
    )
    return folder


def options(folder, checkpoint="sam.pth", **changes):
    return ModelOptions(model="compact", checkpoint=str(folder / checkpoint), device="cpu", **changes)


def test_pth_round_trip_is_exact(folder, sam):
    loaded = checkpoints.load_sam(options(folder)).state_dict()
    assert set(loaded) == set(sam.state_dict())
    assert all(torch.equal(loaded[name], value) for name, value in sam.state_dict().items())


def test_safetensors_are_16_bit_and_load_as_32_bit(folder, sam):
    assert all(value.dtype == torch.float16 for value in load_file(folder / "sam.safetensors").values())
    loaded = checkpoints.load_sam(options(folder, "sam.safetensors"))
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, sam.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_auto_picks_what_the_weights_allow(folder):
    assert isinstance(checkpoints.load_segmenter(options(folder)), FittedStockSegmenter)
    adapters = str(folder / "adapters.safetensors")
    assert isinstance(checkpoints.load_segmenter(options(folder, adapters=adapters)), FittedSegmenter)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("fitted", FittedSegmenter), ("virefsam", ViRefSAMSegmenter), ("training_free", TrainingFreeSegmenter)],
)
def test_each_method_has_its_segmenter(folder, method, kind):
    chosen = options(folder, adapters=str(folder / "adapters.safetensors"), method=method)
    assert type(checkpoints.load_segmenter(chosen)) is kind


def test_loaded_segmenter_finds_something(folder):
    from refsam_qgis.engine.models.segmenter import Shots

    segmenter = checkpoints.load_segmenter(options(folder, adapters=str(folder / "adapters.safetensors")))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(1, 96, 96, dtype=torch.uint8)
    masks[:, 20:50, 20:50] = 1
    valid = torch.ones(1, 96, 96, dtype=torch.bool)
    logits = segmenter.segment(segmenter.encode(images, valid), segmenter.describe(Shots(images, masks, valid)))
    assert logits.shape == (1, 256, 256) and logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_adapters_from_before_the_variants_load_as_the_full_model(folder, sam, tmp_path):
    """The metadata as they were written before any part could be left out."""
    old = {
        "background_cells": 4, "queries": 64, "heads": 8, "adapter_width": 64, "sharpness": 20.0,
        "positive_points": 4, "negative_points": 2, "diversity": "squared",
    }  # fmt: skip
    path = tmp_path / "old.safetensors"
    checkpoints.save_weights(ViRefSAM(sam).trainable_state(), path, {"config": json.dumps(old)})
    assert checkpoints.load_adapters(sam, path).config == ViRefSAMConfig(background_cells=4)


@pytest.mark.parametrize("config", ['{"queries": 64, "wings": 2}', "[1]", "{"])
def test_adapters_of_a_later_version_are_explained(sam, tmp_path, config):
    path = tmp_path / "later.safetensors"
    checkpoints.save_weights(ViRefSAM(sam).trainable_state(), path, {"config": config})
    with pytest.raises(RefSAMError, match=r"later\.safetensors' was written by another version of RefSAM"):
        checkpoints.load_adapters(sam, path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"adapter_width": "64"}, {"adapter_width": -3}, {"adapter_width": 64.0}, {"queries": 10**12}, {"heads": 7},
        {"heads": 0}, {"background_cells": 0}, {"positive_points": True}, {"sharpness": "hot"},
        {"sharpness": float("nan")}, {"diversity": "any"}, {"adapted_blocks": 3}, {"feature_block": "last"},
        {"object_queries": None},
    ],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_explained(sam, tmp_path, wrong):
    path = tmp_path / "odd.safetensors"
    checkpoints.save_weights(ViRefSAM(sam).trainable_state(), path, {"config": json.dumps(wrong)})
    with pytest.raises(RefSAMError, match=r"odd\.safetensors' was written by another version") as caught:
        checkpoints.load_adapters(sam, path)
    assert caught.value.code == "checkpoint"


def test_whole_numbers_may_stand_for_others(sam, tmp_path):
    path = tmp_path / "whole.safetensors"
    checkpoints.save_weights(ViRefSAM(sam).trainable_state(), path, {"config": '{"sharpness": 20}'})
    assert checkpoints.load_adapters(sam, path).config == ViRefSAMConfig()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("vcp.queries", float("nan"), "no finite numbers, such as 'vcp.queries'"),
        ("vcp.queries", float("inf"), "no finite numbers, such as 'vcp.queries'"),
        ("sam.mask_decoder.iou_token.weight", 0.0, "weights of SAM itself"),
    ],
)
def test_adapters_that_would_spoil_answers_are_refused(sam, tmp_path, name, value, told):
    model = ViRefSAM(sam)
    before = sam.mask_decoder.iou_token.weight.clone()
    state = {**model.trainable_state(), name: torch.full_like(model.state_dict()[name], value)}
    path = tmp_path / "spoilt.safetensors"
    checkpoints.save_weights(state, path, checkpoints.adapters_metadata(model.config))
    with pytest.raises(RefSAMError, match=told) as caught:
        checkpoints.load_adapters(sam, path)
    assert caught.value.code == "checkpoint" and "spoilt.safetensors" in str(caught.value)
    assert torch.equal(sam.mask_decoder.iou_token.weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["spoilt.pth", "spoilt.safetensors"])
def test_a_checkpoint_with_a_number_that_is_none_is_refused(sam, tmp_path, name, value):
    """One such weight makes all answers NaN, and the run would find nothing."""
    weight = "image_encoder.blocks.3.attn.qkv.weight"
    state = {**sam.state_dict(), weight: sam.state_dict()[weight].clone()}
    state[weight][0, 0] = value
    if name.endswith(".pth"):
        torch.save(state, tmp_path / name)
    else:
        checkpoints.save_weights(state, tmp_path / name)
    with pytest.raises(RefSAMError, match=f"no finite numbers, such as '{weight}'") as caught:
        checkpoints.load_segmenter(options(tmp_path, name))
    assert caught.value.code == "checkpoint" and name in str(caught.value)


def test_adapters_from_before_the_blend_load_with_its_start(sam, tmp_path):
    model = ViRefSAM(sam)
    start = {name: value.clone() for name, value in model.blend.state_dict().items()}
    with torch.no_grad():
        model.blend.gain.fill_(7)
    old = {name: value for name, value in model.trainable_state().items() if not name.startswith("blend.")}
    path = tmp_path / "old.safetensors"
    checkpoints.save_weights(old, path, checkpoints.adapters_metadata(model.config))
    assert checkpoints.load_adapters(sam, path).blend.state_dict() == start
    checkpoints.save_weights(model.trainable_state(), path, checkpoints.adapters_metadata(model.config))
    assert float(checkpoints.load_adapters(sam, path).blend.gain) == 7


@pytest.mark.parametrize(
    "config",
    [
        ViRefSAMConfig(visual_interaction=False, position_code=False),
        ViRefSAMConfig(object_queries=False, adapted_blocks="last_2", feature_block=3),
        ViRefSAMConfig(adapted_blocks="none"),
    ],
)
def test_a_variant_loads_as_what_it_was(sam, tmp_path, config):
    written = ViRefSAM(sam, config)
    path = tmp_path / "variant.safetensors"
    checkpoints.save_weights(written.trainable_state(), path, checkpoints.adapters_metadata(config))
    loaded = checkpoints.load_adapters(sam, path)
    assert loaded.config == config
    assert loaded.trainable_state().keys() == written.trainable_state().keys()
    checkpoints.save_weights(written.trainable_state(), path, checkpoints.adapters_metadata(ViRefSAMConfig()))
    with pytest.raises(RefSAMError, match="weights missing"):
        checkpoints.load_adapters(sam, path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.pth", None, "does not exist"),
        ("text.pth", b"this is no checkpoint", "not a SAM checkpoint"),
        ("text.safetensors", b"neither is this", "not a SAM checkpoint"),
        ("empty.pth", b"", "not a SAM checkpoint"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RefSAMError, match=told) as caught:
        checkpoints.load_sam(ModelOptions(checkpoint=str(tmp_path / name)))
    assert name in str(caught.value)
    assert caught.value.code == "checkpoint"


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"image_encoder.pos_embed": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(RefSAMError, match="not a SAM checkpoint"):
        checkpoints.load_sam(ModelOptions(checkpoint=str(tmp_path / "evil.pth")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["drop", "add", "reshape"])
def test_every_key_and_shape_is_checked(tmp_path, sam, damage):
    state = dict(sam.state_dict())
    if damage == "drop":
        del state["mask_decoder.iou_token.weight"]
    elif damage == "add":
        state["extra"] = torch.zeros(1)
    else:
        state["mask_decoder.iou_token.weight"] = torch.zeros(1, 7)
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(RefSAMError, match=r"1 (weights missing|foreign|of another shape)"):
        checkpoints.load_sam(ModelOptions(checkpoint=str(tmp_path / "sam.pth")))


def test_checkpoint_of_another_size_is_refused(folder):
    with pytest.raises(RefSAMError, match="does not fit SAM model 'vit_b'"):
        checkpoints.load_sam(ModelOptions(model="vit_b", checkpoint=str(folder / "sam.pth")))


def test_missing_weights_say_where_to_get_them():
    with pytest.raises(RefSAMError, match=r"sam_vit_l_0b3195\.pth"):
        checkpoints.load_segmenter(ModelOptions(model="vit_l"))


def test_virefsam_without_adapters_is_explained(folder):
    with pytest.raises(RefSAMError, match="or the method 'fitted'"):
        checkpoints.load_segmenter(options(folder, method="virefsam"))


def test_adapters_file_that_is_none(folder):
    with pytest.raises(RefSAMError, match="not an adapters file"):
        checkpoints.load_segmenter(options(folder, adapters=str(folder / "sam.pth")))


def test_absent_device_is_explained(folder):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RefSAMError, match="'cuda' is not available"):
        checkpoints.load_segmenter(ModelOptions(checkpoint=str(folder / "sam.pth"), device="cuda"))


def test_bundled_weights_load_and_fit_the_download_limit():
    files = [COMPACT_SAM, COMPACT_ADAPTERS]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    assert isinstance(checkpoints.load_segmenter(ModelOptions(device="cpu")), FittedSegmenter)


def test_build_sam_is_in_evaluation_mode():
    assert not build_sam("compact").training
