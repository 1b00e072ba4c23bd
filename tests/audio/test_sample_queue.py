import torch
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.audio.sample_queue import SampleQueue


@given(blocks=st.lists(st.integers(0, 9), min_size=1, max_size=8), pieces=st.lists(st.integers(0, 12), max_size=12))
def test_samples_keep_their_order_however_they_are_cut(blocks: list[int], pieces: list[int]) -> None:
    """Blocks and pieces alternate; each piece is seen before it is taken, and nothing is lost."""
    samples = torch.arange(2.0 * sum(blocks)).reshape(2, -1)
    queue, given_back, appended = SampleQueue(), [], 0
    cut = list(samples.split(blocks, dim=-1))
    while cut or pieces:
        if cut:
            queue.append(cut.pop(0))
            appended = queue.appended
        if pieces:
            count = pieces.pop(0)
            seen, before = queue.first(count), len(queue)
            piece = queue.take(count)
            assert torch.equal(piece, seen)
            assert piece.shape == (2, min(count, before))
            assert len(queue) == before - piece.shape[-1]
            given_back.append(piece)
    given_back.append(queue.take(len(queue)))
    assert appended == samples.shape[-1]
    assert len(queue) == 0
    assert torch.equal(torch.cat(given_back, dim=-1), samples)


def test_blocks_are_not_changed() -> None:
    block = torch.arange(6.0).reshape(2, 3)
    queue = SampleQueue()
    queue.append(block)
    queue.take(2)
    queue.append(block)
    assert queue.first(9).tolist() == [[2, 0, 1, 2], [5, 3, 4, 5]]
    assert block.tolist() == [[0, 1, 2], [3, 4, 5]]
