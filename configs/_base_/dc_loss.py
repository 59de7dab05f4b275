# DCLoss around RetinaNet's and FCOS's focal loss, for configs that write
#     loss_cls={{_base_.dc_loss}}
dc_loss = dict(
    _delete_=True,
    type='DCLoss',
    loss=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
)
