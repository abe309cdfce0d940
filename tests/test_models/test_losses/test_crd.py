import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from mmdiffkd.models.losses import CRDLoss, crd
from mmdiffkd.models.losses.crd import contrast_loss

LABELS = torch.tensor([2, 0, 1, 2, 2, 0, 3, 1, 2, 0, 0, 3])


def build(**arguments) -> CRDLoss:
    torch.manual_seed(0)
    defaults = {'neg_num': 5, 'dim_out': 4}
    loss = CRDLoss(6, 3, **{**defaults, **arguments})
    loss.allocate(len(LABELS), LABELS)
    return loss


def batch(*rows: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor(rows)
    return {
        'preds_S': torch.randn(len(rows), 6, generator=generator),
        'preds_T': torch.randn(len(rows), 3, generator=generator),
        'gt_labels': LABELS[rows],
        'sample_idx': rows,
        'draws': torch.randint(2**62, (len(rows), 5), generator=generator),
    }


def test_contrast_loss_is_noise_contrastive_estimation():
    scores = torch.rand(3, 6, dtype=torch.float64) + 0.1
    noise = 5 / 40
    real = scores / (scores + noise)
    expected = -real[:, 0].log().sum() - (1 - real[:, 1:]).log().sum()
    torch.testing.assert_close(contrast_loss(scores, 40, eps=0), expected / 3)


def test_loss_against_its_definition():
    loss = build(temperature=0.3, loss_weight=2.0)
    given = batch(4, 0, 7)
    banks = {s: loss.get_buffer(f'{s}_bank') for s in ('student', 'teacher')}
    banks = {side: bank.clone() for side, bank in banks.items()}
    found = loss(**given)

    negatives = loss.negatives(given['gt_labels'], given['draws'])
    rows = torch.cat([given['sample_idx'][:, None], negatives], 1)
    expected = 0
    for layer, vectors, other in (
        (loss.student_embedding, given['preds_S'], 'teacher'),
        (loss.teacher_embedding, given['preds_T'], 'student'),
    ):
        embedded = F.normalize(layer(vectors), dim=1)
        dots = torch.einsum('bd,bkd->bk', embedded, banks[other][rows])
        scores = (dots / 0.3).exp()
        scores = scores / (scores.mean() * 12)
        expected = expected + contrast_loss(scores, 12)
    torch.testing.assert_close(found, 2 * expected)


@pytest.mark.parametrize('label', range(4))
def test_negatives_are_all_of_other_classes_evenly(label):
    loss = build()
    others = (label != LABELS).nonzero().flatten()
    # Each remainder as often as the others.
    draws = torch.arange(3 * len(others)) + 2**40 * len(others)
    found = loss.negatives(torch.tensor([label]), draws[None])[0]
    assert torch.equal(found.sort().values, others.repeat_interleave(3))


def test_negatives_are_never_of_the_samples_class():
    loss = build(neg_num=2000)
    preds = torch.zeros(12, 6), torch.zeros(12, 3)
    draws = loss.draw(*preds, torch.Generator().manual_seed(0))['draws']
    found = LABELS[loss.negatives(LABELS, draws)]
    assert found.shape == (12, 2000)
    assert not (found == LABELS[:, None]).any()
    # 2000 draws of at least 7 others: evenly, up to chance.
    counts = torch.stack([row.bincount(minlength=4) for row in found])
    sizes = LABELS.bincount()
    for row, label in zip(counts, LABELS):
        expected = 2000 * sizes / (12 - sizes[label])
        expected[label] = 0
        assert (row - expected).abs().max() < 150


def test_draws_come_from_the_generator():
    loss = build()
    preds = torch.zeros(2, 6), torch.zeros(2, 3)
    state = torch.get_rng_state()
    first, second = (
        loss.draw(*preds, torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first['draws'], second['draws'])
    assert torch.equal(torch.get_rng_state(), state)
    given = batch(1, 2)
    del given['draws']
    assert loss(**given).isfinite()


def test_rows_of_the_banks_follow_their_samples():
    loss = build(momentum=0.75)
    given = batch(4, 0, 7)
    before = loss.teacher_bank.clone()
    loss(**given)
    new = F.normalize(loss.teacher_embedding(given['preds_T']), dim=1)
    rows = given['sample_idx']
    expected = F.normalize(0.75 * before[rows] + 0.25 * new, dim=1)
    torch.testing.assert_close(loss.teacher_bank[rows], expected.detach())
    torch.testing.assert_close(
        loss.student_bank[rows].norm(dim=1), torch.ones(3)
    )
    others = torch.ones(12, dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(loss.teacher_bank[others], before[others])


def test_the_first_batch_fixes_the_normalizers():
    loss = build()
    assert torch.equal(loss.normalizers, torch.zeros(2))
    loss(**batch(4, 0, 7))
    first = loss.normalizers.clone()
    assert (first > 0).all()
    loss(**batch(1, 2, 3, seed=1))
    assert torch.equal(loss.normalizers, first)


def test_nothing_is_remembered_in_eval_mode():
    loss = build().eval()
    before = copy.deepcopy(loss.state_dict())
    loss(**batch(4, 0, 7))
    torch.testing.assert_close(dict(loss.state_dict()), dict(before))


def test_what_is_trained():
    loss = build()
    given = batch(4, 0, 7)
    given['preds_S'].requires_grad_()
    loss(**given).backward()
    assert {name for name, _ in loss.named_parameters()} == {
        'student_embedding.weight',
        'student_embedding.bias',
        'teacher_embedding.weight',
        'teacher_embedding.bias',
    }
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())
    assert given['preds_S'].grad.abs().sum() > 0


def test_gradient_is_that_of_the_banks_before_the_update():
    updated, kept = build(), build()
    kept.eval()
    gradients = []
    for loss in (updated, kept):
        given = batch(4, 0, 7)
        given['preds_S'].requires_grad_()
        loss(**given).backward()
        gradients.append(given['preds_S'].grad)
    torch.testing.assert_close(*gradients)


def test_banks_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    first, second, other = (build(seed=seed) for seed in (0, 0, 1))
    torch.manual_seed(0)
    assert torch.equal(first.student_bank, second.student_bank)
    assert not torch.equal(first.student_bank, other.student_bank)
    assert not torch.equal(first.student_bank, first.teacher_bank)
    torch.set_rng_state(state)
    first.allocate(12, LABELS)
    assert torch.equal(torch.get_rng_state(), state)
    bound = (3 / 4) ** 0.5
    assert 0.8 * bound < first.student_bank.abs().max() <= bound


def test_state_is_saved():
    loss, resumed = build(), build(seed=1)
    loss(**batch(4, 0, 7))
    resumed.load_state_dict(loss.state_dict())
    following = batch(3, 5, seed=2)
    assert torch.equal(loss(**following), resumed(**following))
    assert torch.equal(loss.teacher_bank, resumed.teacher_bank)


def test_z_of_a_large_data_set_in_half_precision():
    loss = CRDLoss(6, 3, neg_num=5, dim_out=4)
    loss.allocate(100_000, torch.arange(100_000) % 4)
    loss.half()
    given = batch(4, 0, 7)
    for _ in range(2):
        assert loss(**given).isfinite()
    # More than half precision has.
    assert loss.normalizers.dtype == torch.float32
    assert (loss.normalizers > 65504).all()


def test_z_is_not_known_after_the_meta_device():
    loss = CRDLoss(6, 3, neg_num=5, dim_out=4).to('meta')
    assert loss.normalizers.is_meta
    assert not loss.to_empty(device='cpu').normalizers.any()


@pytest.mark.parametrize('value', [torch.inf, torch.nan])
def test_an_overflow_spoils_its_own_step_alone(value):
    loss = build()
    given = batch(4, 0, 7)
    before = loss.student_bank.clone()
    given['preds_S'][1] = value
    assert not loss(**given).isfinite()
    rows = loss.student_bank[[4, 0, 7]]
    assert torch.equal(rows[1], before[0])
    assert not torch.equal(rows[0], before[4])
    # Z of this step is not kept either.
    known = loss.normalizers.clone()
    assert known[0] == 0 and known[1] > 0
    assert loss(**batch(4, 0, 7)).isfinite()
    assert loss.normalizers[0] > 0 and loss.normalizers[1] == known[1]


def test_banks_need_not_be_saved():
    state = build(save_bank=False).state_dict()
    assert 'normalizers' in state
    assert not any('bank' in key for key in state)
    build(save_bank=False, seed=1).load_state_dict(state)


def test_learns_to_recognise():
    loss = build(neg_num=64)
    given = batch(*range(12))
    del given['draws']
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(**given)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('scale', [0.0, 1.0, 1e4])
@pytest.mark.parametrize('rows', [(4,), (4, 0, 7)])
def test_two_steps_under_autocast(dtype, scale, rows):
    loss = build()
    for seed in (0, 1):
        given = batch(*rows, seed=seed)
        student = (scale * given['preds_S']).to(dtype).requires_grad_()
        given['preds_S'] = student
        given['preds_T'] = (scale * given['preds_T']).to(dtype)
        with torch.autocast('cpu', dtype):
            value = loss(**given)
        assert value.dtype == torch.float32
        assert value.isfinite()
        value.backward()
        assert student.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in loss.parameters())
        assert loss.student_bank.isfinite().all()


@pytest.mark.exact
def test_training_step_compiles_into_one_graph():
    loss = build()
    plain = copy.deepcopy(loss)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend='eager', fullgraph=True)
    for given in (batch(4, 0, 7), batch(1, 2, 3, seed=1)):
        torch.testing.assert_close(compiled(**given), plain(**given))
    torch.testing.assert_close(loss.student_bank, plain.student_bank)


def test_all_processes_remember_all_rows(monkeypatch):
    here, there = batch(4, 0), batch(7, 3, seed=1)
    # What the other process would send of its part of the batch.
    other = build()
    rows = [
        F.normalize(layer(there[key]), dim=1)
        for layer, key in (
            (other.student_embedding, 'preds_S'),
            (other.teacher_embedding, 'preds_T'),
        )
    ]
    sent = [torch.stack(rows, 1).detach(), there['sample_idx']]
    monkeypatch.setattr(crd, 'all_gather', lambda own: [own, sent.pop(0)])
    loss = build()
    loss(**here)
    monkeypatch.undo()
    alone = build()
    alone(**{key: torch.cat([here[key], there[key]]) for key in here})
    torch.testing.assert_close(loss.student_bank, alone.student_bank)
    torch.testing.assert_close(loss.teacher_bank, alone.teacher_bank)


PROCESS = """
import sys
import torch
import torch.distributed as dist
from mmdiffkd.models.losses import CRDLoss

path, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group(
    'gloo', init_method=f'file://{path}/store', rank=rank, world_size=2
)
torch.manual_seed(0)
loss = CRDLoss(6, 3, neg_num=5, dim_out=4)
loss.allocate(12, torch.arange(12) % 3)
torch.manual_seed(rank)
for step in range(2):
    rows = torch.tensor([2 * step + rank, 6 + rank])
    loss(torch.randn(2, 6), torch.randn(2, 3), rows % 3, rows).backward()
torch.save(loss.state_dict(), f'{path}/{rank}.pth')
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_have_one_bank(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, '-c', PROCESS, tmp_path, str(rank)])
        for rank in range(2)
    ]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    states = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    for key in ('student_bank', 'teacher_bank', 'normalizers'):
        assert torch.equal(states[0][key], states[1][key])
    lengths = states[0]['student_bank'].norm(dim=1)
    touched = [0, 1, 2, 3, 6, 7]
    torch.testing.assert_close(lengths[touched], torch.ones(6))


def test_without_banks():
    loss = CRDLoss(6, 3)
    with pytest.raises(RuntimeError, match='allocate.*DistillHook'):
        loss(**batch(4))


@pytest.mark.parametrize(
    'length, labels, named',
    [
        (12, None, 'get_gt_labels'),
        (11, LABELS, r'11 samples.*\(12,\)'),
        (12, LABELS.float(), 'float32'),
        (12, torch.full((12,), 3), 'all 12 samples are of class 3'),
    ],
)
def test_labels_that_tell_no_other_classes(length, labels, named):
    with pytest.raises(ValueError, match=named):
        CRDLoss(6, 3).allocate(length, labels)


def test_length_that_is_given_is_checked():
    assert build(sample_n=12).sample_n == 12
    with pytest.raises(ValueError, match='sample_n=50000.*12 samples'):
        build(sample_n=50000)


def test_takes_vectors_of_its_channels():
    loss = build()
    given = batch(4, 0)
    with pytest.raises(ValueError, match=r"student's.*\(2, 6, 1, 1\).*pooled"):
        loss(**{**given, 'preds_S': torch.ones(2, 6, 1, 1)})
    with pytest.raises(ValueError, match='teacher_channels=3.*has 6'):
        loss(**{**given, 'preds_T': torch.ones(2, 6)})


@pytest.mark.parametrize(
    'arguments, named',
    [
        ({'temperature': 0}, 'temperature=0'),
        ({'neg_num': 0}, 'neg_num=0'),
        ({'momentum': 1.0}, 'momentum=1.0'),
    ],
)
def test_arguments_out_of_range(arguments, named):
    with pytest.raises(ValueError, match=named):
        build(**arguments)
