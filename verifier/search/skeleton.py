"""What bounds leave open of a network over a box: free inputs, undecided maxima, and linear forms over both.

Stable units are substituted, so a small problem stays small whatever the network's size. Columns are the free inputs first, then
the outputs of undecided windows in topological order; the candidates of a window are affine in the columns before it. Vectors over
a batch are laid out with the batch last: (columns, batch).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from verifier.bounds import RegionBounds
from verifier.canonical import Affine, CanonicalNetwork, Max, Relu
from verifier.milp.system import Expressions
from verifier.milp.windows import Windows, alternatives, reduce_windows, stable_selection
from verifier.property import Property

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class MatrixProducts:
    """A sparse matrix, both ways, on one device.

    Attributes:
        forward: (columns, batch) -> (rows, batch).
        transpose: (rows, batch) -> (columns, batch).
    """

    forward: Product
    transpose: Product


def products(matrix: sparse.csr_array, device: torch.device, dtype: torch.dtype) -> MatrixProducts:
    """The matrix on a device: SciPy's products on the CPU, which beat torch's there, torch's elsewhere."""
    matrix = sparse.csr_array(matrix)
    matrix.sort_indices()
    transposed = sparse.csr_array(matrix.T.tocsr())
    return MatrixProducts(_product(matrix, device, dtype), _product(transposed, device, dtype))


def _product(matrix: sparse.csr_array, device: torch.device, dtype: torch.dtype) -> Product:
    if device.type == "cpu":
        held = matrix.astype(np.float64 if dtype is torch.float64 else np.float32)
        return lambda x: torch.from_numpy(held @ x.numpy())
    entries = matrix.tocoo()
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.tensor(entries.data, dtype=dtype)
    moved = torch.sparse_coo_tensor(index, values, entries.shape, check_invariants=True).coalesce().to(device)
    return lambda x: torch.sparse.mm(moved, x)


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Undecided windows that can be computed together.

    A window's slots are its candidates, then the floor 0 where `has_floor`.

    Attributes:
        node: The canonical node they belong to.
        entries: int64 (windows,), their positions in that node's value.
        is_relu: Whether every window is one candidate and the floor, window i reading candidate i.
        has_floor: Whether 0 is an alternative of every window.
        index: int64 (windows, width), into the candidates; absent ones point one past their end.
        matrix: CSR (candidates, columns before), and its products.
        magnitudes: The products of the matrix's absolute values, where it reads free inputs alone; else None.
        constants: (candidates, 1).
        start: The column of the first window's output.
        lower, upper: (candidates, 1), bounds over the whole region.
        alive: bool (windows, slots): alternatives that these bounds leave.
    """

    node: int
    entries: Int[np.ndarray, " windows"]
    is_relu: bool
    has_floor: bool
    index: Tensor
    matrix: sparse.csr_array
    products: MatrixProducts
    magnitudes: MatrixProducts | None
    constants: Tensor
    start: int
    lower: Tensor
    upper: Tensor
    alive: Tensor

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return len(self.entries)

    @property
    def slots(self) -> int:
        """Alternatives per window, absent ones included."""
        return int(self.index.shape[1]) + int(self.has_floor)

    def gather(self, values: Tensor, absent: float, floor: float = 0.0) -> Tensor:
        """(candidates, batch) -> (windows, slots, batch); absent candidates and the floor are filled in."""
        ends = [values, values.new_full((1, values.shape[1]), absent)]
        gathered = torch.cat(ends)[self.index]
        if not self.has_floor:
            return gathered
        return torch.cat([gathered, values.new_full((len(gathered), 1, values.shape[1]), floor)], dim=1)

    def scatter(self, slots: Tensor) -> Tensor:
        """(windows, slots, batch) -> (candidates, batch): the sum per candidate, the floor's left out."""
        width = self.index.shape[1]
        total = slots.new_zeros((len(self.constants) + 1, slots.shape[2]))
        return total.index_add(0, self.index.flatten(), slots[:, :width].flatten(0, 1))[:-1]


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """A region and a property, reduced to what is undecided.

    Soundness: at every point of the region, the columns computed from it stage by stage give the property's forms, up to float64
    rounding; dropped alternatives never exceed the others there.

    Attributes:
        input_entries: int64 (inputs,), the input entry each of the first columns stands for.
        base: float64 (network inputs,), the fixed entries, the middle of the box elsewhere.
        lower, upper: (inputs, 1), the box of the free inputs.
        stages: In topological order.
        form_matrix: CSR (forms, columns), and its products.
        form_constants: (forms, 1).
        scale: At least 1, the magnitude of the forms: rounding errors are small multiples of it.
    """

    input_entries: Int[np.ndarray, " inputs"]
    base: Float[np.ndarray, " _"]
    lower: Tensor
    upper: Tensor
    stages: tuple[Stage, ...]
    form_matrix: sparse.csr_array
    form_products: MatrixProducts
    form_constants: Tensor
    scale: float

    @property
    def inputs(self) -> int:
        """Free inputs."""
        return len(self.input_entries)

    @property
    def columns(self) -> int:
        """Free inputs and undecided windows."""
        return self.inputs + self.undecided

    @property
    def undecided(self) -> int:
        """Undecided windows."""
        return sum(stage.windows for stage in self.stages)

    def values(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The true forms (forms, batch) and candidates, stage by stage, at free inputs (inputs, batch)."""
        columns, candidates = inputs, []
        for stage in self.stages:
            z = stage.products.forward(columns) + stage.constants
            candidates.append(z)
            if stage.is_relu:
                y = torch.relu(z)
            else:
                slots = stage.gather(z, -torch.inf)
                y = torch.where(stage.alive.unsqueeze(-1), slots, -torch.inf).amax(dim=1)
            columns = torch.cat([columns, y])
        return self.form_products.forward(columns) + self.form_constants, candidates

    def points(self, inputs: Tensor) -> Float[np.ndarray, "batch _"]:
        """Inputs of the network, float64 and inside the region's box, from free inputs (inputs, batch)."""
        full = np.tile(self.base, (inputs.shape[1], 1))
        free = torch.clamp(inputs, min=self.lower, max=self.upper)
        full[:, self.input_entries] = free.cpu().double().numpy().T
        return full


def skeleton_of(
    region: RegionBounds,
    property: Property,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float64,
) -> Skeleton:
    """The skeleton of a region for a property."""
    return _Builder(region, device or torch.device("cpu"), dtype).build(property)


class _Builder:
    """Walks the network, value by value, as affine expressions over the columns."""

    def __init__(self, region: RegionBounds, device: torch.device, dtype: torch.dtype) -> None:
        self._region, self._device, self._dtype = region, device, dtype
        self._entries = np.flatnonzero(region.lower < region.upper)
        self._columns = len(self._entries)
        self._stages: list[Stage] = []

    def build(self, property: Property) -> Skeleton:
        canonical = self._region.canonical
        base = 0.5 * (self._region.lower + self._region.upper)
        values = [self._inputs(base)]
        for index, node in enumerate(canonical.nodes):
            if isinstance(node, Affine):
                values.append(self._affine(canonical, index, node, values))
            else:
                values.append(self._maxima(index, node, values[node.input]))
        scores = values[-1]
        forms = sparse.csr_array(sparse.csr_array(property.coefficients) @ scores.over(self._columns))
        constants = property.coefficients @ scores.constants + property.offsets
        lower, upper = (bound[self._entries] for bound in (self._region.lower, self._region.upper))
        return Skeleton(
            self._entries,
            base,
            self._column(lower),
            self._column(upper),
            tuple(self._stages),
            forms,
            products(forms, self._device, self._dtype),
            self._column(constants),
            self._scale(property),
        )

    def _scale(self, property: Property) -> float:
        bounds, output = self._region.node_bounds, self._region.canonical.output
        reach = np.maximum(np.abs(bounds.lower[output]), np.abs(bounds.upper[output]))
        return max(1.0, float((np.abs(property.coefficients) @ reach + np.abs(property.offsets)).max()))

    def _column(self, vector: Float[np.ndarray, " n"]) -> Tensor:
        return torch.tensor(vector, device=self._device, dtype=self._dtype).unsqueeze(1)

    def _inputs(self, base: Float[np.ndarray, " n"]) -> Expressions:
        places = (self._entries, np.arange(self._columns))
        matrix = sparse.csr_array((np.ones(self._columns), places), shape=(len(base), self._columns))
        constants = base.copy()
        constants[self._entries] = 0.0
        return Expressions(matrix, constants)

    def _affine(self, canonical: CanonicalNetwork, index: int, node: Affine, values: list[Expressions]) -> Expressions:
        coefficients = sparse.csr_array((node.size, self._columns))
        constants = node.bias.copy()
        for term, value in enumerate(node.inputs):
            matrix = canonical.matrix(index, term)
            coefficients = coefficients + matrix @ values[value].over(self._columns)
            constants = constants + matrix @ values[value].constants
        coefficients = sparse.csr_array(coefficients)
        coefficients.sum_duplicates()
        coefficients.eliminate_zeros()
        return Expressions(coefficients, constants)

    def _maxima(self, index: int, node: Relu | Max, value: Expressions) -> Expressions:
        lower, upper = (side[node.input] for side in (self._region.node_bounds.lower, self._region.node_bounds.upper))
        if isinstance(node, Relu):
            windows = Windows(np.arange(node.size, dtype=np.int64)[:, None], np.zeros(node.size))
        else:
            windows = Windows(node.windows, np.full(node.size, 0.0 if node.has_floor else -np.inf))
        reduced = reduce_windows(windows, lower, upper)
        choices = alternatives(reduced)
        selection, floors = stable_selection(reduced, choices == 1, len(lower))
        has_floor = np.isfinite(reduced.floors)
        is_relu = has_floor & (choices == 2)
        fresh_rows, first = [np.zeros(0, dtype=np.int64)], self._columns
        for group in (is_relu, (choices > 1) & ~is_relu & has_floor, (choices > 1) & ~has_floor):
            entries = np.flatnonzero(group)
            if len(entries):
                self._add_stage(index, entries, reduced, (lower, upper), value)
                fresh_rows.append(entries)
        rows = np.concatenate(fresh_rows)
        outputs = (np.ones(len(rows)), (rows, first + np.arange(len(rows))))
        fresh = sparse.csr_array(outputs, shape=(node.size, self._columns))
        kept = sparse.csr_array(selection @ value.over(self._columns) + fresh)
        return Expressions(kept, selection @ value.constants + floors)

    def _magnitudes(self, matrix: sparse.csr_array) -> MatrixProducts | None:
        if matrix.nnz and int(matrix.indices.max()) >= len(self._entries):
            return None
        return products(sparse.csr_array(abs(matrix[:, : len(self._entries)])), self._device, self._dtype)

    def _add_stage(
        self,
        node: int,
        entries: Int[np.ndarray, " n"],
        reduced: Windows,
        bounds: tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]],
        value: Expressions,
    ) -> None:
        listed = reduced.candidates[entries]
        packed = -np.sort(-listed, axis=1)  # Absent candidates, -1, last.
        packed = packed[:, : int((packed >= 0).sum(axis=1).max())]
        used = packed[:, 0] if packed.shape[1] == 1 else np.unique(packed[packed >= 0])
        has_floor = bool(np.isfinite(reduced.floors[entries[0]]))
        is_relu = packed.shape[1] == 1 and has_floor
        places = np.where(packed >= 0, np.searchsorted(np.unique(used), packed), len(used))
        index = np.arange(len(entries))[:, None] if is_relu else places
        matrix = sparse.csr_array(value.over(self._columns)[used])
        alive = packed >= 0
        if has_floor:
            alive = np.concatenate([alive, np.ones((len(alive), 1), dtype=np.bool_)], axis=1)
        self._stages.append(
            Stage(
                node,
                entries,
                is_relu,
                has_floor,
                torch.tensor(index, device=self._device),
                matrix,
                products(matrix, self._device, self._dtype),
                self._magnitudes(matrix),
                self._column(value.constants[used]),
                self._columns,
                self._column(bounds[0][used]),
                self._column(bounds[1][used]),
                torch.tensor(alive, device=self._device),
            )
        )
        self._columns += len(entries)
