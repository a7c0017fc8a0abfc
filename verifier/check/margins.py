"""Rigorous bounds of a property's margin."""

import numpy as np
from jaxtyping import Float

from verifier.check.enclosure import evaluate_enclosure
from verifier.check.interval import Interval, without_nan
from verifier.network import Network
from verifier.property import Property
from verifier.rounding import down, inner_product_error, up


def margin_lower_bound(network: Network, property: Property, image: Float[np.ndarray, "..."]) -> float:
    """A number that the exact margin at the image is never below; -inf if overflow leaves nothing to say.

    Soundness: the scores are enclosed rigorously, so are the forms, and the count-th largest is increasing in every form.

    Raises:
        InputError: The image has another shape or type, or is not finite.
    """
    lower, upper = evaluate_enclosure(network, image)
    return margin_ends(property, Interval(lower, upper))[0]


def margin_upper_bound(network: Network, property: Property, image: Float[np.ndarray, "..."]) -> float:
    """A number that the exact margin at the image is never above; inf if overflow leaves nothing to say.

    Raises:
        InputError: The image has another shape or type, or is not finite.
    """
    lower, upper = evaluate_enclosure(network, image)
    return margin_ends(property, Interval(lower, upper))[1]


def margin_ends(property: Property, scores: Interval) -> tuple[float, float]:
    """Rigorous bounds of the margin for all scores in an interval, whose ends may be infinite."""
    forms = enclose_forms(property, scores)
    return float(np.sort(forms.lower)[-property.count]), float(np.sort(forms.upper)[-property.count])


def enclose_forms(property: Property, scores: Interval) -> Interval:
    """Contains every form for all scores in an interval; coefficients and offsets are taken as exact."""
    with np.errstate(all="ignore"):
        low = _least_values(property, scores.lower, scores.upper)
        high = _least_values(property, scores.upper, scores.lower)
        terms = property.labels + 1
        low_error = inner_product_error(np.abs(low).sum(axis=1) + np.abs(property.offsets), terms)
        high_error = inner_product_error(np.abs(high).sum(axis=1) + np.abs(property.offsets), terms)
        forms = Interval(
            down(low.sum(axis=1) + property.offsets - low_error),
            up(high.sum(axis=1) + property.offsets + high_error),
        )
        return without_nan(forms)


def _least_values(
    property: Property, where_positive: Float[np.ndarray, " labels"], where_negative: Float[np.ndarray, " labels"]
) -> Float[np.ndarray, "forms labels"]:
    """Each coefficient times one end of its score, chosen by the coefficient's sign; labels that a form skips give 0."""
    coefficients = property.coefficients
    products = np.where(coefficients > 0.0, coefficients * where_positive, coefficients * where_negative)
    return np.where(coefficients == 0.0, 0.0, products)
