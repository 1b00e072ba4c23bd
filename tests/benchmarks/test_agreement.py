import pytest
import torch

from benchmarks.agreement import check, errors_of, relative_error
from bsmamba2.errors import InputError


@pytest.mark.parametrize("error", [2e-5, float("nan")])
def test_scans_that_disagree_are_an_error(error: float) -> None:
    row = {"length": 17, "scan": "chunked", "y": 1e-7, "dt": error}
    with pytest.raises(InputError, match="chunked scan disagrees with the recurrence at length 17: dt"):
        check([row])


def test_a_row_holds_the_errors_of_y_and_of_every_gradient() -> None:
    # A sequence of one step has no decay, so the gradient of A is 0 on both sides.
    row = errors_of("chunked", 1, True, torch.device("cpu"))
    assert list(row) == ["length", "direction", "scan", "y", "x", "dt", "A", "B", "C"]
    assert (row["direction"], row["A"]) == ("backward", 0.0)
    check([row])


def test_relative_error_is_that_of_the_root_mean_square() -> None:
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
