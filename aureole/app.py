"""The command line: one function a command, each handing its words to the module that does the work.

Those modules are imported only when their command runs, so that help and usage errors come at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from aureole.attack_options import DEFAULT_GOAL, DEFAULT_METHOD, AttackRun, GoalWords, MethodWords
from aureole.options import (
    DEFAULT_GROW_TIMEOUT,
    DEFAULT_OUT,
    DEFAULT_TIMEOUT,
    BandsOption,
    CertificateOption,
    CertificateWords,
    CornersOption,
    CutName,
    CutOption,
    DefenceChoice,
    DeviceOption,
    EngineName,
    EngineOption,
    EpsilonOption,
    FixedOption,
    FlipsOption,
    Float32Option,
    ImageArgument,
    JsonOption,
    KOption,
    LabelOption,
    LayersOption,
    NetworkArgument,
    ObjectOption,
    OutOption,
    PropertyKind,
    PropertyOption,
    PropertyWords,
    RegionWords,
    RequireOption,
    RobustLossChoice,
    RunOptions,
    SeedOption,
    SidesName,
    SidesOption,
    SolverChoice,
    SolverOption,
    StepOption,
    TargetOption,
    ThresholdOption,
    TimeoutOption,
    TraceOption,
    TrainingWords,
    WeightsOption,
    WidthsOption,
)

app = typer.Typer(
    name="aureole",
    help="Decides, soundly, which labels of a multi-label classifier survive a region of perturbed images.",
    epilog="Exit codes: 0 robust, 1 vulnerable, 2 undecided, 64 and up for bad use or input (docs/cli.md).",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(is_wanted: bool) -> bool:
    if is_wanted:
        import aureole

        typer.echo(aureole.__version__)
        raise typer.Exit
    return is_wanted


@app.callback()
def root(
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens to stderr.")] = False,
) -> None:
    """Decides, soundly, which labels of a multi-label classifier survive a region of perturbed images."""
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="aureole: %(name)s: %(message)s")


@app.command()
def verify(
    net: NetworkArgument,
    image: ImageArgument,
    label: LabelOption = None,
    k: KOption = 2,
    eps: EpsilonOption = None,
    widths: WidthsOption = None,
    layers: LayersOption = None,
    property_kind: PropertyOption = PropertyKind.STAYS_IN,
    threshold: ThresholdOption = None,
    flips: FlipsOption = 0,
    engine: EngineOption = EngineName.AUTO,
    solver: SolverChoice = SolverOption.AUTO,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    certificate: CertificateOption = None,
    require_certificate: RequireOption = False,
    float32: Float32Option = False,
    as_json: JsonOption = False,
    out: OutOption = DEFAULT_OUT,
) -> int:
    """Does a property hold for every image of a region? Exit code 0: yes; 1: no, with an image; 2: undecided."""
    from aureole.commands import verify as command

    words = PropertyWords(property_kind, label, k, threshold, flips)
    options = RunOptions(engine, solver, timeout, seed, as_json, out, device)
    evidence = CertificateWords(certificate, require_certificate, float32)
    return command.run(net, image, words, RegionWords(eps, widths, layers), options, evidence)


@app.command()
def labels(
    net: NetworkArgument,
    image: ImageArgument,
    k: KOption = 2,
    eps: EpsilonOption = None,
    widths: WidthsOption = None,
    layers: LayersOption = None,
    engine: EngineOption = EngineName.AUTO,
    solver: SolverChoice = SolverOption.AUTO,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    out: OutOption = DEFAULT_OUT,
) -> int:
    """Which labels are always, never or sometimes in the top k? Exit code 0: every label is decided; 2: some are not."""
    from aureole.commands import labels as command

    options = RunOptions(engine, solver, timeout, seed, as_json, out, device)
    return command.run(net, image, k, RegionWords(eps, widths, layers), options)


@app.command()
def grow(
    net: NetworkArgument,
    image: ImageArgument,
    target: TargetOption,
    perturbed: ObjectOption,
    k: KOption = 2,
    cut: CutOption = CutName.FIXED,
    weights: WeightsOption = None,
    fixed: FixedOption = None,
    bands: BandsOption = None,
    sides: SidesOption = SidesName.BOTH,
    step: StepOption = 1.0 / 255.0,
    corners: CornersOption = 1000,
    trace: TraceOption = None,
    engine: EngineOption = EngineName.AUTO,
    solver: SolverChoice = SolverOption.AUTO,
    timeout: TimeoutOption = DEFAULT_GROW_TIMEOUT,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    out: OutOption = DEFAULT_OUT,
) -> int:
    """How far may an object change, layer by layer, before a label is lost? Exit code 0: proved; 2: not proved."""
    from aureole.commands import grow as command

    options = RunOptions(engine, solver, timeout, seed, as_json, out, device)
    words = command.GrowWords(
        tuple(target), tuple(perturbed), k, cut, weights, trace, fixed, bands, sides, step, corners
    )
    return command.run(net, image, words, options)


@app.command()
def grow_all(
    net: NetworkArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Folders, PNG or NPY files, shipped:N or shipped:A-B.")
    ],
    perturbed: Annotated[
        list[str] | None,
        typer.Option("--object", metavar="MASK|BOX", help="The objects of every image; ink:0 and ink:1 if not given."),
    ] = None,
    k: KOption = 2,
    cut: CutOption = CutName.FIXED,
    weights: WeightsOption = None,
    bands: BandsOption = None,
    sides: SidesOption = SidesName.BOTH,
    step: StepOption = 1.0 / 255.0,
    corners: CornersOption = 1000,
    engine: EngineOption = EngineName.AUTO,
    solver: SolverChoice = SolverOption.AUTO,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds for each neighbourhood.")
    ] = DEFAULT_GROW_TIMEOUT,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    out: OutOption = DEFAULT_OUT,
) -> int:
    """Grows around every object while every other one's label survives, on many images. Exit code 0: all proved; 2: not."""
    from aureole.commands import grow as words_of
    from aureole.commands import grow_all as command

    objects = tuple(perturbed or ("ink:0", "ink:1"))
    words = words_of.GrowWords(
        (), objects, k, cut, weights, bands=bands, sides=SidesName(sides), step=step, corners=corners
    )
    return command.run(
        net, images, words, RunOptions(engine, solver, timeout, seed, as_json=False, out=out, device=device)
    )


@app.command()
def info(
    net: Annotated[
        str | None, typer.Argument(metavar="[NET]", help="As above; without it, lists the shipped ones.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """What is in a network, or which networks are shipped."""
    from aureole.commands import info as command

    return command.run(net, as_json)


@app.command()
def doctor(as_json: JsonOption = False) -> int:
    """Which solvers, licences and engines are here, and how to get the missing ones."""
    from aureole.commands import doctor as command

    return command.run(as_json)


@app.command()
def check(
    certificate: Annotated[
        Path, typer.Argument(metavar="CERTIFICATE", help="The file that `verify --certificate` wrote.")
    ],
    network: Annotated[
        str,
        typer.Option("--network", metavar="NET", help="The ONNX file it is about, or the name of a shipped network."),
    ],
    float32: Annotated[
        bool, typer.Option("--float32", help="Accept only a proof that covers float32 inference in any order.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Does a certificate prove what it states? Exit code 0: an accepted proof; 1: a counterexample; 2: rejected."""
    from aureole.commands import check as command

    return command.run(certificate, network, covers_float32=float32, as_json=as_json)


@app.command()
def attack(
    net: Annotated[str | None, typer.Argument(metavar="NET", help="ONNX file, or a shipped network.")] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            help="PNG or NPY files, folders of them, shipped:N, shipped:A-B; voc:, coco: or nus-wide:SPLIT:[A-B:]FOLDER.",
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="The attack (see --list).")] = DEFAULT_METHOD,
    variant: Annotated[
        str, typer.Option("--variant", metavar="V", help="fixed, or released: as the authors' code does it.")
    ] = "fixed",
    goal: Annotated[
        str, typer.Option("--goal", metavar="NAME", help="What the attack is to reach (see --list).")
    ] = DEFAULT_GOAL,
    k: Annotated[int | None, typer.Option("--k", metavar="K", help="The k of a goal about the top k.")] = None,
    goal_option: Annotated[
        list[str] | None,
        typer.Option("--goal-option", metavar="NAME=VALUE", help="Such as members=3,7 or n=2; may be repeated."),
    ] = None,
    norm: Annotated[
        str | None, typer.Option("--norm", metavar="NORM", help="l1, l2 or linf; the attack's own if not given.")
    ] = None,
    eps: Annotated[
        float | None, typer.Option("--eps", metavar="E", help="The radius of the ball; the attack's own if not given.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="An option of the attack (see --list); may be repeated."),
    ] = None,
    jpeg: Annotated[
        int | None, typer.Option("--jpeg", metavar="Q", help="Measure what is left after JPEG of this quality.")
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Attack through that JPEG, with straight-through gradients.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="True labels (CSV or NPY); if not given, the shipped ones or the network's own.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Images attacked and saved together.", min=1)] = 16,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    lists: Annotated[bool, typer.Option("--list", help="List attacks and goals.")] = False,
    as_json: JsonOption = False,
    out: OutOption = DEFAULT_OUT / "attack",
) -> int:
    """Attacks images towards a goal; writes images, results and metrics, and goes on where an earlier run stopped."""
    from aureole.commands import attack as command

    goal_words = GoalWords(goal, k, tuple(goal_option or ()))
    words = MethodWords(method, variant, norm, eps, tuple(option or ()), jpeg, adaptive)
    return command.run(
        net, images or [], goal_words, words, AttackRun(labels, batch, seed, device, as_json, out), lists=lists
    )


@app.command()
def crosscheck(
    claims: Annotated[
        Path,
        typer.Argument(
            metavar="CLAIMS",
            help="A table of claims (CSV, JSON or Parquet), or a folder that holds claims.* or results.*.",
        ),
    ],
    network: Annotated[
        str, typer.Option("--network", metavar="NET", help="The ONNX file they are about, or a shipped network.")
    ],
    engine: EngineOption = EngineName.AUTO,
    solver: SolverChoice = SolverOption.AUTO,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds for each claim.")] = DEFAULT_TIMEOUT,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    out: OutOption = DEFAULT_OUT,
) -> int:
    """Which claims about attacks are true? Exit code 0: all stand; 1: one does not; 2: some are undecided."""
    from aureole.commands import crosscheck as command

    return command.run(claims, network, RunOptions(engine, solver, timeout, seed, as_json, out, device))


@app.command()
def train(
    architecture: Annotated[
        str, typer.Argument(metavar="ARCHITECTURE", help="cnn4k, strided2, strided3, wide150k or digit28.")
    ],
    defence: Annotated[DefenceChoice, typer.Option("--defence", help="How it learns to resist.")] = DefenceChoice.NONE,
    mnist_dir: Annotated[
        Path | None, typer.Option("--mnist-dir", metavar="DIR", help="MNIST's gzip files; downloaded if not given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Batches, if not those of the recipe.", min=1)
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", metavar="L", help="ranking, bce, ml-liw, ml-liw-released or softmax.")
    ] = None,
    head: Annotated[str, typer.Option("--head", metavar="H", help="linear or ml-gcn.")] = "linear",
    tasks: Annotated[
        list[str] | None, typer.Option("--task", metavar="T", help="An auxiliary task, odd or prime; repeatable.")
    ] = None,
    perturbation: Annotated[
        str | None,
        typer.Option("--perturbation", metavar="P", help="STA, MTA or MP, with tasks under linf; MP if not given."),
    ] = None,
    targeted: Annotated[
        bool, typer.Option("--targeted", help="Perturb towards wrong answers, with tasks under linf.")
    ] = False,
    robust_loss: Annotated[
        RobustLossChoice | None,
        typer.Option("--robust-loss", help="What ibp, crown-ibp and sabr lower, at its worst; set if not given."),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option("--epsilon", metavar="E", help="The radius of linf, ibp, crown-ibp or sabr, if not the recipe's."),
    ] = None,
    seed: SeedOption = 0,
    out: OutOption = DEFAULT_OUT,
) -> int:
    """Trains a Double-MNIST network from a seed; writes the ONNX file and a record of every choice."""
    from aureole.commands import train as command

    chosen = robust_loss.value if robust_loss else None
    words = TrainingWords(steps, loss, head, tuple(tasks or ()), perturbation, targeted, chosen, epsilon)
    return command.run(architecture, defence, mnist_dir, seed, out, words)


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="The first step only: one network, one query.")] = False,
    out: OutOption = DEFAULT_OUT / "demo",
) -> int:
    """The main job on a real image: classify every label, grow a neighbourhood, draw it, say what was proved."""
    from aureole.commands import demo as command

    return command.run(is_quick=quick, out=out)
