"""What tests that start other processes share."""

import signal


def restore_sigint():
    """Let Ctrl-C end a process again: one that a shell started in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
