import pytest
import tiny_detectors
import tiny_recipes
import torch
from tiny_recipes import train
from torch import nn

from mmdiffkd.models.distillers.inheritance import inherit, match_tensors

PYRAMID = dict(fpn=dict(at='neck[:]', loss=dict(type='MSELoss')))
BOTH = 'neck', 'bbox_head'


class Network(nn.Module):
    def __init__(self, width, extra=False):
        super().__init__()
        self.neck = nn.Sequential(nn.Conv2d(2, width, 1), nn.BatchNorm2d(4))
        if extra:
            self.neck.append(nn.Linear(2, 2))
        self.other = nn.Linear(width, 2)
        self.silent = nn.ReLU()


def test_what_agrees_in_name_and_shape_is_taken():
    student, teacher = Network(3), Network(5, extra=True)
    nn.init.constant_(teacher.neck[1].running_mean, 7)
    matches = match_tensors(['neck'], student, teacher)
    own = student.neck[0].weight.clone()
    inherit(student, matches, {'neck': teacher.neck.state_dict()})
    assert student.neck[1].running_mean.tolist() == [7] * 4
    assert torch.equal(student.neck[0].weight, own)
    (legacy,) = matches.values()
    assert legacy.taken == [f'1.{n}' for n in student.neck[1].state_dict()]
    assert legacy.skipped == [
        '0.weight ((3, 2, 1, 1) in the student, (5, 2, 1, 1) in the teacher)',
        '0.bias ((3,) in the student, (5,) in the teacher)',
        '2.weight (missing in the student, (2, 2) in the teacher)',
        '2.bias (missing in the student, (2,) in the teacher)',
    ]


@pytest.mark.parametrize(
    'paths, message',
    [
        ('neck', "`teacher.inherit` is 'neck'.*Write a tuple"),
        (['nek'], "names 'nek', which the student Network .* 'neck'"),
        (['neck.2'], "names 'neck.2', which the student Network"),
        (['neck.0'], r"names 'neck.0', but nothing .*\(3, 2, 1, 1\) in the s"),
        (['silent'], 'it holds no tensors'),
    ],
)
def test_bad_paths_name_key_value_and_cure(paths, message):
    with pytest.raises(ValueError, match=message):
        match_tensors(paths, Network(3), Network(5, extra=True))


def test_path_that_the_teacher_lacks():
    with pytest.raises(ValueError, match='which the teacher Network'):
        match_tensors(['neck.2'], Network(3, extra=True), Network(3))


@pytest.fixture
def config(tmp_path, build):
    """A RetinaNet whose teacher has other pyramid inputs, with weights."""
    teacher = tiny_detectors.teacher('retinanet')
    torch.manual_seed(5)
    state = build(teacher['config']['model']).state_dict()
    state = {
        k: v + 0.01 if v.is_floating_point() else v for k, v in state.items()
    }
    teacher['checkpoint'] = str(tmp_path / 'teacher.pth')
    torch.save(state, teacher['checkpoint'])
    return tiny_detectors.distiller('retinanet', PYRAMID, teacher=teacher)


def same(student, teacher, path):
    ours, theirs = (
        network.get_submodule(path).state_dict()
        for network in (student, teacher)
    )
    return {
        name
        for name, tensor in ours.items()
        if tensor.shape == theirs[name].shape
        and torch.equal(tensor, theirs[name])
    }


@pytest.mark.parametrize('fold', [False, True])
def test_student_begins_with_the_teachers_neck_and_head(build, config, fold):
    config['teacher'].update(inherit=BOTH, fold_batch_norm=fold)
    model = build(config)
    before = same(model.student, model.teacher.network, 'bbox_head')
    assert 'retina_cls.weight' not in before
    model.init_weights()
    # A second time, too.
    model.init_weights()
    student, teacher = model.student, model.teacher.network
    assert same(student, teacher, 'bbox_head') == set(
        student.bbox_head.state_dict()
    )
    names = same(student, teacher, 'neck')
    outer = {n for n in names if n.startswith('fpn_convs')}
    assert outer and names <= set(student.neck.state_dict())
    assert any(
        n.startswith('lateral_convs.0') and n not in names
        for n in student.neck.state_dict()
    )
    # The teacher's own tensors are not the student's.
    ours = student.bbox_head.retina_cls.weight.data_ptr()
    assert ours != teacher.bbox_head.retina_cls.weight.data_ptr()


def test_nothing_is_inherited_by_default(build, config):
    model = build(config)
    model.init_weights()
    taken = same(model.student, model.teacher.network, 'bbox_head')
    assert 'retina_cls.weight' not in taken


def test_path_is_checked_at_construction(build, config):
    config['teacher']['inherit'] = ('neck', 'rpn_head')
    with pytest.raises(ValueError, match="names 'rpn_head'.*the student Ret"):
        build(config)


def test_loaded_and_resumed_weights_take_its_place(tmp_path):
    teacher = tiny_recipes.teacher(4, inherit=('head',))
    entry = tiny_recipes.feature_entry(weight=0.0)
    model = tiny_recipes.distiller(
        teacher=teacher, distill=dict(feature=entry)
    )
    config = tiny_recipes.distill_recipe(
        tmp_path, model, epochs=1, optim_wrapper=dict(optimizer=dict(lr=0.0))
    )
    first = train(config)
    taken = same(first.model.student, first.model.teacher.network, 'head')
    assert taken == {'fc.weight', 'fc.bias'}
    state = {
        k: torch.full_like(v, 0.5) if k.startswith('head') else v
        for k, v in first.model.student.state_dict().items()
    }
    torch.save(state, tmp_path / 'own.pth')
    config.load_from = str(tmp_path / 'own.pth')
    loaded = train(config)
    assert (loaded.model.student.head.fc.weight == 0.5).all()
    config.update(load_from=None, resume=True)
    config.train_cfg.max_epochs = 2
    resumed = train(config)
    assert (resumed.model.student.head.fc.weight == 0.5).all()
