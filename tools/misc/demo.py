"""The whole journey on a small data set, in minutes on two CPU cores.

Writes the digit scenes, trains a teacher, a student alone and the same
student with DiffKD, evaluates all three, and draws what happened. Everything
lands in ``work_dirs/demo``. A second run re-uses finished trainings.

    python tools/misc/demo.py [--force]
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config, read_checkpoint
from mmdiffkd.visualization import denoising_panel, plot_training_curves

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools/analysis_tools'))

from compare_methods import (  # noqa: E402
    ChildFailed,
    OtherSettings,
    Run,
    run_child,
    train,
)
from get_flops import get_costs, readable  # noqa: E402

WORK_DIR = Path('work_dirs/demo')
# What is trained, in order: name, title and config.
TEACHER, STUDENT, DISTILLED = 'teacher', 'student', 'diffkd'
TITLES = {
    TEACHER: 'teacher',
    STUDENT: 'student alone',
    DISTILLED: 'student with DiffKD',
}
CONFIGS = {
    TEACHER: 'configs/baseline/resnet14-w24_1xb64-20e_digit-scenes.py',
    STUDENT: 'configs/baseline/resnet14-w4_1xb64-20e_digit-scenes.py',
    DISTILLED: (
        'configs/diffkd/'
        'diffkd_backbone_resnet14-w24_resnet14-w4_1xb64-20e_digit-scenes.py'
    ),
}
IMAGE_SIZE = (32, 32)
PICTURED = 5


def say(text: str = '') -> None:
    print(text, flush=True)


def report_epochs() -> Callable[[str], None]:
    """Turns a training's log lines into one short line an epoch."""
    header = re.compile(
        r'Epoch\((train|val)\)\s*\[\s*(\d+)\]\[\s*(\d+)/(\d+)\]'
    )
    loss = re.compile(r' loss: (\S+)')
    accuracy = re.compile(r'accuracy/top1: (\S+)')
    start = time.perf_counter()

    def on_line(line: str) -> None:
        match = header.search(line)
        if match is None:
            return
        found = accuracy.search(line)
        if match[1] == 'train' and match[3] == match[4]:
            seconds = time.perf_counter() - start
            text = f'loss {float(loss.search(line)[1]):.3f}  {seconds:4.0f} s'
        elif match[1] == 'val' and found:
            text = f'top-1 {float(found[1]):.1f} %'
        else:
            return
        say(f'    epoch {int(match[2]):2d}  {text}')

    return on_line


def write_scenes() -> None:
    converter = ROOT / 'tools/dataset_converters/digit_scenes.py'
    command = [sys.executable, str(converter), '--tasks', 'cls']
    run_child(command, WORK_DIR / 'digit_scenes.log')
    say('  data/digit_scenes/cls')


def train_and_test(name: str) -> dict:
    """Train one of the three, evaluate it, and give what was measured."""
    options = {'randomness.seed': 0}
    if name == DISTILLED:
        options['model.teacher.checkpoint'] = str(checkpoint_of(TEACHER))
    run = Run(CONFIGS[name], WORK_DIR / name, options)
    done = (run.folder / 'result.json').is_file()
    result = train(run, on_line=report_epochs())
    metrics = run.folder / 'test.json'
    if not metrics.is_file():
        command = [sys.executable, str(ROOT / 'tools/test.py'), run.config]
        command += [str(checkpoint_of(name)), '--out', str(metrics)]
        command += ['--out-item', 'metrics']
        command += ['--work-dir', str(run.folder / 'test')]
        run_child(command, run.folder / 'test.log')
    top1 = json.loads(metrics.read_text())['accuracy/top1']
    say(
        f'  test top-1 {top1:.1f} %, trained in {result["seconds"]:.0f} s'
        + (' (finished before)' if done else '')
    )
    return {
        'top1': top1,
        'seconds': result['seconds'],
        'seconds_per_step': result['seconds_per_step'],
        'checkpoint': str(checkpoint_of(name)),
    }


def checkpoint_of(name: str) -> Path:
    """The last checkpoint of a training."""
    return Path((WORK_DIR / name / 'last_checkpoint').read_text())


def draw_panel(out: Path) -> None:
    """Draw what the trained denoiser does to features of test images."""
    config = load_config(CONFIGS[DISTILLED])
    config.model.teacher.checkpoint = str(checkpoint_of(TEACHER))
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    distiller = build_from_config(config)
    distiller.init_weights()
    checkpoint = read_checkpoint(checkpoint_of(DISTILLED))
    distiller.load_state_dict(
        {**checkpoint['state_dict'], **checkpoint['distill_state_dict']}
    )
    dataset = DATASETS.build(config.test_dataloader.dataset)
    # Spread over the classes, which the data set has one after another.
    picks = np.linspace(0, len(dataset) - 1, 2 * PICTURED + 1, dtype=int)
    samples = [dataset[index] for index in picks[1::2]]
    batch = distiller.data_preprocessor(
        {'inputs': [sample['inputs'] for sample in samples]}
    )
    ((name, levels),) = distiller.trajectories(batch['inputs']).items()
    # mmpretrain reads blue, green, red.
    images = [s['inputs'].numpy()[::-1].transpose(1, 2, 0) for s in samples]
    panel = denoising_panel(
        images, levels[0], title=f'DiffKD, entry {name!r}, test images'
    )
    Image.fromarray(panel).save(out)


def table(results: dict, costs: dict) -> str:
    """The three trainings side by side."""
    rows = [('', 'parameters', 'MACs', 'cost of step', 'top-1', 'trained in')]
    for name, result in results.items():
        cost = costs[name]
        ratio = cost.get('step_ratio')
        rows.append(
            (
                TITLES[name],
                readable(cost['deployed']['parameters']),
                readable(cost['deployed']['macs']),
                '' if ratio is None else f'{ratio:.2f} x',
                f'{result["top1"]:.1f} %',
                f'{result["seconds"]:.0f} s',
            )
        )
    lines = [
        f'  {row[0]:<20}' + ''.join(f'{cell:>14}' for cell in row[1:])
        for row in rows
    ]
    height, width = IMAGE_SIZE
    return '\n'.join(
        [
            *lines,
            '',
            f'  parameters, MACs   deployed, for one {height} x {width} image',
            '  cost of step       multiply-adds of a training step over the '
            "student's own",
            '  top-1              on the test scenes, after the last epoch, '
            'one seed;',
            '                     tools/analysis_tools/compare_methods.py '
            'takes several',
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--force', action='store_true', help='train everything again'
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    if args.force:
        shutil.rmtree(WORK_DIR, ignore_errors=True)

    say('digit scenes')
    write_scenes()
    results = {}
    for name, title in TITLES.items():
        say(f'{title}: {CONFIGS[name]}')
        results[name] = train_and_test(name)
    say('costs and pictures')
    curves, panel = (
        WORK_DIR / f'{name}.png'
        for name in ('training_curves', 'denoising_panel')
    )
    plot_training_curves(
        {title: WORK_DIR / name for name, title in TITLES.items()}, curves
    )
    # Building a model prints how every weight was initialised.
    with (
        (WORK_DIR / 'pictures.log').open('w') as log,
        contextlib.redirect_stdout(log),
    ):
        costs = {
            name: get_costs(load_config(config), IMAGE_SIZE)
            for name, config in CONFIGS.items()
        }
        draw_panel(panel)
    everything = {
        name: {'config': CONFIGS[name], **results[name], 'costs': costs[name]}
        for name in TITLES
    }
    summary = WORK_DIR / 'results.json'
    summary.write_text(json.dumps(everything, indent=1) + '\n')
    say()
    say(table(results, costs))
    say()
    say(f'  training curves    {curves}')
    say(f'  feature maps       {panel}')
    say(f'  all numbers        {summary}')
    say(f'  checkpoints, logs  {WORK_DIR}/{{{",".join(TITLES)}}}')


if __name__ == '__main__':
    try:
        main()
    except ChildFailed as error:
        sys.exit(f'\n{error}')
    except OtherSettings as error:
        sys.exit(f'\n{error}\nOr train everything again: demo.py --force')
    except KeyboardInterrupt:
        sys.exit('\nStopped. Start it again to go on from here.')
