import copy

import pytest
import tiny_recipes
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel

from mmdiffkd.models.distillers import FrozenTeacher


@pytest.fixture
def teacher():
    frozen = FrozenTeacher(**tiny_recipes.teacher())
    frozen.attach(['backbone[-1]', 'head.fc'], (16, 16))
    frozen.init_weights()
    return frozen


class Holder(torch.nn.Module):
    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher
        self.layer = torch.nn.Linear(2, 2)


def test_teacher_is_in_nothing(teacher):
    holder = Holder(teacher)
    assert [n for n, _ in holder.named_parameters()] == [
        'layer.weight',
        'layer.bias',
    ]
    assert list(holder.state_dict()) == ['layer.weight', 'layer.bias']
    assert not list(teacher.buffers())
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_teacher_stays_in_eval_mode(teacher):
    Holder(teacher).train()
    assert not any(m.training for m in teacher.network.modules())


def test_teacher_follows_dtype_and_device(teacher):
    holder = Holder(teacher).double()
    weight = teacher.network.backbone.conv1.weight
    assert weight.dtype == torch.float64
    holder.to('meta')
    assert teacher.network.backbone.conv1.weight.is_meta


def test_deep_copy_shares_the_teacher(teacher):
    assert copy.deepcopy(Holder(teacher)).teacher is teacher


def test_forward_reads_taps_without_gradient(teacher):
    images = torch.rand(3, 3, 16, 16, requires_grad=True)
    tensors = teacher(images, ['backbone[-1]', 'head.fc'])
    assert tensors['backbone[-1]'][0].shape == (3, 24, 4, 4)
    assert tensors['head.fc'][0].shape == (3, 2)
    assert not tensors['head.fc'][0].requires_grad
    expected = teacher.network(images, mode='tensor')
    assert torch.equal(tensors['head.fc'][0], expected)


def test_missing_keys_are_errors():
    with pytest.raises(ValueError, match='`teacher` has no `checkpoint`'):
        FrozenTeacher(config=tiny_recipes.teacher()['config'])
    with pytest.raises(ValueError, match='`teacher` has no `config`'):
        FrozenTeacher(checkpoint=None)
    with pytest.raises(ValueError, match="no key 'chekpoint'.*'checkpoint'"):
        FrozenTeacher(**tiny_recipes.teacher(), chekpoint='x')
    with pytest.raises(ValueError, match='no whole config'):
        FrozenTeacher(config=dict(a=1), checkpoint=None)


def saved(tmp_path, content):
    path = tmp_path / 'teacher.pth'
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize('kind', ['plain', 'mmengine', 'distiller', 'ddp'])
def test_checkpoints_of_every_kind_load(tmp_path, teacher, kind):
    state = teacher.network.state_dict()
    content = {
        'plain': state,
        'mmengine': dict(state_dict=state, meta=dict(epoch=1)),
        'distiller': dict(
            state_dict={**state, 'distill.step': torch.tensor(3)}
        ),
        'ddp': {f'module.{k}': v for k, v in state.items()},
    }[kind]
    other = FrozenTeacher(
        **tiny_recipes.teacher(checkpoint=saved(tmp_path, content))
    )
    other.init_weights()
    for key, value in other.network.state_dict().items():
        assert torch.equal(value, state[key])


def test_construction_reads_no_weights():
    teacher = FrozenTeacher(**tiny_recipes.teacher(checkpoint='absent.pth'))
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        teacher.init_weights()


def test_checkpoint_of_another_architecture_lists_the_keys(tmp_path, build):
    other = build(tiny_recipes.classifier(base=5)).state_dict()
    teacher = FrozenTeacher(
        **tiny_recipes.teacher(checkpoint=saved(tmp_path, other))
    )
    with pytest.raises(ValueError, match='of another shape.*conv1.weight'):
        teacher.init_weights()


def test_missing_and_unexpected_keys_unless_not_strict(tmp_path, teacher):
    state = teacher.network.state_dict()
    state['extra.weight'] = state.pop('head.fc.weight')
    path = saved(tmp_path, state)
    strict = FrozenTeacher(**tiny_recipes.teacher(checkpoint=path))
    with pytest.raises(ValueError) as error:
        strict.init_weights()
    for part in (
        'missing: head.fc.weight',
        'unexpected: extra.weight',
        'strict=False',
    ):
        assert part in str(error.value)
    FrozenTeacher(
        **tiny_recipes.teacher(checkpoint=path, strict=False)
    ).init_weights()


def test_random_teacher_fetches_no_backbone():
    config = tiny_recipes.teacher()
    config['config']['model']['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint='https://localhost/absent.pth'
    )
    FrozenTeacher(**config).init_weights()


@pytest.mark.parametrize('to_rgb', [True, False])
def test_input_is_renormalised(to_rgb):
    config = tiny_recipes.teacher()
    preprocessor = config['config']['model']['data_preprocessor']
    preprocessor.update(mean=[10, 20, 30], std=[2, 4, 5], to_rgb=to_rgb)
    teacher = FrozenTeacher(**config)
    teacher.attach(['backbone.conv1'], (16, 16))
    teacher.init_weights()
    student = FrozenTeacher(**tiny_recipes.teacher()).network
    teacher.match_input(student.data_preprocessor)
    raw = dict(inputs=list(torch.randint(0, 256, (2, 3, 16, 16)).byte()))
    own = teacher.network.data_preprocessor(copy.deepcopy(raw))['inputs']
    expected = teacher.network.backbone.conv1(own)
    seen = student.data_preprocessor(raw)['inputs']
    result = teacher(seen, ['backbone.conv1'])['backbone.conv1'][0]
    assert torch.allclose(result, expected, atol=1e-4)
    assert not torch.allclose(
        teacher.network.backbone.conv1(seen), expected, atol=1e-2
    )


def test_equal_preprocessors_leave_the_input_alone(teacher):
    student = FrozenTeacher(**tiny_recipes.teacher()).network
    teacher.match_input(student.data_preprocessor)
    assert teacher._renormalize is None


def test_preprocessor_without_normalisation_is_understood(teacher):
    teacher.match_input(BaseDataPreprocessor())
    assert teacher._renormalize is not None
    assert isinstance(teacher.network, BaseModel)


def test_tables_worked_out_from_weights_are_fresh(teacher, tmp_path):
    """LeViT and its kin keep such tables, made when eval() is called."""
    config = tiny_recipes.teacher(
        checkpoint=saved(tmp_path, teacher.network.state_dict())
    )
    other = FrozenTeacher(**config)
    kept = []
    train = other.network.train

    def remember(mode=True):
        kept.append(other.network.head.fc.weight.clone())
        return train(mode)

    other.network.train = remember
    other.init_weights()
    assert torch.equal(kept[-1], teacher.network.head.fc.weight)
    other.double()
    assert kept[-1].dtype == torch.float64


def test_renormalisation_follows_the_dtype():
    config = tiny_recipes.teacher()
    config['config']['model']['data_preprocessor'].update(mean=[1, 2, 3])
    teacher = FrozenTeacher(**config)
    teacher.attach(['backbone[-1]'], (16, 16))
    teacher.match_input(
        FrozenTeacher(**tiny_recipes.teacher()).network.data_preprocessor
    )
    teacher.to(torch.bfloat16)
    images = torch.rand(2, 3, 16, 16, dtype=torch.bfloat16)
    (feature,) = teacher(images, ['backbone[-1]'])['backbone[-1]']
    assert feature.dtype == torch.bfloat16
