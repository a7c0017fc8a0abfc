"""Numbers of any precision for the checker: arrays in base 2^20 whose digits are whole float64 numbers, so that BLAS adds exactly.

A value is the sum of digits_i * 2^(20 i). Carried digits lie within +-2^19, so the sign of a number is that of its highest digit
that is not 0. Every operation here is exact; what is left out says so and bounds it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Array = Float[np.ndarray, "..."]
Digits = Mapping[int, Array]

BITS = 20
LARGEST = 2.0 ** (BITS - 1)
INFLATION = 1.0 + 2.0**-20
"""Covers the rounding of a short chain of sums and products of numbers >= 0."""
_EXACT = 2.0**52
_LOWEST = -8
_COLUMNS = 8192
_FARTHEST = 50


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """Arrays x with |x - value of the digits| <= error in every entry; the digits are carried.

    Attributes:
        digits: By place; one shape. At least one.
        error: Finite, >= 0.
    """

    digits: Digits
    error: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the arrays."""
        return next(iter(self.digits.values())).shape

    @property
    def magnitude(self) -> float:
        """No entry of x is larger in magnitude."""
        total = sum(float(np.abs(digit).max(initial=0.0)) * unit(place) for place, digit in self.digits.items())
        return (total + self.error) * INFLATION


def unit(place: int) -> float:
    """What a digit at this place counts; exact.

    Raises:
        OverflowError: The place is beyond +-50.
    """
    if abs(place) > _FARTHEST:
        raise OverflowError(f"digits: place {place} is out of reach of float64")
    return 2.0 ** (BITS * place)


def split(values: Array) -> dict[int, Array]:
    """The digits of numbers that are multiples of 2^-160, exactly: of every float32, and of float64 from 2^-108 on.

    Each step takes the nearest multiple of a unit away: what is left is smaller and a multiple of what the number was, so nothing
    rounds.

    Raises:
        OverflowError: A number is not finite, or no such multiple.
    """
    rest = np.array(values, dtype=np.float64)
    largest = float(np.abs(rest).max(initial=0.0))
    if not math.isfinite(largest):
        raise OverflowError("digits: got a number that is not finite")
    place = math.ceil((math.frexp(largest)[1] - BITS + 1) / BITS) if largest else 0
    digits = {place: np.asarray(np.rint(rest / unit(place)))}
    rest -= digits[place] * unit(place)
    while rest.any():
        if place <= _LOWEST:
            raise OverflowError("digits: got a number that is no multiple of 2^-160")
        place -= 1
        digits[place] = np.asarray(np.rint(rest / unit(place)))
        rest -= digits[place] * unit(place)
    return digits


def carried(digits: Digits) -> dict[int, Array]:
    """The same numbers with digits within +-2^19, from whole digits within +-2^52; places that hold only 0 are left out."""
    found = dict(digits)
    place = min(found)
    while place <= max(found):
        if place in found:
            carry = np.rint(found[place] / unit(1))
            if carry.any():
                found[place] = found[place] - carry * unit(1)
                found[place + 1] = found[place + 1] + carry if place + 1 in found else carry
        place += 1
    kept = {place: digit for place, digit in sorted(found.items()) if digit.any()}
    return kept or {0: found[max(found)]}


def truncated(digits: Digits, lowest: int) -> tuple[dict[int, Array], float]:
    """Carried digits from the place `lowest` on, and a bound of what is left out: at most 0.6 units of that place."""
    left_out = any(place < lowest for place in digits)
    kept = {place: digit for place, digit in digits.items() if place >= lowest}
    if not kept:
        kept = {lowest: np.zeros_like(next(iter(digits.values())))}
    return kept, 0.6 * unit(lowest) if left_out else 0.0


def added(first: Digits, second: Digits, sign: float = 1.0) -> dict[int, Array]:
    """The carried digits of first + sign * second, broadcast."""
    shape = np.broadcast_shapes(*(next(iter(part.values())).shape for part in (first, second)))
    total = {place: np.broadcast_to(digit, shape) for place, digit in first.items()}
    for place, digit in second.items():
        total[place] = total[place] + sign * digit if place in total else np.broadcast_to(sign * digit, shape)
    return carried(total)


def signs(digits: Digits) -> Int[np.ndarray, "..."]:
    """-1, 0 or 1 for each number, from carried digits: all lower places together count less than one unit of a place."""
    found = np.zeros(next(iter(digits.values())).shape, dtype=np.int8)
    for place in sorted(digits, reverse=True):
        found = np.where(found == 0, np.sign(digits[place]).astype(np.int8), found)
    return found


def products(parts: Iterable[tuple[int, Array]], weights: Digits) -> dict[int, Array]:
    """The carried digits of rows @ weights.T, from carried digits of the rows, (rows, n), and of the weights, (out, n).

    Each product of digits is at most 2^38; sums stay within 2^52, so float64 adds them exactly in any order.
    """
    total: dict[int, Array] = {}
    open_terms = 0
    for place, rows in parts:
        for start in range(0, rows.shape[1], _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            terms = rows[:, columns].shape[1]
            # One more unit of room than terms: what a carry leaves behind and brings counts far less.
            if (open_terms + terms + 1) * LARGEST**2 > _EXACT:
                total, open_terms = carried(total), 0
            for offset, weight in weights.items():
                product = rows[:, columns] @ weight[:, columns].T
                at = place + offset
                total[at] = total[at] + product if at in total else product
            open_terms += terms
    return carried(total)


def scaled(digits: Digits, factors: Digits) -> dict[int, Array]:
    """The carried digits of the entrywise product, broadcast, from carried digits; at most 2^13 places each."""
    total: dict[int, Array] = {}
    for place, digit in digits.items():
        for offset, factor in factors.items():
            product = digit * factor
            at = place + offset
            total[at] = total[at] + product if at in total else product
    return carried(total)


def whole(number: int, lowest: int) -> dict[int, Array]:
    """The digits of number * 2^(20 lowest)."""
    digits: dict[int, Array] = {}
    place, base = lowest, 1 << BITS
    while number or not digits:
        digit = number % base
        if digit > base // 2:
            digit -= base
        digits[place] = np.array(float(digit))
        number = (number - digit) // base
        place += 1
    return digits


def rounded(fixed: Fixed) -> tuple[Array, Array]:
    """Float64 bounds of the numbers: the digits' sum rounded once, then moved outward."""
    places = sorted(fixed.digits)
    columns = [np.ravel(fixed.digits[place]) * unit(place) for place in places]
    middle = np.array([math.fsum(terms) for terms in zip(*columns, strict=True)]).reshape(fixed.shape)
    lower = np.nextafter(np.nextafter(middle, -np.inf) - fixed.error, -np.inf)
    upper = np.nextafter(np.nextafter(middle, np.inf) + fixed.error, np.inf)
    return lower, upper
