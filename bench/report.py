"""Tables: for the terminal while measuring, and for the README from a saved run. No number is pasted by hand."""

import re
from statistics import geometric_mean

from rich.table import Table

from bench.calls import Call
from bench.cases import CALLS, short
from bench.figures import JUDGED, WHOLE, variant
from bench.measure import Timing
from fastconv.planning.problem import Problem

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SHARES = ("of peak", "of roof")
ONE = (variant(False, True), variant(False, False))  # one thread, as far as it was measured


def number(value, unit=""):
    """Three significant digits; shares as per cent."""
    if value is None:
        return "-"
    if unit in SHARES:
        return f"{100 * value:.0f}%"
    return f"{value:.3g}{'' if unit == 'x' else ' '}{unit}".strip()


def _verdict(passed):
    return "pass" if passed else "FAIL"


def figure_table(figure):
    """A figure as a rich table: one row per case, a column per setting."""
    names = list(dict.fromkeys(name for row in figure.rows for name in row.values))
    against = ["against"] if any(row.against for row in figure.rows) else []
    table = Table(title=f"{figure.name}: {figure.claim}", title_justify="left")
    details = list(dict.fromkeys(name for row in figure.rows for name in row.details))
    for column in ("case", "target", "measured", "verdict", *names, *against, *details):
        table.add_column(column, justify="left" if column == "case" else "right", overflow="fold")
    for row in figure.rows:
        sign = "<=" if row.at_most else ">="
        cells = [number(row.values.get(name), figure.unit) for name in names]
        style = None if row.passed else "red"
        table.add_row(
            short(row.case),
            f"{sign} {number(row.target, figure.unit)}",
            number(row.measured, figure.unit),
            _verdict(row.passed),
            *cells,
            *([row.against] if against else []),
            *(row.details.get(name, "") for name in details),
            style=style,
        )
        if row.note:
            table.add_row(f"  {row.note}", style="dim")
    peaks = [
        f"FMA peak with {ceiling.threads} threads {ceiling.median / 1e9:.0f} GFLOP/s (best {ceiling.best / 1e9:.0f})"
        for ceiling in figure.ceilings
        if ceiling.kind == "fma"
    ]
    settings = ["all, one: threads; out=: into memory that exists"] if JUDGED in names else []
    table.caption = "; ".join(settings + peaks)
    return table


def ceiling_table(ceilings):
    """The measured ceilings as a rich table: a row per footprint, a column per number of threads and kind of store."""
    columns = {}
    for entry in ceilings:
        stores = {"copy": " non-temporal" if entry["nontemporal"] else " ordinary"}.get(entry["kind"], "")
        columns.setdefault((entry["threads"], stores or " ordinary"), []).append(entry)
    table = Table(title="ceilings: median (best), GFLOP/s and GB/s", title_justify="left")
    table.add_column("what")
    for threads, stores in columns:
        table.add_column(f"threads={threads}{stores}", justify="right")
    rows = {}
    for place, entries in enumerate(columns.values()):
        for entry in entries:
            copy = entry["kind"] == "copy"
            what = f"copy, {entry['footprint_bytes'] / 2**20:.3g} MiB" if copy else f"FMA {entry['dtype']}"
            rows.setdefault(what, [""] * len(columns))[place] = f"{entry['median'] / 1e9:.0f} ({entry['best'] / 1e9:.0f})"
    for what, cells in rows.items():
        table.add_row(what, *cells)
    return table


def kinds_of(refusals):
    """How often each kind of refusal occurred, and one of it: those of a peer that differ in numbers only are one kind."""
    kinds = {}
    for entry in refusals:
        kinds.setdefault((entry["peer"], entry["wrong"], re.sub(r"\d[\d.]*", "", entry["reason"])), []).append(entry)
    return [(len(entries), entries[0]) for entries in kinds.values()]


def change_table(changes, drift, shown):
    """The slowest ``shown`` changes of a comparison as a rich table."""
    table = Table(title=f"ratio = new time / old time, divided by that of the case's peers (all peers: {drift:.3f})", title_justify="left")
    for column in ("cell", "before", "after", "ratio", ""):
        table.add_column(column, justify="left" if column == "cell" else "right", overflow="fold")
    for change in changes[:shown]:
        flag = "SLOWER" if change.slower else ("within spread" if change.ratio > 1.05 else "")
        before, after = (f"{seconds * 1e3:.4g} ms" for seconds in (change.before_s, change.after_s))
        table.add_row(short(change.cell), before, after, f"{change.ratio:.3f}", flag, style="red" if change.slower else None)
    return table


# --- the README


def _markdown(header, rows):
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _timings(document, suite):
    names = Timing.__dataclass_fields__
    for cell in document["cells"]:
        if cell["suite"] == suite:
            yield Timing(**{name: cell[name] for name in names})


def _provenance(document):
    machine, versions, peak = document["machine"], document["versions"], {}
    for entry in document["ceilings"]:
        if entry["kind"] == "fma" and entry["dtype"] == "float32":
            peak[entry["threads"]] = f"{entry['best'] / 1e9:.0f}"
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    threads = ", ".join(f"{name} {count}" for name, count in document["threads"].items())
    changes = " (with changes)" if document["dirty"] else ""
    counts = " / ".join(map(str, peak))
    return (
        f"`{document['command']}` at commit {document['commit']}{changes}, {document['date']}; "
        f"{machine['processor']}, {machine['cores']} cores, {machine['vector_bits']}-bit vectors, "
        f"FMA peak {' / '.join(peak.values())} GFLOP/s (float32, threads {counts}); {libraries}; threads: {threads}. "
        "Medians; what is compared ran in turn in the same process, answers checked first."
    )


def _one(row):
    """What one thread reaches in a row's case, in the worse setting of those that were measured."""
    found = [row["values"][name] for name in ONE if name in row["values"]]
    return (max if row["at_most"] else min)(found, default=None)


def _margin(row):
    """How far a row is above its target, as a factor."""
    return row["target"] / row["measured"] if row["at_most"] else row["measured"] / row["target"]


def _worst(rows):
    return min(rows, key=_margin)


def _figures(document):
    rows = []
    for figure in document["figures"]:
        judged = [row for row in figure["rows"] if row["measured"] is not None]
        for row in judged if len(judged) <= 2 else []:
            rows.append((figure, row["case"].split(":")[0], row))
        if len(judged) > 2:
            whole = [row for row in judged if row["case"].startswith(WHOLE)]
            each = [row for row in judged if row not in whole]
            rows.append((figure, f"worst of {len(each)} cases", _worst(each)))
            rows += [(figure, row["case"], row) for row in whole]
        missing = [row for row in figure["rows"] if row["measured"] is None and not row["case"].startswith(WHOLE)]
        rows += [(figure, f"{len(missing)} cases without a measurement", missing[0])] if missing else []
    return _markdown(
        ["promise", "judged", "target", "measured", "one thread", "verdict"],
        [
            [
                figure["claim"],
                what if not what.startswith("n1_") else "one call",
                ("<= " if row["at_most"] else ">= ") + number(row["target"], figure["unit"]),
                number(row["measured"], figure["unit"]),
                number(_one(row), figure["unit"]),
                _verdict(row["passed"]),
            ]
            for figure, what, row in rows
        ],
    )


def _figure(document, name):
    return next((figure for figure in document["figures"] if figure["name"] == name), None)


def _by_size(document, suite, value, unit, keep=lambda problem: True):
    """``{(size, kernel): text}`` of a figure's ``value(row)``."""
    figure, found = _figure(document, suite), {}
    for row in figure["rows"] if figure else []:
        if row["case"] != WHOLE:
            problem = Problem.parse(row["case"])
            if keep(problem):
                found[problem.ih, problem.kh] = number(value(row), unit)
    return found


def _by_kernel(heading, texts):
    """A row per image size, a column per kernel."""
    if not texts:
        return None
    sizes, kernels = (list(dict.fromkeys(key[axis] for key in texts)) for axis in (0, 1))
    rows = [[f"{size}x{size}", *(texts.get((size, kernel), "-") for kernel in kernels)] for size in sizes]
    return _markdown([heading, *(f"{k}x{k}" for k in kernels)], rows)


def _image_tables(document):
    """Images against the fastest peer, with the share of the roof, on all threads and on one."""
    tables = []
    for heading, value in (("all threads", lambda row: row["measured"]), ("one thread", _one)):
        ratios, shares = (_by_size(document, name, value, unit) for name, unit in (("images", "x"), ("roof", "of roof")))
        texts = {key: ", ".join(part[key] for part in (ratios, shares) if key in part) for key in ratios | shares}
        tables.append(_by_kernel(f"conv2d over the fastest peer, share of the roof: {heading}", texts))
    return tables


def _functions(document):
    """Functions of other libraries by name: the geometric mean over their cases, and the worst."""
    groups = {}
    for figure in filter(None, (_figure(document, name) for name in CALLS)):
        for row in figure["rows"]:
            if row["case"] != WHOLE and row["measured"] is not None:
                call = Call.parse(row["case"])
                groups.setdefault(f"{call.module}.{call.function}, {call.image.dtype}", []).append(row)
    rows = []
    for name, found in groups.items():
        one = [_one(row) for row in found]
        means = [geometric_mean(values) if all(values) else None for values in ([row["measured"] for row in found], one)]
        rows.append([f"{name}, {len(found)} cases", *(number(value, "x") for value in (means[0], _worst(found)["measured"], means[1]))])
    return _markdown(["over the library's function", WHOLE, "worst", "one thread"], rows) if rows else None


def _networks(document):
    """Time of all distinct layers of a network, ours and the best of all peers'."""
    from bench import cases

    best = {}
    for timing in _timings(document, "layers"):
        if timing.default_threads:
            side = best.setdefault("fastconv" if timing.peer.startswith("fastconv") else "peers", {})
            side[timing.problem] = min(timing.median_s, side.get(timing.problem, float("inf")))
    rows = []
    for network in cases.NETWORKS:
        layers = [text for text in map(str, cases.load(network)) if all(text in side for side in best.values())]
        if layers and len(best) == 2:
            totals = {name: sum(side[text] for text in layers) for name, side in best.items()}
            mean = geometric_mean([best["peers"][text] / best["fastconv"][text] for text in layers])
            rows.append(
                [
                    f"{network}, {len(layers)} layers",
                    *(f"{totals[name] * 1e3:.3g} ms" for name in ("fastconv", "peers")),
                    number(mean, "x"),
                ]
            )
    return _markdown(["distinct layers, batch 1", "fastconv", "peers", "geometric mean"], rows) if rows else None


def readme_tables(document):
    """The README's text between its markers."""
    measured = lambda row: row["measured"]  # noqa: E731
    full = _by_size(document, "scipy", measured, "x", lambda problem: problem.pt == problem.kh - 1)
    parts = [
        _figures(document) if document["figures"] else None,
        _by_kernel("correlate2d over scipy.signal.correlate2d", full),
        _by_kernel("conv2d over cv2.filter2D", _by_size(document, "opencv", measured, "x")),
        *_image_tables(document),
        _functions(document),
        _networks(document),
        _provenance(document),
    ]
    return "\n\n".join(part for part in parts if part)


def rewrite(text, tables):
    """The README's text with its results replaced.

    Raises
    ------
    ValueError
        The markers are missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the text has no {BEGIN} and {END}")
    return f"{head}{begin}\n{tables}\n{end}{tail}"
