"""Time against image size, a panel per kernel: every peer and the two ceilings, on logarithmic axes."""

import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fastconv.planning.problem import Problem

COLUMNS = 3


def _curves(document):
    """``{kernel: {peer: [(size, seconds, q1, q3)]}}`` of float32 images at stride 1, default threads, new results."""
    curves = {}
    for cell in document["cells"]:
        problem = Problem.parse(cell["problem"])
        plain = problem.src == "f32" and problem.sh == 1
        if cell["suite"] == "images" and plain and cell["default_threads"] and not cell["out"]:
            points = curves.setdefault(problem.kh, {}).setdefault(cell["peer"], [])
            points.append((problem.ih, cell["median_s"], cell["q1_s"], cell["q3_s"]))
    return {kernel: {peer: sorted(points) for peer, points in by_peer.items()} for kernel, by_peer in sorted(curves.items())}


def _ceilings(document):
    """Seconds that the FMA peak and the copy bandwidth allow, as functions of (size, kernel) and of size; all threads."""
    found = document["ceilings"]
    most = max(entry["threads"] for entry in found)
    peak = next(e["best"] for e in found if e["kind"] == "fma" and e["dtype"] == "float32" and e["threads"] == most)
    copies = {}
    for entry in found:
        if entry["kind"] == "copy" and entry["threads"] == most:
            footprint = entry["footprint_bytes"]
            copies[footprint] = max(entry["best"], copies.get(footprint, 0.0))
    arithmetic = lambda size, kernel: 2 * kernel**2 * size**2 / peak  # noqa: E731
    return arithmetic, {round(math.sqrt(footprint / 8)): footprint / bandwidth for footprint, bandwidth in copies.items()}


def plot(document, path):
    """Write the picture of a run's grid of images; the kernels it shows.

    Raises
    ------
    ValueError
        The run has no such grid.
    """
    curves = _curves(document)
    if not curves:
        raise ValueError("the run has no images: run it with --suite images")
    arithmetic, copy_s = _ceilings(document)
    columns = min(COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    size = 5 * columns, 3.6 * rows + 1
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
    peers = list(dict.fromkeys(peer for by_peer in curves.values() for peer in by_peer))
    colours = {peer: f"C{i}" for i, peer in enumerate(peers)}
    for panel, (kernel, by_peer) in zip(axes.flat, curves.items(), strict=False):
        for peer, points in by_peer.items():
            sizes, medians, q1, q3 = zip(*points, strict=True)
            panel.plot(sizes, medians, marker="o", markersize=3, color=colours[peer], label=peer)
            panel.fill_between(sizes, q1, q3, color=colours[peer], alpha=0.2, linewidth=0)
        sizes = sorted({size for points in by_peer.values() for size, *_ in points})
        panel.plot(sizes, [arithmetic(size, kernel) for size in sizes], "k--", linewidth=1, label="FMA peak")
        known = [size for size in sizes if size in copy_s]
        panel.plot(known, [copy_s[size] for size in known], "k:", linewidth=1, label="copy bandwidth")
        panel.set(title=f"{kernel} x {kernel}", xscale="log", yscale="log")
        panel.set_xticks(sizes, map(str, sizes), rotation=45)
        panel.minorticks_off()
        panel.grid(visible=True, which="major", alpha=0.3)
    for panel in list(axes.flat)[len(curves) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("seconds per call")
    for panel in axes[-1]:
        panel.set_xlabel("image height = width, float32")
    handles = {label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, 2 * columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return list(curves)
