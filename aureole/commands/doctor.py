"""`aureole doctor`: solvers, licences and engines found here, and how to get the missing ones."""

import importlib.metadata
import platform
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from aureole import __version__, terminal
from aureole.exits import ExitCode
from aureole.json_parts import to_text
from aureole.text_report import fields
from verifier.milp import SolverInfo, available_solvers

DOCTOR_SCHEMA = "aureole/doctor/1"
_LIRPA_HOW = "pip install 'aureole[lirpa]' && pip install --no-deps auto-LiRPA==0.3 (docs/dependencies.md)"
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "scipy")


def run(as_json: bool) -> int:
    """Reports what is here; returns UNAVAILABLE if no MILP solver works, so that no query could be decided completely."""
    with terminal.reserved_stdout(as_json):
        solvers = available_solvers()
        content = doctor_object(solvers)
    if as_json:
        terminal.write_json(to_text(content))
    else:
        terminal.answers().print(_report(content))
    return int(ExitCode.ROBUST if any(solver.is_available for solver in solvers) else ExitCode.UNAVAILABLE)


def doctor_object(solvers: list[SolverInfo]) -> dict[str, Any]:
    """What is here, as one object."""
    return {
        "schema": DOCTOR_SCHEMA,
        "aureole": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
        "engines": [
            {"name": "bounds", "version": __version__, "is_available": True, "detail": "interval, CROWN, alpha-CROWN"},
            _lirpa_object(),
        ],
        "solvers": [
            {
                "name": solver.name.value,
                "version": solver.version,
                "is_available": solver.is_available,
                "licence": solver.licence,
                "how_to_get": solver.how_to_get,
            }
            for solver in solvers
        ],
    }


def _lirpa_object() -> dict[str, Any]:
    try:
        version = importlib.metadata.version("auto-LiRPA")
    except importlib.metadata.PackageNotFoundError:
        return {"name": "auto-lirpa", "version": "", "is_available": False, "detail": _LIRPA_HOW}
    return {"name": "auto-lirpa", "version": version, "is_available": True, "detail": "optional cross-check"}


def _report(content: dict[str, Any]) -> Group:
    versions = ", ".join(f"{name} {version}" for name, version in content["packages"].items())
    engines = Table("engine", "version", "here", "remark", box=None, header_style="dim", pad_edge=False)
    for engine in content["engines"]:
        engines.add_row(engine["name"], engine["version"], _mark(engine["is_available"]), engine["detail"])
    solvers = Table("MILP solver", "version", "works", "licence", box=None, header_style="dim", pad_edge=False)
    for solver in content["solvers"]:
        remark = Text(solver["licence"])
        if _is_wanting(solver):
            remark.append(f"\n{solver['how_to_get']}", style="dim")
        solvers.add_row(solver["name"], solver["version"], _mark(solver["is_available"]), remark)
    rows = [
        ("aureole", f"{content['aureole']} on Python {content['python']}"),
        ("packages", versions),
        ("torch", f"{content['torch_threads']} threads, {'CUDA' if content['cuda'] else 'no CUDA'}"),
    ]
    return Group(fields(rows), Text(), engines, Text(), solvers)


def _is_wanting(solver: dict[str, Any]) -> bool:
    return not solver["is_available"] or ("limit" in solver["licence"] and "no limit" not in solver["licence"])


def _mark(is_here: bool) -> Text:
    return Text("yes", "green") if is_here else Text("no", "red")
