"""The commands about folders that runs draw into: how far they have come, reports of them, several as one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pscrub.commands.showing import print_table, write_files
from pscrub.commands.sweeping import show_result
from pscrub.errors import StudyError

if TYPE_CHECKING:
    from pscrub.progress import Interrupts

LOOK = 2.0
"""Seconds between looks of `status --watch`."""


def report_folder(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    """Write a folder's report anew; the exit status."""
    from pscrub.report import html
    from pscrub.result.adding import read_result
    from pscrub.result.folder import RunFiles
    from pscrub.result.sharing import RunFolder
    from pscrub.sweeps.folder import SweepFiles
    from pscrub.sweeps.results import TABLE, read_sweep

    folder = arguments.folder
    if not folder.is_dir():
        raise StudyError(f"no folder '{folder}'; expected one that `pscrub run --out`, or `sweep`, wrote")
    if SweepFiles(folder).is_sweep:
        print(read_sweep(SweepFiles(folder), arguments.without_damaged).write_csv(folder / TABLE))
        return 0
    files = RunFiles(folder)
    if not files.is_run:
        print(html.write_page(read_result(files), folder))
        return 0
    with RunFolder(folder) as files:
        result = read_result(files, arguments.without_damaged)
        print(*write_files(result, folder)[-1:])
    return 0


def show_status(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    """Show how far a folder has come, again and again with `--watch`; the exit status."""
    from rich.console import Console

    from pscrub.result.folder import RunFiles
    from pscrub.result.status import find_status
    from pscrub.sweeps.folder import SweepFiles
    from pscrub.sweeps.status import find_sweep_status

    files, sweep, console = RunFiles(arguments.folder), SweepFiles(arguments.folder), Console()
    while True:
        interrupts()
        found = find_sweep_status(sweep) if sweep.is_sweep else find_status(files)
        print_table(console, found.table())
        for line in found.below():
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
        if not arguments.watch or found.is_done:
            return 0
        time.sleep(LOOK)
        if console.is_terminal:
            console.clear()


def merge_folders(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    """Put folders together into a new one; the exit status."""
    from rich.console import Console

    from pscrub.report import tables
    from pscrub.result.joining import join_folders
    from pscrub.sweeps.folder import SweepFiles
    from pscrub.sweeps.joining import join_sweeps

    if any(SweepFiles(folder).is_sweep for folder in arguments.folders):
        show_result(join_sweeps(arguments.folders, arguments.out, arguments.without_damaged), arguments.out)
        return 0
    result = join_folders(arguments.folders, arguments.out, arguments.without_damaged)
    console = Console()
    print_table(console, tables.table(result, ()))
    written = write_files(result, arguments.out)
    Console(stderr=True).print("wrote " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)
    return 0


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser what `report` takes."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `run --out`, or `sweep`, wrote")
    parser.add_argument("--without-damaged", action="store_true", help="leave damaged files out")


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser what `status` takes."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `run --out`, or `sweep`, writes")
    parser.add_argument("--watch", action="store_true", help=f"look again every {LOOK:g} s until all is done")


def add_merge_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser what `merge` takes."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="what `run --out`, or `sweep`, wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for all of it")
    parser.add_argument("--without-damaged", action="store_true", help="leave damaged files out")
