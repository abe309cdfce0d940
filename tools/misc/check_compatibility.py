r"""See whether stock configs train under a distiller.

    python tools/misc/check_compatibility.py NAME... [--at TAP...]
    python tools/misc/check_compatibility.py tools/misc/compatibility.txt

A NAME is a config, 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py' or a path;
one that ends in .txt is a list. Each is wrapped in the lines of
docs/configuration.md, DiffKD at one tap, the teacher of the same architecture
and random on purpose. Then, in a process of its own:

1. two training iterations by the real runner, with the recipe's own pipeline,
   optimizer, schedule, hooks and evaluator;
2. the checkpoint, loaded strictly into the plain model;
3. a prediction by that.

The data is generated, in the layouts of ImageNet, COCO, Cityscapes and
ADE20K, and nothing is downloaded: pretrained weights are stripped. Batches
have two images, and lengths in the pipelines of mmdet are a quarter of the
recipe's, in those of mmseg an eighth, unless --shrink says otherwise. No
network is made smaller.

If a config fails, the same is tried without the distiller: what fails there
too is the recipe's own (or that of images so small). --plain does nothing
else.

A list has a name a line, then taps and shrink=N, where the default does not
fit, then, behind a bar, what the reason of an expected failure contains:

    mmdet::some/recipe.py  backbone[-1] neck[0:3] shrink=2  | has no gradient

The exit status is 0 if every config works, or fails for the reason that the
list gives.
"""

import argparse
import json
import math
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from PIL import Image, ImageDraw

from mmdiffkd.utils import load_config
from mmdiffkd.utils.setup_env import package_version

PACKAGES = ('mmpretrain', 'mmdet', 'mmseg')
ITERATIONS = 2
BATCH_SIZE = 2
# Of the recipe's lengths. Classifiers keep theirs: many know no other.
SHRINK = {'mmdet': 4, 'mmseg': 8}
# Below this a number under one of the keys is no length in pixels.
SHORTEST = 64
LENGTHS = (
    'border',
    'crop_size',
    'img_scale',
    'max_size',
    'random_size_range',
    'scale',
    'scales',
    'size',
    'stride',
)
# Of a reason, in characters; the log has all of it.
LONGEST = 300
# What stock hooks wait for; here it comes before the second iteration.
LAST_EPOCHS = {'num_last_epochs': 0, 'switch_epoch': 1}
LINES = """\
_base_ = {name!r}

model = dict(
    _delete_=True,
    type='mmdiffkd.Distiller',
    student=_base_.model,
    teacher=dict(config={name!r}, checkpoint=None),
    distill=dict({entries}),
)
optim_wrapper = dict(
    constructor='mmdiffkd.OptimWrapperConstructor', {paramwise}
)
default_hooks = dict(
    checkpoint=dict(type='mmdiffkd.CheckpointHook'),
    distill=dict(type='mmdiffkd.DistillHook'),
)
"""
ENTRY = """
        tap{number}=dict(
            at={tap!r},
            neck=dict(type='DiffKDNeck'),
            loss=dict(type='MSELoss'),
        ),"""


# The list


@dataclass(frozen=True)
class Line:
    """A line of the list.

    Attributes:
        name (str): A config, as ``load_config`` takes it.
        taps (tuple[str, ...]): Where to distil; empty for the default.
        shrink (int, optional): What lengths in the pipeline are divided by.
            None: the default.
        fails (str): What the reason of an expected failure contains; empty
            where the config should work.
    """

    name: str
    taps: tuple[str, ...] = ()
    shrink: int | None = None
    fails: str = ''


def read_list(text: str) -> list[Line]:
    """The lines of a list; ``#`` begins a comment."""
    lines = []
    for line in text.splitlines():
        before, _, reason = line.partition('#')[0].partition('|')
        if words := before.split():
            name, *words = words
            taps = tuple(word for word in words if '=' not in word)
            settings = dict(word.split('=') for word in words if '=' in word)
            shrink = int(settings['shrink']) if settings else None
            lines.append(Line(name, taps, shrink, reason.strip()))
    return lines


def default_tap(config: Config) -> str:
    """Where to distil a recipe of which nothing else is known."""
    model = config.model
    scope = config.get('default_scope')
    if scope == 'mmdet' and model.get('neck'):
        return 'neck[:]'
    if scope == 'mmseg' and model.get('decode_head'):
        head = model.decode_head
        if isinstance(head, Sequence):
            return f'decode_head.{len(head) - 1}.conv_seg'
        return 'decode_head.conv_seg'
    return 'backbone[-1]'


# Data


def write_data(root: Path) -> None:
    """Write a few pictures in the layouts of four data sets.

    Args:
        root (Path): The folder that recipes call ``data``; what is there
            stays.
    """
    if root.exists():
        return
    partial = root.with_name(f'.{root.name}.partial')
    for number, (split, short) in enumerate(
        [('train', 'training'), ('val', 'validation')]
    ):
        random = np.random.default_rng(number)
        _write_imagenet(partial / 'imagenet', split, random)
        _write_coco(partial / 'coco', split, random)
        for index in range(BATCH_SIZE):
            scene, boxes = _scene((512, 256), 19, random)
            place = partial / 'cityscapes'
            stem = f'{split}/generated/{index}'
            _save(scene, place / 'leftImg8bit' / f'{stem}_leftImg8bit.png')
            _save(
                _label_map(scene.size, boxes),
                place / 'gtFine' / f'{stem}_gtFine_labelTrainIds.png',
            )
            scene, boxes = _scene((200, 150), 151, random)
            place = partial / 'ade/ADEChallengeData2016'
            _save(scene, place / f'images/{short}/{index}.jpg')
            _save(
                _label_map(scene.size, boxes),
                place / f'annotations/{short}/{index}.png',
            )
    partial.rename(root)


def _scene(
    size: tuple[int, int], classes: int, random: np.random.Generator
) -> tuple[Image.Image, list[tuple[int, list[int]]]]:
    """Noise with a few rectangles, and their class and x1, y1, x2, y2."""
    pixels = random.integers(0, 256, (*size[::-1], 3), 'uint8')
    scene = Image.fromarray(pixels)
    draw = ImageDraw.Draw(scene)
    boxes = []
    for _ in range(4):
        corner = [int(random.uniform(0, 0.5) * side) for side in size]
        extent = [int(random.uniform(0.25, 0.5) * side) for side in size]
        box = [*corner, corner[0] + extent[0], corner[1] + extent[1]]
        draw.rectangle(box, tuple(random.integers(0, 256, 3).tolist()))
        boxes.append((int(random.integers(classes)), box))
    return scene, boxes


def _label_map(
    size: tuple[int, int], boxes: Sequence[tuple[int, list[int]]]
) -> Image.Image:
    labels = Image.new('L', size)
    for label, box in boxes:
        ImageDraw.Draw(labels).rectangle(box, label)
    return labels


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _write_imagenet(
    root: Path, split: str, random: np.random.Generator
) -> None:
    lines = []
    for index in range(BATCH_SIZE):
        scene, boxes = _scene((280, 260), 1000, random)
        _save(scene, root / split / f'{index}.jpg')
        lines.append(f'{index}.jpg {boxes[0][0]}\n')
    meta = root / 'meta' / f'{split}.txt'
    meta.parent.mkdir(parents=True, exist_ok=True)
    meta.write_text(''.join(lines))


def _write_coco(root: Path, split: str, random: np.random.Generator) -> None:
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    images, annotations = [], []
    for index in range(BATCH_SIZE):
        scene, boxes = _scene((240, 180), len(names), random)
        file = f'{index}.jpg'
        _save(scene, root / f'{split}2017' / file)
        width, height = scene.size
        images.append(
            {'id': index, 'file_name': file, 'width': width, 'height': height}
        )
        for label, (left, top, right, bottom) in boxes:
            outline = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index,
                    'category_id': label,
                    'bbox': [left, top, right - left, bottom - top],
                    'area': (right - left) * (bottom - top),
                    'segmentation': [outline],
                    'iscrowd': 0,
                }
            )
    categories = [{'id': i, 'name': name} for i, name in enumerate(names)]
    file = root / f'annotations/instances_{split}2017.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        json.dumps(
            {
                'images': images,
                'annotations': annotations,
                'categories': categories,
            }
        )
    )


# Configs


def distilled(name: str, taps: Sequence[str], file: Path) -> Config:
    """A recipe with the documented lines around it.

    Args:
        name (str): The recipe.
        taps (Sequence[str]): An entry for each.
        file (Path): Where to write the lines.
    """
    recipe = load_config(name)
    entries = ''.join(
        ENTRY.format(number=number, tap=tap) for number, tap in enumerate(taps)
    )
    constructor = recipe.optim_wrapper.get('constructor')
    paramwise = dict(student_constructor=constructor)
    lines = LINES.format(
        name=name,
        entries=entries + '\n    ',
        paramwise=f'paramwise_cfg={paramwise!r},' if constructor else '',
    )
    file.write_text(lines)
    return load_config(file)


def reduce(config: Config, shrink: int | None = None) -> None:
    """Two iterations on two images, small ones, from random weights.

    Args:
        config (Config): A recipe, or one with the lines around it. Changed
            in place.
        shrink (int, optional): What lengths in the pipeline are divided by.
            Defaults to None: :data:`SHRINK`.
    """
    plain = config.model.get('student', config.model)
    _strip_weights(plain)
    if shrink is None:
        shrink = SHRINK.get(config.get('default_scope'), 1)
    for part in (
        config.train_dataloader,
        config.val_dataloader,
        config.get('custom_hooks'),
        config.get('data_preprocessor'),
        plain.get('data_preprocessor'),
        plain.get('test_cfg'),
    ):
        _shorten(part, shrink)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.batch_size = min(loader.batch_size, BATCH_SIZE)
        loader.update(num_workers=0, persistent_workers=False)
        loader.pop('prefetch_factor', None)
    config.train_dataloader.batch_size = BATCH_SIZE
    dataset = config.train_dataloader.dataset
    while dataset is not None:
        if 'times' in dataset:
            dataset.times = 1
        dataset = dataset.get('dataset')
    by_epoch = 'max_epochs' in config.train_cfg
    length = 'max_epochs' if by_epoch else 'max_iters'
    schedulers = config.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    for scheduler in schedulers:
        # The runner would take the new length, which may lie before `begin`.
        begin = scheduler.get('begin', 0)
        scheduler.setdefault('end', begin + config.train_cfg[length])
    config.train_cfg[length] = ITERATIONS
    config.train_cfg.val_interval = ITERATIONS
    for hook in config.get('custom_hooks') or []:
        hook.update({k: v for k, v in LAST_EPOCHS.items() if k in hook})
    config.default_hooks.logger.interval = 1
    config.update(load_from=None, resume=False, randomness=dict(seed=0))


def _strip_weights(value: object) -> None:
    if isinstance(value, dict):
        if 'Pretrained' in str(value.get('init_cfg')):
            value['init_cfg'] = None
        if value.get('pretrained'):
            value['pretrained'] = None
        for item in value.values():
            _strip_weights(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _strip_weights(item)


def _shorten(value: object, shrink: int) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in LENGTHS:
                value[key] = _shorter(item, shrink)
            else:
                _shorten(item, shrink)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _shorten(item, shrink)


def _shorter(value: object, shrink: int) -> object:
    if isinstance(value, (list, tuple)):
        return type(value)(_shorter(item, shrink) for item in value)
    if isinstance(value, int) and abs(value) >= SHORTEST:
        return value // shrink
    return value


# A check


def check(line: Line, taps: Sequence[str], plain: bool, folder: Path) -> None:
    """Train, load and predict; returns if everything works.

    Args:
        line (Line): The recipe.
        taps (Sequence[str]): Where to distil it.
        plain (bool): Leave the distiller out.
        folder (Path): For what a run writes. ``data`` is beside it.
    """
    config = (
        load_config(line.name)
        if plain
        else distilled(line.name, taps, folder / 'distilled.py')
    )
    reduce(config, line.shrink)
    config.work_dir = str(folder)
    with _stage('training'):
        runner = Runner.from_cfg(config)
        runner.train()
        if runner.iter != ITERATIONS:
            raise RuntimeError(f'{runner.iter} iterations were run')
        if not plain:
            _see_losses(runner, len(taps))
    checkpoint = Path(folder, 'last_checkpoint').read_text()
    with _stage('loading'):
        recipe = load_config(line.name)
        reduce(recipe, line.shrink)
        model = _load_plain(recipe, checkpoint)
    with _stage('prediction'):
        _predict(model, runner.build_dataloader(config.val_dataloader))


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """Says in which step an error came."""
    print(f'--- {name}', flush=True)
    try:
        yield
    except Exception as error:
        error.stage = name
        raise


def _see_losses(runner, entries: int) -> None:
    """Every entry gave a loss that is finite and not 0."""
    scalars = runner.message_hub.log_scalars
    losses = {
        key: buffer.current()
        for key, buffer in scalars.items()
        if key.startswith('train/distill.') and key.endswith('.loss_kd')
    }
    if len(losses) < entries:
        raise RuntimeError(f'{len(losses)} of {entries} entries gave a loss')
    for key, value in losses.items():
        if not (math.isfinite(value) and value > 0):
            raise RuntimeError(f'{key} is {value}')


def _load_plain(config: Config, checkpoint: str):
    # As the runner does.
    model = config.model
    model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    model = MODELS.build(model)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    return model.eval()


def _predict(model, loader) -> None:
    with torch.no_grad():
        samples = model.test_step(next(iter(loader)))
    keys = samples[0].all_keys() if samples else []
    if not any(key.startswith('pred_') for key in keys):
        raise RuntimeError('the samples hold no prediction')


def check_here(line: Line, plain: bool) -> dict:
    """Check one config in this process and in its current folder.

    Args:
        line (Line): The config.
        plain (bool): Leave the distiller out.

    Returns:
        dict: ``taps``; ``stage`` and ``reason`` of a failure, both None if
        there was none; ``memory``, the peak in GiB.
    """
    result = {'taps': list(line.taps), 'stage': None, 'reason': None}
    try:
        if not (plain or line.taps):
            result['taps'] = [default_tap(load_config(line.name))]
        check(line, result['taps'], plain, Path.cwd())
    except Exception as error:
        traceback.print_exc()
        result['stage'] = getattr(error, 'stage', 'config')
        text = ' '.join(str(error).split())
        result['reason'] = f'{type(error).__name__}: {text}'
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result | {'memory': peak / 2**20}


# All of them


@dataclass
class Result:
    """What came out for a line of the list.

    Attributes:
        line (Line): The line.
        taps (list[str]): Where it was distilled.
        stage (str, optional): In which step it failed. None: it works.
        reason (str, optional): Why.
        recipes_own (bool): Whether the recipe fails without us, too.
        seconds (float): How long it took.
        memory (float): The peak of the process in GiB; NaN if it died.
    """

    line: Line
    taps: list[str]
    stage: str | None
    reason: str | None
    recipes_own: bool = False
    seconds: float = math.nan
    memory: float = math.nan

    @property
    def works(self) -> bool:
        return self.stage is None

    @property
    def expected(self) -> bool:
        """Whether it works, or fails for the reason of the list."""
        if self.works:
            return not self.line.fails
        return bool(self.line.fails) and self.line.fails in self.reason

    @property
    def outcome(self) -> str:
        if self.works:
            return 'works'
        owner = "the recipe's own, " if self.recipes_own else ''
        return f'{owner}{self.stage}: {self.reason}'


class Checker:
    """Runs each check in a process of its own.

    Args:
        folder (Path): For data, logs and results.
        plain (bool): Check the recipes alone.
        timeout (float): Seconds after which a check is given up.
    """

    def __init__(self, folder: Path, plain: bool, timeout: float) -> None:
        self.folder = folder.resolve()
        self.plain = plain
        self.timeout = timeout
        folder.mkdir(parents=True, exist_ok=True)
        write_data(folder / 'data')

    def file_of(self, line: Line, suffix: str, plain: bool) -> Path:
        name = line.name.removesuffix('.py')
        slug = re.sub(r'[^\w.-]+', '_', ' '.join([name, *line.taps]))
        return self.folder / (slug + '.plain' * plain + suffix)

    def done(self, line: Line) -> Result | None:
        """What an earlier run found out."""
        file = self.file_of(line, '.json', self.plain)
        if not file.is_file():
            return None
        return Result(line, **json.loads(file.read_text()))

    def __call__(self, line: Line) -> Result:
        start = time.monotonic()
        found = self._run(line, self.plain)
        found['seconds'] = time.monotonic() - start
        if found['stage']:
            alone = found if self.plain else self._run(line, plain=True)
            found['recipes_own'] = alone['stage'] is not None
        file = self.file_of(line, '.json', self.plain)
        file.write_text(json.dumps(found))
        return Result(line, **found)

    def _run(self, line: Line, plain: bool) -> dict:
        log = self.file_of(line, '.log', plain)
        with TemporaryDirectory(dir=self.folder) as folder:
            # It has imported everything, which takes longer than the rest.
            process = get_context('fork').Process(
                target=_in_folder, args=(Path(folder), log, line, plain)
            )
            process.start()
            process.join(self.timeout)
            if process.exitcode is None:
                process.kill()
                process.join()
                reason = f'took more than {self.timeout:g} s'
            else:
                reason = f'ended with status {process.exitcode}'
            result = Path(folder, 'result.json')
            if result.is_file():
                return json.loads(result.read_text())
        return {'taps': list(line.taps), 'stage': 'process', 'reason': reason}


def _in_folder(folder: Path, log: Path, line: Line, plain: bool) -> None:
    """A check whose output goes to a file, in a process of its own."""
    output = log.open('w', buffering=1)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sys.stdout = sys.stderr = output
    os.chdir(folder)
    Path('data').symlink_to(folder.parent / 'data')
    result = check_here(line, plain)
    Path('result.json').write_text(json.dumps(result))


def import_packages(lines: Sequence[Line]) -> None:
    """Import what the processes will need of OpenMMLab."""
    for package in PACKAGES:
        if any(line.name.startswith(f'{package}::') for line in lines):
            for part in ('datasets', 'engine', 'evaluation', 'models'):
                import_module(f'{package}.{part}')


# Tables


def table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
    rows = [
        '| config | tap | outcome | GiB |',
        '|---|---|---|---|',
    ]
    for result in results:
        taps = ', '.join(f'`{tap}`' for tap in result.taps)
        outcome = result.outcome[:LONGEST].replace('|', r'\|')
        rows.append(
            f'| `{result.line.name}` | {taps} | {outcome} '
            f'| {result.memory:.1f} |'
        )
    return '\n'.join(rows) + '\n'


def summary(results: Sequence[Result]) -> str:
    counted = [r for r in results if not r.recipes_own]
    text = f'{sum(r.works for r in counted)} of {len(counted)} work.'
    if own := len(results) - len(counted):
        text += f' Not counted, for they fail without the distiller: {own}.'
    return text


PAGE = """\
# Compatibility

Stock configs of mmpretrain, mmdet and mmseg, each in
[the lines](configuration.md#the-lines) that make a distillation of it: DiffKD
at the tap named here, the teacher of the same architecture and random on
purpose. This page is written by

```bash
{command}
```

**{summary}**

What "works" says: the real runner trained two iterations with the recipe's own
pipeline, optimizer, schedule, hooks and evaluator; every entry gave a finite
loss; the checkpoint was loaded strictly into the plain model; and that model
predicted. It does not say that anything was learnt.

What is not the recipe's own: the data (generated, in the layouts of ImageNet,
COCO, Cityscapes and ADE20K), the initial weights (random, nothing is
downloaded), batches of two images, and lengths in the pipelines: a quarter of
the recipe's in mmdet, an eighth in mmseg, unless the list says otherwise. No
network is made smaller. Where a config fails, the recipe is tried without the
distiller; what fails there too is its own, and does not count.

GiB are the peak of the memory of each process, on a CPU.
{versions}.

{table}
Other configs:

```bash
python tools/misc/check_compatibility.py \\
    mmdet::paa/paa_r50_fpn_1x_coco.py --at 'neck[:]'
```
"""


def page(results: Sequence[Result], command: str) -> str:
    """The document with all results."""
    versions = ', '.join(
        f'{name} {package_version(name)}'
        for name in ('torch', 'mmengine', 'mmcv', *PACKAGES)
    )
    return PAGE.format(
        command=command,
        summary=summary(results),
        versions=versions,
        table=table(results),
    )


# The command line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='See whether stock configs train under a distiller.'
    )
    parser.add_argument(
        'names', nargs='+', metavar='NAME', help='a config, or a list (.txt)'
    )
    parser.add_argument(
        '--at',
        nargs='+',
        default=[],
        metavar='TAP',
        help='where to distil the configs named here. Defaults to the '
        'pyramid of a detector, the class maps of a segmenter, or the last '
        'output of the backbone.',
    )
    parser.add_argument(
        '--shrink',
        type=int,
        help='what lengths in the pipelines of the configs named here are '
        'divided by. Defaults to 1, in mmdet to 4 and in mmseg to 8.',
    )
    parser.add_argument(
        '--plain', action='store_true', help='without the distiller'
    )
    parser.add_argument(
        '--jobs', type=int, default=1, help='at a time. Defaults to 1.'
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=600,
        help='seconds for one config. Defaults to 600.',
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='keep the results that are there from an earlier run',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/compatibility'),
        help='for data, logs and results. Defaults to '
        'work_dirs/compatibility.',
    )
    parser.add_argument(
        '--out', type=Path, help='a document to write, docs/compatibility.md'
    )
    return parser.parse_args()


def lines_of(args: argparse.Namespace) -> list[Line]:
    lines = []
    for name in args.names:
        if name.endswith('.txt'):
            lines += read_list(Path(name).read_text())
        else:
            if '::' not in name:
                name = str(Path(name).resolve())
            lines.append(Line(name, tuple(args.at), args.shrink))
    return lines


def main() -> None:
    args = parse_args()
    lines = lines_of(args)
    import_packages(lines)
    checker = Checker(args.work_dir, args.plain, args.timeout)

    def run(line: Line) -> Result:
        result = (checker.done(line) if args.resume else None) or checker(line)
        print(
            f'{result.seconds:4.0f} s  {line.name}  '
            f'{result.outcome[:LONGEST]}',
            flush=True,
        )
        return result

    if args.jobs == 1:
        results = [run(line) for line in lines]
    else:
        with ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(run, lines))
    print(f'\n{table(results)}\n{summary(results)}')
    if args.out:
        args.out.write_text(page(results, _command(args)))
    sys.exit(not all(result.expected for result in results))


def _command(args: argparse.Namespace) -> str:
    names = ' '.join(args.names)
    return f'python tools/misc/check_compatibility.py {names} --out {args.out}'


if __name__ == '__main__':
    main()
