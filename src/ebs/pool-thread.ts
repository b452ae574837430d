/**
 * The main thread's end of one worker: its jobs in flight, and what becomes of them. A job is over
 * only when the worker has said so, or is gone: till then it may be writing into the job's memory.
 */
import { Worker } from "node:worker_threads";
import { workerUrl } from "../common/worker-url.js";
import { EbsError } from "./errors.js";
import type { BlockJob, FromWorker, ToWorker, WorkerSetup } from "./pool-messages.js";

/** The worker ended with the job undone: someone else may do it. */
export class ThreadGone extends Error {}

interface Pending {
  readonly resolve: (digest: Uint8Array | undefined) => void;
  readonly reject: (error: unknown) => void;
}

export class PoolThread {
  /** It has loaded the SDK and answers. */
  ready = false;
  gone = false;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #log: (level: "debug" | "warn", message: string) => void;

  constructor(setup: WorkerSetup, log: (level: "debug" | "warn", message: string) => void) {
    this.#log = log;
    this.#worker = new Worker(workerUrl(import.meta.url, "./worker.js"), { workerData: setup });
    // A process waits for jobs, not for idle workers.
    this.#worker.unref();
    this.#worker.on("message", (message: FromWorker) => this.#hear(message));
    this.#worker.on("error", (error) => log("warn", `A fetch thread failed: ${error.stack}`));
    this.#worker.on("exit", () => this.#end());
  }

  get load(): number {
    return this.#pending.size;
  }

  /** @returns the block's digest where the job wants it. @throws EbsError, ThreadGone */
  run(job: BlockJob, signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      if (this.gone) throw new ThreadGone();
      const abort = () => this.#say({ kind: "abort", id: job.id });
      const end = () => {
        signal?.removeEventListener("abort", abort);
        if (this.#pending.size === 0) this.#worker.unref();
      };
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(job.id, {
        resolve: (digest) => {
          end();
          resolve(digest);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      });
      this.#say(job);
      if (signal?.aborted) abort();
      else signal?.addEventListener("abort", abort, { once: true });
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #say(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #hear(message: FromWorker): void {
    if (message.kind === "ready") {
      this.ready = true;
      return;
    }
    if (message.kind === "log") {
      this.#log(message.level, message.message);
      return;
    }
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.kind === "done") pending?.resolve(message.digest);
    else pending?.reject(new EbsError(message.error));
  }

  #end(): void {
    this.gone = true;
    this.ready = false;
    const left = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of left) reject(new ThreadGone());
  }
}
