"""What the networks of a run do with images: scores, features, pictures."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from mmdiffkd.engine.teacher_evaluation import count_classes, why_not_evaluated
from mmdiffkd.models.distillers import Distiller, Entry, FrozenTeacher
from mmdiffkd.models.distillers.forward import has_modes
from mmdiffkd.models.distillers.taps import Taps
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import (
    class_names,
    load_weights,
    plain_state_dict,
    read_checkpoint,
)
from mmdiffkd.utils.command_line import package_of
from mmdiffkd.utils.data_root import check_data_root
from mmdiffkd.utils.randomness import isolated_randomness
from mmdiffkd.visualization import denoising_panel, image_of

from ..representations import pool
from ..similarity import LinearCKA
from .pictures import as_uri, draw
from .run import FinishedRun
from .scores import score_for

#: How many images are shown.
PICTURED = 6


def load_networks(config: Config, checkpoint: str) -> nn.Module:
    """The model of a run with the weights of a checkpoint.

    Args:
        config (Config): The run's config.
        checkpoint (str): The file.

    Returns:
        nn.Module: A distiller or a plain model, in eval mode.
    """
    weights = read_checkpoint(checkpoint)
    with isolated_randomness():
        model = build_from_config(config)
        if isinstance(model, Distiller):
            # What the run began with is in its checkpoint by now.
            for module in model.student.modules():
                if 'Pretrained' in str(getattr(module, 'init_cfg', None)):
                    module.init_cfg = None
            model.init_weights()
            model.load_state_dict(
                {
                    **weights['state_dict'],
                    **weights.get('distill_state_dict', {}),
                }
            )
        else:
            load_weights(model, plain_state_dict(weights), str(checkpoint))
    return model.to(get_device()).eval()


@torch.no_grad()
def look(run: FinishedRun, split: str, images: int) -> dict:
    """Run the student and its teachers over images.

    Args:
        run (FinishedRun): A run with a config and a checkpoint.
        split (str): ``'val'`` or ``'test'``, for the data loader of that
            name.
        images (int): The most images that are taken, spread over the data.

    Returns:
        dict: ``images`` and ``of``, how many were taken of how many;
        ``classes``; ``figure``, what is measured of a class; ``scores`` and
        ``confusions`` (by the name of the network, the student's first);
        ``unscored`` (teacher to reason); ``cka``, one dict a level;
        ``unaligned`` (entry to reason); ``panels`` and ``disagreements``,
        pictures as data URIs.

    Raises:
        ValueError: If something cannot be measured.
        FileNotFoundError: If the data or the teacher's weights are missing.
    """
    config = copy.deepcopy(run.config)
    name = f'{split}_dataloader'
    if not config.get(name):
        raise ValueError(f'the config has no `{name}`')
    check_data_root(config, (name,))
    init_default_scope(config.get('default_scope', 'mmengine'))
    dataset = DATASETS.build(config[name].dataset)
    model = load_networks(config, str(run.checkpoint))
    networks = _Networks(model, getattr(dataset, 'metainfo', None))
    classes = _classes(dataset, networks.student)
    package = package_of(config)
    scores = {n: score_for(package, classes) for n in networks.scored}
    picks = np.linspace(
        0, len(dataset) - 1, min(images, len(dataset)), dtype=int
    ).tolist()
    size = config[name].get('batch_size', 1)
    kept: list[tuple] = []
    for start in range(0, len(picks), size):
        indices = picks[start : start + size]
        batch = pseudo_collate([dataset[index] for index in indices])
        outputs = networks(batch)
        for row, index in enumerate(indices):
            info = dataset.get_data_info(index)
            samples = {n: each[row] for n, each in outputs.items()}
            found = {
                n: score.add(index, info, samples[n])
                for n, score in scores.items()
            }
            truth = scores['student'].truth(info, samples['student'])
            kept += _disagreements(scores['student'], index, truth, found)
        # Stable, so that of equal ones the first stay.
        kept = sorted(kept, key=lambda each: -each[0])[:PICTURED]
    return dict(
        images=len(picks),
        of=len(dataset),
        split=split,
        classes=classes,
        figure=scores['student'].figure,
        scores={n: score.values() for n, score in scores.items()},
        confusions={
            n: score.confusion.tolist()
            for n, score in scores.items()
            if score.confusion is not None
        },
        unscored=networks.unscored,
        cka=networks.cka(),
        unaligned=networks.unaligned,
        panels=_panels(model, dataset),
        disagreements=[
            draw(package, dataset, classes, index, {'truth': truth, **found})
            for _, index, truth, found in kept
        ],
    )


def _disagreements(score, index, truth, found: Mapping) -> list[tuple]:
    """An image with the largest disagreement with a teacher, if any."""
    student = found['student']
    amounts = [
        score.disagreement(truth, student, theirs)
        for name, theirs in found.items()
        if name != 'student'
    ]
    amount = max(amounts, default=0)
    return [(amount, index, truth, dict(found))] if amount else []


class _Networks:
    """The student and the teachers of a model, and what their taps yield."""

    def __init__(self, model: nn.Module, metainfo: object) -> None:
        self.model = model
        distills = isinstance(model, Distiller)
        self.student = model.student if distills else model
        teachers: dict[str, FrozenTeacher] = (
            {t.label: t for t in model.teachers.values()} if distills else {}
        )
        reasons = {
            label: 'its weights are random.'
            if teacher.is_random
            else why_not_evaluated(teacher, self.student, metainfo)
            for label, teacher in teachers.items()
        }
        self.unscored = {n: why for n, why in reasons.items() if why}
        self.scored = ['student']
        self.scored += [n for n in teachers if n not in self.unscored]
        self.teachers = teachers
        self.unaligned: dict[str, str] = {}
        self.entries: dict[str, tuple[Entry, str]] = {}
        for name, entry in (model.distill if distills else {}).items():
            labels = [model.teachers[each].label for each in entry.teachers]
            reason = self._why_not_aligned(entry, labels)
            if reason is None:
                self.entries[name] = entry, labels[0]
            else:
                self.unaligned[name] = reason
        self.taps = {
            label: Taps(
                self._network(label),
                dict.fromkeys(
                    tap
                    for entry, theirs in self.entries.values()
                    for tap in (
                        entry.student_at
                        if label == 'student'
                        else entry.teacher_at
                    )
                    if label in ('student', theirs)
                ),
                label,
            )
            for label in ('student', *teachers)
        }
        self.alignments = {
            name: [LinearCKA() for _ in entry.levels]
            for name, (entry, _) in self.entries.items()
        }

    def _network(self, label: str) -> nn.Module:
        if label == 'student':
            return self.student
        return self.teachers[label].network

    def _why_not_aligned(
        self, entry: Entry, labels: Sequence[str]
    ) -> str | None:
        if len(labels) > 1:
            return 'it compares the mean of several teachers.'
        teacher = self.teachers[labels[0]]
        if teacher.input_size is not None or not has_modes(teacher.network):
            return (
                'its teacher has an `input_size` or is no model of an '
                'OpenMMLab config.'
            )
        if entry.box_heads is not None:
            return 'it compares boxes, which the two networks choose.'
        return None

    def __call__(self, batch: dict) -> dict[str, list]:
        """The predictions for a batch, by network."""
        outputs, images = {}, {}
        for label, taps in self.taps.items():
            if label not in self.scored and not taps.taps:
                continue
            network = self._network(label)
            owner = self.model if label == 'student' else network
            data = owner.data_preprocessor(copy.deepcopy(batch), False)
            images[label] = data['inputs'].shape[-2:]
            scored = label in self.scored
            with taps.record():
                found = owner(**data, mode='predict' if scored else 'tensor')
            if scored:
                outputs[label] = found
        for name, (entry, teacher) in self.entries.items():
            sides = [
                [t for tap in at for t in self.taps[label].read(tap)]
                for label, at in (
                    ('student', entry.student_at),
                    (teacher, entry.teacher_at),
                )
            ]
            for level, alignment, *pair in zip(
                entry.levels, self.alignments[name], *sides, strict=True
            ):
                alignment.update(
                    *(
                        pool(
                            level.layouts[side].arrange(tensor, images[label])
                        )
                        for side, (label, tensor) in enumerate(
                            zip(('student', teacher), pair)
                        )
                    )
                )
        for taps in self.taps.values():
            taps.clear()
        return outputs

    def cka(self) -> list[dict]:
        """The alignment at each level of each entry."""
        rows = []
        for name, (entry, _) in self.entries.items():
            for level, alignment in zip(entry.levels, self.alignments[name]):
                value = alignment.compute()
                rows.append(
                    dict(
                        entry=name,
                        student=level.names[0],
                        teacher=level.names[1],
                        # A constant feature has no alignment.
                        value=None if value != value else value,
                    )
                )
        return rows


def _classes(dataset: object, student: nn.Module) -> list[str]:
    """The names of the classes, or their numbers."""
    names = class_names(getattr(dataset, 'metainfo', None))
    return names or [str(i) for i in range(count_classes(student) or 0)]


def _panels(model: nn.Module, dataset: object) -> list[dict]:
    """What the denoisers do to the features of a few images."""
    if not isinstance(model, Distiller):
        return []
    picks = np.linspace(0, len(dataset) - 1, 2 * PICTURED + 1, dtype=int)
    samples = [dataset[int(index)] for index in picks[1::2]]
    # Of one size, since they stand in one batch.
    shape = samples[0]['inputs'].shape
    samples = [each for each in samples if each['inputs'].shape == shape]
    batch = model.data_preprocessor(pseudo_collate(samples), False)
    return [
        dict(
            title=f'entry {name}, level {level}',
            picture=as_uri(
                denoising_panel(
                    [image_of(sample) for sample in samples], trajectory
                )
            ),
        )
        for name, levels in model.trajectories(batch['inputs']).items()
        for level, trajectory in enumerate(levels)
    ]
