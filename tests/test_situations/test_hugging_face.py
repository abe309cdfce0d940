"""Networks of Hugging Face's transformers, as teacher and as student."""

import pytest
import tiny_detectors
import tiny_segmenters
from distill_steps import PROJECTED, compared, images, pair
from mmengine.model import BaseModel
from tiny_recipes import classifier, distiller, teacher

transformers = pytest.importorskip('transformers')
LOGITS = dict(loss=dict(type='KLDivergence'))
VIT = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
)
#: The name of a kind, its settings, the path of the map of its last stage,
#: that map's shape for images of 32 x 32.
KINDS = {
    'resnet': (
        'ResNet',
        dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
        'resnet.encoder.stages.1',
        (16, 4, 4),
    ),
    'convnext': (
        'ConvNext',
        dict(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
        'convnext.encoder.stages.1',
        (16, 4, 4),
    ),
    'vit': (
        'ViT',
        dict(intermediate_size=16, **VIT),
        'vit.layernorm',
        (16, 4, 4),
    ),
    'deit': (
        'DeiT',
        dict(intermediate_size=16, **VIT),
        'deit.layernorm',
        (16, 4, 4),
    ),
    'registers': (
        'Dinov2WithRegisters',
        dict(mlp_ratio=1, **VIT),
        'dinov2_with_registers.layernorm',
        (16, 4, 4),
    ),
    'swin': (
        'Swin',
        dict(
            embed_dim=8,
            depths=[1, 1],
            num_heads=[1, 2],
            window_size=4,
            image_size=32,
            patch_size=2,
        ),
        'swin.layernorm',
        (16, 8, 8),
    ),
}


def save(kind: str, folder) -> tuple[dict, str, tuple]:
    """Save a network as Hugging Face's hub has it.

    Returns:
        tuple: Its model, the path of a map, that map's shape.
    """
    name, settings, path, shape = KINDS[kind]
    settings = getattr(transformers, f'{name}Config')(num_labels=2, **settings)
    made = getattr(transformers, f'{name}ForImageClassification')(settings)
    made.save_pretrained(folder)
    model = dict(
        type='HuggingFaceClassifier',
        _scope_='mmpretrain',
        model_name=str(folder),
        pretrained=False,
        loss=dict(type='CrossEntropyLoss'),
        data_preprocessor=classifier()['data_preprocessor'],
    )
    return model, f'model.{path}', shape


@pytest.mark.parametrize('kind', KINDS)
def test_as_teacher(ready, tmp_path, kind):
    network, path, shape = save(kind, tmp_path)
    entries = dict(
        feature=dict(student_at='backbone[-1]', teacher_at=path, **PROJECTED),
        logits=dict(
            student_at='head.fc', teacher_at='model.classifier', **LOGITS
        ),
    )
    model = ready(
        distiller(
            teacher=teacher(model=network), distill=entries, input_size=32
        )
    )
    assert compared(model, images(32)) == dict(
        feature=pair(2, *shape), logits=pair(2, 2)
    )


@pytest.mark.parametrize('kind', KINDS)
def test_as_student(ready, tmp_path, kind):
    network, path, _ = save(kind, tmp_path)
    entries = dict(
        feature=dict(student_at=path, teacher_at='backbone[-1]', **PROJECTED),
        logits=dict(
            student_at='model.classifier', teacher_at='head.fc', **LOGITS
        ),
    )
    model = ready(distiller(network, distill=entries, input_size=32))
    assert compared(model, images(32)) == dict(
        feature=pair(2, 24, 8, 8), logits=pair(2, 2)
    )


def test_checkpoint_is_the_plain_models(ready, build, tmp_path):
    """The wrapper leaves `model.` out of its names."""
    network, path, _ = save('vit', tmp_path)
    entry = dict(student_at=path, teacher_at='backbone[-1]', **PROJECTED)
    config = distiller(network, distill=dict(feature=entry), input_size=32)
    model = ready(config)
    state = model.state_dict()
    plain = model.student.state_dict()
    assert {k for k in state if not k.startswith('distill.')} == plain.keys()
    loaded = ready(config)
    loaded.load_state_dict(state)
    for name, value in loaded.student.state_dict().items():
        assert value.equal(plain[name]), name
    build(network).load_state_dict(
        {k: v for k, v in state.items() if not k.startswith('distill.')}
    )


@pytest.mark.parametrize('given', ['pretrained', 'checkpoint'])
def test_weights_of_the_hub_teach(ready, tmp_path, given):
    """From a folder, or from the file in it."""
    network, path, _ = save('vit', tmp_path)
    file = None
    if given == 'pretrained':
        network['pretrained'] = True
    else:
        file = str(tmp_path / 'model.safetensors')
    entry = dict(student_at='backbone[-1]', teacher_at=path, **PROJECTED)
    model = ready(
        distiller(
            teacher=teacher(model=network, checkpoint=file),
            distill=dict(feature=entry),
            input_size=32,
        )
    )
    kind = transformers.ViTForImageClassification
    saved = kind.from_pretrained(tmp_path).state_dict()
    found = model.teacher.network.model.state_dict()
    assert all(found[name].equal(saved[name]) for name in saved)


class Wrapper(BaseModel):
    """What a network of any library needs around it to teach."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        config = transformers.SegformerConfig(
            hidden_sizes=[8, 8, 8, 8],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 1, 1],
            decoder_hidden_size=8,
            num_labels=tiny_segmenters.CLASSES,
        )
        self.net = transformers.SegformerForSemanticSegmentation(config)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.net(inputs).logits


def test_a_network_that_no_package_wraps(ready):
    entry = dict(
        student_at='decode_head.conv_seg',
        teacher_at='net.decode_head.classifier',
        **LOGITS,
    )
    network = dict(type=Wrapper)
    model = ready(
        tiny_segmenters.distiller(
            'fcn',
            dict(maps=entry),
            teacher=teacher(model=network, scope='mmseg'),
        )
    )
    data = tiny_segmenters.batch(model)
    assert compared(model, data) == dict(maps=pair(2, 5, 16, 16))


# As they are, by the path of what builds them


def built(kind, folder, path='from_pretrained', **changes):
    """A teacher from a folder as Hugging Face's hub has it."""
    return dict(
        module=f'transformers.{kind}.{path}',
        kwargs=dict(pretrained_model_name_or_path=str(folder)),
        checkpoint=None,
        **changes,
    )


DINOV2 = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=28,
    patch_size=7,
)
TOKENS = dict(student_at='backbone[-1]', teacher_at='layernorm', **PROJECTED)


def save_dinov2(folder):
    network = transformers.Dinov2Model(transformers.Dinov2Config(**DINOV2))
    network.save_pretrained(folder)
    transformers.BitImageProcessor(
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    ).save_pretrained(folder)
    return network


@pytest.mark.parametrize(
    'kind, tap',
    [
        ('AutoModel', 'layernorm'),
        ('AutoModel', 'encoder.layer.1'),
        ('AutoBackbone', 'layernorm'),
        ('AutoBackbone', 'encoder.layer.1'),
    ],
)
def test_dinov2_teaches_as_it_is(ready, tmp_path, kind, tap):
    saved = save_dinov2(tmp_path).state_dict()
    entry = dict(TOKENS, teacher_at=tap)
    model = ready(
        distiller(
            teacher=built(kind, tmp_path),
            distill=dict(f=entry),
            input_size=28,
        )
    )
    assert compared(model, images(28)) == dict(f=pair(2, 16, 4, 4))
    found = model.teacher.network.state_dict()
    assert saved.keys() <= found.keys()
    assert all(found[name].equal(value) for name, value in saved.items())
    # Images of another size, by its own means.
    assert compared(model, images(56)) == dict(f=pair(2, 16, 8, 8))


def test_its_image_processor_counts(ready, build, tmp_path, log):
    save_dinov2(tmp_path)
    teacher = built('AutoModel', tmp_path)
    model = distiller(teacher=teacher, distill=dict(f=TOKENS), input_size=28)
    ready(model)
    assert 'mean [123.675, 116.28, 103.53]' in log.text
    assert 'by preprocessor_config.json of Hugging Face' in log.text
    teacher['data_preprocessor'] = classifier()['data_preprocessor']
    with pytest.raises(ValueError, match='`image_mean`.*preprocessor_config'):
        build(model)


def test_the_file_of_weights_beside_a_config_without_them(ready, tmp_path):
    network = save_dinov2(tmp_path)
    teacher = dict(
        module=type(network),
        kwargs=dict(config=network.config),
        checkpoint=str(tmp_path / 'model.safetensors'),
    )
    model = ready(
        distiller(teacher=teacher, distill=dict(f=TOKENS), input_size=28)
    )
    found = model.teacher.network.state_dict()
    for name, value in network.state_dict().items():
        assert found[name].equal(value), name


SMALL = dict(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
)


@pytest.mark.parametrize(
    'name, config, tap',
    [
        ('ViTModel', 'ViTConfig', 'layernorm'),
        ('CLIPVisionModel', 'CLIPVisionConfig', 'vision_model.encoder'),
        ('SiglipVisionModel', 'SiglipVisionConfig',
         'vision_model.post_layernorm'),
    ],
)  # fmt: skip
def test_position_embeddings_are_interpolated(
    ready, tmp_path, name, config, tap
):
    config = getattr(transformers, config)(**SMALL)
    network = getattr(transformers, name)(config)
    entry = dict(TOKENS, teacher_at=tap)
    model = ready(
        distiller(teacher=network, distill=dict(f=entry), input_size=64)
    )
    assert compared(model, images(64)) == dict(f=pair(2, 16, 8, 8))


def test_the_encoder_of_sam_teaches_a_segmentor(ready):
    """It takes images of one size alone."""
    config = transformers.SamVisionConfig(
        hidden_size=16,
        output_channels=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        window_size=2,
        global_attn_indexes=[0],
        mlp_dim=16,
    )
    network = transformers.SamVisionModel(config)
    entry = dict(
        student_at='backbone[-1]',
        teacher_at='vision_encoder.neck',
        **PROJECTED,
    )
    model = ready(
        tiny_segmenters.distiller(
            'fcn',
            dict(maps=entry),
            teacher=dict(module=network, input_size=64),
        )
    )
    data = tiny_segmenters.batch(model)
    assert compared(model, data) == dict(maps=pair(2, 8, 4, 4))


def test_a_model_of_images_and_words_names_its_tower(build):
    """CLIP as a whole wants words."""
    text = transformers.CLIPTextConfig(
        **{k: v for k, v in SMALL.items() if 'size' not in k},
        hidden_size=16,
        intermediate_size=16,
        vocab_size=8,
    )
    config = transformers.CLIPConfig.from_text_vision_configs(
        text, transformers.CLIPVisionConfig(**SMALL)
    )
    entry = dict(TOKENS, teacher_at='vision_model.encoder')
    with pytest.raises(ValueError, match='teacher CLIPModel cannot run'):
        build(
            distiller(
                teacher=transformers.CLIPModel(config),
                distill=dict(f=entry),
                input_size=32,
            )
        )


def test_dinov2_and_a_detector_teach_another_detector(ready, tmp_path):
    save_dinov2(tmp_path)
    entries = dict(
        tokens=dict(
            student_at='backbone[-1]',
            teacher_at='layernorm',
            teacher='dino',
            **PROJECTED,
        ),
        fpn=dict(
            student_at='neck[:]',
            teacher_at='neck[1:4]',
            teacher='det',
            **PROJECTED,
        ),
    )
    config = tiny_detectors.distiller('rtmdet', entries)
    del config['teacher']
    config['teachers'] = dict(
        dino=built('AutoModel', tmp_path, input_size=56),
        det=dict(
            config=dict(
                model=tiny_detectors.detector('faster'), default_scope='mmdet'
            ),
            checkpoint=None,
        ),
    )
    # Its images are BGR, as mmcv reads files.
    with pytest.raises(ValueError, match='`teachers.dino.data_preprocessor`'):
        ready(config)
    config['teachers']['dino']['data_preprocessor'] = dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    )
    model = ready(config)
    shapes = compared(model, tiny_detectors.batch(model))
    assert shapes['tokens'] == pair(2, 16, 8, 8)
    channels = tiny_detectors.CHANNELS
    assert shapes['fpn'] == [
        pair(2, channels, size, size)[0] for size in (8, 4, 2)
    ]
