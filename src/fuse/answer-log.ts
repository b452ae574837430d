/**
 * What the log says of requests that are answered with an error, the same for both drivers. Trouble
 * with the service or the disk is worth a line: a reader sees only the errno, and the sentence (which
 * snapshot, which block, what happened, what to do) is nowhere else. A network that is gone fails
 * every read, so lines are rationed, and those left out are counted. Everyday answers (there is no
 * such file, the mount is read-only) are for debugging only; what is no Failure is a defect.
 */
import { type ErrnoName, errnoOf, Failure } from "../common/failure.js";
import type { MountRequest } from "./driver.js";

const TROUBLE: ReadonlySet<ErrnoName> = new Set<ErrnoName>([
  "EIO",
  "EACCES",
  "ETIMEDOUT",
  "ESTALE",
  "ENOSPC",
  "EDQUOT",
  "ENOMEM",
]);
/** Lines at once, and how often there is one more. */
const LINES = 20;
const LINE_EVERY_MS = 3_000;

export class AnswerLog {
  readonly #log: MountRequest["log"];
  readonly #now: () => number;
  #lines = LINES;
  #countedAt: number;
  #leftOut = 0;

  /** @param now a clock in ms, for tests. */
  constructor(log: MountRequest["log"], now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
    this.#countedAt = now();
  }

  /** Logs an error as it deserves. @returns what to answer the kernel. */
  errno(error: unknown): ErrnoName {
    const errno = errnoOf(error);
    if (!(error instanceof Failure)) {
      this.#log("error", `Defect in answering a request: ${(error as Error).stack ?? error}`);
    } else if (!TROUBLE.has(errno)) {
      this.#log("debug", `${errno}: ${error.message}`);
    } else if (this.#mayLog()) {
      const more = this.#leftOut === 0 ? "" : ` (${this.#leftOut} more failures were not logged.)`;
      this.#leftOut = 0;
      this.#log("warn", `${errno}: ${error.message}${more}`);
    } else {
      this.#leftOut += 1;
    }
    return errno;
  }

  #mayLog(): boolean {
    const now = this.#now();
    this.#lines = Math.min(LINES, this.#lines + (now - this.#countedAt) / LINE_EVERY_MS);
    this.#countedAt = now;
    if (this.#lines < 1) return false;
    this.#lines -= 1;
    return true;
  }
}
