"""Windows that slide over two spatial axes: pads resolved from `pads`, `auto_pad` and `ceil_mode`."""

from dataclasses import dataclass

from verifier.onnx_import.call import Call


@dataclass(frozen=True, slots=True)
class ResolvedWindow:
    """A window's placement with every default and automatic choice spelled out.

    Attributes:
        strides, dilations: (vertical, horizontal).
        stated_pads: (top, left, bottom, right) as stated or as auto_pad chooses them.
        pads: The same, enlarged at the end where ceil_mode asks for another window, or cut where no window reaches.
        output: (height, width) of what the windows produce.
    """

    strides: tuple[int, int]
    dilations: tuple[int, int]
    stated_pads: tuple[int, int, int, int]
    pads: tuple[int, int, int, int]
    output: tuple[int, int]


def resolve_window(call: Call, sizes: tuple[int, ...], kernel: tuple[int, int]) -> ResolvedWindow:
    """Where this node's windows lie over a plane of (height, width) `sizes`.

    Raises:
        UnsupportedOpError: An attribute has the wrong length, is out of range, contradicts another, or no window fits.
    """
    strides, dilations = _pair(call, "strides"), _pair(call, "dilations")
    pads = call.integers("pads", (0, 0, 0, 0))
    mode = call.text("auto_pad", "NOTSET")
    if len(pads) != 4 or min(pads) < 0 or len(kernel) != 2 or min(kernel) < 1:
        raise call.unsupported(f"kernel {kernel} with pads {pads}; wanted two positive sizes and four pads >= 0")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER") or (mode != "NOTSET" and any(pads)):
        raise call.unsupported(f"auto_pad {mode} with pads {pads}; use one or the other")
    spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    begins, ends, tails, output = [], [], [], []
    for axis in (0, 1):
        size, span, stride = sizes[axis], spans[axis], strides[axis]
        begin, end = pads[axis], pads[axis + 2]
        is_ceil = bool(call.integer("ceil_mode", 0))
        if mode.startswith("SAME"):
            begin, end = _same_pads(size, span, stride, is_upper=mode == "SAME_UPPER")
            is_ceil = False
        count = _window_count(size, span, stride, begin, end, is_ceil=is_ceil)
        if count < 1:
            raise call.unsupported(f"kernel {kernel} with dilations {dilations} does not fit a plane of {sizes}")
        reached = max(0, (count - 1) * stride + span - size - begin)
        begins.append(begin)
        ends.append(end)
        tails.append(reached if is_ceil else end)
        output.append(count)
    return ResolvedWindow(
        strides,
        dilations,
        (begins[0], begins[1], ends[0], ends[1]),
        (begins[0], begins[1], tails[0], tails[1]),
        (output[0], output[1]),
    )


def _pair(call: Call, name: str) -> tuple[int, int]:
    values = call.integers(name, (1, 1))
    if len(values) != 2 or min(values) < 1:
        raise call.unsupported(f"{name} {values}, wanted two numbers >= 1")
    return values[0], values[1]


def _same_pads(size: int, span: int, stride: int, *, is_upper: bool) -> tuple[int, int]:
    """Pads that make ceil(size / stride) windows; the odd one goes to the end for SAME_UPPER."""
    total = max((-(-size // stride) - 1) * stride + span - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if is_upper else (large, small)


def _window_count(size: int, span: int, stride: int, begin: int, end: int, *, is_ceil: bool) -> int:
    """How many windows; with ceil_mode the last may hang over, but starts inside the image or the padding before it."""
    room = size + begin + end - span
    if not is_ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + begin else count
