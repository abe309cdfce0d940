"""Values that the published implementations gave, in float64.

The inputs are formulas, so that anyone can compute the values again with the
code of the authors (or of mmrazor, where a row says so).
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from waves import wave

from mmdiffkd.analysis.similarity import linear_cka
from mmdiffkd.models.losses import (
    AngleWiseRKD,
    ATLoss,
    ChannelWiseDivergence,
    DirectionAlignmentLoss,
    DistanceWiseRKD,
    DISTLoss,
    DKDLoss,
    FGDLoss,
    HCLLoss,
    KLDivergence,
    LSHLoss,
    MGDLoss,
    MSELoss,
    PKDLoss,
    PKTLoss,
    SPLoss,
    VIDLoss,
)
from mmdiffkd.models.losses.crd import contrast_loss

# Logits with labels, maps, and vectors, of student and teacher.
LOGITS = (
    3 * wave(torch.sin, 0.7, 0.3, 4, 10),
    3 * wave(torch.cos, 0.9, 0.1, 4, 10),
)
LABELS = torch.tensor([3, 0, 7, 9])
MAPS = (
    wave(torch.sin, 0.37, 0.2, 4, 6, 4, 4),
    wave(torch.cos, 0.23, 0.5, 4, 6, 4, 4),
)
LARGE_MAPS = (
    wave(torch.sin, 0.37, 0.2, 2, 3, 8, 8),
    wave(torch.cos, 0.23, 0.5, 2, 3, 8, 8),
)
VECTORS = wave(torch.sin, 0.51, 0.4, 4, 8), wave(torch.cos, 0.33, 0.6, 4, 8)
# LSH's planes on which the published values have the label 1 for the vector
# that lies on the plane. Rounding decided there: W f + b was tiny, not 0.
ROUNDED_UP = [0, 1, 2, 5, 6, 7, 8]


def of_unit_length() -> tuple[Tensor, ...]:
    """The maps as mmrazor's L2Loss normalises them."""
    return tuple(F.normalize(x.flatten(1)) for x in MAPS)


def projected() -> tuple[Tensor, Tensor]:
    """The vectors after an ensemble of three projectors, and a teacher's."""
    projections = []
    for (frequency, phase), bias in (
        ((0.9, 0.1), 0.3),
        ((1.1, 0.2), 0.5),
        ((1.7, 0.3), 0.7),
    ):
        weight = wave(torch.sin, frequency, phase, 12, 8)
        projections.append(
            F.linear(VECTORS[0], weight, wave(torch.cos, bias, 0, 12)).relu()
        )
    return sum(projections) / 3, wave(torch.cos, 0.29, 0.6, 4, 12)


def rkd(**arguments) -> Tensor:
    distance = DistanceWiseRKD(**arguments)(*VECTORS)
    return distance + AngleWiseRKD(**arguments)(*VECTORS)


def in_float64(loss: type[nn.Module], **arguments) -> nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return loss(**arguments)
    finally:
        torch.set_default_dtype(before)


def vid() -> Tensor:
    return in_float64(VIDLoss, teacher_channels=6)(*MAPS)


def crd() -> Tensor:
    scores = wave(torch.sin, 0.2, 1, 4, 9).abs() * 1e-4
    return contrast_loss(scores, num_data=50000)


def lsh(above=(), **arguments) -> Tensor:
    """With 16 planes, the bias found from the teacher's vectors.

    A median puts one vector on each plane. It has the label 0; ``above``
    names the planes on which it has the label 1 nevertheless.
    """
    loss = in_float64(
        LSHLoss, teacher_channels=8, hash_bits=16, hash_std=1.0, **arguments
    )
    loss.planes.copy_(wave(torch.sin, 1.3, 0.7, 16, 8))
    if not loss.prepared:
        loss.prepare([VECTORS[1]])
    loss.bias[list(above)] += 1e-12
    # The teacher is right but for the sample of index 1.
    logits = LOGITS[1]
    labels = logits.argmax(1)
    labels[1] = logits[1].argmin()
    return loss(*VECTORS, gt_labels=labels, teacher_logits=logits)


def fgd(term: str) -> Tensor:
    """One term without its weight, for objects on images of 64 x 64."""
    boxes = [
        [[0, 0, 20, 20], [10, 10, 60, 40]],
        [[5, 5, 15, 15]],
        [[0, 0, 64, 64]],
        [[32, 0, 64, 32]],
    ]
    boxes = [torch.tensor(x, dtype=torch.float64) for x in boxes]
    loss = in_float64(FGDLoss, teacher_channels=6, temp=0.5)
    return loss.terms(*MAPS, boxes, [(64, 64)] * 4)[term]


GOLDEN = {
    'KD, tau 4': (lambda: KLDivergence(tau=4)(*LOGITS), 4.755907785886),
    'KD, tau 1': (lambda: KLDivergence()(*LOGITS), 2.917647638581),
    'DKD, alpha 1, beta 8, tau 4': (
        lambda: DKDLoss(tau=4, alpha=1, beta=8)(*LOGITS, LABELS),
        35.633655659695,
    ),
    'DKD, TCKD alone, tau 4': (
        lambda: DKDLoss(tau=4, beta=0)(*LOGITS, LABELS),
        0.601308117309,
    ),
    'DKD, alpha 1, beta 0.5, tau 1': (
        lambda: DKDLoss(tau=1, alpha=1, beta=0.5)(*LOGITS, LABELS),
        1.544654846263,
    ),
    # What mmrazor gives for reduction='mean'.
    'DKD, the same summed over samples': (
        lambda: DKDLoss(beta=0.5, reduction='sum')(*LOGITS, LABELS),
        6.178619385051,
    ),
    'DIST, tau 1': (lambda: DISTLoss()(*LOGITS), 2.187206687931),
    'DIST, tau 4': (lambda: DISTLoss(tau=4)(*LOGITS), 33.457305002186),
    'DIST, inter alone, tau 1': (
        lambda: DISTLoss(intra_loss_weight=0)(*LOGITS),
        1.165837355104,
    ),
    'FitNet': (lambda: MSELoss()(*MAPS), 0.958624366602),
    'AT': (lambda: ATLoss()(*MAPS), 0.004450239184),
    'SP': (lambda: SPLoss()(*MAPS), 0.303789260612),
    'VID, the mean as it is, variance 5': (vid, 0.900581392877),
    'RKD, 25 distance + 50 angle': (
        lambda: rkd(with_l2_norm=False),
        2.215877164088,
    ),
    'RKD, 25 distance': (
        lambda: DistanceWiseRKD(with_l2_norm=False)(*VECTORS),
        1.402837371148,
    ),
    "mmrazor's DistanceWiseRKD": (
        lambda: DistanceWiseRKD()(*VECTORS),
        1.259055674642,
    ),
    "mmrazor's AngleWiseRKD": (
        lambda: AngleWiseRKD()(*VECTORS),
        0.508832853708,
    ),
    'PKT': (lambda: PKTLoss()(*VECTORS), 0.035430551622),
    'CRD': (crd, 4.416325888159),
    'HCL, height 4': (lambda: HCLLoss()(*MAPS), 0.743776822968),
    'HCL, height 8': (lambda: HCLLoss()(*LARGE_MAPS), 0.562495266909),
    'CWD, tau 1': (lambda: ChannelWiseDivergence()(*MAPS), 0.387846332804),
    'CWD, tau 4': (
        lambda: ChannelWiseDivergence(tau=4)(*MAPS),
        0.411405352611,
    ),
    'PKD': (lambda: PKDLoss()(*MAPS), 0.946532967286),
    'MGD, alpha 2e-5, nothing masked or generated': (
        lambda: MGDLoss()(*MAPS),
        0.001840558784,
    ),
    # Of normalised features, the sum over elements and mean over samples.
    "mmrazor's L2Loss": (
        lambda: MSELoss(loss_weight=6 * 4 * 4)(*of_unit_length()),
        1.919273546753,
    ),
    'FGD, foreground': (lambda: fgd('fg'), 5.215500683698),
    'FGD, background': (lambda: fgd('bg'), 2.932103126149),
    'FGD, attentions': (lambda: fgd('mask'), 3.892363393121),
    'FGD, global relation': (lambda: fgd('rela'), 92.027939193803),
    # The released code makes labels of type float32, which rounds the cross
    # entropy; these are its values with that cast to float64 instead. With a
    # median, labels were ROUNDED_UP where they were computed.
    'LSHL2, no bias': (lambda: lsh(bias='zero'), 1.431567955400),
    # The lower one of two medians, as torch.median has it.
    'LSHL2, median': (lambda: lsh(ROUNDED_UP, bias='median'), 1.437120415913),
    'LSH, median': (
        lambda: lsh(ROUNDED_UP, bias='median', with_l2=False),
        0.572396535241,
    ),
    'LSH, mean': (lambda: lsh(bias='mean', with_l2=False), 0.576623890221),
    'LSHL2_S, median': (
        lambda: lsh(
            ROUNDED_UP, bias='median', sample_filter='teacher_correct'
        ),
        1.726774772600,
    ),
    'PEFD': (lambda: DirectionAlignmentLoss()(*projected()), 0.807812690557),
    'linear CKA': (lambda: linear_cka(*VECTORS), 0.732679368841),
}


@pytest.mark.parametrize('compute, value', GOLDEN.values(), ids=GOLDEN)
def test_golden_value(compute, value):
    with torch.no_grad():
        computed = float(compute())
    assert computed == pytest.approx(value, abs=1e-9)


def released_lsh(dtype, bias, with_l2=True, counted=None, above=()):
    """LSH's released code, with labels of a type; there they are float32.

    PyTorch's cross entropy of float64 logits and float32 labels is float32,
    and so are the published values, less exact than those above. The label
    of the vector on a plane is given, since what the code computes for it
    depends on the processor: 1 on the planes ``above``, otherwise 0.
    """
    planes = wave(torch.sin, 1.3, 0.7, 16, 8)
    student, teacher = VECTORS
    codes = teacher @ planes.T
    median = codes.median(dim=0)
    shift = {
        'zero': torch.zeros(16, dtype=torch.float64),
        'median': -median.values,
        'mean': -codes.mean(dim=0),
    }[bias]
    labels = F.linear(teacher, planes, shift) > 0
    if bias == 'median':
        for plane, vector in enumerate(median.indices):
            labels[vector, plane] = plane in above
    given = F.linear(student, planes, shift), labels.to(dtype)
    if counted is None:
        entropy = F.binary_cross_entropy_with_logits(*given)
        assert entropy.dtype == dtype
        return entropy + F.mse_loss(student, teacher) * with_l2
    entropy = F.binary_cross_entropy_with_logits(*given, reduction='none')
    error = (student - teacher).square().mean(dim=1)
    return (error + entropy.mean(dim=1))[counted].mean()


@pytest.mark.parametrize(
    'arguments, published, exact',
    [
        (('zero',), 1.431567986393, 1.431567955400),
        (('median',), 1.437120397472, 1.437120415913),
        (('median', False), 0.572396516800, 0.572396535241),
        (('mean', False), 0.576623857021, 0.576623890221),
        # The teacher is wrong about sample 1.
        (('median', True, [0, 2, 3]), 1.726774767648, 1.726774772600),
    ],
)
def test_published_hash_losses_are_rounded(arguments, published, exact):
    found = released_lsh(torch.float32, *arguments, above=ROUNDED_UP)
    # 4 units of rounding: which float32 it is, the kernel's sums decide.
    assert float(found) == pytest.approx(published, abs=4 * 2**-24)
    found = released_lsh(torch.float64, *arguments, above=ROUNDED_UP)
    assert float(found) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(
    'found, arguments',
    [
        (lambda: lsh(bias='median'), ('median',)),
        (lambda: lsh(bias='median', with_l2=False), ('median', False)),
        (
            lambda: lsh(bias='median', sample_filter='teacher_correct'),
            ('median', True, [0, 2, 3]),
        ),
    ],
)
def test_hash_losses_with_vectors_on_planes_below(found, arguments):
    expected = released_lsh(torch.float64, *arguments)
    assert float(found()) == pytest.approx(float(expected), abs=1e-9)
