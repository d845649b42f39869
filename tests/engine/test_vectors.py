from __future__ import annotations

from itertools import permutations

from refsam_qgis.engine.vectors import value_order


def test_values_have_one_order_whatever_they_come_in():
    values = ["-3", "5", "7", "1e1", "inf", "nan", "roof"]
    assert all(sorted(given, key=value_order) == values for given in permutations(values))
