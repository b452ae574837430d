/**
 * Puts a mount into a process of its own. The command starts itself again, detached, with a channel
 * on which the child says `ready` or why it failed; only then does the command end, so its exit
 * status tells whether the mount is usable. Until then Ctrl-C reaches both, and a child whose command
 * has died has nobody to be ready for.
 */
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { type ErrnoName, Failure } from "../common/failure.js";
import { HEAP_OPTIONS } from "./heap.js";

/** What the child says, once. */
export type BackgroundMessage =
  | { readonly kind: "ready"; readonly images: readonly string[] }
  | { readonly kind: "failed"; readonly errno: ErrnoName; readonly message: string };

/** Set in the child's environment to the file it logs to. */
const LOG_FILE_VARIABLE = "EBSMOUNT_BACKGROUND_LOG";

/**
 * Runs this program's command line again in the background.
 * @param stop interrupts the child too.
 * @returns the image files' paths. @throws Failure, the child's own where it gave one.
 */
export function startInBackground(logFile: string, stop: AbortSignal): Promise<readonly string[]> {
  const log = openLogFile(logFile);
  const child = spawn(
    process.execPath,
    [...HEAP_OPTIONS, ...process.execArgv, ...process.argv.slice(1)],
    {
      detached: true,
      stdio: ["ignore", log, log, "ipc"],
      env: { ...process.env, [LOG_FILE_VARIABLE]: logFile },
    },
  );
  const interrupt = () => child.kill("SIGINT");
  if (stop.aborted) interrupt();
  stop.addEventListener("abort", interrupt, { once: true });
  return new Promise<readonly string[]>((resolve, reject) => {
    child.once("message", (value) => {
      const message = value as BackgroundMessage;
      if (message.kind === "ready") resolve(message.images);
      else reject(new Failure(message.errno, message.message));
      child.disconnect();
      child.unref();
    });
    child.once("error", reject);
    child.once("exit", (code, signal) =>
      reject(
        new Failure(
          stop.aborted ? "EINTR" : "EIO",
          `The mount’s process ended before it was ready (${signal ?? `exit status ${code}`}); see ${logFile}.`,
        ),
      ),
    );
  }).finally(() => stop.removeEventListener("abort", interrupt));
}

function openLogFile(path: string): number {
  try {
    return openSync(path, "a", 0o600);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const errno = code === "ENOENT" || code === "ENOSPC" ? code : "EACCES";
    const sentence = `The log file ${path} cannot be opened (${message}); choose another with --log-file.`;
    throw new Failure(errno, sentence, { cause });
  }
}

/** In the child: the log file it was given; undefined in a process that stays in front. */
export function backgroundLogFile(): string | undefined {
  return process.env[LOG_FILE_VARIABLE];
}

/**
 * In the child: says the one message and closes the channel. In front it does nothing.
 * @returns false where nobody was there to hear it.
 */
export async function tellParent(message: BackgroundMessage): Promise<boolean> {
  if (backgroundLogFile() === undefined) return true;
  if (process.send === undefined || !process.connected) return false;
  const error = await new Promise<Error | null>((resolve) => process.send?.(message, resolve));
  if (process.connected) process.disconnect();
  return error === null;
}
