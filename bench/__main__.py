"""The command: `python -m bench run | compare | plot | report`."""

from pathlib import Path

import click
from rich.console import Console

from bench import layers
from bench import report as tables
from bench import run as runs
from bench.cases import short
from bench.compare import compare as compare_runs
from bench.machine import ROOT

console = Console()


def _load(name):
    try:
        return runs.load(name)
    except (FileNotFoundError, ValueError) as reason:
        raise click.ClickException(str(reason)) from None


def _measure(names, quick, match, largest=runs.FULL_LARGEST):
    wide = Console(width=max(console.width, 140))  # a table that wraps its numbers cannot be read
    return runs.run(
        names,
        quick,
        match,
        largest,
        report=lambda line: console.print(line, style="dim"),
        show=lambda figure: wide.print(tables.figure_table(figure)),
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main():
    """Measure fastconv beside its peers and the machine's ceilings."""


@main.command()
@click.option("--quick", is_flag=True, help="Few rounds, small images: shows that everything works, proves no figure.")
@click.option("--save", "name", metavar="NAME", help="Name of the result; the commit by default.")
@click.option(
    "--suite",
    "suites",
    type=click.Choice((*runs.NAMES, *runs.GROUPS)),
    multiple=True,
    help="Only this figure, grid or group; may be repeated.",
)
@click.option("--match", default="", metavar="TEXT", help="Only cases whose text contains TEXT.")
@click.option("--largest", default=runs.FULL_LARGEST, metavar="N", help="Only images of at most N rows and columns.")
@click.option("--batch", default=1, type=click.Choice(list(layers.BATCHES)), help="Images of a layer's batch, for the group `networks`.")
def run(quick, name, suites, match, largest, batch):
    """Measure figures and grids; write JSON into bench/results."""
    document = _measure(runs.expand(suites or runs.NAMES, batch), quick, match, largest)
    console.print(tables.ceiling_table(document["ceilings"]))
    console.print("threads by default:", ", ".join(f"{library} {count}" for library, count in document["threads"].items()))
    for count, entry in tables.kinds_of(document["refusals"]):
        console.print(
            f"not timed in {count} cells: {entry['peer']}, e.g. {short(entry['problem'])}: {entry['reason']}",
            style="red" if entry["wrong"] else "dim",
            markup=False,
        )
    path = runs.save(document, name or runs.default_name(document))
    console.print(f"{len(document['cells'])} cells in {path.relative_to(ROOT)}")
    if any(entry["wrong"] for entry in document["refusals"]):
        raise click.ClickException("wrong answers: see above")


@main.command()
@click.argument("before")
@click.argument("after", required=False)
@click.option("--show", default=20, metavar="N", help="How many cells to print, the slowest first.")
def compare(before, after, show):
    """Compare run AFTER with run BEFORE; without AFTER, measure this tree now as BEFORE was measured.

    Exits with 1 if a cell is more than 5% slower than before and the two spreads do not meet.
    """
    old = _load(before)
    new = _load(after) if after else _measure(old["suites"], old["quick"], old["match"], old.get("largest", runs.FULL_LARGEST))
    for key in ("machine", "versions", "threads"):
        if key != "machine" and old[key] != new[key]:
            console.print(f"{key} differ: {old[key]} / {new[key]}", style="yellow", markup=False)
    if old["machine"]["processor"] != new["machine"]["processor"]:
        raise click.ClickException("the runs are of different processors")
    changes, drift = compare_runs(old, new)
    if not changes:
        raise click.ClickException("the runs have no cell in common")
    console.print(tables.change_table(changes, drift, show))
    slower = sum(change.slower for change in changes)
    console.print(f"{len(changes)} cells, {slower} slower by more than 5% and outside the spread")
    raise SystemExit(1 if slower else 0)


@main.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="PNG; bench/results/NAME.png by default.")
def plot(name, output):
    """Draw time against image size for each kernel, each peer and the two ceilings."""
    from bench.plot import plot as draw

    path = output or runs.path_of(name).with_suffix(".png")
    try:
        kernels = draw(_load(name), path)
    except ValueError as reason:
        raise click.ClickException(str(reason)) from None
    console.print(f"kernels {', '.join(map(str, kernels))} in {path.name}")


def _picture(name):
    path = runs.path_of(name).with_suffix(".png")
    return f"![Time of one call against image size, a panel for each kernel]({path.relative_to(ROOT)})" if path.exists() else None


@main.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--readme", default=ROOT / "README.md", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def report(names, readme):
    """Rewrite the README's tables, between their markers, from saved runs, with the picture of each that has one."""
    parts = [part for name in names for part in (tables.readme_tables(_load(name)), _picture(name)) if part]
    try:
        text = tables.rewrite(readme.read_text(encoding="utf-8"), "\n\n".join(parts))
    except ValueError as reason:
        raise click.ClickException(str(reason)) from None
    readme.write_text(text, encoding="utf-8")
    console.print(f"{readme.name}: tables of {', '.join(names)}")


if __name__ == "__main__":
    main()
