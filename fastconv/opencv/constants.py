"""OpenCV's integers: what its calls take as ``ddepth``, ``borderType``, ``ksize`` and ``hint``."""

CV_8U = 0
CV_8S = 1
CV_16U = 2
CV_16S = 3
CV_32S = 4
CV_32F = 5
CV_64F = 6
CV_16F = 7

BORDER_CONSTANT = 0  # zeros: OpenCV's filters take no other value
BORDER_REPLICATE = 1
BORDER_REFLECT = 2  # the edge pixel repeated
BORDER_WRAP = 3
BORDER_REFLECT_101 = BORDER_REFLECT101 = BORDER_DEFAULT = 4  # the edge pixel not repeated
BORDER_TRANSPARENT = 5
BORDER_ISOLATED = 16

FILTER_SCHARR = -1

ALGO_HINT_DEFAULT = 0
ALGO_HINT_ACCURATE = 1
ALGO_HINT_APPROX = 2
