from functools import cache

import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models import LinearClsHead, MultiLabelLinearClsHead
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmpretrain.structures import DataSample
from torch import nn

from mmdiffkd.models.distillers.heads import (
    Head,
    check_labels,
    check_logits,
    head_of,
    multi_label_head,
)
from mmdiffkd.models.distillers.probe import dry_run
from mmdiffkd.models.distillers.taps import Taps
from mmdiffkd.models.losses.binary_kl_divergence import BinaryKLDivergence
from mmdiffkd.models.losses.crd import CRDLoss
from mmdiffkd.models.losses.dist import DISTLoss
from mmdiffkd.models.losses.dkd import DKDLoss
from mmdiffkd.models.losses.kl_divergence import KLDivergence
from mmdiffkd.models.losses.ld import LDLoss
from mmdiffkd.models.losses.lsh import LSHLoss
from mmdiffkd.models.losses.mse import MSELoss
from mmdiffkd.models.necks.dskd import DSKDNeck
from mmdiffkd.utils import load_config


def found_at(network, tap, training=False):
    """What each level of a tap is, from the tensors that it yields."""
    taps = Taps(network, [tap], 'student')
    shapes, _ = dry_run(network, taps, (3, 64, 64), True)
    heads = [
        head_of(network, tap, shape[1], training) for shape in shapes[tap]
    ]
    return [head and str(head) for head in heads]


# mmpretrain


def classifier(head):
    config = tiny_recipes.classifier()
    config['head'] = head
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config)


def head(kind, **changes):
    return dict(type=kind, num_classes=5, in_channels=16, **changes)


SOFTMAX = 'LinearClsHead: a softmax over 5 classes'
SIGMOID = (
    'MultiLabelLinearClsHead: a sigmoid for each channel, several labels an '
    'image'
)
SMOOTHED = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
LOSSES = [
    (dict(type='CrossEntropyLoss'), 'softmax'),
    (dict(type='CrossEntropyLoss', use_soft=True), 'softmax'),
    (dict(type='CrossEntropyLoss', use_sigmoid=True), 'sigmoid'),
    (SMOOTHED, 'softmax'),
    ({**SMOOTHED, 'mode': 'multi_label', 'use_sigmoid': True}, 'sigmoid'),
    (dict(type='AsymmetricLoss'), 'sigmoid'),
    (dict(type='AsymmetricLoss', use_sigmoid=False), 'softmax'),
    (dict(type='FocalLoss'), 'sigmoid'),
    (dict(type='SeesawLoss', num_classes=5), 'softmax'),
    (nn.CrossEntropyLoss(), 'softmax'),
    (nn.BCEWithLogitsLoss(), 'sigmoid'),
    (dict(type='RegressionLoss', loss_type='L1Loss'), None),
]


@pytest.mark.parametrize('trained_by, activation', LOSSES)
def test_the_loss_says_how_a_classifier_is_trained(trained_by, activation):
    # mmpretrain predicts by a softmax from the one and by a sigmoid from the
    # other. Where it trains by another, either may be meant.
    for kind, predicted, expected in (
        ('LinearClsHead', 'softmax', SOFTMAX),
        ('MultiLabelLinearClsHead', 'sigmoid', SIGMOID),
    ):
        network = classifier(head(kind, loss=trained_by))
        expected = expected if activation == predicted else None
        for tap in ('head', 'head.fc'):
            assert found_at(network, tap) == [expected]
        several = multi_label_head(network)
        assert (several is not None) == (expected == SIGMOID)


def test_features_are_no_logits():
    network = classifier(head('LinearClsHead'))
    for tap in (
        'neck[-1]',
        'backbone[-1]',
        'backbone.layer3',
        'head.fc@input',
    ):
        assert found_at(network, tap) == [None]


VIT = 'VisionTransformerClsHead'
STACKED = head('StackedLinearClsHead', mid_channels=[5, 8])


@pytest.mark.parametrize(
    'config, logits, features',
    [
        (
            STACKED,
            ['head', 'head.layers.2', 'head.layers.2.fc'],
            ['head.layers.0', 'head.layers.0.fc'],
        ),
        (head(VIT), ['head', 'head.layers.head'], []),
        (
            head(VIT, hidden_dim=5),
            ['head', 'head.layers.head'],
            ['head.layers.pre_logits', 'head.layers.act'],
        ),
        (head('VigClsHead', hidden_dim=7), ['head', 'head.fc2'], ['head.fc1']),
        (
            head('EfficientFormerClsHead', distillation=False),
            ['head', 'head.head'],
            [],
        ),
        (
            head('LeViTClsHead', distillation=False),
            ['head', 'head.head', 'head.head.linear'],
            ['head.head.bn'],
        ),
    ],
)
def test_classifiers_of_several_layers(config, logits, features):
    network = classifier(config)
    expected = f'{config["type"]}: a softmax over 5 classes'
    for tap in logits:
        assert found_at(network, tap) == [expected]
    for tap in features:
        assert found_at(network, tap) == [None]


def test_regression_gives_no_logits():
    network = classifier(head('LinearRegressionHead'))
    assert head_of(network, 'head', 5).kind == 'other'
    assert head_of(network, 'head.fc', 5).activation is None


def test_parts_of_a_sum_of_heads_are_no_logits():
    config = tiny_recipes.classifier()
    del config['neck']
    config['head'] = head('CSRAClsHead', num_heads=2, lam=0.1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(config)
    (found,) = found_at(network, 'head')
    assert found.endswith(
        'a sigmoid for each channel, several labels an image'
    )
    for part in ('head.csra_heads.0', 'head.csra_heads.1.head'):
        assert found_at(network, part) == [f'CSRAClsHead: {OFFSETS}']


def multi_task(parts):
    tasks = dict(
        kind=dict(type='LinearClsHead', num_classes=5),
        parts=dict(type='MultiLabelLinearClsHead', num_classes=parts),
    )
    return classifier(
        dict(type='MultiTaskHead', task_heads=tasks, in_channels=16)
    )


def test_each_task_has_its_own_head():
    network = multi_task(3)
    for training in (False, True):
        at = 'head.task_heads.kind.fc'
        assert found_at(network, at, training) == [SOFTMAX]
        (parts,) = found_at(network, 'head.task_heads.parts', training)
        assert 'a sigmoid for each channel, several labels an image' in parts
    assert multi_label_head(network).name == 'MultiTaskHead'


def test_the_heads_of_all_tasks_at_once():
    name = 'MultiTaskHead'
    assert found_at(multi_task(3), 'head') == [
        f'{name}: a softmax over 5 classes',
        f'{name}: {EACH}',
    ]
    # As many labels as classes: which is which is not certain.
    found = head_of(multi_task(5), 'head', 5)
    assert found.kind == 'unclear'
    assert found.cure == (
        "Tap the one that you mean: 'head.task_heads.kind' (a softmax over 5 "
        f"classes) or 'head.task_heads.parts' ({EACH})."
    )
    # The loss of the student calls the head of each task.
    found = head_of(multi_task(3), 'head', 5, training=True)
    assert found.kind == 'changing' and "'head.task_heads.NAME'" in found.cure


def test_only_a_student_gives_logits_with_a_margin():
    network = classifier(head('ArcFaceClsHead', num_subcenters=2))
    for tap in ('head', 'head.norm_product'):
        expected = ['ArcFaceClsHead: a softmax over 5 classes']
        assert found_at(network, tap) == expected
    assert found_at(network, 'head.norm_product', training=True) == expected
    found = head_of(network, 'head', 5, training=True)
    assert found.kind == 'changing' and "'head.norm_product'" in found.cure


@MMPRETRAIN.register_module()
class OwnLossHead(LinearClsHead):
    """Trains what its layer returns in a way that nobody can know."""

    def loss(self, feats, data_samples, **kwargs):
        return dict(loss=self(feats).square().mean())


@MMPRETRAIN.register_module()
class OwnOutputHead(MultiLabelLinearClsHead):
    def forward(self, feats):
        return super().forward(feats).softmax(1)


@pytest.mark.parametrize('kind', ['OwnLossHead', 'OwnOutputHead'])
def test_nothing_is_said_of_a_head_with_a_forward_or_loss_of_its_own(kind):
    network = classifier(head(kind))
    assert found_at(network, 'head.fc') == found_at(network, 'head') == [None]


@pytest.mark.parametrize(
    'name, taps, feature',
    [
        ('resnet18', ['model', 'model.fc'], 'model.global_pool'),
        (
            'convnext_atto',
            ['model', 'model.head', 'model.head.fc'],
            'model.head.norm',
        ),
        ('vit_tiny_patch16_224', ['model', 'model.head'], 'model.fc_norm'),
    ],
)
def test_classifiers_of_timm(name, taps, feature):
    pytest.importorskip('timm')
    config = dict(type='TimmClassifier', model_name=name, num_classes=7)
    with torch.device('meta'):
        network = MMPRETRAIN.build(config)
    for tap in taps:
        found = head_of(network, tap, 7)
        assert str(found) == 'TimmClassifier: a softmax over 7 classes'
    assert head_of(network, feature, 7) is None
    assert head_of(network, taps[-1], 8) is None


def test_classifiers_of_hugging_face(tmp_path):
    transformers = pytest.importorskip('transformers')
    config = transformers.ResNetConfig(
        num_labels=7,
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    network = MMPRETRAIN.build(
        dict(type='HuggingFaceClassifier', model_name=str(tmp_path))
    )
    for tap in ('model.classifier', 'model.classifier.1'):
        found = head_of(network, tap, 7)
        assert str(found) == 'HuggingFaceClassifier: a softmax over 7 classes'
    assert head_of(network, 'model.classifier.0', 7) is None
    assert head_of(network, 'model.resnet', 7) is None


# mmseg


def segmenter(name, **changes):
    return MODELS.build(tiny_segmenters.segmenter(name, **changes))


FCN = 'FCNHead: a softmax over 5 classes'


def test_segmenters():
    network = segmenter('fcn')
    for name in ('decode_head', 'auxiliary_head'):
        for tap in (name, f'{name}.conv_seg'):
            assert found_at(network, tap) == [FCN]
        for tap in (f'{name}.convs.0', f'{name}.conv_seg@input'):
            assert found_at(network, tap) == [None]


def test_cascades_of_segmentation_heads():
    network = segmenter('ocrnet')
    assert found_at(network, 'decode_head.0') == [FCN]
    for tap in ('decode_head.1', 'decode_head.1.conv_seg'):
        assert found_at(network, tap) == ['OCRHead: a softmax over 5 classes']
    assert found_at(network, 'decode_head.1.bottleneck') == [None]


def dense(**changes):
    return dict(decode_head=changes, auxiliary_head=changes)


BINARY = dict(type='CrossEntropyLoss', use_sigmoid=True)
PLAIN = dict(type='CrossEntropyLoss')
DICE = dict(type='DiceLoss')
TWO = dict(num_classes=2, out_channels=1, threshold=0.3)


@pytest.mark.parametrize(
    'changes, expected',
    [
        (dict(loss_decode=BINARY), 'a sigmoid for each channel'),
        (dict(loss_decode=BINARY, **TWO), 'a sigmoid for each channel'),
        # mmseg predicts by a sigmoid from one channel.
        (dict(loss_decode=PLAIN, **TWO), 'a sigmoid for each channel'),
        (
            dict(loss_decode=[BINARY, {**DICE, 'loss_name': 'loss_dice'}]),
            'a sigmoid for each channel',
        ),
        (dict(loss_decode=dict(type='OhemCrossEntropy')), FCN[9:]),
        # The losses do not agree.
        (
            dict(loss_decode=[PLAIN, {**DICE, 'loss_name': 'loss_dice'}]),
            None,
        ),
        (dict(loss_decode=dict(type='BoundaryLoss')), None),
    ],
)
def test_the_losses_say_how_a_segmenter_is_trained(changes, expected):
    config = tiny_segmenters.segmenter('fcn')
    for name in ('decode_head', 'auxiliary_head'):
        config[name]['loss_decode'] = changes['loss_decode']
        config[name].update(changes)
    network = MODELS.build(config)
    for tap in ('decode_head', 'auxiliary_head.conv_seg'):
        assert found_at(network, tap) == [expected and f'FCNHead: {expected}']


# mmdet


class Lone(nn.Module):
    """A head without the network around it."""

    def __init__(self, config):
        super().__init__()
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.bbox_head = MODELS.build({**config, '_scope_': 'mmdet'})


@cache
def stock_head(file, key='bbox_head'):
    return Lone(load_config(f'mmdet::{file}.py').model[key])


OFFSETS = 'values such as box offsets or parts of a sum, no plain logits'
EACH = 'a sigmoid for each channel'
ANCHORS = 9
STOCK = {
    'RetinaHead': (
        'retinanet/retinanet_r50_fpn_1x_coco',
        {
            ('retina_cls', ANCHORS * 80): EACH,
            ('retina_reg', ANCHORS * 4): OFFSETS,
            ('cls_convs.0', 256): None,
            ('cls_convs.3.conv', 256): None,
        },
    ),
    'FCOSHead': (
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
        {
            ('conv_cls', 80): EACH,
            ('conv_reg', 4): OFFSETS,
            ('scales.0', 4): OFFSETS,
            ('conv_centerness', 1): EACH,
        },
    ),
    'GFLHead': (
        'gfl/gfl_r50_fpn_1x_coco',
        {
            ('gfl_cls', 80): EACH,
            ('gfl_reg', 68): '4 distributions of 17 bins',
            ('scales.2', 68): '4 distributions of 17 bins',
            ('reg_convs.0', 256): None,
        },
    ),
    'ATSSHead': (
        'atss/atss_r50_fpn_1x_coco',
        {
            ('atss_cls', 80): EACH,
            ('atss_reg', 4): OFFSETS,
            ('atss_centerness', 1): EACH,
        },
    ),
    'VFNetHead': (
        'vfnet/vfnet_r50_fpn_1x_coco',
        {
            ('vfnet_cls', 80): EACH,
            ('vfnet_reg', 4): OFFSETS,
            ('vfnet_reg_refine', 4): OFFSETS,
            ('vfnet_reg_conv', 256): None,
        },
    ),
    'TOODHead': (
        'tood/tood_r50_fpn_1x_coco',
        {
            ('tood_cls', 80): EACH,
            ('tood_reg', 4): OFFSETS,
            ('cls_prob_module', 1): EACH,
            ('cls_prob_module.0', 64): None,
            ('reg_offset_module', 8): OFFSETS,
            ('', 80): OFFSETS,
        },
    ),
    'PAAHead': (
        'paa/paa_r50_fpn_1x_coco',
        {('atss_cls', 80): EACH, ('atss_reg', 4): OFFSETS},
    ),
    'RTMDetSepBNHead': (
        'rtmdet/rtmdet_tiny_8xb32-300e_coco',
        {
            ('rtm_cls.1', 80): EACH,
            ('rtm_reg.1', 4): OFFSETS,
            ('cls_convs.0.0', 96): None,
        },
    ),
    'YOLOXHead': (
        'yolox/yolox_tiny_8xb8-300e_coco',
        {
            ('multi_level_conv_cls.0', 80): EACH,
            ('multi_level_conv_reg.0', 4): OFFSETS,
            ('multi_level_conv_obj.0', 1): EACH,
            ('multi_level_cls_convs.0', 96): None,
        },
    ),
    'SSDHead': (
        'ssd/ssd300_coco',
        {
            ('cls_convs.0', 4 * 81): '4 distributions of 81 classes',
            ('cls_convs.1.0', 6 * 81): '6 distributions of 81 classes',
            ('reg_convs.0', 16): OFFSETS,
        },
    ),
    'YOLOV3Head': (
        'yolo/yolov3_d53_8xb8-ms-416-273e_coco',
        {
            ('convs_pred.0', 255): OFFSETS,
            ('convs_bridge.0', 1024): None,
        },
    ),
    'DETRHead': (
        'detr/detr_r50_8xb2-150e_coco',
        {
            ('fc_cls', 81): 'a softmax over 81 classes',
            ('fc_reg', 4): OFFSETS,
            ('reg_ffn', 256): None,
            # Its axis 1 are images, of which there could be as many.
            ('', 81): None,
        },
    ),
    'DeformableDETRHead': (
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
        {
            ('cls_branches.5', 80): EACH,
            ('reg_branches.5', 4): OFFSETS,
            ('reg_branches.5.4', 4): OFFSETS,
            ('reg_branches.5.2', 256): None,
        },
    ),
    'SABLRetinaHead': (
        'sabl/sabl-retinanet_r50_fpn_1x_coco',
        {
            ('retina_cls', 80): EACH,
            ('retina_bbox_reg', 28): OFFSETS,
            ('retina_bbox_cls', 28): None,
        },
    ),
    'YOLOFHead': (
        'yolof/yolof_r50-c5_8xb8-iter-1x_coco',
        {
            ('cls_score', 5 * 80): EACH,
            ('bbox_pred', 5 * 4): OFFSETS,
            ('object_pred', 5): EACH,
            ('cls_subnet.1.conv', 512): None,
            ('', 5 * 80): EACH,
            ('', 5 * 4): OFFSETS,
        },
    ),
    'CenterNetHead': (
        'centernet/centernet_r18_8xb16-crop512-140e_coco',
        {
            ('heatmap_head', 80): EACH,
            ('heatmap_head.2', 80): EACH,
            ('heatmap_head.0', 64): None,
            ('wh_head', 2): OFFSETS,
            ('offset_head.2', 2): OFFSETS,
            ('', 80): EACH,
            ('', 2): OFFSETS,
        },
    ),
    'CentripetalHead': (
        'centripetalnet/'
        'centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco',
        {
            ('tl_heat.0', 80): EACH,
            ('br_heat.1.1', 80): EACH,
            ('br_heat.1.1.conv', 80): EACH,
            ('br_heat.1.0', 256): None,
            ('br_heat.1.0.conv', 256): None,
            ('tl_off.0', 2): OFFSETS,
            ('br_guiding_shift.0', 2): OFFSETS,
            ('br_centripetal_shift.0', 2): OFFSETS,
            ('', 80): EACH,
        },
    ),
    'GARetinaHead': (
        'guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco',
        {
            ('retina_cls', 80): EACH,
            ('conv_loc', 1): EACH,
            ('conv_shape', 2): OFFSETS,
        },
    ),
    'CondInstBboxHead': (
        'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance',
        {('conv_cls', 80): EACH, ('controller', 169): OFFSETS},
    ),
    'RTMDetInsSepBNHead': (
        'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
        {('rtm_cls.0', 80): EACH, ('rtm_kernel.0', 169): OFFSETS},
    ),
    'YOLACTHead': (
        'yolact/yolact_r50_1xb8-55e_coco',
        {
            ('conv_cls', 3 * 81): '3 distributions of 81 classes',
            ('conv_coeff', 3 * 32): OFFSETS,
        },
    ),
}
IN_MASK_HEAD = {
    'SOLOHead': (
        'solo/solo_r50_fpn_1x_coco',
        {
            ('conv_mask_list.0', 1600): EACH,
            ('conv_cls', 80): EACH,
            ('mask_convs.0.conv', 256): None,
        },
    ),
    'DecoupledSOLOHead': (
        'solo/decoupled-solo_r50_fpn_1x_coco',
        {
            ('conv_mask_list_x.4', 12): EACH,
            ('conv_mask_list_y.0', 40): EACH,
        },
    ),
    'SOLOV2Head': (
        'solov2/solov2_r50_fpn_1x_coco',
        {('conv_cls', 80): EACH, ('conv_kernel', 256): OFFSETS},
    ),
    'YOLACTProtonet': (
        'yolact/yolact_r50_1xb8-55e_coco',
        {
            ('segm_branch', 80): EACH,
            ('segm_branch.segm_conv', 80): EACH,
            ('protonet.10', 32): None,
        },
    ),
}


@pytest.mark.parametrize('name', [*STOCK, *IN_MASK_HEAD])
def test_dense_heads(name):
    key = 'mask_head' if name in IN_MASK_HEAD else 'bbox_head'
    file, layers = {**STOCK, **IN_MASK_HEAD}[name]
    network = stock_head(file, key)
    for (layer, channels), expected in layers.items():
        tap = f'bbox_head.{layer}'.rstrip('.')
        found = head_of(network, tap, channels)
        expected = expected and f'{name}: {expected}'
        assert (found and str(found)) == expected, tap
        last = [p for p in network.get_submodule(tap).parameters() if p.ndim]
        if layer and last:
            # The layer returns as many channels as the test says.
            assert last[-1].shape[0] == channels, tap


@pytest.mark.parametrize('name', ['SOLOHead', 'DecoupledSOLOHead'])
def test_only_a_student_gives_logits_of_masks(name):
    network = stock_head(IN_MASK_HEAD[name][0], 'mask_head')
    assert str(head_of(network, 'bbox_head', 80, True)) == f'{name}: {EACH}'
    found = head_of(network, 'bbox_head', 80)
    assert found.kind == 'changing' and "'bbox_head.conv_cls'" in found.cure


@pytest.mark.parametrize(
    'config, layer, expected',
    [
        (dict(type='FCNMaskHead', num_classes=5), 'conv_logits', EACH),
        (
            dict(type='PanopticFPNHead', num_things_classes=2,
                 num_stuff_classes=3, in_channels=8, inner_channels=32),
            'conv_logits',
            'a softmax over 4 classes',
        ),
        (
            dict(type='FusedSemanticHead', num_ins=1, fusion_level=0,
                 num_classes=4),
            'conv_logits',
            'a softmax over 4 classes',
        ),
        (
            dict(type='MultiInstanceBBoxHead', in_channels=4, num_classes=3,
                 num_instance=2, with_refine=True, num_shared_fcs=1,
                 fc_out_channels=4,
                 bbox_coder=dict(type='DeltaXYWHBBoxCoder')),
            'fc_cls_ref.0',
            'a softmax over 4 classes',
        ),
    ],
)  # fmt: skip
def test_heads_of_masks_segments_and_crowds(config, layer, expected):
    network = Lone(config)
    channels = network.bbox_head.get_submodule(layer).weight.shape[0]
    found = head_of(network, f'bbox_head.{layer}', channels)
    assert str(found) == f'{config["type"]}: {expected}'


def test_region_proposals():
    network = stock_head('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'rpn_head')
    assert str(head_of(network, 'bbox_head.rpn_cls', 3)) == f'RPNHead: {EACH}'
    assert head_of(network, 'bbox_head.rpn_reg', 12).kind == 'other'
    assert head_of(network, 'bbox_head.rpn_conv', 256) is None
    config = load_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    config.model.rpn_head.loss_cls = dict(type='CrossEntropyLoss')
    network = Lone(config.model.rpn_head)
    found = head_of(network, 'bbox_head.rpn_cls', 6)
    assert str(found) == 'RPNHead: 3 distributions of 2 classes'


def detector(name, **changes):
    return MODELS.build(tiny_detectors.detector(name, **changes))


@pytest.mark.parametrize(
    'name, expected',
    [
        # 5 levels each: classes, boxes, and objectness.
        ('retinanet', [f'RetinaHead: {EACH}', f'RetinaHead: {OFFSETS}']),
        (
            'fcos',
            [f'FCOSHead: {EACH}', f'FCOSHead: {OFFSETS}', f'FCOSHead: {EACH}'],
        ),
        ('gfl', [f'GFLHead: {EACH}', 'GFLHead: 4 distributions of 17 bins']),
        ('tood', [f'TOODHead: {OFFSETS}'] * 2),
    ],
)
def test_a_whole_head_by_channels(name, expected):
    network = detector(name)
    every = [words for words in expected for _ in range(5)]
    assert found_at(network, 'bbox_head') == every
    assert found_at(network, 'bbox_head[0:5]') == every[:5]
    assert found_at(network, 'neck[:]') == [None] * 5


def test_channels_of_classes_and_boxes_may_be_equal():
    network = detector('fcos', bbox_head=dict(num_classes=4))
    found = found_at(network, 'bbox_head')
    unclear = 'FCOSHead: 4 channels, as several of its layers return'
    assert found == [unclear] * 10 + [f'FCOSHead: {EACH}'] * 5
    assert found_at(network, 'bbox_head.conv_cls') == [f'FCOSHead: {EACH}'] * 5


def test_box_heads():
    network = detector('faster')
    name = 'Shared2FCBBoxHead'
    at = 'roi_head.bbox_head'
    softmax = f'{name}: a softmax over 4 classes'
    assert found_at(network, f'{at}.fc_cls') == [softmax]
    assert found_at(network, f'{at}.fc_reg') == [f'{name}: {OFFSETS}']
    assert found_at(network, f'{at}.fc_cls@input') == [None]
    assert head_of(network, f'{at}.shared_fcs.1', 16) is None
    assert found_at(network, at) == [softmax, f'{name}: {OFFSETS}']


def test_stages_of_a_cascade():
    network = detector('cascade')
    (found,) = found_at(network, 'roi_head.bbox_head.1.fc_cls')
    assert found == 'Shared2FCBBoxHead: a softmax over 4 classes'


BOX_HEAD = dict(
    type='ConvFCBBoxHead',
    in_channels=4,
    num_classes=3,
    num_cls_fcs=1,
    num_reg_fcs=1,
    # As many as classes with background.
    fc_out_channels=4,
    conv_out_channels=4,
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
)


def test_hidden_layers_as_wide_as_the_logits():
    network = Lone(BOX_HEAD)
    found = head_of(network, 'bbox_head.fc_cls', 4)
    assert str(found) == 'ConvFCBBoxHead: a softmax over 4 classes'
    assert head_of(network, 'bbox_head.cls_fcs.0', 4) is None
    # A head does not return its hidden layers.
    assert head_of(network, 'bbox_head', 4) == found
    assert head_of(network, 'bbox_head', 12).kind == 'other'


@pytest.mark.parametrize(
    'trained_by, channels, expected',
    [
        (
            dict(type='CrossEntropyLoss', use_sigmoid=True),
            4,
            f'ConvFCBBoxHead: {EACH}',
        ),
        (
            dict(type='SeesawLoss', num_classes=3),
            5,
            f'ConvFCBBoxHead with SeesawLoss: {OFFSETS}',
        ),
    ],
)
def test_losses_of_box_heads(trained_by, channels, expected):
    network = Lone({**BOX_HEAD, 'loss_cls': trained_by})
    found = head_of(network, 'bbox_head.fc_cls', channels)
    assert str(found) == expected


# Which loss takes which logits


SOFT = Head('LinearClsHead', 'classes', 'softmax', 1, 5)
EVERY = Head('FCOSHead', 'classes', 'sigmoid')
BINS = Head('GFLHead', 'bins', 'softmax', 4, 17)
ON_ANCHORS = Head('SSDHead', 'classes', 'softmax', 6, 81)
BOXES = Head('FCOSHead', 'other', None)


@pytest.mark.parametrize(
    'made, heads, said',
    [
        (KLDivergence(), (SOFT, SOFT), None),
        (KLDivergence(), (None, SOFT), None),
        (KLDivergence(), (None, None), None),
        (KLDivergence(), (None, None), 'softmax'),
        (BinaryKLDivergence(), (EVERY, EVERY), None),
        (KLDivergence(groups=4), (BINS, BINS), None),
        (LDLoss(), (BINS, BINS), None),
        (KLDivergence(groups=6), (ON_ANCHORS, ON_ANCHORS), None),
        # The entry says it.
        (KLDivergence(), (SOFT, EVERY), 'softmax'),
        (KLDivergence(), (EVERY, EVERY), 'softmax'),
        (BinaryKLDivergence(), (SOFT, EVERY), 'sigmoid'),
        (KLDivergence(groups=3), (EVERY, BOXES), 'softmax'),
        # A loss that reads no logits takes all.
        (MSELoss(), (BOXES, SOFT), None),
        (MSELoss(), (EVERY, SOFT), None),
    ],
)
def test_logits_that_fit(made, heads, said):
    check_logits('`distill.a`', made, [('head', heads)], said)


@pytest.mark.parametrize(
    'made, heads, said, message',
    [
        (
            KLDivergence(),
            (EVERY, EVERY),
            None,
            r"^`distill.a`: KLDivergence takes a softmax .* student's head "
            r'.*\(FCOSHead: a sigmoid for each channel\)\. Use loss=dict\('
            r"type='BinaryKLDivergence'\)\. .*activation='softmax' in the",
        ),
        (DISTLoss(), (None, EVERY), None, "DISTLoss .* but the teacher's"),
        (DKDLoss(), (EVERY, None), None, "DKDLoss .* but the student's"),
        (
            BinaryKLDivergence(),
            (SOFT, SOFT),
            None,
            r'takes a sigmoid for each channel, .*\(LinearClsHead: a softmax '
            r"over 5 classes\)\. Use loss=dict\(type='KLDivergence'\)\. "
            r".*activation='sigmoid' in the entry",
        ),
        (
            BinaryKLDivergence(),
            (BINS, BINS),
            None,
            r"loss=dict\(type='LDLoss'\) or loss=dict\(type='KLDivergence', "
            r'groups=4\)',
        ),
        (
            KLDivergence(),
            (BINS, BINS),
            None,
            r'takes one distribution over all channels, .* \(GFLHead: 4 '
            r"distributions of 17 bins\)\. Use loss=dict\(type='LDLoss'\) or",
        ),
        (
            KLDivergence(),
            (ON_ANCHORS, ON_ANCHORS),
            None,
            r"\. Use loss=dict\(type='KLDivergence', groups=6\)\.",
        ),
        # What the entry says does not undo groups.
        (KLDivergence(), (BINS, BINS), 'softmax', 'groups=4'),
        (LDLoss(), (EVERY, None), None, r"loss=dict\(type='BinaryKLDiverg"),
        (
            LDLoss(),
            (SOFT, None),
            None,
            r'LDLoss takes 4 distributions side by side, .*'
            r"Use loss=dict\(type='KLDivergence'\)",
        ),
        (
            BinaryKLDivergence(),
            (None, BOXES),
            None,
            r"the teacher's tensor is something else \(FCOSHead: values such "
            r"as box offsets.*SmoothL1Loss.*MSELoss.*activation='sigmoid'",
        ),
        (
            KLDivergence(),
            (EVERY, SOFT),
            None,
            r'of two kinds \(FCOSHead: a sigmoid .*; LinearClsHead: a softmax '
            r".*activation='softmax' in the entry",
        ),
        (
            KLDivergence(),
            (None, None),
            'sigmoid',
            r"^`distill.a.activation` is 'sigmoid', but KLDivergence takes a "
            r"softmax .* loss=dict\(type='BinaryKLDivergence'\)",
        ),
    ],
)
def test_logits_that_do_not_fit(made, heads, said, message):
    with pytest.raises(ValueError, match=message):
        check_logits('`distill.a`', made, [('head', heads)], said)


FOUR = Head('SSDHead', 'classes', 'softmax', 4, 81)
UNCLEAR = Head(
    'RetinaHead', 'unclear', None, words='36 channels', cure='Tap a layer.'
)
CHANGING = Head(
    'ArcFaceClsHead', 'changing', None, words='with margin', cure='Tap it.'
)


@pytest.mark.parametrize(
    'made, heads, message',
    [
        (
            KLDivergence(groups=4),
            [(FOUR, FOUR), (ON_ANCHORS, ON_ANCHORS), (None, FOUR)],
            r'`distill.a` at x\[1\]: KLDivergence takes 4 distributions .*'
            r'Write an entry for each number of groups: '
            r"loss=dict\(type='KLDivergence', groups=4\) at x\[0\], x\[2\]; "
            r"loss=dict\(type='KLDivergence', groups=6\) at x\[1\]\.$",
        ),
        (
            BinaryKLDivergence(),
            [(EVERY, EVERY), (BOXES, BOXES)],
            r'`distill.a` at x\[1\]: BinaryKLDivergence compares logits, .*'
            r'Write an entry for each kind of tensor: '
            r"loss=dict\(type='BinaryKLDivergence'\) at x\[0\]; "
            r"loss=dict\(type='SmoothL1Loss'\) at x\[1\]\. If it holds",
        ),
        (
            KLDivergence(),
            [(SOFT, SOFT), (SOFT, EVERY), (SOFT, SOFT)],
            r'`distill.a` at x\[1\]: the logits of student and teacher',
        ),
        # All levels take another loss, and one loss suits them all.
        (
            KLDivergence(),
            [(EVERY, EVERY)] * 2,
            r"x\[0\]: .* Use loss=dict\(type='BinaryKLDivergence'\)\.",
        ),
    ],
)
def test_levels_that_differ(made, heads, message):
    levels = [(f'x[{i}]', pair) for i, pair in enumerate(heads)]
    with pytest.raises(ValueError, match=message):
        check_logits('`distill.a`', made, levels, None)


@pytest.mark.parametrize(
    'made', [KLDivergence(), KLDivergence(groups=4), BinaryKLDivergence()]
)
def test_what_is_not_clear_is_refused(made):
    for pair in ((UNCLEAR, None), (None, UNCLEAR)):
        levels = [('head', pair)]
        with pytest.raises(
            ValueError, match=r'may be .*36.* Tap a layer\. If'
        ):
            check_logits('`distill.a`', made, levels, None)
        check_logits('`distill.a`', made, levels, made.activation)
        check_logits('`distill.a`', MSELoss(), levels, None)


@pytest.mark.parametrize(
    'made, said',
    [
        (KLDivergence(), None),
        (KLDivergence(), 'softmax'),
        (BinaryKLDivergence(), 'sigmoid'),
        (MSELoss(), None),
    ],
)
def test_what_changes_in_training_is_refused_whatever_is_said(made, said):
    for role, pair in zip(
        ('student', 'teacher'), ((CHANGING, None), (None, CHANGING))
    ):
        with pytest.raises(ValueError, match=rf'{role}.*margin\)\. Tap it\.$'):
            check_logits('`distill.a`', made, [('head', pair)], said)


SEVERAL = Head(
    'MultiLabelLinearClsHead', 'classes', 'sigmoid', several_labels=True
)


@pytest.mark.parametrize(
    'part',
    [
        DKDLoss(),
        CRDLoss(4, 4, neg_num=2, dim_out=2),
        LSHLoss(4, 4, sample_filter='teacher_correct'),
        DSKDNeck(4, 4),
    ],
)
def test_parts_that_ask_for_one_class_an_image(part):
    with pytest.raises(ValueError, match='MultiLabelLinearClsHead takes sev'):
        check_labels('`distill.a`', part, SEVERAL)
    check_labels('`distill.a`', part, SOFT)
    check_labels('`distill.a`', part, None)


def test_parts_that_ask_for_no_labels():
    check_labels('`distill.a`', KLDivergence(), SEVERAL)
    check_labels('`distill.a`', DSKDNeck(4, 4, guidance_scale=0), SEVERAL)


# In a distiller


def multi_label(entry):
    """A distiller of two heads for several of five labels."""
    networks = [tiny_recipes.classifier(base) for base in (4, 6)]
    for config, channels in zip(networks, (16, 24)):
        config['head'] = head('MultiLabelLinearClsHead')
        config['head']['in_channels'] = channels
        config['data_preprocessor']['num_classes'] = 5
    student, teacher = networks
    config = dict(model=teacher, default_scope='mmpretrain')
    return tiny_recipes.distiller(
        student,
        teacher=dict(config=config, checkpoint=None),
        distill=dict(logits={'at': 'head.fc', **entry}),
    )


@pytest.mark.parametrize(
    'entry, message',
    [
        (dict(loss=dict(type='DKDLoss')),
         'DKDLoss takes a softmax .*MultiLabelLinearClsHead: a sigmoid .*'
         "type='BinaryKLDivergence'"),
        (dict(loss=dict(type='DISTLoss')), 'DISTLoss takes a softmax'),
        (dict(loss=dict(type='DKDLoss'), activation='softmax'),
         'DKDLoss asks for `gt_labels`.*several labels an image'),
        (dict(loss=dict(type='MSELoss'), activation='softmax'),
         "logits.activation` is 'softmax', but MSELoss reads no logits"),
        (dict(at='backbone[-1]', teacher_head='head.fc',
              neck=dict(type='DiffKDClassifierNeck'),
              loss=dict(type='KLDivergence')),
         "KLDivergence takes a softmax .*the teacher's head .*a sigmoid"),
    ],
)  # fmt: skip
def test_multi_label_heads_are_told_from_others(build, entry, message):
    with pytest.raises(ValueError, match=message):
        build(multi_label(entry))


@pytest.mark.parametrize(
    'entry',
    [
        dict(loss=dict(type='BinaryKLDivergence')),
        dict(loss=dict(type='KLDivergence'), activation='softmax'),
    ],
)
def test_multi_label_heads_train(build, entry):
    model = build(multi_label(entry))
    samples = [DataSample().set_gt_label(x) for x in ([0, 2], [1], [])]
    inputs = torch.rand(3, 3, tiny_recipes.SIZE, tiny_recipes.SIZE) * 255
    data = model.data_preprocessor(
        dict(inputs=list(inputs), data_samples=samples), True
    )
    loss = model(**data, mode='loss')['distill.logits.loss_kd']
    loss.backward()
    assert loss.isfinite() and model.student.head.fc.weight.grad.abs().sum()


def with_head(config, entry):
    """A distiller of two networks with one head, taught by its own weights."""
    student = tiny_recipes.classifier()
    student['head'] = config
    student['data_preprocessor']['num_classes'] = 5
    return tiny_recipes.distiller(
        student,
        teacher=dict(
            config=dict(model=student, default_scope='mmpretrain'),
            checkpoint=None,
        ),
        distill=dict(logits=entry),
    )


@pytest.mark.parametrize(
    'loss', [dict(type='KLDivergence'), dict(type='MSELoss')]
)
def test_margins_are_refused_by_name(build, loss):
    model = with_head(head('ArcFaceClsHead'), dict(at='head', loss=loss))
    with pytest.raises(ValueError, match=r"student's .*Tap 'head\.norm_prod"):
        build(model)


def test_cosines_of_equal_networks_are_equal(build):
    loss = dict(type='KLDivergence', tau=1 / 64)
    model = build(
        with_head(
            head('ArcFaceClsHead'), dict(at='head.norm_product', loss=loss)
        )
    )
    model.teacher.network.load_state_dict(model.student.state_dict())
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    inputs = torch.rand(3, 3, tiny_recipes.SIZE, tiny_recipes.SIZE) * 255
    data = model.data_preprocessor(
        dict(inputs=list(inputs), data_samples=samples), True
    )
    # The student's batch statistics are not the teacher's.
    model.eval()
    loss = model(**data, mode='loss')['distill.logits.loss_kd']
    assert loss.item() == pytest.approx(0, abs=1e-4)


def test_a_teacher_with_margins_gives_logits(build):
    model = with_head(
        head('LinearClsHead'), dict(at='head', loss=dict(type='KLDivergence'))
    )
    teacher = model['teacher']['config']['model']
    model['teacher']['config']['model'] = {
        **teacher,
        'head': head('ArcFaceClsHead'),
    }
    assert build(model).distill['logits'].levels


def test_all_tasks_at_once_are_refused_by_name(build):
    tasks = dict(a=dict(type='LinearClsHead', num_classes=5))
    config = dict(type='MultiTaskHead', task_heads=tasks, in_channels=16)
    entry = dict(at='head', loss=dict(type='KLDivergence'))
    with pytest.raises(ValueError, match=r"'head\.task_heads\.NAME'"):
        build(with_head(config, entry))
    build(with_head(config, {**entry, 'at': 'head.task_heads.a'}))


@pytest.mark.parametrize(
    'name, classes, loss, layers',
    [
        ('retinanet', 4, dict(type='BinaryKLDivergence'),
         r"'bbox_head\.retina_cls' \(a sigmoid .* or 'bbox_head\.retina_reg'"),
        ('gfl', 68, dict(type='KLDivergence', groups=4),
         r"'bbox_head\.gfl_cls' .* or 'bbox_head\.gfl_reg' \(4 distrib"),
    ],
)  # fmt: skip
def test_a_whole_head_that_is_not_clear(build, name, classes, loss, layers):
    model = tiny_detectors.distiller(
        name, dict(logits=dict(at='bbox_head[0:5]', loss=loss))
    )
    for network in (model['student'], model['teacher']['config']['model']):
        network['bbox_head']['num_classes'] = classes
    with pytest.raises(ValueError, match=rf'at bbox_head\[0\]: .*{layers}'):
        build(model)
