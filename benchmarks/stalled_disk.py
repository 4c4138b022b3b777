"""A disk that stalls: a FUSE file system with one file, whose reads never return from some byte on.

    python benchmarks/stalled_disk.py FOLDER FILE BYTES

Serves FILE as FOLDER/stalled.mp4; BYTES < 0 stalls the look-up (``stat``) already. Prints ``mounted`` when it is; ends
with its standard input. Needs root and /dev/fuse. Source of the protocol: Linux, ``include/uapi/linux/fuse.h``.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
from pathlib import Path

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _INIT = 1, 2, 3, 14, 15, 26
_STATFS, _RELEASE, _FLUSH, _BATCH_FORGET = 17, 18, 25, 42
_MNT_DETACH = 2


def attributes(node: int, num_bytes: int) -> bytes:
    """Return a fuse_attr: node 1 is the folder, 2 the file."""
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack(
        "<6Q3I7I", node, num_bytes, num_bytes // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0
    )


def serve(device: int, data: bytes, stall_at: int) -> None:
    """Answer requests until the file system is gone."""
    while True:
        try:
            request = os.read(device, 2**18)
        except OSError:
            return
        _, code, unique, node = struct.unpack_from("<IIQQ", request)
        body = request[40:]
        answer, error = b"", 0
        if code == _INIT:
            answer = struct.pack("<4I2H2I2H8I", 7, 31, 4096, 0, 4, 3, 4096, 1, 1, 0, *[0] * 8)
        elif code == _GETATTR:
            answer = struct.pack("<QII", 0, 0, 0) + attributes(node, len(data) if node == 2 else 0)
        elif code == _LOOKUP:
            if stall_at < 0:
                continue  # never answered
            if body.rstrip(b"\0") == b"stalled.mp4":
                answer = struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2, len(data))
            else:
                error = -2
        elif code == _OPEN:
            answer = struct.pack("<QII", 1, 1, 0)  # 1: past the page cache
        elif code == _READ:
            offset, size = struct.unpack_from("<8xQI", body)
            if offset + size > stall_at:
                continue  # never answered
            answer = data[offset : offset + size]
        elif code in (_FORGET, _BATCH_FORGET):
            continue
        elif code not in (_RELEASE, _FLUSH):
            error = -38
        os.write(device, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)


def main() -> None:
    """Mount, serve, and unmount when standard input ends."""
    folder, file, stall_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"stalled", folder.encode(), b"fuse", 0, options):
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    threading.Thread(target=serve, args=(device, file.read_bytes(), stall_at), daemon=True).start()
    print("mounted", flush=True)
    sys.stdin.read()
    libc.umount2(folder.encode(), _MNT_DETACH)
    os._exit(0)


if __name__ == "__main__":
    main()
