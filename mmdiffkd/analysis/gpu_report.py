"""A report on a GPU: sections, each in a process with a time limit.

What a section measures is a row, a dict. Its process appends each row to a
file as soon as it is there. So a section that fails or takes too long loses
only what it has not measured yet, and the others run all the same.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import torch

from mmdiffkd.models.necks import DiffKDNeck
from mmdiffkd.utils import load_config
from mmdiffkd.utils.collect_env import collect_env

from .benchmark_neck import CASES, neck_part, released_part
from .benchmark_step import batch_for, build_distiller, parts_of
from .memory import peak_memory
from .tables import table
from .timing import MIB, WARM_UP, Part, Settings, environment, measure

# Seconds for everything.
TOTAL = 540
# Characters of a reason that are printed; the log has all of it.
LONGEST = 200
PRECISIONS = {'float32': None, 'bf16': torch.bfloat16}
# Last comes what may fail, or take all the time: the released module reads
# its timesteps on the host.
VARIANTS = [
    ('released', 'eager'),
    ('ours', 'eager'),
    ('ours', 'captured'),
    ('ours', 'compiled'),
    ('released', 'captured'),
    ('released', 'compiled'),
]
STEPS = [
    ('eager', 'float32'),
    ('eager', 'bf16'),
    ('compiled', 'bf16'),
    ('compiled', 'float32'),
]
# RetinaNet's levels of a batch of 2 at 800 x 1344, strides 8 to 128.
LEVELS = [
    (2, 256, *size)
    for size in ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
]
# From the root of the repository.
CONFIG = (
    'configs/diffkd/'
    'diffkd_backbone-logits_resnet34_resnet18_8xb32-100e_in1k.py'
)
TESTS = 'tests'
COLUMNS = [
    ('', '{part}'),
    ('number', '{count}'),
    ('precision', '{precision}'),
    ('form', '{form}'),
    ('median, ms', '{ms:.2f}'),
    ('quartiles, ms', '{ms_low:.2f} to {ms_high:.2f}'),
    ('over released, float32, eager', '{ratio:.2f}'),
    ('peak memory, MiB', '{peak_mib:.1f}'),
    ('first run, s', '{first_s:.1f}'),
    ('waits of the host', '{waits}'),
    ('remark', '{note}'),
]


def reason(error: BaseException) -> str:
    """Why it failed, in a line: the first of a chain of errors."""
    while error.__context__ is not None:
        error = error.__context__
    return _line(f'{type(error).__name__}: {error}')


def _line(text: str) -> str:
    return ' '.join(text.split())[:LONGEST].replace('|', r'\|')


def captured(part: Part) -> tuple[Part, int]:
    """A part that replays a CUDA graph of a run.

    Returns:
        tuple[Part, int]: The part, and the most bytes that the graph has in
        use at a time.
    """
    device = part.leaves[0].device
    if device.type != 'cuda':
        raise ValueError(f'nothing can be captured on device={device.type!r}')
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            part.reset()
            part.run()
    torch.cuda.current_stream().wait_stream(stream)
    part.reset()
    graph = torch.cuda.CUDAGraph()

    def capture() -> None:
        with torch.cuda.graph(graph):
            part.run()

    def replay() -> Part:
        graph.replay()
        return part  # The graph reads tensors that must live as long as it.

    peak = peak_memory(capture, device)
    return Part(part.name, replay), peak


def waits(run: Callable[[], object]) -> list[str]:
    """Where a run makes the host wait for the GPU, as ``file:line``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    return [
        f'{Path(each.filename).name}:{each.lineno}'
        for each in caught
        if 'called a synchronizing CUDA operation' in str(each.message)
    ]


def attempt(make: Callable[[], Part], form: str, settings: Settings) -> dict:
    """Measure a part.

    Returns:
        dict: A row of :func:`~.timing.measure`, of a captured part without
        MACs; ``first_s``, the seconds of the first run, compilation or
        capture included; on a GPU ``waits``, how often the host waits for it
        in a run; ``note``, where it waits, and gradients that are not finite.
        If it fails, only ``note``, why.
    """
    on_gpu = settings.device.type == 'cuda'
    try:
        part, peak = make(), None
        start = time.perf_counter()
        if form == 'captured':
            part, peak = captured(part)
        part.run()
        if on_gpu:
            torch.cuda.synchronize()
        first = time.perf_counter() - start
        (row,) = measure([part], settings)
        row |= {'first_s': first, 'note': ''}
        if peak is not None:
            row['peak_mib'] = peak / MIB
        part.reset()
        if on_gpu:
            places = Counter(waits(part.run))
            row['waits'] = places.total()
            row['note'] = ', '.join(f'{n} x {at}' for at, n in places.items())
        else:
            part.run()
        gradients = [x.grad for x in part.leaves if x.grad is not None]
        if not all(gradient.isfinite().all() for gradient in gradients):
            row['note'] += ' Gradients are not finite.'
    except Exception as error:
        traceback.print_exc()
        return {'note': reason(error)}
    return row


def _chosen(settings: Settings, form: str, precision: str) -> Settings:
    compiled = form == 'compiled'
    return replace(settings, amp=PRECISIONS[precision], compile=compiled)


def _smaller(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that a CPU takes at once."""
    batch_size, channels, *size = shape
    return min(batch_size, 4), min(channels, 16), *(min(s, 12) for s in size)


def neck_rows(
    shapes: Sequence[tuple], options: Mapping, settings: Settings, small: bool
) -> Iterator[dict]:
    """Forward and backward of DiffKD's necks, ours and the released module.

    Args:
        shapes (Sequence[tuple]): A neck's student and teacher tensor each.
        options (Mapping): Arguments of the necks.
        settings (Settings): How. Without ``reference`` ours alone is measured.
        small (bool): Take small shapes, of two necks at most.
    """
    if small:
        shapes = [_smaller(shape) for shape in shapes[:2]]
    if small and 'latent_channels' in options:
        options = {'latent_channels': 32}

    def make(owner: str, chosen: Settings) -> Part:
        torch.compiler.reset()
        necks = [DiffKDNeck(s[1], s[1], **options) for s in shapes]
        necks = [neck.to(settings.device) for neck in necks]
        students, teachers = (
            [torch.randn(shape, device=settings.device) for shape in shapes]
            for _ in range(2)
        )
        if owner == 'released':
            return released_part(necks, students, teachers, chosen)
        return neck_part('ours', necks, students, teachers, chosen)

    released = None
    for owner, form in VARIANTS:
        if owner == 'released' and settings.reference is None:
            continue
        for precision in PRECISIONS:
            chosen = _chosen(settings, form, precision)
            row = {'part': owner, 'precision': precision, 'form': form}
            row |= attempt(partial(make, owner, chosen), form, chosen)
            if owner == 'released' and released is None:
                released = row.get('ms')
            if released and 'ms' in row:
                row['ratio'] = row['ms'] / released
            yield row


def step_rows(settings: Settings, small: bool) -> Iterator[dict]:
    """The step of ResNet-34 and ResNet-18, its parts, and all of it compiled.

    Args:
        settings (Settings): How.
        small (bool): Two images of 32 pixels instead of 256 of 224.
    """
    config = load_config(CONFIG)
    config.train_dataloader.batch_size = 2 if small else 256
    config.model.input_size = 32 if small else 224
    for form, precision in STEPS:
        torch.compiler.reset()
        chosen = _chosen(settings, form, precision)
        # The teacher is compiled with the whole step.
        model = build_distiller(config, settings)
        parts = parts_of(model, *batch_for(model, config), chosen)
        for part in parts[-1:] if chosen.compile else parts:
            row = {'part': part.name, 'precision': precision, 'form': form}
            yield row | attempt(lambda part=part: part, form, chosen)


def test_rows(settings: Settings, small: bool) -> Iterator[dict]:
    """How many tests marked ``gpu`` passed, and why the others did not.

    Args:
        settings (Settings): Not used.
        small (bool): Take one file of them.
    """
    files = [
        str(file)
        for file in sorted(Path(TESTS).rglob('test_*.py'))
        if '@pytest.mark.gpu' in file.read_text()
    ]
    with TemporaryDirectory() as folder:
        report = Path(folder, 'tests.xml')
        command = [sys.executable, '-m', 'pytest', '-m', 'gpu', '--tb=short']
        command += ['--continue-on-collection-errors', f'--junitxml={report}']
        subprocess.run([*command, *files[: 1 if small else None]])
        cases = list(ElementTree.parse(report).iter('testcase'))
    outcomes = Counter(
        (child.tag, _why(child))
        for case in cases
        for child in case
        if child.tag in ('failure', 'error', 'skipped')
    )
    yield {'part': 'passed', 'count': len(cases) - outcomes.total()}
    for (outcome, message), count in outcomes.items():
        yield {'part': outcome, 'count': count, 'note': message}


def _why(outcome: ElementTree.Element) -> str:
    lines = (outcome.text or '').splitlines()
    errors = [line[1:] for line in lines if line.startswith('E ')]
    return _line([*errors, outcome.get('message', '')][0])


def machine_rows(settings: Settings, small: bool) -> Iterator[dict]:
    """What the figures depend on, then all that ``collect_env`` finds.

    Args:
        settings (Settings): How everything is measured.
        small (bool): Not used.
    """
    yield {'part': 'device', 'note': environment(settings)['device']}
    tf32 = torch.backends.cudnn.allow_tf32
    yield {'part': 'TF32 in float32 convolutions', 'note': str(tf32)}
    for name, fact in collect_env().items():
        if '\n' not in fact.strip():
            yield {'part': name, 'note': _line(fact)}


# By title: a time limit in seconds, and what yields the rows, of settings and
# whether sizes are small. The first of CASES is the first of LEVELS.
SECTIONS = {
    'Machine': (25, machine_rows),
    'Tests marked gpu': (70, test_rows),
    'Step of ResNet-34 and ResNet-18, batch 256': (130, step_rows),
    'Necks of RetinaNet, 800 x 1344, batch 2': (
        95,
        partial(neck_rows, LEVELS, {}),
    ),
} | {
    f'Neck, {name}, {list(shape)}': (70, partial(neck_rows, [shape], options))
    for name, (shape, options) in list(CASES.items())[1:]
}


def write_rows(
    title: str, file: Path, settings: Settings, small: bool
) -> None:
    """Append the rows of a section to a file, as lines of JSON."""
    _, rows = SECTIONS[title]
    torch.manual_seed(0)
    with file.open('a', buffering=1) as lines:
        for row in rows(settings, small):
            lines.write(json.dumps(row) + '\n')


def run_section(command: Sequence[str], seconds: float, log: Path) -> dict:
    """Run a process that appends rows to the file it gets as last argument.

    Returns:
        dict: ``rows``, the ``seconds`` it took, and ``problem``: what went
        wrong, or None.
    """
    start = time.monotonic()
    with (
        TemporaryDirectory() as folder,
        log.open('a+', errors='replace') as output,
    ):
        begin = output.seek(0, os.SEEK_END)
        file = Path(folder, 'rows')
        file.touch()
        process = subprocess.Popen(
            [*command, str(file)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
            problem = f'Ended with status {status}.' if status else None
        except subprocess.TimeoutExpired:
            problem = f'Stopped after {seconds:.0f} s.'
        finally:
            # Those that it started, too.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        output.seek(begin)
        said = output.read().split('\n')
    if problem:
        last = next((line for line in reversed(said) if line.strip()), '')
        problem += f' Its last words: {_line(last)}' if last else ''
    took = time.monotonic() - start
    return {'rows': rows, 'seconds': took, 'problem': problem}


def write_report(
    commands: Mapping[str, tuple[Sequence[str], float]],
    out: Path,
    introduction: str,
    total: float = TOTAL,
) -> dict[str, dict]:
    """Run sections in turn; write ``gpu_report.md`` and ``.json`` after each.

    Args:
        commands (Mapping): By title, the command of :func:`run_section` and
            its time limit in seconds.
        out (Path): A folder, for the log as well.
        introduction (str): What stands above the sections.
        total (float): Seconds for all; what is left limits a section.
            Defaults to :data:`TOTAL`.

    Returns:
        dict[str, dict]: What :func:`run_section` returned, by title.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + total
    results: dict[str, dict] = {}
    for title, (command, seconds) in commands.items():
        left = max(0, min(seconds, end - time.monotonic()))
        results[title] = run_section(command, left, out / 'gpu_report.log')
        text = json.dumps(results, indent=1)
        (out / 'gpu_report.json').write_text(text + '\n')
        page = '\n\n'.join([introduction, *map(_text, results.items())])
        (out / 'gpu_report.md').write_text(page + '\n')
    return results


def _text(item: tuple[str, dict]) -> str:
    title, result = item
    texts = [f'## {title}', table(result['rows'], COLUMNS)]
    if result['problem']:
        texts.append(f'**{result["problem"]}**')
    texts.append(f'Took {result["seconds"]:.0f} s.')
    return '\n\n'.join(texts)
