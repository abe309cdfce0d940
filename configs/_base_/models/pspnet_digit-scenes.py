_base_ = './segmentor_digit-scenes.py'

model = dict(decode_head=dict(type='PSPHead', pool_scales=(1, 2, 3, 6)))
