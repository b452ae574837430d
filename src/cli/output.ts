/** Standard output as a place for a disk image: a file, or a pipe or socket (reopen-pipe.ts). */
import { fstatSync, write } from "node:fs";
import { Socket } from "node:net";
import { promisify } from "node:util";
import { writeFailure } from "../snapshot/block-writer.js";
import { QuietEnd, UsageFailure } from "./errors.js";
import { reopenPipe, STDOUT } from "./reopen-pipe.js";

export interface Output {
  /**
   * Resolves when all bytes are with the kernel.
   * @throws QuietEnd where the reader is gone; the signal's reason.
   */
  write(data: Uint8Array, signal: AbortSignal): Promise<void>;
  close(): void;
}

const NAME = "standard output";

/** @throws UsageFailure where it is a terminal. */
export function openOutput(): Output {
  if (process.stdout.isTTY) {
    throw new UsageFailure("A disk image is not for a terminal: send it to a pipe or a file.");
  }
  const stat = fstatSync(STDOUT);
  return stat.isFIFO() || stat.isSocket() ? pipeOutput() : fileOutput();
}

const writeAsync = promisify(write);

function fileOutput(): Output {
  return {
    async write(data) {
      let done = 0;
      while (done < data.length) {
        // No position: standard output may have been opened to append, or be partly written.
        const { bytesWritten } = await writeAsync(
          STDOUT,
          data,
          done,
          data.length - done,
          null,
        ).catch((error: unknown) => {
          throw writeFailure(NAME, error);
        });
        done += bytesWritten;
      }
    },
    close() {},
  };
}

function pipeOutput(): Output {
  const socket = new Socket({ fd: reopenPipe(STDOUT), readable: false, writable: true });
  let broken: Error | undefined;
  socket.on("error", (error) => {
    broken ??= error;
  });
  return {
    write(data, signal) {
      return new Promise((resolve, reject) => {
        const onAbort = () => {
          socket.destroy();
          reject(signal.reason);
        };
        signal.addEventListener("abort", onAbort, { once: true });
        socket.write(data, (error) => {
          signal.removeEventListener("abort", onAbort);
          if (!error) resolve();
          else reject(ended(broken ?? error));
        });
      });
    },
    close() {
      socket.destroy();
    },
  };
}

function ended(error: NodeJS.ErrnoException): unknown {
  const gone = error.code === "EPIPE" || error.code === "ECONNRESET";
  return gone ? new QuietEnd("the reader is gone") : writeFailure(NAME, error);
}
