"""Networks of torchvision, which know nothing of OpenMMLab."""

import torch
from distill_steps import compared, images, pair
from tiny_recipes import distill_recipe, distiller, teacher, train
from tiny_teachers import PLAIN
from torchvision.models import resnet18

ENTRIES = dict(
    feature=dict(
        student_at='backbone[-1]',
        teacher_at='layer2',
        neck=dict(type='ProjectionNeck'),
        loss=dict(type='MSELoss'),
    ),
    logits=dict(
        student_at='head.fc', teacher_at='fc', loss=dict(type='KLDivergence')
    ),
)
RESNET = dict(type='torchvision.models.resnet18', num_classes=2)


def test_a_network_teaches_as_it_is(ready):
    model = ready(
        distiller(
            teacher=teacher(model=RESNET), distill=ENTRIES, input_size=32
        )
    )
    assert compared(model, images(32)) == dict(
        feature=pair(2, 128, 4, 4), logits=pair(2, 2)
    )


def test_its_own_file_of_weights_is_a_checkpoint(tmp_path):
    network = resnet18(num_classes=2)
    file = str(tmp_path / 'resnet18.pth')
    torch.save(network.state_dict(), file)
    model = distiller(
        teacher=teacher(model=RESNET, checkpoint=file, **PLAIN),
        distill=ENTRIES,
    )
    runner = train(distill_recipe(tmp_path, model, epochs=1))
    found = runner.model.teacher.network.state_dict()
    for name, value in network.state_dict().items():
        assert value.equal(found[name]), name
    # It predicts nothing that an evaluator knows.
    (logged,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    assert 'teacher/' not in logged.read_text()


def test_a_function_that_builds_a_network(ready, tmp_path):
    network = resnet18(num_classes=2)
    file = str(tmp_path / 'resnet18.pth')
    torch.save(network.state_dict(), file)
    by_path = dict(
        module='torchvision.models.resnet18',
        kwargs=dict(num_classes=2),
        checkpoint=file,
        **PLAIN,
    )
    for given in (by_path, network):
        model = ready(distiller(teacher=given, distill=ENTRIES, input_size=32))
        assert compared(model, images(32)) == dict(
            feature=pair(2, 128, 4, 4), logits=pair(2, 2)
        )
        found = model.teacher.network.state_dict()
        for name, value in network.state_dict().items():
            assert value.equal(found[name]), name
