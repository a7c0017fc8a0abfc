"""Counts the units that can change phase around test images, by network and epsilon: what makes a network hard to verify.

python benchmarks/unstable_units.py --images 5 [FILE.onnx ...]
"""

import statistics
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import aureole
from nets import shipped
from verifier.bounds import analyse_region
from verifier.lowering import lower

EPSILONS = (0.001, 0.002, 0.005, 0.01, 0.02)


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="ONNX files; without any, the shipped networks.")] = None,
    images: Annotated[int, typer.Option(help="How many of the shipped test images.")] = 5,
) -> None:
    """Prints the median number of unstable ReLUs and undecided windows, by CROWN bounds."""
    table = Table("network", *(f"{epsilon:g}" for epsilon in EPSILONS))
    pictures = shipped.images().images[:images]
    for source in files or [Path(name) for name in shipped.names()]:
        canonical = lower(aureole.load_network(source))
        counts = [
            [analyse_region(canonical, aureole.Box.around(picture, epsilon)).unstable_units for picture in pictures]
            for epsilon in EPSILONS
        ]
        table.add_row(source.stem, *(f"{statistics.median(row):g}" for row in counts))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
