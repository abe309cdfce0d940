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
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.runner import Runner, load_checkpoint

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config
from mmdiffkd.utils.setup_env import package_version

from .stock_data import write_data
from .stock_recipes import ITERATIONS, default_taps, distilled, reduce
from .tables import markdown

PACKAGES = ('mmpretrain', 'mmdet', 'mmseg')
# Characters of a reason that are printed; the log has all of it.
LONGEST = 300
# Seconds after which a check is given up.
TIMEOUT = 600


@dataclass(frozen=True)
class Line:
    """A line of the list.

    Attributes:
        name (str): A config, as ``load_config`` takes it.
        taps (tuple[str, ...]): Where to distil; empty for the default.
        shrink (int, optional): See :func:`~.stock_recipes.reduce`.
        fails (str): A part of the reason of an expected failure; empty if
            the config should work.
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


def _steps(
    line: Line, taps: Sequence[str], plain: bool, folder: Path
) -> Iterator[str]:
    """Train, load and predict in a folder; gives a name before each step."""
    config = (
        load_config(line.name)
        if plain
        else distilled(line.name, taps, folder / 'distilled.py')
    )
    reduce(config, line.shrink)
    config.work_dir = str(folder)
    yield 'training'
    runner = Runner.from_cfg(config)
    runner.train()
    if runner.iter != ITERATIONS:
        raise RuntimeError(f'{runner.iter} iterations were run')
    if not plain:
        _see_losses(runner, len(taps))
    yield 'loading'
    recipe = load_config(line.name)
    reduce(recipe, line.shrink)
    model = build_from_config(recipe).eval()
    checkpoint = Path(folder, 'last_checkpoint').read_text()
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    yield 'prediction'
    batch = next(iter(runner.build_dataloader(config.val_dataloader)))
    with torch.no_grad():
        samples = model.test_step(batch)
    keys = samples[0].all_keys() if samples else []
    if not any(key.startswith('pred_') for key in keys):
        raise RuntimeError('the samples hold no prediction')


def _see_losses(runner: Runner, entries: int) -> None:
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


def check_here(line: Line, plain: bool) -> dict:
    """Check one config in this process and in its current folder.

    Args:
        line (Line): The config.
        plain (bool): Leave the distiller out.

    Returns:
        dict: ``taps``, ``stage``, ``reason`` and ``memory`` of a
        :class:`Result`.
    """
    result = {'taps': list(line.taps), 'stage': 'config', 'reason': None}
    try:
        if not (plain or line.taps):
            result['taps'] = default_taps(load_config(line.name))
        for stage in _steps(line, result['taps'], plain, Path.cwd()):
            print(f'--- {stage}', flush=True)
            result['stage'] = stage
        result['stage'] = None
    except Exception as error:
        traceback.print_exc()
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
        recipes_own (bool): Whether the recipe also fails alone.
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


def check(line: Line, folder: Path, timeout: float = TIMEOUT) -> Result:
    """Check a config in a process of its own; if it fails, its recipe alone.

    Args:
        line (Line): The config.
        folder (Path): For data and logs. Data that is there is used.
        timeout (float): Seconds. Defaults to :data:`TIMEOUT`.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder / 'data')
    start = time.monotonic()
    result = Result(line, **_run(line, folder, timeout))
    result.seconds = time.monotonic() - start
    if not result.works:
        alone = _run(line, folder, timeout, plain=True)
        result.recipes_own = alone['stage'] is not None
    return result


def _run(
    line: Line, folder: Path, timeout: float, plain: bool = False
) -> dict:
    """:func:`check_here` in a process of its own."""
    name = ' '.join([line.name.removesuffix('.py'), *line.taps])
    slug = re.sub(r'[^\w.-]+', '_', name) + '.plain' * plain
    with TemporaryDirectory(dir=folder) as place:
        # A fork has imported everything, which takes longest.
        process = get_context('fork').Process(
            target=_in_folder,
            args=(Path(place), folder / f'{slug}.log', line, plain),
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            reason = f'took more than {timeout:g} s'
        else:
            reason = f'ended with status {process.exitcode}'
        result = Path(place, 'result.json')
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

Stock configs of mmpretrain, mmdet and mmseg, with
[the lines](configuration.md#the-lines) that make a distillation of each:
DiffKD at the tap in the table, and a teacher of the same architecture with
random weights. This command writes the page:

```bash
{command}
```

**{summary}**

"Works" means: MMEngine's runner trained two iterations with the recipe's own
pipeline, optimizer, schedule, hooks and evaluator. Every entry gave a finite
loss. The checkpoint loaded strictly into the plain model, and that model
predicted. It does not mean that anything was learnt.

These are not the recipe's own: the data (generated, in the layouts of
ImageNet, COCO, Cityscapes and ADE20K), the initial weights (random), batches
of two images, and the image sizes in the pipelines (a quarter of the recipe's
in mmdet, an eighth in mmseg, unless the list says otherwise). No network is
made smaller. If a config fails, the recipe is tried without the distiller. A
failure there does not count.

GiB: peak memory of the process, on a CPU.
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
    names = ('torch', 'mmengine', 'mmcv', *PACKAGES)
    return PAGE.format(
        command=command,
        summary=summary(results),
        versions=', '.join(
            f'{name} {package_version(name)}' for name in names
        ),
        table=table(results),
    )
