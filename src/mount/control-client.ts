/** The asking half of the control socket. */
import { createConnection } from "node:net";
import { Failure } from "../common/failure.js";
import {
  type CommitProgress,
  type ControlAnswer,
  type ControlRequest,
  lineReader,
} from "./control-protocol.js";

export interface AskOptions {
  /** Longest silence, ms; none where absent: a commit over a broken network may be silent long. */
  readonly timeoutMs?: number;
  readonly onProgress?: (progress: CommitProgress) => void;
}

/**
 * Asks a mount's process and waits for its last word.
 * @throws Failure as the process failed; ENOTCONN where it cannot be reached or went away; ETIMEDOUT.
 */
export function askMount(
  socketPath: string,
  request: ControlRequest,
  options: AskOptions = {},
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath);
    const fail = (failure: Failure) => {
      socket.destroy();
      reject(failure);
    };
    const read = lineReader((value) => {
      const answer = value as ControlAnswer;
      if (answer.kind === "progress") options.onProgress?.(answer.progress);
      else if (answer.kind === "done") resolve(answer.result);
      else reject(new Failure(answer.errno, answer.message));
    });
    if (options.timeoutMs !== undefined) {
      socket.setTimeout(options.timeoutMs, () =>
        fail(new Failure("ETIMEDOUT", "The mount’s process does not answer; see its log.")),
      );
    }
    socket.on("connect", () => socket.write(`${JSON.stringify(request)}\n`));
    socket.on("data", (chunk) => {
      try {
        read(chunk);
      } catch (cause) {
        fail(
          new Failure("EIO", "The mount’s process gave an answer that makes no sense.", { cause }),
        );
      }
    });
    socket.on("error", (cause) =>
      fail(new Failure("ENOTCONN", "The mount’s process cannot be reached.", { cause })),
    );
    // After an answer this changes nothing: a promise settles once.
    socket.on("close", () =>
      reject(new Failure("ENOTCONN", "The mount’s process ended without an answer; see its log.")),
    );
  });
}
