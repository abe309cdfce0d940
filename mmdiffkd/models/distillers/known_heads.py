"""Where heads of mmpretrain, mmdet and mmseg have their logits."""

from typing import NamedTuple


class Rule(NamedTuple):
    """Where heads of some base classes have their logits.

    Attributes:
        bases (tuple[str, ...]): Names of the base classes.
        loss (str): The attribute with the loss on the logits.
        size (str): The attribute with the channels of one distribution;
            empty where all channels are one.
        logits (str): Names of the layers that return logits, as a pattern.
        sigmoids (str): Of those trained with a sigmoid whatever the loss is.
        others (str): Of those that return something else.
    """

    bases: tuple[str, ...]
    loss: str
    size: str
    logits: str
    sigmoids: str = ''
    others: str = ''


_CLS = r'(?!.*(bbox|reg)_cls)(\w+_)?cls(_out|_embed|_branches|_score|_ref)?'
_SIGMOIDS = (
    r'(head\.)?(\w+_)?(centerness|iou|obj|object_pred|loc)'
    r'|heatmap_head|(tl|br)_heat|conv_mask_list(_[xy])?|cls_prob_module'
    r'|segm_branch(\.segm_conv)?'
)
_BOXES = (
    r'(head\.)?(\w+_)?(reg|reg_refine|reg_ref|reg_branches|bbox_pred|pts\w*_out)'
    r'|(\w+_)?(shape|coeff|kernel|reg_offset)|scales(_refine)?|controller'
    r'|(wh|offset)_head|(tl|br)_(off|emb|dcn_offset|\w+_shift)'
    r'|reg_offset_module'
)
RULES = (
    Rule(
        ('ClsHead', 'MultiLabelClsHead'),
        'loss_module',
        'num_classes',
        r'fc2?|(layers\.)?head(_dist)?(\.linear)?|dist_head'
        r'|(conv|trans)_cls_head|norm_product',
        '',
        r'csra_heads(\.head)?',
    ),
    Rule(('MultiTaskHead',), '', '', ''),
    Rule(
        ('BaseDecodeHead',),
        'loss_decode',
        'out_channels',
        r'(\w+_)?(conv|cls|fc)_seg',
    ),
    Rule(('SSDHead',), '', 'cls_out_channels', 'cls_convs', '', 'reg_convs'),
    # Classes, boxes and objectness of all anchors share the channels.
    Rule(('YOLOV3Head',), '', '', '', '', 'convs_pred'),
    Rule(('BBoxHead',), 'loss_cls', '', _CLS, '', _BOXES),
    Rule(('FCNMaskHead',), 'loss_mask', '', 'conv_logits|fc_logits'),
    Rule(('BaseSemanticHead',), 'loss_seg', '', 'conv_logits'),
    Rule(('FusedSemanticHead',), 'criterion', '', 'conv_logits'),
    Rule(
        ('BaseDenseHead', 'DETRHead', 'BaseMaskHead'),
        'loss_cls',
        'cls_out_channels',
        _CLS,
        _SIGMOIDS,
        _BOXES,
    ),
)
WRAPPERS = 'TimmClassifier', 'HuggingFaceClassifier'
#: What they return has queries on axis 1, not channels.
WITH_QUERIES = 'DETRHead', 'MaskFormerHead'

_PROBABILITIES = (
    'probabilities, where the student in training gives logits',
    "Tap the layer that you mean, for instance '{0}.conv_cls'.",
)
#: Heads that return something else in training, as the student does, than
#: otherwise: the class whose ``forward`` does so, in which of the two it is
#: not comparable, what it returns there, and the cure for the tap ``{0}``.
CHANGING = {
    ('ArcFaceClsHead', True): (
        'in training, logits with a margin at the class of the label, which '
        "the teacher's lack",
        "Tap '{0}.norm_product'. It gives cosines without margin and scale: "
        "use loss=dict(type='MSELoss'), or KLDivergence with a `tau` near 1 / "
        'scale.',
    ),
    ('MultiTaskHead', True): (
        'the outputs of all tasks, but training calls the head of each task',
        "Tap the heads of the tasks, '{0}.task_heads.NAME', in an entry each.",
    ),
    ('SOLOHead', False): _PROBABILITIES,
    ('DecoupledSOLOHead', False): _PROBABILITIES,
    ('DecoupledSOLOLightHead', False): _PROBABILITIES,
}

#: Of losses that do not say it by ``use_sigmoid``.
ACTIVATIONS = {
    'BCEWithLogitsLoss': 'sigmoid',
    'CrossEntropyLoss': 'softmax',
    'FocalLoss': 'sigmoid',
    'GaussianFocalLoss': 'sigmoid',
    'OhemCrossEntropy': 'softmax',
    'TverskyLoss': 'softmax',
}
#: What decides of which kind a head's outputs are.
DECISIVE = (
    'forward',
    'forward_single',
    'cls_seg',
    'loss',
    '_get_loss',
    'loss_by_feat',
    'loss_by_feat_single',
)
