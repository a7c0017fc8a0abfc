"""Reproduces the shipped networks, images and manifest: `python -m nets.train_all --mnist-dir D --out O`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nets.manifest import write_manifest
from nets.recipes import SHIPPED
from nets.train_command import TrainedNetwork, train
from verifier.errors import AureoleError

SEED = 1


def train_with_bar(name: str, mnist_dir: Path | None, out: Path, console: Console) -> TrainedNetwork:
    """Train one shipped network under a progress bar that shows steps, the time left and the loss."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    architecture, defence = SHIPPED[name]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None, loss=0.0)

        def show(done: int, steps: int, loss: float) -> None:
            bar.update(task, completed=done, total=steps, loss=loss)

        return train(architecture, defence, SEED, mnist_dir, out, progress=show)


def main(
    out: Annotated[Path, typer.Option(help="Folder to write networks, records, images and manifest to.")],
    mnist_dir: Annotated[Path | None, typer.Option(help="Folder with the MNIST files; else download.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Train only this network; repeatable.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch; results depend on it.")] = 1,
) -> None:
    """Train the shipped networks. The manifest is written once all of them are in the folder."""
    console = Console(stderr=True)
    torch.set_num_threads(threads)
    table = Table("network", "exact top-2", "under PGD 0.02")
    try:
        for name in only or list(SHIPPED):
            if name not in SHIPPED:
                raise typer.BadParameter(f"{name!r}: unknown; wanted one of {', '.join(SHIPPED)}")
            trained = train_with_bar(name, mnist_dir, out, console)
            table.add_row(name, f"{trained.clean_accuracy:.4f}", f"{trained.attacked_accuracy:.4f}")
        if all((out / f"{name}.json").exists() for name in SHIPPED):
            write_manifest(out, list(SHIPPED), mnist_dir)
    except AureoleError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(65) from error
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
