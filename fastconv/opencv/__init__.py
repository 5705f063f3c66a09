"""OpenCV's filters with its arguments, defaults, borders and rounding, on NumPy arrays; cv2 itself is not needed.

Replace ``import cv2`` by ``from fastconv import opencv as cv2`` where only these functions and constants are used.  Integer
images give OpenCV's integers; docs/migration.md lists what is equal and what is not.

Examples
--------
>>> import numpy as np
>>> from fastconv import opencv as cv2
>>> image = np.zeros((5, 5, 3), np.uint8)
>>> image[2, 2] = 16, 32, 64
>>> cv2.GaussianBlur(image, (3, 3), 0, borderType=cv2.BORDER_REPLICATE)[1:4, 2].tolist()
[[2, 4, 8], [4, 8, 16], [2, 4, 8]]
"""

from .constants import (
    ALGO_HINT_ACCURATE,
    ALGO_HINT_APPROX,
    ALGO_HINT_DEFAULT,
    BORDER_CONSTANT,
    BORDER_DEFAULT,
    BORDER_ISOLATED,
    BORDER_REFLECT,
    BORDER_REFLECT101,
    BORDER_REFLECT_101,
    BORDER_REPLICATE,
    BORDER_TRANSPARENT,
    BORDER_WRAP,
    CV_8S,
    CV_8U,
    CV_16F,
    CV_16S,
    CV_16U,
    CV_32F,
    CV_32S,
    CV_64F,
    FILTER_SCHARR,
)
from .derivatives import Laplacian, Scharr, Sobel
from .filters import GaussianBlur, blur, boxFilter, filter2D, sepFilter2D

__all__ = [
    "filter2D", "sepFilter2D", "boxFilter", "blur", "GaussianBlur", "Sobel", "Scharr", "Laplacian",
    "CV_8U", "CV_8S", "CV_16U", "CV_16S", "CV_32S", "CV_32F", "CV_64F", "CV_16F",
    "BORDER_CONSTANT", "BORDER_REPLICATE", "BORDER_REFLECT", "BORDER_WRAP", "BORDER_REFLECT_101", "BORDER_REFLECT101",
    "BORDER_DEFAULT", "BORDER_TRANSPARENT", "BORDER_ISOLATED",
    "FILTER_SCHARR", "ALGO_HINT_DEFAULT", "ALGO_HINT_ACCURATE", "ALGO_HINT_APPROX",
]  # fmt: skip
