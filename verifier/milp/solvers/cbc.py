"""CBC as a program of its own, the one PuLP brings along or one on the search path."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verifier.deadline import Deadline
from verifier.errors import SolverUnavailableError
from verifier.milp.model import MilpModel
from verifier.milp.solvers.answer import SolveResult, SolveStatus, package_version, with_solution, without_solution
from verifier.milp.solvers.mps import mps_text

HOW_TO_GET = "pip install 'pulp>=3.3,<4' (it bundles CBC), or put a cbc program on the search path"


def cbc_path() -> Path | None:
    """Where CBC is: PuLP's, else on the search path, else None."""
    try:
        from pulp.apis import PULP_CBC_CMD
    except ImportError:
        bundled = None
    else:
        bundled = PULP_CBC_CMD.pulp_cbc_path
    found = bundled if bundled and Path(bundled).is_file() else shutil.which("cbc")
    return Path(found) if found else None


@dataclass(frozen=True, slots=True)
class CbcSolver:
    """Solves models with CBC; it stops at the first solution, whatever the target.

    CBC overshoots its own time limit, so the process is killed at the deadline.
    """

    @property
    def label(self) -> str:
        """The solver's name, and the version of PuLP that brings it."""
        return f"CBC (PuLP {package_version('pulp')})"

    def solve(self, model: MilpModel, *, target: float, deadline: Deadline) -> SolveResult:  # noqa: ARG002
        """See `MilpSolver.solve`.

        Raises:
            SolverUnavailableError: No CBC program was found.
        """
        program = cbc_path()
        if program is None:
            raise SolverUnavailableError(f"solver 'cbc': no CBC program found; {HOW_TO_GET}")
        with tempfile.TemporaryDirectory(prefix="aureole-cbc-") as folder:
            model_file, answer_file, log_file = (Path(folder) / name for name in ("model.mps", "answer.txt", "log.txt"))
            model_file.write_text(mps_text(model), encoding="ascii")
            command = [str(program), str(model_file), "-ratio", "0", "-threads", "1", "-maxSolutions", "1"]
            command += ["-printingOptions", "all", "-branch", "-solution", str(answer_file)]
            timed_out = not _run(command, log_file, deadline)
            log = log_file.read_text(encoding="utf-8", errors="replace")
            answer = answer_file.read_text(encoding="utf-8") if answer_file.exists() and not timed_out else ""
        if timed_out:
            return without_solution(self.label, SolveStatus.TIME_LIMIT, "stopped at the deadline", _bound(log, model))
        return _answer(answer, log, model, self.label)


def _run(command: list[str], log_file: Path, deadline: Deadline) -> bool:
    """Runs the program; False if it had to be killed at the deadline."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(timeout=deadline.remaining() if np.isfinite(deadline.at) else None)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return True


def _answer(answer: str, log: str, model: MilpModel, label: str) -> SolveResult:
    first, _, rest = answer.partition("\n")
    detail = first.strip() or log.strip().rpartition("\n")[2].strip() or "no answer"
    bound = _bound(log, model)
    # "Optimal" also heads answers that stopped at the first solution, so only the log's own words count as a proof.
    if first.startswith(("Infeasible", "Integer infeasible")):
        return without_solution(label, SolveStatus.INFEASIBLE, detail)
    if not first.startswith(("Optimal", "Stopped")):
        return without_solution(label, SolveStatus.UNKNOWN, detail, bound)
    values = _values(rest, len(model.objective))
    if values is None:
        return without_solution(label, SolveStatus.UNKNOWN, detail, bound)
    is_optimal = "Optimal solution found" in log and "Exiting on maximum solutions" not in log
    status = SolveStatus.OPTIMAL if is_optimal else SolveStatus.FEASIBLE
    return with_solution(label, status, values, model, bound, detail)


def _values(text: str, columns: int) -> np.ndarray | None:
    values = np.full(columns, np.nan)
    for line in text.splitlines():
        parts = line.replace("**", "").split()
        if len(parts) < 3 or not parts[1].startswith("C"):
            continue
        values[int(parts[1][1:])] = float(parts[2])
    return values if np.isfinite(values).all() else None


_BEST_POSSIBLE = re.compile(r"best possible (\S+)")
_LOWER_BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)


def _bound(log: str, model: MilpModel) -> float:
    """The last bound the log names, as an upper bound of our maximisation; inf if it names none.

    The log rounds: to three decimals on its last lines, to six digits before. What that may hide is added.
    """
    found = _LOWER_BOUND.findall(log) or _BEST_POSSIBLE.findall(log)
    try:
        named = -float(found[-1].rstrip(",)"))
    except (IndexError, ValueError):
        return np.inf
    return named + 1e-3 + 1e-5 * abs(named) + model.offset if abs(named) < 1e40 else np.inf
