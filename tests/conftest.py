"""What every test starts from: mmdet's modules registered, its scope the default one."""

import pytest
import torch
from mmdet.utils import register_all_modules

register_all_modules()
torch.set_num_threads(min(2, torch.get_num_threads()))


def pytest_collection_modifyitems(items):
    """Tests marked cuda say why they do not run."""
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def mmdet_scope():
    """A test that ran a whole runner may have left another default scope behind."""
    register_all_modules(init_default_scope=True)
