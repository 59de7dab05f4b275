"""What tests that start other processes share."""

import signal


def heed_interrupts():
    """Let Ctrl-C end a process again: one that a shell started in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
