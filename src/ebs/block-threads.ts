/**
 * Blocks over several threads. One block costs about a millisecond of processor time, most of it TLS and
 * SHA-256; so one thread stays below what the service allows and keeps one core busy. The threads are started
 * when blocks are first wanted in parallel; until they are ready, and should they die, the main thread does
 * the work itself.
 */
import { setMaxListeners } from "node:events";
import { BLOCK_SIZE } from "../common/sizes.js";
import { abortError } from "../http/http-error.js";
import type { HttpTransport, TransportSettings } from "../http/transport.js";
import { type BlockRequest, sendBlockRequest } from "./block-request.js";
import { BlockThread, ThreadGone } from "./block-thread.js";
import { Signer, type SigningContext } from "./signature.js";

/** Blocks in flight in the main thread at which the threads are started. */
const BUSY = 4;
/** Copies kept for callers whose memory is not shared; more are made and dropped. */
const SCRATCH_KEPT = 64;

export class BlockThreads {
  readonly #count: number;
  readonly #log: (level: "debug" | "warn", message: string) => void;
  #threads: BlockThread[] | undefined;
  #signer: Signer | undefined;
  #inFlightHere = 0;
  #isClosed = false;
  readonly #scratch: Uint8Array[] = [];

  /** @param count threads; 0 does everything in the calling thread. */
  constructor(count: number, log: (level: "debug" | "warn", message: string) => void) {
    this.#count = count;
    this.#log = log;
  }

  /** Threads that have loaded and take work. */
  get ready(): number {
    return (this.#threads ?? []).filter(({ isReady }) => isReady).length;
  }

  /**
   * One try. After it has settled the block's memory is not touched any more.
   * @param block what a get fills and a put sends, exactly BLOCK_SIZE bytes.
   * @returns the block's raw SHA-256, 32 bytes. @throws as sendBlockRequest
   */
  async send(
    { transport, settings }: { transport: HttpTransport; settings: TransportSettings },
    context: SigningContext,
    request: BlockRequest,
    block: Uint8Array,
    signal?: AbortSignal,
    progress?: (bodyBytes: number) => void,
  ): Promise<Uint8Array> {
    // One signal often ends many jobs at a time, which Node would warn about.
    if (signal !== undefined) setMaxListeners(0, signal);
    for (let thread = this.#leastBusy(); thread !== undefined; thread = this.#leastBusy()) {
      try {
        return await this.#inThread(thread, context, request, block, signal, progress);
      } catch (error) {
        if (!(error instanceof ThreadGone)) throw error;
        if (this.#isClosed || signal?.aborted) throw abortError("closed");
      }
    }
    this.#inFlightHere += 1;
    if (this.#inFlightHere >= BUSY) this.#start(settings);
    try {
      if (this.#signer?.context !== context) this.#signer = new Signer(context);
      return await sendBlockRequest(transport, this.#signer, request, block, signal, progress);
    } finally {
      this.#inFlightHere -= 1;
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all((this.#threads ?? []).map((thread) => thread.close()));
  }

  async #inThread(
    thread: BlockThread,
    context: SigningContext,
    request: BlockRequest,
    block: Uint8Array,
    signal: AbortSignal | undefined,
    progress: ((bodyBytes: number) => void) | undefined,
  ): Promise<Uint8Array> {
    if (block.buffer instanceof SharedArrayBuffer) {
      return await thread.run(request, context, block, signal, progress);
    }
    const scratch = this.#scratch.pop() ?? new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));
    try {
      if (request.kind === "put") scratch.set(block);
      const digest = await thread.run(request, context, scratch, signal, progress);
      if (request.kind === "get") block.set(scratch);
      return digest;
    } finally {
      if (this.#scratch.length < SCRATCH_KEPT) this.#scratch.push(scratch);
    }
  }

  #leastBusy(): BlockThread | undefined {
    let least: BlockThread | undefined;
    for (const thread of this.#threads ?? []) {
      if (thread.isReady && (least === undefined || thread.load < least.load)) least = thread;
    }
    return least;
  }

  #start(settings: TransportSettings): void {
    if (this.#threads !== undefined || this.#isClosed) return;
    const make = () => new BlockThread({ settings }, this.#log);
    this.#threads = Array.from({ length: this.#count }, make);
  }
}
