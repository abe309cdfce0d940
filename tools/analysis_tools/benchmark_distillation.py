r"""Time a distillation and its parts, and what they need of memory.

    python tools/analysis_tools/benchmark_distillation.py CONFIG
    python tools/analysis_tools/benchmark_distillation.py CONFIG --teacher
    python tools/analysis_tools/benchmark_distillation.py --cases
    python tools/analysis_tools/benchmark_distillation.py --options
    python tools/analysis_tools/benchmark_distillation.py --growth
    python tools/analysis_tools/benchmark_distillation.py --overhead

CONFIG is a distiller's: its student, its teacher, each entry and the whole
step are timed on random images and annotations of the student's task; no
data, no checkpoint is read. --teacher times its teacher alone, with more and
more of the switches that make it faster. --cases times DiffKD's neck alone at
the sizes of the paper's tasks, --options with what makes it cheaper. --growth
varies one quantity at a time and puts the line beside it that the arithmetic
predicts. --overhead compares a step of the distiller with the same step
written by hand, on networks of negligible size.

What is compared is run in turn, so that a machine that slows down slows all
of it down. Times are medians, with the quartiles beside them; on a GPU they
are its own, by events. Forward and backward are timed, an optimizer's step is
not. Memory is the peak of one run above what was there before it.

MACs are counted as get_flops.py counts them, but of what was run, backward
pass included. MMEngine's ``get_model_complexity_info`` traces one forward
pass of one module, and cannot look at a loss or a step (where both can count,
they agree but for the normalisation that MMEngine adds).

--reference DIR times the DiffKD module of a checkout of
github.com/hunto/image_classification_sota on the same tensors, in turn with
ours. It is imported from there, and runs in float32 alone.
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffkd.analysis.macs import count_macs
from mmdiffkd.analysis.memory import peak_memory
from mmdiffkd.models.distillers import Distiller, FrozenTeacher
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.models.losses import KLDivergence, MSELoss
from mmdiffkd.models.necks import DiffKDNeck
from mmdiffkd.utils import load_config
from mmdiffkd.visualization.training_curves import PALETTE

HALVES = {'bf16': torch.bfloat16, 'fp16': torch.float16}
WARM_UP = 2
MIB = 2**20
# The paper's sizes, where the config does not say.
INPUT_SIZES = {
    'mmpretrain': (224, 224),
    'mmdet': (800, 1344),
    'mmseg': (512, 1024),
}
# Samples of the data set that memory banks are made for.
DATA_LENGTH = 50_000
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


# Measuring


@dataclass
class Part:
    """Something to time.

    Attributes:
        name (str): What the tables call it.
        run (Callable): What is timed.
        leaves (Sequence[Tensor]): Whose gradients are dropped before.
    """

    name: str
    run: Callable[[], object]
    leaves: Sequence[Tensor] = ()

    def reset(self) -> None:
        """Forget the gradients of the run before."""
        for leaf in self.leaves:
            leaf.grad = None


@dataclass
class Settings:
    """How everything is measured.

    Attributes:
        device (torch.device): Where.
        repetitions (int): How often.
        amp (torch.dtype, optional): Type of autocast; None is float32.
        compile (bool): Whether what is ours is compiled.
    """

    device: torch.device
    repetitions: int = 10
    amp: torch.dtype | None = None
    compile: bool = False

    def precision(self) -> contextlib.AbstractContextManager:
        """Autocast, or nothing."""
        if self.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.amp)

    def compiled(self, function: Callable) -> Callable:
        """A function, compiled if that is wanted."""
        return torch.compile(function) if self.compile else function

    def training(
        self,
        name: str,
        forward: Callable[[], Tensor],
        module: nn.Module,
        inputs: Sequence[Tensor] = (),
    ) -> Part:
        """Forward and backward of what gives a loss.

        Args:
            name (str): The part's name.
            forward (Callable): Gives the loss; runs under autocast.
            module (nn.Module): Whose parameters get gradients.
            inputs (Sequence[Tensor]): What else gets one.
        """

        def run() -> None:
            with self.precision():
                loss = forward()
            loss.backward()

        return Part(name, run, [*module.parameters(), *inputs])

    def seconds(self, part: Part) -> float:
        """Time one run, on the device's own clock."""
        part.reset()
        if self.device.type != 'cuda':
            start = time.perf_counter()
            part.run()
            return time.perf_counter() - start
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda.synchronize()
        events[0].record()
        part.run()
        events[1].record()
        torch.cuda.synchronize()
        return events[0].elapsed_time(events[1]) / 1e3


def measure(parts: Sequence[Part], settings: Settings) -> list[dict]:
    """Time parts in turn, then weigh each and count its arithmetic.

    Args:
        parts (Sequence[Part]): What to measure.
        settings (Settings): How.

    Returns:
        list[dict]: A row a part: ``part``, ``ms`` (median), ``ms_low`` and
        ``ms_high`` (quartiles), ``peak_mib``, ``gmacs``, ``all_ms``.
    """
    for _ in range(WARM_UP):
        for part in parts:
            part.reset()
            part.run()
    times: dict[str, list[float]] = {part.name: [] for part in parts}
    gc.collect()
    gc.disable()
    try:
        for _ in range(settings.repetitions):
            for part in parts:
                times[part.name].append(1e3 * settings.seconds(part))
    finally:
        gc.enable()
    rows = []
    for part in parts:
        part.reset()
        peak = peak_memory(part.run, settings.device)
        part.reset()
        column = times[part.name]
        low, middle, high = np.quantile(column, [0.25, 0.5, 0.75])
        rows.append(
            {
                'part': part.name,
                'ms': float(middle),
                'ms_low': float(low),
                'ms_high': float(high),
                'peak_mib': peak / MIB,
                'gmacs': _gmacs(part),
                'all_ms': column,
            }
        )
        part.reset()
    return rows


def _gmacs(part: Part) -> float:
    def run() -> None:
        with torch.enable_grad(), torch.compiler.set_stance('force_eager'):
            part.run()

    return count_macs(run, batch_size=1) / 1e9


# A distiller's parts


def read_config(args: argparse.Namespace) -> Config:
    """The distiller's config, with what the command line changes.

    Raises:
        SystemExit: If it is not a distiller's.
    """
    config = load_config(args.config)
    config.merge_from_dict(args.cfg_options or {})
    if 'teacher' not in config.model:
        raise SystemExit(
            'CONFIG is a plain recipe, of which there are no parts to '
            "compare: give a distiller's, model=dict("
            "type='mmdiffkd.Distiller', ...)."
        )
    # The arithmetic of random weights is the same.
    config.model.teacher.checkpoint = None
    if args.input_size:
        config.model.input_size = _pair(args.input_size)
    init_default_scope(config.get('default_scope', 'mmengine'))
    return config


def build_distiller(config: Config, settings: Settings) -> Distiller:
    """Build a distiller with random weights and all its entries on."""
    if settings.compile:
        config.model.teacher.compile = True
    model = build_from_config(config).to(settings.device).train()
    # What makes the teacher fast comes with its weights.
    model.teacher.init_weights()
    model.set_progress(epoch=0, iteration=0)
    for entry in model.distill.values():
        entry.factor = 1.0
    return model


def task_of(student: nn.Module) -> str:
    """The OpenMMLab package that a model's class is derived from."""
    packages = [c.__module__.partition('.')[0] for c in type(student).__mro__]
    for package in INPUT_SIZES:
        if package in packages:
            return package
    raise SystemExit(
        f'the student {type(student).__name__} is derived from no model of '
        f'{", ".join(INPUT_SIZES)}, so that no batch can be made up for it.'
    )


def make_batch(
    model: Distiller, batch_size: int, size: tuple[int, int]
) -> tuple[Tensor, list]:
    """Random images and annotations, as the student's preprocessor gives.

    Necks and losses that ask for the length of the data or for a pass over
    it get something of the kind.

    Args:
        model (Distiller): The distiller.
        batch_size (int): The number of images.
        size (tuple[int, int]): Their height and width.

    Returns:
        tuple[Tensor, list]: Normalised images and data samples.
    """
    task = task_of(model.student)
    if task == 'mmseg':
        # It would pad to the size of its recipe.
        model.data_preprocessor.size = size
    # The most of any head: a region proposal network has one class.
    classes = max(
        module.num_classes
        for module in model.student.modules()
        if isinstance(getattr(module, 'num_classes', None), int)
    )
    if task == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        batch = demo_mm_inputs(
            batch_size,
            [(3, *size)] * batch_size,
            num_classes=classes,
            with_mask=getattr(model.student, 'with_mask', False),
        )
    else:
        make = {'mmpretrain': _class_sample, 'mmseg': _label_map_sample}[task]
        images = torch.randint(0, 256, (batch_size, 3, *size)).byte()
        batch = {
            'inputs': list(images),
            'data_samples': [make(classes, size) for _ in range(batch_size)],
        }
    batch = model.data_preprocessor(batch, True)
    inputs, data_samples = batch['inputs'], batch['data_samples']
    for index, sample in enumerate(data_samples):
        sample.set_metainfo({'sample_idx': index})
    model.allocate(DATA_LENGTH, torch.arange(DATA_LENGTH) % classes)
    model.prepare(lambda: [inputs])
    return inputs, data_samples


def _class_sample(classes: int, size: tuple[int, int]):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(int(torch.randint(classes, ())))


def _label_map_sample(classes: int, size: tuple[int, int]):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo={'img_shape': size, 'ori_shape': size})
    sample.gt_sem_seg = PixelData(data=torch.randint(classes, (1, *size)))
    return sample


@contextlib.contextmanager
def _captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple]]:
    """The positional arguments that modules are called with, by name."""
    arguments: dict[str, tuple] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda module, args, name=name: arguments.update({name: args})
        )
        for name, module in modules.items()
    ]
    try:
        yield arguments
    finally:
        for handle in handles:
            handle.remove()


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def parts_of(
    model: Distiller, inputs: Tensor, data_samples: list, settings: Settings
) -> list[Part]:
    """The student, the teacher, each entry, and the whole step.

    Entries are run on what a first step gave them.
    """
    watched = {'teacher': model.teacher, **dict(model.distill.items())}
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

    def teach() -> None:
        with settings.precision():
            model.teacher(*arguments['teacher'])

    parts = [
        settings.training('student', loss_of(model.student), model.student),
        Part('teacher, forward', teach),
    ]
    for name, entry in model.distill.items():
        if name in arguments:
            students, *others = arguments[name]
            students = [_leaf(student) for student in students]
            forward = loss_of_entry(entry, (students, *others))
            part = f'distill.{name}'
            parts.append(settings.training(part, forward, entry, students))
    parts.append(settings.training('whole step', loss_of(model), model))
    return parts


def batch_for(
    model: Distiller, config: Config, args: argparse.Namespace
) -> tuple[Tensor, list]:
    """The batch that the config and the command line ask for."""
    size = (
        config.model.get('input_size') or INPUT_SIZES[task_of(model.student)]
    )
    batch_size = args.batch_size or config.train_dataloader.batch_size
    return make_batch(model, batch_size, _pair(size))


def benchmark_config(args: argparse.Namespace, settings: Settings) -> dict:
    """Measure a distiller, see the module's docstring."""
    reference = args.reference and import_reference(args.reference)
    config = read_config(args)
    model = build_distiller(config, settings)
    inputs, data_samples = batch_for(model, config, args)
    rows = measure(parts_of(model, inputs, data_samples, settings), settings)
    by_part = {row['part']: row for row in rows}
    student, teacher = by_part['student'], by_part['teacher, forward']
    whole = by_part['whole step']
    known = sum(row['ms'] for row in rows[:-1])
    result = {
        'batch': list(inputs.shape),
        'rows': rows,
        'ratio': whole['ms'] / (student['ms'] + teacher['ms']),
        'ratio_by_macs': whole['gmacs']
        / (student['gmacs'] + teacher['gmacs']),
        'rest_ms': whole['ms'] - known,
    }
    result['markdown'] = [
        markdown(rows, PART_COLUMNS),
        f'Batch {result["batch"]}. The whole step over student and teacher '
        f'forward: {result["ratio"]:.2f}, by multiply-adds '
        f'{result["ratio_by_macs"]:.2f}. In no part: '
        f'{result["rest_ms"]:.1f} ms.',
    ]
    if reference:
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
            compare(name, necks[name], *pair, settings, reference)
            for name, pair in arguments.items()
        ]
        result['compared'] = compared
        result['markdown'].append(compared_table(compared))
    return result


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    size = [size] if isinstance(size, int) else size
    return size[0], size[-1]


def benchmark_teacher(args: argparse.Namespace, settings: Settings) -> dict:
    """Measure a distiller's teacher with more and more of its switches on."""
    config = read_config(args)
    model = build_distiller(config, replace(settings, compile=False))
    inputs, _ = batch_for(model, config, args)
    taps = list(model.teacher.taps.taps)
    variants = dict(TEACHERS)
    if settings.compile:
        variants |= {
            f'{name}, compiled': {**switches, 'compile': True}
            for name, switches in TEACHERS.items()
        }
    parts = []
    for name, switches in variants.items():
        teacher = FrozenTeacher(**{**config.model.teacher, **switches})
        teacher.match_input(model.data_preprocessor)
        teacher.attach(taps, tuple(inputs.shape[-2:]))
        teacher.to(settings.device).init_weights()
        parts.append(Part(name, partial(teacher, inputs, taps)))
    rows = measure(parts, settings)
    for row in rows:
        row['ratio'] = row['ms'] / rows[0]['ms']
    column = ('of the plain time', _number('ratio', 2))
    return {
        'batch': list(inputs.shape),
        'rows': rows,
        'markdown': [
            markdown(rows, [*PART_COLUMNS[:3], column, *PART_COLUMNS[3:]]),
            f'{_name(config.model.teacher)}, batch {list(inputs.shape)}.',
        ],
    }


def _name(teacher: Mapping) -> str:
    config = teacher['config']
    return f'`{config}`' if isinstance(config, str) else 'Teacher'


# DiffKD's neck beside the released module


def import_reference(folder: Path) -> type[nn.Module]:
    """Import the released DiffKD module from where it lies.

    Raises:
        SystemExit: If it does not lie there.
    """
    package = folder / REFERENCE
    if not (package / '__init__.py').is_file():
        raise SystemExit(
            f'--reference {folder}: there is no {REFERENCE} in it. Give a '
            'checkout: git clone '
            'https://github.com/hunto/image_classification_sota'
        )
    spec = importlib.util.spec_from_file_location(
        'released_diffkd',
        package / '__init__.py',
        submodule_search_locations=[str(package)],
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.DiffKD


def _distance(neck: DiffKDNeck) -> nn.Module:
    return MSELoss() if neck.feature == 'map' else KLDivergence()


def loss_of_neck(
    neck: DiffKDNeck, run: Callable, student: Tensor, teacher: Tensor
) -> Tensor:
    """All that a neck learns from: its noise drawn, the distance after it."""
    aligned = run(student, teacher, **neck.draw(student, teacher))
    distance = _distance(neck)(aligned.student, aligned.teacher)
    return distance + sum(aligned.losses.values())


def neck_part(
    name: str,
    neck: DiffKDNeck,
    student: Tensor,
    teacher: Tensor,
    settings: Settings,
) -> Part:
    """Forward and backward of a neck and the distance."""
    run, student = settings.compiled(neck), _leaf(student)

    def forward() -> Tensor:
        return loss_of_neck(neck, run, student, teacher)

    return settings.training(name, forward, neck, [student])


def released_part(
    reference: type[nn.Module],
    neck: DiffKDNeck,
    student: Tensor,
    teacher: Tensor,
    settings: Settings,
) -> Part:
    """The same of the released module, which takes maps in float32 alone."""
    distance, student = _distance(neck), _leaf(student)
    module = reference(
        neck.student_channels,
        neck.teacher_channels,
        kernel_size=3 if neck.feature == 'map' else 1,
        inference_steps=len(neck.sampler.timesteps),
        use_ae=neck.autoencoder is not None,
        ae_channels=neck.channels,
    ).to(settings.device)

    def forward() -> Tensor:
        maps = [
            tensor if tensor.ndim == 4 else tensor[:, :, None, None]
            for tensor in (student, teacher)
        ]
        refined, target, diffusion, reconstruction = module(*maps)
        loss = distance(refined, target) + diffusion
        return loss if reconstruction is None else loss + reconstruction

    single = replace(settings, amp=None)
    return single.training('released', forward, module, [student])


def compare(
    name: str,
    neck: DiffKDNeck,
    student: Tensor,
    teacher: Tensor,
    settings: Settings,
    reference: type[nn.Module] | None,
) -> dict:
    """Measure a neck, and in the same run what it is compared with.

    Args:
        name (str): What the tables call the case.
        neck (DiffKDNeck): The neck.
        student (Tensor): Its student tensor.
        teacher (Tensor): Its teacher tensor.
        settings (Settings): How to measure.
        reference (type, optional): The released module's class.

    Returns:
        dict: ``case``; as ``float32``, with AMP also ``half``, with a
        reference also ``released``, a row of :func:`measure`, which then has
        ``ratio`` and ``memory_ratio``, ours over the released. With
        ``settings.compile`` also ``float32_compiled`` and ``half_compiled``,
        with ``eager_ratio``, compiled over eager.
    """
    torch.compiler.reset()
    pair = student.float(), teacher.float()
    precisions = {'float32': None, 'half': settings.amp}
    if settings.amp is None:
        del precisions['half']
    parts = [
        neck_part(
            part + suffix,
            neck,
            *pair,
            replace(settings, amp=amp, compile=bool(suffix)),
        )
        for suffix in ('', '_compiled')[: 1 + settings.compile]
        for part, amp in precisions.items()
    ]
    if reference is not None:
        parts.append(released_part(reference, neck, *pair, settings))
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


def benchmark_cases(args: argparse.Namespace, settings: Settings) -> dict:
    """Measure DiffKD's necks alone, see the module's docstring."""
    reference = args.reference and import_reference(args.reference)
    compared = []
    for name, (shape, arguments) in CASES.items():
        runs = []
        for _ in range(args.runs):
            neck = DiffKDNeck(shape[1], shape[1], **arguments)
            neck.to(settings.device)
            pair = torch.randn(2, *shape, device=settings.device)
            runs.append(compare(name, neck, *pair, settings, reference))
        compared.append(median_of(runs))
    return {'compared': compared, 'markdown': [compared_table(compared)]}


def benchmark_options(args: argparse.Namespace, settings: Settings) -> dict:
    """Measure what a neck's options save, see the module's docstring."""
    reference = args.reference and import_reference(args.reference)
    shape, arguments = next(iter(CASES.values()))
    pair = torch.randn(2, *shape, device=settings.device)
    parts = []
    for name, options in OPTIONS.items():
        neck = DiffKDNeck(shape[1], shape[1], **arguments, **options)
        neck.to(settings.device)
        parts.append(neck_part(name, neck, *pair, settings))
    if reference:
        parts.append(released_part(reference, neck, *pair, settings))
    rows = measure(parts, settings)
    for row in rows:
        row['ratio'] = row['ms'] / rows[0]['ms']
        row['memory_ratio'] = row['peak_mib'] / rows[0]['peak_mib']
        if reference:
            share = row['peak_mib'] / rows[-1]['peak_mib']
            row['memory_of_released'] = share
    columns = [
        *PART_COLUMNS[:3],
        ('of the plain time', _number('ratio', 2)),
        PART_COLUMNS[3],
        ('of the plain memory', _number('memory_ratio', 2)),
        ("of the released module's", _number('memory_of_released', 2)),
    ]
    return {'rows': rows, 'markdown': [markdown(rows, columns)]}


# Growth


def growth_part(quantity: str, value: int, settings: Settings) -> Part:
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
    necks = nn.ModuleList(
        DiffKDNeck(channels, channels, **arguments) for _ in range(levels)
    ).to(settings.device)
    shape = (levels, batch_size, channels, *size)
    students, teachers = torch.randn(2, *shape, device=settings.device)
    students = [_leaf(student) for student in students]
    runs = [settings.compiled(neck) for neck in necks]

    def forward() -> Tensor:
        return sum(map(loss_of_neck, necks, runs, students, teachers))

    return settings.training(f'{quantity} {value}', forward, necks, students)


def kept_for_backward(part: Part) -> int:
    """Bytes that a run keeps from forward to backward, leaves left out."""
    kept: dict[int, int] = {}
    leaves = {leaf.untyped_storage().data_ptr() for leaf in part.leaves}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in leaves:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        part.run()
    part.reset()
    return sum(kept.values())


def benchmark_growth(args: argparse.Namespace, settings: Settings) -> dict:
    """Vary one quantity at a time, see the module's docstring.

    What is predicted is in proportion to the multiply-adds (time) and to the
    bytes kept for the backward pass (memory), from the largest value down.
    """
    growth = []
    for quantity, values in GROWTH.items():
        parts = [growth_part(quantity, value, settings) for value in values]
        rows = measure(parts, settings)
        for row, part, value in zip(rows, parts, values):
            row |= {'quantity': quantity, 'value': value}
            row['kept_mib'] = kept_for_backward(part) / MIB
        last = rows[-1]
        for row in rows:
            by_macs = row['gmacs'] / last['gmacs']
            by_bytes = row['kept_mib'] / last['kept_mib']
            row['predicted_ms'] = last['ms'] * by_macs
            row['predicted_mib'] = last['peak_mib'] * by_bytes
        growth += rows
    return {'growth': growth, 'markdown': [markdown(growth, GROWTH_COLUMNS)]}


# Overhead


class Tiny(BaseModel):
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
    ):
        return self.task_loss(self.extract_feat(inputs), data_samples)

    @staticmethod
    def task_loss(feature: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {'loss': F.cross_entropy(feature.mean((2, 3)), labels)}


def benchmark_overhead(args: argparse.Namespace, settings: Settings) -> dict:
    """Compare a distiller's step with the same step written by hand."""
    distance = {'type': 'MSELoss'}
    model = Distiller(
        Tiny(),
        {'config': {'model': {'type': Tiny}}, 'checkpoint': None},
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

    rows = measure(
        [
            settings.training('step by hand', by_hand, student),
            settings.training('step of the distiller', by_distiller, student),
        ],
        settings,
    )
    overhead = rows[1]['ms'] - rows[0]['ms']
    return {
        'rows': rows,
        'overhead_ms': overhead,
        'markdown': [
            markdown(rows, PART_COLUMNS[:3]),
            f'Two entries; the distiller adds {overhead:.2f} ms a step.',
        ],
    }


# Tables and pictures


def _number(key: str, digits: int = 1) -> Callable[[Mapping], str]:
    return lambda row: f'{row[key]:.{digits}f}' if key in row else ''


def _of(part: str, key: str, digits: int = 1) -> Callable[[Mapping], str]:
    return lambda row: _number(key, digits)(row.get(part, {}))


LABELS = {
    'float32': 'ours, float32',
    'half': 'ours, half precision',
    'float32_compiled': 'ours, float32, compiled',
    'half_compiled': 'ours, half precision, compiled',
    'released': 'released',
}
PART_COLUMNS = [
    ('', lambda row: row['part']),
    ('median, ms', _number('ms', 2)),
    (
        'quartiles, ms',
        lambda row: f'{row["ms_low"]:.2f} to {row["ms_high"]:.2f}',
    ),
    ('peak memory, MiB', _number('peak_mib')),
    ('GMACs', _number('gmacs', 2)),
]
COMPARED_COLUMNS = [
    ('', lambda row: row['case']),
    ('float32, ms', _of('float32', 'ms')),
    ('half, ms', _of('half', 'ms')),
    ('released, ms', _of('released', 'ms')),
    ('float32 / released', _of('float32', 'ratio', 2)),
    ('half / released', _of('half', 'ratio', 2)),
    ('float32, compiled / eager', _of('float32_compiled', 'eager_ratio', 2)),
    ('half, compiled / eager', _of('half_compiled', 'eager_ratio', 2)),
    ('float32, MiB', _of('float32', 'peak_mib')),
    ('half, MiB', _of('half', 'peak_mib')),
    ('released, MiB', _of('released', 'peak_mib')),
]
GROWTH_COLUMNS = [
    ('', lambda row: row['part']),
    ('GMACs', _number('gmacs', 2)),
    ('median, ms', _number('ms')),
    ('predicted, ms', _number('predicted_ms')),
    ('kept for backward, MiB', _number('kept_mib')),
    ('peak memory, MiB', _number('peak_mib')),
    ('predicted, MiB', _number('predicted_mib')),
]


def markdown(rows: Sequence[Mapping], columns: Sequence[tuple]) -> str:
    """A table; columns that are empty in every row are left out."""
    cells = [[cell(row) for row in rows] for _, cell in columns]
    kept = [i for i, column in enumerate(cells) if any(column)]
    headings = [columns[i][0] for i in kept]
    lines = [headings, ['---'] * len(kept)]
    lines += [list(line) for line in zip(*(cells[i] for i in kept))]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def compared_table(compared: Sequence[Mapping]) -> str:
    """The table of :func:`compare`."""
    return markdown(compared, COMPARED_COLUMNS)


def place_in(document: Path, name: str) -> tuple[str, str]:
    """What stands before and after the place of a table in a document.

    The place is between the lines ``<!-- name:begin -->`` and
    ``<!-- name:end -->``, which belong to what is around it.

    Raises:
        SystemExit: If there is no such place.
    """
    begin, end = f'<!-- {name}:begin -->\n', f'<!-- {name}:end -->'
    before, found, rest = document.read_text().partition(begin)
    _, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise SystemExit(
            f'--into {document} {name}: there is no {begin.strip()} with '
            f'{end} after it. Add the two lines where the tables belong.'
        )
    return before + begin, end + after


def plot(result: Mapping, out: Path) -> None:
    """Draw what was measured: bars, or for growth dots beside lines."""
    if 'growth' in result:
        figure = _plot_growth(result['growth'])
    elif 'rows' in result:
        rows = result['rows']
        figure = _plot_bars([row['part'] for row in rows], {'': rows})
    else:
        compared = result['compared']
        series = {
            label: [row[part] for row in compared]
            for part, label in LABELS.items()
            if part in compared[0]
        }
        figure = _plot_bars([row['case'] for row in compared], series)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _figure(rows: int, columns: int, **size) -> tuple[Figure, np.ndarray]:
    figure = Figure(dpi=120, layout='constrained', **size)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.grid(axis='x' if rows == 1 else 'both', color='0.9')
        ax.set_axisbelow(True)
        for side in ('top', 'right'):
            ax.spines[side].set_visible(False)
    return figure, axes


def _plot_bars(
    groups: Sequence[str], series: Mapping[str, Sequence[Mapping]]
) -> Figure:
    """Bars of time and memory; of several series relative to the last."""
    height = 1.4 + 0.3 * len(groups) * (len(series) + 0.6)
    figure, (panels,) = _figure(1, 2, figsize=(9, height))
    thick = 0.8 / len(series)
    last = list(series.values())[-1]
    keys = {'ms': 'time, ms', 'peak_mib': 'peak memory, MiB'}
    for axes, (key, title) in zip(panels, keys.items()):
        for index, (label, rows) in enumerate(series.items()):
            at = np.arange(len(groups)) + (index - len(series) / 2) * thick
            for place, row, other in zip(at, rows, last):
                unit = other[key] if len(series) > 1 else 1
                axes.barh(
                    place,
                    row[key] / unit,
                    height=0.9 * thick,
                    align='edge',
                    color=PALETTE[index],
                    label=label if row is rows[0] else None,
                )
                if key == 'ms':
                    quartiles = row['ms_low'] / unit, row['ms_high'] / unit
                    middle = place + 0.45 * thick
                    axes.plot(quartiles, [middle] * 2, color='0.3')
                if len(series) > 1:
                    text = f' {row[key]:.3g}'
                    axes.text(row[key] / unit, place, text, va='top', size=8)
        if len(series) > 1:
            title += f' (bar: {list(series)[-1]} = 1)'
        axes.set_title(title, fontsize=10, loc='left')
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
    panels[0].set_xlim(left=0)
    panels[1].tick_params(labelleft=False)
    if len(series) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc='outside lower center', ncols=len(series)
        )
    return figure


def _plot_growth(growth: Sequence[Mapping]) -> Figure:
    figure, axes = _figure(2, len(GROWTH), figsize=(11, 5.5))
    for column, quantity in zip(axes.T, GROWTH):
        rows = [row for row in growth if row['quantity'] == quantity]
        values = [row['value'] for row in rows]
        for ax, measured, predicted in zip(
            column, ('ms', 'peak_mib'), ('predicted_ms', 'predicted_mib')
        ):
            ax.plot(values, [row[predicted] for row in rows], color='0.6')
            ax.plot(values, [row[measured] for row in rows], 'o', c=PALETTE[0])
            ax.set_ylim(bottom=0)
        column[0].set_title(quantity, fontsize=10, loc='left')
    axes[0, 0].set_ylabel('time, ms')
    axes[1, 0].set_ylabel('peak memory, MiB')
    figure.supxlabel('dots: measured; line: what the arithmetic predicts')
    return figure


#: What needs no CONFIG.
ALONE = {
    'cases': benchmark_cases,
    'options': benchmark_options,
    'growth': benchmark_growth,
    'overhead': benchmark_overhead,
}


def environment(settings: Settings) -> dict:
    """What the figures depend on besides the code."""
    if settings.device.type == 'cuda':
        device = torch.cuda.get_device_name(settings.device)
    else:
        device = f'{_processor()}, {torch.get_num_threads()} threads'
    return {
        'device': device,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'amp': None if settings.amp is None else str(settings.amp),
        'compile': settings.compile,
        'repetitions': settings.repetitions,
    }


def _processor() -> str:
    names = Path('/proc/cpuinfo')
    if names.is_file():
        for line in names.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config', nargs='?', help="a distiller's: a path, or package::name"
    )
    for what in ('teacher', *ALONE):
        parser.add_argument(f'--{what}', action='store_true')
    parser.add_argument('--batch-size', type=int, help="default: the config's")
    parser.add_argument(
        '--input-size',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help="height and width; default: the distiller's input_size, else "
        'the size usual for the task',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='for example model.teacher.fold_batch_norm=True',
    )
    parser.add_argument(
        '--repetitions', type=int, default=10, help='default: 10'
    )
    parser.add_argument(
        '--runs',
        type=int,
        default=1,
        help='of --cases: build and measure so often, and report the median '
        'of the runs; default: 1',
    )
    parser.add_argument(
        '--amp', choices=HALVES, help='automatic mixed precision of ours'
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='torch.compile of ours; necks and teachers beside eager ones',
    )
    parser.add_argument('--threads', type=int, help='of the CPU')
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='default: cuda where there is one, else cpu',
    )
    parser.add_argument('--reference', type=Path, metavar='DIR')
    parser.add_argument('--json', type=Path, metavar='FILE')
    parser.add_argument('--plot', type=Path, metavar='FILE.png')
    parser.add_argument(
        '--into',
        nargs=2,
        metavar=('FILE.md', 'NAME'),
        help='put the tables between the lines <!-- NAME:begin --> and '
        '<!-- NAME:end --> of a document',
    )
    args = parser.parse_args()
    chosen = [args.config, *(getattr(args, what) for what in ALONE)]
    if sum(map(bool, chosen)) != 1:
        parser.error(f'give a CONFIG, or one of --{", --".join(ALONE)}')
    if args.teacher and not args.config:
        parser.error('--teacher needs a CONFIG')
    if args.repetitions < 1 or args.runs < 1:
        parser.error('--repetitions and --runs must be 1 or more')
    if len(args.input_size or [0]) > 2:
        parser.error('--input-size takes a height and a width, or one of both')
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.into:
        place_in(Path(args.into[0]), args.into[1])
    MMLogger.get_instance('benchmark', log_level='WARNING')
    torch.manual_seed(0)
    settings = Settings(
        torch.device(args.device),
        args.repetitions,
        HALVES.get(args.amp),
        args.compile,
    )
    with_config = benchmark_teacher if args.teacher else benchmark_config
    chosen = [run for what, run in ALONE.items() if getattr(args, what)]
    (benchmark,) = chosen or [with_config]
    result = benchmark(args, settings)
    text = '\n\n'.join(result.pop('markdown'))
    result['environment'] = environment(settings)
    facts = result['environment']
    text += f'\n\n{facts["device"]}, PyTorch {facts["torch"]}.'
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    if args.plot:
        plot(result, args.plot)
    if args.into:
        document, name = Path(args.into[0]), args.into[1]
        before, after = place_in(document, name)
        document.write_text(f'{before}{text}\n{after}')


if __name__ == '__main__':
    main()
