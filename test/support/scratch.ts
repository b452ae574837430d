/**
 * What an end-to-end test makes on the machine, taken away again in the reverse order when the test
 * ends, however it ends. Everything that outlives a call (folders, processes, mounts, loop devices)
 * is registered here the moment it exists.
 */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);

export const CLI = new URL("../../dist/cli/main.js", import.meta.url).pathname;

export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Record<string, string | undefined>;
  /** ms; the command is killed then. */
  readonly limit?: number;
  readonly input?: string;
}

/** Runs a command to its end; a status other than 0 is an answer, not an error. */
export function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
      timeout: options.limit ?? 60_000,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk) => {
      stdout += chunk;
    });
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      // Not "close": a child in the background may keep the pipes open.
      setImmediate(() => resolve({ status: code ?? (signal === null ? -1 : 128), stdout, stderr }));
    });
  });
}

/** As run, but a status other than 0 fails the test with what the command said. */
export async function must(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { status, stdout, stderr } = await run(command, args, options);
  if (status !== 0) {
    throw new Error(`${command} ${args.join(" ")}: status ${status}\n${stderr}\n${stdout}`);
  }
  return stdout;
}

/** Waits until `probe` gives something other than undefined or false. */
export async function until<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  limit = 20_000,
): Promise<T> {
  const end = Date.now() + limit;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`not within ${limit} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

export class Scratch {
  readonly path = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
  readonly #undo: (() => unknown)[] = [];

  /** Registers what takes something away again. */
  undo(action: () => unknown): void {
    this.#undo.push(action);
  }

  file(name: string): string {
    return join(this.path, name);
  }

  async clean(): Promise<void> {
    const errors: unknown[] = [];
    for (const action of this.#undo.reverse()) {
      try {
        await action();
      } catch (error) {
        errors.push(error);
      }
    }
    this.#undo.length = 0;
    // Detached, not removed, where a test failed with its mount still there.
    const table = await execute("cat", ["/proc/self/mountinfo"]);
    for (const line of table.stdout.split("\n").reverse()) {
      const place = line.split(" ")[4];
      if (place?.startsWith(`${this.path}/`))
        await execute("umount", ["-l", place]).catch(() => {});
    }
    rmSync(this.path, { recursive: true, force: true });
    if (errors.length > 0) throw errors[0];
  }
}
