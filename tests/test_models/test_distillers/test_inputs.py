"""Batches that are no tensor of images, or not of the shape assumed."""

import pytest
import tiny_recipes
import torch
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import nn

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.losses import MSELoss
from mmdiffkd.registry import MODELS

SIZE = tiny_recipes.SIZE
ENTRY = dict(
    f=dict(
        at='backbone[-1]',
        neck=dict(type='ProjectionNeck'),
        loss=dict(type='MSELoss'),
    )
)


def views_of(model, count=2):
    raw = torch.randint(0, 256, (count, 3, 3, SIZE, SIZE)).float()
    samples = [DataSample() for _ in range(3)]
    batch = dict(inputs=list(raw), data_samples=samples)
    return model.data_preprocessor(batch, True)


@pytest.mark.parametrize('kind', ['SimCLR', 'MoCo', 'SimSiam', 'BYOL'])
def test_pairs_of_rows_belong_to_one_image(ready, log, kind):
    """The teacher gets what the student's backbone gets, row by row."""
    student = tiny_recipes.self_supervised(kind)
    model = ready(tiny_recipes.distiller(student, distill=ENTRY))
    seen = dict(student=[], teacher=[])
    for role, network in (
        ('student', model.student),
        ('teacher', model.teacher.network),
    ):
        network.backbone.register_forward_pre_hook(
            lambda module, args, role=role: seen[role].append(args[0])
        )
    compared = []
    model.distill.f.register_forward_pre_hook(
        lambda module, args: compared.append(args[:2])
    )
    losses = model(**views_of(model), mode='loss')
    model.parse_losses(losses)[0].backward()
    expected = torch.cat(seen['student'])
    (given,) = seen['teacher']
    assert torch.equal(given, expected)
    ((students,), (teachers,)) = compared[0]
    assert len(students) == len(teachers) == len(expected)
    # What the teacher yields for these rows.
    with torch.no_grad():
        again = model.teacher.network.backbone(expected)[-1]
    assert torch.allclose(teachers, again, atol=1e-5)
    assert losses['distill.f.loss_kd'] > 0
    assert 'gets a list of 2 items. The teacher gets' in log.text


class Branches(BaseModel):
    """Takes a dict of tensors."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)

    def extract_feat(self, inputs):
        return self.backbone(inputs)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'tensor':
            return self.extract_feat(inputs)
        features = self.extract_feat(inputs['weak'])
        return dict(loss=features.square().mean())


def branches(student, **entry):
    entry = dict(
        student_at='backbone',
        teacher_at='backbone[-1]',
        neck=dict(type='ProjectionNeck'),
        **{'loss': dict(type='MSELoss'), **entry},
    )
    return Distiller(
        student, tiny_recipes.teacher(), dict(f=entry), input_size=SIZE
    )


def test_a_dict_of_branches_passes_to_the_student():
    model = branches(Branches(backbone=nn.Conv2d(3, 4, 3, 4, 1)))
    weak, strong = torch.rand(2, 2, 3, SIZE, SIZE)
    inputs = dict(weak=weak, strong=strong)
    losses = model(inputs, dict(weak=[], strong=[]), mode='loss')
    assert losses['distill.f.loss_kd'] > 0
    (other,) = (
        model(dict(weak=weak, strong=s), mode='loss')['distill.f.loss_kd']
        for s in (weak,)
    )
    assert torch.equal(losses['distill.f.loss_kd'], other)


def test_views_of_two_sizes_are_refused():
    class Crops(Branches):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            if mode == 'tensor':
                return self.extract_feat(inputs)
            features = [self.extract_feat(x).mean() for x in inputs]
            return dict(loss=sum(features))

    model = branches(Crops(backbone=nn.Conv2d(3, 4, 3, 4, 1)))
    crops = [torch.rand(2, 3, n, n) for n in (SIZE, 8)]
    with pytest.raises(ValueError, match='16, 16.*8, 8.*views of one size'):
        model(crops, mode='loss')


def test_branches_of_several_sizes_of_batches():
    class Both(Branches):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            if mode == 'tensor':
                return self.extract_feat(inputs)
            features = [self.extract_feat(x).mean() for x in inputs.values()]
            return dict(loss=sum(features))

    model = branches(Both(backbone=nn.Conv2d(3, 4, 3, 4, 1)))
    compared = []
    model.distill.f.register_forward_pre_hook(
        lambda module, args: compared.append(args[:2])
    )
    weak, strong = torch.rand(4, 3, 16, 16), torch.rand(2, 3, 16, 16)
    model(dict(weak=weak, strong=strong), mode='loss')
    (((student,), (teacher,)),) = compared
    expected = model.student.backbone(torch.cat([weak, strong]))
    assert torch.allclose(student, expected, atol=1e-6)
    assert len(teacher) == 6
    # Of another number of channels it is the shape that is named.
    gray = dict(weak=weak[:, :1], strong=strong[:, :1])
    with pytest.raises(ValueError, match=r'input_shape=\(1, 16, 16\)'):
        model(gray, mode='loss')


class Orders(Branches):
    """Runs a head on the maps of two views, in one order or another."""

    def __init__(self, width, order='view by view', data_preprocessor=None):
        super().__init__(
            backbone=nn.Conv2d(3, width, 3, 4, 1),
            neck=nn.Conv2d(width, width, 1),
        )
        self.order = order

    def extract_feat(self, inputs):
        return self.neck(self.backbone(inputs))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if self.order == 'view by view':
            outputs = [self.extract_feat(x) for x in inputs]
        elif self.order == 'one without gradient':
            outputs = [self.extract_feat(inputs[0])]
            with torch.no_grad():
                outputs.append(self.extract_feat(inputs[1]))
        else:
            maps = [self.backbone(x) for x in inputs]
            outputs = [self.neck(x) for x in reversed(maps)]
        return dict(loss=sum(x.mean() for x in outputs))


@pytest.mark.parametrize(
    'order, message',
    [
        ('view by view', None),
        ('all maps first', 'does not come view by view'),
        ('one without gradient', 'has a gradient in some views alone'),
    ],
)
def test_rows_of_views_are_certain_to_belong_together(order, message):
    teacher = dict(
        config=dict(model=dict(type=Orders, width=4)), checkpoint=None
    )
    entry = dict(at='neck', loss=dict(type='MSELoss'))
    student = Orders(4, order)
    model = Distiller(student, teacher, dict(f=entry), input_size=16)
    model.init_weights()
    # Equal networks yield equal rows.
    student.load_state_dict(model.teacher.network.state_dict())
    views = list(torch.rand(2, 3, 3, 16, 16))
    if message is None:
        loss = model(views, mode='loss')['distill.f.loss_kd']
        assert loss.item() == pytest.approx(0, abs=1e-10)
        return
    with pytest.raises(ValueError, match=message):
        model(views, mode='loss')


def test_a_stem_before_the_backbone_is_no_source_of_images():
    class Stem(Branches):
        def extract_feat(self, inputs):
            return self.backbone(self.stem(inputs))

    model = branches(
        Stem(stem=nn.Conv2d(3, 3, 1), backbone=nn.Conv2d(3, 4, 3, 4, 1))
    )
    inputs = dict(weak=torch.rand(2, 3, SIZE, SIZE))
    with pytest.raises(ValueError, match='what an earlier layer gave'):
        model(inputs, mode='loss')


class Turned(nn.Module):
    def forward(self, features):
        return features.transpose(0, 1)


class TurnedViews(Branches):
    def __init__(self, width, data_preprocessor=None):
        super().__init__(
            backbone=nn.Conv2d(3, width, 3, 4, 1), turned=Turned()
        )

    def extract_feat(self, inputs):
        features = self.backbone(inputs).mean((2, 3))
        return self.turned(torch.stack([features] * 3, dim=1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'tensor':
            return self.extract_feat(inputs)
        return dict(loss=sum(self.extract_feat(x).sum() for x in inputs))


def test_views_need_the_batch_first():
    teacher = dict(
        config=dict(model=dict(type=TurnedViews, width=4)), checkpoint=None
    )
    entry = dict(at='turned', layout='NC', loss=dict(type='MSELoss'))
    model = Distiller(TurnedViews(4), teacher, dict(f=entry), input_size=16)
    with pytest.raises(ValueError, match='begin with the axis of the batch'):
        model(list(torch.rand(2, 3, 3, 16, 16)), mode='loss')


def test_a_student_without_backbone_must_get_a_tensor():
    class Body(Branches):
        def extract_feat(self, inputs):
            return self.body(inputs)

    student = Body(body=nn.Conv2d(3, 4, 3, 4, 1))
    entry = dict(
        student_at='body',
        teacher_at='backbone[-1]',
        neck=dict(type='ProjectionNeck'),
        loss=dict(type='MSELoss'),
    )
    model = Distiller(
        student, tiny_recipes.teacher(), dict(f=entry), input_size=SIZE
    )
    inputs = dict(weak=torch.rand(2, 3, SIZE, SIZE))
    model.distill.f.weight = 0
    losses = model(inputs, mode='loss')
    assert (losses['loss'] > 0, losses['distill.f.loss_kd']) == (True, 0)
    model.distill.f.weight = 1
    with pytest.raises(ValueError, match=r"keys \['weak'\].*no `backbone`"):
        model(inputs, mode='loss')


def test_labels_of_views_are_refused():
    class Views(Branches):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            if mode == 'tensor':
                return self.extract_feat(inputs)
            return dict(loss=self.extract_feat(torch.cat(inputs)).mean())

    class Labelled(MSELoss):
        def forward(self, student, teacher, gt_labels):
            return super().forward(student, teacher)

    MODELS.register_module(module=Labelled)
    try:
        model = branches(
            Views(backbone=nn.Conv2d(3, 4, 3, 4, 1)),
            loss=dict(type='Labelled'),
        )
        samples = [DataSample().set_gt_label(i) for i in range(3)]
        views = list(torch.rand(2, 3, 3, SIZE, SIZE))
        with pytest.raises(ValueError, match='6 images and .* list of 3'):
            model(views, samples, mode='loss')
    finally:
        MODELS.module_dict.pop('Labelled')


# Images of another shape than was assumed


def with_channels(channels, **changes):
    student, teacher = tiny_recipes.classifier(), tiny_recipes.classifier(6)
    for model in (student, teacher):
        model['backbone']['in_channels'] = channels
        model['data_preprocessor'] = dict(type='ClsDataPreprocessor')
    return tiny_recipes.distiller(
        student, teacher=tiny_recipes.teacher(model=teacher), **changes
    )


@pytest.mark.parametrize('channels', [1, 2, 4])
def test_any_number_of_channels_needs_no_word(ready, channels):
    model = ready(with_channels(channels))
    assert model.input_shape == (channels, SIZE, SIZE)
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    images = torch.rand(2, channels, SIZE, SIZE)
    losses = model(images, samples, mode='loss')
    assert losses['distill.feature.loss_kd'] > 0


@pytest.mark.parametrize('shape', [(3, SIZE, SIZE), (2, 1, SIZE, SIZE)])
def test_a_batch_of_another_shape_stops_before_the_step(ready, shape):
    model = ready(with_channels(1))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match='assumed .*Set `input_shape='):
        model(torch.rand(2, *shape), mode='loss')
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_a_pass_over_images_of_another_shape_is_refused(ready):
    loss = dict(type='LSHLoss', hash_bits=4, hash_std=1.0)
    entry = dict(at='neck[-1]', neck=dict(type='ProjectionNeck'), loss=loss)
    model = ready(tiny_recipes.distiller(distill=dict(f=entry)))
    assert model.needs_preparation
    with pytest.raises(ValueError, match='input_shape=.1, 16, 16'):
        model.prepare(lambda: iter([torch.rand(2, 1, 16, 16)]))


class Clips(BaseModel):
    """Runs a backbone of images on every frame of a clip."""

    def __init__(self, width, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = nn.Conv2d(3, width, 3, 4, 1)
        self.head = nn.Linear(width, 2)

    def extract_feat(self, inputs):
        return self.backbone(inputs.flatten(0, 1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        features = self.extract_feat(inputs).mean((2, 3))
        logits = self.head(features.unflatten(0, inputs.shape[:2]).mean(1))
        return logits if mode == 'tensor' else dict(loss=logits.mean())


@pytest.mark.parametrize('fast', [False, True])
def test_clips_work_with_input_shape(fast):
    teacher = dict(
        config=dict(model=dict(type=Clips, width=6)),
        checkpoint=None,
        channels_last=fast,
        fold_batch_norm=fast,
    )
    entries = dict(
        maps=dict(
            at='backbone',
            neck=dict(type='DiffKDNeck'),
            loss=dict(type='MSELoss'),
        ),
        logits=dict(at='head', loss=dict(type='KLDivergence')),
    )
    model = Distiller(Clips(4), teacher, entries, input_shape=(5, 3, 16, 16))
    model.init_weights()
    losses = model(torch.rand(2, 5, 3, 16, 16), mode='loss')
    assert losses['distill.maps.loss_kd'] > 0
    assert losses['distill.logits.loss_kd'] > 0
    with pytest.raises(ValueError, match=r'input_shape=\(4, 3, 16, 16\)'):
        model(torch.rand(2, 4, 3, 16, 16), mode='loss')


def test_clips_without_input_shape_name_the_cure():
    teacher = dict(
        config=dict(model=dict(type=Clips, width=6)), checkpoint=None
    )
    with pytest.raises(ValueError, match='`input_shape` to their shape'):
        Distiller(Clips(4), teacher, dict(f=dict(
            at='backbone', loss=dict(type='PKDLoss'))))  # fmt: skip
