"""`aureole train`: a network from MNIST files and a seed."""

from dataclasses import replace
from pathlib import Path

from aureole import terminal
from aureole.exits import UsageError
from aureole.options import DefenceChoice, check_folder
from aureole.questions import as_usage
from aureole.text_report import fields
from nets.architectures import architecture as find_architecture
from nets.recipes import recipe
from nets.train_command import train


def run(
    architecture: str, defence: DefenceChoice, mnist_dir: Path | None, steps: int | None, seed: int, out: Path
) -> int:
    """Trains, measures, exports and reports; returns the exit code."""
    check_folder(out)
    with as_usage():
        find_architecture(architecture)
    if mnist_dir is not None and not mnist_dir.is_dir():
        raise UsageError(f"--mnist-dir {mnist_dir}: no such folder")
    options = recipe(architecture, defence.value)
    if steps is not None:
        options = replace(options, schedule=replace(options.schedule, steps=steps))
    with terminal.progress() as bar:
        task = bar.add_task(f"training {architecture}-{defence}", total=options.schedule.steps, detail="")

        def on_step(done: int, total: int, loss: float) -> None:
            bar.update(task, completed=done, total=total, detail=f"step {done}/{total}, loss {loss:.4f}")

        trained = train(architecture, defence.value, seed, mnist_dir, out, options=options, progress=on_step)
    terminal.answers().print(
        fields(
            [
                ("trained", trained.name),
                ("exact top-2 set accuracy", f"{trained.clean_accuracy:.4f} on 2,000 images of test digits"),
                ("the same under PGD", f"{trained.attacked_accuracy:.4f}"),
                ("network", str(trained.onnx_path)),
                ("record", str(trained.record_path)),
            ]
        )
    )
    return 0
