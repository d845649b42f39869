"""Smoothing along edges, against the definition of the guided filter in NumPy."""

import numpy as np
import pytest
import torch

from refsam_qgis.engine.models.guided_filter import EVENNESS, EVERY, RADIUS, GuidedFilter

SIDE = 32


def numbers(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def halve(values):
    rows, columns = values.shape[-2] // EVERY, values.shape[-1] // EVERY
    return values.reshape(*values.shape[:-2], rows, EVERY, columns, EVERY).mean((-3, -1))


def linear_functions(colours, values, weight):
    """Reference: the least squares with a penalty on the slope of He, Sun and Tang, window by window."""
    guide, wanted, share = halve(colours), halve(values), halve(weight)
    rows, columns = wanted.shape
    found = np.zeros((4, rows, columns))

    def window(row, column):
        return (
            slice(max(row - RADIUS, 0), row + RADIUS + 1),
            slice(max(column - RADIUS, 0), column + RADIUS + 1),
        )

    for row in range(rows):
        for column in range(columns):
            place = window(row, column)
            weights = share[place].ravel()
            if not weights.sum():
                continue
            design = guide[(slice(None), *place)].reshape(3, -1).T
            mean = np.average(design, axis=0, weights=weights)
            centred, level = design - mean, np.average(wanted[place].ravel(), weights=weights)
            spread = (centred * weights[:, None]).T @ centred / weights.sum() + EVENNESS * np.eye(3)
            joint = (centred * weights[:, None]).T @ (wanted[place].ravel() - level) / weights.sum()
            slope = np.linalg.solve(spread, joint)
            found[:, row, column] = *slope, level - slope @ mean
    averaged = np.zeros_like(found)
    for row in range(rows):
        for column in range(columns):
            place = window(row, column)
            if share[place].sum():
                summed = (found[(slice(None), *place)] * share[place]).sum((1, 2))
                averaged[:, row, column] = summed / share[place].sum()
    return averaged


@pytest.mark.parametrize("nodata", [False, True])
def test_it_equals_its_definition(nodata):
    colours, values = numbers(0, 2, 3, SIDE, SIDE), 6 * numbers(1, 2, SIDE, SIDE) - 3
    inside = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    if nodata:
        inside[0, :, 21:] = False
        inside[1, :5, :11] = False
    found = GuidedFilter(colours, inside if nodata else None).smooth(values)
    for index in range(2):
        functions = linear_functions(*(one[index].double().numpy() for one in (colours, values, inside)))
        enlarged = torch.nn.functional.interpolate(torch.from_numpy(functions)[None], (SIDE, SIDE), mode="bilinear")[0]
        expected = (enlarged[:3] * colours[index]).sum(0) + enlarged[3]
        torch.testing.assert_close(found[index][inside[index]], expected[inside[index]], atol=1e-9, rtol=0)


def test_edges_stay_and_grain_goes():
    """A grainy map of a roof: it becomes even on both sides, and steps where the roof ends."""
    colours = torch.full((1, 3, SIDE, SIDE), 0.3)
    colours[..., 13:] = 0.7
    step = torch.where(colours[:, 0] > 0.5, 2.0, -2.0)
    smoothed = GuidedFilter(colours).smooth(step + numbers(2, 1, SIDE, SIDE).float() * 2 - 1)
    assert (smoothed - step).abs().max() < 0.5
    assert (smoothed[..., 13] - smoothed[..., 12]).min() > 3


def test_an_even_map_stays_and_sums_may_be_smoothed_one_by_one():
    smooth = GuidedFilter(numbers(3, 2, 3, SIDE, SIDE)).smooth
    one, other = numbers(4, 2, 2, SIDE, SIDE)
    torch.testing.assert_close(smooth(torch.full_like(one, 5.0)), torch.full_like(one, 5.0))
    torch.testing.assert_close(smooth(3 * one - other), 3 * smooth(one) - smooth(other))


def test_what_lies_under_nodata_has_no_influence():
    colours, values = numbers(5, 1, 3, SIDE, SIDE), numbers(6, 1, SIDE, SIDE)
    inside = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    inside[..., 15:] = False  # in the middle of a shared place
    found = GuidedFilter(colours, inside).smooth(values)
    colours[..., 16:], values[..., 16:] = 0.0, 1e3
    again = GuidedFilter(colours, inside).smooth(values)
    assert torch.equal(again[..., :15], found[..., :15])
    assert torch.isfinite(again).all()
    assert torch.isfinite(GuidedFilter(colours, torch.zeros_like(inside)).smooth(values)).all()
