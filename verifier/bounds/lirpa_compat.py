"""Lets auto-LiRPA 0.3, written for the torch of 2022, be imported next to today's torch and NumPy.

Each patch restores a name that the old release imports; none changes what the name means. Newer releases get no patch but the last.
"""

import importlib
import importlib.metadata
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from verifier.errors import SolverUnavailableError

_DISTRIBUTIONS = ("auto-LiRPA", "auto_LiRPA")


def installed_version() -> str | None:
    """The version of auto-LiRPA found, or None."""
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def load() -> Any:
    """The module `auto_LiRPA`, patched where it needs to be.

    Raises:
        SolverUnavailableError: It is not installed, or cannot be imported here.
    """
    version = installed_version()
    if version is None:
        raise SolverUnavailableError(
            "engine auto-lirpa: not installed; run pip install 'aureole[lirpa]' and then "
            "pip install --no-deps auto-LiRPA==0.3 (docs/auto-lirpa.md says why --no-deps)"
        )
    if "auto_LiRPA" in sys.modules:
        return sys.modules["auto_LiRPA"]
    # Recording, beside ignoring, because it turns all warnings back on while it is imported.
    with warnings.catch_warnings(record=True), _logging_untouched():
        warnings.simplefilter("ignore")
        if version.startswith("0.3"):
            _restore_old_names()
        try:
            module = importlib.import_module("auto_LiRPA")
        except (ImportError, AttributeError) as error:
            raise SolverUnavailableError(
                f"engine auto-lirpa: version {version} cannot be imported with torch {torch.__version__} ({error}); "
                "see docs/auto-lirpa.md for the versions that work"
            ) from error
        if version.startswith("0.3"):
            _accept_duplicates(module)
        _let_gradients_through_clamps()
    return module


@contextmanager
def _logging_untouched() -> Iterator[None]:
    """Takes back the root handler to stdout that auto-LiRPA installs, along with its process-wide warning filters, on import."""
    before = list(logging.getLogger().handlers)
    try:
        yield
    finally:
        for handler in set(logging.getLogger().handlers) - set(before):
            logging.getLogger().removeHandler(handler)


def _restore_old_names() -> None:
    if "numpy.lib.arraysetops" not in sys.modules:
        old_home: Any = types.ModuleType("numpy.lib.arraysetops")
        old_home.isin = np.isin
        sys.modules["numpy.lib.arraysetops"] = old_home
    helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
    if not hasattr(helper, "_set_opset_version"):
        state = _onnx_globals()

        def set_opset_version(version: int) -> None:
            state.export_onnx_opset_version = version

        helper._set_opset_version = set_opset_version
    node: Any = torch._C.Node
    if not hasattr(node, "__getitem__"):
        node.__getitem__ = lambda self, key: getattr(self, self.kindOf(key))(key)


def _onnx_globals() -> Any:
    for name in ("torch.onnx._internal.torchscript_exporter._globals", "torch.onnx._globals"):
        try:
            return importlib.import_module(name).GLOBALS
        except ImportError:
            continue
    raise SolverUnavailableError(
        f"engine auto-lirpa: torch {torch.__version__} has no ONNX globals where 0.3 needs them"
    )


def _accept_duplicates(module: Any) -> None:
    """Today's `torch.nn.Module` passes `remove_duplicate` to an overridden method that never heard of it."""
    original = module.BoundedModule._named_members

    def named_members(self: Any, get_members_fn: Any, prefix: str = "", recurse: bool = True, **_unused: Any) -> Any:
        return original(self, get_members_fn, prefix, recurse)

    module.BoundedModule._named_members = named_members


class _ClampThatPasses(torch.autograd.Function):
    """`torch.clamp` whose gradient is 1 at the bounds too, as it was before torch 2.14."""

    @staticmethod
    def forward(context: Any, values: Any, least: Any, most: Any) -> Any:
        clamped = torch.clamp(values, least, most)
        context.save_for_backward(clamped == values)
        return clamped

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        (is_inside,) = context.saved_tensors
        return gradients[0] * is_inside, None, None


def clamp_stops_gradients() -> bool:
    """Whether this torch's `clamp` has gradient 0 at its bounds, which silently stops alpha-CROWN at CROWN."""
    probe = torch.zeros(1, requires_grad=True)
    torch.clamp(probe, 0.0, 1.0).sum().backward()
    return probe.grad is not None and float(probe.grad) == 0.0


def _let_gradients_through_clamps() -> None:
    if not clamp_stops_gradients():
        return
    for name in ("activation", "relu"):
        try:
            operators: Any = importlib.import_module(f"auto_LiRPA.operators.{name}")
        except ImportError:
            continue
        operators.torch = _TorchWithClamp()


class _TorchWithClamp:
    """Stands for the name `torch` in one module: everything of torch, and a `clamp` that passes gradients at its bounds."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def clamp(values: Any, min: float | None = None, max: float | None = None) -> Any:
        """See `_ClampThatPasses`."""
        return _ClampThatPasses.apply(values, min, max)
