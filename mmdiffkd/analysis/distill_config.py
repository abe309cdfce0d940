"""Writing the config that distils a recipe, and trying what it costs."""

import logging
from argparse import Namespace
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import chain, repeat
from os.path import relpath
from pathlib import Path
from statistics import mean

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.expansion import Expansion
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import check_weight_files, load_config
from mmdiffkd.utils.command_line import complete_dataloaders, package_of
from mmdiffkd.utils.config import find_config
from mmdiffkd.utils.data_root import check_data_root
from mmdiffkd.utils.python_text import as_python

from .batches import INPUT_SIZES, make_batch
from .batches import package_of as class_package
from .memory import peak_memory
from .timing import MIB, Part, Settings

#: What the documentation teaches, in docs/configuration.md.
LINES = """\
_base_ = {base!r}

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher={teacher},
{distill},{others}
)
optim_wrapper = {optim_wrapper}
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
"""
HEADER = """\
# {student}, distilled from {teacher}.
# docs/configuration.md explains the keys. To train:
#     python tools/train.py {out}
"""
STEPS = 3
# Of the images of classifiers, where a config says nothing.
USUAL = 224, 224


def lines(
    base: str, recipe: Config, teacher: Mapping, distill: str, **others
) -> str:
    """The lines around a recipe that make a distiller of it.

    Args:
        base (str): The recipe, as ``_base_`` names it.
        recipe (Config): The same, read.
        teacher (Mapping): The keys of the teacher.
        distill (str): ``distill=...`` as Python text, indented by 4.
        **others: Other keys of the distiller.
    """
    wrapper = _optim_wrapper(recipe)
    return LINES.format(
        base=base,
        teacher=as_python(dict(teacher), 4, len('teacher=,')),
        distill=distill,
        others=''.join(f'\n    {k}={v!r},' for k, v in others.items()),
        optim_wrapper=as_python(wrapper, 0, len('optim_wrapper = ')),
    )


def _optim_wrapper(recipe: Config) -> dict:
    """What changes in a recipe's optimizer wrapper."""
    changed = dict(constructor='mmdiffkd.OptimWrapperConstructor')
    own = (recipe.get('optim_wrapper') or {}).get('constructor')
    if own is not None:
        changed['paramwise_cfg'] = dict(student_constructor=own)
    return changed


def target(student: str, method: str, out: str | None = None) -> Path:
    """The file to write.

    Args:
        student (str): The student's recipe, a path or ``package::name``.
        method (str): The preset, for the name.
        out (str, optional): The file. Defaults to None: ``METHOD_RECIPE.py``
            beside the recipe; in the current folder, if a package ships it.

    Raises:
        FileExistsError: If there is such a file.
        ValueError: If its name is not that of a config.
    """
    recipe = find_config(student)
    folder = Path() if '::' in student else recipe.parent
    path = Path(out) if out else folder / f'{method}_{recipe.stem}.py'
    if path.suffix != '.py':
        raise ValueError(
            f'--out is {str(path)!r}. Give a name that ends in .py, as a '
            'config has.'
        )
    if path.exists():
        raise FileExistsError(
            f'there is a file {str(path)!r} already, which is not '
            'overwritten. Remove it, or give another name by --out.'
        )
    return path


def compose(
    student: str,
    teacher: str,
    checkpoint: str | None,
    distill: str | Mapping,
) -> Config:
    """The student's recipe as a distiller's, in memory.

    Args:
        student (str): The student's recipe, a path or ``package::name``.
        teacher (str): The teacher's config, likewise.
        checkpoint (str, optional): The teacher's weights; None for random
            ones.
        distill (str or Mapping): A preset, see
            :func:`~.expansion.expand`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the recipe is none that lines can be put around.
    """
    if Config._is_lazy_import(str(find_config(student))):
        raise ValueError(
            f"STUDENT_CONFIG is {student!r}, a config in MMEngine's new "
            'style, which no `_base_` can inherit. In a config of that style '
            'write model = dict(type=Distiller, student=model, teacher=..., '
            f'distill={distill!r}).'
        )
    config = load_config(student)
    model = config.get('model') or {}
    distills = not model.keys().isdisjoint(('teacher', 'teachers'))
    what = None
    if distills:
        what = 'that of a distiller'
    elif 'type' not in model:
        what = 'without model'
    elif not config.get('train_dataloader'):
        what = 'without train_dataloader'
    if what is not None:
        raise ValueError(
            f'STUDENT_CONFIG is {student!r}, {what}. Give the plain recipe '
            'that trains the student.'
        )
    config.model = dict(
        type='mmdiffkd.Distiller',
        student=model,
        teacher=dict(config=teacher, checkpoint=checkpoint),
        distill=distill,
    )
    check_weight_files(config)
    config.merge_from_dict({'optim_wrapper': _optim_wrapper(config)})
    return config


def own_batches(config: Config) -> Iterator[dict] | None:
    """Batches of a recipe's training data, without end.

    They are loaded in this process.

    Args:
        config (Config): The recipe.

    Returns:
        Iterator[dict] | None: None where there are no data, or they cannot
        be loaded, which the log then says.
    """
    config = deepcopy(config)
    init_default_scope(config.get('default_scope', 'mmengine'))
    try:
        check_data_root(config, ['train_dataloader'])
        loader = config.train_dataloader
        loader.num_workers = 0
        loader.pop('prefetch_factor', None)
        complete_dataloaders(config, Namespace(no_pin_memory=True))
        batches = Runner.build_dataloader(loader, seed=0)
        # Goes on below: an InfiniteSampler gives nothing to a second one.
        iterator = iter(batches)
        first = next(iterator)
    except Exception as error:
        said = ' '.join(f'{type(error).__name__}: {error}'.split())
        print_log(
            f"The recipe's own data cannot be loaded here ({said}).",
            'current',
            logging.WARNING,
        )
        return None
    again = chain.from_iterable(repeat(batches))
    return chain([first], iterator, again)


def set_input_size(config: Config, batch: Mapping) -> None:
    """Let the dry run have images of the size that training has.

    Detectors keep theirs: the sizes of their images vary.

    Args:
        config (Config): The distiller's config, changed in place.
        batch (Mapping): A batch of the recipe's data.
    """
    images = batch.get('inputs')
    package = package_of(config)
    if package == 'mmdet' or not isinstance(images, Tensor | list | tuple):
        return
    sizes = {tuple(getattr(image, 'shape', ())[-2:]) for image in images}
    if len(sizes) == 1 and (package, *sizes) != ('mmpretrain', USUAL):
        ((height, width),) = sizes
        size = height if height == width else (height, width)
        config.model.input_size = size


def build(config: Config) -> Distiller:
    """Build a distiller, with the weights of its teacher.

    Those of the student are random: nothing is fetched for it.

    Args:
        config (Config): The distiller's config.

    Raises:
        ValueError: If something does not fit, the teacher's checkpoint say.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = build_from_config(config)
    model.teacher.init_weights()
    return model


def random_batches(model: Distiller, config: Config) -> Iterator[dict]:
    """Random images and annotations, one batch without end.

    Args:
        model (Distiller): The distiller.
        config (Config): Its config, for the size of a batch.
    """
    size = config.model.get('input_size')
    if size is None:
        size = INPUT_SIZES[class_package(model.student)]
    elif isinstance(size, int):
        size = size, size
    count = config.train_dataloader.batch_size
    inputs, data_samples = make_batch(model, count, size)
    return repeat({'inputs': inputs, 'data_samples': data_samples})


def trial(
    model: Distiller,
    config: Config,
    batches: Iterator[dict] | None = None,
    steps: int = STEPS,
) -> str:
    """Train a few steps, and say what one of them costs.

    Args:
        model (Distiller): The distiller, which is trained.
        config (Config): Its config.
        batches (Iterator[dict], optional): Batches of the recipe's data.
            Defaults to None: random images.
        steps (int): How many, 2 or more: the first one warms up, and tells
            the memory. Defaults to 3.

    Returns:
        str: Time and memory, and on what; or why the steps failed.
    """
    images = 'random images' if batches is None else "the recipe's own data"
    try:
        costs = _train(model, config, batches, steps)
    except Exception as error:
        said = ' '.join(f'{type(error).__name__}: {error}'.split())
        return f'The trial steps on {images} failed: {said}'
    return f'{steps} steps on {images}, {costs}'


def _train(
    model: Distiller,
    config: Config,
    batches: Iterator[dict] | None,
    steps: int,
) -> str:
    """Train a few steps, and say what one of them takes."""
    device = torch.device(get_device())
    model.to(device).train()
    model.set_progress(epoch=0, iteration=0)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    made_up = batches is None
    if made_up:
        batches = random_batches(model, config)

    def step() -> None:
        batch = next(batches)
        with wrapper.optim_context(model):
            if not made_up:
                batch = model.data_preprocessor(batch, True)
            found = model(**batch, mode='loss')
        wrapper.update_params(model.parse_losses(found)[0])
        shape.append(tuple(getattr(batch['inputs'], 'shape', ())))

    shape: list[tuple[int, ...]] = []
    networks = model, model.teacher.network
    held = sum(
        tensor.numel() * tensor.element_size()
        for network in networks
        for tensor in (*network.parameters(), *network.buffers())
    )
    peak = held + peak_memory(step, device)
    part = Part('step', step)
    settings = Settings(device)
    seconds = mean(settings.seconds(part) for _ in range(steps - 1))
    return (
        f'the last batch {shape[-1]}, on {device}: {seconds:.3g} s a step '
        f'after the first, {peak / MIB:,.0f} MiB of tensors at the peak.'
    )


def text_of(
    config: Config, expansion: Expansion, student: str, out: Path
) -> str:
    """The text of the config to write.

    Args:
        config (Config): The distiller's config.
        expansion (Expansion): Its entries.
        student (str): The student's recipe, a path or ``package::name``.
        out (Path): The file to write, to which paths are relative.
    """
    model = config.model
    teacher = {key: _beside(out, name) for key, name in model.teacher.items()}
    size = {k: v for k, v in model.items() if k == 'input_size'}
    head = HEADER.format(
        student=Path(student).stem,
        teacher=Path(model.teacher.config).stem,
        out=out,
    )
    return head + lines(
        _beside(out, student),
        load_config(student),
        teacher,
        expansion.text(4),
        **size,
    )


def _beside(out: Path, name: str | None) -> str | None:
    """A path as seen from the folder of a file; other names as they are."""
    if name is None or '::' in name or '://' in name:
        return name
    return Path(relpath(name, out.parent)).as_posix()


def write(text: str, out: Path) -> None:
    """Write the config, whole or not at all.

    Raises:
        FileExistsError: If there is such a file by now.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    # Not atomic_write, which replaces a file that is there.
    file = out.open('x')
    try:
        with file:
            file.write(text)
    except BaseException:
        out.unlink()
        raise
