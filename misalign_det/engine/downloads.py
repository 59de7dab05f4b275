"""What to do where weights cannot be downloaded."""

import http.client
import traceback
import urllib.error
from typing import Any


def explain_download(error: BaseException) -> str | None:
    """Explain that a file could not be downloaded, or that what was downloaded is no checkpoint.

    All weights that mmengine, mmdet and torch load from an address come through ``torch.hub``,
    whose errors do not name it.

    Args:
        error: raised by whatever loads something.

    Returns:
        One line: the address, the reason and what to do. None for any other error.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    calls = {
        frame.f_code.co_name: frame.f_locals
        for frame in frames
        if frame.f_globals.get("__name__") == "torch.hub"
    }
    if "download_url_to_file" in calls:
        if isinstance(error, OSError) and error.filename and not _is_answer(error):
            return None  # of the disk, not of the network
        place = calls["download_url_to_file"]
        return _not_downloaded(place["url"], error, f"put it at {place['dst']}, where it is found")
    if "cached_file" in calls.get("load_state_dict_from_url", {}):
        place = calls["load_state_dict_from_url"]
        if "GLOBAL" in str(error) or isinstance(error, PermissionError):
            return None  # a checkpoint, which may not be loaded
        return (
            f"{place['cached_file']} is no checkpoint, or is cut short. It was downloaded from "
            f"{place['url']}; delete it, and see what that address gives."
        )
    if isinstance(error, urllib.error.URLError):
        asked = next((f.f_locals.get("fullurl") for f in frames if "fullurl" in f.f_locals), None)
        address = getattr(asked, "full_url", asked)
        return address and _not_downloaded(address, error, "name the file by its path")
    return None


def _is_answer(error: OSError) -> bool:
    """Whether the error is a server's; urllib gives it the address as its file name."""
    return isinstance(error, urllib.error.URLError)


def _not_downloaded(address: Any, error: BaseException, then: str) -> str:
    if isinstance(error, urllib.error.HTTPError) and error.code in (404, 410):
        return f"{address} does not exist (HTTP {error.code}). Check the address."
    reason = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP {error.code} {reason}"
    elif isinstance(error, http.client.IncompleteRead):
        reason = "the connection ended before the file did"
    text = " ".join(str(reason).split()) or type(reason).__name__
    return (
        f"{address} cannot be downloaded ({text}). Behind a proxy set https_proxy; without a "
        f"network download the file elsewhere, and {then}."
    )
