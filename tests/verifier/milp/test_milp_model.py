import numpy as np
import pytest
from scipy import sparse

from verifier.errors import InputError
from verifier.milp.model import MilpModel


def model(**changes):
    parts = {
        "rows": sparse.csr_array(np.array([[1.0, 2.0]])),
        "row_lower": np.array([-np.inf]),
        "row_upper": np.array([3.0]),
        "column_lower": np.zeros(2),
        "column_upper": np.ones(2),
        "is_integer": np.array([True, False]),
        "objective": np.ones(2),
        "offset": 0.0,
        "column_names": ("a", "b"),
        "row_names": ("r",),
    }
    return MilpModel(**(parts | changes))


def test_a_model_copies_its_arrays_and_freezes_them():
    upper = np.ones(2)
    made = model(column_upper=upper)
    upper[0] = 7.0
    assert made.column_upper[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        made.column_upper[0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        made.rows.data[0] = 2.0


def test_a_model_counts_its_binaries():
    assert model().binaries == 1
    assert model().size == "2 variables, 1 binaries, 1 rows"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column_upper": np.array([1.0, np.inf])}, "boxed"),
        ({"column_upper": np.array([1.0, -1e-14])}, "lower <= upper"),
        ({"row_upper": np.array([np.nan])}, "lower <= upper"),
        ({"objective": np.array([np.nan, 0.0])}, "NaN"),
        ({"row_names": ()}, "row arrays"),
    ],
)
def test_a_model_that_solvers_would_read_differently_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        model(**changes)
