import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
from report_runs import distilled, run_with_weights, with_teacher, write_run

from mmdiffkd.analysis.report import write_report
from mmdiffkd.analysis.report.networks import look


def test_a_classifier(tmp_path):
    config = with_teacher(tmp_path, distilled(tmp_path))
    run, model = run_with_weights(tmp_path, config)
    seen = look(run, 'val', 100)
    assert (seen['images'], seen['of'], seen['figure']) == (8, 8, 'accuracy')
    assert seen['classes'] == ['first', 'second']
    assert list(seen['scores']) == ['student', 'teacher']
    # What the evaluator of the recipe finds.
    model.eval()
    runner = tiny_recipes.make_runner(config)
    runner.load_checkpoint(str(run.checkpoint))
    accuracy = runner.val()['accuracy/top1']
    first, second = seen['scores']['student']
    assert (first + second) / 2 == pytest.approx(accuracy)
    confusion = seen['confusions']['teacher']
    assert sum(n for (truth, _), n in confusion.items() if truth == 0) == 4
    assert seen['overall']['student'] == pytest.approx(accuracy)
    (level,) = seen['taps']
    assert level['entry'] == 'feature'
    assert 0 <= level['value'] <= 1
    assert len(seen['panels']) == 1
    for each in seen['disagreements']:
        said = {
            answer['who']: answer['text'].partition(' ')[0]
            for answer in each['answers']
        }
        assert said['student'] != said['teacher']


def test_a_random_teacher_is_not_evaluated(tmp_path):
    run, _ = run_with_weights(tmp_path, distilled(tmp_path))
    seen = look(run, 'val', 3)
    assert (seen['images'], seen['of']) == (3, 8)
    assert seen['unscored'] == {'teacher': 'its weights are random.'}
    assert list(seen['scores']) == ['student']
    assert seen['disagreements'] == []


@pytest.mark.parametrize('tiny', [tiny_detectors, tiny_segmenters])
def test_detectors_and_segmentors(tmp_path, tiny):
    name, tap = {
        tiny_detectors: ('retinanet', 'neck[0]'),
        tiny_segmenters: ('pspnet', 'backbone[-1]'),
    }[tiny]
    entry = tiny_recipes.feature_entry(at=tap)
    model = tiny.distiller(name, dict(feature=entry))
    config = tiny_recipes.with_distill_lines(tiny.recipe(tmp_path, model))
    run, _ = run_with_weights(tmp_path, with_teacher(tmp_path, config))
    seen = look(run, 'val', 4)
    assert list(seen['scores']) == ['student', 'teacher']
    assert len(seen['scores']['student']) == len(seen['classes'])
    assert len(seen['taps']) == len(seen['panels']) == 1
    for each in seen['disagreements']:
        captions = [picture['caption'] for picture in each['pictures']]
        assert captions == ['ground truth', 'student', 'teacher']


def test_what_cannot_be_loaded_is_said(tmp_path):
    # The checkpoint has no weights.
    folder = write_run(tmp_path / 'run', config=distilled(tmp_path))
    page = write_report([folder], split='val').read_text()
    assert 'the networks cannot be looked at: ' in page


def test_a_split_that_is_not_there(tmp_path):
    run, _ = run_with_weights(tmp_path, distilled(tmp_path))
    with pytest.raises(ValueError, match='test_dataloader'):
        look(run, 'test', 4)
