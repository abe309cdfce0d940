import pytest
import tiny_recipes
import torch
from tiny_teachers import build_teacher, frozen, saved

from mmdiffkd.models.distillers import FrozenTeacher


@pytest.fixture
def teacher():
    return build_teacher(**tiny_recipes.teacher())


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
    other = frozen(checkpoint=saved(tmp_path, content))
    other.init_weights()
    for key, value in other.network.state_dict().items():
        assert torch.equal(value, state[key])


def test_checkpoint_of_another_architecture_lists_the_keys(tmp_path, build):
    other = build(tiny_recipes.classifier(base=5)).state_dict()
    teacher = frozen(checkpoint=saved(tmp_path, other))
    with pytest.raises(ValueError, match='of another shape.*conv1.weight'):
        teacher.init_weights()


def test_missing_and_unexpected_keys_unless_not_strict(tmp_path, teacher):
    state = teacher.network.state_dict()
    state['extra.weight'] = state.pop('head.fc.weight')
    path = saved(tmp_path, state)
    with pytest.raises(ValueError) as error:
        frozen(checkpoint=path).init_weights()
    for part in (
        'missing: head.fc.weight',
        'unexpected: extra.weight',
        'strict=False',
    ):
        assert part in str(error.value)
    frozen(checkpoint=path, strict=False).init_weights()


def test_random_teacher_fetches_no_backbone():
    config = tiny_recipes.teacher()
    config['config']['model']['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint='https://localhost/absent.pth'
    )
    FrozenTeacher(**config).init_weights()


def test_parameters_of_a_random_teacher_are_not_listed(log, build):
    def listed():
        return [r for r in log.records if r.funcName == '_dump_init_info']

    frozen().init_weights()
    assert listed() == []
    assert 'The teacher is random' in log.text
    student = build(tiny_recipes.classifier())
    student.init_weights()
    assert len(listed()) == len(list(student.parameters()))
