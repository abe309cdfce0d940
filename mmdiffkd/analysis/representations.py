"""How alike student and teacher see the same data, and how confidently.

Compared are pooled features at the taps of an entry, by linear CKA, and the
calibration of the networks. The networks have to classify.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from copy import deepcopy

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdiffkd.engine.teacher_evaluation import why_not_evaluated
from mmdiffkd.models.distillers.forward import has_modes
from mmdiffkd.models.distillers.layout import Layout
from mmdiffkd.models.distillers.taps import Taps
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import (
    load_weights,
    plain_config,
    plain_state_dict,
    read_checkpoint,
)
from mmdiffkd.utils.data_root import check_data_root
from mmdiffkd.utils.naming import did_you_mean
from mmdiffkd.utils.progress import track

from .calibration import CalibrationError
from .similarity import LinearCKA


def pool(tensor: Tensor) -> Tensor:
    """Average maps (B, C, H, W) to vectors (B, C); vectors stay."""
    return tensor.float().mean(dim=(2, 3)) if tensor.dim() == 4 else tensor


class _Observed:
    """A classifier, the tensors at its taps, its accuracy and confidence.

    ``not_evaluated`` says why it has neither; only the taps are read then.
    """

    def __init__(
        self,
        network: nn.Module,
        taps: Sequence[str],
        role: str,
        layouts: Sequence[Layout],
        not_evaluated: str | None = None,
    ) -> None:
        self.network = network.to(get_device()).eval()
        self.taps = Taps(network, taps, role)
        self.layouts = layouts
        self.not_evaluated = not_evaluated
        self.calibration = CalibrationError()

    def __call__(self, batch: dict) -> list[Tensor]:
        """Run a batch; gives pooled features (B, C), one a tapped tensor."""
        data = self.network.data_preprocessor(batch, False)
        with self.taps.record():
            logits = self.network(data['inputs'], mode='tensor')
        if self.not_evaluated is None:
            self._evaluate(logits, data['data_samples'])
        tensors = [t for tap in self.taps.taps for t in self.taps.read(tap)]
        self.taps.clear()
        image = data['inputs'].shape[-2:]
        return [
            pool(layout.arrange(tensor, image))
            for layout, tensor in zip(self.layouts, tensors, strict=True)
        ]

    def _evaluate(self, logits: Tensor, samples: list) -> None:
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise ValueError(
                f'{type(self.network).__name__} returns no logits '
                '(B, classes) in mode "tensor"; only classifiers can be '
                'compared.'
            )
        labels = torch.cat([sample.gt_label for sample in samples])
        self.calibration.update(
            logits.double().softmax(dim=1), labels.to(logits.device)
        )

    def figures(self) -> dict:
        """Accuracy and calibration error, or why there are none."""
        if self.not_evaluated is not None:
            return {'not_evaluated': self.not_evaluated}
        return self.calibration.compute()


def _entry_name(entries: Collection[str], name: str | None) -> str:
    """The name of an entry that is there; None is the first."""
    if name is None:
        name = next(iter(entries), None)
    if name not in entries:
        raise ValueError(
            f'entry={name!r}: `model.distill` has no such entry. '
            + did_you_mean(str(name), entries)
        )
    return name


@torch.no_grad()
def compare(
    config: Config,
    checkpoints: Sequence[str],
    entry: str | None = None,
    split: str = 'test',
) -> dict:
    """Run students and teacher over the data of an evaluation.

    Args:
        config (Config): A distiller's whole config.
        checkpoints (Sequence[str]): The students' weights.
        entry (str, optional): The entry whose taps are read. Defaults to
            None, the first.
        split (str): ``'val'`` or ``'test'``, for the data loader of that
            name. Defaults to ``'test'``.

    Returns:
        dict: ``entry``, its taps ``student_at`` and ``teacher_at``,
        ``images``, ``teacher`` (``accuracy`` in percent,
        ``calibration_error``) and ``students``, a list of the same with
        ``checkpoint`` and ``cka``, one number a level. A teacher without
        head or of other classes has ``not_evaluated``, the reason.

    Raises:
        ValueError: If the config is no distiller's, or something in it
            cannot be compared.
    """
    if 'distill' not in config.get('model', {}):
        raise ValueError(
            "the config has no `model.distill`: give a distiller's, with "
            'the student, the teacher and an entry that names the taps'
        )
    check_data_root(config, (f'{split}_dataloader',))
    init_default_scope(config.get('default_scope', 'mmengine'))
    loader = Runner.build_dataloader(deepcopy(config[f'{split}_dataloader']))
    distiller = build_from_config(config)
    entry = _entry_name(distiller.distill.keys(), entry)
    compared = distiller.distill[entry]
    name, *others = compared.teachers
    if others:
        raise ValueError(
            f'entry={entry!r} compares the mean of several teachers. Name an '
            'entry that reads one.'
        )
    frozen = distiller.teachers[name]
    if frozen.input_size is not None or not has_modes(frozen.network):
        raise ValueError(
            f'entry={entry!r} reads `{frozen.key}`, which has an `input_size` '
            'or is no model of an OpenMMLab config. Only models that take '
            "the student's images can be compared."
        )
    frozen.init_weights()
    layouts = list(zip(*(level.layouts for level in compared.levels)))
    reason = why_not_evaluated(
        frozen,
        distiller.student,
        getattr(loader.dataset, 'metainfo', None),
    )
    teacher = _Observed(
        frozen.network,
        compared.teacher_at,
        'teacher',
        layouts[1],
        reason,
    )
    students = []
    for checkpoint in checkpoints:
        network = build_from_config(plain_config(config))
        weights = plain_state_dict(read_checkpoint(checkpoint))
        load_weights(network, weights, str(checkpoint))
        students.append(
            _Observed(network, compared.student_at, 'student', layouts[0])
        )

    alignments = [defaultdict(LinearCKA) for _ in students]
    for batch in track(loader, 'Comparison of the features'):
        theirs = teacher(batch)
        for student, alignment in zip(students, alignments):
            pairs = zip(student(batch), theirs, strict=True)
            for level, pair in enumerate(pairs):
                alignment[level].update(*pair)
    return {
        'entry': entry,
        'student_at': list(compared.student_at),
        'teacher_at': list(compared.teacher_at),
        'images': len(loader.dataset),
        'teacher': teacher.figures(),
        'students': [
            {
                'checkpoint': str(checkpoint),
                **student.figures(),
                'cka': [level.compute() for level in alignment.values()],
            }
            for checkpoint, student, alignment in zip(
                checkpoints, students, alignments
            )
        ],
    }


def describe(result: dict) -> str:
    """What :func:`compare` found, as a table."""
    lines = [
        f'entry {result["entry"]!r}: student at {result["student_at"]}, '
        f'teacher at {result["teacher_at"]}; {result["images"]} images',
        f'{"accuracy %":>10}{"ECE":>9}  CKA with the teacher, by level',
    ]
    rows = list(result['students'])
    reason = result['teacher'].get('not_evaluated')
    if reason is None:
        rows.insert(0, {'checkpoint': 'teacher', **result['teacher']})
    for row in rows:
        cka = ', '.join(f'{value:.4f}' for value in row.get('cka', []))
        lines.append(
            f'{row["accuracy"]:>10.2f}{row["calibration_error"]:>9.4f}  '
            f'{cka:<9}  {row["checkpoint"]}'
        )
    if reason is not None:
        lines.append(f'The teacher is not evaluated: {reason}')
    return '\n'.join(lines)
