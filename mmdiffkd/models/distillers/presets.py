"""What each method compares, where and with which weight, by structure.

``distill='diffkd'`` stands for entries, see :mod:`.expansion`. Their taps
come from the :mod:`table of taps <.known_taps>`.
"""

from typing import NamedTuple

CLASSIFIER, BACKBONE = 'classifier', 'plain backbone'
SMALL = 'classifier of small images'
ONE_STAGE, TWO_STAGE = 'one-stage detector', 'two-stage detector'
DETR, SEGMENTOR = 'DETR', 'segmentor'


class Preset(NamedTuple):
    """The entries of a method for networks of some structures.

    Attributes:
        method (str): The name of the method.
        structures (tuple[str, ...]): For which networks, see
            :func:`~.expansion.structure_of`.
        source (str): Where its settings and weights were published.
        entries (dict): The entries by name. ``at`` is a key of
            :data:`~.known_taps.MEANINGS`, with ``[:4]`` behind it for the
            first four levels. Of several, separated by spaces, the first
            counts that both networks have.
    """

    method: str
    structures: tuple[str, ...]
    source: str
    entries: dict


#: Taps that a preset uses only where both networks have them.
OPTIONAL = 'boxes', 'auxiliary'

_PROJECTION = dict(type='ProjectionNeck')
_DIFFKD = dict(type='DiffKDNeck')
_DIFFKD_MAP = dict(
    at='last_map',
    # With an autoencoder.
    neck=dict(type='DiffKDNeck', latent_channels=1024),
    loss=dict(type='MSELoss'),
)
_BOXES = dict(at='boxes', loss=dict(type='SmoothL1Loss'))
_DIFFKD_SMALL_MAP = dict(
    at='last_map', neck=_DIFFKD, loss=dict(type='MSELoss')
)
_DIFFKD_LOGITS = dict(
    at='logits', neck=_DIFFKD, loss=dict(type='KLDivergence', tau=1.0)
)
_DKD = dict(
    at='logits', loss=dict(type='DKDLoss', tau=1.0, alpha=1.0, beta=0.5)
)
_DKD_SMALL = dict(
    at='logits',
    loss=dict(type='DKDLoss', tau=4.0, alpha=1.0, beta=8.0),
    schedule=dict(warmup=20),
)


def _fpn(neck: dict, loss: dict, at: str = 'pyramid last_map') -> dict:
    return dict(at=at, neck=neck, loss=loss)


def _fgd(fg: float, bg: float, attention: float, context: float) -> dict:
    return dict(
        type='FGDLoss',
        temp=0.5,
        alpha_fgd=fg,
        beta_fgd=bg,
        gamma_fgd=attention,
        lambda_fgd=context,
    )


def _dist(tau: float) -> dict:
    loss = dict(type='DISTLoss', tau=tau, loss_weight=2.0)
    return dict(logits=dict(at='logits', loss=loss))


def _pkd(weight: float) -> dict:
    loss = dict(type='PKDLoss', loss_weight=weight)
    return dict(fpn=_fpn(_PROJECTION, loss, 'pyramid[:4] last_map'))


def _mgd(at: str, share: float, weight: float, **neck) -> dict:
    return dict(
        at=at,
        neck=dict(type='MGDNeck', lambda_mgd=share, **neck),
        loss=dict(type='MGDLoss', alpha_mgd=weight),
    )


PRESETS = (
    Preset(
        'diffkd',
        (CLASSIFIER,),
        'DiffKD, Sec. 4.1 and B.2: ImageNet, latents for ResNet teachers',
        dict(feature=_DIFFKD_MAP, logits=_DIFFKD_LOGITS),
    ),
    Preset(
        'diffkd',
        (SMALL,),
        'DiffKD, Sec. 4.1 and B.2: CIFAR-100, without an autoencoder',
        dict(feature=_DIFFKD_SMALL_MAP, logits=_DIFFKD_LOGITS),
    ),
    Preset(
        'diffkd',
        (BACKBONE,),
        'DiffKD, Sec. 4.1 and B.2: ImageNet, without the logits',
        dict(feature=_DIFFKD_MAP),
    ),
    Preset(
        'diffkd',
        (ONE_STAGE, TWO_STAGE),
        'DiffKD, Sec. 4.2 and B.3: COCO (with 15 for 5 for RepPoints)',
        dict(
            fpn=_fpn(_DIFFKD, dict(type='MSELoss', loss_weight=5.0)),
            reg=_BOXES,
        ),
    ),
    Preset(
        'diffkd',
        (DETR,),
        'DiffKD, Sec. 4.2 and B.3, for other detectors on COCO',
        dict(fpn=_fpn(_DIFFKD, dict(type='MSELoss', loss_weight=5.0))),
    ),
    Preset(
        'diffkd',
        (SEGMENTOR,),
        'DiffKD, Sec. 4.3 and B.4: Cityscapes; the auxiliary head as in the '
        'code base of its first author',
        dict(
            logits=dict(at='logits', neck=_DIFFKD, loss=dict(type='DISTLoss')),
            aux=dict(
                at='auxiliary',
                neck=_DIFFKD,
                loss=dict(type='DISTLoss'),
                weight=0.4,
            ),
        ),
    ),
    Preset(
        'ddkd',
        (CLASSIFIER,),
        'DDKD: ImageNet, ResNet-34 to ResNet-18',
        dict(feature=_DIFFKD_MAP, logits=_DKD),
    ),
    Preset(
        'ddkd',
        (SMALL,),
        'DDKD: CIFAR-100, ResNet-32x4 to ResNet-8x4',
        dict(feature=_DIFFKD_SMALL_MAP, logits=_DKD_SMALL),
    ),
    Preset(
        'kd',
        (CLASSIFIER,),
        "KD in DiffKD's released code: ImageNet. There the student's own "
        'loss has the weight 0.9',
        dict(
            logits=dict(at='logits', loss=dict(type='KLDivergence', tau=4.0))
        ),
    ),
    Preset(
        'kd',
        (SMALL,),
        "KD as later papers compare with it: CIFAR-100. There the student's "
        'own loss has the weight 0.1',
        dict(
            logits=dict(
                at='logits',
                loss=dict(type='KLDivergence', tau=4.0, loss_weight=0.9),
            )
        ),
    ),
    Preset(
        'dkd',
        (CLASSIFIER,),
        'DKD: ImageNet, ResNet-34 to ResNet-18',
        dict(logits=_DKD),
    ),
    Preset(
        'dkd',
        (SMALL,),
        'DKD: CIFAR-100, ResNet-32x4 to ResNet-8x4',
        dict(logits=_DKD_SMALL),
    ),
    Preset(
        'dist',
        (CLASSIFIER,),
        'DIST: ImageNet',
        _dist(1.0),
    ),
    Preset(
        'dist',
        (SMALL,),
        'DIST: CIFAR-100',
        _dist(4.0),
    ),
    Preset(
        'dist',
        (SEGMENTOR,),
        'The distance of DiffKD for Cityscapes (Sec. 4.3), without its neck',
        dict(logits=dict(at='logits', loss=dict(type='DISTLoss'))),
    ),
    Preset(
        'mse',
        (CLASSIFIER, SMALL, BACKBONE),
        'MSE in DiffKD, Table 2: ImageNet. It gives no weight',
        dict(
            feature=dict(
                at='last_map', neck=_PROJECTION, loss=dict(type='MSELoss')
            )
        ),
    ),
    Preset(
        'mse',
        (ONE_STAGE, TWO_STAGE),
        'The taps and weights of DiffKD for COCO (B.3), without its neck',
        dict(
            fpn=_fpn(_PROJECTION, dict(type='MSELoss', loss_weight=5.0)),
            reg=_BOXES,
        ),
    ),
    Preset(
        'mse',
        (DETR,),
        'The weight of DiffKD for other detectors on COCO (B.3)',
        dict(fpn=_fpn(_PROJECTION, dict(type='MSELoss', loss_weight=5.0))),
    ),
    Preset(
        'mse',
        (SEGMENTOR,),
        'The class maps as they are. No paper gives a weight',
        dict(logits=dict(at='logits', loss=dict(type='MSELoss'))),
    ),
    Preset(
        'pkd',
        (ONE_STAGE,),
        "PKD in mmrazor's configs: one-stage detectors on COCO",
        _pkd(10.0),
    ),
    Preset(
        'pkd',
        (TWO_STAGE,),
        "PKD in mmrazor's configs: two-stage detectors on COCO",
        _pkd(6.0),
    ),
    Preset(
        'cwd',
        (ONE_STAGE, TWO_STAGE),
        "CWD in mmrazor's configs: detectors on COCO",
        dict(
            fpn=_fpn(
                _PROJECTION,
                dict(type='ChannelWiseDivergence', tau=1.0, loss_weight=10.0),
            )
        ),
    ),
    Preset(
        'cwd',
        (SEGMENTOR,),
        "CWD in mmrazor's configs: Cityscapes",
        dict(
            logits=dict(
                at='logits',
                loss=dict(
                    type='ChannelWiseDivergence', tau=1.0, loss_weight=5.0
                ),
            )
        ),
    ),
    Preset(
        'fgd',
        (ONE_STAGE,),
        'FGD, released code: RetinaNet on COCO',
        dict(fpn=_fpn(_PROJECTION, _fgd(1e-3, 5e-4, 5e-4, 5e-6))),
    ),
    Preset(
        'fgd',
        (TWO_STAGE,),
        'FGD, released code: Faster and Mask R-CNN on COCO',
        dict(fpn=_fpn(_PROJECTION, _fgd(5e-5, 2.5e-5, 5e-5, 5e-7))),
    ),
    Preset(
        'mgd',
        (CLASSIFIER, SMALL, BACKBONE),
        'MGD, released code: ImageNet',
        dict(feature=_mgd('last_map', 0.15, 7e-5, mask_on_channel=True)),
    ),
    Preset(
        'mgd',
        (ONE_STAGE,),
        'MGD, released code: one-stage detectors on COCO',
        dict(fpn=_mgd('pyramid last_map', 0.65, 2e-5)),
    ),
    Preset(
        'mgd',
        (TWO_STAGE,),
        'MGD, released code: two-stage detectors on COCO',
        dict(fpn=_mgd('pyramid last_map', 0.45, 5e-7)),
    ),
    Preset(
        'mgd',
        (SEGMENTOR,),
        'MGD, released code: Cityscapes',
        dict(feature=_mgd('last_map', 0.75, 2e-5)),
    ),
    Preset(
        'reviewkd',
        (CLASSIFIER, SMALL, BACKBONE),
        'ReviewKD: ImageNet, ResNet-34 to ResNet-18. There the maps of the '
        'teacher are those before the last ReLU',
        dict(
            stages=dict(
                at='pyramid',
                neck=dict(type='ReviewKDNeck'),
                loss=dict(type='HCLLoss'),
            )
        ),
    ),
)
#: The names of all methods.
METHODS = tuple(dict.fromkeys(preset.method for preset in PRESETS))
