"""Timing DiffKD's neck alone: its sizes, its options and its growth."""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from mmdiffkd.models.losses import KLDivergence, MSELoss
from mmdiffkd.models.necks import DiffKDNeck

from .benchmark_report import (
    COMPARED_COLUMNS,
    GROWTH_COLUMNS,
    PART_COLUMNS,
)
from .memory import kept_for_backward
from .tables import table
from .timing import MIB, Part, Settings, measure

REFERENCE = 'lib/models/losses/diffkd'
# Student's and teacher's tensor have one shape; arguments of the neck.
CASES = {
    'FPN level': ((2, 256, 100, 168), {}),
    'last map, latent 1024': ((16, 512, 7, 7), {'latent_channels': 1024}),
    '1000 logits': ((64, 1000), {'feature': 'vector'}),
    '19-class logit maps': ((2, 19, 64, 128), {}),
}
# What --options compares, at the size of the first case.
OPTIONS = {
    'plain': {},
    'with_cp=True': {'with_cp': True},
    'grad_steps=3': {'grad_steps': 3},
    'grad_steps=2': {'grad_steps': 2},
    'grad_steps=1': {'grad_steps': 1},
    'grad_steps=1, with_cp=True': {'grad_steps': 1, 'with_cp': True},
}
# What --growth varies, around a map of this shape.
GROWTH_SHAPE = (4, 128, 28, 28)
GROWTH = {
    'denoising steps': (1, 2, 3, 5, 8, 10),
    'latent channels': (64, 128, 256, 512),
    'levels': (1, 2, 3, 4, 5),
    'batch size': (2, 4, 8, 16),
}


def import_reference(folder: Path) -> type[nn.Module]:
    """The released DiffKD module, from a checkout of its repository.

    Raises:
        FileNotFoundError: If the module is not in the folder.
    """
    package = folder / REFERENCE
    if not (package / '__init__.py').is_file():
        raise FileNotFoundError(
            f'--reference {folder}: there is no {REFERENCE} in it. Give a '
            'checkout: git clone '
            'https://github.com/hunto/image_classification_sota'
        )
    sys.path.append(str(package.parent))
    return import_module(package.name).DiffKD


def leaf(tensor: Tensor) -> Tensor:
    """A copy that collects a gradient."""
    return tensor.detach().clone().requires_grad_()


def _distance(neck: DiffKDNeck) -> nn.Module:
    return MSELoss() if neck.feature == 'map' else KLDivergence()


def _loss(
    neck: DiffKDNeck, run: Callable, student: Tensor, teacher: Tensor
) -> Tensor:
    """The losses of a neck and the distance; ``run`` may be compiled."""
    aligned = run(student, teacher, **neck.draw(student, teacher))
    distance = _distance(neck)(aligned.student, aligned.teacher)
    return distance + sum(aligned.losses.values())


def neck_part(
    name: str,
    necks: Sequence[DiffKDNeck],
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    settings: Settings,
) -> Part:
    """Forward and backward of necks and the distance, one neck a level."""
    runs = [settings.compiled(neck) for neck in necks]
    students = [leaf(student) for student in students]

    def forward() -> Tensor:
        return sum(map(_loss, necks, runs, students, teachers))

    return settings.training(name, forward, nn.ModuleList(necks), students)


def released_part(
    necks: Sequence[DiffKDNeck],
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    settings: Settings,
) -> Part:
    """The same of ``settings.reference``, the released module, for each neck.

    It takes maps, which vectors become here. Autocast with an autoencoder
    rounds its schedule for good; its gradients are not finite after that.
    """
    modules = [_released_module(neck, settings) for neck in necks]
    runs = [settings.compiled(module) for module in modules]
    students = [leaf(student) for student in students]

    def loss(
        neck: DiffKDNeck, run: Callable, student: Tensor, teacher: Tensor
    ) -> Tensor:
        maps = [
            tensor if tensor.ndim == 4 else tensor[:, :, None, None]
            for tensor in (student, teacher)
        ]
        refined, target, diffusion, reconstruction = run(*maps)
        total = _distance(neck)(refined, target) + diffusion
        return total if reconstruction is None else total + reconstruction

    def forward() -> Tensor:
        return sum(map(loss, necks, runs, students, teachers))

    modules = nn.ModuleList(modules)
    return settings.training('released', forward, modules, students)


def _released_module(neck: DiffKDNeck, settings: Settings) -> nn.Module:
    return settings.reference(
        neck.student_channels,
        neck.teacher_channels,
        kernel_size=3 if neck.feature == 'map' else 1,
        inference_steps=len(neck.sampler.timesteps),
        use_ae=neck.autoencoder is not None,
        ae_channels=neck.channels,
    ).to(settings.device)


def _released_parts(
    neck: DiffKDNeck, student: Tensor, teacher: Tensor, settings: Settings
) -> list[Part]:
    """The released module in float32 and eager, or nothing without it."""
    if settings.reference is None:
        return []
    plain = replace(settings, amp=None, compile=False)
    return [released_part([neck], [student], [teacher], plain)]


def compare(
    name: str,
    neck: DiffKDNeck,
    student: Tensor,
    teacher: Tensor,
    settings: Settings,
) -> dict:
    """Measure a neck, and in the same run what it is compared with.

    Returns:
        dict: ``case``, the name; as ``float32``, with AMP also ``half``,
        with a reference also ``released``, a row of
        :func:`~.timing.measure`, which then has ``ratio`` and
        ``memory_ratio``, ours over the released. With ``settings.compile``
        also ``float32_compiled`` and ``half_compiled``, with
        ``eager_ratio``, compiled over eager.
    """
    torch.compiler.reset()
    student, teacher = student.float(), teacher.float()
    precisions = {'float32': None}
    if settings.amp is not None:
        precisions['half'] = settings.amp
    parts = []
    for suffix in ('', '_compiled')[: 1 + settings.compile]:
        for part, amp in precisions.items():
            chosen = replace(settings, amp=amp, compile=bool(suffix))
            parts.append(
                neck_part(part + suffix, [neck], [student], [teacher], chosen)
            )
    parts += _released_parts(neck, student, teacher, settings)
    rows = {row['part']: row for row in measure(parts, settings)}
    if settings.compile:
        for part in precisions:
            compiled = rows[f'{part}_compiled']
            compiled['eager_ratio'] = compiled['ms'] / rows[part]['ms']
    if 'released' in rows:
        for row in rows.values():
            for ratio, key in (('ratio', 'ms'), ('memory_ratio', 'peak_mib')):
                row[ratio] = row[key] / rows['released'][key]
    return {'case': name, **rows}


def median_of(runs: Sequence[dict]) -> dict:
    """Of several equal runs the median of every number."""
    first = runs[0]
    if isinstance(first, dict):
        return {key: median_of([run[key] for run in runs]) for key in first}
    if isinstance(first, (int, float)):
        return statistics.median(runs)
    return first if isinstance(first, str) else list(runs)


def benchmark_cases(settings: Settings, runs: int = 1) -> tuple[dict, str]:
    """Measure DiffKD's necks at the sizes of :data:`CASES`.

    Each is built and measured ``runs`` times, and the median is reported.

    Returns:
        tuple[dict, str]: ``compared``, a row of :func:`compare` for each
        case, and its table.
    """
    compared = []
    for name, (shape, arguments) in CASES.items():
        found = []
        for _ in range(runs):
            neck = DiffKDNeck(shape[1], shape[1], **arguments)
            neck.to(settings.device)
            pair = torch.randn(2, *shape, device=settings.device)
            found.append(compare(name, neck, *pair, settings))
        compared.append(median_of(found))
    return {'compared': compared}, table(compared, COMPARED_COLUMNS)


def benchmark_options(settings: Settings) -> tuple[dict, str]:
    """Measure what the options of a neck save, at the size of the first case.

    Returns:
        tuple[dict, str]: ``rows``, one for each of :data:`OPTIONS`, and
        their table.
    """
    shape, arguments = next(iter(CASES.values()))
    student, teacher = torch.randn(2, *shape, device=settings.device)
    parts = []
    for name, options in OPTIONS.items():
        neck = DiffKDNeck(shape[1], shape[1], **arguments, **options)
        neck.to(settings.device)
        parts.append(neck_part(name, [neck], [student], [teacher], settings))
    parts += _released_parts(neck, student, teacher, settings)
    rows = measure(parts, settings)
    for row in rows:
        row['ratio'] = row['ms'] / rows[0]['ms']
        row['memory_ratio'] = row['peak_mib'] / rows[0]['peak_mib']
        if settings.reference:
            share = row['peak_mib'] / rows[-1]['peak_mib']
            row['memory_of_released'] = share
    columns = [
        *PART_COLUMNS[:3],
        ('of the plain time', '{ratio:.2f}'),
        PART_COLUMNS[3],
        ('of the plain memory', '{memory_ratio:.2f}'),
        ("of the released module's", '{memory_of_released:.2f}'),
    ]
    return {'rows': rows}, table(rows, columns)


def _growth_part(quantity: str, value: int, settings: Settings) -> Part:
    """DiffKD on a map of medium size, with one quantity changed."""
    batch_size, channels, *size = GROWTH_SHAPE
    levels, arguments = 1, {}
    if quantity == 'denoising steps':
        arguments['num_inference_steps'] = value
    elif quantity == 'latent channels':
        arguments['latent_channels'] = value
    elif quantity == 'levels':
        levels = value
    else:
        batch_size = value
    necks = [
        DiffKDNeck(channels, channels, **arguments).to(settings.device)
        for _ in range(levels)
    ]
    shape = (levels, batch_size, channels, *size)
    pairs = torch.randn(2, *shape, device=settings.device)
    return neck_part(f'{quantity} {value}', necks, *pairs, settings)


def benchmark_growth(settings: Settings) -> tuple[dict, str]:
    """Vary one quantity at a time, around a map of medium size.

    Time is predicted in proportion to the multiply-adds, memory in
    proportion to the bytes kept for the backward pass, both from the largest
    value down.

    Returns:
        tuple[dict, str]: ``growth``, a row for each value of
        :data:`GROWTH`, and their table.
    """
    growth = []
    for quantity, values in GROWTH.items():
        parts = [_growth_part(quantity, value, settings) for value in values]
        rows = measure(parts, settings)
        for row, part, value in zip(rows, parts, values):
            row |= {'quantity': quantity, 'value': value}
            kept = kept_for_backward(part.run, part.leaves)
            row['kept_mib'] = kept / MIB
        last = rows[-1]
        for row in rows:
            by_macs = row['gmacs'] / last['gmacs']
            by_bytes = row['kept_mib'] / last['kept_mib']
            row['predicted_ms'] = last['ms'] * by_macs
            row['predicted_mib'] = last['peak_mib'] * by_bytes
        growth += rows
    return {'growth': growth}, table(growth, GROWTH_COLUMNS)
