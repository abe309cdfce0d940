import dataclasses

import pytest
import timm
import tiny_recipes
import tiny_segmenters
import torch
from mmengine.registry import MODELS
from tiny_entries import MAP_S, compare, entry, tapped
from torch import nn
from torch.nn import functional as F

from mmdiffkd.models.distillers.layout import Layout
from mmdiffkd.models.distillers.probe import dry_run, tapped_levels
from mmdiffkd.models.distillers.recognition import layout_of
from mmdiffkd.models.distillers.taps import Taps

KL = dict(neck=None, loss=dict(type='KLDivergence'))


@pytest.mark.parametrize(
    'shape, grown, expected',
    [
        ((2, 5), None, Layout('NC')),
        ((2, 5, 8, 8), None, Layout('NCHW')),
        # A grid that one reading allows.
        ((2, 8, 8, 5), (2, 16, 16, 5), Layout('NHWC')),
        # Cubes: what grows with the image are positions.
        ((2, 8, 8, 8), (2, 8, 16, 16), Layout('NCHW')),
        ((2, 8, 8, 8), (2, 16, 16, 8), Layout('NHWC')),
        # No grid of the image, as behind a convolution without padding.
        ((2, 4, 13, 13), (2, 4, 29, 29), Layout('NCHW')),
        ((2, 16, 5), (2, 64, 5), Layout('NLC')),
        ((2, 17, 5), (2, 65, 5), Layout('NLC', 1)),
        ((2, 21, 5), (2, 69, 5), Layout('NLC', 5)),
        ((2, 5, 16), (2, 5, 64), Layout('NCL')),
        ((2, 1, 5), (2, 1, 5), Layout('NC')),
    ],
)
def test_certain_layouts(shape, grown, expected):
    assert layout_of(tapped(shape, grown), (32, 32)) == expected


@pytest.mark.parametrize(
    'shape, grown, words',
    [
        # A network that takes images of one size alone.
        ((2, 17, 24), None, ["layout='NLC': 17 tokens of 24 channels, with",
                             "layout='NCL': 24 tokens", "layout='NC': 17 v"]),
        ((2, 16, 24), None, ["layout='NLC': 16 tokens .* grid of 4 x 4"]),
        # Queries or keypoints, whose number is fixed.
        ((2, 16, 24), (2, 16, 24), ["layout='NLC'", "layout='NC'"]),
        # Both axes change.
        ((2, 16, 16), (2, 64, 64), ["layout='NLC'", "layout='NC'"]),
        # Tokens of several maps in a row.
        ((2, 80, 24), (2, 320, 24), ["layout='NLC'", "layout='NC'"]),
        ((2, 6, 6, 6), (2, 6, 6, 6), ["layout='NCHW': 6 channels on a map",
                                      "layout='NHWC'"]),
        # The queries of three heads of attention.
        ((2, 3, 17, 64), (2, 3, 17, 64),
         ["layout='NCHW': 3 .* 17 x 64, no grid", "layout='NHWC'",
          "layout='NC': 51 vectors of 64"]),
    ],
)  # fmt: skip
def test_ambiguous_tensors_show_their_readings(shape, grown, words):
    with pytest.raises(ValueError, match='more than one reading') as error:
        layout_of(tapped(shape, grown, role='teacher'), (32, 32))
    for each in [*words, '`layout` or `teacher_layout`']:
        assert error.match(each)


@pytest.mark.parametrize(
    'shape, grown, said, message',
    [
        ((2, 8, 8), None, ('NCHW', None), "3. Use 'NLC' or 'NCL' or 'NC'"),
        ((2, 8), None, ('NLC', None), "has 2. Use 'NC'"),
        ((2, 8, 8, 8), (2, 16, 16, 8), ('NCHW', None),
         r'channels .* change with the image: for 64 x 64 .*16, 16, 8'),
        ((2, 8, 8, 5), None, ('NCHW', None), "grid .* in 'NHWC' alone"),
        ((2, 17, 5), (2, 65, 5), ('NCL', None), 'change with the image'),
        ((2, 8, 4, 4), None, (None, 1), 'has no tokens. Leave it out'),
        ((2, 8), None, (None, 1), 'has no tokens. Leave it out'),
        ((2,), None, (None, None), '1 axes are neither'),
        ((2, 3, 4, 4, 4), None, (None, None), "5 axes .*layout='NC'"),
        # Windows of attention.
        ((128, 49, 24), (512, 49, 24), (None, None), '128 samples for 2'),
        ((8, 4, 4, 24), (32, 4, 4, 24), (None, None), '8 samples for 2'),
    ],
)  # fmt: skip
def test_what_cannot_be(shape, grown, said, message):
    with pytest.raises(ValueError, match=message):
        layout_of(tapped(shape, grown), (32, 32), *said)


def test_the_entry_says_what_it_is():
    image = (256, 192)
    tokens = tapped((2, 17, 24))
    assert layout_of(tokens, image, 'NC') == Layout('NC')
    assert layout_of(tokens, image, 'NLC', 5) == Layout('NLC', 5)
    assert layout_of(tokens, image, None, 5) == Layout('NLC', 5)
    assert layout_of(tokens, image, 'NLC') == Layout('NLC')
    cube = tapped((2, 8, 8, 8), (2, 8, 8, 8))
    assert layout_of(cube, (32, 32), 'NHWC') == Layout('NHWC')
    assert layout_of(tapped((2, 3, 4, 5, 6)), image, 'NC') == Layout('NC')


def found(network, tap, size, training=True):
    taps = Taps(network, [tap], 'student')
    shapes, _ = dry_run(network, taps, (3, *size), training)
    levels = tapped_levels(network, taps, shapes, (3, *size), training)[tap]
    calls = taps.calls
    layouts = [layout_of(level, size) for level in levels]
    # Looking at another size leaves the norm of this one.
    assert taps.calls == calls
    return [
        (x.axes, x.prefix_tokens, tuple(x.arranged(level.shape, size)[1:]))
        for x, level in zip(layouts, levels)
    ]


@pytest.mark.parametrize(
    'name, options, tap, size, expected',
    [
        ('swin_tiny_patch4_window7_224', {}, 'layers.0', 224,
         ('NHWC', 0, (96, 56, 56))),
        ('swin_tiny_patch4_window7_224', {}, 'patch_embed.proj', 224,
         ('NCHW', 0, (96, 56, 56))),
        # 64 channels on 64 x 64, and no other size is taken.
        ('swin_tiny_patch4_window7_224',
         dict(img_size=256, window_size=8, embed_dim=64), 'layers.0', 256,
         ('NHWC', 0, (64, 64, 64))),
        ('vit_small_patch14_reg4_dinov2', dict(img_size=56), 'norm', 56,
         ('NLC', 5, (384, 4, 4))),
        ('vit_small_patch14_reg4_dinov2', dict(img_size=56), 'patch_embed',
         56, ('NLC', 0, (384, 4, 4))),
        ('deit_tiny_distilled_patch16_224', dict(img_size=64), 'blocks', 64,
         ('NLC', 2, (192, 4, 4))),
        # Its 1024 channels are a grid of the image, too.
        ('vit_large_patch16_224', dict(depth=1), 'blocks.0', 224,
         ('NLC', 1, (1024, 14, 14))),
        ('mixer_s32_224', {}, 'norm', 224, ('NLC', 0, (512, 7, 7))),
    ],
)  # fmt: skip
def test_networks_of_timm(name, options, tap, size, expected):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = timm.create_model(name, num_classes=2, **options)

        def forward(self, inputs, mode='tensor'):
            return self.model(inputs)

    assert found(Classifier(), f'model.{tap}', (size, size)) == [expected]


def test_tokens_in_the_order_of_windows_are_no_map():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = timm.create_model('hiera_tiny_224', num_classes=2)

        def forward(self, inputs, mode='tensor'):
            return self.model(inputs)

    with pytest.raises(ValueError, match='in the order of windows'):
        found(Classifier(), 'model.blocks.0', (224, 224))


def test_dropped_tokens_are_no_map():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = timm.create_model(
                'vit_tiny_patch16_224', depth=1, patch_drop_rate=0.75
            )

        def forward(self, inputs, mode='tensor'):
            return self.model(inputs)

    with pytest.raises(ValueError, match='dropped at random in training'):
        found(Classifier(), 'model.blocks.0', (224, 224))


def test_tokens_masked_in_training_are_no_smaller_map():
    made = entry(
        students=[tapped((2, 17, 4), (2, 65, 4))],
        teachers=[tapped((2, 16, 4), (2, 64, 4))],
        neck=None,
    )
    teacher = torch.randn(2, 16, 4)
    masked = torch.randn(2, 5, 4)
    with pytest.raises(ValueError, match='5 tokens .* grid of 4 x 4 for 32'):
        made([masked], [teacher], (32, 32), {}, (1, 0, 0))
    # Of a smaller image they are all.
    losses, _ = made([masked], [teacher[:, :4]], (16, 16), {}, (1, 0, 0))
    assert losses['loss_kd'].isfinite()


@pytest.mark.parametrize(
    'backbone, tap, expected',
    [
        (dict(type='VisionTransformer', arch='deit-tiny', img_size=64,
              patch_size=16), 'backbone.layers.0',
         ('NLC', 1, (192, 4, 4))),
        (dict(type='DistilledVisionTransformer', arch='deit-tiny',
              img_size=64, patch_size=16), 'backbone.layers.0',
         ('NLC', 2, (192, 4, 4))),
        (dict(type='SwinTransformer', arch='tiny', img_size=64,
              pad_small_map=True),
         'backbone.stages.0.blocks.0', ('NLC', 0, (96, 16, 16))),
        # (B, C, N)
        (dict(type='MlpMixer', arch='b', img_size=64, patch_size=16),
         'backbone', ('NCL', 0, (768, 4, 4))),
        (dict(type='ConvNeXt', arch='atto', gap_before_final_norm=False),
         'backbone.stages.0.0.norm', ('NHWC', 0, (40, 16, 16))),
        (dict(type='ConvNeXt', arch='atto', gap_before_final_norm=False),
         'backbone.stages.0.0', ('NCHW', 0, (40, 16, 16))),
        # 16 channels on 16 x 16
        (dict(type='ResNet', depth=18, base_channels=16, stem_channels=16),
         'backbone.layer1', ('NCHW', 0, (16, 16, 16))),
    ],
)  # fmt: skip
def test_networks_of_mmpretrain(backbone, tap, expected):
    model = dict(
        type='mmpretrain.ImageClassifier',
        backbone={**backbone, 'type': f'mmpretrain.{backbone["type"]}'},
    )
    assert found(MODELS.build(model), tap, (64, 64)) == [expected]


def test_maps_of_a_fixed_size(build):
    network = build(tiny_segmenters.segmenter('pspnet', 4))
    tap = 'decode_head.psp_modules.1'
    ((axes, _, shape),) = found(network, tap, (64, 64))
    assert (axes, shape[1:]) == ('NCHW', (2, 2))


def test_levels_are_named(build):
    network = build(tiny_recipes.classifier())
    taps = Taps(network, ['backbone', 'backbone[:]', 'backbone[-1]'], 'x')
    dry_run(network, taps, (3, 16, 16), True)
    assert taps.names('backbone') == ['backbone[0]', 'backbone[1]']
    assert taps.names('backbone[:]') == ['backbone[0]', 'backbone[1]']
    assert taps.names('backbone[-1]') == ['backbone[-1]']


def logits(batch=3, count=17, classes=24):
    return [torch.randn(batch, count, classes) for _ in range(2)]


@pytest.mark.parametrize('layout', ['NLC', 'NC'])
def test_positions_under_a_loss_over_classes_are_a_row_each(layout):
    shapes = dict(
        students=[tapped((2, 17, 24))], teachers=[tapped((2, 17, 24))]
    )
    made = entry(**shapes, **KL, layout=layout)
    assert made.shapes == [((34, 24), (34, 24))]
    student, teacher = logits()
    losses, _ = made([student], [teacher], (32, 32), {}, (1, 0, 0))
    expected = F.kl_div(
        student.flatten(0, 1).log_softmax(1),
        teacher.flatten(0, 1).softmax(1),
        reduction='batchmean',
    )
    torch.testing.assert_close(losses['loss_kd'], expected)


def test_prefix_tokens_are_said_apart():
    student, teacher = torch.randn(3, 17, 4), torch.randn(3, 21, 4)
    made = entry(
        students=[tapped((2, 17, 4))],
        teachers=[tapped((2, 21, 4))],
        student_prefix_tokens=1,
        teacher_prefix_tokens=5,
        neck=None,
    )
    losses, _ = made([student], [teacher], (32, 32), {}, (1, 0, 0))
    expected = F.mse_loss(student[:, 1:], teacher[:, 5:])
    torch.testing.assert_close(losses['loss_kd'], expected)


def test_a_map_with_channels_last_equals_one_with_channels_first():
    student, teacher = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    expected, _ = entry(teachers=[MAP_S], neck=None)(
        [student], [teacher], (32, 32), {}, (1, 0, 0)
    )
    last = tapped((2, 8, 8, 4), (2, 16, 16, 4))
    found, _ = entry(teachers=[last], neck=None)(
        [student], [teacher.permute(0, 2, 3, 1)], (32, 32), {}, (1, 0, 0)
    )
    torch.testing.assert_close(found['loss_kd'], expected['loss_kd'])


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(layout='HWC'), "layout` is 'HWC'. Use 'NCHW', 'NHWC', 'NLC'"),
        (dict(prefix_tokens=-1), 'prefix_tokens` is -1. Use a number of tok'),
        (dict(layout='NC', teacher_layout='NC'),
         'has `layout` and also `student_layout` or `teacher_layout`'),
        (dict(prefix_tokens=1, student_prefix_tokens=1),
         'has `prefix_tokens` and also'),
        (dict(layouts='NC'), "unknown key 'layouts'.*'layout'"),
        (dict(activation='relu'), "activation` is 'relu'. Use 'softmax' or"),
    ],
)  # fmt: skip
def test_wrong_keys(changes, message):
    with pytest.raises(ValueError, match=message):
        entry(**changes)


def test_a_loss_for_images_does_not_take_positions():
    shape = tapped((2, 17, 24))
    with pytest.raises(ValueError, match='gt_labels.*17 rows an image'):
        entry(
            students=[shape],
            teachers=[shape],
            neck=None,
            loss=dict(type='DKDLoss'),
            layout='NLC',
        )


def test_compared_shapes_follow_the_batch():
    made = entry(
        students=[tapped((2, 17, 24))],
        teachers=[tapped((2, 17, 24))],
        **KL,
        layout='NC',
    )
    losses, _ = compare(made, batch=51)
    assert losses['loss_kd'].isfinite()


def test_other_numbers_of_positions():
    with pytest.raises(ValueError, match='gives 16 vectors an image.* 17'):
        entry(
            students=[tapped((2, 16, 24))],
            teachers=[tapped((2, 17, 24))],
            **KL,
            layout='NLC',
        )


def test_layer_norm_of_whole_maps_has_no_channels_last():
    network = nn.Sequential(nn.LayerNorm([48, 8, 8]))
    network.norm = network[0]
    level = tapped((2, 48, 8, 8), network=network)
    level = dataclasses.replace(level, tap='norm')
    assert layout_of(level, (32, 32)) == Layout('NCHW')
