"""Built modules of torch as student and teacher, without a runner."""

from collections import OrderedDict

import pytest
import tiny_recipes
import torch
from torch import nn

from mmdiffkd.models import Distiller

ENTRY = dict(
    at='relu', neck=dict(type='ProjectionNeck'), loss=dict(type='MSELoss')
)
IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def network(channels: int) -> nn.Module:
    layers = dict(
        stem=nn.Conv2d(3, channels, 3, 2),
        relu=nn.ReLU(),
        out=nn.Conv2d(channels, 2, 1),
    )
    return nn.Sequential(OrderedDict(layers))


def distiller(**changes) -> Distiller:
    arguments = dict(
        student=network(4), teacher=network(6), distill=dict(maps=ENTRY)
    )
    return Distiller(**arguments | changes)


def test_without_modes_there_are_the_losses_of_entries_alone():
    model = distiller()
    losses = model(IMAGES, mode='loss')
    assert list(losses) == ['distill.maps.loss_kd']
    losses['distill.maps.loss_kd'].backward()
    assert model.student.stem.weight.grad.any()
    assert model.student.out.weight.grad is None
    assert model.teacher.network.stem.weight.grad is None
    for mode in ('tensor', 'predict'):
        assert torch.equal(model(IMAGES, mode=mode), model.student(IMAGES))


@pytest.mark.parametrize('mode', ['loss', 'tensor', 'predict'])
def test_labels_need_a_mode(mode):
    with pytest.raises(ValueError, match='Sequential takes no `mode`.*Tensor'):
        distiller()(IMAGES, torch.tensor([0, 1]), mode=mode)


def test_classes_as_a_tensor_are_labels():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, images, labels=None, mode='tensor'):
            logits = self.fc(images.mean((2, 3)))
            if mode != 'loss':
                return logits
            return {'loss': nn.functional.cross_entropy(logits, labels)}

    entry = dict(at='fc', loss=dict(type='DKDLoss'))
    model = distiller(
        student=Student(), teacher=Student(), distill=dict(logits=entry)
    )
    labels = torch.tensor([1, 3])
    losses = model(IMAGES, labels, mode='loss')
    (loss,) = model.distill.logits.losses
    with torch.no_grad():
        logits = (m(IMAGES) for m in (model.student, model.teacher.network))
        expected = loss(*logits, gt_labels=labels)
    torch.testing.assert_close(losses['distill.logits.loss_kd'], expected)
    one_hot = nn.functional.one_hot(labels, 4).float()
    with pytest.raises(ValueError, match='2 images and as samples a Tensor'):
        model(IMAGES, one_hot, mode='loss')


@pytest.fixture
def checkpoint(tmp_path):
    """The weights of a teacher in a file, and the network itself."""
    known = network(6)
    file = tmp_path / 'teacher.pth'
    torch.save(known.state_dict(), file)
    return str(file), known


def test_weights_are_read_when_it_is_built(checkpoint):
    file, known = checkpoint
    model = distiller(
        teacher=dict(module=network(6), checkpoint=file), student=network(4)
    )
    found = model.teacher.network.state_dict()
    for name, value in known.state_dict().items():
        assert torch.equal(found[name], value), name


def test_a_missing_file_is_an_error_when_it_is_built(tmp_path):
    teacher = dict(module=network(6), checkpoint=str(tmp_path / 'no.pth'))
    with pytest.raises(FileNotFoundError, match=r'no\.pth'):
        distiller(teacher=teacher)


def test_a_runner_does_not_read_them_again(checkpoint, tmp_path):
    file, _ = checkpoint
    model = distiller(teacher=dict(module=network(6), checkpoint=file))
    (tmp_path / 'teacher.pth').unlink()
    before = model.state_dict()
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_around_a_config_they_are_read_by_init_weights(build, checkpoint):
    file, known = checkpoint
    model = build(
        tiny_recipes.distiller(
            teacher=dict(module=network(6), checkpoint=file),
            distill=dict(
                maps=dict(
                    ENTRY,
                    at=None,
                    student_at='backbone[-1]',
                    teacher_at='relu',
                )
            ),
        )
    )
    data = dict(inputs=IMAGES, data_samples=None)
    with pytest.raises(ValueError, match=r'nothing has read it.*init_weights'):
        model(**data, mode='loss')
    model.init_weights()
    found = model.teacher.network.state_dict()
    assert torch.equal(found['stem.weight'], known.state_dict()['stem.weight'])


def test_what_the_loop_has_normalised_is_not_guessed(log):
    norm = dict(type='ImgDataPreprocessor', bgr_to_rgb=True)
    wanted = dict(norm, mean=[127.5] * 3, std=[127.5] * 3)
    teacher = dict(module=network(6), data_preprocessor=wanted)
    model = distiller(teacher=teacher)
    assert "The teacher gets the student's images as they are" in log.text
    seen = []
    model.teacher.network.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    model(IMAGES, mode='loss')
    assert torch.equal(seen.pop(), IMAGES)


def test_a_student_with_a_preprocessor_takes_no_other(build):
    student = build(tiny_recipes.classifier())
    with pytest.raises(ValueError, match='has its own data preprocessor'):
        distiller(
            student=student, data_preprocessor=dict(type='ImgDataPreprocessor')
        )


@pytest.mark.parametrize('several', [False, True])
def test_a_teacher_has_no_parts_of_the_student(several):
    student, teacher = network(4), network(4)
    teacher.stem = student.stem
    given = dict(
        teacher=None,
        teachers=dict(a=network(4), b=teacher),
        distill=dict(maps=dict(ENTRY, teacher='a')),
    )
    if not several:
        given = dict(teacher=dict(module=teacher))
    key = 'teachers.b' if several else 'teacher'
    with pytest.raises(ValueError, match=f"`{key}`.*'stem.weight'.*deepcopy"):
        distiller(student=student, **given)
    assert all(p.requires_grad for p in student.parameters())


def test_a_runner_does_not_draw_the_student_again():
    """timm's vision transformers have an ``init_weights``, too."""

    class Student(nn.Sequential):
        def init_weights(self):
            nn.init.zeros_(self.stem.weight)

    student = Student(OrderedDict(network(4).named_children()))
    before = student.stem.weight.clone()
    distiller(student=student).init_weights()
    assert torch.equal(student.stem.weight, before)


def test_a_built_teacher_stays_as_it_is(log):
    """A second distiller asks again what normalises its images."""
    teacher = network(6)
    names = [name for name, _ in teacher.named_modules()]
    norm = dict(type='ImgDataPreprocessor', bgr_to_rgb=True)
    first = dict(norm, mean=[127.5] * 3, std=[127.5] * 3)
    distiller(teacher=teacher, data_preprocessor=first)
    distiller(teacher=dict(module=teacher, data_preprocessor=first))
    assert [name for name, _ in teacher.named_modules()] == names
    second = dict(norm, mean=[10.0] * 3, std=[20.0] * 3)
    model = distiller(teacher=teacher, data_preprocessor=second)
    assert model.teacher._conversion is None
    assert "takes the student's: mean [10, 10, 10]" in log.text


def test_a_step_runs_on_what_the_dry_run_ran_on():
    """Hugging Face's transformers interpolate only if they are asked."""

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.Conv2d(3, 4, 3, 2)

        def forward(self, images, interpolate_pos_encoding=False):
            assert interpolate_pos_encoding
            return self.relu(images)

    model = distiller(student=Student())
    assert list(model(IMAGES, mode='loss')) == ['distill.maps.loss_kd']
    assert model(IMAGES).shape[:2] == (2, 4)


def test_a_teacher_that_somebody_else_trains_stays_in_eval_mode():
    """A LightningModule that keeps it, too, calls its ``train()``."""
    teacher = nn.Sequential(OrderedDict(network(6).named_children()))
    teacher.add_module('norm', nn.BatchNorm2d(2))
    model = distiller(teacher=teacher)
    teacher.train()
    model(IMAGES, mode='loss')
    assert not teacher.norm.training
    assert not teacher.norm.running_mean.any()
