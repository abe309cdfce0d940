"""Where known architectures have last map, pyramid, logits and boxes."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import NamedTuple

from torch import nn

#: What a tap of :func:`taps_of` yields, by its key.
MEANINGS = {
    'last_map': 'the map of the image with the coarsest stride',
    'pyramid': 'several maps, from the finest to the coarsest',
    'logits': 'what predicts the classes, before softmax or sigmoid',
    'boxes': 'what predicts the boxes, as offsets or distances',
    'auxiliary': 'the logits of the auxiliary heads of a segmentor',
}


class Row(NamedTuple):
    """What the classes of a part of a network yield.

    Taps begin at the part: ``'ln1'`` of a backbone stands for
    ``'backbone.ln1'``, ``'[-1]'`` for ``'backbone[-1]'``. Of a child named
    ``*`` all are meant, of one named ``-1`` the last. Several taps are
    separated by spaces. A tap whose module a network lacks is left out.

    Attributes:
        classes (str): Names of classes, which stand for their subclasses
            too; of every package, unless one is named: ``'mmseg.BEiT'``.
        last_map (str or None): The tap of the last map. Defaults to None.
        pyramid (str or None): The taps of the pyramid. Defaults to None.
        logits (str or None): The taps of the logits. Defaults to None.
        boxes (str or None): The taps of the boxes. Defaults to None.
        only (tuple[str, object] or None): An attribute, and the value that
            it or each of its items must have; with ``...`` it must be
            there. Defaults to None.
        reason (str): Why there is no tap. Defaults to ''.
    """

    classes: str
    last_map: str | None = None
    pyramid: str | None = None
    logits: str | None = None
    boxes: str | None = None
    only: tuple[str, object] | None = None
    reason: str = ''


# The first row that fits a class counts, then its base classes' rows.
BACKBONES = (
    Row('TridentResNet', reason='in training, three maps an image'),
    Row(
        'ResNet ResNeSt',
        '[-1]',
        'layer1 layer2 layer3 layer4',
        only=('dilations', 1),
    ),
    Row('ResNet ResNeSt', '[-1]'),
    Row('MobileNetV1', '[-1]', 'layer1 layer2 layer3 layer4 layer5'),
    Row(
        'mmpretrain.MobileNetV2 mmdet.MobileNetV2',
        '[-1]',
        'layer2 layer3 layer5 layer7',
    ),
    Row('MobileNetV2 MobileNetV3 StagedBackbone TIMMBackbone', '[-1]'),
    Row('ShuffleNetV1 ShuffleNetV2', '[-1]', 'layers.0 layers.1 layers.2'),
    Row(
        'mmpretrain.EfficientNet',
        '[-1]',
        'layers.2 layers.3 layers.4 layers.5',
    ),
    Row('EfficientNetV2', '[-1]', 'layers.2 layers.3 layers.5 layers.6'),
    Row('RepVGG', '[-1]', 'stage_1 stage_2 stage_3 stage_4'),
    Row('MobileOne', '[-1]', 'stage1 stage2 stage3 stage4'),
    Row('MobileViT', '[-1]', 'layers.1 layers.2 layers.3 layers.4'),
    Row('DenseNet CSPNet RepMLPNet', '[-1]', 'stages.*'),
    Row('VGG', 'features.-1', logits='classifier'),
    Row('AlexNet', 'features', logits='classifier'),
    Row('InceptionV3', 'Mixed_7c', 'Mixed_5d Mixed_6e Mixed_7c', 'fc'),
    # Its output may be averaged over positions.
    Row(
        'ConvNeXt EdgeNeXt HorNet',
        'stages.-1',
        'stages.*',
        only=('gap_before_final_norm', True),
    ),
    Row('ConvNeXt EdgeNeXt HorNet', '[-1]', 'stages.*'),
    Row('TinyViT', 'stages.-1', 'stages.0 stages.1 stages.2'),
    Row('VAN', '[-1]', 'blocks1.-1 blocks2.-1 blocks3.-1 blocks4.-1'),
    Row(
        'PoolFormer RIFormer',
        '[-1]',
        'network.0 network.2 network.4 network.6',
    ),
    Row('EfficientFormer', 'network.-1', 'network.*'),
    Row('ConvMixer HiViT LeViT MViT PyramidVig Vig', '[-1]'),
    Row(
        'DaViT mmpretrain.SwinTransformer SwinTransformerV2',
        '[-1]',
        'stages.*',
    ),
    Row(
        'mmpretrain.PCPVT',
        '[-1]',
        'norm_after_stage0 norm_after_stage1 norm_after_stage2 '
        'norm_after_stage3',
    ),
    Row(
        'Conformer',
        'conv_trans_12[0]',
        'conv_trans_4[0] conv_trans_8[0] conv_trans_11[0] conv_trans_12[0]',
    ),
    # What a vision transformer returns may be the class token alone.
    Row(
        'mmpretrain.VisionTransformer BEiTViT DeiT3 RevVisionTransformer '
        'T2T_ViT ViTEVA02 XCiT',
        '[-1]',
        only=('out_type', 'featmap'),
    ),
    Row(
        'mmpretrain.VisionTransformer DeiT3', 'ln1', only=('final_norm', True)
    ),
    Row(
        'mmpretrain.VisionTransformer DeiT3 BEiTViT ViTEVA02',
        'layers.-1',
    ),
    Row('ViTSAM', '[-1]', only=('out_type', 'raw')),
    Row('MlpMixer', 'ln1'),
    Row('T2T_ViT TNT XCiT', 'norm'),
    Row('RevVisionTransformer', 'fusion_layer'),
    # With a class token a map, then the token of each stage is returned.
    Row('mmseg.VisionTransformer', '[-2]', only=('output_cls_token', True)),
    Row('mmseg.VisionTransformer mmseg.BEiT', '[-1]'),
    Row(
        'HRNet MixVisionTransformer MSCAN PyramidVisionTransformer CGNet '
        'mmseg.PCPVT mmseg.SwinTransformer mmdet.SwinTransformer '
        'mmdet.EfficientNet CSPDarknet CSPNeXt Darknet',
        '[-1]',
        '[:]',
    ),
    Row('SSDVGG', '[-1]'),
    Row('UNet', '[0]', '[::-1]'),
    Row('ERFNet', 'encoder.-1'),
    Row('FastSCNN STDCContextPathNet', '[1]'),
    Row('BiSeNetV1 ICNet', '[2]'),
    Row('BiSeNetV2', '[4]'),
    # They return other things in training than otherwise.
    Row('PIDNet DDRNet', 'spp'),
)

NECKS = (
    Row(
        'FPN FPN_CARAFE BFP NASFPN NASFCOS_FPN FPG HRFPN YOLOXPAFPN '
        'CSPNeXtPAFPN SSDNeck DyHead MultiLevelNeck Feature2Pyramid',
        pyramid='[:]',
    ),
    Row('YOLOV3Neck', pyramid='[::-1]'),
    # With one level it is no pyramid.
    Row('ChannelMapper', pyramid='[:]', only=('convs.1', ...)),
    Row(
        'ChannelMapper DilatedEncoder CTResNetNeck JPU ICNeck MLANeck',
        reason='one level, or several of one size',
    ),
)

_QUERIES = 'queries of two networks do not answer to each other'
HEADS = (
    Row('LinearClsHead MultiLabelLinearClsHead', logits='fc'),
    Row('StackedLinearClsHead', logits='layers.-1.fc'),
    Row('VisionTransformerClsHead', logits='layers.head'),
    Row('EfficientFormerClsHead LeViTClsHead', logits='head'),
    Row('ConformerHead', logits='conv_cls_head trans_cls_head'),
    Row('VigClsHead', logits='fc2'),
    Row(
        'RetinaHead RetinaSepBNHead SABLRetinaHead',
        logits='retina_cls',
        boxes='retina_reg',
    ),
    # Its boxes are changed in place, by a ReLU.
    Row('FSAFHead', logits='retina_cls'),
    Row('ATSSHead DDODHead', logits='atss_cls'),
    Row('GFLHead', logits='gfl_cls'),
    Row('VFNetHead', logits='vfnet_cls'),
    Row('TOODHead', logits='tood_cls'),
    Row(
        'RepPointsHead',
        logits='reppoints_cls_out',
        boxes='reppoints_pts_init_out reppoints_pts_refine_out',
    ),
    Row('YOLOFHead', logits='cls_score'),
    Row('YOLOXHead', logits='multi_level_conv_cls.*'),
    Row('RTMDetSepBNHead RTMDetInsSepBNHead', logits='rtm_cls.*'),
    Row('RTMDetHead', logits='rtm_cls'),
    Row('SSDHead', logits='cls_convs.*'),
    Row('CenterNetHead', logits='heatmap_head'),
    # Behind the factor of each level.
    Row('FCOSHead', logits='conv_cls', boxes='scales.*'),
    Row('AnchorFreeHead AnchorHead SOLOHead', logits='conv_cls'),
    Row('BBoxHead', logits='fc_cls', boxes='fc_reg'),
    Row('BaseDecodeHead', logits='conv_seg'),
    Row('IterativeDecodeHead', logits='kernel_update_head.-1[0]'),
    Row('SegmenterMaskTransformerHead', logits='mask_norm'),
    Row(
        'YOLOV3Head',
        reason='classes, boxes and objectness share the channels',
    ),
    Row(
        'HybridTaskCascadeRoIHead SCNetRoIHead',
        reason='its box heads read a map of classes, too',
    ),
    Row('RPNHead', reason='it tells objects from background'),
    Row('ATSSVLFusionHead', reason='it compares boxes with words'),
    Row('PointHead', reason='its points are chosen by the network'),
    Row('VPDDepthHead', reason='it predicts depth'),
    Row('DETRHead MaskFormerHead DIIHead', reason=_QUERIES),
)

#: Networks of other packages, which the wrappers hold as ``model``.
WRAPPED = (
    Row('timm.HighResolutionNet', 'stage4[-1]', 'stage4[:]', 'classifier'),
    Row(
        'transformers.ResNetForImageClassification',
        'resnet.encoder.stages.-1',
        'resnet.encoder.stages.*',
        'classifier.-1',
    ),
    Row(
        'transformers.ConvNextForImageClassification '
        'transformers.ConvNextV2ForImageClassification',
        'convnext.encoder.stages.-1',
        'convnext.encoder.stages.*',
        'classifier',
    ),
    Row(
        'transformers.ViTForImageClassification',
        'vit.layernorm',
        logits='classifier',
    ),
    Row(
        'transformers.DeiTForImageClassification',
        'deit.layernorm',
        logits='classifier',
    ),
    Row(
        'transformers.Dinov2ForImageClassification',
        'dinov2.layernorm',
        logits='classifier',
    ),
    Row(
        'transformers.SwinForImageClassification',
        'swin.layernorm',
        logits='classifier',
    ),
)

#: All rows, by the part of a network that they are for.
TABLE = {
    'backbone': BACKBONES,
    'neck': NECKS,
    'head': HEADS,
    'model': WRAPPED,
}
_ROI = 'roi_head.bbox_head'
_HEADS = 'head', 'bbox_head', 'mask_head', 'roi_head', _ROI, 'decode_head'
_PACKAGES = {'mmpretrain', 'mmdet', 'mmseg', 'mmdiffkd'}
_PACKAGES |= {'timm', 'transformers'}

_Taps = tuple[str, ...] | None


def taps_of(network: nn.Module) -> dict[str, _Taps]:
    """Where to distil a network whose architecture is known.

    Args:
        network (nn.Module): A built model of mmpretrain, mmdet or mmseg,
            such as a wrapper of timm's or Hugging Face's models.

    Returns:
        dict[str, tuple[str, ...] | None]: The taps of each key of
        :data:`MEANINGS`, as ``at`` of an entry takes them. None where the
        architecture has no such thing or is not known. In a cascade of box
        heads each stage has a tap, which wants an entry of its own.
    """
    found: dict[str, _Taps] = dict.fromkeys(MEANINGS)
    for path in ('backbone', 'model'):
        part = _find(network, path)
        row = row_of(part, TABLE[path])
        if row is not None:
            for key in MEANINGS:
                taps = getattr(row, key, None)
                found[key] = _taps(network, path, taps)
        elif isinstance(getattr(part, 'feature_info', None), list):
            found |= _declared_by_timm(part)
    neck = _find(network, 'neck')
    last = neck[-1] if isinstance(neck, nn.Sequential) else neck
    row = row_of(last, NECKS)
    if row is not None:
        found['pyramid'] = _taps(network, 'neck', row.pyramid)
    if len(found['pyramid'] or ()) == 1 and ':' not in found['pyramid'][0]:
        found['pyramid'] = None
    found |= _in_heads(network)
    found['auxiliary'] = _in_head(network, 'auxiliary_head', 'logits')
    return found


def row_of(part: nn.Module | None, rows: tuple[Row, ...]) -> Row | None:
    """The row of a part of a network.

    Args:
        part (nn.Module, optional): The part.
        rows (tuple[Row, ...]): The rows of such parts.

    Returns:
        Row | None: None for a class that has none, or that overrides
        ``forward`` in another package.
    """
    forward = getattr(type(part), 'forward', None)
    if forward is None or _package(forward) not in _PACKAGES:
        return None
    for cls in type(part).__mro__:
        names = {cls.__name__, f'{_package(cls)}.{cls.__name__}'}
        for row in rows:
            if names & set(row.classes.split()) and _fits(part, row.only):
                return row
    return None


def _package(item: type | Callable) -> str:
    return item.__module__.partition('.')[0]


def _fits(part: nn.Module, only: tuple[str, object] | None) -> bool:
    if only is None:
        return True
    name, wanted = only
    try:
        value = attrgetter(name)(part)
    except AttributeError:
        return False
    if isinstance(value, (list, tuple)):
        return set(value) == {wanted}
    return wanted is ... or value == wanted


def _find(network: nn.Module, path: str) -> nn.Module | None:
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None


def _in_heads(network: nn.Module) -> dict[str, _Taps]:
    """Logits and boxes of the first head that has a row, if there is one."""
    for path in _HEADS:
        if _rows(network, path):
            return {k: _in_head(network, path, k) for k in ('logits', 'boxes')}
    return {}


def _in_head(network: nn.Module, path: str, key: str) -> _Taps:
    """The taps of a head, or of a list of heads."""
    found = [
        _taps(network, p, getattr(row, key)) or ()
        for p, row in _rows(network, path)
    ]
    if path not in (_ROI, 'auxiliary_head'):
        # Of a segmentor's cascade the last stage predicts.
        found = list(filter(None, found))[-1:]
    return sum(found, ()) or None


def _rows(network: nn.Module, path: str) -> list[tuple[str, Row]]:
    """The rows of a head, or of each in a list of heads, by path."""
    head = _find(network, path)
    paths = [path]
    if isinstance(head, nn.ModuleList):
        paths = [f'{path}.{number}' for number in range(len(head))]
    rows = [(p, row_of(_find(network, p), HEADS)) for p in paths]
    return [(p, row) for p, row in rows if row is not None]


def _taps(network: nn.Module, path: str, taps: str | None) -> _Taps:
    """The taps of a row, written out for a network's part."""
    found = []
    for tap in (taps or '').split():
        inner, bracket, index = tap.partition('[')
        for place in _places(network.get_submodule(path), inner):
            whole = f'{path}.{place}' if place else path
            found.append(whole + bracket + index)
    return tuple(found) or None


def _places(module: nn.Module, path: str) -> Iterator[str]:
    """The paths that a path of a row stands for."""
    if not path:
        yield ''
        return
    name, _, rest = path.partition('.')
    children = dict(module.named_children())
    names = [name] if name in children else []
    if name in ('*', '-1'):
        names = list(children)[-1 if name == '-1' else 0 :]
    for name in names:
        for inner in _places(children[name], rest):
            yield f'{name}.{inner}' if inner else name


def _declared_by_timm(model: nn.Module) -> dict[str, _Taps]:
    """The taps that timm's models declare themselves."""
    ends = {each['reduction']: each['module'] for each in model.feature_info}
    found = dict(
        last_map=list(ends.values())[-1:],
        pyramid=list(ends.values()) if len(ends) > 1 else [],
        logits=model.default_cfg.get('classifier') or [],
    )
    if isinstance(found['logits'], str):
        found['logits'] = [found['logits']]
    modules = dict(model.named_modules())
    if any(
        isinstance(modules.get(path), nn.Identity) for path in found['logits']
    ):
        # It was built without classes.
        found['logits'] = []
    return {
        key: tuple(f'model.{path}' for path in paths) or None
        for key, paths in found.items()
        if modules.keys() >= set(paths)
    }
