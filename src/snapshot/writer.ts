/**
 * A new snapshot being written: start, put blocks in any order and in parallel, complete, and wait
 * until it is really there. The writer keeps nothing of the blocks but their digests, in a ledger of
 * the caller's choosing, so a put costs no memory once it is done and a session that was interrupted
 * goes on with its ledger. How many puts run at once is the caller's business.
 *
 * Waiting: CompleteSnapshot answers `pending` and the EBS direct operations have no "describe". This
 * program asks for no EC2 permissions, so it asks ListSnapshotBlocks instead, which answers only for
 * a completed snapshot (user guide: "you can't list or get blocks of a pending snapshot"). Whoever
 * may write but not list gets AccessDenied there: then completion cannot be asked, which is no
 * failure of the snapshot.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf, Failure } from "../common/failure.js";
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../common/sizes.js";
import type {
  BlockPage,
  EbsApi,
  SnapshotStatus,
  StartedSnapshot,
  StartSnapshotOptions,
} from "../ebs/api.js";
import { isMalformed } from "../ebs/errors.js";
import { MIN_PAGE_BLOCKS } from "../ebs/list-walk.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { aggregateDigests, type DigestLedger, MemoryDigests } from "./digest-ledger.js";

/** How long completing may take before we stop asking, ms: most snapshots need a few minutes. */
export const COMPLETION_LIMIT_MS = 60 * 60_000;
const FIRST_POLL_MS = 100;
const LAST_POLL_MS = 5000;

export interface WriterState {
  readonly snapshotId: SnapshotId;
  readonly volumeSizeGiB: number;
  /** What the service said when it was started: `completed` or `error` where it is an old one. */
  readonly status: SnapshotStatus;
  /** Blocks that have been put already; a new ledger in memory where there are none. */
  readonly digests?: DigestLedger;
}

export interface CompleteOptions {
  /** Wait until the snapshot can be read; true unless told otherwise. */
  readonly wait?: boolean;
  /** Longest wait, ms; COMPLETION_LIMIT_MS unless told otherwise. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** `completed`: it can be read. `accepted`: the service took it, and goes on by itself. */
export type Completion = "completed" | "accepted";

/** A page of a snapshot's list, and the block index from which it was asked for. */
export interface ListedFrom {
  readonly from: number;
  readonly page: BlockPage;
}

/** The lowest block that was put; undefined where none was. */
export async function firstPut(digests: DigestLedger): Promise<number | undefined> {
  for await (const { blockIndex } of digests.entries()) return blockIndex;
  return undefined;
}

/**
 * Starts a snapshot, or finds the one that was started with the same client token.
 * @param options clientToken is the caller's, kept where a crash cannot lose it before this call.
 * @param openDigests opens the ledger of that snapshot; the caller closes it (writer.digests).
 * @throws Failure EINVAL for what the service would refuse, and all that the service answers.
 */
export async function startSnapshotWriter(
  api: EbsApi,
  options: StartSnapshotOptions,
  openDigests: (snapshotId: SnapshotId) => Promise<DigestLedger> = async () => new MemoryDigests(),
): Promise<SnapshotWriter> {
  // Source: StartSnapshot, ValidationException where both are given.
  if (options.parentSnapshotId !== undefined && (options.encrypted || options.kmsKeyArn)) {
    throw new Failure(
      "EINVAL",
      "A snapshot with a parent takes over the parent's encryption; leave the encryption options out.",
    );
  }
  const started = await api.startSnapshot(options);
  if (started.volumeSizeGiB !== options.volumeSizeGiB) {
    throw new Failure(
      "EIO",
      `The service started ${started.snapshotId} with ${started.volumeSizeGiB} GiB instead of ${options.volumeSizeGiB} GiB; nothing was written.`,
    );
  }
  const { parentSnapshotId: asked } = options;
  const { parentSnapshotId: answered } = started;
  // An answer that names none settles nothing: see inherited-blocks.ts.
  if (asked !== undefined && answered !== undefined && answered !== asked) {
    throw new Failure(
      "EIO",
      `The service started ${started.snapshotId} as a child of ${answered} instead of ${asked}; nothing was written.`,
    );
  }
  checkEncryption(options, started);
  return new SnapshotWriter(api, { ...started, digests: await openDigests(started.snapshotId) });
}

/**
 * A server that does not know of encryption must not be sent what was to be encrypted. Of a child
 * nothing is asked: it is encrypted as its parent is.
 * @throws Failure EIO
 */
function checkEncryption(
  { encrypted, kmsKeyArn: asked }: StartSnapshotOptions,
  { snapshotId, kmsKeyArn: found }: StartedSnapshot,
): void {
  if (!encrypted && asked === undefined) return;
  if (found !== undefined && (asked === undefined || asked === found)) return;
  const wanted =
    asked === undefined ? "encryption was asked for" : `the key ${asked} was asked for`;
  const named = found === undefined ? "without naming a key" : `with the key ${found}`;
  throw new Failure(
    "EIO",
    `The service started ${snapshotId} ${named}, though ${wanted}; nothing was put into it. Check --endpoint-url, --encrypted and --kms-key-arn.`,
  );
}

export class SnapshotWriter {
  readonly snapshotId: SnapshotId;
  readonly status: SnapshotStatus;
  readonly digests: DigestLedger;
  readonly #api: EbsApi;
  readonly #blocks: number;
  #listed: ListedFrom | undefined;

  /** Goes on with a snapshot that is known to be pending; to start one see startSnapshotWriter. */
  constructor(api: EbsApi, state: WriterState) {
    this.#api = api;
    this.snapshotId = state.snapshotId;
    this.status = state.status;
    this.digests = state.digests ?? new MemoryDigests();
    this.#blocks = state.volumeSizeGiB * BLOCKS_PER_GIB;
  }

  /** The page that showed that the snapshot is completed, from the first put block on. */
  get listed(): ListedFrom | undefined {
    return this.#listed;
  }

  /**
   * Puts one block, or puts it again. Never two puts of one block at a time: which of them the
   * service keeps would be unknown.
   * @param data BLOCK_SIZE bytes that do not change until this settles; best a sharedBlock(), which
   * worker threads can read where it is.
   * @returns its SHA-256, 32 bytes.
   */
  async put(blockIndex: number, data: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    if (!(blockIndex >= 0 && blockIndex < this.#blocks) || data.length !== BLOCK_SIZE) {
      throw new RangeError(`no such block to put: ${blockIndex} with ${data.length} bytes`);
    }
    const digest = await this.#api.putSnapshotBlock(this.snapshotId, blockIndex, data, signal);
    await this.digests.set(blockIndex, digest);
    return digest;
  }

  /**
   * Completes the snapshot with the number and the checksum of all blocks put, then waits: what is
   * called completed has been listed, whatever the service said. A lost answer is found out by looking whether the snapshot can be read.
   * @throws Failure ETIMEDOUT where it is not completed within the limit; it may be later.
   */
  async complete(options: CompleteOptions = {}): Promise<Completion> {
    const { signal } = options;
    const { count, checksum } = await aggregateDigests(this.digests);
    let status: SnapshotStatus;
    try {
      status = await this.#api.completeSnapshot(this.snapshotId, count, checksum, signal);
    } catch (error) {
      signal?.throwIfAborted();
      // An earlier complete may have worked though its answer was lost: then it can be read.
      if ((await this.#ask(signal)) === "completed") return "completed";
      throw error;
    }
    if (status === "error") {
      throw new Failure(
        "EIO",
        `The service could not complete ${this.snapshotId}: its status is "error". Delete it and write it anew.`,
      );
    }
    if (options.wait !== false) return await this.waitCompleted(options);
    return status === "completed" ? "completed" : "accepted";
  }

  /** Waits until the snapshot, whose completion was asked for, can be read. Throws as complete. */
  async waitCompleted(options: CompleteOptions = {}): Promise<Completion> {
    const limit = options.timeoutMs ?? COMPLETION_LIMIT_MS;
    const end = performance.now() + limit;
    let pause = FIRST_POLL_MS;
    for (;;) {
      const answer = await this.#ask(options.signal);
      if (answer === "completed") return "completed";
      if (answer === "forbidden") return "accepted";
      const left = end - performance.now();
      if (left <= 0) {
        throw new Failure(
          "ETIMEDOUT",
          `${this.snapshotId} was written, but is not completed after ${Math.round(limit / 1000)} s; look later with: aws ec2 describe-snapshots --snapshot-ids ${this.snapshotId}`,
        );
      }
      await sleep(Math.min(pause, left), undefined, { signal: options.signal }).catch(() => {});
      options.signal?.throwIfAborted();
      pause = Math.min(pause * 1.5, LAST_POLL_MS);
    }
  }

  /**
   * Any refusal but AccessDenied means "not yet": how a pending snapshot is refused is not settled. A
   * list that makes no sense will make none later either.
   */
  async #ask(signal: AbortSignal | undefined): Promise<"completed" | "forbidden" | "not yet"> {
    const from = (await firstPut(this.digests)) ?? 0;
    try {
      const page = await this.#api.listSnapshotBlocks(this.snapshotId, {
        startingBlockIndex: from,
        maxResults: MIN_PAGE_BLOCKS,
        ...(signal && { signal }),
      });
      this.#listed = { from, page };
      return "completed";
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Failure) || isMalformed(error)) throw error;
      return errnoOf(error) === "EACCES" ? "forbidden" : "not yet";
    }
  }
}
