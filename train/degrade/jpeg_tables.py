"""Holds the quantisation tables of JPEG, and libjpeg's scale of qualities from 1 to 100. No torch.

Sources: ITU-T T.81, annex K; libjpeg, jcparam.c.
"""

import functools

import numpy as np
from numpy.typing import NDArray

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Rows are vertical frequencies, columns horizontal ones (T.81, table K.1)."""

CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
"""T.81, table K.2."""


@functools.cache
def tables_by_quality() -> NDArray[np.int64]:
    """Return the tables of luma and chroma for the qualities 1, 2, ... 100: (100, 2, 8, 8), whole numbers of 1 to 255.

    Source: libjpeg, jcparam.c (jpeg_quality_scaling, jpeg_add_quant_table with force_baseline).
    """
    base = np.array([LUMA_TABLE, CHROMA_TABLE], np.int64)
    percents = [5000 // quality if quality < 50 else 200 - 2 * quality for quality in range(1, 101)]
    return np.stack([((base * percent + 50) // 100).clip(1, 255) for percent in percents])
