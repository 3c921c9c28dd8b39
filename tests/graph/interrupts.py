"""Interrupts at any moment."""

from __future__ import annotations

import dis
import os
import sys
from typing import Any


def interrupted_at(moment: int, call: Any) -> tuple[Any, bool]:
    """The result of ``call``, with an interrupt before the instruction of that number in the library's own code."""
    left, before = moment, ""

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left, before
        if not {"graph", "blocks", "capture"} & set(frame.f_code.co_filename.split(os.sep)[-4:-1]):
            return None
        frame.f_trace_opcodes = True
        if event != "opcode":
            return trace
        # Python looks for signals where a function begins, after calls, and where a loop goes round.
        left -= before.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
        before = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if left == 0:
            left = -1
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    debugger = sys.gettrace()
    sys.settrace(trace)
    try:
        return call(), False
    except KeyboardInterrupt:
        return None, True
    finally:
        sys.settrace(debugger)
