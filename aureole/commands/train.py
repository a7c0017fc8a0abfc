"""`aureole train`: a network from MNIST files and a seed."""

import time
from dataclasses import replace
from pathlib import Path

from aureole import terminal
from aureole.exits import OutputError, UsageError
from aureole.options import TrainingWords, check_folder
from aureole.questions import as_usage
from aureole.text_report import fields
from nets.architectures import architecture as find_architecture
from nets.files import FolderError
from nets.options import TrainingOptions
from nets.recipes import DefenceName, defence_name, recipe, run_name, with_pieces
from nets.train_command import TrainedNetwork, train


def run(architecture: str, defence: str, mnist_dir: Path | None, seed: int, out: Path, words: TrainingWords) -> int:
    """Trains, measures, exports and reports; returns the exit code."""
    check_folder(out)
    with as_usage():
        chosen, name = find_architecture(architecture), defence_name(str(defence))
        options = _options(architecture, name, words)
    if mnist_dir is not None and not mnist_dir.is_dir():
        raise UsageError(f"--mnist-dir {mnist_dir}: no such folder")
    moments: list[float] = []
    with terminal.progress() as bar:
        task = bar.add_task(f"training {architecture}-{name}", total=options.schedule.steps, detail="")

        def on_step(done: int, total: int, loss: float) -> None:
            moments.append(time.monotonic())
            bar.update(task, completed=done, total=total, detail=f"step {done}/{total}, loss {loss:.4f}")

        file_name = run_name(architecture, name, options, words.epsilon)
        try:
            trained = train(architecture, name, seed, mnist_dir, out, options=options, progress=on_step, name=file_name)
        except FolderError as error:
            raise OutputError(f"--out {error}") from error
    per_step = (moments[-1] - moments[0]) / (len(moments) - 1) if len(moments) > 1 else float("nan")
    _report(trained, chosen.canvas.digits, per_step / options.schedule.batch_size)
    return 0


def _options(architecture: str, defence: DefenceName, words: TrainingWords) -> TrainingOptions:
    """The recipe's, changed as the words say."""
    options = with_pieces(
        recipe(architecture, defence),
        loss=words.loss,
        head=words.head,
        tasks=words.tasks,
        perturbation=words.perturbation,
        is_targeted=words.is_targeted,
        robust_loss=words.robust_loss,
        epsilon=words.epsilon,
    )
    if words.steps is None:
        return options
    return replace(options, schedule=replace(options.schedule, steps=words.steps))


def _report(trained: TrainedNetwork, labels: int, seconds_an_image: float) -> None:
    terminal.answers().print(
        fields(
            [
                ("trained", trained.name),
                (
                    f"exact top-{labels} set accuracy",
                    f"{trained.clean_accuracy:.4f} on 2,000 images of test digits",
                ),
                ("the same under PGD", f"{trained.attacked_accuracy:.4f}"),
                ("seconds per 1,000 images", f"{1000 * seconds_an_image:.3f}"),
                ("network", str(trained.onnx_path)),
                ("record", str(trained.record_path)),
            ]
        )
    )
