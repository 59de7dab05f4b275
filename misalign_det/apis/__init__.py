"""What the tools share: config lookup and options, loading of detectors, error messages.

- ``cli``: arguments, config and runner of ``tools/train.py`` and ``tools/test.py``
- ``config_lookup``, ``config_options``, ``config_keys``, ``option_hints``: which config a name
  means, how ``--cfg-options`` changes it, and whether anything reads the key
- ``detector``: a trained detector from a config and a checkpoint
- ``class_names``: the classes of detections in a file
- ``model_check``: whether head, assigner and loss fit together
- ``own_data``: a folder of images and annotations filled into a config (``--data``)
- ``inference``, ``export``: detection on images and videos; ONNX and ``torch.export`` files
- ``console``: what a tool prints of the log
- ``error_reporting``, ``build_errors``: one line for an error of the user
"""

from ..environment import import_without_notices

import_without_notices()
