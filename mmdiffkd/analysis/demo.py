"""A distillation from data to pictures, on a small data set.

Paths are relative to the current folder, which has to be the root of the
repository.
"""

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from PIL import Image

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_config, load_weights, read_checkpoint
from mmdiffkd.visualization import (
    denoising_panel,
    image_of,
    plot_training_curves,
    predictions_panel,
)

from .comparison import METRICS, in_per_cent
from .macs import get_costs, readable
from .tables import aligned
from .training import TOOLS, Run, evaluate, run_child, train

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
        configs (Mapping[str, str]): The config of each training.
        metric (str): The logged name of the metric that is reported.
        label (str): The name of the metric in what is printed.
        seconds (Mapping[str, int]): Seconds that each of :data:`STAGES`
            takes on 2 CPU cores.
        curves (Mapping[str, str]): Panels of the training curves. Defaults
            to None: those of a classifier.
        visualizer (Mapping): Config of the package's visualizer. Defaults
            to None: predictions are not drawn.
        drawing (Mapping): Arguments of the visualizer's ``add_datasample``.
            Defaults to none.
        enlarged (int): The factor by which images are enlarged before
            predictions are drawn. Defaults to 1.
    """

    name: str
    configs: Mapping[str, str]
    metric: str
    label: str
    seconds: Mapping[str, int]
    curves: Mapping[str, str] | None = None
    visualizer: Mapping | None = None
    drawing: Mapping = MappingProxyType({})
    enlarged: int = 1

    @property
    def work_dir(self) -> Path:
        """Where everything of the demo is written."""
        suffix = '' if self.name == 'cls' else f'-{self.name}'
        return Path(f'work_dirs/demo{suffix}')

    def run(self, name: str) -> Run:
        """One of the three trainings."""
        options = {'randomness.seed': 0}
        if name == DISTILLED:
            teacher = self.checkpoint(TEACHER)
            options['model.teacher.checkpoint'] = str(teacher)
        return Run(self.configs[name], self.work_dir / name, options)

    def checkpoint(self, name: str) -> Path:
        """The last checkpoint of a training."""
        return self.run(name).checkpoint

    def config(self, name: str) -> Config:
        """The config of a training."""
        return load_config(self.configs[name])


def stage_times(*seconds: int) -> dict[str, int]:
    """Seconds by stage, given in the order of :data:`STAGES`."""
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
            dict(with_labels=False),
            enlarged=2,
        ),
    )
}


def say(text: str = '') -> None:
    """Print a line at once."""
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
    """A function that prints one short line for each epoch of a log."""
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
    """Write the data of a task."""
    converter = TOOLS / 'dataset_converters/digit_scenes.py'
    command = [sys.executable, str(converter), '--tasks', task.name]
    run_child(command, task.work_dir / 'digit_scenes.log')
    say(f'  data/digit_scenes/{task.name}')


def train_and_test(task: Task, name: str) -> dict:
    """Train one of the three, evaluate it, and give what was measured."""
    run = task.run(name)
    done = (run.folder / 'result.json').is_file()
    result = train(run, on_line=report_epochs(task))
    figure = in_per_cent(evaluate(run), task.metric)
    say(
        f'  test {task.label} {figure:.1f} %, '
        f'trained in {result["seconds"]:.0f} s'
        + (' (finished before)' if done else '')
    )
    return {
        task.label: figure,
        'seconds': result['seconds'],
        'seconds_per_step': result['seconds_per_step'],
        'checkpoint': str(run.checkpoint),
    }


def pictured_samples(task: Task) -> list[dict]:
    """A few test scenes, as the data set gives them."""
    config = task.config(STUDENT)
    init_default_scope(config.default_scope)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    # Spread out: classes lie one after another in some data sets.
    picks = np.linspace(0, len(dataset) - 1, 2 * PICTURED + 1, dtype=int)
    return [dataset[index] for index in picks[1::2]]


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
    """Predictions of a trained network.

    A distilled student is loaded into the plain student's model.
    """
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
    """Draw the annotations, and what each of the three networks predicts."""
    metainfo = task.config(STUDENT).test_dataloader.dataset.metainfo
    visualizer = VISUALIZERS.build(dict(task.visualizer, name='demo'))
    visualizer.dataset_meta = dict(metainfo)
    predictions = {
        title: predict(task, name, samples) for name, title in TITLES.items()
    }
    picture = predictions_panel(
        visualizer,
        samples,
        {'what is there': None, **predictions},
        task.enlarged,
        legend=list(zip(metainfo.classes, metainfo.palette)),
        **task.drawing,
    )
    Image.fromarray(picture).save(out)


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
                f'  {TITLES[name]}',
                readable(cost['deployed']['parameters']),
                readable(cost['deployed']['macs']),
                '' if ratio is None else f'{ratio:.2f} x',
                f'{result[task.label]:.1f} %',
                f'{result["seconds"]:.0f} s',
            )
        )
    height, width = costs[STUDENT]['shape']
    return '\n'.join(
        [
            aligned(rows, label=22, cell=14),
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


def run_demo(task: Task) -> None:
    """Write data, train, evaluate, draw, and print what came out.

    Args:
        task (Task): One of :data:`TASKS`.

    Raises:
        ChildFailed: If a training fails.
        OtherSettings: If the work directory holds another run.
    """
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
