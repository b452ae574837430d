/**
 * Runs mount(8), umount(8) and fusermount3 as child processes, asynchronously: each of them may walk
 * into our own mount and must then be answered by this very process. Messages come in English (the C
 * locale), because they are compared.
 */
import { type StdioOptions, spawn } from "node:child_process";

export interface Ran {
  /** Exit status; 127 where the program does not exist, 128 + n where signal n ended it. */
  readonly status: number;
  /** What it wrote to standard error, at most MAX_MESSAGE bytes, trimmed. */
  readonly message: string;
}

const MAX_MESSAGE = 4096;
/** A mount helper that takes longer waits for something that will not come. */
const TIME_LIMIT_MS = 30_000;

/**
 * @param inherited a file descriptor the child sees as its number 3.
 * @param environment added to this process's own.
 */
export function run(
  program: string,
  args: readonly string[],
  inherited?: number,
  environment: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  return new Promise((resolve) => {
    const stdio: StdioOptions = ["ignore", "ignore", "pipe"];
    if (inherited !== undefined) stdio.push(inherited);
    const child = spawn(program, args, {
      stdio,
      env: { ...process.env, LC_ALL: "C", ...environment },
      timeout: TIME_LIMIT_MS,
      killSignal: "SIGKILL",
    });
    let message = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      message = (message + text).slice(0, MAX_MESSAGE);
    });
    child.on("error", (error: NodeJS.ErrnoException) => {
      resolve({ status: error.code === "ENOENT" ? 127 : 126, message: error.message });
    });
    child.on("close", (status, signal) => {
      const late =
        signal === "SIGKILL" ? `${program} was stopped after ${TIME_LIMIT_MS / 1000} s` : "";
      resolve({ status: status ?? 137, message: message.trim() || late });
    });
  });
}
