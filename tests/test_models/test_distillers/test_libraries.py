"""Teachers that no OpenMMLab config describes."""

import json
from copy import deepcopy
from importlib.util import find_spec

import pytest
import tiny_detectors
import tiny_recipes
import torch
import torch.nn.functional as F
from distill_steps import PROJECTED, compared, images, pair
from mmengine.config import ConfigDict
from mmengine.model import ImgDataPreprocessor
from torch import nn

from mmdiffkd.models.distillers import FrozenTeacher
from mmdiffkd.models.distillers.libraries import statistics_of

timm = pytest.importorskip('timm')
VIT = dict(
    model_name='vit_tiny_patch16_224',
    img_size=32,
    patch_size=8,
    embed_dim=16,
    depth=1,
    num_heads=2,
    num_classes=0,
)
#: Of 'vit_tiny_patch16_224' in timm, of values from 0 to 255.
HALF = dict(mean=[127.5] * 3, std=[127.5] * 3)
TOKENS = dict(student_at='backbone[-1]', teacher_at='norm', **PROJECTED)


def vit(kwargs=None, **changes):
    """A vision transformer of timm as teacher, for images of 32 x 32."""
    kwargs = {**VIT, **(kwargs or {})}
    return dict(
        module='timm.create_model', kwargs=kwargs, checkpoint=None, **changes
    )


def config(teacher, entry=TOKENS, size=32, **changes):
    return tiny_recipes.distiller(
        teacher=teacher,
        distill=dict(f=entry),
        input_size=size,
        **changes,
    )


def seen_by(module):
    """The list to which what a module gets is added."""
    seen = []
    module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    return seen


class Network(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(3, width, 1)

    def forward(self, images):
        return self.layer(images)


# What builds a network


def test_a_function_that_returns_a_network(ready):
    model = ready(config(ConfigDict(vit())))
    assert type(model.teacher.network).__name__ == 'VisionTransformer'
    assert compared(model, images(32)) == dict(f=pair(2, 16, 4, 4))


def test_a_class(ready):
    teacher = dict(
        module='torch.nn.Conv2d',
        kwargs=dict(in_channels=3, out_channels=5, kernel_size=1),
        checkpoint=None,
    )

    FrozenTeacher(**teacher)
    teacher.update(module=Network, kwargs=dict(width=5))
    model = ready(config(teacher, dict(TOKENS, teacher_at='layer'), 16))
    assert compared(model, images()) == dict(f=pair(2, 5, 16, 16))


@pytest.mark.parametrize('given', ['alone', 'with keys'])
def test_a_built_module_keeps_its_weights(ready, given):
    network = timm.create_model(**VIT)
    before = deepcopy(network.state_dict())
    teacher = network
    if given == 'with keys':
        teacher = dict(module=network, input_size=32)
    model = ready(config(teacher))
    assert model.teacher.network is network
    state = network.state_dict()
    assert all(torch.equal(state[k], value) for k, value in before.items())
    assert not any(p.requires_grad for p in network.parameters())
    assert compared(model, images(32)) == dict(f=pair(2, 16, 4, 4))


def test_a_file_of_weights(ready, tmp_path):
    weights = timm.create_model(**VIT).state_dict()
    torch.save(weights, tmp_path / 'vit.pth')
    teacher = {**vit(), 'checkpoint': str(tmp_path / 'vit.pth')}
    found = ready(config(teacher)).teacher.network.state_dict()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    teacher['kwargs']['embed_dim'] = 8
    with pytest.raises(ValueError, match='of another shape'):
        ready(config(teacher))


def test_weights_with_which_it_was_built_stay(ready, log):
    """Initialising would draw them again."""
    frozen = FrozenTeacher(**vit())
    before = deepcopy(frozen.network.state_dict())
    frozen.init_weights()
    after = frozen.network.state_dict()
    assert all(torch.equal(after[k], value) for k, value in before.items())
    assert "those with which 'timm.create_model' built it" in log.text


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(module='absent_library.make'),
         'absent_library is not installed.*`pip install absent_library`'),
        (dict(module='timm.create_modell'), "is 'timm.create_modell', which"),
        (dict(module='timm.__version__'), 'which is a str'),
        (dict(module='builtins.dict'), 'builtins.dict. returns a dict, no'),
        (dict(kwargs=dict(model_name='vit_of_nobody')),
         "create_model.*fails with.*vit_of_nobody.*Unknown model"),
        (dict(kwargs=3), '`teacher.kwargs` is 3. Write a dict'),
        (dict(module=3), '`teacher.module` is 3. Write the path'),
        (dict(config='x.py'), '`config` and also `module`'),
        (dict(module=None), 'has no `config`.*is a `module` instead'),
        (dict(module=nn.Conv2d(1, 1, 1)), 'which is built already'),
        (dict(input_size=0), r'`teacher.input_size` is 0. Use a positive'),
        (dict(input_size=(1, 2, 3)), '`teacher.input_size` is'),
        (dict(input_size='448'), "`teacher.input_size` is '448'"),
    ],
)  # fmt: skip
def test_what_builds_no_network_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FrozenTeacher(**{**vit(), **changes})


def test_weights_have_to_be_asked_for():
    teacher = vit()
    del teacher['checkpoint']
    with pytest.raises(ValueError, match='has no `checkpoint`'):
        FrozenTeacher(**teacher)


@pytest.mark.skipif(find_spec('open_clip') is not None, reason='installed')
def test_pip_has_another_name():
    with pytest.raises(ValueError, match='`pip install open-clip-torch`'):
        FrozenTeacher(module='open_clip.create_model', checkpoint=None)


def test_an_entry_that_taps_nothing_there(build):
    with pytest.raises(
        ValueError, match="no module 'backbone'.*blocks.0.attn"
    ):
        build(config(vit(), dict(at='backbone[-1]', **PROJECTED)))


# What normalises its images


def test_images_are_normalised_as_timm_says(ready, log):
    model = ready(config(vit()))
    raw = torch.randint(0, 256, (2, 3, 32, 32)).float()
    seen = seen_by(model.teacher.network.patch_embed)
    batch = dict(inputs=list(raw))
    inputs = model.data_preprocessor(batch, True)['inputs']
    data = {**images(32), 'inputs': inputs}
    model(**data, mode='loss')
    expected = (raw.flip(1) / 255 - 0.5) / 0.5
    torch.testing.assert_close(seen[-1], expected, rtol=1e-4, atol=1e-4)
    assert 'by `pretrained_cfg` of timm' in log.text
    assert "the teacher's input is converted" in log.text


@pytest.mark.parametrize('where', ['folder', 'checkpoint'])
def test_hugging_face_says_it_beside_the_weights(tmp_path, where):
    processor = dict(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.25, 1])
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(processor))
    network = nn.Conv2d(3, 4, 1)
    file = None
    if where == 'folder':
        network.config = ConfigDict(_name_or_path=str(tmp_path))
    else:
        file = tmp_path / 'model.safetensors'
    said = statistics_of(network, file)
    assert said.mean == pytest.approx((25.5, 51, 76.5))
    assert said.std == pytest.approx((127.5, 63.75, 255))
    assert said.rgb and str(tmp_path) in said.cure


@pytest.mark.parametrize(
    'settings, expected',
    [
        (dict(do_rescale=False), ([10, 20, 30], [2, 4, 5], True)),
        (dict(rescale_factor=0.5), ([20, 40, 60], [4, 8, 10], True)),
        (dict(do_normalize=False), ([0, 0, 0], [255, 255, 255], True)),
        (dict(do_rescale=False, do_flip_channel_order=True),
         ([10, 20, 30], [2, 4, 5], False)),
        (dict(do_rescale=False, include_top=True),
         ([10, 20, 30], [4, 16, 25], True)),
        (dict(rescale_factor=0.5, rescale_offset=True),
         ([22, 42, 62], [4, 8, 10], True)),
        (dict(image_mean=None), None),
    ],
)  # fmt: skip
def test_what_an_image_processor_says(tmp_path, settings, expected):
    given = dict(image_mean=[10, 20, 30], image_std=[2, 4, 5])
    file = tmp_path / 'preprocessor_config.json'
    file.write_text(json.dumps({**given, **settings}))
    said = statistics_of(nn.Conv2d(3, 4, 1), tmp_path / 'x.pth')
    if expected is None:
        assert said is None
        return
    assert said.mean == pytest.approx(expected[0])
    assert said.std == pytest.approx(expected[1])
    assert said.rgb is expected[2]


def test_an_image_processor_that_cannot_be_read(tmp_path):
    (tmp_path / 'preprocessor_config.json').write_text('{')
    with pytest.raises(ValueError, match='cannot be read'):
        statistics_of(nn.Conv2d(3, 4, 1), tmp_path / 'x.pth')


def test_nothing_is_said_of_images_of_other_channels():
    """timm names three values, whatever `in_chans` is."""
    network = timm.create_model(**VIT, in_chans=1)
    assert len(network.pretrained_cfg['mean']) == 3
    assert statistics_of(network) is None


def test_a_data_preprocessor_that_contradicts(build):
    given = dict(type='ImgDataPreprocessor', bgr_to_rgb=True)
    build(config(vit(data_preprocessor={**given, **HALF})))
    given.update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    with pytest.raises(ValueError) as caught:
        build(config(vit(data_preprocessor=given)))
    for words in (
        '`teacher.data_preprocessor` has mean [123.675, 116.28, 103.53]',
        '`pretrained_cfg` of timm has mean [127.5, 127.5, 127.5]',
        'pretrained_cfg_overlay=dict(mean=..., std=...)',
    ):
        assert words in str(caught.value)
    overlay = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    build(
        config(
            vit(dict(pretrained_cfg_overlay=overlay), data_preprocessor=given)
        )
    )


@pytest.mark.parametrize('rgb', [True, False])
def test_an_order_of_channels_that_contradicts(build, log, rgb):
    given = dict(type='ImgDataPreprocessor', bgr_to_rgb=rgb, **HALF)
    build(config(vit(data_preprocessor=given)))
    said = '`teacher.data_preprocessor` gives the teacher BGR' in log.text
    assert said != rgb


def test_the_order_of_channels_has_to_be_certain(ready):
    """A student that swaps none: files are BGR, CIFAR is RGB."""
    student = tiny_recipes.classifier()
    student['data_preprocessor']['to_rgb'] = False
    with pytest.raises(ValueError) as caught:
        ready(config(vit(), student=student))
    cure = (
        "`teacher.data_preprocessor` to dict(type='ImgDataPreprocessor', "
        'mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], '
        'bgr_to_rgb=True) for BGR'
    )
    assert cure in str(caught.value)
    for swap in (True, False):
        given = dict(type='ImgDataPreprocessor', bgr_to_rgb=swap, **HALF)
        model = ready(config(vit(data_preprocessor=given), student=student))
        assert model.teacher._conversion.swap is swap


def test_a_student_of_which_nobody_says_it(log):
    """A loop of one's own has normalised the images."""
    teacher = FrozenTeacher(**vit())
    teacher.match_input(None)
    assert teacher._conversion is None
    assert "Nothing says what normalises the student's images" in log.text
    assert 'it wants mean [127.5, 127.5, 127.5]' in log.text


def test_a_library_that_says_nothing(ready, log):
    teacher = dict(
        module='torchvision.models.resnet18', kwargs={}, checkpoint=None
    )
    model = ready(config(teacher, dict(TOKENS, teacher_at='layer2')))
    assert model.teacher._conversion is None
    assert 'what normalises the images of the teacher ResNet. ' in log.text
    assert "takes the student's: mean [120, 118, 110]" in log.text


def test_a_built_model_has_its_own(ready, build):
    network = build(tiny_recipes.classifier(6))
    network.data_preprocessor = ImgDataPreprocessor(**HALF, bgr_to_rgb=True)
    entry = dict(at='backbone[-1]', **PROJECTED)
    model = ready(config(network, entry, 16))
    assert model.teacher._conversion is not None
    assert compared(model, images()) == dict(f=pair(2, 24, 4, 4))


@pytest.mark.parametrize('by', ['key', 'library'])
def test_raw_values_are_an_answer(ready, log, tmp_path, by):
    teacher = dict(module=Network(5), checkpoint=None)
    if by == 'key':
        teacher['data_preprocessor'] = dict(type='BaseDataPreprocessor')
    else:
        raw = dict(
            do_rescale=False,
            do_normalize=False,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        file = tmp_path / 'preprocessor_config.json'
        file.write_text(json.dumps(raw))
        teacher['module'].config = ConfigDict(_name_or_path=str(tmp_path))
    model = ready(config(teacher, dict(TOKENS, teacher_at='layer'), 16))
    assert "takes the student's" not in log.text
    data = images()
    seen = seen_by(model.teacher.network)
    model(**data, mode='loss')
    student = model.data_preprocessor
    raw = data['inputs'] * student.std + student.mean
    if by == 'key':
        # As loaded.
        raw = raw.flip(1)
    torch.testing.assert_close(seen[-1], raw)


# The size of its images


def test_images_are_resized_for_it(ready):
    model = ready(config(vit(input_size=32), size=16))
    seen = seen_by(model.teacher.network.patch_embed)
    data = images(16)
    model(**data, mode='loss')
    converted = model.teacher._conversion(data['inputs'])
    expected = F.interpolate(
        converted, (32, 32), mode='bilinear', antialias=True
    )
    torch.testing.assert_close(seen[-1], expected)
    assert compared(model, data) == dict(f=pair(2, 16, 4, 4))


def test_images_of_its_own_size_are_left_alone(ready):
    model = ready(config(vit(input_size=32)))
    seen = seen_by(model.teacher.network.patch_embed)
    data = images(32)
    model(**data, mode='loss')
    assert torch.equal(seen[-1], model.teacher._conversion(data['inputs']))


def test_clips_are_resized_frame_by_frame():
    network = Network(4)
    network.register_forward_pre_hook(lambda m, args: args[0].flatten(0, 1))
    teacher = FrozenTeacher(module=network, input_size=(6, 4))
    teacher.attach(['layer'], (5, 3, 8, 8))
    clips = torch.rand(2, 5, 3, 8, 8)
    ((found,),) = teacher(clips, ['layer']).values()
    assert found.shape == (10, 4, 6, 4)
    frame = F.interpolate(
        clips[1, 2:3], (6, 4), mode='bilinear', antialias=True
    )
    expected = network.layer(frame)
    torch.testing.assert_close(found[7:8], expected)


def test_tokens_are_the_grid_of_its_own_images(ready):
    """Images of any shape, of which the teacher sees squares."""
    entry = dict(TOKENS, student_at='backbone[2]')
    detector = tiny_detectors.distiller(
        'retinanet', dict(f=entry), teacher=vit(input_size=32)
    )
    model = ready(detector)
    data = tiny_detectors.batch(model, sizes=[(64, 96), (64, 70)])
    assert compared(model, data) == dict(f=pair(2, 16, 4, 4))


def test_boxes_are_in_the_images_of_the_student(build):
    entry = dict(at='roi_head.bbox_head.fc_reg', **PROJECTED)
    detector = tiny_detectors.distiller('faster', dict(boxes=entry))
    detector['teacher']['input_size'] = 128
    with pytest.raises(ValueError, match='`teacher.input_size` is .128, 128'):
        build(detector)


def test_position_embeddings_of_timm(ready, build):
    """Without its own means for images of another size, the cure is named."""
    message = (
        r'cannot run on images of 3 x 64 x 64.*on images of 3 x 32 x 32. Set '
        r'`teacher.input_size=\(32, 32\)`.*dynamic_img_size=True'
    )
    with pytest.raises(ValueError, match=message):
        build(config(vit(), size=64))
    for cured, shape in (
        (vit(input_size=(32, 32)), (16, 4, 4)),
        (vit(dict(dynamic_img_size=True)), (16, 8, 8)),
    ):
        model = ready(config(cured, size=64))
        assert compared(model, images(64)) == dict(f=pair(2, *shape))


def test_the_mean_of_teachers_of_two_sizes_of_images(ready):
    """Patches of 8 of 32 x 32, and of 16 of 64 x 64: one grid."""
    entry = dict(TOKENS, teacher=['a', 'b'])
    large = vit(dict(img_size=64, patch_size=16), input_size=64)
    given = config(None, entry, 16)
    del given['teacher']
    given['teachers'] = dict(a=vit(input_size=32), b=large)
    assert compared(ready(given), images()) == dict(f=pair(2, 16, 4, 4))
    given['teachers']['b'] = vit()
    given['input_size'] = 32
    with pytest.raises(ValueError, match='images of one size'):
        ready(given)
