import multiprocessing
from types import SimpleNamespace

import pytest
import torch

from mmdiffkd.safety import NonFiniteHook, NonFiniteLoss

NAN, INF = float('nan'), float('inf')


def test_a_wrapper_that_steps_by_itself_is_seen_after_the_step():
    hook = NonFiniteHook()
    runner = SimpleNamespace(optim_wrapper=object())
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    fine = {'loss': torch.tensor(1.0), 'accuracy': torch.tensor(NAN)}
    hook.after_train_iter(runner, 0, None, fine)
    assert not hook._failed
    runner.model, runner.iter = torch.nn.ReLU(), 0
    with pytest.raises(NonFiniteLoss, match='the weights are spoilt'):
        hook.after_train_iter(runner, 0, None, {'loss': torch.tensor(INF)})
    with pytest.raises(ValueError, match="'skip', but a object steps"):
        NonFiniteHook('skip').before_train(runner)


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        (dict(on_nonfinite='ignore'), "on_nonfinite.*'ignore'"),
        (dict(max_skipped=0), 'max_skipped.*0'),
    ],
)
def test_wrong_settings_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        NonFiniteHook(**settings)


def judge(rank, meeting, results):
    torch.distributed.init_process_group(
        'gloo', f'file://{meeting}', rank=rank, world_size=2
    )
    hook = NonFiniteHook()
    for value in (1.0, NAN if rank == 1 else 1.0):
        hook._judge(torch.tensor(value))
        results.put((rank, hook._failed, hook._failed_here))
    torch.distributed.destroy_process_group()


def test_processes_stop_together(tmp_path):
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [
        context.Process(target=judge, args=(rank, tmp_path / 'meet', results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=60) for _ in range(4))
    assert found == [
        (0, False, False),
        (0, True, False),
        (1, False, False),
        (1, True, True),
    ]
    for process in processes:
        process.join()
