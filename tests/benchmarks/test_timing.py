import torch

from benchmarks.timing import Timing, interleaved, median_seconds


def test_runs_take_turns_with_the_rate_measured_around_each() -> None:
    done: list[str] = []

    def rate() -> float:
        done.append("rate")
        return float(len(done))

    runs = {name: lambda name=name: done.append(name) for name in ("a", "b")}
    timings = interleaved(runs, rate, 2, torch.device("cpu"))
    assert done == ["rate", "a", "rate", "b", "rate", "a", "rate", "b", "rate"]
    # Around the runs of a the rates are 1, 3, 5, 7, around those of b 3, 5, 7, 9.
    assert [(timing.rate, timing.runs) for timing in timings.values()] == [(4.0, 2), (6.0, 2)]
    assert all(isinstance(timing, Timing) and timing.seconds >= 0 for timing in timings.values())


def test_a_run_is_warmed_up_before_it_is_timed() -> None:
    done: list[int] = []
    assert median_seconds(lambda: done.append(1), repeats=4, warm_up=2) >= 0
    assert len(done) == 6
