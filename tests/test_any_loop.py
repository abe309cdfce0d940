"""The page docs/any_loop.md does what it says, with networks of its own."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'any_loop.md'
TITLES = re.split(r'^## (.+)\n', PAGE.read_text(), flags=re.M)[1:]
BLOCKS = {
    title: '\n'.join(re.findall(r'^```python\n(.*?)^```', text, re.M | re.S))
    for title, text in zip(TITLES[::2], TITLES[1::2])
}


def run(*titles: str, **values) -> dict:
    """Run the code below some headings, two batches of two images each."""
    images = torch.randn(2, 2, 3, 64, 64)
    values = {
        '__name__': 'documented',
        'loader': [*images],
        'labelled': [(batch, torch.tensor([3, 7])) for batch in images],
        **values,
    }
    for title in titles:
        exec(BLOCKS[title], values)
    return values


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The page saves files."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ten_lines():
    code = BLOCKS['Ten lines'].split('\n\n')[-1]
    assert len(code.strip().splitlines()) == 10
    found = run('Ten lines')
    student, distiller = found['student'], found['distiller']
    assert {*found['losses']} == {
        'distill.feature.loss_kd',
        'distill.feature.loss_diffusion',
        'distill.feature.loss_autoencoder',
    }
    images = found['loader'][0]
    assert distiller(images).shape == (2, 10)
    assert student.layer4[0].conv1.weight.grad.any()
    # Behind the tap nothing is trained without labels.
    assert student.fc.weight.grad is None
    plain = {
        name: value
        for name, value in distiller.state_dict().items()
        if not name.startswith('distill.')
    }
    assert list(plain) == list(student.state_dict())
    teacher = found['teacher']
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not {*map(id, teacher.parameters())} & {
        *map(id, distiller.parameters())
    }


def test_labels_add_the_students_own_loss():
    found = run('Ten lines')
    del found['distiller'], found['optimizer'], found['losses']
    exec(BLOCKS['With labels'], found)
    distiller = found['distiller']
    calls = []
    distiller.student.register_forward_hook(lambda *args: calls.append(args))
    images, labels = found['labelled'][0]
    losses = distiller(images, labels, mode='loss')
    assert len(calls) == 1
    assert {'loss_task', 'distill.logits.loss_kd'} <= {*losses}
    distiller.eval()
    logits = distiller(images)
    expected = nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(
        distiller(images, labels, mode='loss')['loss_task'], expected
    )
    assert distiller.student.network.fc.weight.grad.any()


def test_the_teachers_images_are_converted():
    found = run('Ten lines', 'Images')
    seen = []
    found['teacher'].register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    raw = torch.tensor([0.0, 127.5, 255.0]).reshape(1, 3, 1, 1)
    raw = raw.expand(2, 3, 64, 64)
    mean = torch.tensor([123.675, 116.28, 103.53]).reshape(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).reshape(3, 1, 1)
    found['distiller']((raw - mean) / std, mode='loss')
    expected = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(
        seen[0], expected.expand(2, 3, 64, 64), rtol=0, atol=1e-5
    )


def test_what_the_runner_does(folder):
    found = run('Ten lines')
    block = BLOCKS['What the runner does']
    # Look at the necks when the second epoch begins.
    line = '        losses = distiller(images'
    assert line in block
    found['off'] = []
    block = block.replace(
        line,
        '        necks = distiller.distill.pooled.necks\n'
        '        off.append((epoch, weights(necks)))\n' + line,
    )
    exec(block, found | {'weights': weights})
    off = found['off']
    assert [epoch for epoch, _ in off] == [0, 0, 1, 1]
    assert not torch.equal(off[0][1], off[1][1])
    state = torch.load(folder / 'last.pth')
    assert state['distill.step'] == 4
    # In spite of momentum.
    assert torch.equal(off[2][1], off[3][1])
    name = 'distill.pooled.necks.0.student_projection.weight'
    assert torch.equal(off[2][1][: state[name].numel()], state[name].flatten())


def test_lightning():
    pytest.importorskip('lightning')
    found = run('Ten lines', loader=[])
    student, teacher = found['student'], found['teacher']
    before = weights(student.layer4), weights(teacher)
    found['loader'] = torch.utils.data.DataLoader(
        torch.randn(4, 3, 64, 64), batch_size=2
    )
    exec(BLOCKS['Lightning'], found)
    assert found['trainer'].global_step == 2
    assert not torch.equal(weights(student.layer4).cpu(), before[0])
    assert torch.equal(weights(teacher).cpu(), before[1])
    assert not teacher.training


def test_accelerate(monkeypatch):
    pytest.importorskip('accelerate')
    # MMEngine's launchers set it, and Accelerate would look for a group.
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    found = run('Ten lines', loader=[])
    student, teacher = found['student'], found['teacher']
    before = weights(student.layer4), weights(teacher)
    found['loader'] = torch.utils.data.DataLoader(
        torch.randn(4, 3, 64, 64), batch_size=2
    )
    exec(BLOCKS['Accelerate'], found)
    assert found['distiller'].distill.step == 2
    assert not torch.equal(weights(student.layer4).cpu(), before[0])
    assert torch.equal(weights(teacher).cpu(), before[1])
    assert list(found['weights']) == list(student.state_dict())
