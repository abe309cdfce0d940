from types import SimpleNamespace

from mmdiffkd.utils.pipelines import transforms_of


def dataset(*transforms, **wrapped):
    pipeline = SimpleNamespace(transforms=list(transforms))
    return SimpleNamespace(pipeline=pipeline, **wrapped)


def test_transforms_of_wrapped_data_sets_are_found():
    joined = SimpleNamespace(datasets=[dataset('a'), dataset('b', 'c')])
    # mmdet's MultiImageMixDataset has a list for a pipeline.
    mixed = SimpleNamespace(dataset=joined, pipeline=['d'])
    assert list(transforms_of(mixed)) == ['a', 'b', 'c', 'd']
    assert list(transforms_of(SimpleNamespace())) == []
    assert list(transforms_of(SimpleNamespace(pipeline=None))) == []
