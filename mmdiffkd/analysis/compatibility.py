"""Whether stock configs train under a distiller.

Each config is checked in a process of its own: two training iterations by the
real runner, the checkpoint loaded strictly into the plain model, and a
prediction by that.
"""

import json
import math
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint

from mmdiffkd.utils import load_config
from mmdiffkd.utils.setup_env import package_version

from .stock_data import write_data
from .stock_recipes import ITERATIONS, default_tap, distilled, reduce
from .tables import markdown

PACKAGES = ('mmpretrain', 'mmdet', 'mmseg')
# Characters of a reason that are printed; the log has all of it.
LONGEST = 300


@dataclass(frozen=True)
class Line:
    """A line of the list.

    Attributes:
        name (str): A config, as ``load_config`` takes it.
        taps (tuple[str, ...]): Where to distil; empty for the default.
        shrink (int, optional): What lengths in the pipeline are divided by.
            Defaults to None: see
            :func:`~mmdiffkd.analysis.stock_recipes.reduce`.
        fails (str): A part of the reason of an expected failure. Defaults to
            '': the config should work.
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


def check(line: Line, taps: Sequence[str], plain: bool, folder: Path) -> None:
    """Train, load and predict.

    Args:
        line (Line): The recipe.
        taps (Sequence[str]): Where to distil it.
        plain (bool): Leave the distiller out.
        folder (Path): For what a run writes. ``data`` is beside it.

    Raises:
        Exception: Of any kind, if something does not work. Its attribute
            ``stage`` says where.
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
    """Note in an error the step in which it came."""
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


@dataclass
class Result:
    """What came out for a line of the list.

    Attributes:
        line (Line): The line.
        taps (list[str]): Where it was distilled.
        stage (str, optional): In which step it failed. None: it works.
        reason (str, optional): Why.
        recipes_own (bool): Whether the recipe also fails without the
            distiller. Defaults to False.
        seconds (float): How long it took. Defaults to NaN.
        memory (float): The peak of the process in GiB. Defaults to NaN, of
            a process that died.
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
        """Whether no step failed."""
        return self.stage is None

    @property
    def expected(self) -> bool:
        """Whether it works, or fails for the reason of the list."""
        if self.works:
            return not self.line.fails
        return bool(self.line.fails) and self.line.fails in self.reason

    @property
    def outcome(self) -> str:
        """What came out, for people."""
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
        """The file of a config: its log or its result."""
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
        """Check a config; on a failure, try its recipe alone."""
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
            # A fork has imported everything, which takes longest.
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
    """Import the OpenMMLab packages that the checks need.

    Processes are forked after that, so that none of them imports again.
    """
    for package in PACKAGES:
        if any(line.name.startswith(f'{package}::') for line in lines):
            for part in ('datasets', 'engine', 'evaluation', 'models'):
                import_module(f'{package}.{part}')


def table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
    rows = [
        [
            f'`{result.line.name}`',
            ', '.join(f'`{tap}`' for tap in result.taps),
            result.outcome[:LONGEST].replace('|', r'\|'),
            f'{result.memory:.1f}',
        ]
        for result in results
    ]
    return markdown(['config', 'tap', 'outcome', 'GiB'], rows) + '\n'


def summary(results: Sequence[Result]) -> str:
    """How many configs work, as a sentence."""
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
