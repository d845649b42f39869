"""A state that travels: its size, what it keeps exactly, and a training that goes on from it."""

import pytest
import torch

from refsam_qgis.engine.errors import JobCancelled
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.training.pretrain import PretrainConfig, pretrain
from refsam_qgis.engine.training.small_state import enlarge, halve, shrink
from refsam_qgis.engine.training.state import Schedule, TrainingState


def optimiser_after_a_step(*weights, moment=None):
    optimiser = torch.optim.AdamW([torch.nn.Parameter(weight) for weight in weights])
    for group in optimiser.param_groups:
        for weight in group["params"]:
            weight.grad = torch.ones_like(weight)
    optimiser.step()
    if moment is not None:
        optimiser.state[optimiser.param_groups[0]["params"][0]]["exp_avg_sq"] = moment
    return optimiser


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3, 3), (1, 8, 8, 12)])
def test_second_moments_of_rank_one_are_kept_exactly(shape):
    sizes = [size for size in shape if size > 1]
    rows, columns = torch.rand(sizes[0]), torch.rand(torch.Size(sizes[1:]).numel())
    moment = torch.outer(rows, columns).reshape(shape)
    optimiser = optimiser_after_a_step(torch.zeros(shape), torch.zeros(9), moment=moment)
    back = enlarge(shrink(optimiser.state_dict()))
    torch.testing.assert_close(back["state"][0]["exp_avg_sq"], moment)
    assert torch.equal(back["state"][1]["exp_avg_sq"], optimiser.state_dict()["state"][1]["exp_avg_sq"])
    assert not back["state"][0]["exp_avg"].any() and back["state"][0]["step"] == 1
    optimiser.load_state_dict(back)


def test_a_moment_that_is_all_zero_stays_so():
    optimiser = optimiser_after_a_step(torch.zeros(3, 4), moment=torch.zeros(3, 4))
    assert not enlarge(shrink(optimiser.state_dict()))["state"][0]["exp_avg_sq"].any()


def test_the_state_of_a_whole_sam_fits_what_travels_and_is_gone_on_from(tmp_path):
    torch.manual_seed(0)
    sam, path = build_sam("compact"), tmp_path / "sam.pt"
    config = PretrainConfig(steps=3, places=1, prompts=1, window=64, warmup=1)

    def stop_after_two(step, losses):
        if step == 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        pretrain(sam, config, TrainingState(path, small=True), (), stop_after_two, workers=0)
    assert path.stat().st_size < 16e6
    later, steps = build_sam("compact"), []
    state = TrainingState(path, small=True)
    state.begin(list(later.parameters()), later, config.weight_decay, vars(config))
    for name, weight in later.state_dict().items():
        torch.testing.assert_close(weight, halve({name: sam.state_dict()[name]})[name].float(), rtol=0, atol=0)
    pretrain(later, config, TrainingState(path, small=True), (), lambda step, losses: steps.append(step), workers=0)
    assert steps == [3]


def test_steps_after_going_on_are_no_longer_than_before(tmp_path):
    """Without first moments Adam's steps begin short; a lost second moment would make them as long as its first."""
    weight = torch.nn.Linear(8, 8)
    schedule = Schedule(1e-2, 0, 1000)
    state = TrainingState(tmp_path / "s.pt", small=True)
    state.begin(list(weight.parameters()), weight, 0.0, {})
    for _ in range(50):
        state.optimise(weight(torch.ones(1, 8)).square().sum() * 100, schedule)
    state.save()
    again = TrainingState(tmp_path / "s.pt", small=True)
    again.begin(list(weight.parameters()), weight, 0.0, {})
    before = weight.weight.detach().clone()
    again.optimise(weight(torch.ones(1, 8)).square().sum() * 100, schedule)
    assert again.step == 51 and (weight.weight - before).abs().max() < 0.5 * schedule.rate(50)
