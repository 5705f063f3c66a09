"""Pictures of the figure `images`: time against image size, a panel per kernel; what it comes to in two more panels.

Every peer and the two ceilings on logarithmic axes, all threads, into a given array where the library has such an
argument; then, a line per kernel, how many times faster than the fastest peer, and the share of the roof.
"""

import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.figures import WHOLE, variant
from fastconv.planning.problem import Problem

COLUMNS = 3
INTO = variant(True, True)
SUMMARIES = {  # figure -> title, and what a value of 1 is drawn as
    "images": ("times faster than the fastest peer", 1.0),
    "roof": ("share of the roof, %", 100.0),
}


def _curves(document):
    """``{kernel: {peer: [(size, seconds, q1, q3)]}}`` of the figure's cells on all threads, into out where there are both."""
    curves = {}
    for cell in sorted((cell for cell in document["cells"] if cell["suite"] == "images"), key=lambda cell: cell["out"]):
        if cell["default_threads"]:
            problem = Problem.parse(cell["problem"])
            points = curves.setdefault(problem.kh, {}).setdefault(cell["peer"], {})
            points[problem.ih] = cell["median_s"], cell["q1_s"], cell["q3_s"]
    ordered = {kernel: by_peer.items() for kernel, by_peer in sorted(curves.items())}
    return {
        kernel: {peer: [(size, *points[size]) for size in sorted(points)] for peer, points in found} for kernel, found in ordered.items()
    }


def _summaries(document):
    """``{figure: {kernel: [(size, value)]}}`` of the judged values that there are."""
    found = {}
    for figure in document["figures"]:
        for row in figure["rows"] if figure["name"] in SUMMARIES else []:
            if row["case"] != WHOLE and INTO in row["values"]:
                problem = Problem.parse(row["case"])
                value = SUMMARIES[figure["name"]][1] * row["values"][INTO]
                found.setdefault(figure["name"], {}).setdefault(problem.kh, []).append((problem.ih, value))
    return found


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


def _label_sizes(panel, sizes):
    panel.set_xscale("log")
    panel.set_xticks(sizes, map(str, sizes), rotation=45)
    panel.minorticks_off()
    panel.grid(visible=True, which="major", alpha=0.3)


def _draw_times(panel, kernel, by_peer, colours, arithmetic, copy_s):
    for peer, points in by_peer.items():
        sizes, medians, q1, q3 = zip(*points, strict=True)
        panel.plot(sizes, medians, marker="o", markersize=3, color=colours[peer], label=peer)
        panel.fill_between(sizes, q1, q3, color=colours[peer], alpha=0.2, linewidth=0)
    sizes = sorted({size for points in by_peer.values() for size, *_ in points})
    panel.plot(sizes, [arithmetic(size, kernel) for size in sizes], "k--", linewidth=1, label="FMA peak")
    known = [size for size in sizes if size in copy_s]
    panel.plot(known, [copy_s[size] for size in known], "k:", linewidth=1, label="copy bandwidth")
    panel.set(title=f"{kernel} x {kernel}: seconds per call", yscale="log")
    _label_sizes(panel, sizes)


def _draw_summary(panel, name, by_kernel, kernels):
    title, full = SUMMARIES[name]
    shades = plt.get_cmap("viridis")
    for kernel, points in by_kernel.items():
        shade = shades(kernels.index(kernel) / max(1, len(kernels) - 1))
        panel.plot(*zip(*points, strict=True), marker="o", markersize=3, color=shade, label=f"{kernel}x{kernel}")
    panel.axhline(full, color="k", linewidth=1)
    panel.set(title=title, ylim=(0, None))
    _label_sizes(panel, sorted({size for points in by_kernel.values() for size, _ in points}))
    panel.legend(fontsize="x-small", ncols=2)


def plot(document, path):
    """Write the picture of a run's images; the kernels it shows.

    Raises
    ------
    ValueError
        The run has no such figure.
    """
    curves = _curves(document)
    if not curves:
        raise ValueError("the run has no images: run it with --suite images")
    arithmetic, copy_s = _ceilings(document)
    summaries = _summaries(document)
    count = len(curves) + len(summaries)
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 3.6 * rows + 1), squeeze=False, layout="constrained")
    times, others = axes.flat[: len(curves)], axes.flat[len(curves) :]
    peers = list(dict.fromkeys(peer for by_peer in curves.values() for peer in by_peer))
    colours = {peer: f"C{i}" for i, peer in enumerate(peers)}
    for panel, (kernel, by_peer) in zip(times, curves.items(), strict=True):
        panel.sharey(times[0])
        _draw_times(panel, kernel, by_peer, colours, arithmetic, copy_s)
    for panel, (name, by_kernel) in zip(others, summaries.items(), strict=False):
        _draw_summary(panel, name, by_kernel, list(curves))
    for panel in others[len(summaries) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("image height = width, float32")
    handles = {label: handle for panel in times for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, 2 * columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return list(curves)
