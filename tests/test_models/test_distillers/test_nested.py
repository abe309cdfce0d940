import copy

import pytest
import tiny_detectors
import tiny_recipes
import torch
from mmengine.registry import MODELS
from tiny_teachers import PLAIN

from mmdiffkd.utils import load_config, read_checkpoint

HEAD = dict(
    f=dict(at='bbox_head.gfl_cls', loss=dict(type='BinaryKLDivergence'))
)
PYRAMID = dict(
    f=dict(
        at='neck[:]',
        neck=dict(type='ProjectionNeck'),
        loss=dict(type='MSELoss'),
    )
)


def soft_teacher(base: int = 4) -> dict:
    detector = tiny_detectors.detector('faster', base)
    return dict(
        type='SoftTeacher',
        _scope_='mmdet',
        detector=detector,
        data_preprocessor=dict(
            type='MultiBranchDataPreprocessor',
            data_preprocessor=copy.deepcopy(detector.data_preprocessor),
        ),
        semi_train_cfg=dict(freeze_teacher=True),
        semi_test_cfg=dict(predict_on='teacher'),
    )


def with_teacher_inside(base: int = 4) -> dict:
    """mmdet's localisation distillation, a teacher beside its modules."""
    model = tiny_detectors.detector('gfl', base)
    model.type = 'KnowledgeDistillationSingleStageDetector'
    model.bbox_head.type = 'LDHead'
    model.bbox_head.loss_ld = dict(type='KnowledgeDistillationKLDivLoss')
    model.teacher_config = dict(model=tiny_detectors.detector('gfl', 6))
    return model


def label_assignment() -> dict:
    """mmdet's LAD."""
    model = load_config('mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x').model
    model._scope_ = 'mmdet'
    model.teacher_ckpt = None
    for role in ('', 'teacher_'):
        backbone, neck = model[f'{role}backbone'], model[f'{role}neck']
        backbone.update(depth=18, base_channels=4, init_cfg=None)
        neck.update(in_channels=[4, 8, 16, 32], out_channels=32)
        model[f'{role}bbox_head'].update(
            in_channels=32, feat_channels=32, stacked_convs=1
        )
    return model


@pytest.mark.parametrize(
    'student, message',
    [
        (soft_teacher, 'a SoftTeacher, which holds a student and a teacher'),
        (with_teacher_inside, r'a Know.* of its own \(`teacher_model`\)'),
        (label_assignment, r'a LAD, which has a teacher .*PAA for LAD'),
        (lambda: tiny_recipes.distiller(), 'a Distiller, which holds'),
    ],
)
def test_students_with_a_teacher_of_their_own_are_refused(student, message):
    model = tiny_detectors.distiller('gfl', PYRAMID, student=student())
    with pytest.raises(ValueError, match=f'`student` is {message}'):
        MODELS.build(model)


def test_a_teacher_with_a_student_is_refused_and_its_half_teaches(tmp_path):
    def distiller(model, checkpoint):
        config = dict(model=copy.deepcopy(model), default_scope='mmdet')
        return tiny_detectors.distiller(
            'faster',
            PYRAMID,
            teacher=dict(config=config, checkpoint=checkpoint, **PLAIN),
        )

    both = soft_teacher(6)
    with pytest.raises(ValueError, match='`teacher.config` is.*SoftTeacher'):
        MODELS.build(distiller(both, None))
    # As docs/faq.md shows.
    built = MODELS.build(both)
    torch.save(dict(state_dict=built.state_dict()), tmp_path / 'both.pth')
    weights = read_checkpoint(tmp_path / 'both.pth')['state_dict']
    teacher = {
        name.removeprefix('teacher.'): tensor
        for name, tensor in weights.items()
        if name.startswith('teacher.')
    }
    torch.save(teacher, tmp_path / 'teacher.pth')
    model = MODELS.build(
        distiller(both['detector'], str(tmp_path / 'teacher.pth'))
    )
    model.init_weights()
    found = model.teacher.network.state_dict()
    for name, tensor in built.teacher.state_dict().items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    'teacher, entries',
    [(lambda: with_teacher_inside(6), HEAD), (label_assignment, PYRAMID)],
)
def test_a_teacher_that_had_a_teacher_teaches(teacher, entries):
    """Its own one plays no part outside its training."""
    config = dict(model=teacher(), default_scope='mmdet')
    model = tiny_detectors.distiller(
        'gfl', entries, teacher=dict(config=config, checkpoint=None)
    )
    built = MODELS.build(model)
    built.init_weights()
    logged = tiny_detectors.step(built, tiny_detectors.batch(built))
    assert logged['distill.f.loss_kd'] > 0
