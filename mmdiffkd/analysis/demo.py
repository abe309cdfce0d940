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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from PIL import Image

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import load_weights, read_checkpoint
from mmdiffkd.visualization import (
    denoising_panel,
    image_of,
    plot_training_curves,
    predictions_panel,
)

from .comparison import METRICS, in_per_cent
from .macs import get_costs, readable
from .report import write_report
from .tables import aligned
from .training import TOOLS, Run, evaluate, run_child, train

# What is trained, in order, and the titles of what is compared.
START, TEACHER, STUDENT, DISTILLED = 'start', 'teacher', 'student', 'diffkd'
TITLES = {
    TEACHER: 'teacher',
    STUDENT: 'student alone',
    DISTILLED: 'student with DiffKD',
}
PICTURED = 5

# Prints a line at once.
say = partial(print, flush=True)


@dataclass
class Task:
    """What the demo needs to know of a task.

    Attributes:
        name (str): ``'cls'``, ``'det'`` or ``'seg'``.
        teacher (str): Name of the teacher's config.
        student (str): Name of the student's config.
        tap (str): The tap, as configs name it.
        metric (str): The logged name of the metric that is reported.
        label (str): The name of the metric in what is printed.
        seconds (tuple[int, ...]): What the data, the trainings and the
            pictures take on 2 CPU cores.
        curves (Mapping[str, str], optional): Panels of the training curves;
            None for those of a classifier.
        visualizer (Mapping, optional): Config of the package's visualizer;
            None if predictions are not drawn.
        drawing (Mapping): Arguments of its ``add_datasample``.
        start (str, optional): Name of the config of the briefly trained
            student that both students go on from; None for a random start.
    """

    name: str
    teacher: str
    student: str
    tap: str
    metric: str
    label: str
    seconds: tuple[int, ...]
    curves: Mapping[str, str] | None = None
    visualizer: Mapping | None = None
    drawing: Mapping = field(default_factory=dict)
    start: str | None = None

    @property
    def work_dir(self) -> Path:
        """Where everything of the demo is written."""
        suffix = '' if self.name == 'cls' else f'-{self.name}'
        return Path(f'work_dirs/demo{suffix}')

    @property
    def configs(self) -> dict[str, str]:
        """The config of each training, in order."""
        pair = f'{self.teacher.split("_")[0]}_{self.student}'
        baselines = {
            START: self.start,
            TEACHER: self.teacher,
            STUDENT: self.student,
        }
        return {
            name: f'configs/baseline/{config}.py'
            for name, config in baselines.items()
            if config
        } | {DISTILLED: f'configs/diffkd/diffkd_{self.tap}_{pair}.py'}

    def run(self, name: str) -> Run:
        """One of the trainings."""
        options = {}
        if name != START:
            options['randomness.seed'] = 0
        if name == DISTILLED:
            teacher = self.run(TEACHER).checkpoint
            options['model.teacher.checkpoint'] = str(teacher)
        if self.start and name in (STUDENT, DISTILLED):
            model = 'model.student' if name == DISTILLED else 'model'
            start = self.run(START).checkpoint
            options[f'{model}.init_cfg.checkpoint'] = str(start)
        return Run(self.configs[name], self.work_dir / name, options)


TASKS = {
    'cls': Task(
        'cls',
        'resnet14-w24_1xb64-6e_digit-scenes',
        'resnet14-w4_1xb64-4e_digit-scenes',
        'backbone',
        METRICS['mmpretrain'],
        'top-1',
        (25, 30, 90, 35, 70, 5, 25),
        start='resnet14-w4_1xb64-3e_digit-scenes',
    ),
    'det': Task(
        'det',
        'retinanet-w24_1xb16-6e_digit-scenes-det',
        'retinanet-w8_1xb16-6e_digit-scenes-det',
        'fpn-reg',
        METRICS['mmdet'],
        'mAP',
        (5, 240, 170, 410, 10, 35),
        {
            'loss_*': 'task losses',
            'distill.*loss*': 'distillation losses',
            'coco/bbox_mAP': 'validation mAP (a fraction)',
        },
        dict(type='DetLocalVisualizer', line_width=2, alpha=1.0),
    ),
    'seg': Task(
        'seg',
        'pspnet-w16_1xb8-6e_digit-scenes-seg',
        'pspnet-w8_1xb8-6e_digit-scenes-seg',
        'logits-aux',
        METRICS['mmseg'],
        'mIoU',
        (10, 300, 200, 340, 10, 35),
        {
            'decode.loss_ce': 'task loss',
            'distill.*loss*': 'distillation losses',
            'mIoU': 'validation mIoU (%)',
        },
        dict(type='SegLocalVisualizer', alpha=0.5),
        dict(with_labels=False),
    ),
}


def duration(seconds: float) -> str:
    """Seconds below two minutes, and minutes from there."""
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{int(seconds) // 60} min {int(seconds) % 60} s'


@contextlib.contextmanager
def stage(title: str, seconds: float) -> Iterator[None]:
    """Say what begins and how long it should take, then how long it did."""
    start = time.perf_counter()
    say(f'{title} (about {duration(seconds)})')
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
    """Train a network, evaluate it, and give what was measured."""
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
    config = task.run(STUDENT).settings
    init_default_scope(config.default_scope)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    # Spread out: classes lie one after another in some data sets.
    picks = np.linspace(0, len(dataset) - 1, 2 * PICTURED + 1, dtype=int)
    return [dataset[index] for index in picks[1::2]]


def draw_panel(task: Task, samples: Sequence[Mapping]) -> np.ndarray:
    """What the trained denoiser does to features of test images."""
    run = task.run(DISTILLED)
    torch.manual_seed(0)
    distiller = build_from_config(run.settings)
    distiller.init_weights()
    checkpoint = read_checkpoint(run.checkpoint)
    distiller.load_state_dict(
        {**checkpoint['state_dict'], **checkpoint['distill_state_dict']}
    )
    batch = distiller.data_preprocessor(pseudo_collate(samples))
    name, levels = next(iter(distiller.trajectories(batch['inputs']).items()))
    level = ', first level' if len(levels) > 1 else ''
    return denoising_panel(
        [image_of(sample) for sample in samples],
        levels[0],
        title=f'DiffKD, entry {name!r}{level}, test images',
    )


@torch.no_grad()
def predict(task: Task, name: str, samples: Sequence[Mapping]) -> list:
    """Predictions of a trained network; of a distilled one, as a plain one."""
    model = build_from_config(
        task.run(STUDENT if name == DISTILLED else name).settings
    )
    checkpoint = task.run(name).checkpoint
    weights = read_checkpoint(checkpoint)['state_dict']
    load_weights(model, weights, str(checkpoint))
    return model.eval().test_step(pseudo_collate(samples))


def draw_predictions(task: Task, samples: Sequence[Mapping]) -> np.ndarray:
    """The annotations, and what each of the three networks predicts."""
    metainfo = task.run(STUDENT).settings.test_dataloader.dataset.metainfo
    visualizer = VISUALIZERS.build(dict(task.visualizer, name='demo'))
    visualizer.dataset_meta = dict(metainfo)
    predictions = {
        title: predict(task, name, samples) for name, title in TITLES.items()
    }
    return predictions_panel(
        visualizer,
        samples,
        {'what is there': None, **predictions},
        enlarged=2,
        legend=list(zip(metainfo.classes, metainfo.palette)),
        **task.drawing,
    )


def table(task: Task, results: dict, costs: dict) -> str:
    """The three trainings side by side."""
    rows = [
        ('', 'parameters', 'MACs', 'cost of step', task.label, 'trained in')
    ]
    for name in TITLES:
        result = results[name]
        deployed = costs[name]['deployed']
        ratio = costs[name].get('step_ratio')
        rows.append(
            (
                f'  {TITLES[name]}',
                readable(deployed['parameters']),
                readable(deployed['macs']),
                '' if ratio is None else f'{ratio:.2f} x',
                f'{result[task.label]:.1f} %',
                f'{result["seconds"]:.0f} s',
            )
        )
    height, width = costs[STUDENT]['shape']
    return f"""\
{aligned(rows, label=22, cell=14)}

  parameters, MACs   deployed, for one {height} x {width} image
  cost of step       multiply-adds of a training step over the student's own
  {task.label:<17}  on the test scenes, after the last epoch, one seed;
                     tools/analysis_tools/compare_methods.py takes several"""


def draw_all(task: Task) -> tuple[dict[str, Path], dict]:
    """Draw the pictures, by title, and count what each network costs."""
    folder = task.work_dir
    drawn = {'training curves': folder / 'training_curves.png'}
    plot_training_curves(
        {title: folder / name for name, title in TITLES.items()},
        drawn['training curves'],
        task.curves,
    )
    # Building a model prints how every weight was initialised.
    with (
        (folder / 'pictures.log').open('w') as log,
        contextlib.redirect_stdout(log),
    ):
        costs = count_costs(task)
        samples = pictured_samples(task)
        drawn['feature maps'] = folder / 'denoising_panel.png'
        panel = draw_panel(task, samples)
        Image.fromarray(panel).save(drawn['feature maps'])
        if task.visualizer is not None:
            drawn['predictions'] = folder / 'predictions.png'
            picture = draw_predictions(task, samples)
            Image.fromarray(picture).save(drawn['predictions'])
    return drawn, costs


def write_page(task: Task) -> Path:
    """Write the report of the three trainings."""
    folder = task.work_dir
    with (
        (folder / 'report.log').open('w') as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        return write_report(
            [folder / name for name in TITLES],
            folder / 'report.html',
            force=True,
        )


def count_costs(task: Task) -> dict[str, dict]:
    """What the networks of a task cost, by the name of the run."""
    settings = {name: task.run(name).settings for name in TITLES}
    size = settings[DISTILLED].model.input_size
    return {name: get_costs(settings[name], size) for name in TITLES}


def run_demo(task: Task) -> None:
    """Write data, train, evaluate, draw, and print what came out.

    Raises:
        ChildFailed: If a training fails.
        OtherSettings: If the work directory holds another run.
    """
    start = time.perf_counter()
    say(
        f'{len(task.seconds)} stages, about {duration(sum(task.seconds))} on '
        '2 CPU cores'
    )
    data, *training, pictures, report = task.seconds
    with stage('digit scenes', data):
        write_scenes(task)
    results = {}
    for (name, config), seconds in zip(task.configs.items(), training):
        title = TITLES.get(name, 'start of both students')
        with stage(f'{title}: {config}', seconds):
            results[name] = train_and_test(task, name)
    with stage('costs and pictures', pictures):
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
    say(f'\n{table(task, results, costs)}\n')
    with stage('report', report):
        drawn['report'] = write_page(task)
    say('')
    for title, path in drawn.items():
        say(f'  {title:<18} {path}')
    say(f'  all numbers        {summary}')
    say(f'  checkpoints, logs  {task.work_dir}/{{{",".join(task.configs)}}}')
    say(f'Total: {duration(time.perf_counter() - start)}')
