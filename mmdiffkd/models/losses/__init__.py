"""Distances between what the student and the teacher say."""

from .at import ATLoss
from .crd import CRDLoss
from .cwd import ChannelWiseDivergence
from .direction_alignment import DirectionAlignmentLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fgd import FGDLoss
from .hcl import HCLLoss
from .kl_divergence import KLDivergence
from .lsh import LSHLoss
from .mgd import MGDLoss
from .mse import MSELoss
from .pkd import PKDLoss
from .pkt import PKTLoss
from .rkd import AngleWiseRKD, DistanceWiseRKD
from .smooth_l1 import SmoothL1Loss
from .sp import SPLoss
from .vid import VIDLoss

__all__ = [
    'ATLoss',
    'AngleWiseRKD',
    'CRDLoss',
    'ChannelWiseDivergence',
    'DISTLoss',
    'DKDLoss',
    'DirectionAlignmentLoss',
    'DistanceWiseRKD',
    'FGDLoss',
    'HCLLoss',
    'KLDivergence',
    'LSHLoss',
    'MGDLoss',
    'MSELoss',
    'PKDLoss',
    'PKTLoss',
    'SPLoss',
    'SmoothL1Loss',
    'VIDLoss',
]
