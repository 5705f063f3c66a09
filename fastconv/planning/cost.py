"""cost: predicted seconds on one thread, and every calibrated constant; those of CUDA devices are in `card_cost`.

Fitted on one Zen 5 core (AVX-512, 250 GFLOP/s float32) in 2026-11; what matters is the order of the algorithms, which is flat in
every constant within a factor of 1.5.
"""

from __future__ import annotations

from math import log2

from .problem import DTYPES, Problem

# limits
MOST_WORKSPACE = 64 << 20  # bytes of one thread; a problem of more goes to an algorithm of less
MOST_SECONDS = 0.3  # of one compiled call, or little more: then Python sees signals and other threads
UNIT_SECONDS = 0.1  # of one unit of work of `direct`, which is not interrupted
SWEPT_BYTES = 3 << 19  # of source and result of one thread: of more, a second-level cache holds what the call before ended with
PARALLEL_SECONDS = 8e-6  # of work at least: of less, half does not outweigh the 1-2 us that a second thread costs (2 cores)
SINGLE_SECONDS = 1e-4  # of an image at least, before weights of which nothing else is worth knowing are looked at for a single tap
RANKED_SECONDS = 1e-4  # of an image at least, before more than rank 1 is looked for: 3 us of 9x9 full weights, 5 of 15x15
# A helper waits so long before it sleeps: by so much one thread's part of a job may be done before the other's, and one that slept begins
# the next job late.  Calls of 256 channels at 14x14 take 670 us; where it waits for 80 or 160 us 790 (two cores, Emerald Rapids, 2026-11).
HELPER_SECONDS = 4e-4
HELPER_TURN_SECONDS = (4e-9, 1e-7)  # that a turn of its waiting may take, whatever a coarse clock says
MOST_RANK = 4  # of weights that are sums of products of two vectors; as many pairs of 31 taps take a quarter of the direct sums
EXAMINED_SECONDS = 2e-5  # of an image at least: of faster ones the look at the weights would be felt
# Of the last-level cache: larger problems store past it.  2048x2048 k3: 31 against 51 ns a tile; 1024x1024 f64, half of the cache: k3 375
# us against 440, k5 1210 against 1310 (one core, Zen 4, 2026-11)
PAST_SHARE = 0.4
# Of layers, whose results the next one reads: those that such a cache would lose before that.  8 images of 256 to 512 channels at 56x56,
# stride 2, 3.62 ms instead of 3.93, of 64 to 256 1.71 and 1.78, of 16 to 96 at 112x112 0.69 and 0.80; of 24 to 144 at 56x56, which such a
# cache holds, 0.39 and 0.41, but with the layer behind it 0.93 instead of 0.76 (two cores, Zen 5, 2026-11)
LAYER_PAST_SHARE = 0.6
# Of the threads' second-level caches: the pixels of larger problems are asked for before they are read.  960 channels at 7x7, a batch of 8,
# take 27 us instead of 34, 144 at 56x56 33 instead of 35.5; of those that fit it costs up to 18% (two threads, Zen 5, 2026-11).
DEPTHWISE_FAR_SHARE = 1.2

SEPARABLE_COLUMN_BYTES = 32 << 10  # of a row of sums; a tile's rows stay in the second-level cache (4096x4096 k3: 6.6 ms, of 4 KiB 9)

PANEL_RING_BYTES = 128 << 10  # of the strip of one block of columns, where that leaves the columns of a tile

# A new array this large is a new mapping, whose pages the system makes one by one as they are written: 1024x1024 float32 takes
# longer so than a 3x3 filter of it.
LEAST_RESULT = 512 << 10

# any kernel
FMA_PER_SECOND = 7.5e9  # of one vector register, one core
CALL_SECONDS = 4e-7
BYTES_PER_SECOND = 2.5e10  # copied by one core, from memory
SEEN_SHARE = 0.25  # of the time that source and result take from memory; arithmetic hides the rest

COPIED_SHARE = 0.5  # of the time that source and result take from memory, where no arithmetic hides any of it

# Rows of taps from which on a copy of crowded rows pays: 1024x1024 k3 takes 293 us instead of 241, k5 592 instead of 845, k15 4313
# instead of 5025 (one core, Zen 4, 2026-11).
COPIED_ROWS = 4
DIRECT_SHARE = 0.95  # of the FMA peak, where each loaded vector serves many rows of taps
DIRECT_ROWS = 8  # of a tile
FLAT_COLUMNS = 1.2  # times those of the tall tile, from which on the flat tile computes too many twice
DIRECT_PAIR_FACTOR = 1.6  # longer at column stride 2, where vectors are picked out of two
# Columns of stride 2 are copied by phase instead in rows of so many results with so many taps, or of still more results that several
# channels read: 256x256 k5 takes 22 us with pairs and 29 so, k7 41 and 37, k21 224 and 170, 28x28 k7 of 16 channels 112 and 166 (one core,
# Zen 4, 2026-11); 1024x1024 k3 301 us with pairs and 523 so, k5 376 and 599, k7 637 and 632 (one core of two 512-bit FMA units).
PHASE_RESULTS, PHASE_FEW, PHASE_TAPS = 512, 32, 7
PHASE_FACTOR = 1.1  # longer so: k11 732 us of 666, k21 2075 of 1690 (1024x1024, one core of two 512-bit FMA units)
PHASE_VECTOR_SECONDS = 1.5e-9  # per vector of pixels of stride 2
PHASE_PIXEL_SECONDS = 0.3e-9  # per pixel of larger strides
DIRECT_STORE_SECONDS = 1.7e-9  # per result vector: the start and the end of a tile
# Of further channels of the image: Zen 4, one core, 3x3, 137 us for 32 planes of 112x112, 198 for 144 of 56x56, 80 for 384 of 14x14
DIRECT_PLANE_SECONDS = 1e-7
DIRECT_ROW_SECONDS = 7e-9  # and column stride: the ends of a row are copied
DIRECT_CHANNEL_SECONDS = 1.5e-9  # per result vector and further channel: other rows, a loop of few turns

FAST_FIR_RING_BYTES = {1: 128 << 10, 2: 768 << 10}  # by stride, of the rows of one block of columns
FAST_FIR_STAGE_SECONDS = {1: 1e-9, 2: 2.7e-9}  # by stride, per vector of a row of the padded image
FAST_FIR_STORE_SECONDS = 2.2e-9  # per result vector: the start and the end of a tile
FAST_FIR_CALL_SECONDS = 8e-6  # flags are looked at by NumPy; the weights of the parts are made
PANEL_STAGE_SECONDS = 1.5e-9  # per vector of a row that is converted
MASKED_QUOTIENT_SECONDS = 3e-9  # per result vector
QUOTIENT_CALL_SECONDS = 3e-5
QUOTIENT_VALUE_SECONDS = 4e-9  # per pixel and per result: passes over new arrays (1024x1024 float32: 13 ms; Zen 4, one core, 2026-11)
DOTS_SECONDS = 2e-5  # of float sums at least, before weights are looked at for whether they are small integers
STAGED_VALUE_SECONDS = 1.2e-9  # per pixel or result that NumPy converts
STAGED_CALL_SECONDS = 1.5e-5
SPARSE_TAP_SECONDS, SPARSE_STORE_SECONDS = 0.3e-9, 4e-9  # per result vector: a load and a multiply-add; the start and the end
SEPARABLE_TAP_SECONDS = 0.2e-9  # per result vector and tap of a row: a multiply-add and a lane shift
# Of a float box's row from which on adding up by doubling pays (250x250, Zen 4: k7 24 and 26 us, k13 34 and 43, k21 48 and 67)
DOUBLED_TAPS = 7
SEPARABLE_STORE_SECONDS = 2e-9  # per result vector: both passes' tiles, the sums between them
SEPARABLE_BYTES_SHARE = 0.6  # of the time, for bytes whose weights may turn out to be small whole numbers

BLOCKED_SHARE = 0.93
BLOCKED_MOST_LOADS = 0.7  # per FMA; tiles of more run below the peak:
BLOCKED_LOADING_SHARE = 0.8 * BLOCKED_SHARE
BLOCKED_STORE_SECONDS = 1.5e-9
# By how much a tile of one tap, of `blocked` or `weights`, takes longer with a load for each FMA, where another thread of the processor's
# core is busy, too: 256 to 384 channels at 12x126 took 3302 us of 2x14 vectors and pixels, 2775 of 4x6 and 2697 of 3x9 (Emerald Rapids,
# 2026-11); else all the same: 256 to 512 at 56x56, stride 2, in rows of 28 results, take 433 of 2x14, 457 of 4x6 (two cores, Zen 5).
BLOCKED_LOAD_SHARE = 0.5
# Bands of all images that may each pack the weights of a call again, in about the time of a tile a block: 320 to 1280 channels at 7x7
# take 0.52 ms instead of 0.72, 1024 to 512 at 14x14 1.97 and 2.29 (one core, Emerald Rapids, 2026-11).
BLOCKED_GIVEN_BANDS = 3
PACKED_BYTES = 2  # of a panel, packed in the time of one FMA of a vector
BLOCKED_PACK_SECONDS = {"nchw": 0.25e-9, "nhwc": 0.15e-9}  # per pixel and channel of the padded image

WEIGHTS_TURN_SECONDS = 4e-9  # per vector of a result that is transposed: 160 to 960 channels at 7x7 take 150 us so, 116 else
# Per value that a unit reads where it lies, as others do: in the time of its band's first tile, whose lines are asked for (64 to 64
# channels at 56x56, 8 images: 846 us in one unit, 911 in four, 1140 in 16; one core, Zen 5, 2026-11)
WEIGHTS_READ_SECONDS = 0.04e-9
WEIGHTS_SCALAR_SECONDS = 1e-9  # per pixel of a group of several channels last, which is put into its lane alone
# Per pixel and channel of planes of groups, whose rows are copied as they are: 8 images of 32 groups of 8 channels at 28x28 take 1.1 ms
# where `weights` takes 2.2 (two threads, Zen 5, 2026-11)
WEIGHTS_GROUPED_PACK_SECONDS = 0.18e-9
WEIGHTS_LINE_SECONDS = 2e-8  # of a row of pixels that is packed for one column of the kernel
DEPTHWISE_SHARE = 0.8
DEPTHWISE_ANY_SHARE = 0.4  # of kernels for any width, which load a pixel for each multiplication
# Of groups of several channels, where tiles have half the accumulators that others have: groups of 16 at 28x28 take 510 us channels last,
# blocked's tiles 453 (one core, Emerald Rapids, 2026-11)
DEPTHWISE_LOW_SHARE = 0.64
DEPTHWISE_STORE_SECONDS = 0.7e-9  # per result vector
DEPTHWISE_STAGED_SECONDS = 0.3e-9  # per vector of pixels, and of results, and round of shuffles that put it into lanes or back
DEPTHWISE_SCALAR_SECONDS = 0.3e-9  # per value that is moved alone
SHALLOW_SHARE = 0.95
SHALLOW_STORE_SECONDS = 0.8e-9  # per result vector: the start and the end of a tile
SHALLOW_COPIED_TERMS = 4  # of a sum: as long as the copy of a result vector into place takes
SHALLOW_PLANE_SECONDS = 0.9e-8  # per channel, phase of rows and band
SHALLOW_ROW_SECONDS = 1.5e-9
SHALLOW_VECTOR_SECONDS = 0.5e-9  # per vector that is copied, and
SHALLOW_FAR_SECONDS = 1e-9  # per 64 bytes of it where no first-level cache holds the planes
SHALLOW_SCALAR_SECONDS = 0.4e-9  # per pixel that is copied alone
WINOGRAD_SHARE = 0.97
WINOGRAD_FEW_LOADS, WINOGRAD_LOAD_SHARE = 0.5, 0.4  # per FMA; what each further one takes: tiles of 1x16 are 1.2 times as slow as of 4x4
WINOGRAD_PIXEL_SECONDS = {1: 1.4e-9, 2: 2.8e-9}  # by stride, per vector of a transformed block: pixels gathered and transformed
WINOGRAD_RESULT_SECONDS = 1.5e-9
WINOGRAD_CACHE_BYTES = 1 << 20  # a second-level cache, where the algorithm is chosen: results must not depend on a processor's own
WINOGRAD_CACHE_SHARE = 0.6
WINOGRAD_BYTES_PER_SECOND = 8e10  # of weights and pixels beyond the second-level cache
WINOGRAD_FAR_BYTES, WINOGRAD_FAR_BYTES_PER_SECOND = 24 << 20, 6e10  # of weights that no cache holds
# Flags are looked at: of 64 channels at 4x4 a call takes 6.7 us, of `blocked` 12.6, and at 7x7 12.8 and 23.5 (one core, Emerald Rapids)
WINOGRAD_CALL_SECONDS = 3e-6
WINOGRAD_PAST_BYTES = 2 << 20  # of transformed weights; more are stored past the caches: of 256 channels in 0.7 ms instead of 1.5
# Groups of blocks of a thread, for each of which the weights of a call are transformed again: of 128 channels at 28x28 in 1070 us
# instead of 1200, on two threads 730 and 1010; 7 groups of 128 at 56x56 take a fifth longer (Emerald Rapids, 2026-11).
WINOGRAD_GIVEN_GROUPS = 2
# Of weights whose output channels lie side by side, which are read where they lie for each pair of rows, not copied once for all: 128
# channels at 28x28 380 us instead of 420, 256 at 14x14 575 and 605; 512, of 9 MB, 1340 and 1240 (two cores, Emerald Rapids, 2026-11)
WINOGRAD_NEAR_BYTES = 3 << 20
WINOGRAD_PACK_SECONDS = 2e-8  # per output channel and vector of channels
WINOGRAD_GIVEN_SECONDS = 2.5e-8  # the same where they are used
# Of transformed pixels of several images that are one group, so that weights are read once for all: 8 images of 512 to 512 channels at
# 14x14 5.4 ms of 4 and 4, 5.9 one by one, 6.3 together; weights given 6.6 ms instead of 7.3, 256 to 256 1.5 instead of 1.8, 512 to 512 at
# 7x7 2.6 instead of 3.2 (two cores, Zen 5, 2026-11)
WINOGRAD_IMAGES_BYTES = 5 << 20
# Those of groups lie a line or two to a pixel, so that eight images are 1600 pages: 32 groups of 512 channels at 14x14 920 us, four or
# fewer images 830 (two cores, Emerald Rapids, 2026-11).
WINOGRAD_GROUPED_IMAGES = 4

# Of a second-level cache, transformed weights that all rows of blocks read anew, so that lines of pixels are read as they lie: 8 images
# of 32 groups of 4 channels at 56x56 1300 us, vectors first 1620, of 8 at 28x28 705 and 735; of 16 at 14x14, 1.2 MB, 625 and 555 (two
# cores, Emerald Rapids, 2026-11)
WINOGRAD_SHALLOW_NEAR_SHARE = 0.25
WINOGRAD_SHALLOW_PACK_SECONDS = 1e-7  # per channel and vector of results: the transform of their weights
# Fitted, with the others of this file, to 30 problems of 4 to 64 channels at 4x4 to 224x224 (one core, Emerald Rapids, 2026-11)
WINOGRAD_SHALLOW_PIXEL_SECONDS = 1e-9  # per vector of a transformed block
WINOGRAD_SHALLOW_RESULT_SECONDS = 1e-9
WINOGRAD_SHALLOW_COLUMN_SECONDS = 5e-9  # per column of a row of blocks
WINOGRAD_SHALLOW_BYTES_PER_SECOND = 1.6e11  # of transformed weights, which lie as they are read

# Of a second-level cache, that sums, transformed pixels and gradients of `weights_winograd` may take
WEIGHTS_WINOGRAD_CACHE_SHARE = 0.8
# Fitted to 12 problems of 16 to 512 channels at 7x7 to 56x56 (one core, Emerald Rapids, 2026-11)
WEIGHTS_WINOGRAD_STORE_SECONDS = 0.7e-9  # per vector of sums, each time that they go on
WEIGHTS_WINOGRAD_PIXEL_SECONDS = 1.7e-9  # per vector of a transformed block
WEIGHTS_WINOGRAD_GRADIENT_SECONDS = 1.4e-9
WEIGHTS_WINOGRAD_STAGED_SECONDS = 1.5e-9  # per vector of planes that are put into lanes
WEIGHTS_WINOGRAD_TAPS_SECONDS = 7e-8  # per vector of filters' channels

WINOGRAD_ROWS_SHARE = 0.9
WINOGRAD_ROWS_STORE_SECONDS = 8e-9  # per vector of four rows of results
WINOGRAD_ROWS_PIXEL_SECONDS = 1.5e-9  # per transformed vector
WINOGRAD_ROWS_LAST_STORE_SECONDS = 3e-9  # per vector of four rows of results
# Of the last-level cache, image and result together: larger ones are stored past it, which smaller ones take longer with.  Channels last, 3
# to 64 channels at 224x224, a batch of 8 2.6 ms instead of 3.5, 1 0.33 instead of 0.25 (13 of 32 MB; two cores, Zen 5, 2026-11)
WINOGRAD_ROWS_PAST_SHARE = 0.75
WINOGRAD_ROWS_CALL_SECONDS = 8e-6  # flags are looked at by NumPy
# Of an image's results, the rest of which memory takes at its own rate: sums of half the products do not hide it.  64 channels at 224x224
# from 3 take as long as `shallow`'s; at 112x112, 7x7, 1.04 ms instead of 1.63 (one core, Emerald Rapids, 2026-11)
WINOGRAD_ROWS_NEAR_BYTES = 4 << 20

FFT_LEAST_RATIO, FFT_MOST_RATIO = 1.2, 40.0  # of a frame's extent to the kernel's: what is tried
# Zen 4, one core: 35 ns a vector of points of 64x64 frames, 52 of 384x384, 79 of 1152x1152; half as much again on Emerald Rapids
FFT_POINT = 26e-9  # per vector of points, there and back: loads, transposes, product, stores
FFT_PASS = 4.5e-9  # per vector of points: a pass there and one back
FFT_CACHED_BYTES = 1 << 18  # of a spectrum; with each doubling beyond a vector of points takes longer by
FFT_DOUBLING = 6.5e-9
FFT_TALL_BYTES = 3 << 14  # of a column of vectors; of taller ones each takes longer by
FFT_TALL = 1e-8
FFT_CALL_SECONDS = 2e-5
MOST_SPECTRUM = 2 << 30  # bytes
FFT_MOST_OWN = 8 << 20  # bytes of a spectrum that each thread has to itself; larger ones are shared by all
FFT_LEAST_SHARED = 1 << 18
FFT_BLOCKS_A_THREAD = 4  # of fewer, unless threads get as many each, frames are shared
FFT_UNITS_A_THREAD = 4
FFT_SPARE_BITS = 27  # of exponents: the sums of a frame grow no further
REPAIR_SECONDS = 1e-5  # of a window that holds a pixel that is not finite
REPAIR_TAP_SECONDS = 1e-9
REPAIR_PIXEL_SECONDS = 1e-8  # of the padded image, where windows that hold NaN are counted

CHILD_FLOPS_PER_SECOND = 2e10  # of a child plan on any target
ACTIVATION_SECONDS = 1e-8  # per result: NumPy and SciPy's exponentials
COMPLEX_VALUE_SECONDS = 4e-9  # per pixel and per result: NumPy takes them apart and puts them together
CHILD_CALL_SECONDS = 3e-5
MOST_BUFFER = 4 << 20  # bytes of a phase of a transposed convolution that is computed aside; of more images, some at a time
APART_FACTOR = 2.0  # by which complex sums must be quicker apart

# NumPy's slice arithmetic, within a factor of 3
REFERENCE_TAP_SECONDS = 2e-5
REFERENCE_FLOP_SECONDS = 1.5e-9


def padded(extent: int, block: int) -> int:
    """``extent`` up to the end of a block."""
    return -(-extent // block) * block


def bytes_moved(p: Problem) -> int:
    """Source and result, once each."""
    return p.n * (p.ic * p.ih * p.iw * DTYPES[p.src].itemsize + p.oc * p.oh * p.ow * DTYPES[p.dst].itemsize)


def moving_seconds(p: Problem) -> float:
    """Those of `bytes_moved` that no work hides."""
    return SEEN_SHARE * bytes_moved(p) / BYTES_PER_SECOND


def columns_by_phase(p: Problem, lanes: int) -> bool:
    """Whether `direct` copies columns by phase; 7x7 is split by `direct.HALVED` where registers have 512 bits."""
    halved = (p.kh, p.kw, *p.strides, p.dh, p.dw, p.ic) == (7, 7, 2, 2, 1, 1, p.g) and lanes * DTYPES[p.acc].itemsize == 64
    pays = p.ow >= PHASE_FEW and not halved and (p.kw >= PHASE_TAPS or (p.ow >= PHASE_RESULTS and p.oc > p.g))
    return p.ow > 1 and (p.sw > 2 or (p.sw == 2 and pays))


def _phase_seconds(p: Problem, lanes: int) -> float:
    """The copy of columns by phase."""
    rows = p.n * p.ic * min(p.oh * p.sh + p.kh - 1, p.ih_padded)
    vectors = rows * padded(p.iw_padded, lanes) / lanes
    return vectors * (PHASE_VECTOR_SECONDS if p.sw == 2 else PHASE_PIXEL_SECONDS * lanes)


def direct_seconds(p: Problem, lanes: int) -> float:
    """Tiles of vectors along the row, and what columns of a stride take longer."""
    vectors = p.n * p.oc * p.oh * padded(p.ow, lanes) / lanes
    by_phase = columns_by_phase(p, lanes)
    strided = PHASE_FACTOR if by_phase else DIRECT_PAIR_FACTOR if p.sw == 2 else 1.0
    # rows of h taps read h - 1 rows of pixels more, two loads each since most cross a cache line; two loads per two FMAs are free
    taps = min(p.kh, DIRECT_ROWS)
    share = DIRECT_SHARE * min(1.0, DIRECT_ROWS * taps / (2 * (DIRECT_ROWS - 1 + taps)))
    sums = vectors * p.taps * strided / (FMA_PER_SECOND * share)
    tiles = vectors * (DIRECT_STORE_SECONDS + DIRECT_CHANNEL_SECONDS * (p.ic // p.g - 1))
    planes = (p.ic - 1) * (DIRECT_PLANE_SECONDS + DIRECT_ROW_SECONDS * p.ih * min(p.sw, 2))
    phases = _phase_seconds(p, lanes) if by_phase else 0.0
    return CALL_SECONDS + sums + tiles + planes + phases + moving_seconds(p)


def fast_fir_seconds(p: Problem, lanes: int, rows: int) -> float:
    """Three sums of half the taps for each pair of rows of results, or of columns at stride 2, and the rows that they read."""
    vectors = p.n * p.oc * padded(p.oh, rows * 2 // p.sh) * padded(p.ow, 2 * lanes * p.sw) / lanes
    columns = 2 * ((p.kw + 3) // 4 + (p.kw + 2) // 4) + (p.kw + 1) // 4 + p.kw // 4
    taps = p.kw * (2 * ((p.kh + 1) // 2) + p.kh // 2) if p.sw == 1 else p.kh * columns
    sums = vectors / 2 * taps / (FMA_PER_SECOND * DIRECT_SHARE)
    staged = p.n * p.ic * p.ih_padded * padded(p.iw_padded, lanes) / lanes * FAST_FIR_STAGE_SECONDS[p.sw]
    return FAST_FIR_CALL_SECONDS + sums + vectors * FAST_FIR_STORE_SECONDS + staged + moving_seconds(p)


def panel_seconds(p: Problem, lanes: int) -> float:
    """The tiles of `direct`, and the conversion of each row that they read."""
    rows = p.n * p.ic * min(p.oh * p.sh + p.kh - 1, p.ih_padded)
    return direct_seconds(p, lanes) + PANEL_STAGE_SECONDS * rows * padded(p.iw_padded, lanes) / lanes


def identity_seconds(p: Problem) -> float:
    """A copy, and another look at the image, which is in the cache."""
    return 2 * CALL_SECONDS + COPIED_SHARE * bytes_moved(p) / BYTES_PER_SECOND


def masked_seconds(p: Problem, lanes: int) -> float:
    """Two sums, a row of pixels and one of weights for each row that they read, a quotient for each result."""
    vectors = p.n * p.oc * p.oh * padded(p.ow, lanes) / lanes
    return 2 * panel_seconds(p, lanes) - CALL_SECONDS + MASKED_QUOTIENT_SECONDS * vectors


def quotient_seconds(p: Problem, child: float) -> float:
    """Two plain problems, and NumPy's passes over the image and the result."""
    return 2 * child + QUOTIENT_CALL_SECONDS + QUOTIENT_VALUE_SECONDS * p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow)


def staged_seconds(p: Problem, converts: bool = False, channels_last: bool = False) -> float:
    """NumPy's conversion of images and results for an algorithm that reads no others than ``acc`` and no channels side by side."""
    moved = p.src_layout == "nhwc" and not channels_last
    pixels = (moved and p.ic > 1) or (p.src != p.acc and not converts)
    results = (moved and p.oc > 1) or (p.dst != p.acc and not converts)
    values = p.n * (pixels * p.ic * p.ih * p.iw + results * p.oc * p.oh * p.ow)
    return STAGED_CALL_SECONDS + STAGED_VALUE_SECONDS * values if values else 0.0


def separable_seconds(p: Problem, lanes: int) -> float:
    """Tiles of vectors down the columns of the image, then along the rows of the result."""
    down = p.n * p.oc * p.oh * padded(p.iw, lanes) / lanes
    along = p.n * p.oc * p.oh * padded(p.ow, lanes) / lanes
    # images narrower than a tile are summed one by one
    down *= 1 if p.iw >= 2 * lanes else lanes
    taps = down * p.kh / FMA_PER_SECOND + along * p.kw * SEPARABLE_TAP_SECONDS
    share = SEPARABLE_BYTES_SHARE if (p.src, p.acc, p.sh, p.sw) == ("u8", "f32", 1, 1) else 1
    return CALL_SECONDS + (taps + along * SEPARABLE_STORE_SECONDS) * share + moving_seconds(p)


def lowrank_seconds(p: Problem, lanes: int, rank: int) -> float:
    """`separable_seconds` for each pair of vectors, but one call, image and result."""
    once = CALL_SECONDS + moving_seconds(p)
    return once + rank * (separable_seconds(p, lanes) - once)


def sparse_seconds(p: Problem, lanes: int, taps: int) -> float:
    """A loaded vector for each multiply-add, and a look at each pixel."""
    vectors, looked = (p.n * p.oc * rows * padded(wide, lanes) / lanes for rows, wide in ((p.oh, p.ow), (p.ih, p.iw)))
    sums = vectors * (taps * SPARSE_TAP_SECONDS + SPARSE_STORE_SECONDS) + looked / FMA_PER_SECOND
    return CALL_SECONDS + sums + moving_seconds(p)


def blocked_seconds(p: Problem, lanes: int, mr: int, ny: int, nx: int) -> float:
    """Blocks of ``mr`` vectors of output channels at ``ny x nx`` pixels, and the packing of the panel."""
    oc, ic = p.oc // p.g, p.ic // p.g
    # overlapping tiles compute some pixels twice; a tile of few accumulators or many loads runs below the peak
    vectors = p.n * p.g * padded(oc, mr * lanes) / lanes * padded(p.oh, ny) * padded(p.ow, nx)
    loads = (mr + ny * nx) / (mr * ny * nx)
    share = BLOCKED_SHARE if loads < BLOCKED_MOST_LOADS else BLOCKED_LOADING_SHARE
    dense = (p.kh, p.kw, p.ih_padded, p.iw_padded) == (1, 1, p.ih, p.iw) and (p.src_layout == "nhwc" or p.sh == p.sw == 1)
    in_place = dense and p.acc in ("f32", "f64") and p.src not in ("f16", "bf16") and p.oh >= ny and p.ow >= nx
    packed = 0 if in_place else p.n * p.g * ic * p.ih_padded * p.iw_padded * BLOCKED_PACK_SECONDS[p.src_layout]
    sums = vectors * p.taps / (FMA_PER_SECOND * share)
    return 2 * CALL_SECONDS + sums + BLOCKED_STORE_SECONDS * vectors + packed + moving_seconds(p)


def blocked_tile_seconds(p: Problem, lanes: int, mr: int, ny: int, nx: int) -> float:
    """What a tile is chosen by: `blocked_seconds`, and a share for each load of a kernel of one tap, channels last."""
    loads = (mr + ny * nx) / (mr * ny * nx) if p.kh == p.kw == 1 and p.src_layout == "nhwc" else 0.0
    return blocked_seconds(p, lanes, mr, ny, nx) * (1 + BLOCKED_LOAD_SHARE * loads)


def depthwise_seconds(p: Problem, lanes: int, nx: int, staged: bool, fixed: bool, low: bool = False) -> float:
    """Vectors of channels at ``nx`` pixels; planes, and channels of several results, are put into lanes."""
    channels = p.n * padded(p.oc, lanes) / lanes
    vectors = channels * p.oh * padded(p.ow, nx)
    depth = p.ic // p.g
    share = (DEPTHWISE_LOW_SHARE if low else DEPTHWISE_SHARE) if fixed else DEPTHWISE_ANY_SHARE
    # a pixel's channels are put into the lanes of their groups by shuffles, where multiply-adds could have been
    picks = ((nx - 1) * min(p.sw, p.kw) + p.kw) / (nx * p.kw) if fixed and 1 < depth < lanes else 0.0
    seconds = CALL_SECONDS + vectors * ((1 + picks) * p.taps / (FMA_PER_SECOND * share) + DEPTHWISE_STORE_SECONDS)
    if staged:
        moved = channels * (p.ih * p.iw + p.oh * p.ow)
        seconds += moved * (DEPTHWISE_STAGED_SECONDS * log2(lanes) if p.src_layout == "nchw" else DEPTHWISE_SCALAR_SECONDS * lanes)
    return seconds + moving_seconds(p)


def depthwise_image_seconds(p: Problem, lanes: int, quads: int, staged: bool) -> float:
    """Vectors of channels at ``quads`` of 2 x 2 results, which stores bound; planes are put into lanes and back."""
    channels, depth = p.n * padded(p.ic, lanes) / lanes, p.ic // p.g
    many = channels * -(-(p.ih + 1) // 2) * padded(-(-(p.iw + 1) // 2), quads)
    share = DEPTHWISE_LOW_SHARE if depth > 1 else DEPTHWISE_SHARE
    seconds = CALL_SECONDS + many * (p.kh * p.kw * depth / (FMA_PER_SECOND * share) + 4 * DEPTHWISE_STORE_SECONDS)
    if staged:
        moved = channels * (p.ih * p.iw + p.oh * p.ow)
        seconds += moved * (DEPTHWISE_STAGED_SECONDS * log2(lanes) if p.src_layout == "nchw" else DEPTHWISE_SCALAR_SECONDS * lanes)
    return seconds + moving_seconds(p)


def shallow_seconds(p: Problem, mr: int, vectors: float, in_place: bool) -> float:
    """``vectors`` of each output channel, in whole blocks of ``mr``, and the copy of those that are not summed in place."""
    results = p.n * p.g * padded(p.oc // p.g, mr) * vectors
    terms = p.taps + (0 if in_place else SHALLOW_COPIED_TERMS)
    return 2 * CALL_SECONDS + results * (terms / (FMA_PER_SECOND * SHALLOW_SHARE) + SHALLOW_STORE_SECONDS) + moving_seconds(p)


def shallow_copy_seconds(p: Problem, lanes: int, planes: int, rows: int, columns: int, near: bool) -> float:
    """``planes`` of an image, of so many rows and columns, copied by phase; pixel by pixel where borders repeat or strides are large."""
    alone = p.border != "constant" or p.sw > 2
    row = columns * SHALLOW_SCALAR_SECONDS if alone else padded(columns, lanes) / lanes * SHALLOW_VECTOR_SECONDS
    if not near:
        row += columns * DTYPES[p.acc].itemsize / 64 * SHALLOW_FAR_SECONDS
    return p.n * planes * (SHALLOW_PLANE_SECONDS + rows * (SHALLOW_ROW_SECONDS + row))


def activated_seconds(p: Problem) -> float:
    """A child's sums, and an activation by NumPy."""
    return p.flops / CHILD_FLOPS_PER_SECOND + ACTIVATION_SECONDS * p.n * p.oc * p.oh * p.ow + CHILD_CALL_SECONDS


def transposed_seconds(p: Problem) -> float:
    """Children's sums, one for each phase, and NumPy's copy of phases computed aside."""
    phases = min(p.sh, p.ih) * min(p.sw, p.iw)
    return phases * CHILD_CALL_SECONDS + p.flops / CHILD_FLOPS_PER_SECOND + STAGED_VALUE_SECONDS * (p.sw > 1) * p.n * p.ic * p.ih * p.iw


def weights_seconds(p: Problem, lanes: int, mr: int, columns: int, expanded: bool) -> float:
    """Blocks of ``mr`` vectors of output channels at ``columns`` channels or taps of a row, and the packing of both panels."""
    oc, ic = p.oc // p.g, p.ic // p.g
    each, taps = (ic * p.kw, p.kh) if expanded else (ic, p.kh * p.kw)
    vectors = padded(oc, mr * lanes) / lanes * padded(each, columns)
    share = BLOCKED_SHARE * min(mr * columns / (mr + columns), 1.0)  # two loads in the time of two multiply-adds
    sums = vectors * (taps * p.n * p.oh * p.ow / (FMA_PER_SECOND * share) + BLOCKED_STORE_SECONDS * taps)
    packed = p.n * (oc * p.oh * p.ow + each * p.ih_padded * p.iw_padded) * BLOCKED_PACK_SECONDS[p.src_layout]
    # channels last groups' pixels are put into lanes one by one instead, which takes longer still
    lines = p.n * each * p.ih_padded * WEIGHTS_LINE_SECONDS if expanded and p.src_layout == "nchw" else 0.0
    return 2 * CALL_SECONDS + p.g * (sums + packed + lines)


def weights_loads_seconds(p: Problem, lanes: int, mr: int, columns: int) -> float:
    """What a tile of one tap is chosen by besides: its loads."""
    vectors = p.g * padded(p.oc // p.g, mr * lanes) / lanes * padded(p.ic // p.g, columns)
    return BLOCKED_LOAD_SHARE * (1 / mr + 1 / columns) * vectors * p.n * p.oh * p.ow / FMA_PER_SECOND


def weights_rows_seconds(p: Problem, lanes: int, mr: int, columns: int) -> float:
    """Blocks of ``mr`` vectors of output channels at ``columns`` values of a row, and the copies of rows, of groups pixel by pixel."""
    oc, icg = p.oc // p.g, p.ic // p.g
    vectors, many = padded(oc, mr * lanes) / lanes, padded(p.kw * icg, columns)
    share = BLOCKED_SHARE * min(mr * columns / (mr + columns), 1.0)  # two loads in the time of two multiply-adds
    sums = vectors * many * p.kh * p.n * p.oh * p.ow / (FMA_PER_SECOND * share)
    copied = p.n * p.ih_padded * p.iw_padded * (icg / lanes if p.g == 1 else 4) * vectors / mr
    # gradients, of which a block of one vector reads a line of each pixel, and copies those of few channels; many lines come later
    partial = p.n * p.oh * p.ow * (2 * vectors / mr + 4 * (oc % (mr * lanes) > 0) + 2 * vectors * (vectors > 2))
    return CALL_SECONDS + p.g * (sums + (copied + partial) * DEPTHWISE_STORE_SECONDS + p.taps * oc * DEPTHWISE_SCALAR_SECONDS)


def weights_grouped_seconds(p: Problem, lanes: int, taps: int) -> float:
    """A load and an FMA for each tap of a vector of output channels, and the packing of the panels, one for each channel of a group."""
    vectors, icg = padded(p.oc, lanes) / lanes, p.ic // p.g
    sums = vectors * p.oh * p.ow * icg * (padded(p.kh * p.kw, taps) + 1) / (FMA_PER_SECOND * BLOCKED_LOADING_SHARE)
    each = WEIGHTS_GROUPED_PACK_SECONDS if p.src_layout == "nchw" else BLOCKED_PACK_SECONDS["nhwc"]
    pixel = each if p.src_layout == "nchw" or icg == 1 else WEIGHTS_SCALAR_SECONDS
    packed = vectors * lanes * (icg * p.ih_padded * p.iw_padded * pixel + p.oh * p.ow * each)
    return 2 * CALL_SECONDS + p.n * (sums + packed)


def depthwise_weights_seconds(p: Problem, lanes: int) -> float:
    """An FMA for each tap of a vector of channels, all of a pixel's in the time of its loads."""
    vectors = padded(p.oc, lanes) / lanes
    rows = (
        p.n
        * p.oh
        * (vectors * p.ow * p.kh * p.kw / (FMA_PER_SECOND * DEPTHWISE_SHARE) + p.kh * p.ow * p.sw * DEPTHWISE_STORE_SECONDS / lanes)
    )
    return CALL_SECONDS + rows + moving_seconds(p)


def complex_seconds(p: Problem) -> float:
    """Four real products for each, and NumPy's conversion of the planes."""
    values = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow)
    return CHILD_CALL_SECONDS + 8 * p.flops / CHILD_FLOPS_PER_SECOND + COMPLEX_VALUE_SECONDS * values


def reference_seconds(p: Problem) -> float:
    """Passes over all results, one for each tap."""
    return REFERENCE_TAP_SECONDS * p.kh * p.kw + REFERENCE_FLOP_SECONDS * p.flops


def fft_block_seconds(ny: int, nx: int, lanes: int, size: int, y_passes: int, x_passes: int) -> float:
    """One frame there and back: the passes over vectors of points, their transposes, the product with the kernel's spectrum."""
    seconds = FFT_POINT + FFT_PASS * (y_passes + x_passes)
    seconds += FFT_DOUBLING * log2(max(ny * nx * size / FFT_CACHED_BYTES, 1))
    if ny * lanes * size > FFT_TALL_BYTES:
        seconds += FFT_TALL
    return ny // 2 * nx / lanes * seconds


def fft_seconds(p: Problem, plane: float, block: float, native: bool) -> float:
    """All planes and, since a functional call packs, the kernels' transforms, half as long as a frame there and back."""
    converted = 0.0 if native else STAGED_VALUE_SECONDS * p.n * p.oc * (p.ih_padded * p.iw_padded + p.oh * p.ow)
    return FFT_CALL_SECONDS + p.oc * (p.n * plane + block / 2) + converted
