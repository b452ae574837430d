/**
 * Where an import's image comes from, by what is found there: a file or a block device is read as such,
 * also as standard input; a pipe or a socket, named or standard input, is a stream, whose size only the
 * user knows. A named pipe without a writer is waited for, as by any other reader.
 */
import { constants, fstatSync, openSync, type Stats } from "node:fs";
import { stat } from "node:fs/promises";
import { isatty } from "node:tty";
import { Failure } from "../common/failure.js";
import { positionOf } from "../common/posix.js";
import { FileSource } from "../snapshot/file-source.js";
import type { ImageSource } from "../snapshot/image-source.js";
import { StreamSource } from "../snapshot/stream-source.js";
import { UsageFailure } from "./errors.js";
import { reopenPipe, STDIN } from "./reopen-pipe.js";
import { SocketReader } from "./socket-reader.js";

/**
 * @param path `-` is standard input.
 * @param size of the image, bytes; needed for a stream, and for nothing else.
 * @throws UsageFailure where the size is missing or wrong; Failure that says why it cannot be imported.
 */
export async function openImage(path: string, size: number | undefined): Promise<ImageSource> {
  const isStdin = path === "-" || path === "/dev/stdin";
  const name = isStdin ? "standard input" : path;
  // What is not there, or not for this user, is FileSource's to say.
  const found = isStdin ? fstatSync(STDIN) : await stat(path).catch(() => undefined);
  if (found?.isFIFO() || found?.isSocket()) {
    if (size === undefined) {
      const what = found.isFIFO() ? "a pipe" : "a socket";
      throw new UsageFailure(
        `${name} is ${what}, which does not say how large the image in it is; give its size, such as --size 8GiB.`,
      );
    }
    return new StreamSource(name, size, isStdin ? readStdin() : readNamed(path, found));
  }
  if (isStdin) checkStdin();
  const source = await FileSource.open(isStdin ? `/proc/self/fd/${STDIN}` : path, name);
  if (size !== undefined && size !== source.size) {
    await source.close();
    throw new UsageFailure(
      `${name} has ${source.size} bytes, but --size says ${size}; leave --size out, which is for pipes and sockets.`,
    );
  }
  return source;
}

function readStdin(): SocketReader {
  return SocketReader.of(reopenPipe(STDIN));
}

/** A pipe with a name, or a connection to a Unix socket. */
function readNamed(path: string, found: Stats): SocketReader {
  if (found.isSocket()) return SocketReader.connectTo(path);
  try {
    // Does not wait for a writer: the first read does, and that can be called off.
    return SocketReader.of(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  } catch (cause) {
    const { message } = cause as Error;
    throw new Failure("EACCES", `${path} cannot be opened (${message}).`, { cause });
  }
}

/** @throws UsageFailure for a terminal, and for a file that would not be imported from its start. */
function checkStdin(): void {
  if (isatty(STDIN)) {
    throw new UsageFailure(
      "A disk image does not come from a terminal: give standard input a pipe or a file.",
    );
  }
  const position = positionOf(STDIN);
  if (position !== undefined && position > 0) {
    throw new UsageFailure(
      `Standard input is a file that has been read up to byte ${position}; name the file instead of -.`,
    );
  }
}
