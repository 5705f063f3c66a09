"""scipy.ndimage's linear filters: its arguments, defaults, types, modes and errors, with ``precision``, ``threads`` and ``algorithm``.

What a call returns is SciPy's result:

* *Integers* (and bool) are equal to SciPy's, bit for bit: sums in float64 in its order, each product rounded before it is added,
  each pass of a separable filter stored in the output's type, cut off and wrapped as C converts on x86-64.
* *Floats* are within ``2 (T + 4) u sum|w x|`` of the formula, T taps, u half an epsilon; large kernels of `correlate` and
  `convolve`, which are transformed, within ``32 u max|x| sum|w|``.  float32 images with a float32 result are
  summed in float32; with ``precision="strict"`` in float64 and in SciPy's order, so that they are equal, too.
* *NaN and inf* go where SciPy's formula puts them: `correlate` and `convolve` do not multiply zero taps.

Where SciPy's result is not that of its formula, the formula wins: taps of at most 2.2e-16 are dropped, and halves that differ by
as little are taken for equal, only where they are as small beside the largest tap; `uniform_filter` has no running sum, which
carries NaN to the end of the line and drifts; an ``output`` that shares memory with ``input`` does not change the input before
it is read (`laplace`, `gaussian_laplace` and `gaussian_gradient_magnitude`).

Filters along one or two axes of arrays of any number of dimensions run here, and those of separable passes along any.  Left to
SciPy's own functions: `correlate` with more than two long axes, complex numbers, empty arrays and those of no dimension, sums of
integers that no compiled kernel has in SciPy's order, and everything that is an error in SciPy.

Arrays of a CUDA device (see `fastconv.conv2d`) are filtered there, with the same answers, SciPy's running sums and complex numbers
included; weights may lie there too, which is slow: nobody looks at them but each thread. What is left to SciPy otherwise, and is no
error, raises a ValueError.
"""

from .correlation import convolve, convolve1d, correlate, correlate1d
from .derivatives import gaussian_gradient_magnitude, gaussian_laplace, laplace, prewitt, sobel
from .smoothing import gaussian_filter, uniform_filter

__all__ = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_gradient_magnitude",
    "gaussian_laplace",
    "laplace",
    "prewitt",
    "sobel",
    "uniform_filter",
]
