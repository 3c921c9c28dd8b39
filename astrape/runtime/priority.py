"""Requests of an audio thread to the system: to go first, and to keep its memory in place."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["lock_memory", "raise_priority"]

FIFO_PRIORITY = 70
"""Below what JACK and PipeWire run their own threads at (80 and more), above everything that is not sound."""

USER_INTERACTIVE = 0x21
"""macOS: QOS_CLASS_USER_INTERACTIVE of sys/qos.h."""

LOCK_CURRENT = 1
"""MCL_CURRENT of sys/mman.h."""


def raise_priority() -> str | None:
    """Ask for real-time priority for the calling thread.

    Linux: ``SCHED_FIFO``. macOS: the class of service for what a user interacts with. Windows: the class "Pro Audio" of
    the multimedia scheduler. The last two have not been tried on such machines.

    Returns:
        ``None`` where it was granted; otherwise why not, and what to do.
    """
    system: str = sys.platform
    try:
        if system.startswith("linux"):
            # On Linux, 0 is the calling thread and not the process.
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
            return None
        if system == "darwin":
            refused = ctypes.CDLL(None).pthread_set_qos_class_self_np(USER_INTERACTIVE, 0)
            return f"the system refused it (error {refused})" if refused else None
        if system == "win32":
            index = ctypes.c_ulong(0)
            granted = ctypes.CDLL("avrt").AvSetMmThreadCharacteristicsW("Pro Audio", ctypes.byref(index))
            return None if granted else "the multimedia scheduler refused it"
    except (OSError, AttributeError) as error:
        if isinstance(error, PermissionError):
            return (
                "not permitted: hint: let your user have it, with the line '@audio - rtprio 95' in "
                "/etc/security/limits.d/audio.conf and your user in the group audio"
            )
        return str(error)
    return f"not known how on {system}"


def lock_memory() -> str | None:
    """Ask for all memory that the process has now to stay in place, so that no page has to be fetched while it plays.

    Returns:
        ``None`` where it was granted; otherwise why not, and what to do.
    """
    if not sys.platform.startswith("linux"):
        return f"not known how on {sys.platform}"
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.mlockall(LOCK_CURRENT) == 0:
            return None
    except (OSError, AttributeError) as error:
        return str(error)
    reason = os.strerror(ctypes.get_errno())
    return f"{reason}: hint: '@audio - memlock unlimited' in /etc/security/limits.d/audio.conf allows it"
