import numpy as np
import pytest

from refsam_qgis.engine.evaluation.datasets.run_lengths import decode_mask


def two_boxes():
    mask = np.zeros((7, 9), bool)
    mask[1:3, 2:7] = mask[4:7, 5:9] = True
    mask[0, 0] = mask[6, 0] = True
    return mask


def test_runs_go_down_the_columns_and_begin_with_zeros():
    assert decode_mask([2, 3, 1], 2, 3).tolist() == [[False, True, True], [False, True, False]]
    assert decode_mask([0, 1, 3], 2, 2).tolist() == [[True, False], [False, False]]


def test_text_is_read_as_pycocotools_writes_it():
    # pycocotools 2.0.11: encode(asfortranarray(mask))
    assert (decode_mask("015031M00000L10O013000", 7, 9) == two_boxes()).all()
    large = np.zeros((480, 640), bool)
    large[100:300, 200:205] = large[90:400, 300:302] = large[0:5, 638:640] = True
    assert (decode_mask(r"Tkm2X6h80000000f`\1^3l[cN0V]m4_F[lRK00", 480, 640) == large).all()


@pytest.mark.parametrize("counts", [[1, 2], [3, 3], [5, -1], "3"])
def test_runs_that_do_not_fill_the_mask_are_refused(counts):
    with pytest.raises(ValueError, match="do not fill a mask of 2x2"):
        decode_mask(counts, 2, 2)
