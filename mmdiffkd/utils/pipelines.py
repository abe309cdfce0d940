"""Looking into the pipelines of data sets."""

from collections.abc import Iterator


def transforms_of(dataset: object) -> Iterator[object]:
    """The transforms of a data set and of those that it wraps.

    Args:
        dataset (object): Any data set, or one of MMEngine's and OpenMMLab's
            wrappers.
    """
    for inner in (
        getattr(dataset, 'dataset', None),
        *getattr(dataset, 'datasets', ()),
    ):
        if inner is not None:
            yield from transforms_of(inner)
    pipeline = getattr(dataset, 'pipeline', None)
    # mmdet's MultiImageMixDataset has a bare list.
    yield from getattr(pipeline, 'transforms', pipeline) or ()
