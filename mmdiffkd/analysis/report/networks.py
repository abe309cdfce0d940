"""What the networks of a run do with images: scores, features, pictures."""

import copy

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from mmdiffkd.engine.teacher_evaluation import count_classes, why_not_evaluated
from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.models.distillers.teacher_weights import forget_pretrained
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

from .alignment import Alignment
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
            forget_pretrained(model.student)
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
        ``split``; ``classes``; ``figure``, what is measured of a class;
        ``scores``, ``overall`` and ``confusions``, see :mod:`~.scores` (by
        the name of the network, the student's first); ``unscored`` (teacher
        to reason); ``taps``, ``stages`` and ``left_out``, see
        :class:`~.alignment.Alignment`; ``panels`` and ``disagreements``,
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
            score = scores['student']
            truth = score.truth(info, samples['student'])
            student, *teachers = found.values()
            amount = max(
                (
                    score.disagreement(truth, student, each)
                    for each in teachers
                ),
                default=0,
            )
            if amount:
                answers = {'ground truth': truth, **found}
                kept.append((amount, index, answers))
        # Stable, so that of equal ones the first stay.
        kept = sorted(kept, key=lambda each: -each[0])[:PICTURED]
    return dict(
        images=len(picks),
        of=len(dataset),
        split=split,
        classes=classes,
        figure=scores['student'].figure,
        scores={n: score.values() for n, score in scores.items()},
        overall={n: score.overall() for n, score in scores.items()},
        confusions={
            n: score.confusion
            for n, score in scores.items()
            if score.confusion
        },
        unscored=networks.unscored,
        taps=networks.alignment.at_taps(),
        stages=networks.alignment.over_stages(),
        left_out=networks.alignment.left_out,
        panels=_panels(model, dataset),
        disagreements=[
            draw(package, dataset, classes, index, answers)
            for _, index, answers in kept
        ],
    )


class _Networks:
    """The student and the teachers of a model."""

    def __init__(self, model: nn.Module, metainfo: object) -> None:
        distills = isinstance(model, Distiller)
        self.model = model
        self.student = model.student if distills else model
        teachers = dict(model.teachers.items()) if distills else {}
        self.networks = {'student': self.student}
        #: Why a teacher is not evaluated.
        self.unscored: dict[str, str] = {}
        for teacher in teachers.values():
            self.networks[teacher.label] = teacher.network
            reason = (
                'its weights are random.'
                if teacher.is_random
                else why_not_evaluated(teacher, self.student, metainfo)
            )
            if reason:
                self.unscored[teacher.label] = reason
        self.scored = [n for n in self.networks if n not in self.unscored]
        entries = dict(model.distill.items()) if distills else {}
        self.alignment = Alignment(self.student, teachers, entries)

    def __call__(self, batch: dict) -> dict[str, list]:
        """The predictions for a batch, by network."""
        outputs, images = {}, {}
        for label, network in self.networks.items():
            scored = label in self.scored
            if not scored and not self.alignment.reads(label):
                continue
            owner = self.model if label == 'student' else network
            data = owner.data_preprocessor(copy.deepcopy(batch), False)
            images[label] = data['inputs'].shape[-2:]
            with self.alignment.record(label):
                found = owner(**data, mode='predict' if scored else 'tensor')
            if scored:
                outputs[label] = found
        self.alignment.update(images)
        return outputs


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
