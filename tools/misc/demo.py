"""The whole journey on a small data set, in minutes on two CPU cores.

Writes the digit scenes, trains a teacher, a student alone and the same
student with DiffKD, evaluates all three, and draws what happened. Everything
lands in ``work_dirs/demo``, ``demo-det`` or ``demo-seg``. A second run re-uses
finished trainings.

    python tools/misc/demo.py [--task {cls,det,seg}] [--force]
"""

import argparse
import contextlib
import copy
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from mmengine.structures import PixelData
from PIL import Image

from mmdiffkd.analysis.macs import get_costs, readable
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config, load_weights, read_checkpoint
from mmdiffkd.visualization import (
    denoising_panel,
    plot_training_curves,
    side_by_side,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools/analysis_tools'))

from compare_methods import (  # noqa: E402
    METRICS,
    ChildFailed,
    OtherSettings,
    Run,
    in_per_cent,
    run_child,
    train,
)

# What is trained, in order: name and title.
TEACHER, STUDENT, DISTILLED = 'teacher', 'student', 'diffkd'
TITLES = {
    TEACHER: 'teacher',
    STUDENT: 'student alone',
    DISTILLED: 'student with DiffKD',
}
PICTURED = 5
# The stages, in order.
DATA, PICTURES = 'data', 'pictures'
STAGES = (DATA, *TITLES, PICTURES)


class Task(NamedTuple):
    """What the demo needs to know of a task.

    Args:
        name (str): ``'cls'``, ``'det'`` or ``'seg'``.
        configs (Mapping[str, str]): Of the three trainings.
        metric (str): What is reported, as it is logged.
        label (str): And what it is called.
        seconds (Mapping[str, int]): What each stage takes on 2 CPU cores,
            in :data:`STAGES` order.
        curves (Mapping[str, str]): Panels of the training curves. Defaults
            to None: those of a classifier.
        visualizer (Mapping): Config of the package's visualizer. Defaults
            to None: predictions are not drawn.
        enlarged (int): By what, for that. Defaults to 1.
    """

    name: str
    configs: Mapping[str, str]
    metric: str
    label: str
    seconds: Mapping[str, int]
    curves: Mapping[str, str] | None = None
    visualizer: Mapping | None = None
    enlarged: int = 1

    @property
    def work_dir(self) -> Path:
        suffix = '' if self.name == 'cls' else f'-{self.name}'
        return Path(f'work_dirs/demo{suffix}')

    def checkpoint(self, name: str) -> Path:
        """The last checkpoint of a training."""
        return Path((self.work_dir / name / 'last_checkpoint').read_text())

    def config(self, name: str):
        return load_config(self.configs[name])


def stage_times(*seconds: int) -> dict[str, int]:
    """What each stage takes."""
    return dict(zip(STAGES, seconds, strict=True))


def configs(tap: str, teacher: str, student: str, recipe: str) -> dict:
    """The three configs, by what is trained."""
    baseline = 'configs/baseline'
    distilled = f'diffkd_{tap}_{teacher}_{student}_{recipe}'
    return {
        TEACHER: f'{baseline}/{teacher}_{recipe}.py',
        STUDENT: f'{baseline}/{student}_{recipe}.py',
        DISTILLED: f'configs/diffkd/{distilled}.py',
    }


TASKS = {
    task.name: task
    for task in (
        Task(
            'cls',
            configs(
                'backbone',
                'resnet14-w24',
                'resnet14-w4',
                '1xb64-20e_digit-scenes',
            ),
            METRICS['mmpretrain'],
            'top-1',
            stage_times(12, 115, 60, 110, 5),
        ),
        Task(
            'det',
            configs(
                'fpn-reg',
                'retinanet-w24',
                'retinanet-w8',
                '1xb16-6e_digit-scenes-det',
            ),
            METRICS['mmdet'],
            'mAP',
            stage_times(10, 300, 200, 290, 10),
            {
                'loss_*': 'task losses',
                'distill.*loss*': 'distillation losses',
                'coco/bbox_mAP': 'validation mAP (a fraction)',
            },
            dict(type='DetLocalVisualizer', line_width=2, alpha=1.0),
            enlarged=2,
        ),
        Task(
            'seg',
            configs(
                'logits-aux',
                'pspnet-w16',
                'pspnet-w8',
                '1xb8-6e_digit-scenes-seg',
            ),
            METRICS['mmseg'],
            'mIoU',
            stage_times(10, 300, 200, 340, 10),
            {
                'decode.loss_ce': 'task loss',
                'distill.*loss*': 'distillation losses',
                'mIoU': 'validation mIoU (%)',
            },
            dict(type='SegLocalVisualizer', alpha=0.5),
            enlarged=2,
        ),
    )
}


def say(text: str = '') -> None:
    print(text, flush=True)


def duration(seconds: float) -> str:
    """Seconds below two minutes, and minutes from there."""
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{int(seconds) // 60} min {int(seconds) % 60} s'


@contextlib.contextmanager
def stage(task: Task, name: str, title: str) -> Iterator[None]:
    """Say what begins and how long it should take, then how long it did."""
    start = time.perf_counter()
    say(f'{title} (about {duration(task.seconds[name])})')
    yield
    say(f'  done in {duration(time.perf_counter() - start)}')


def report_epochs(task: Task) -> Callable[[str], None]:
    """Turns a training's log lines into one short line an epoch."""
    header = re.compile(
        r'Epoch\((train|val)\)\s*\[\s*(\d+)\]\[\s*(\d+)/(\d+)\]'
    )
    loss = re.compile(r' loss: (\S+)')
    metric = re.compile(rf'{task.metric}: (\S+)')
    start = time.perf_counter()

    def on_line(line: str) -> None:
        match = header.search(line)
        if match is None:
            return
        found = metric.search(line)
        if match[1] == 'train' and match[3] == match[4]:
            seconds = time.perf_counter() - start
            text = f'loss {float(loss.search(line)[1]):.3f}  {seconds:4.0f} s'
        elif match[1] == 'val' and found:
            value = in_per_cent({task.metric: float(found[1])}, task.metric)
            text = f'{task.label} {value:.1f} %'
        else:
            return
        say(f'    epoch {int(match[2]):2d}  {text}')

    return on_line


def write_scenes(task: Task) -> None:
    converter = ROOT / 'tools/dataset_converters/digit_scenes.py'
    command = [sys.executable, str(converter), '--tasks', task.name]
    run_child(command, task.work_dir / 'digit_scenes.log')
    say(f'  data/digit_scenes/{task.name}')


def train_and_test(task: Task, name: str) -> dict:
    """Train one of the three, evaluate it, and give what was measured."""
    options = {'randomness.seed': 0}
    if name == DISTILLED:
        options['model.teacher.checkpoint'] = str(task.checkpoint(TEACHER))
    run = Run(task.configs[name], task.work_dir / name, options)
    done = (run.folder / 'result.json').is_file()
    result = train(run, on_line=report_epochs(task))
    metrics = run.folder / 'test.json'
    if not metrics.is_file():
        command = [sys.executable, str(ROOT / 'tools/test.py'), run.config]
        command += [str(task.checkpoint(name)), '--out', str(metrics)]
        command += ['--out-item', 'metrics']
        command += ['--work-dir', str(run.folder / 'test')]
        run_child(command, run.folder / 'test.log')
    figure = in_per_cent(json.loads(metrics.read_text()), task.metric)
    say(
        f'  test {task.label} {figure:.1f} %, '
        f'trained in {result["seconds"]:.0f} s'
        + (' (finished before)' if done else '')
    )
    return {
        task.label: figure,
        'seconds': result['seconds'],
        'seconds_per_step': result['seconds_per_step'],
        'checkpoint': str(task.checkpoint(name)),
    }


def pictured_samples(task: Task) -> list[dict]:
    """A few test scenes, as the data set gives them."""
    config = task.config(STUDENT)
    init_default_scope(config.default_scope)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    # Spread out: classes lie one after another in some data sets.
    picks = np.linspace(0, len(dataset) - 1, 2 * PICTURED + 1, dtype=int)
    return [dataset[index] for index in picks[1::2]]


def image_of(sample: Mapping) -> np.ndarray:
    """The picture of a sample, which has blue, green and red: (H, W, 3)."""
    return sample['inputs'].numpy()[::-1].transpose(1, 2, 0)


def draw_panel(task: Task, samples: Sequence[Mapping], out: Path) -> None:
    """Draw what the trained denoiser does to features of test images."""
    config = task.config(DISTILLED)
    config.model.teacher.checkpoint = str(task.checkpoint(TEACHER))
    torch.manual_seed(0)
    distiller = build_from_config(config)
    distiller.init_weights()
    checkpoint = read_checkpoint(task.checkpoint(DISTILLED))
    distiller.load_state_dict(
        {**checkpoint['state_dict'], **checkpoint['distill_state_dict']}
    )
    batch = distiller.data_preprocessor(pseudo_collate(samples))
    name, levels = next(iter(distiller.trajectories(batch['inputs']).items()))
    level = ', first level' if len(levels) > 1 else ''
    panel = denoising_panel(
        [image_of(sample) for sample in samples],
        levels[0],
        title=f'DiffKD, entry {name!r}{level}, test images',
    )
    Image.fromarray(panel).save(out)


@torch.no_grad()
def predict(task: Task, name: str, samples: Sequence[Mapping]) -> list:
    """What a trained network predicts; a plain one, distilled or not."""
    model = build_from_config(
        task.config(STUDENT if name == DISTILLED else name)
    )
    checkpoint = task.checkpoint(name)
    weights = read_checkpoint(checkpoint)['state_dict']
    load_weights(model, weights, str(checkpoint))
    return model.eval().test_step(pseudo_collate(samples))


def draw_predictions(
    task: Task, samples: Sequence[Mapping], out: Path
) -> None:
    """Draw what is there, and what each of the three networks sees."""
    dataset = task.config(STUDENT).test_dataloader.dataset
    visualizer = VISUALIZERS.build(dict(task.visualizer, name='demo'))
    visualizer.dataset_meta = dict(dataset.metainfo)

    def draw(sample: Mapping, found) -> np.ndarray:
        image = image_of(sample).repeat(task.enlarged, 0)
        image = np.ascontiguousarray(image.repeat(task.enlarged, 1))
        options = {'draw_gt': found is None, 'draw_pred': found is not None}
        shown = enlarge(found or sample['data_samples'], task.enlarged)
        if task.name == 'seg':
            options['with_labels'] = False
        visualizer.add_datasample('', image, shown, **options)
        return visualizer.get_image()

    columns = {'what is there': [None] * len(samples)}
    columns |= {
        title: predict(task, name, samples) for name, title in TITLES.items()
    }
    rows = [
        [draw(sample, found[i]) for found in columns.values()]
        for i, sample in enumerate(samples)
    ]
    meta = dataset.metainfo
    picture = side_by_side(
        rows, list(columns), legend=list(zip(meta.classes, meta.palette))
    )
    Image.fromarray(picture).save(out)


def enlarge(sample, factor: int):
    """Boxes and label maps of a sample, for an enlarged image."""
    sample = copy.deepcopy(sample)
    for name in ('gt_instances', 'pred_instances'):
        if name in sample:
            boxes = sample.get(name).bboxes
            sample.get(name).bboxes = getattr(boxes, 'tensor', boxes) * factor
    for name in ('gt_sem_seg', 'pred_sem_seg'):
        if name in sample:
            labels = sample.get(name).data.repeat_interleave(factor, 1)
            labels = labels.repeat_interleave(factor, 2)
            sample.set_data({name: PixelData(data=labels)})
    return sample


def table(task: Task, results: dict, costs: dict) -> str:
    """The three trainings side by side."""
    rows = [
        ('', 'parameters', 'MACs', 'cost of step', task.label, 'trained in')
    ]
    for name, result in results.items():
        cost = costs[name]
        ratio = cost.get('step_ratio')
        rows.append(
            (
                TITLES[name],
                readable(cost['deployed']['parameters']),
                readable(cost['deployed']['macs']),
                '' if ratio is None else f'{ratio:.2f} x',
                f'{result[task.label]:.1f} %',
                f'{result["seconds"]:.0f} s',
            )
        )
    lines = [
        f'  {row[0]:<20}' + ''.join(f'{cell:>14}' for cell in row[1:])
        for row in rows
    ]
    height, width = costs[STUDENT]['shape']
    return '\n'.join(
        [
            *lines,
            '',
            f'  parameters, MACs   deployed, for one {height} x {width} image',
            '  cost of step       multiply-adds of a training step over the '
            "student's own",
            f'  {task.label:<17}  on the test scenes, after the last epoch, '
            'one seed;',
            '                     tools/analysis_tools/compare_methods.py '
            'takes several',
        ]
    )


def draw_all(task: Task) -> tuple[dict[str, Path], dict]:
    """Draw the pictures, by title, and count what each network costs."""
    drawn = {
        'training curves': task.work_dir / 'training_curves.png',
        'feature maps': task.work_dir / 'denoising_panel.png',
    }
    plot_training_curves(
        {title: task.work_dir / name for name, title in TITLES.items()},
        drawn['training curves'],
        task.curves,
    )
    # Building a model prints how every weight was initialised.
    with (
        (task.work_dir / 'pictures.log').open('w') as log,
        contextlib.redirect_stdout(log),
    ):
        size = task.config(DISTILLED).model.input_size
        costs = {name: get_costs(task.config(name), size) for name in TITLES}
        samples = pictured_samples(task)
        draw_panel(task, samples, drawn['feature maps'])
        if task.visualizer is not None:
            drawn['predictions'] = task.work_dir / 'predictions.png'
            draw_predictions(task, samples, drawn['predictions'])
    return drawn, costs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--task',
        choices=list(TASKS),
        default='cls',
        help='classification, detection or segmentation; default: cls',
    )
    parser.add_argument(
        '--force', action='store_true', help='train everything again'
    )
    args = parser.parse_args()
    task = TASKS[args.task]
    os.chdir(ROOT)
    if args.force:
        shutil.rmtree(task.work_dir, ignore_errors=True)

    start = time.perf_counter()
    say(
        f'Five stages, about {duration(sum(task.seconds.values()))} on 2 CPU '
        'cores'
    )
    with stage(task, DATA, 'digit scenes'):
        write_scenes(task)
    results = {}
    for name, title in TITLES.items():
        with stage(task, name, f'{title}: {task.configs[name]}'):
            results[name] = train_and_test(task, name)
    with stage(task, PICTURES, 'costs and pictures'):
        drawn, costs = draw_all(task)
    everything = {
        name: {
            'config': task.configs[name],
            **results[name],
            'costs': costs[name],
        }
        for name in TITLES
    }
    summary = task.work_dir / 'results.json'
    summary.write_text(json.dumps(everything, indent=1) + '\n')
    say()
    say(table(task, results, costs))
    say()
    for title, path in drawn.items():
        say(f'  {title:<18} {path}')
    say(f'  all numbers        {summary}')
    say(f'  checkpoints, logs  {task.work_dir}/{{{",".join(TITLES)}}}')
    say(f'Total: {duration(time.perf_counter() - start)}')


if __name__ == '__main__':
    try:
        main()
    except ChildFailed as error:
        sys.exit(f'\n{error}')
    except OtherSettings as error:
        sys.exit(f'\n{error}\nOr train everything again: demo.py --force')
    except KeyboardInterrupt:
        sys.exit('\nStopped. Start it again to go on from here.')
