# Teacher: DINOv2's ViT-B/14, in mmpretrain's form. The file's source is in
# configs/radio/README.md.
teacher = dict(
    config='mmpretrain::dinov2/vit-base-p14_dinov2-pre_headless.py',
    checkpoint='checkpoints/vit-base-p14_dinov2-pre_3rdparty_20230426-ba246503.pth',
    input_size=448,  # 32 x 32 patches of 14 pixels
)
