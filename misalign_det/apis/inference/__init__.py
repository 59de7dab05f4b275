"""Detection on images, videos and webcams by mmdet's ``DetInferencer``.

- ``inferencer``: an inferencer from a config's name and a checkpoint
- ``sources``: what the inputs on a command line are
- ``runs``: detections, pictures and videos of these inputs
"""

from .inferencer import Inferencer

__all__ = ["Inferencer"]
