"""Random operations on an image file and on a plain file beside it, which must stay the same.

usage: fsx.py FILE MODEL OPERATIONS SEED   (both as large as the part that is worked on, or larger)

Reads and writes of any offset and length, through mmap as well, holes punched, ranges zeroed, zeros
written, fsync and fdatasync. Ends with status 1 and says at which operation the two differed.
"""
import ctypes
import errno
import mmap
import os
import random
import stat
import sys

libc = ctypes.CDLL("libc.so.6", use_errno=True)
PUNCH_HOLE_KEEP_SIZE = 3
ZERO_RANGE_KEEP_SIZE = 0x11
AREA = 24 << 20
LARGEST = 300_000


def clear(fd, mode, offset, length):
    args = (ctypes.c_int(fd), mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    if libc.fallocate(*args) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def main(path, model_path, operations, seed):
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR)
    model = os.open(model_path, os.O_RDWR)
    is_device = stat.S_ISBLK(os.fstat(fd).st_mode)
    maps = [mmap.mmap(fd, AREA), mmap.mmap(model, AREA)]
    noise = rng.randbytes(LARGEST * 2)
    for number in range(operations):
        # Mostly small, sometimes large; now and then whole sectors, as block devices do it.
        length = rng.choice((rng.randint(1, 600), rng.randint(1, 9000), rng.randint(1, LARGEST)))
        offset = rng.randrange(AREA - length)
        what = rng.random()
        is_clear = 0.80 <= what < 0.86
        # A block device clears whole sectors only.
        if rng.random() < 0.3 or (is_clear and is_device):
            offset -= offset % 512
            length = min(length + -length % 512, AREA - offset)
        start = rng.randrange(LARGEST - 1024)
        data = noise[start : start + length]
        if what < 0.40:
            if os.pread(fd, length, offset) != os.pread(model, length, offset):
                sys.exit(f"read differs: operation {number}, {length} bytes at {offset}")
        elif what < 0.80:
            assert os.pwrite(fd, data, offset) == length
            os.pwrite(model, data, offset)
        elif is_clear:
            mode = rng.choice((PUNCH_HOLE_KEEP_SIZE, ZERO_RANGE_KEEP_SIZE))
            try:
                clear(fd, mode, offset, length)
            except OSError as error:
                # Punches are refused unless asked for, and the libfuse driver can do neither.
                if error.errno != errno.EOPNOTSUPP:
                    raise
                os.pwrite(fd, bytes(length), offset)
            os.pwrite(model, bytes(length), offset)
        elif what < 0.92:
            if maps[0][offset : offset + length] != maps[1][offset : offset + length]:
                sys.exit(f"mapped read differs: operation {number}, {length} bytes at {offset}")
        elif what < 0.97:
            for mapping in maps:
                mapping[offset : offset + length] = data
        elif what < 0.985:
            os.fdatasync(fd)
        else:
            os.fsync(fd)
    for mapping in maps:
        mapping.flush()
        mapping.close()
    os.fsync(fd)
    for offset in range(0, AREA, 1 << 20):
        if os.pread(fd, 1 << 20, offset) != os.pread(model, 1 << 20, offset):
            sys.exit(f"at the end MiB {offset >> 20} differs")
    print(f"{operations} operations, no difference")


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
