/**
 * The pipe or socket that this process was started with as standard input or output, to be read or
 * written without blocking, through the event loop: a call in libuv's thread pool that waits for a
 * silent peer cannot be called off, and would hold up the process's end after Ctrl-C. A pipe is opened
 * again for that, since O_NONBLOCK on the inherited descriptor would change it for every process that
 * has it.
 */
import { constants, openSync, readlinkSync } from "node:fs";

/** The descriptors of standard input and output. */
export const STDIN = 0;
export const STDOUT = 1;

/** @returns a descriptor for a net.Socket: the inherited one for what cannot be opened again. */
export function reopenPipe(fd: typeof STDIN | typeof STDOUT): number {
  const path = `/proc/self/fd/${fd}`;
  try {
    // Opened after its last writer has gone, a named pipe waits for the next one (Linux, fs/pipe.c,
    // fifo_open); the inherited descriptor sees the end. One without a name sees it always.
    if (fd === STDIN && !readlinkSync(path).startsWith("pipe:")) return fd;
    const access = fd === STDIN ? constants.O_RDONLY : constants.O_WRONLY;
    return openSync(path, access | constants.O_NONBLOCK);
  } catch {
    // A socket, or another user's pipe.
    return fd;
  }
}
