_base_ = './segmentor_digit-scenes.py'

model = dict(decode_head=dict(type='ASPPHead', dilations=(1, 3, 6)))
