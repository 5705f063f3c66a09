"""winograd_cost: predicted seconds of the algorithms of Winograd's transforms, from the numbers of :mod:`fastconv.planning.cost`."""

from __future__ import annotations

from . import cost as costs
from .problem import DTYPES, Problem
from .winograd_points import pixels_of, points_of


def winograd_unit_seconds(
    many: int, m: int, stride: int, depth: int, blocks: int, all_blocks: int, lanes: int, mr: int, nt: int, size: int, cache: int
) -> float:
    """A group of ``many`` blocks of ``m x m`` results, ``depth`` vectors of channels, ``blocks`` of ``mr`` vectors of output channels.

    Weights come from beyond the second-level cache, and so do transformed pixels and products that do not fit it; those of
    ``all_blocks`` are read at once.
    """
    squares, points, weighted = pixels_of(m, stride) ** 2, points_of(m, stride) ** 2, (m + 2) ** 2  # of transformed vectors
    share = costs.WINOGRAD_SHARE / (1 + costs.WINOGRAD_LOAD_SHARE * ((mr + nt) / (mr * nt) - costs.WINOGRAD_FEW_LOADS))
    sums = costs.padded(many, nt) * squares * depth * lanes * blocks * mr / (costs.FMA_PER_SECOND * share)
    transforms = many * (squares * depth * costs.WINOGRAD_PIXEL_SECONDS[stride] + points * blocks * mr * costs.WINOGRAD_RESULT_SECONDS)
    pixels, weights = squares * depth * lanes * size * many, weighted * depth * lanes * size * blocks * mr * lanes
    products = points * mr * lanes * size * many
    moved = weights + (pixels * (blocks + 2) + 2 * products * blocks if pixels + products > costs.WINOGRAD_CACHE_SHARE * cache else 0)
    far = weights // blocks * all_blocks > costs.WINOGRAD_FAR_BYTES
    return (
        costs.CALL_SECONDS + sums + transforms + moved / (costs.WINOGRAD_FAR_BYTES_PER_SECOND if far else costs.WINOGRAD_BYTES_PER_SECOND)
    )


def winograd_given_seconds(vectors: int, m: int, lanes: int, size: int, times: int) -> float:
    """``vectors x lanes`` weights of 3x3 taps transformed as they are used, so many ``times``; or, for 0, once, before they are."""
    if times:
        return costs.WINOGRAD_GIVEN_SECONDS * vectors * lanes * times
    stored = vectors * lanes * lanes * (m + 2) ** 2 * size
    far = stored > costs.WINOGRAD_PAST_BYTES
    return costs.WINOGRAD_PACK_SECONDS * vectors * lanes + stored / (costs.BYTES_PER_SECOND if far else costs.WINOGRAD_BYTES_PER_SECOND)


def winograd_shallow_seconds(p: Problem, units: int, nt: int, squares: int, parts: int, blocks: int, columns: int) -> float:
    """``units`` of work of ``nt`` blocks of ``squares`` points, ``parts`` vectors of pixels and ``blocks`` of results; all weights once.

    ``columns`` are read for the unit's rows of blocks, all together.
    """
    icg = p.ic // p.g
    sums = nt * squares * icg * blocks / (costs.FMA_PER_SECOND * costs.WINOGRAD_SHARE)
    transforms = nt * squares * (parts * costs.WINOGRAD_SHALLOW_PIXEL_SECONDS + blocks * costs.WINOGRAD_SHALLOW_RESULT_SECONDS)
    weights = p.oc * icg * squares * DTYPES[p.acc].itemsize / costs.WINOGRAD_SHALLOW_BYTES_PER_SECOND
    return units * (sums + transforms + columns * parts * costs.WINOGRAD_SHALLOW_COLUMN_SECONDS) + weights + costs.moving_seconds(p)


def weights_winograd_seconds(
    p: Problem, units: int, vectors: int, products: int, stores: int, pixels: int, gradients: int, staged: int
) -> float:
    """``units`` of ``vectors`` of filters' channels, each of so many products and stores; vectors transformed, and made, for them."""
    sums = vectors * (products / (costs.FMA_PER_SECOND * costs.BLOCKED_SHARE) + stores * costs.WEIGHTS_WINOGRAD_STORE_SECONDS)
    transforms = pixels * costs.WEIGHTS_WINOGRAD_PIXEL_SECONDS + gradients * costs.WEIGHTS_WINOGRAD_GRADIENT_SECONDS
    others = staged * costs.WEIGHTS_WINOGRAD_STAGED_SECONDS + vectors * costs.WEIGHTS_WINOGRAD_TAPS_SECONDS
    return 2 * costs.CALL_SECONDS + units * (sums + transforms + others) + costs.moving_seconds(p)


def winograd_rows_seconds(p: Problem, results: int, terms: int, rows: int) -> float:
    """Vectors of four rows of results, of so many terms, from vectors of transformed rows."""
    sums = results * (terms / (costs.FMA_PER_SECOND * costs.WINOGRAD_ROWS_SHARE) + costs.WINOGRAD_ROWS_STORE_SECONDS)
    far = max(p.oc * p.oh * p.ow * DTYPES[p.dst].itemsize - costs.WINOGRAD_ROWS_NEAR_BYTES, 0) * p.n / costs.BYTES_PER_SECOND
    return costs.WINOGRAD_ROWS_CALL_SECONDS + sums + rows * costs.WINOGRAD_ROWS_PIXEL_SECONDS + costs.moving_seconds(p) + far


def winograd_rows_last_seconds(p: Problem, results: int, terms: int, rows: int) -> float:
    """Vectors of four rows of results, of so many terms, from vectors of transformed rows."""
    sums = results * (terms / (costs.FMA_PER_SECOND * costs.WINOGRAD_ROWS_SHARE) + costs.WINOGRAD_ROWS_LAST_STORE_SECONDS)
    return costs.WINOGRAD_ROWS_CALL_SECONDS + sums + rows * costs.WINOGRAD_ROWS_PIXEL_SECONDS + costs.moving_seconds(p)
