"""The words of the command line: names, arguments and options as types that typer reads. Imports nothing heavy."""

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aureole.exits import UsageError

DEFAULT_OUT = Path("out")
DEFAULT_TIMEOUT = 60.0
DEFAULT_GROW_TIMEOUT = 120.0


class PropertyKind(StrEnum):
    """What `--property` can ask."""

    STAYS_IN = "stays-in"
    STAYS_OUT = "stays-out"
    TOP_K_SET = "top-k-set"
    THRESHOLDS = "thresholds"


class EngineName(StrEnum):
    """What `--engine` can name."""

    AUTO = "auto"
    BOUNDS = "bounds"
    MILP = "milp"
    SEARCH = "search"
    AUTO_LIRPA = "auto-lirpa"


class SolverOption(StrEnum):
    """What `--solver` can name."""

    AUTO = "auto"
    HIGHS = "highs"
    CBC = "cbc"
    GUROBI = "gurobi"
    SCIP = "scip"


class CutName(StrEnum):
    """What `--cut` can name."""

    FIXED = "fixed"
    SENSITIVITY = "sensitivity"
    SENSITIVITY_REVERSED = "sensitivity-reversed"


class SidesName(StrEnum):
    """What `--sides` can name."""

    BOTH = "both"
    BRIGHTER = "brighter"
    DARKER = "darker"
    APART = "apart"


class DefenceChoice(StrEnum):
    """What `--defence` can name."""

    NONE = "none"
    L0 = "l0"
    LINF = "linf"
    IBP = "ibp"
    CROWN_IBP = "crown-ibp"
    SABR = "sabr"


class RobustLossChoice(StrEnum):
    """What `--robust-loss` can name."""

    SET = "set"
    TOP_K = "top-k"


@dataclass(frozen=True, slots=True)
class TrainingWords:
    """The options that change a recipe of training, as given; None keeps what the recipe has.

    Attributes:
        steps: Batches.
        loss: Of the clean images.
        head: Of the network.
        tasks: Auxiliary tasks.
        perturbation: Which images several tasks learn from.
        is_targeted: Whether those are led towards wrong answers.
        robust_loss: What certified training makes of its bounds.
        epsilon: The radius of adversarial or certified training.
    """

    steps: int | None = None
    loss: str | None = None
    head: str = "linear"
    tasks: tuple[str, ...] = ()
    perturbation: str | None = None
    is_targeted: bool = False
    robust_loss: str | None = None
    epsilon: float | None = None


@dataclass(frozen=True, slots=True)
class PropertyWords:
    """The options that describe a property, as given.

    Attributes:
        kind: Which constructor.
        label: The label that stays in or out; None where not given.
        k: How many labels count as assigned.
        threshold: The score at which a label is on; None for the default.
        flips: How many labels may cross their threshold.
    """

    kind: PropertyKind = PropertyKind.STAYS_IN
    label: int | None = None
    k: int = 2
    threshold: float | None = None
    flips: int = 0


@dataclass(frozen=True, slots=True)
class RegionWords:
    """The options that describe a region, as given; exactly one must be there."""

    epsilon: float | None = None
    widths: Path | None = None
    layers: Path | None = None


@dataclass(frozen=True, slots=True)
class CertificateWords:
    """What is asked of certificates, as given.

    Attributes:
        path: Where to write one, or None.
        is_required: Whether an answer counts only with one.
        covers_float32: Whether a proof must hold for float32 inference too.

    Raises:
        UsageError: It says what a certificate must cover, and asks for none.
    """

    path: Path | None = None
    is_required: bool = False
    covers_float32: bool = False

    def __post_init__(self) -> None:
        if self.covers_float32 and not self.is_wanted:
            raise UsageError(
                "--float32: says what a certificate must cover; add --certificate FILE or --require-certificate"
            )

    @property
    def is_wanted(self) -> bool:
        """Whether one is asked for."""
        return self.path is not None or self.is_required


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run and where results go.

    Attributes:
        engine, solver: Who may decide.
        timeout: Seconds for the whole run.
        seed: Of the attack's random starts.
        device: Where attack, bounds and search run.
        as_json: Whether stdout carries one JSON object and nothing else.
        out: The folder for files.

    Raises:
        UsageError: The time limit is negative or NaN, `out` cannot be a folder, or a solver is named for an engine without one.
    """

    engine: EngineName = EngineName.AUTO
    solver: SolverOption = SolverOption.AUTO
    timeout: float = DEFAULT_TIMEOUT
    seed: int = 0
    as_json: bool = False
    out: Path = DEFAULT_OUT
    device: str = "cpu"

    def __post_init__(self) -> None:
        if math.isnan(self.timeout) or self.timeout < 0:
            raise UsageError(f"--timeout: got {self.timeout:g}, wanted a number of seconds >= 0")
        if self.solver is not SolverOption.AUTO and self.engine in (EngineName.BOUNDS, EngineName.AUTO_LIRPA):
            raise UsageError(
                f"--solver {self.solver}: engine {self.engine} runs no MILP solver; use --engine auto or milp"
            )
        check_folder(self.out)


def check_folder(folder: Path) -> None:
    """Refuses a path that cannot become a folder, before any work is done.

    Raises:
        UsageError: It, or something above it, is a file.
    """
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"--out {folder}: {place} is a file, wanted a folder")
            return


NetworkArgument = Annotated[
    str,
    typer.Argument(metavar="NET", help="ONNX file, or a shipped network such as strided3-none (see: aureole info)."),
]
ImageArgument = Annotated[
    str, typer.Argument(metavar="IMAGE", help="PNG or NPY file, or shipped:N for test image N of the package.")
]
LabelOption = Annotated[int | None, typer.Option("--label", metavar="T", help="The label asked about.")]
KOption = Annotated[
    int, typer.Option("--k", metavar="K", help="How many of the highest scores count as assigned labels.")
]
PropertyOption = Annotated[PropertyKind, typer.Option("--property", help="What must hold everywhere in the region.")]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="S",
        help="With thresholds: the score at which a label is on; 0, or probability 0.5 under a sigmoid, if not given.",
    ),
]
FlipsOption = Annotated[
    int, typer.Option("--flips", metavar="N", help="With thresholds: how many labels may cross.", min=0)
]
EpsilonOption = Annotated[
    float | None, typer.Option("--eps", metavar="E", help="Every pixel may change by this much, within [0, 1].")
]
WidthsOption = Annotated[
    Path | None, typer.Option("--widths", metavar="FILE", help="NPY file: how much each pixel may change.")
]
LayersOption = Annotated[
    Path | None, typer.Option("--layers", metavar="FILE", help="Layers file, such as aureole grow writes.")
]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="Who may decide; auto uses all that it needs.")]
SolverChoice = Annotated[SolverOption, typer.Option("--solver", help="The MILP solver (see: aureole doctor).")]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds for the whole run.")]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of all that is random.", min=0)]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="D", help="cpu, cuda or cuda:N: where attack, bounds and search run.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files a run writes.")]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        metavar="FILE",
        help="Write there what aureole check accepts: a proof, or a counterexample. Proofs get as long again as --timeout.",
    ),
]
RequireOption = Annotated[
    bool, typer.Option("--require-certificate", help="Answer robust only with a proof that the checker accepts.")
]
Float32Option = Annotated[
    bool, typer.Option("--float32", help="The proof must cover float32 inference in any order of summation too.")
]
TargetOption = Annotated[
    list[int], typer.Option("--target", metavar="T", help="The label that must survive; given again, all of them must.")
]
ObjectOption = Annotated[
    list[str],
    typer.Option(
        "--object",
        metavar="MASK|BOX",
        help="The perturbed object: a PNG or NPY mask, TOP,LEFT,BOTTOM,RIGHT (the last two just past it), ink:N for the N-th of"
        " two digits from the left, or shipped:I:N. Given again, each object has its own layers.",
    ),
]
CutOption = Annotated[CutName, typer.Option("--cut", help="Which cutting weights shrink a refused neighbourhood.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="W0,W1,...|area|volume",
        help="What each layer counts: numbers, its area, or its share of the logarithm of the volume; 1/(1+d) if not given.",
    ),
]
FixedOption = Annotated[
    str | None,
    typer.Option(
        "--fixed", metavar="MASK|BOX", help="Pixels that may not change, written like --object, such as the target's."
    ),
]
BandsOption = Annotated[
    str | None, typer.Option("--bands", metavar="B", help="Layers that share an epsilon, such as 0,1,2-4,5- .")
]
SidesOption = Annotated[
    SidesName, typer.Option("--sides", help="Which way pixels may change; apart: both, with an epsilon for each.")
]
StepOption = Annotated[
    float, typer.Option("--step", metavar="E", help="Maximal means: no layer can grow by this much alone.")
]
CornersOption = Annotated[
    int, typer.Option("--corners", metavar="N", help="At most so many corners are tried to narrow the gap.", min=0)
]
TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", help="Write every step there; an interrupted run goes on from it."),
]
