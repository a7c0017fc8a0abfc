"""Optimisation-based bound tightening: two small linear programs per undecided unit, over what that unit depends on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from verifier.deadline import Deadline
from verifier.milp.model import MilpModel
from verifier.milp.solvers.highs import LinearProgram
from verifier.milp.system import Entries, Expressions, System


@dataclass(frozen=True, slots=True)
class LpTightener:
    """Tightens entries by linear programs over the relaxation so far, until its deadline; the rest stay as they are.

    Entries that depend on the same columns (all channels at one position) share one program, hot-started from one to the
    next. Entries that depend on inputs alone are left out: interval arithmetic is exact for them.

    Attributes:
        deadline: When to stop.
        left_out: Values whose entries stay as they are.

    Soundness: bounds are re-derived from multipliers (`dual_bound`), so they bound the relaxation whatever HiGHS said.
    """

    deadline: Deadline
    left_out: frozenset[int] = frozenset()

    def __call__(
        self,
        system: System,
        value: int,
        values: Expressions,
        entries: Int[np.ndarray, " some"],
        lower: Entries,
        upper: Entries,
    ) -> tuple[Entries, Entries]:
        """The bounds with those of `entries` intersected with what the programs prove."""
        low, high = lower.copy(), upper.copy()
        if value in self.left_out:
            return low, high
        coefficients = values.over(system.columns)
        for columns, members in _groups(coefficients, entries, system):
            if self.deadline.has_expired:
                break
            kept, program = _local_program(system, columns)
            for entry in members:
                row = coefficients[[entry]]
                objective = np.zeros(len(kept))
                objective[np.searchsorted(kept, row.indices)] = row.data
                constant = float(values.constants[entry])
                high[entry] = min(high[entry], program.maximise(objective, self.deadline).bound + constant)
                low[entry] = max(low[entry], constant - program.maximise(-objective, self.deadline).bound)
        return low, high


def _groups(
    coefficients: object, entries: Int[np.ndarray, " some"], system: System
) -> Iterator[tuple[Int[np.ndarray, " cols"], list[int]]]:
    """Entries by the set of columns they read, those that read inputs alone left out."""
    groups: dict[bytes, list[int]] = {}
    supports: dict[bytes, np.ndarray] = {}
    for entry in entries:
        support = np.sort(coefficients[[int(entry)]].indices)  # type: ignore[index]
        if (system.owner[support] < 0).all():
            continue
        key = support.tobytes()
        supports[key] = support
        groups.setdefault(key, []).append(int(entry))
    for key, members in groups.items():
        yield supports[key], members


def _local_program(system: System, columns: Int[np.ndarray, " cols"]) -> tuple[Int[np.ndarray, " kept"], LinearProgram]:
    kept, rows = system.closure(columns)
    model = MilpModel(
        system.rows[rows][:, kept],
        system.row_lower[rows],
        system.row_upper[rows],
        system.column_lower[kept],
        system.column_upper[kept],
        np.zeros(len(kept), dtype=np.bool_),
        np.zeros(len(kept)),
        0.0,
        tuple(system.column_names[column] for column in kept),
        tuple(system.row_names[row] for row in rows),
    )
    return kept, LinearProgram(model)
