/**
 * The main thread's end of one block thread: its jobs under way, and their ends. A job is over only when the
 * thread has said so, or is gone: until then it may be writing into the job's memory.
 *
 * A thread over libcurl waits inside the library (http/curl/multi-loop.ts), so each message wakes it. When the process exits, all are woken, because Node waits for them.
 */
import { Worker } from "node:worker_threads";
import { workerUrl } from "../common/worker-url.js";
import { wakerOf } from "../http/curl/wake.js";
import type { BlockRequest } from "./block-request.js";
import type { BlockJob, FromThread, ThreadSetup, ToThread } from "./block-thread-messages.js";
import type { SigningContext } from "./signature.js";
import { unpackFailure } from "./try-failure.js";

/** The thread ended with the job undone: another may do it. */
export class ThreadGone extends Error {}

/** Longest time that a thread gets to close its connections, ms; then it is terminated. */
const CLOSE_MS = 2_000;

interface Pending {
  readonly resolve: (digest: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
  readonly progress: ((bodyBytes: number) => void) | undefined;
}

export class BlockThread {
  /** It has loaded and takes jobs. */
  isReady = false;
  isGone = false;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #context: SigningContext | undefined;
  /** Which number each memory was sent with. */
  readonly #memories = new Map<SharedArrayBuffer, number>();
  #jobs: BlockJob[] = [];
  #wake: () => void = () => {};
  #lastId = 0;

  constructor(setup: ThreadSetup, log: (level: "debug" | "warn", message: string) => void) {
    this.#worker = new Worker(workerUrl(import.meta.url, "./block-worker.js"), {
      workerData: setup,
    });
    // A process waits for jobs, not for idle threads.
    this.#worker.unref();
    this.#worker.on("message", (message: FromThread) => this.#hear(message));
    this.#worker.on("error", (error) => log("warn", `A block thread failed: ${error.stack}`));
    this.#ended = new Promise((resolve) => {
      this.#worker.on("exit", () => {
        this.#end();
        resolve();
      });
    });
  }

  get load(): number {
    return this.#pending.size;
  }

  /**
   * @param block BLOCK_SIZE bytes of shared memory.
   * @returns the block's digest. @throws as sendBlockRequest, ThreadGone
   */
  run(
    request: BlockRequest,
    context: SigningContext,
    block: Uint8Array,
    signal: AbortSignal | undefined,
    progress: ((bodyBytes: number) => void) | undefined,
  ): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.isGone) throw new ThreadGone();
      if (this.#context !== context) this.#post({ kind: "context", context });
      this.#context = context;
      this.#lastId += 1;
      const id = this.#lastId;
      const abort = () => this.#say({ kind: "abort", id });
      const end = () => {
        signal?.removeEventListener("abort", abort);
        if (this.#pending.size === 0) this.#worker.unref();
      };
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, {
        resolve: (digest) => {
          end();
          resolve(digest);
        },
        reject: (error) => {
          end();
          reject(error);
        },
        progress,
      });
      const memory = this.#memoryOf(block.buffer as SharedArrayBuffer);
      this.#postLater({ ...request, id, memory, offset: block.byteOffset });
      if (signal?.aborted) abort();
      else signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /** Ends the thread; its jobs end with ThreadGone or "closed". */
  async close(): Promise<void> {
    if (this.isGone) return;
    this.#say({ kind: "close" });
    const timer = setTimeout(() => void this.#worker.terminate(), CLOSE_MS);
    await this.#ended;
    clearTimeout(timer);
  }

  /** Posts the jobs of one turn of the event loop together: a tick comes after all its promises. */
  #postLater(job: BlockJob): void {
    if (this.#jobs.push(job) === 1) process.nextTick(() => this.#postJobs());
  }

  #postJobs(): void {
    if (this.#jobs.length === 0) return;
    this.#post({ kind: "jobs", jobs: this.#jobs });
    this.#jobs = [];
    this.#wake();
  }

  #memoryOf(buffer: SharedArrayBuffer): number {
    let memory = this.#memories.get(buffer);
    if (memory === undefined) {
      memory = this.#memories.size;
      this.#memories.set(buffer, memory);
      this.#post({ kind: "memory", memory, buffer });
    }
    return memory;
  }

  #say(message: ToThread): void {
    this.#postJobs();
    this.#post(message);
    this.#wake();
  }

  #post(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  #hear(message: FromThread): void {
    switch (message.kind) {
      case "ready":
        if (message.wake !== undefined) this.#wake = wakerOf(message.wake);
        wakeAtExit.add(this.#wake);
        this.isReady = true;
        break;
      case "progress":
        this.#pending.get(message.id)?.progress?.(message.bodyBytes);
        break;
      case "ends":
        for (const end of message.ends) {
          const pending = this.#pending.get(end.id);
          this.#pending.delete(end.id);
          if ("digest" in end) pending?.resolve(end.digest);
          else pending?.reject(unpackFailure(end.failure));
        }
        break;
    }
  }

  #end(): void {
    this.isGone = true;
    this.isReady = false;
    // The multi handle is gone with its thread.
    wakeAtExit.delete(this.#wake);
    this.#wake = () => {};
    const left = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of left) reject(new ThreadGone());
  }
}

const wakeAtExit = new Set<() => void>();
process.on("exit", () => {
  for (const wake of wakeAtExit) wake();
});
