"""`aureole train`: a network from MNIST files and a seed."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aureole import terminal
from aureole.exits import UsageError
from aureole.options import check_folder
from aureole.questions import as_usage
from aureole.text_report import fields
from nets.architectures import architecture as find_architecture
from nets.recipes import defence_name, recipe, with_pieces
from nets.train_command import train


def run(
    architecture: str,
    defence: str,
    mnist_dir: Path | None,
    steps: int | None,
    seed: int,
    out: Path,
    *,
    loss: str | None = None,
    head: str = "linear",
    tasks: Sequence[str] = (),
    perturbation: str = "MP",
) -> int:
    """Trains, measures, exports and reports; returns the exit code. The pieces after `out` are those of `with_pieces`."""
    check_folder(out)
    with as_usage():
        chosen, name = find_architecture(architecture), defence_name(str(defence))
        options = with_pieces(recipe(architecture, name), loss=loss, head=head, tasks=tasks, perturbation=perturbation)
    if mnist_dir is not None and not mnist_dir.is_dir():
        raise UsageError(f"--mnist-dir {mnist_dir}: no such folder")
    if steps is not None:
        options = replace(options, schedule=replace(options.schedule, steps=steps))
    moments: list[float] = []
    with terminal.progress() as bar:
        task = bar.add_task(f"training {architecture}-{name}", total=options.schedule.steps, detail="")

        def on_step(done: int, total: int, loss: float) -> None:
            moments.append(time.monotonic())
            bar.update(task, completed=done, total=total, detail=f"step {done}/{total}, loss {loss:.4f}")

        trained = train(architecture, name, seed, mnist_dir, out, options=options, progress=on_step)
    per_step = (moments[-1] - moments[0]) / (len(moments) - 1) if len(moments) > 1 else float("nan")
    terminal.answers().print(
        fields(
            [
                ("trained", trained.name),
                (
                    f"exact top-{chosen.canvas.digits} set accuracy",
                    f"{trained.clean_accuracy:.4f} on 2,000 images of test digits",
                ),
                ("the same under PGD", f"{trained.attacked_accuracy:.4f}"),
                ("seconds per 1,000 images", f"{1000 * per_step / options.schedule.batch_size:.3f}"),
                ("network", str(trained.onnx_path)),
                ("record", str(trained.record_path)),
            ]
        )
    )
    return 0
