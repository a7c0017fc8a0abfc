"""A network as large as ResNet-50 on images of 448 x 448 through attacks, metrics and claims: seconds and peak memory of each step.

Run from the repository's root, one step a process, so that each peak is its own:

    python -m benchmarks.big_inputs make --out out/big         # the network (random weights) as ONNX, and images; once
    python -m benchmarks.big_inputs module --out out/big       # attacks.run on the torch module, with metrics
    python -m benchmarks.big_inputs file --out out/big         # the same on the ONNX file
    python -m benchmarks.big_inputs command --out out/big      # aureole attack, and the same command again
    python -m benchmarks.big_inputs claims --out out/big       # aureole crosscheck of what the command claimed
    python -m benchmarks.big_inputs engines --out out/big      # aureole verify, which can only refute there, and aureole grow
    python -m benchmarks.big_inputs all --out out/big          # all of them, each in a process of its own

The weights are random: nothing is said about how easily real networks of this size are attacked.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

import attacks
from attacks.metrics import Attacked, summarise

app = typer.Typer(add_completion=False, no_args_is_help=True)
LABELS, SIDE, STEPS = 20, 448, 3
BLOCKS = ((64, 3), (128, 4), (256, 6), (512, 3))
STEPS_OF_ALL = ("make", "module", "file", "command", "claims", "engines")

Out = Annotated[Path, typer.Option("--out", help="The folder for the network, images and results.")]
Side = Annotated[int, typer.Option(help="Height and width of the images.")]
Count = Annotated[int, typer.Option("--images", help="How many images.")]
Batch = Annotated[int, typer.Option(help="Images attacked together.")]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch normalisation beside a shortcut (He et al. 2016)."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.path = nn.Sequential(
            *_convolution(into, width, 1, 1), nn.ReLU(), *_convolution(width, width, 3, stride), nn.ReLU(),
            *_convolution(width, out, 1, 1),
        )  # fmt: skip
        is_same = into == out and stride == 1
        self.shortcut = nn.Identity() if is_same else nn.Sequential(*_convolution(into, out, 1, stride))

    def forward(self, maps: Tensor) -> Tensor:
        """relu(path + shortcut)."""
        return torch.relu(self.path(maps) + self.shortcut(maps))


def _convolution(into: int, out: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(into, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out)


def resnet50(labels: int = LABELS) -> nn.Sequential:
    """The layers of ResNet-50 (stride in the 3x3 convolution), 23.5 million weights and a dense layer, from seed 0."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    into = 64
    for stage, (width, count) in enumerate(BLOCKS):
        for place in range(count):
            layers.append(Bottleneck(into, width, 2 if stage > 0 and place == 0 else 1))
            into = 4 * width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, labels))
    _settle(network)
    return network.eval()


def _settle(network: nn.Sequential) -> None:
    """Takes the statistics of batch normalisation from two random images, so that values stay near 1 as in a trained network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, 3, SIDE // 2, SIDE // 2))
        final = network[-1]
        final.weight.mul_(5.0)


@app.command()
def make(out: Out = Path("out/big"), side: Side = SIDE, count: Count = 4) -> None:
    """Writes `resnet50.onnx` and `images.npy`."""
    out.mkdir(parents=True, exist_ok=True)
    network = resnet50()
    with _measured("make", out):
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            str(out / "resnet50.onnx"),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
        )
    np.save(out / "images.npy", np.random.default_rng(0).random((count, 3, side, side), dtype=np.float32))


@app.command()
def module(out: Out = Path("out/big"), batch: Batch = 2) -> None:
    """`attacks.run` and the metrics on the torch module."""
    network = resnet50()
    with torch.no_grad():
        scores = torch.cat([network(image[None]) for image in torch.from_numpy(np.load(out / "images.npy"))])
    _attack(network, scores.numpy(), "module", out, batch)


@app.command()
def file(out: Out = Path("out/big"), batch: Batch = 2) -> None:
    """`attacks.run` and the metrics on the ONNX file."""
    from verifier.evaluation import evaluate
    from verifier.onnx_import import load_network

    with _measured("load the file", out):
        network = load_network(out / "resnet50.onnx")
    with _measured("float64 scores of the file", out):
        scores = evaluate(network, np.load(out / "images.npy"))
    _attack(network, scores, "file", out, batch)


def _attack(network: Any, scores: np.ndarray, name: str, out: Path, batch: int) -> None:
    images = np.load(out / "images.npy")
    labels = np.zeros(scores.shape, dtype=np.int64)
    np.put_along_axis(labels, scores.argsort(axis=1)[:, -2:], 1, axis=1)
    with _measured(f"attack the {name}", out, images=len(images), batch=batch, steps=STEPS):
        result = attacks.run(
            network,
            images,
            labels,
            method="pgd",
            goal="target-miss",
            k=2,
            norm="linf",
            eps=8 / 255,
            options={"iterations": STEPS},
            batch=batch,
            on_rows=lambda count: print(f"  {count} more images", flush=True),
        )
    with _measured(f"metrics of the {name}'s attack", out):
        summary = summarise(Attacked.of(result))
    print(f"  {summary.values['success rate'].value:.2f} of {int(result.eligible.sum())} eligible images")


@app.command()
def command(out: Out = Path("out/big"), batch: Batch = 2) -> None:
    """`aureole attack`, and again on what is finished."""
    words = [
        "attack",
        str(out / "resnet50.onnx"),
        str(out / "images.npy"),
        "--method",
        "pgd",
        "--goal",
        "top-k-untargeted",
    ]
    words += ["--k", "1", "--norm", "linf", "--eps", str(8 / 255), "--option", f"iterations={STEPS}"]
    words += ["--batch", str(batch), "--out", str(out / "attack")]
    for name in ("aureole attack", "aureole attack, resumed"):
        with _measured(name, out):
            _aureole(words)


@app.command()
def claims(out: Out = Path("out/big")) -> None:
    """`aureole crosscheck` of the command's claims."""
    words = ["crosscheck", str(out / "attack"), "--network", str(out / "resnet50.onnx"), "--timeout", "60"]
    with _measured("aureole crosscheck", out):
        _aureole([*words, "--out", str(out / "crosscheck")])


@app.command()
def engines(out: Out = Path("out/big")) -> None:
    """`aureole verify` with a limit of 100 s, in a region where the attack finds nothing; `aureole grow`, which refuses."""
    from verifier.evaluation import evaluate
    from verifier.onnx_import import load_network

    path, image = out / "resnet50.onnx", out / "image.npy"
    first = np.load(out / "images.npy")[0]
    np.save(image, first)
    label = int(evaluate(load_network(path), first[None])[0].argmax())
    with _measured("aureole verify, limit 100 s", out):
        _aureole(
            ["verify", str(path), str(image), "--label", str(label), "--k", "2", "--eps", "1e-7", "--timeout", "100"]
        )
    with _measured("aureole grow", out):
        _aureole(["grow", str(path), str(image), "--target", str(label), "--k", "2", "--object", "0,0,9,9"])


@app.command("all")
def all_steps(out: Out = Path("out/big"), side: Side = SIDE, count: Count = 4, batch: Batch = 2) -> None:
    """Every step in a process of its own."""
    for step in STEPS_OF_ALL:
        words = [sys.executable, "-m", "benchmarks.big_inputs", step, "--out", str(out)]
        words += ["--side", str(side), "--images", str(count)] if step == "make" else []
        words += ["--batch", str(batch)] if step in ("module", "file", "command") else []
        subprocess.run(words, check=True)


def _aureole(words: list[str]) -> None:
    """The command line in this process, so that its memory is counted."""
    from aureole.__main__ import main

    sys.argv = ["aureole", *words]
    try:
        main()
    except SystemExit as ended:
        print(f"  exit code {ended.code}")


@contextmanager
def _measured(name: str, out: Path, **details: object) -> Iterator[None]:
    """Prints and appends to `measured.jsonl` the seconds, and the process's highest memory until then."""
    wall, processor = time.monotonic(), time.process_time()
    yield
    record = {
        "step": name,
        **details,
        "seconds": round(time.monotonic() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(record), flush=True)
    with (out / "measured.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    app()
