"""Timing a distiller's step: its parts, its teacher and its overhead."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.models.distillers import Distiller, FrozenTeacher
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.models.necks import DiffKDNeck
from mmdiffkd.utils import is_distiller, teachers_of

from .batches import INPUT_SIZES, make_batch, package_of
from .benchmark_neck import compare, leaf
from .benchmark_report import (
    COMPARED_COLUMNS,
    METHOD_COLUMNS,
    PART_COLUMNS,
)
from .tables import table
from .timing import Part, Settings, measure

# Switches of the teacher, one more in each.
TEACHERS = {
    'plain': {
        'fold_batch_norm': False,
        'channels_last': False,
        'dtype': None,
        'compile': False,
    }
}
TEACHERS['folded'] = TEACHERS['plain'] | {'fold_batch_norm': True}
TEACHERS['and channels last'] = TEACHERS['folded'] | {'channels_last': True}
TEACHERS['and bfloat16'] = TEACHERS['and channels last'] | {
    'dtype': 'bfloat16'
}


def build_distiller(config: Config, settings: Settings) -> Distiller:
    """A distiller in train mode, with random weights and all its entries on.

    No teacher's checkpoint is read: the arithmetic of random weights is the
    same.
    """
    config = deepcopy(config)
    for teacher in teachers_of(config.model).values():
        teacher.checkpoint = None
        if settings.compile:
            teacher.compile = True
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = build_from_config(config).to(settings.device).train()
    # The switches of a teacher take effect with its weights.
    for teacher in model.teachers.values():
        teacher.init_weights()
    model.set_progress(epoch=0, iteration=0)
    for entry in model.distill.values():
        entry.factor = 1.0
    return model


@contextlib.contextmanager
def _captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple]]:
    """The positional arguments that modules are called with, by name."""
    arguments: dict[str, tuple] = {}
    with contextlib.ExitStack() as hooks:
        for name, module in modules.items():
            handle = module.register_forward_pre_hook(
                lambda _, args, name=name: arguments.update({name: args})
            )
            hooks.callback(handle.remove)
        yield arguments


def parts_of(
    model: Distiller, inputs: Tensor, data_samples: list, settings: Settings
) -> list[Part]:
    """The student, each teacher and entry, and the whole step, in order.

    Entries run on the tensors that a first step on the inputs, normalised
    images (B, 3, H, W), gave them.
    """
    teachers = {each.label: each for each in model.teachers.values()}
    watched = {**teachers, **dict(model.distill.items())}
    with _captured(watched) as arguments, settings.precision():
        model(inputs, data_samples, mode='loss')

    def loss_of(network: BaseModel) -> Callable[[], Tensor]:
        def forward() -> Tensor:
            losses = network(inputs, data_samples, mode='loss')
            return network.parse_losses(losses)[0]

        return settings.compiled(forward)

    def loss_of_entry(entry: nn.Module, given: tuple) -> Callable[[], Tensor]:
        run = settings.compiled(entry)
        return lambda: sum(run(*given)[0].values())

    def teach(label: str) -> None:
        with settings.precision():
            teachers[label](*arguments[label])

    parts = [
        settings.training('student', loss_of(model.student), model.student),
        *(
            Part(f'{label}, forward', partial(teach, label))
            for label in teachers
            if label in arguments
        ),
    ]
    for name, entry in model.distill.items():
        if name in arguments:
            students, *others = arguments[name]
            students = [leaf(student) for student in students]
            forward = loss_of_entry(entry, (students, *others))
            part = f'distill.{name}'
            parts.append(settings.training(part, forward, entry, students))
    parts.append(settings.training('whole step', loss_of(model), model))
    return parts


def batch_for(model: Distiller, config: Config) -> tuple[Tensor, list]:
    """A random batch of the size that the config asks for."""
    size = (
        config.model.get('input_size')
        or INPUT_SIZES[package_of(model.student)]
    )
    height, width = (size, size) if isinstance(size, int) else size
    batch_size = config.train_dataloader.batch_size
    return make_batch(model, batch_size, (height, width))


def benchmark_distiller(
    config: Config, settings: Settings
) -> tuple[dict, str]:
    """Measure a distiller and its parts on random images and annotations.

    A released module is measured in turn with each DiffKD neck.

    Returns:
        tuple[dict, str]: ``batch``, ``rows`` (one for each of
        :func:`parts_of`), ``ratio`` and ``ratio_by_macs`` (the whole step
        over student and teachers), ``rest_ms`` and ``rest_faults`` (in no
        part), with a reference ``compared``; and the tables.
    """
    model = build_distiller(config, settings)
    inputs, data_samples = batch_for(model, config)
    rows = measure(parts_of(model, inputs, data_samples, settings), settings)
    whole = rows[-1]
    read = {name for e in model.distill.values() for name in e.teachers}
    networks = rows[: 1 + len(read)]
    result = {
        'batch': list(inputs.shape),
        'rows': rows,
        'ratio': whole['ms'] / sum(row['ms'] for row in networks),
        'ratio_by_macs': whole['gmacs']
        / sum(row['gmacs'] for row in networks),
        'rest_ms': whole['ms'] - sum(row['ms'] for row in rows[:-1]),
        'rest_faults': whole['page_faults']
        - sum(row['page_faults'] for row in rows[:-1]),
    }
    texts = [
        table(rows, PART_COLUMNS),
        f'Batch {result["batch"]}. The whole step over student and teacher '
        f'forward: {result["ratio"]:.2f}, by multiply-adds '
        f'{result["ratio_by_macs"]:.2f}. In no part: '
        f'{result["rest_ms"]:.1f} ms and {result["rest_faults"]:,} page '
        'faults.',
    ]
    if settings.reference:
        necks = {
            f'distill.{name}'
            + (f'[{level}]' if len(entry.necks) > 1 else ''): neck
            for name, entry in model.distill.items()
            for level, neck in enumerate(entry.necks)
            if isinstance(neck, DiffKDNeck)
        }
        with _captured(necks) as arguments, settings.precision():
            model(inputs, data_samples, mode='loss')
        compared = [
            compare(name, necks[name], *pair, settings)
            for name, pair in arguments.items()
        ]
        result['compared'] = compared
        texts.append(table(compared, COMPARED_COLUMNS))
    return result, '\n\n'.join(texts)


def benchmark_methods(
    configs: Mapping[str, Config], settings: Settings
) -> tuple[dict, str]:
    """Measure a step of several recipes in turn, on random images.

    Recipes without distillation may be among them; they get the batch of the
    first distiller.

    Args:
        configs (Mapping[str, Config]): A recipe by its label. The first is
            what the others are compared with.
        settings (Settings): How everything is measured.

    Returns:
        tuple[dict, str]: ``rows``, each with ``ratio`` and
        ``memory_ratio`` to the first, and the table.

    Raises:
        ValueError: If none of them distils.
    """
    models = {
        label: build_distiller(config, settings)
        for label, config in configs.items()
        if is_distiller(config.model)
    }
    if not models:
        raise ValueError(
            f'none of {", ".join(configs)} distils: name one distiller at '
            'least, from which the batch is made.'
        )
    batches = {
        label: batch_for(model, configs[label])
        for label, model in models.items()
    }
    first = next(iter(models))
    for label, config in configs.items():
        if label not in models:
            plain = build_from_config(config).to(settings.device).train()
            models[label], batches[label] = plain, batches[first]

    def part(label: str) -> Part:
        model, batch = models[label], batches[label]

        def forward() -> Tensor:
            return model.parse_losses(model(*batch, mode='loss'))[0]

        return settings.training(label, settings.compiled(forward), model)

    rows = measure([part(label) for label in configs], settings)
    for row in rows:
        row['ratio'] = row['ms'] / rows[0]['ms']
        row['memory_ratio'] = row['peak_mib'] / rows[0]['peak_mib']
    return {'rows': rows}, table(rows, METHOD_COLUMNS)


def benchmark_teacher(config: Config, settings: Settings) -> tuple[dict, str]:
    """Measure a distiller's teacher with more and more of its switches on.

    With ``settings.compile`` each variant is measured compiled, too.

    Returns:
        tuple[dict, str]: ``batch`` and ``rows``, and the table.

    Raises:
        ValueError: If it has several.
    """
    (given, *others) = teachers_of(config.model).values()
    if others:
        raise ValueError(
            '`model.teachers` has several teachers. Measure one at a time: '
            'leave out the others and the entries that read them, by '
            '`--cfg-options model.teachers.NAME=None model.distill.NAME=None`.'
        )
    model = build_distiller(config, replace(settings, compile=False))
    inputs, _ = batch_for(model, config)
    taps = list(model.teacher.taps.taps)
    variants = dict(TEACHERS)
    if settings.compile:
        variants |= {
            f'{name}, compiled': {**switches, 'compile': True}
            for name, switches in TEACHERS.items()
        }
    parts = []
    for name, switches in variants.items():
        teacher = FrozenTeacher(**{**given, **switches, 'checkpoint': None})
        teacher.match_input(model.data_preprocessor)
        teacher.attach(taps, tuple(inputs.shape[1:]))
        teacher.to(settings.device).init_weights()
        parts.append(Part(name, partial(teacher, inputs, taps)))
    rows = measure(parts, settings)
    for row in rows:
        row['ratio'] = row['ms'] / rows[0]['ms']
    column = ('of the plain time', '{ratio:.2f}')
    name = given.get('config') or given.get('module')
    name = f'`{name}`' if isinstance(name, str) else 'Teacher'
    texts = [
        table(rows, [*PART_COLUMNS[:3], column, *PART_COLUMNS[3:]]),
        f'{name}, batch {list(inputs.shape)}.',
    ]
    return {'batch': list(inputs.shape), 'rows': rows}, '\n\n'.join(texts)


class _Tiny(BaseModel):
    """A network of negligible size with two taps."""

    def __init__(self) -> None:
        super().__init__(BaseDataPreprocessor())
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs))

    def forward(
        self,
        inputs: Tensor,
        data_samples: Tensor | None = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor]:
        return self.task_loss(self.extract_feat(inputs), data_samples)

    @staticmethod
    def task_loss(feature: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {'loss': F.cross_entropy(feature.mean((2, 3)), labels)}


def benchmark_overhead(settings: Settings) -> tuple[dict, str]:
    """Compare a distiller's step with the same step written by hand.

    Returns:
        tuple[dict, str]: ``rows`` and ``overhead_ms``, and the table.
    """
    distance = {'type': 'MSELoss'}
    model = Distiller(
        _Tiny(),
        {'config': {'model': {'type': _Tiny}}, 'checkpoint': None},
        {tap: {'at': tap, 'loss': distance} for tap in ('first', 'second')},
        input_size=4,
    ).to(settings.device)
    student, teacher = model.student, model.teacher.network
    images = torch.randn(2, 3, 4, 4, device=settings.device)
    labels = torch.tensor([0, 1], device=settings.device)

    def by_hand() -> Tensor:
        first = student.first(images)
        second = student.second(first)
        losses = student.task_loss(second, labels)
        with torch.no_grad():
            first_target = teacher.first(images)
            second_target = teacher.second(first_target)
        losses['distill.first.loss_kd'] = F.mse_loss(first, first_target)
        losses['distill.second.loss_kd'] = F.mse_loss(second, second_target)
        return model.parse_losses(losses)[0]

    def by_distiller() -> Tensor:
        return model.parse_losses(model(images, labels, mode='loss'))[0]

    steps = {
        'step by hand': by_hand,
        'step of the distiller': by_distiller,
    }
    rows = measure(
        [
            settings.training(name, step, student)
            for name, step in steps.items()
        ],
        settings,
    )
    overhead = rows[1]['ms'] - rows[0]['ms']
    texts = [
        table(rows, PART_COLUMNS[:3]),
        f'Two entries; the distiller adds {overhead:.2f} ms a step.',
    ]
    return {'rows': rows, 'overhead_ms': overhead}, '\n\n'.join(texts)
