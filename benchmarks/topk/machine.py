"""What a measurement ran on: the machine, the libraries, the version of the code."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from benchmarks.topk.results import Record

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("verifier", "attacks", "synth", "nets", "aureole")
_LIBRARIES = ("torch", "numpy", "scipy", "onnxruntime", "highspy", "gurobipy", "PuLP", "PySCIPOpt", "auto_LiRPA")


def describe() -> Record:
    """A record of kind "machine"."""
    return {
        "kind": "machine",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
    }


def in_words(machine: Record) -> str:
    """A machine in one line."""
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}; {machine['versions']}"


@cache
def code_version() -> str:
    """The commit of the code as it is when first asked, with "+" if files of the packages differ from it; "unknown" without git."""
    commit = _git("rev-parse", "--short", "HEAD")
    if commit is None:
        return "unknown"
    return commit + ("+" if _git("status", "--porcelain", "--", *_PACKAGES) else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _versions() -> list[str]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
