import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from mmengine.config import Config
from report_runs import distilled, run_with_weights, with_teacher

from mmdiffkd.analysis.report.alignment import stages_of
from mmdiffkd.analysis.report.networks import look
from mmdiffkd.analysis.similarity import linear_cka
from mmdiffkd.models.distillers.teacher import build_from_config


def test_stages_of_a_classifier():
    network = build_from_config(Config(dict(model=tiny_recipes.classifier())))
    assert stages_of(network) == [f'backbone.layer{i}' for i in (1, 2, 3)]


def test_stages_of_a_detector_and_levels_of_its_neck():
    model = tiny_detectors.detector('retinanet')
    taps = stages_of(build_from_config(Config(dict(model=model))))
    assert taps[0].startswith('backbone.layer')
    assert taps[-1] == 'neck[:]'


def test_every_stage_with_every_other(tmp_path):
    run, model = run_with_weights(tmp_path, distilled(tmp_path))
    # The teacher's weights are random, and are drawn anew.
    run.config.model.teacher.checkpoint = str(tmp_path / 'teacher.pth')
    teacher = model.teacher.network
    torch.save(dict(state_dict=teacher.state_dict()), tmp_path / 'teacher.pth')
    seen = look(run, 'val', 8)
    (plot,) = seen['stages']
    names = [f'backbone.layer{i}' for i in (1, 2, 3)]
    assert (plot['rows'], plot['columns']) == (names, names)

    dataset = tiny_recipes.make_runner(run.config).val_dataloader.dataset
    samples = [dataset[i] for i in range(8)]
    batch = dict(
        inputs=[sample['inputs'] for sample in samples],
        data_samples=[sample['data_samples'] for sample in samples],
    )
    features = []
    for network in (model.student.eval(), teacher.eval()):
        x = network.data_preprocessor(batch, False)['inputs']
        x, backbone = x.float(), network.backbone
        x = backbone.relu(backbone.norm1(backbone.conv1(x)))
        with torch.no_grad():
            features.append([])
            for name in names:
                x = backbone.get_submodule(name.partition('.')[2])(x)
                features[-1].append(x.mean(dim=(2, 3)))
    expected = [
        [linear_cka(ours, theirs) for theirs in features[1]]
        for ours in features[0]
    ]
    for row, values in zip(plot['values'], expected):
        assert row == pytest.approx(values, rel=1e-3)
    # The entry's tap is the last stage.
    assert seen['taps'][0]['value'] == pytest.approx(plot['values'][2][2])
    assert seen['left_out'] == {}


def test_a_network_without_known_stages(tmp_path):
    config = distilled(tmp_path)
    config.model.student = tiny_recipes.transformer()
    entry = config.model.distill.feature
    entry.student_at, entry.teacher_at = 'backbone.layers.0', entry.pop('at')
    run, _ = run_with_weights(tmp_path, config)
    seen = look(run, 'val', 4)
    assert seen['stages'] == []
    assert seen['left_out'] == {
        'the stages of the student': 'they are not in the table of taps.'
    }


def test_a_tap_that_runs_in_training_alone(tmp_path):
    entries = {
        name: tiny_recipes.feature_entry(at=tap)
        for name, tap in (
            ('aux', 'auxiliary_head.conv_seg'),
            ('feature', 'backbone[-1]'),
        )
    }
    model = tiny_segmenters.distiller('pspnet', entries)
    config = tiny_recipes.with_distill_lines(
        tiny_segmenters.recipe(tmp_path, model)
    )
    run, _ = run_with_weights(tmp_path, with_teacher(tmp_path, config))
    seen = look(run, 'val', 4)
    assert [level['entry'] for level in seen['taps']] == ['feature']
    assert 'in training only' in seen['left_out']['the entry aux']
    assert list(seen['scores']) == ['student', 'teacher']
    assert len(seen['panels']) == 2
