"""The command group, and the commands that only ask the library: info, explain, warmup, run."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import fastconv as library

from .demo import demo
from .filter import filter_images


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(library.__version__, message="%(prog)s %(version)s")
def fastconv() -> None:
    """2-D convolution: filter images, see the lesson, ask what the library does."""


fastconv.add_command(filter_images)
fastconv.add_command(demo)


@fastconv.command()
def info() -> None:
    """Versions, machine, threads, the cache of compiled kernels."""
    table = Table(title="fastconv", show_header=False)
    for name, value in library.info().items():
        table.add_row(name, str(value))
    Console().print(table)


@fastconv.command()
@click.argument("problem")
def explain(problem: str) -> None:
    """Say how a convolution would be computed, and why not otherwise.

    PROBLEM is the one-line form that plans print, such as n1_ic64ih56iw56_oc64kh3kw3_p1_f32; what is left out is 1.
    """
    from fastconv.planning.planner import explain_problem
    from fastconv.planning.problem import Problem

    try:
        click.echo(explain_problem(Problem.parse(problem)))
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="PROBLEM") from error


@fastconv.command()
@click.argument("problems", nargs=-1, metavar="[PROBLEM]...")
def warmup(problems: tuple[str, ...]) -> None:
    """Compile the kernels of each PROBLEM into the cache; without any, those that most calls need."""
    start = time.perf_counter()
    try:
        library.warmup(*problems)
    except (TypeError, ValueError, MemoryError) as error:
        raise click.BadParameter(str(error), param_hint="PROBLEM") from error
    click.echo(f"ready after {time.perf_counter() - start:.1f} s")


@fastconv.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-m", "module", is_flag=True, help="SCRIPT is a module's name.")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(module: bool, script: str, arguments: tuple[str, ...]) -> None:
    """Run a Python SCRIPT with scipy.signal's 2-D functions replaced by fastconv's."""
    if not (_module_exists(script) if module else Path(script).is_file()):
        raise click.BadParameter(f"no such {'module' if module else 'file'}: {script}", param_hint="SCRIPT")
    before = sys.argv, sys.path[:]
    sys.argv = [script, *arguments]
    sys.path.insert(0, "" if module else str(Path(script).resolve().parent))
    try:
        with library.patch():
            if module:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(script, run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before


def _module_exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package that it should be in
        return False
