"""Linear maps of the checker, there and back: plain NumPy, every rounding error bounded by a factor known in advance.

Vectors are flat in C order, batches come first. For any vector r and any x, with W the exact map and W' the one stored,

    |(r @ W) @ x  -  backward(r) @ x|  <=  |r| @ noise(X),      |W @ x - forward(x)| <= noise(X),      where |x| <= X,

as long as nothing underflows (`knowledge` adds a constant for that). Both follow from gamma_n (Higham 2002, section 3.1), whatever
the order of summation: `terms` is at least the number of products in any sum, forward or backward, plus the additions it takes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from verifier.check.coefficients import Coefficients
from verifier.rounding import gamma

Rows = Float[np.ndarray, "batch _"]
Vector = Float[np.ndarray, " _"]

Entries = Int[np.ndarray, " n"]
Taps = tuple[Int[np.ndarray, "n _"], Float[np.ndarray, "n _"]]

INFLATION = 1.0 + 2.0**-20
"""Covers the rounding of a sum or product of at most 2^32 numbers >= 0, computed in any order."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """y_k = factor_k x[index_k], and y_k = 0 where index_k is -1; no entry is read twice.

    Attributes:
        index: int64 (out,).
        factor: (out,), each within `radius` of the exact factor.
        radius: (out,), >= 0.
        in_size: Entries read from.
    """

    index: Int[np.ndarray, " out"]
    factor: Vector
    radius: Vector
    in_size: int

    def forward(self, x: Rows) -> Rows:
        """Maps vectors."""
        return np.where(self.index >= 0, x[:, self.index] * self.factor, 0.0)

    def backward(self, r: Rows) -> Rows:
        """Maps coefficients on the output to coefficients on the input."""
        taken = np.flatnonzero(self.index >= 0)
        result = np.zeros((len(r), self.in_size))
        result[:, self.index[taken]] = r[:, taken] * self.factor[taken]
        return result

    def backward_at(self, r: Coefficients) -> Coefficients:
        """As `backward`."""
        if r.entries is None:
            return Coefficients(None, self.backward(r.values))
        read = self.index[r.entries]
        order = np.argsort(read, kind="stable")
        order = order[read[order] >= 0]
        return Coefficients(read[order], r.values[:, order] * self.factor[r.entries[order]])

    def magnitude(self, x: Rows) -> Rows:
        """|W| x for x >= 0."""
        return np.where(self.index >= 0, x[:, self.index] * np.abs(self.factor), 0.0)

    def noise(self, x: Vector) -> Vector:
        """See the module's text; `x` bounds magnitudes."""
        uncertain = np.where(self.index >= 0, x[self.index] * self.radius, 0.0)
        return (gamma(4) * self.magnitude(x[None])[0] + uncertain) * INFLATION

    def taps(self, entries: Entries) -> Taps:
        """What some outputs read, -1 for nothing, and the constants they read it with."""
        return self.index[entries][:, None], np.stack([self.factor[entries], self.radius[entries]], axis=1)

    @property
    def terms(self) -> int:
        """Products per sum."""
        return 1


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """y = x @ weight.T on the last axis of x, whose other axes are kept.

    Attributes:
        weight: (out, in), exact.
        repeats: The product of the kept axes.
    """

    weight: Float[np.ndarray, "out in"]
    repeats: int

    def forward(self, x: Rows) -> Rows:
        """Maps vectors."""
        return (x.reshape(len(x), self.repeats, -1) @ self.weight.T).reshape(len(x), -1)

    def backward(self, r: Rows) -> Rows:
        """Maps coefficients on the output to coefficients on the input."""
        return (r.reshape(len(r), self.repeats, -1) @ self.weight).reshape(len(r), -1)

    def backward_at(self, r: Coefficients) -> Coefficients:
        """As `backward`."""
        if r.entries is not None and self.repeats == 1:
            return Coefficients(None, r.values @ self.weight[r.entries])
        return Coefficients(None, self.backward(r.full(len(self.weight) * self.repeats)))

    def magnitude(self, x: Rows) -> Rows:
        """|W| x for x >= 0."""
        return (x.reshape(len(x), self.repeats, -1) @ np.abs(self.weight).T).reshape(len(x), -1)

    def noise(self, x: Vector) -> Vector:
        """See the module's text; `x` bounds magnitudes."""
        return gamma(self.terms + 2) * self.magnitude(x[None])[0] * INFLATION

    def taps(self, entries: Entries) -> Taps:
        """What some outputs read, and the constants they read it with."""
        out, into = self.weight.shape
        repeat, row = np.divmod(entries, out)
        return repeat[:, None] * into + np.arange(into), self.weight[row]

    @property
    def terms(self) -> int:
        """Products per sum."""
        return max(self.weight.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A 2-D convolution without bias; an average's sums are one with weights 1 and a group per channel.

    Attributes:
        weight: (groups, out / groups, in / groups, kh, kw), exact.
        in_shape, out_shape: (channels, height, width).
        strides, dilations: (vertical, horizontal).
        pads: (top, left, bottom, right).
    """

    weight: Float[np.ndarray, "groups out_per_group in_per_group kh kw"]
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    def forward(self, x: Rows) -> Rows:
        """Maps vectors."""
        return self._forward(x, self.weight)

    def magnitude(self, x: Rows) -> Rows:
        """|W| x for x >= 0."""
        return self._forward(x, np.abs(self.weight))

    def noise(self, x: Vector) -> Vector:
        """See the module's text; `x` bounds magnitudes."""
        return gamma(self.terms + 2) * self.magnitude(x[None])[0] * INFLATION

    def taps(self, entries: Entries) -> Taps:
        """What some outputs read, -1 for the padding, and the constants they read it with."""
        _, out, into, height, width = self.weight.shape
        channel, y, x = np.unravel_index(entries, self.out_shape)
        group, part = np.divmod(channel, out)
        channels = (group[:, None] * into + np.arange(into))[:, :, None, None]
        rows = (y[:, None] * self.strides[0] - self.pads[0] + np.arange(height) * self.dilations[0])[:, None, :, None]
        columns = (x[:, None] * self.strides[1] - self.pads[1] + np.arange(width) * self.dilations[1])[:, None, None, :]
        _, rows_in, columns_in = self.in_shape
        is_inside = (rows >= 0) & (rows < rows_in) & (columns >= 0) & (columns < columns_in)
        index = np.where(is_inside, (channels * rows_in + rows) * columns_in + columns, -1)
        return index.reshape(len(entries), -1), self.weight[group, part].reshape(len(entries), -1)

    @property
    def terms(self) -> int:
        """Products per sum."""
        _, out, into, height, width = self.weight.shape
        return max(out, into) * height * width

    def _forward(self, x: Rows, weight: Float[np.ndarray, "g out into kh kw"]) -> Rows:
        groups, out, into, height, width = weight.shape
        top, left, bottom, right = self.pads
        maps = x.reshape(len(x), *self.in_shape).transpose(1, 0, 2, 3)
        maps = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right)))
        full = (slice(0, self.out_shape[1]), slice(0, self.out_shape[2]))
        entries = [maps[:, :, *self._places(i, j, full)] for i in range(height) for j in range(width)]
        columns = np.stack(entries, axis=1).reshape(groups, into * height * width, -1)
        result = (weight.reshape(groups, out, -1) @ columns).reshape(self.out_shape[0], len(x), -1)
        return result.transpose(1, 0, 2).reshape(len(x), -1)

    def backward(self, r: Rows) -> Rows:
        """Maps coefficients on the output to coefficients on the input; skips rows and columns of the image that hold only 0."""
        maps = r.reshape(len(r), *self.out_shape)
        box = _support(maps)
        found, (rows, columns) = self._back(maps[:, :, *box].transpose(1, 0, 2, 3), box)
        result = np.zeros((len(r), *self.in_shape))
        result[:, :, rows, columns] = found.transpose(1, 0, 2, 3)
        return result.reshape(len(r), -1)

    def backward_at(self, r: Coefficients) -> Coefficients:
        """As `backward`: from some outputs to the rectangle of the image that they read."""
        if r.entries is None:
            return Coefficients(None, self.backward(r.values))
        if not len(r.entries):
            return r
        channel, y, x = np.unravel_index(r.entries, self.out_shape)
        box = slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)
        shape = (self.out_shape[0], len(r.values), box[0].stop - box[0].start, box[1].stop - box[1].start)
        part = np.zeros(shape)
        part[channel, :, y - box[0].start, x - box[1].start] = r.values.T
        found, (rows, columns) = self._back(part, box)
        channels, height, width = self.in_shape
        entries = np.arange(channels * height * width).reshape(self.in_shape)[:, rows, columns].ravel()
        return Coefficients(entries, found.transpose(1, 0, 2, 3).reshape(len(r.values), -1))

    def _back(
        self, part: Float[np.ndarray, "out batch h w"], box: tuple[slice, slice]
    ) -> tuple[Float[np.ndarray, "in batch rows columns"], tuple[slice, slice]]:
        """From coefficients in a box of the output's rows and columns to the box of the input that they read, and that box.

        One large product for the whole batch: many small ones would wake the threads of a BLAS for each.
        """
        groups, out, into, height, width = self.weight.shape
        transposed = self.weight.reshape(groups, out, -1).transpose(0, 2, 1)
        columns = transposed @ part.reshape(groups, out, -1)
        columns = columns.reshape(groups * into, height, width, *part.shape[1:])
        kernel = (height, width)
        reach = [
            max(0, (part.shape[2 + axis] - 1) * self.strides[axis] + (kernel[axis] - 1) * self.dilations[axis] + 1)
            if part.shape[2 + axis]
            else 0
            for axis in (0, 1)
        ]
        result = np.zeros((groups * into, part.shape[1], *reach))
        steps = [
            (size - 1) * stride + 1 if size else 0 for size, stride in zip(part.shape[2:], self.strides, strict=True)
        ]
        for i in range(height):
            for j in range(width):
                first, second = i * self.dilations[0], j * self.dilations[1]
                here = (
                    slice(first, first + steps[0], self.strides[0]),
                    slice(second, second + steps[1], self.strides[1]),
                )
                result[:, :, *here] += columns[:, i, j]
        inside, image = [], []
        for axis in (0, 1):
            origin = box[axis].start * self.strides[axis] - self.pads[axis]
            low = min(max(0, -origin), reach[axis])
            high = max(low, min(reach[axis], self.in_shape[1 + axis] - origin))
            inside.append(slice(low, high))
            image.append(slice(origin + low, origin + high) if high > low else slice(0, 0))
        return result[:, :, inside[0], inside[1]], (image[0], image[1])

    def _places(self, i: int, j: int, box: tuple[slice, slice]) -> tuple[slice, slice]:
        """Where kernel entry (i, j) of the outputs in a box reads the padded image."""
        first, second = (
            slice(
                part.start * stride + offset * dilation,
                max(part.stop - 1, part.start) * stride + offset * dilation + (part.stop > part.start),
                stride,
            )
            for part, stride, dilation, offset in zip(box, self.strides, self.dilations, (i, j), strict=True)
        )
        return first, second


LinearMap = Selection | Matrix | Convolution


def _support(maps: Float[np.ndarray, "batch channels height width"]) -> tuple[slice, slice]:
    """The smallest box of rows and columns outside which everything is 0 (NaN is not 0)."""
    is_used = (maps != 0.0).any(axis=(0, 1))
    found = []
    for axis in (1, 0):
        used = np.flatnonzero(is_used.any(axis=axis))
        found.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0))
    return found[0], found[1]
