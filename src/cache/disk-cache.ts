/**
 * The main thread's side of the disk cache. It lends the worker a staging place for each block that
 * is read or written and copies between that and the caller's memory, so that whatever the disk does,
 * and however late, only a block that passed its check gets near a reader. Everything here has a
 * limit and a way out: a read that the disk does not answer in time is "not here", a write for which
 * there is no place is dropped, a worker that dies takes nothing with it but the cache.
 */
import { Worker } from "node:worker_threads";
import { BLOCK_SIZE } from "../common/sizes.js";
import { workerUrl } from "../common/worker-url.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { DiskWorkerSetup, FromDiskWorker, ToDiskWorker } from "./disk-cache-messages.js";

/** Blocks on their way from the disk, and to it: 8 and 16 MiB. */
const READ_PLACES = 16;
const WRITE_PLACES = 32;
/** A read that takes longer is better fetched, ms. */
const READ_LIMIT_MS = 5_000;
/** Reads that may take longer than that before the disk is given up. */
const MOST_LATE = 3;
/** At the end, blocks that are still to be written may take so long, ms. */
const CLOSE_LIMIT_MS = 3_000;

export interface DiskCacheOptions {
  /** Absolute, from openCacheFolder. */
  readonly folder: string;
  /** Most that it may take on the disk, bytes. */
  readonly bytes: number;
  readonly log: (level: "info" | "warn", message: string) => void;
}

export interface DiskReading {
  /** Blocks found on the disk, put there, and not put there for want of time. */
  readonly hits: number;
  readonly kept: number;
  readonly dropped: number;
}

/** held: positions of other keys that seem to be here. */
export interface DiskAnswer {
  readonly found: boolean;
  readonly held: readonly number[];
}

const NOTHING: DiskAnswer = { found: false, held: [] };

export class DiskCache {
  readonly #worker: Worker;
  readonly #options: DiskCacheOptions;
  readonly #staging = new SharedArrayBuffer((READ_PLACES + WRITE_PLACES) * BLOCK_SIZE);
  readonly #readPlaces = Array.from({ length: READ_PLACES }, (_, i) => i);
  readonly #writePlaces = Array.from({ length: WRITE_PLACES }, (_, i) => READ_PLACES + i);
  readonly #waiting: ((place: number) => void)[] = [];
  readonly #pending = new Map<number, (answer: FromDiskWorker | undefined) => void>();
  readonly #ended: Promise<void>;
  #lastId = 0;
  #late = 0;
  #isOff = false;
  #hits = 0;
  #kept = 0;
  #dropped = 0;

  constructor(options: DiskCacheOptions) {
    this.#options = options;
    const { folder, bytes } = options;
    const workerData: DiskWorkerSetup = { folder, bytes, staging: this.#staging };
    this.#worker = new Worker(workerUrl(import.meta.url, "./disk-cache-worker.js"), { workerData });
    // No process lives on for its cache; whoever waits for a read has a timer.
    this.#worker.unref();
    this.#worker.on("message", (message: FromDiskWorker) => this.#hear(message));
    this.#worker.on("error", (error) => this.turnOff(error.message));
    this.#ended = new Promise((resolve) => {
      this.#worker.on("exit", () => {
        this.turnOff("its thread ended");
        resolve();
      });
    });
  }

  /**
   * Copies the first key's block into target, or leaves target as it is. Never rejects.
   * @param keys of the block, and of others that are looked for where it is not here.
   */
  async read(keys: readonly Uint8Array[], target: Uint8Array): Promise<DiskAnswer> {
    if (this.#isOff) return NOTHING;
    const until = performance.now() + READ_LIMIT_MS;
    const place = this.#readPlaces.pop() ?? (await this.#placeSoon());
    if (place < 0) return NOTHING;
    // Till the worker answers the place is its own, whether or not anyone still waits for it.
    const answered = this.#ask((id) => ({ kind: "read", id, place, keys }));
    const late = after(until - performance.now());
    const answer = await Promise.race([answered, late.passed]);
    late.stop();
    if (answer?.kind !== "read") {
      void answered.then(() => this.#giveBack(place));
      if (!this.#isOff) this.#noteLate();
      return NOTHING;
    }
    if (answer.found) {
      target.set(new Uint8Array(this.#staging, place * BLOCK_SIZE, BLOCK_SIZE));
      this.#hits += 1;
    }
    this.#giveBack(place);
    return answer;
  }

  /** Keeps a copy of the block soon, or not at all; data may change once this returns. */
  write(key: Uint8Array, data: Uint8Array): void {
    if (this.#isOff) return;
    const place = this.#writePlaces.pop();
    if (place === undefined) {
      this.#dropped += 1;
      return;
    }
    new Uint8Array(this.#staging, place * BLOCK_SIZE, BLOCK_SIZE).set(data);
    void this.#ask((id) => ({ kind: "write", id, place, key })).then((answer) => {
      this.#writePlaces.push(place);
      if (answer?.kind === "written" && answer.isKept) this.#kept += 1;
    });
  }

  /** Notes that a snapshot is mounted; gives others of its namespace, latest first. Never rejects. */
  async remember(namespace: string, snapshotId: SnapshotId, most: number): Promise<SnapshotId[]> {
    if (this.#isOff) return [];
    const late = after(READ_LIMIT_MS);
    const asked = this.#ask((id) => ({ kind: "remember", id, namespace, snapshotId, most }));
    const answer = await Promise.race([asked, late.passed]);
    late.stop();
    if (answer?.kind === "remembered") return [...answer.others];
    this.turnOff("its disk does not answer");
    return [];
  }

  /** From now on nothing is found here and nothing is kept. */
  turnOff(why: string): void {
    if (this.#isOff) return;
    this.#isOff = true;
    this.#options.log(
      "warn",
      `The cache folder ${this.#options.folder} is not used any more: ${why}; everything else goes on.`,
    );
    this.#settleAll();
  }

  reading(): DiskReading {
    return { hits: this.#hits, kept: this.#kept, dropped: this.#dropped };
  }

  /** Lets what is queued be written, but not for long. */
  async close(): Promise<void> {
    const wasOff = this.#isOff;
    this.#isOff = true;
    if (!wasOff) {
      this.#say({ kind: "close" });
      const late = after(CLOSE_LIMIT_MS);
      await Promise.race([this.#ended, late.passed]);
      late.stop();
    }
    // A thread that hangs in a system call cannot be ended; the process's end must not wait for it.
    const late = after(CLOSE_LIMIT_MS);
    await Promise.race([this.#worker.terminate(), late.passed]);
    late.stop();
    this.#settleAll();
  }

  #ask(make: (id: number) => ToDiskWorker): Promise<FromDiskWorker | undefined> {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve) => {
      this.#pending.set(id, resolve);
      this.#say(make(id));
    });
  }

  #say(message: ToDiskWorker): void {
    this.#worker.postMessage(message);
  }

  #hear(message: FromDiskWorker): void {
    if (message.kind === "trouble") {
      const { folder, log } = this.#options;
      if (message.what === "off") this.turnOff(message.sentence);
      else if (message.what === "damaged")
        log("warn", `The cache folder ${folder}: ${message.sentence}.`);
      else log("warn", `The cache folder ${folder} takes no new blocks: ${message.sentence}.`);
      return;
    }
    const settle = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    settle?.(message);
  }

  /** Resolves -1 where the cache is off by then. As many wait as there are fetches at a time. */
  #placeSoon(): Promise<number> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  #giveBack(place: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#readPlaces.push(place);
    else next(this.#isOff ? -1 : place);
  }

  #noteLate(): void {
    this.#late += 1;
    if (this.#late >= MOST_LATE) this.turnOff("its disk does not answer");
  }

  #settleAll(): void {
    for (const resolve of this.#waiting.splice(0)) resolve(-1);
    const left = [...this.#pending.values()];
    this.#pending.clear();
    for (const settle of left) settle(undefined);
  }
}

function after(ms: number): { readonly passed: Promise<undefined>; stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  const passed = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), Math.max(ms, 0));
  });
  return { passed, stop: () => clearTimeout(timer) };
}
