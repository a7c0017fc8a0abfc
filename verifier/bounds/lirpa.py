"""auto-LiRPA as a second, independent bound engine behind the same interface: a cross-check, and selectable."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from verifier.bounds.crown import analyse_region
from verifier.bounds.lirpa_compat import installed_version, load
from verifier.bounds.lirpa_module import LirpaModule
from verifier.bounds.options import BoundMethod, BoundOptions
from verifier.bounds.results import PropertyBound, RegionBounds
from verifier.bounds.topk import safety_slack, subsets_of_forms
from verifier.canonical import CanonicalNetwork, Max
from verifier.certificate import TrustedClaim
from verifier.deadline import Deadline
from verifier.errors import InputError, SolverUnavailableError
from verifier.property import Property
from verifier.region import Box, frozen

_METHODS = {
    BoundMethod.INTERVAL: "IBP",
    BoundMethod.CROWN: "CROWN",
    BoundMethod.ALPHA_CROWN: "CROWN-Optimized",
}
# auto-LiRPA 0.3 bounds max pooling in float32 only; 2^-24 times some thousand terms of mixed sign stays well below this.
_FLOAT32_SLACK = 1e-5
# Patches are fast; on some small networks 0.3 only manages dense matrices, which on larger ones take minutes.
_MOST_UNITS_DENSE = 4096


class AutoLirpaEngine:
    """auto-LiRPA's bounds of the forms; no subset bounds, so a property with count > 1 rests on the count-th largest form.

    The region's bounds, which other engines may go on to use, are interval bounds of our own.

    Raises:
        SolverUnavailableError: auto-LiRPA is not installed or cannot be imported; or, from `bound`, it cannot bound this network.
    """

    def __init__(self, options: BoundOptions | None = None) -> None:
        self._options = options or BoundOptions(method=BoundMethod.CROWN)
        self._library = load()

    @property
    def name(self) -> str:
        """The library, its version and the method."""
        return f"auto-LiRPA {installed_version()} ({_METHODS[self._options.method]})"

    def analyse(self, canonical: CanonicalNetwork, box: Box, deadline: Deadline) -> RegionBounds:
        """Interval bounds, so that no CROWN of ours takes part in what this engine says."""
        return analyse_region(canonical, box, options=BoundOptions(method=BoundMethod.INTERVAL), deadline=deadline)

    def bound(self, region: RegionBounds, property: Property, deadline: Deadline) -> PropertyBound:
        """auto-LiRPA's upper bound of every form; the deadline is looked at before, not during, its work.

        Raises:
            InputError: The property reads another number of labels than the network has.
            SolverUnavailableError: auto-LiRPA cannot bound this network.
        """
        if property.labels != region.canonical.labels:
            raise InputError(f"property: reads {property.labels} labels, the network has {region.canonical.labels}")
        uppers = np.full(len(property.offsets), np.inf)
        if not deadline.has_expired:
            uppers = self.form_uppers(region, property)
        slack = safety_slack(region, property) * (_FLOAT32_SLACK / 1e-9 if _needs_float32(region.canonical) else 1.0)
        survivors, subsets, listed = subsets_of_forms(uppers, property, slack, self._options.subset_cap)
        return PropertyBound(
            upper=float(np.sort(uppers)[-property.count]),
            form_uppers=frozen(uppers),
            open_forms=survivors,
            open_subsets=subsets,
            subsets_listed=listed,
            is_robust=listed and not subsets,
            minimisers=frozen(0.5 * (region.lower + region.upper)[None]),
            engine=self.name,
            trusted=(TrustedClaim.AUTO_LIRPA, TrustedClaim.FLOAT64_ROUNDING),
        )

    def form_uppers(self, region: RegionBounds, property: Property) -> Float[np.ndarray, " forms"]:
        """auto-LiRPA's upper bound of every form.

        Raises:
            SolverUnavailableError: It cannot bound this network.
        """
        dtype = torch.float32 if _needs_float32(region.canonical) else torch.float64
        module = LirpaModule(region.canonical, dtype).eval()
        shape = (1, *module.input_shape)
        lower, upper = (torch.tensor(side, dtype=dtype).reshape(shape) for side in (region.lower, region.upper))
        forms = torch.tensor(property.coefficients, dtype=dtype).unsqueeze(0)
        found = self._first_success(region.canonical, module, lower, upper, forms)
        bounds = found.detach().double().numpy().ravel() + property.offsets
        # What is not finite says nothing, and must not pass for a bound.
        return np.where(np.isfinite(bounds), bounds, np.inf)

    def _first_success(
        self, canonical: CanonicalNetwork, module: LirpaModule, lower: Tensor, upper: Tensor, forms: Tensor
    ) -> Tensor:
        is_small = sum(node.size for node in canonical.nodes) <= _MOST_UNITS_DENSE
        failures: list[Exception] = []
        with warnings.catch_warnings(record=True), _default_dtype(forms.dtype):
            warnings.simplefilter("ignore")
            for mode in ("patches", "matrix") if is_small else ("patches",):
                try:
                    return self._upper(module, lower, upper, forms, mode)
                except Exception as error:  # it raises whatever its layers stumble over, bare assertions included
                    failures.append(error)
        raise SolverUnavailableError(
            f"engine auto-lirpa: version {installed_version()} cannot bound this network "
            f"({type(failures[-1]).__name__}: {failures[-1]}); use --engine bounds, auto or milp"
        ) from failures[-1]

    def _upper(self, module: LirpaModule, lower: Tensor, upper: Tensor, forms: Tensor, mode: str) -> Tensor:
        centre = 0.5 * (lower + upper)
        bounded = self._library.BoundedModule(module, centre, bound_opts={"conv_mode": mode}, device="cpu")
        if self._options.method is BoundMethod.ALPHA_CROWN:
            bounded.set_bound_opts(
                {
                    "optimize_bound_args": {
                        "iteration": self._options.iterations,
                        "lr_alpha": self._options.learning_rate,
                    }
                }
            )
        box = self._library.PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)
        image = self._library.BoundedTensor(centre, box)
        _, bounds = bounded.compute_bounds(
            x=(image,), C=forms, method=_METHODS[self._options.method], bound_lower=False, bound_upper=True
        )
        return bounds


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """auto-LiRPA makes identity matrices and slopes in torch's default dtype, whatever the network's is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _needs_float32(canonical: CanonicalNetwork) -> bool:
    return any(isinstance(node, Max) for node in canonical.nodes)
