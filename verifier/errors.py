"""The error hierarchy. Every message says what, where, got, wanted and what to do next."""

from collections.abc import Mapping


class AureoleError(Exception):
    """Base of every error this project raises on purpose."""


class InputError(AureoleError):
    """Something the caller handed over cannot be used: a file, an image, a label, an option."""


class ImportedNetworkError(InputError):
    """An ONNX file is missing, corrupt, or does not describe one network with one image and one score row."""


class UnsupportedOpError(ImportedNetworkError):
    """An ONNX node has no exact counterpart here; the message names the node."""


class NetworkTooLargeError(InputError):
    """A network's linear maps as sparse matrices, which bounds and solvers work on, would not fit in memory."""


class ReplayMismatchError(AureoleError):
    """Our evaluation of a network and ONNX Runtime's disagree beyond float32 rounding."""


class SolverUnavailableError(InputError):
    """A requested solver or engine is not installed, or its licence does not cover the model."""


class ContradictionError(AureoleError):
    """Two engines answered one query differently. Never swallowed: one of them is wrong.

    Attributes:
        query: The query at issue, for a bug report; it can be pickled.
        details: What each side claimed: images, bounds and engines by name.
    """

    def __init__(self, message: str, *, query: object = None, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.query = query
        self.details = dict(details or {})
