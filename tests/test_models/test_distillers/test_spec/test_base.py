import pytest

from mmdiffkd.models.distillers import EntrySpec, ScheduleSpec, TeacherSpec
from mmdiffkd.models.distillers.spec import DistillerSpec, read_entry


def test_every_wrong_key_has_a_line():
    with pytest.raises(ValueError) as caught:
        read_entry(
            'feature',
            dict(
                at=5,
                wieght=1,
                neck=dict(type='DiffKDNeck', latent=3),
                schedule=dict(stop=True),
                shared='yes',
            ),
        )
    text = str(caught.value)
    assert len(text.splitlines()) == 6
    for part in (
        '`distill.feature.at` is 5. Write a tap',
        "unknown key 'wieght'. Did you mean 'weight'?",
        "`distill.feature.neck` has an unknown key 'latent'",
        '`distill.feature.schedule.stop` is True. Use a number',
        "`distill.feature.shared` is 'yes'. Use True or False.",
        '`distill.feature` has no `loss`. Add for instance',
    ):
        assert part in text


def test_every_key_is_described():
    for spec in (DistillerSpec, EntrySpec, ScheduleSpec, TeacherSpec):
        for key in spec.model_json_schema()['properties'].values():
            assert key['description'].endswith('.')
            assert key['cure'].endswith('.')
