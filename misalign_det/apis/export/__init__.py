"""Export of one-stage detectors to ONNX and ``torch.export``, compared with torch on images.

- ``detector_graph``: a detector as a function of tensors
- ``nms_graph``: the same with NMS, and box voting, inside
- ``formats``: files, and how to run them
- ``comparison``: whether a file gives the detector's boxes and scores
"""
