"""Maximal layered neighbourhoods: our loop against the published method and simpler ones, on shipped images and three defences.

    python -m benchmarks.maximal run      # defences x cutting weights x methods x 20 images
    python -m benchmarks.maximal bands    # size and upper bound against time, for 4, 8 and all bands
    python -m benchmarks.maximal report --write docs/maximal-study.md
    python -m benchmarks.maximal plot --pictures docs/pictures

Every finished run is one line of JSON, written and synchronised at once; what the file already holds is not run again, and a last
line that was cut off is dropped. Runs differ in method only: image, object, target, network, verifier, attack and time are
the same. The first digit is the perturbed object, the second one's label the target, k = 2.
"""

from pathlib import Path
from typing import Annotated

import typer

from aureole.convergence_picture import draw_convergence
from aureole.heatmap import draw_heatmaps
from benchmarks.documents import show
from benchmarks.maximal import tables
from benchmarks.maximal.pictures import convergences, heat_rows
from benchmarks.maximal.runs import BANDS, CUTS, METHODS, NETWORKS, Case, cases_of, read, run_all

app = typer.Typer(add_completion=False, no_args_is_help=True)
EVERY_NETWORK, EVERY_METHOD, EVERY_CUT = ",".join(NETWORKS), ",".join(METHODS), ",".join(CUTS)
Names = Annotated[str, typer.Option(help="Comma-separated names.")]
Out = Annotated[Path, typer.Option(help="The results file, JSON Lines, appended to.")]
RESULTS = Path("out/maximal.jsonl")


@app.command()
def run(
    out: Out = RESULTS,
    networks: Names = EVERY_NETWORK,
    methods: Names = EVERY_METHOD,
    cuts: Names = EVERY_CUT,
    images: int = 20,
    limit: float = 20.0,
    jobs: int = 1,
) -> None:
    """Measures every method."""
    run_all(cases_of(networks.split(","), methods.split(","), cuts.split(","), images, limit), out, jobs)


@app.command()
def bands(
    out: Out = RESULTS,
    networks: Names = EVERY_NETWORK,
    images: int = 3,
    limit: float = 60.0,
    jobs: int = 1,
) -> None:
    """Measures how the gap closes with 4, 8 and all bands."""
    run_all(
        (
            Case("bands", network, image, name, CUTS[0], limit)
            for image in range(images)
            for network in networks.split(",")
            for name in BANDS
        ),
        out,
        jobs,
    )


@app.command()
def report(
    out: Out = RESULTS,
    write: Annotated[Path | None, typer.Option(help="A document with markers to put the tables into.")] = None,
) -> None:
    """Prints the tables in Markdown."""
    show(tables.report(read(out)), write)


@app.command()
def plot(
    out: Out = RESULTS,
    pictures: Annotated[Path | None, typer.Option(help="The folder for the pictures; default beside the file.")] = None,
    images: int = 3,
) -> None:
    """Draws what was measured: convergence with bands; epsilons of the first images, by network and cutting weights."""
    good = [record for record in read(out) if "error" not in record and "cpu" not in record]
    panels = convergences([record for record in good if record["kind"] == "bands"])
    rows = heat_rows([record for record in good if record["kind"] == "grow"], images)
    folder = out.parent if pictures is None else pictures
    if not panels and not rows:
        raise typer.BadParameter(f"{out} holds no finished runs; run the command run or bands first")
    if panels:
        path = folder / f"{out.stem}-convergence.png"
        draw_convergence(panels, path, "Proved size and proved upper bound, by number of bands")
        print(path)
    if rows:
        path = folder / f"{out.stem}-epsilons.png"
        draw_heatmaps(rows, path, "Epsilon by pixel: three defences, fixed and sensitivity cutting weights")
        print(path)


if __name__ == "__main__":
    app()
