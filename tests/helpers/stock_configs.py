"""A stock config of mmdet for each of its detectors that the tests combine with this package."""

CONFIGS = {
    "RetinaNet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "FCOS": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "ATSS": "atss/atss_r50_fpn_1x_coco.py",
    "GFL": "gfl/gfl_r50_fpn_1x_coco.py",
    "PAA": "paa/paa_r50_fpn_1x_coco.py",
    "VFNet": "vfnet/vfnet_r50_fpn_1x_coco.py",
    "TOOD": "tood/tood_r50_fpn_1x_coco.py",
    "DDOD": "ddod/ddod_r50_fpn_1x_coco.py",
    "AutoAssign": "autoassign/autoassign_r50-caffe_fpn_1x_coco.py",
    "RTMDet": "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "YOLOX": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "Faster R-CNN": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
}
