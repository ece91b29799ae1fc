import threading

import pytest
import torch

from pulse_exp.generators.pipelined import Need, Pipeline, Progress


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    """PyTorch's number of threads, and the former one again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def copy_rows(source, written, target, done):
    """Adds 1 to a row at a time, each when it is written."""
    for row in range(len(source)):
        yield Need(written, row + 1)
        target[row] = source[row] + 1
        done.rows = row + 1


def test_every_stage_sees_the_rows_it_waited_for(threads):
    arrays = [[0] * 20 for _ in range(6)]
    progress = [Progress(20), *(Progress() for _ in range(5))]
    stages = [copy_rows(arrays[i], progress[i], arrays[i + 1], progress[i + 1]) for i in range(5)]
    Pipeline(stages).run()
    assert arrays == [[i] * 20 for i in range(6)]
    assert torch.get_num_threads() == threads


def test_workers_share_the_threads_and_record_no_graph(threads):
    seen = []

    def look():
        yield Need(Progress(), 0)
        x = torch.ones(2, requires_grad=True) * 2
        seen.append((torch.get_num_threads(), x.requires_grad, x.is_inference()))

    Pipeline([look()]).run()
    with torch.inference_mode():
        Pipeline([look()]).run()
    share = max(1, threads // 2)
    assert seen == [(share, False, False), (share, False, True)]


def test_a_failure_stops_all_and_is_raised(threads):
    def fail():
        yield Need(Progress(), 0)
        raise ValueError("broken")

    def wait_for_ever():
        yield Need(Progress(), 1)

    with pytest.raises(ValueError, match="broken"):
        Pipeline([wait_for_ever(), fail()]).run()
    assert threading.active_count() < 20
