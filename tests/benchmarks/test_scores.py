import pytest

from bsmamba2.errors import InputError


def test_the_scores_equal_those_of_museval() -> None:
    pytest.importorskip("museval")
    from benchmarks import scores

    row = next(scores.rows_of(scores.Options(seconds=1.0, repeats=1)))
    assert (row["sources"], row["target"]) == (1, 40)
    assert row["difference_db"] < 1e-9
    assert row["ratio"] == row["museval_seconds"] / row["ours_seconds"]
    with pytest.raises(InputError, match="museval_repeats=0 is not allowed"):
        scores.Options(museval_repeats=0)
