/**
 * The lines that scripts take from a command: an id, a path. They say what has been done and cannot be
 * done again to be told once more, so where standard output does not take them (a full disk, a reader
 * that is gone) they go to standard error, in a sentence, and the command fails.
 */
import { writeSync } from "node:fs";
import { Failure } from "../common/failure.js";

const STDOUT = 1;

/**
 * @param done what has been done, as a sentence that names it, without an end mark.
 * @throws Failure EIO with that sentence where the lines cannot be written.
 */
export function printResult(lines: readonly string[], done: string): void {
  const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
  let written = 0;
  try {
    while (written < bytes.length) written += writeSync(STDOUT, bytes, written);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // A pipe that someone has set not to block and that is full: the event loop has patience.
    if (code === "EAGAIN") process.stdout.write(bytes.subarray(written));
    else throw new Failure("EIO", `${done}; standard output did not take it (${code}).`, { cause });
  }
}
