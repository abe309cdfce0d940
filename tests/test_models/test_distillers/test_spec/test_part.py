import pytest
from mmengine.config import Config

from mmdiffkd.models.distillers.spec import read_entries, read_entry

ENTRY = dict(at='x', loss=dict(type='MSELoss'))


def test_a_neck_is_no_loss():
    with pytest.raises(ValueError, match=r"loss.type` is 'DiffKDNeck'.*neck"):
        read_entry('feature', dict(at='x', loss=dict(type='DiffKDNeck')))
    with pytest.raises(ValueError, match=r"neck.type` is 'MSELoss'.*loss"):
        read_entry(
            'feature',
            dict(at='x', neck=dict(type='MSELoss'), loss=dict(type='MSELoss')),
        )


@pytest.mark.parametrize(
    'part, former, kept, new',
    [
        ('neck', 'DiffKDNeck', dict(latent_channels=8), 'ProjectionNeck'),
        ('loss', 'KLDivergence', dict(tau=4.0), 'MSELoss'),
    ],
)
def test_keys_of_a_former_type_are_named(part, former, kept, new):
    config = Config(dict(f={**ENTRY, part: dict(type=former, **kept)}))
    read_entries(config)
    changed = Config(dict(config._cfg_dict))
    changed.merge_from_dict({f'f.{part}.type': new})
    (key,) = kept
    with pytest.raises(ValueError) as caught:
        read_entries(changed)
    cure = f'model.distill.f.{part}._delete_=True model.distill.f.{part}.type'
    for words in (
        f'`distill.f.{part}` has keys that {new} does not take: {key!r}.',
        former,
        f"{part}=dict(_delete_=True, type='{new}'",
        f'`{cure}={new}`',
    ):
        assert words in str(caught.value)
    config.merge_from_dict({f'f.{part}._delete_': True, f'f.{part}.type': new})
    assert getattr(read_entries(config)['f'], part).arguments == {}
