"""Subproblems as linear programs and mixed-integer models.

A linear program is exact once every window is decided, so that a fully split subproblem never stays open for want of bounds; a
model with binaries is exact at once, and pays for few windows.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import sparse

from verifier.deadline import Deadline
from verifier.milp.model import MilpModel
from verifier.milp.solvers.highs import LinearProgram
from verifier.milp.system import without_tiny
from verifier.milp.windows import RowBlock, Window, add_envelope, add_exact, add_relaxed, binaries_needed
from verifier.search.domain import Split, domain_of
from verifier.search.skeleton import Skeleton, Stage

_PADDING = 1e-7
_RANGE = 1e3
_PENALTY = 1e4
_CONSISTENT = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """What the linear program of a subproblem gave.

    Attributes:
        bound: An upper bound of the least of the members, re-derived from multipliers; inf if there was no time.
        inputs: float64 (inputs,), free inputs where the program attains its optimum, or None.
        split: The window, and the alternative that wins there, where the optimum is least like the network; None where it is
            consistent with it.
    """

    bound: float
    inputs: Float[np.ndarray, " inputs"] | None
    split: Split | None


def solve_leaf(skeleton: Skeleton, members: tuple[int, ...], splits: tuple[Split, ...], deadline: Deadline) -> Leaf:
    """Bounds the least of some forms over a subproblem by its linear relaxation.

    Split constraints may be violated by a slack that the objective pays for, so that the program always has a solution; at points
    of the subproblem the slack is 0, so the optimum bounds the forms there whatever the price.
    """
    alive, dropped = _sets(skeleton, splits)
    program = LinearProgram(_model(skeleton, members, alive, dropped, None))
    objective = np.zeros(skeleton.columns + 2)
    objective[-2], objective[-1] = 1.0, -_PENALTY
    answer = program.maximise(objective, deadline)
    if answer.point is None:
        return Leaf(np.inf, None, None)
    return Leaf(answer.bound, answer.point[: skeleton.inputs], _worst_window(skeleton, alive, answer.point))


def exact_model(skeleton: Skeleton, members: tuple[int, ...], splits: tuple[Split, ...], least: float) -> MilpModel:
    """A model that is feasible iff all members are >= `least` at some point of the subproblem, and maximises their least.

    The first columns are the free inputs.
    """
    alive, dropped = _sets(skeleton, splits)
    return _model(skeleton, members, alive, dropped, least)


def _sets(
    skeleton: Skeleton, splits: tuple[Split, ...]
) -> tuple[list[Bool[np.ndarray, "_ _"]], list[Bool[np.ndarray, "_ _"]]]:
    domain = domain_of(skeleton, [splits])
    alive, dropped = ([part[:, :, 0].cpu().numpy() for part in parts] for parts in (domain.alive, domain.dropped))
    return alive, dropped


def _worst_window(
    skeleton: Skeleton, alive: list[Bool[np.ndarray, "_ _"]], point: Float[np.ndarray, " _"]
) -> Split | None:
    """Where the outputs differ most from the largest alternative, among windows with several."""
    worst, found = _CONSISTENT * skeleton.scale, None
    for index, stage in enumerate(skeleton.stages):
        z = stage.matrix @ point[: stage.start] + stage.constants[:, 0].cpu().numpy()
        slots = stage.gather(torch.from_numpy(z).unsqueeze(1), -np.inf)[:, :, 0].numpy()
        best = np.where(alive[index], slots, -np.inf)
        gaps = np.abs(point[stage.start : stage.start + stage.windows] - best.max(axis=1))
        gaps = np.where(alive[index].sum(axis=1) > 1, gaps, 0.0)
        window = int(gaps.argmax())
        if gaps[window] > worst:
            worst, found = float(gaps[window]), Split(index, window, 1 << int(best[window].argmax()), wins=True)
    return found


def _model(
    skeleton: Skeleton,
    members: tuple[int, ...],
    alive: list[Bool[np.ndarray, "_ _"]],
    dropped: list[Bool[np.ndarray, "_ _"]],
    least: float | None,
) -> MilpModel:
    """Columns: inputs, window outputs, the least form s, the slack e, binaries.

    With `least` None relaxed and without binaries; otherwise exact, e = 0 and s >= least. The objective is s.
    """
    base = skeleton.columns + 2
    inputs = skeleton.inputs
    stages = [
        _StageRows.of(stage, alive[index], dropped[index], slack=base - 1, is_exact=least is not None)
        for index, stage in enumerate(skeleton.stages)
    ]
    binaries = 0
    blocks: list[sparse.csr_array] = []
    sides: list[tuple[np.ndarray, np.ndarray]] = []
    names: list[str] = []
    width = base + sum(part.binaries for part in stages)
    lower, upper = np.zeros(width), np.ones(width)
    lower[:inputs], upper[:inputs] = (side[:, 0].cpu().numpy() for side in (skeleton.lower, skeleton.upper))
    largest = 0.0
    for index, (stage, part) in enumerate(zip(skeleton.stages, stages, strict=True)):
        outputs = slice(stage.start, stage.start + stage.windows)
        lower[outputs], upper[outputs] = part.lower, part.upper
        largest = max(largest, float(stage.lower.abs().max()), float(stage.upper.abs().max()))
        block = part.shifted(base + binaries)
        binaries += part.binaries
        if block.lower:
            z = _widened(stage.matrix, width)
            rows, row_lower, row_upper = block.over(z, stage.constants[:, 0].cpu().numpy())
            blocks.append(rows)
            sides.append((row_lower, row_upper))
            names.extend(f"{index}_{name}" for name in block.names)
    form_rows, form_lower = _form_rows(skeleton, members, width)
    sides.append((form_lower, np.full(len(members), np.inf)))
    names.extend(f"form{form}" for form in members)
    lower[base - 2] = -_RANGE * skeleton.scale if least is None else least
    upper[base - 2] = 4.0 * skeleton.scale + 1.0
    upper[base - 1] = 4.0 * (largest + 1.0) if least is None else 0.0
    rows = sparse.csr_array(sparse.vstack([*blocks, form_rows]))
    row_lower, row_upper = (np.concatenate([side[i] for side in sides]) for i in range(2))
    rows, row_lower, row_upper = without_tiny(rows, row_lower, row_upper, np.maximum(np.abs(lower), np.abs(upper)))
    is_integer = np.arange(width) >= base
    objective = np.zeros(width)
    objective[base - 2] = 1.0
    column_names = tuple(f"c{column}" for column in range(width))
    return MilpModel(rows, row_lower, row_upper, lower, upper, is_integer, objective, 0.0, column_names, tuple(names))


def _widened(matrix: sparse.csr_array, width: int) -> sparse.csr_array:
    return sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], width))


def _form_rows(
    skeleton: Skeleton, members: tuple[int, ...], width: int
) -> tuple[sparse.csr_array, Float[np.ndarray, " members"]]:
    """form_m - s >= 0."""
    listed = list(members)
    chosen = sparse.csr_array(skeleton.form_matrix[listed])
    s = skeleton.columns
    on_s = sparse.csr_array(
        (np.full(len(listed), -1.0), (np.arange(len(listed)), np.full(len(listed), s))), shape=(len(listed), width)
    )
    return sparse.csr_array(_widened(chosen, width) + on_s), -skeleton.form_constants[listed, 0].cpu().numpy()


@dataclass(frozen=True, slots=True, eq=False)
class _StageRows:
    """The rows of a stage's windows, bounds of its outputs, and how many binaries they use, numbered from -1 downwards."""

    block: RowBlock
    lower: Float[np.ndarray, " windows"]
    upper: Float[np.ndarray, " windows"]
    binaries: int

    @classmethod
    def of(
        cls,
        stage: Stage,
        alive: Bool[np.ndarray, "windows slots"],
        dropped: Bool[np.ndarray, "windows slots"],
        *,
        slack: int,
        is_exact: bool,
    ) -> "_StageRows":
        """The rows y >= z_d - slack of dropped alternatives, and those that tie y to the others."""
        block, binaries = RowBlock(), 0
        index = stage.index.cpu().numpy()
        low, high = stage.lower[:, 0].cpu().numpy(), stage.upper[:, 0].cpu().numpy()
        low = low - _PADDING * np.maximum(1.0, np.abs(low))
        high = high + _PADDING * np.maximum(1.0, np.abs(high))
        least, most = np.zeros(stage.windows), np.zeros(stage.windows)
        width = index.shape[1]
        for number in range(stage.windows):
            y, name = stage.start + number, f"w{number}"
            entries, others = (index[number, np.flatnonzero(mask[number, :width])] for mask in (alive, dropped))
            floor = 0.0 if stage.has_floor and alive[number, -1] else -np.inf
            window = Window(tuple(entries.tolist()), tuple(low[entries]), tuple(high[entries]), floor)
            least[number], most[number] = _range_of(window)
            for entry in others.tolist():
                columns = [(y, 1.0), (slack, 1.0)]
                block.add(f"{name}_drop{entry}", entries=[(entry, -1.0)], columns=columns, lower=0.0)
            if stage.has_floor and dropped[number, -1]:
                block.add(f"{name}_dropfloor", entries=[], columns=[(y, 1.0), (slack, 1.0)], lower=0.0)
            if len(entries) == 1 and floor < 0:
                block.add(f"{name}_is", entries=[(int(entries[0]), -1.0)], columns=[(y, 1.0)], lower=0.0, upper=0.0)
            elif len(entries) and is_exact:
                count = binaries_needed(window)
                add_exact(block, window, y=y, binaries=[-1 - binaries - i for i in range(count)], name=name)
                if len(entries) > 1:
                    add_envelope(block, window, y=y, name=name)
                binaries += count
            elif len(entries):
                add_relaxed(block, window, y=y, name=name)
        return cls(block, least, most, binaries)

    def shifted(self, first: int) -> RowBlock:
        """The rows with the binaries numbered from `first` upwards."""
        terms = [
            (row, column if column >= 0 else first - 1 - column, value)
            for row, column, value in self.block.column_terms
        ]
        return replace(self.block, column_terms=terms)


def _range_of(window: Window) -> tuple[float, float]:
    """The range of a window's output: that of its alternatives, which are 0 where there are none but the floor."""
    floors = [] if np.isneginf(window.floor) else [window.floor]
    return max([*window.lower, *floors]), max([*window.upper, *floors])
