"""The command: real image files of every type through it, compared with NumPy's sums; its errors and exit statuses."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from fastconv.cli import commands, images
from fastconv.cli.__main__ import main
from fastconv.cli.demo import PHOTO
from fastconv.cli.filter import BORDERS
from fastconv.cli.kernels import KERNELS, parse_kernel
from fastconv.epilogue import saturate
from tests.by_reference import rare_types_by_reference  # noqa: F401 (a fixture)

PAD_MODES = {"zeros": "constant", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "circular": "wrap"}
SHARPEN = [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
TAPS = {  # whole numbers and what divides them
    "box": ([[1] * 3] * 3, 9),
    "box:1": ([[1]], 1),
    "box:4": ([[1] * 4] * 4, 16),
    "sobel-x": ([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], 1),
    "sobel-y": ([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], 1),
    "sharpen": (SHARPEN, 1),
    "emboss": ([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], 1),
    "laplacian": ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], 1),
    "1 0 -1; 2 0 -2; 1 0 -1": ([[1, 0, -1], [2, 0, -2], [1, 0, -1]], 1),
    "-1,2": ([[-1, 2]], 1),
    "3": ([[3]], 1),
}


def run(*arguments):
    return CliRunner().invoke(commands.fastconv, [str(argument) for argument in arguments])


def pixels(path, mode=None):
    with Image.open(path) as image:
        return np.asarray(image.convert(mode) if mode else image)


def noise(shape, dtype="u1", seed=0):
    """Whole numbers over the type's range; for floats small enough that every sum is exact."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (-999, 999)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


def paddings(n, k, stride, dilation, padding):
    span = (k - 1) * dilation + 1
    if padding == "same":
        total = max((-(-n // stride) - 1) * stride + span - n, 0)
        return total // 2, total - total // 2
    both = {"valid": 0, "full": span - 1}.get(padding, padding)
    return both, both


def filtered(pixels, taps, divisor=1, stride=(1, 1), dilation=(1, 1), padding="same", border="reflect"):
    """Each channel of (h, w) or (h, w, c): a loop over taps in float64, exact where all values are whole numbers."""
    taps = np.array(taps, np.float64)
    widths = [paddings(*extents, padding) for extents in zip(pixels.shape[:2], taps.shape, stride, dilation, strict=True)]
    padded = np.pad(pixels.astype(np.float64), widths + [(0, 0)] * (pixels.ndim - 2), PAD_MODES[border])
    rows, columns = (n - (k - 1) * d for n, k, d in zip(padded.shape[:2], taps.shape, dilation, strict=True))
    sums = sum(
        tap * padded[y * dilation[0] :, x * dilation[1] :][:rows, :columns] for (y, x), tap in np.ndenumerate(taps)
    ) / divisor  # fmt: skip
    sums = sums[:: stride[0], :: stride[1]]
    if pixels.dtype.kind == "f":
        return sums.astype(pixels.dtype)
    limits = np.iinfo(pixels.dtype)
    return np.clip(np.rint(sums), limits.min, limits.max).astype(pixels.dtype)


@pytest.mark.parametrize("kernel", TAPS)
def test_kernels(tmp_path, kernel):
    image = noise((9, 12))
    Image.fromarray(image).save(tmp_path / "in.png")
    result = run("filter", tmp_path / "in.png", "-o", tmp_path / "out.png", "-k", kernel)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'in.png'} (12x9 uint8) -> {tmp_path / 'out.png'} (12x9 uint8)" in result.output
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), filtered(image, *TAPS[kernel]))


def test_all_named_kernels_are_tested():
    assert {name.partition(":")[0] for name in TAPS} >= set(KERNELS) - {"gaussian"}


@pytest.mark.parametrize(("kernel", "sigma"), [("gaussian", 1), ("gaussian:1.5", 1.5)])
def test_gaussian(tmp_path, kernel, sigma):
    """OpenCV's sampled Gaussian, on 16 bits, each result rounded once: no sum lies within its error of a half."""
    image = noise((20, 20), "u2")
    Image.fromarray(image).save(tmp_path / "in.png")
    assert run("filter", tmp_path / "in.png", "-o", tmp_path / "out.png", "-k", kernel).exit_code == 0
    line = cv2.getGaussianKernel(2 * int(4 * sigma + 0.5) + 1, sigma, cv2.CV_64F)
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), filtered(image, line @ line.T))


@pytest.mark.parametrize("suffix", ["npy", "txt"])
def test_kernel_files(tmp_path, suffix):
    image = noise((9, 12))
    np.save(tmp_path / "in.npy", image)
    path = tmp_path / f"kernel.{suffix}"
    if suffix == "npy":
        np.save(path, np.array(SHARPEN, np.int8))
    else:
        path.write_text("# sharpen\n0 -1 0\n-1, 5, -1\n\n0 -1 0 # end\n")
    assert run("filter", tmp_path / "in.npy", "-o", tmp_path / "out.npy", "-k", path).exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), filtered(image, SHARPEN))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("padding", "stride", "dilation"),
    [
        ("same", "1", "1"),
        ("same", "2,3", "1"),
        ("same", "3,2", "2"),
        ("valid", "2", "2,1"),
        ("full", "1,2", "2"),
        ("3", "2", "1"),
    ],
)
def test_geometry(tmp_path, border, padding, stride, dilation):
    """Kernel of even height, RGBA; alpha comes from the pixel under the kernel's centre."""
    image = noise((13, 16, 4))
    taps = [[1, 2, -1], [0, 3, 1]]
    Image.fromarray(image).save(tmp_path / "in.png")
    result = run("filter", tmp_path / "in.png", "-o", tmp_path / "out.png", "-k", "1 2 -1; 0 3 1", "--border", border,
                 "--padding", padding, "--stride", stride, "--dilation", dilation)  # fmt: skip
    assert result.exit_code == 0, result.output

    def two(text):
        return int(text.split(",")[0]), int(text.split(",")[-1])

    where = two(stride), two(dilation), int(padding) if padding.isdecimal() else padding
    found = pixels(tmp_path / "out.png")
    np.testing.assert_array_equal(found[:, :, :3], filtered(image[:, :, :3], taps, 1, *where, border))
    np.testing.assert_array_equal(found[:, :, 3], filtered(image[:, :, 3], [[0, 1, 0], [0, 0, 0]], 1, *where, "replicate"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_png(tmp_path, dtype, channels):
    image = noise((9, 12, channels), dtype)
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    if channels == 2 and dtype == "u2":
        images.write(source, images.Picture(image[:, :, :1], image[:, :, 1]))
        result = run("filter", source, "-o", target, "-k", "sharpen")
        assert (result.exit_code, target.exists()) == (1, False)
        assert "Pillow would drop bits" in result.stderr
        return
    if channels == 2:
        Image.fromarray(image).save(source)
    else:
        cv2.imwrite(str(source), image)
    assert run("filter", source, "-o", target, "-k", "sharpen").exit_code == 0
    expected = image.copy()
    colours = channels - 1 if channels in (2, 4) else channels
    expected[:, :, :colours] = filtered(image[:, :, :colours], SHARPEN)
    if channels == 2:
        found = pixels(target)
    else:
        found = cv2.imread(str(target), cv2.IMREAD_UNCHANGED).reshape(expected.shape)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("kind", ["grey", "grey+alpha", "rgb", "rgb+alpha", "planes"])
def test_tiff(tmp_path, kind, dtype):
    shape = {"grey": (9, 12), "grey+alpha": (9, 12, 2), "rgb": (9, 12, 3), "rgb+alpha": (9, 12, 4), "planes": (3, 9, 12)}[kind]
    image = noise(shape, dtype)
    if dtype == "f2":
        image = np.clip(image, -200, 200)  # sums stay whole numbers that 11 bits hold
    options = {"photometric": "minisblack" if "grey" in kind else "rgb"}
    if len(shape) == 3:
        options["planarconfig"] = "separate" if kind == "planes" else "contig"
    if "alpha" in kind:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(tmp_path / "in.tif", image, **options)
    assert run("filter", tmp_path / "in.tif", "-o", tmp_path / "out.tif", "-k", "sharpen").exit_code == 0
    image = np.moveaxis(image, 0, -1) if kind == "planes" else image
    colours = -1 if "alpha" in kind else None
    expected = image.copy()
    expected[..., :colours] = filtered(image[..., :colours], SHARPEN) if len(shape) == 3 else filtered(image, SHARPEN)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        found, page = file.asarray(), file.pages.first
    assert found.dtype == dtype
    assert len(page.extrasamples) == ("alpha" in kind)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", ">f4", ">u2"])
@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 1), (9, 12, 2), (9, 12, 5)])
def test_npy(tmp_path, shape, dtype):
    """No channel of an array is alpha."""
    image = noise(shape, dtype)
    if dtype == "f2":
        image = np.clip(image, -200, 200)
    np.save(tmp_path / "in.npy", image)
    assert run("filter", tmp_path / "in.npy", "-o", tmp_path / "out.npy", "-k", "sharpen").exit_code == 0
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, filtered(image, SHARPEN))


@pytest.mark.parametrize("suffix", ["bmp", "webp", "ppm"])
def test_other_lossless_formats(tmp_path, suffix):
    image = noise((9, 12, 3))
    Image.fromarray(image).save(tmp_path / f"in.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert run("filter", tmp_path / f"in.{suffix}", "-o", f"{tmp_path}/out/", "-k", "sharpen").exit_code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "out" / f"in.{suffix}"), filtered(image, SHARPEN))


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_jpeg(tmp_path, shape):
    Image.fromarray(noise(shape)).save(tmp_path / "in.jpg")
    assert run("filter", tmp_path / "in.jpg", "-o", tmp_path / "out.jpg", "-k", "box").exit_code == 0
    expected = filtered(pixels(tmp_path / "in.jpg"), *TAPS["box"])
    Image.fromarray(expected).save(tmp_path / "expected.jpg", quality=images.JPEG_QUALITY)
    assert (tmp_path / "out.jpg").read_bytes() == (tmp_path / "expected.jpg").read_bytes()


def test_unusual_files_are_converted(tmp_path):
    """Palettes with and without transparency, bilevel, CMYK, inverted grey, LZW, a photograph lying on its side."""
    grey, colour = noise((8, 8)), noise((8, 8, 3))
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey).save(tmp_path / "key.png", transparency=int(grey[0, 0]))
    Image.fromarray(grey > 99).save(tmp_path / "bilevel.png")
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(grey).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    Image.fromarray(grey[:5]).save(tmp_path / "side.png", exif=exif)
    expected = {
        "palette.png": (np.repeat(grey[:, :, None], 3, 2), None),
        "key.png": (grey[:, :, None], np.where(grey == grey[0, 0], 0, 255)),
        "bilevel.png": ((grey > 99)[:, :, None] * 255, None),
        "cmyk.jpg": (pixels(tmp_path / "cmyk.jpg", "RGB"), None),
        "lzw.tif": (grey[:, :, None], None),
        "white.tif": (255 - grey[:, :, None], None),
        "side.png": (np.rot90(grey[:5], -1)[:, :, None], None),
    }
    for name, (colours, alpha) in expected.items():
        picture = images.read(tmp_path / name)
        np.testing.assert_array_equal(picture.pixels, colours, err_msg=name)
        assert (picture.alpha is None) == (alpha is None), name
        if alpha is not None:
            np.testing.assert_array_equal(picture.alpha, alpha)


def test_colour_profile_is_kept(tmp_path):
    profile = b"profile" * 9
    Image.fromarray(noise((8, 8, 3))).save(tmp_path / "in.png", icc_profile=profile)
    tifffile.imwrite(tmp_path / "in.tif", noise((8, 8, 3), "u2"), photometric="rgb", iccprofile=profile)
    for source, target in (("in.png", "out.png"), ("in.tif", "out.tif"), ("in.tif", "deep.png"), ("in.png", "out.jpg")):
        assert run("filter", tmp_path / source, "-o", tmp_path / target, "-k", "box").exit_code == 0
        with Image.open(tmp_path / target) as image:
            assert image.info["icc_profile"] == profile, target


def test_half_to_even(tmp_path):
    """Means of 0.5, 1.5, 2.5, 3.5."""
    np.save(tmp_path / "in.npy", np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]], np.uint8))
    run("filter", tmp_path / "in.npy", "-o", tmp_path / "out.npy", "-k", "box:2", "--padding", "valid")
    assert np.load(tmp_path / "out.npy").tolist() == [[0, 2, 2, 4]]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_saturate(dtype):
    limits = np.iinfo(dtype)
    values = np.array([-np.inf, float(limits.min) - 1, float(limits.min), 0.5, 1.5, 2.5, float(limits.max) + 1, np.inf])
    assert saturate(values, np.dtype(dtype)).tolist() == [limits.min] * 3 + [0, 2, 2] + [limits.max] * 2


@pytest.mark.parametrize(("flags", "expected"), [((), [255, 255, 0, 0]), (("--absolute",), [255, 255, 100, 255])])
def test_negative_results(tmp_path, flags, expected):
    """Each result is thrice the pixel below less the pixel above: 300, 565, -100, -255."""
    np.save(tmp_path / "in.npy", np.array([[200], [100], [255], [0]], np.uint8))
    run("filter", tmp_path / "in.npy", "-o", tmp_path / "out.npy", "-k", "-1; 0; 3", "--border", "zeros", *flags)
    assert np.load(tmp_path / "out.npy").ravel().tolist() == expected


def test_many_files_and_bad_ones(tmp_path):
    good = noise((9, 12))
    for name in ("a.png", "b.tif", "c.npy"):
        images.write(tmp_path / name, images.Picture(good[:, :, None]))
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "cut.tif").write_bytes((tmp_path / "b.tif").read_bytes()[:60])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:90])
    (tmp_path / "folder.png").mkdir()
    np.save(tmp_path / "complex.npy", np.ones((4, 4), complex))
    np.save(tmp_path / "empty.npy", np.ones((0, 4)))
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2, 2)))
    np.save(tmp_path / "objects.npy", np.array([[None]]), allow_pickle=True)
    tifffile.imwrite(tmp_path / "pages.tif", noise((3, 4, 4)), photometric="minisblack")
    Image.fromarray(good).save(tmp_path / "two.webp", save_all=True, append_images=[Image.fromarray(255 - good)])
    bad = ["text.png", "cut.png", "cut.tif", "cut.npy", "folder.png", "complex.npy", "empty.npy", "cube.npy", "objects.npy",
           "pages.tif", "two.webp", "missing.png"]  # fmt: skip
    names = ["a.png", *bad[:6], "b.tif", *bad[6:], "c.npy"]
    result = run("filter", *(tmp_path / name for name in names), "-o", tmp_path / "out", "-k", "sharpen")
    assert result.exit_code == 1
    assert "3 of 15 images filtered" in result.stdout
    reported = [line.partition(": ")[0] for line in result.stderr.splitlines() if line.startswith(str(tmp_path))]
    assert reported == [str(tmp_path / name) for name in names if name in bad]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.tif", "c.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "c.npy"), filtered(good, SHARPEN))


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("float.npy", "out.png", ".png holds uint8 or uint16, the result is float32: use .tif or .npy"),
        ("deep.npy", "out.jpg", ".jpg holds uint8, the result is uint16"),
        ("five.npy", "out.png", ".png holds 1 or 3 channels, the result has 5: use .npy"),
        ("alpha.png", "out.jpg", ".jpg has no alpha channel: use .png, .tif or .npy"),
        ("alpha.png", "out.gif", "cannot write .gif: use one of .png"),
        ("alpha.png", "alpha.png", "would replace the input"),
        ("alpha.png", "float.npy/out.png", "File exists: "),
        ("tiny.npy", "out.npy", "kernel must fit into the padded image"),
    ],
)
def test_results_that_cannot_be_written(tmp_path, source, target, reason):
    np.save(tmp_path / "float.npy", noise((5, 5), "f4"))
    np.save(tmp_path / "deep.npy", noise((5, 5), "u2"))
    np.save(tmp_path / "five.npy", noise((5, 5, 5)))
    np.save(tmp_path / "tiny.npy", noise((2, 2)))
    Image.fromarray(noise((5, 5, 4))).save(tmp_path / "alpha.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run("filter", tmp_path / source, "-o", tmp_path / target, "-k", "box", "--padding", "valid")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{tmp_path / source}: ")
    assert reason in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_destinations(tmp_path):
    for name in ("a.png", "b.tif"):
        images.write(tmp_path / name, images.Picture(noise((5, 5, 1))))
    both = tmp_path / "a.png", tmp_path / "b.tif"
    for out in ("plain", "slash/", "{name}-blur", "deep/{name}.npy"):
        assert run("filter", *both, "-o", f"{tmp_path}/{out}", "-k", "box").exit_code == 0
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and path not in both}
    assert made == {
        "plain/a.png",
        "plain/b.tif",
        "slash/a.png",
        "slash/b.tif",
        "a-blur.png",
        "b-blur.tif",
        "deep/a.npy",
        "deep/b.npy",
    }
    refused = run("filter", *both, "-o", tmp_path / "one.png", "-k", "box")
    assert refused.exit_code == 2
    assert "is one file for 2" in refused.stderr
    images.write(tmp_path / "a.tif", images.Picture(noise((5, 5, 1))))
    clash = run("filter", tmp_path / "a.png", tmp_path / "a.tif", "-o", f"{tmp_path}/x-{{name}}.npy", "-k", "box")
    assert clash.exit_code == 1
    assert "would replace that of another input" in clash.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("-k", "blur"), "'blur' is no kernel"),
        (("-k", ""), "is no kernel"),
        (("-k", "1 2; 3"), "is no kernel"),
        (("-k", "1 nan"), "a table of finite numbers"),
        (("-k", "box:0"), "box:SIZE needs a whole size"),
        (("-k", "box:2.5"), "box:SIZE needs a whole size"),
        (("-k", "box:x"), "box:NUMBER needs a number"),
        (("-k", "gaussian:-1"), "gaussian:SIGMA needs a positive sigma"),
        (("-k", "gaussian:inf"), "needs a finite number"),
        (("-k", "sobel-x:2"), "sobel-x takes no parameter"),
        (("-k", "missing.npy"), "kernel file missing.npy"),
        (("-k", "missing.txt"), "kernel file missing.txt"),
        (("-k", "box", "--stride", "0"), "'0' is not a positive whole number or two"),
        (("-k", "box", "--stride", "1,2,3"), "'1,2,3' is not a positive whole number or two"),
        (("-k", "box", "--dilation", "x"), "is not a positive whole number or two"),
        (("-k", "box", "--padding", "-1"), "'-1' is not same, valid, full or a number of pixels"),
        (("-k", "box", "--border", "mirror"), "'mirror' is not one of"),
        ((), "Missing option '-k' / '--kernel'"),
    ],
)
def test_usage_errors(tmp_path, options, text):
    np.save(tmp_path / "in.npy", noise((5, 5)))
    result = run("filter", tmp_path / "in.npy", "-o", tmp_path / "out.npy", *options)
    assert (result.exit_code, (tmp_path / "out.npy").exists()) == (2, False)
    assert text in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("table", [np.zeros((2, 2, 2)), np.zeros(3), np.zeros((0, 3)), np.array([["a"]]), np.array([[1j]])])
def test_kernel_files_of_other_shapes_and_types(tmp_path, table):
    np.save(tmp_path / "kernel.npy", table)
    with pytest.raises(ValueError, match=r"kernel file .*kernel\.npy"):
        parse_kernel(str(tmp_path / "kernel.npy"))


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3), (40, 60, 4), (3, 900), (900, 3)])
def test_preview(tmp_path, shape):
    Image.fromarray(noise(shape)).save(tmp_path / "in.png")
    result = run("filter", tmp_path / "in.png", "-o", tmp_path / "out.png", "-k", "box", "--preview", tmp_path / "p" / "both.png")
    assert result.exit_code == 0, result.output
    height, width = pixels(tmp_path / "p" / "both.png").shape[:2]
    assert 200 < width < 1600
    assert 100 < height < 600


def test_demo(tmp_path):
    result = run("demo", "-o", tmp_path / "demo.png")
    assert result.exit_code == 0, result.output
    for text in ("x.shape = (1, 512, 512, 1)", "layer(x).shape = (1, 255, 510, 1)", "layer(x).shape = (1, 512, 512, 1)",
                 "kernel (3, 3, 1, 1) and bias (1,): 10 weights", "set_weights([np.ones((3, 3, 1, 1)), np.zeros(1)])",
                 "scipy.signal.correlate2d", str(tmp_path / "demo.png")):  # fmt: skip
        assert text in result.stdout
    assert result.stdout.count("equal within rounding") == 2
    assert pixels(tmp_path / "demo.png").ndim == 2


def test_demo_notices_a_wrong_answer(tmp_path, monkeypatch):
    from fastconv.layers import Conv2D

    right = Conv2D.__call__
    monkeypatch.setattr(Conv2D, "__call__", lambda self, x: right(self, x) * np.float32(1.001))
    result = run("demo", "-o", tmp_path / "demo.png")
    assert result.exit_code == 1
    assert "DIFFERENT" in result.stdout


def test_photo():
    assert images.read(PHOTO).pixels.shape == (512, 512, 1)


def test_info():
    result = run("info")
    assert result.exit_code == 0
    assert np.__version__ in result.stdout
    assert "threads" in result.stdout


def test_explain():
    result = run("explain", "ic64ih56_oc64k3_p1_f32")
    assert result.exit_code == 0
    assert "plan: (" in result.stdout
    refused = run("explain", "nonsense")
    assert refused.exit_code == 2
    assert "nonsense" in refused.stderr


def test_warmup():
    assert "ready after" in run("warmup", "ih8_k3_f32").stdout
    assert run("warmup", "nonsense").exit_code == 2


def test_run(tmp_path, monkeypatch):
    script = tmp_path / "lesson_script.py"
    script.write_text(
        "import sys, scipy.signal, fastconv\n"
        "if __name__ == '__main__': print(scipy.signal.correlate2d is fastconv.correlate2d, *sys.argv[1:])\n"
    )
    assert run("run", script, "--flag", "-x", "3").stdout == "True --flag -x 3\n"
    monkeypatch.syspath_prepend(tmp_path)
    assert run("run", "-m", "lesson_script", "a").stdout == "True a\n"
    assert run("run", tmp_path / "missing.py").exit_code == run("run", "-m", "missing.module").exit_code == 2
    script.write_text("import rich.missing")
    monkeypatch.setattr(sys, "argv", ["fastconv", "run", str(script)])
    with pytest.raises(ModuleNotFoundError, match=r"rich\.missing"):
        main()


def test_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    np.save(tmp_path / "in.npy", noise((5, 5)))
    monkeypatch.setattr(sys, "argv", ["fastconv", "filter", f"{tmp_path}/in.npy", "-o", f"{tmp_path}/out.tif", "-k", "box"])
    for name, loaded in (("tifffile", ()), ("click", ("fastconv.cli.commands", "fastconv.cli.filter", "fastconv.cli.demo"))):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            for module in loaded:
                patch.delitem(sys.modules, module)
            with pytest.raises(SystemExit) as caught:
                main()
        assert caught.value.code == f"fastconv: this command needs the package {name}: pip install 'fastconv[cli]'"


def test_as_module_and_light_start():
    """`fastconv --version` loads no compiler."""
    shown = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("fastconv ")
    code = "import sys, fastconv.cli.commands; sys.exit(bool({'numba', 'scipy', 'matplotlib', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
