"""Image files as arrays and back, without losing bits: 8, 16, 32 bits and floats, grey or colour, with or without alpha.

Pillow and tifffile are imported when a file of theirs is read or written.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

TIFF = (".tif", ".tiff")
PILLOW = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm")
OPAQUE = (".jpg", ".jpeg", ".bmp", ".ppm", ".pgm")  # have no place for alpha
SUFFIXES = (*PILLOW, *TIFF, ".npy")
JPEG_QUALITY = 95
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type


@dataclass(frozen=True)
class Picture:
    """An image: ``pixels (h, w, c)`` without alpha, ``alpha (h, w)`` or None, and what a file says besides.

    ``flat`` is whether the array had no axis for channels; it matters for ``.npy`` only.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    flat: bool = True
    profile: bytes | None = None
    premultiplied: bool = False

    def __str__(self) -> str:
        h, w, channels = self.pixels.shape
        alpha = " + alpha" if self.alpha is not None else ""
        return f"{w}x{h} {self.pixels.dtype}{f' x{channels}' if channels > 1 else ''}{alpha}"

    def with_alpha(self) -> np.ndarray:
        """All channels, alpha last: (h, w, c)."""
        return self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha])


def read(path: Path) -> Picture:
    """The image in a file.

    Raises
    ------
    OSError, ValueError
        Saying what is wrong with the file.
    """
    if path.is_dir():
        raise ValueError("is a directory, not an image")
    reader = _read_npy if path.suffix.lower() == ".npy" else _read_tiff if path.suffix.lower() in TIFF else _read_pillow
    try:
        picture = reader(path)
    except (ImportError, OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # a broken file makes the decoders raise SyntaxError, struct.error, IndexError, ...
        raise ValueError(f"broken: {error}") from error
    if picture.pixels.dtype.kind not in "iuf" or not picture.pixels.size:
        raise ValueError(f"holds {picture.pixels.dtype} of shape {picture.pixels.shape}; numbers are needed")
    return picture


def write(path: Path, picture: Picture) -> None:
    """Write an image in the format of the path's suffix; the file appears whole or not at all.

    Raises
    ------
    OSError, ValueError
        The format cannot hold the image.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write {suffix or 'a file without suffix'}: use one of {', '.join(SUFFIXES)}")
    if picture.alpha is not None and suffix in OPAQUE:
        raise ValueError(f"{suffix} has no alpha channel: use .png, .tif or .npy")
    writer = _write_npy if suffix == ".npy" else _write_tiff if suffix in TIFF else _write_pillow
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    try:
        writer(partial, picture)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _split(array: np.ndarray, **extra: Any) -> Picture:
    """(h, w), (h, w, 1 or 3), or with alpha (h, w, 2 or 4)."""
    if array.ndim == 2:
        return Picture(array[:, :, None], **extra)
    if array.shape[2] in (2, 4):
        return Picture(array[:, :, :-1], array[:, :, -1], **extra)
    return Picture(array, **extra)


def _read_npy(path: Path) -> Picture:
    """All channels are filtered: an array does not say which is alpha."""
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        raise ValueError(f"must hold one array (h, w) or (h, w, channels), holds {getattr(array, 'shape', 'several')}")
    return Picture(array if array.ndim == 3 else array[:, :, None], flat=array.ndim == 2)


def _write_npy(path: Path, picture: Picture) -> None:
    array = picture.with_alpha()
    np.save(path, array[:, :, 0] if picture.flat and array.shape[2] == 1 else array)


def _read_tiff(path: Path) -> Picture:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages.first
        axes, kind = series.axes, getattr(page.photometric, "name", "")
        if len(file.series) > 1 or axes not in ("YX", "YXS", "SYX"):
            raise ValueError(f"holds {len(file.series)} series with axes {axes}; one image is needed")
        if kind not in ("MINISBLACK", "MINISWHITE", "RGB") or page.dtype == bool:
            return _read_pillow(path)  # palettes, bilevel, YCbCr: 8 bits
        try:
            array = series.asarray()
        except ValueError as error:  # a compression that tifffile leaves to another package
            if page.bitspersample > 8 and "S" in axes:
                raise ValueError(f"{error}") from error  # Pillow would drop bits
            return _read_pillow(path)
        extra = [getattr(sample, "name", "") for sample in page.extrasamples]
        tag = page.tags.get("InterColorProfile")
        profile = tag.value if tag is not None else None
    if axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    if kind == "MINISWHITE" and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    colours = 3 if kind == "RGB" else 1
    alpha = extra[:1] in (["UNASSALPHA"], ["ASSOCALPHA"]) and array.ndim == 3 and array.shape[2] == colours + 1
    if array.ndim == 3 and not alpha and array.shape[2] != colours:
        raise ValueError(f"has {array.shape[2]} samples per pixel, {colours} colours and no alpha")
    more: dict[str, Any] = {"profile": profile}
    if not alpha:
        return Picture(array if array.ndim == 3 else array[:, :, None], **more)
    return Picture(array[:, :, :colours], array[:, :, colours], premultiplied=extra[0] == "ASSOCALPHA", **more)


def _write_tiff(path: Path, picture: Picture) -> None:
    import tifffile

    array = picture.with_alpha()
    if array.shape[2] == 1:
        array = array[:, :, 0]
    alpha = "assocalpha" if picture.premultiplied else "unassalpha"
    tifffile.imwrite(
        path,
        np.ascontiguousarray(array),
        photometric="rgb" if picture.pixels.shape[2] == 3 else "minisblack",
        planarconfig="contig" if array.ndim == 3 else None,
        extrasamples=[alpha] if picture.alpha is not None else None,
        iccprofile=picture.profile,
        compression="zlib",
    )


def _read_pillow(path: Path) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError("is not an image, or of a format that Pillow does not know") from None
    with image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"holds {getattr(image, 'n_frames', 1)} images; one is needed")
        profile = image.info.get("icc_profile")
        mode = image.tile[0][3] if image.format == "PNG" and image.tile else ""
        if mode in ("RGB;16B", "RGBA;16B"):
            return replace(_split(_read_deep_png(path, mode)), profile=profile)
        if mode == "LA;16B":
            raise ValueError("16-bit grey with alpha: Pillow would drop bits, save it as TIFF")
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I") and image.format == "PNG":
            return Picture(np.asarray(upright).astype(np.uint16)[:, :, None], profile=profile)
        grey = upright.mode in ("1", "L")
        if "transparency" in upright.info or upright.mode == "PA":
            upright = upright.convert("LA" if grey else "RGBA")
        elif upright.mode not in ("L", "LA", "RGB", "RGBA", "I;16", "I", "F"):
            upright = upright.convert("L" if grey else "RGB")
        return replace(_split(np.asarray(upright)), profile=profile)


def _read_deep_png(path: Path, mode: str) -> np.ndarray:
    """16-bit colour: Pillow keeps the first byte of each number, so the file is read twice, for either byte."""
    from PIL import Image

    halves = []
    for order in ("B", "L"):  # as big-endian numbers: the high byte; as little-endian ones: the low byte
        with Image.open(path) as image:
            codec, extents, offset, _ = image.tile[0]
            image.tile = [(codec, extents, offset, mode[:-1] + order)]  # type: ignore[list-item]
            halves.append(np.asarray(image).astype(np.uint16))
    return halves[0] * 256 + halves[1]


def _write_pillow(path: Path, picture: Picture) -> None:
    from PIL import Image

    array, suffix = picture.with_alpha(), path.suffix.lower()
    depths = ("uint8", "uint16") if suffix == ".png" else ("uint8",)
    if str(array.dtype) not in depths:
        raise ValueError(f"{suffix} holds {' or '.join(depths)}, the result is {array.dtype}: use .tif or .npy")
    if array.shape[2] not in PNG_COLOURS:
        raise ValueError(f"{suffix} holds 1 or 3 channels, the result has {array.shape[2]}: use .npy")
    if array.dtype == np.uint16:
        path.write_bytes(_deep_png(array, picture.profile))
        return
    image = Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))
    options: dict[str, Any] = {"quality": JPEG_QUALITY} if suffix in (".jpg", ".jpeg") else {}
    if suffix == ".webp":
        options["lossless"] = True
    if picture.profile:
        options["icc_profile"] = picture.profile
    image.save(path, **options)


def _deep_png(array: np.ndarray, profile: bytes | None) -> bytes:
    """A 16-bit PNG: rows of big-endian numbers, each less the row above it (filter 2)."""
    h, w, channels = array.shape
    rows = np.ascontiguousarray(array.astype(">u2")).view(np.uint8).reshape(h, -1)
    filtered = np.full((h, 1 + rows.shape[1]), 2, np.uint8)
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, PNG_COLOURS[channels], 0, 0, 0))]
    if profile:
        chunks.append((b"iCCP", b"ICC\0\0" + zlib.compress(profile)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    framed = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return PNG_SIGNATURE + b"".join(framed)
