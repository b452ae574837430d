/**
 * The service in memory, as the committer sees it: one parent, pending and completed snapshots, client
 * tokens. It can fail before or after it did what was asked (a lost answer), let pending snapshots die
 * and be slow to complete.
 */

import { BLOCK_SIZE } from "../../src/common/sizes.js";
import type {
  BlockPage,
  ChangedBlockPage,
  EbsApi,
  ListOptions,
  SnapshotStatus,
  StartedSnapshot,
  StartSnapshotOptions,
} from "../../src/ebs/api.js";
import { LinearChecksum, sha256 } from "../../src/ebs/checksum.js";
import { EbsError } from "../../src/ebs/errors.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";

type Operation = "StartSnapshot" | "PutSnapshotBlock" | "CompleteSnapshot" | "ListSnapshotBlocks";

export interface FakeSnapshot {
  readonly id: SnapshotId;
  status: SnapshotStatus;
  readonly token: string;
  readonly volumeSizeGiB: number;
  readonly parent: SnapshotId | undefined;
  readonly blocks: Map<number, Buffer>;
  /** Asks until it is completed. */
  completesIn: number | undefined;
}

function refused(operation: Operation, message: string, exception = "ValidationException") {
  return new EbsError({ operation, message, exception, errno: "EIO", attempts: 1 });
}

export class FakeEbs implements EbsApi {
  readonly snapshots: FakeSnapshot[] = [];
  puts = 0;
  calls: Record<Operation, number> = {
    StartSnapshot: 0,
    PutSnapshotBlock: 0,
    CompleteSnapshot: 0,
    ListSnapshotBlocks: 0,
  };
  /** How each call fares; asked before it is done. */
  fate: (operation: Operation) => "done" | "failed" | "lost" = () => "done";
  /** The exception by which a call is refused, if it is. */
  refusal: (operation: Operation) => string | undefined = () => undefined;
  /** Forgets client tokens: asked again, it starts another snapshot. */
  forgetful = false;
  /** The key that a snapshot is said to be encrypted with. */
  kmsKeyOf: (options: StartSnapshotOptions) => string | undefined = ({ kmsKeyArn, encrypted }) =>
    kmsKeyArn ?? (encrypted ? "arn:aws:kms:us-east-1:000000000000:key/default" : undefined);
  /** Blocks that a child takes over from the parent. */
  inherited: readonly number[] = [];
  /** Called before each put. */
  beforePut: (block: number) => Promise<void> | void = () => {};
  /** Times that a snapshot is still pending after its completion was taken. */
  slowness = 0;
  putting = 0;
  mostPutting = 0;

  get completed(): FakeSnapshot[] {
    return this.snapshots.filter((snapshot) => snapshot.status === "completed");
  }

  async startSnapshot(options: StartSnapshotOptions): Promise<StartedSnapshot> {
    return this.#call("StartSnapshot", () => {
      let snapshot = this.forgetful
        ? undefined
        : this.snapshots.find(({ token }) => token === options.clientToken);
      if (snapshot === undefined) {
        snapshot = {
          id: `snap-${(this.snapshots.length + 1).toString(16).padStart(8, "0")}`,
          status: "pending",
          token: options.clientToken,
          volumeSizeGiB: options.volumeSizeGiB,
          parent: options.parentSnapshotId,
          blocks: new Map(),
          completesIn: undefined,
        };
        this.snapshots.push(snapshot);
      }
      this.#settle(snapshot);
      return {
        snapshotId: snapshot.id,
        status: snapshot.status,
        volumeSizeGiB: snapshot.volumeSizeGiB,
        parentSnapshotId: snapshot.parent,
        startedAgoMs: 0,
        kmsKeyArn: this.kmsKeyOf(options),
      };
    });
  }

  async putSnapshotBlock(id: SnapshotId, block: number, data: Uint8Array): Promise<Uint8Array> {
    this.putting += 1;
    this.mostPutting = Math.max(this.mostPutting, this.putting);
    try {
      await this.beforePut(block);
      return await this.#call("PutSnapshotBlock", () => {
        if (data.length !== BLOCK_SIZE) throw new Error("not a block");
        this.puts += 1;
        this.#pending(id, "PutSnapshotBlock").blocks.set(block, Buffer.from(data));
        return sha256(data);
      });
    } finally {
      this.putting -= 1;
    }
  }

  async completeSnapshot(
    id: SnapshotId,
    count: number,
    checksum?: string,
  ): Promise<SnapshotStatus> {
    return this.#call("CompleteSnapshot", () => {
      const snapshot = this.#pending(id, "CompleteSnapshot");
      const linear = new LinearChecksum();
      for (const [block, data] of [...snapshot.blocks].sort(([a], [b]) => a - b)) {
        linear.add(block, sha256(data));
      }
      if (linear.count !== count) throw refused("CompleteSnapshot", "wrong count");
      if (checksum !== undefined && linear.base64() !== checksum) {
        throw refused("CompleteSnapshot", "wrong checksum");
      }
      snapshot.completesIn = this.slowness;
      this.#settle(snapshot);
      return snapshot.status;
    });
  }

  async listSnapshotBlocks(id: SnapshotId, options: ListOptions = {}): Promise<BlockPage> {
    return this.#call("ListSnapshotBlocks", () => {
      const snapshot = this.#find(id, "ListSnapshotBlocks");
      this.#settle(snapshot);
      if (snapshot.status !== "completed") throw refused("ListSnapshotBlocks", "not completed");
      const from = options.startingBlockIndex ?? 0;
      const inherited = snapshot.parent === undefined ? [] : this.inherited;
      const all = [...new Set([...inherited, ...snapshot.blocks.keys()])];
      const indexes = all.filter((n) => n >= from).sort((a, b) => a - b);
      return {
        blockIndexes: Uint32Array.from(indexes),
        blockTokens: indexes.map((n) => `token${n}`),
        expiresAt: Date.now() + 1e9,
        volumeSizeGiB: snapshot.volumeSizeGiB,
        nextToken: undefined,
      };
    });
  }

  listChangedBlocks(): Promise<ChangedBlockPage> {
    throw new Error("not used");
  }

  getSnapshotBlock(): Promise<void> {
    throw new Error("not used");
  }

  async close(): Promise<void> {}

  /** All pending snapshots time out. */
  killPending(): void {
    for (const snapshot of this.snapshots) {
      if (snapshot.status === "pending" && snapshot.completesIn === undefined) {
        snapshot.status = "error";
      }
    }
  }

  #settle(snapshot: FakeSnapshot): void {
    if (snapshot.completesIn === undefined || snapshot.status !== "pending") return;
    if (snapshot.completesIn === 0) snapshot.status = "completed";
    else snapshot.completesIn -= 1;
  }

  async #call<T>(operation: Operation, work: () => T): Promise<T> {
    this.calls[operation] += 1;
    await new Promise((resolve) => setImmediate(resolve));
    const fate = this.fate(operation);
    const trouble = () =>
      new EbsError({
        operation,
        message: `${operation} timed out`,
        exception: "TimeoutError",
        errno: "ETIMEDOUT",
        attempts: 3,
      });
    if (fate === "failed") throw trouble();
    const exception = this.refusal(operation);
    if (exception !== undefined) throw refused(operation, "refused", exception);
    const answer = work();
    if (fate === "lost") throw trouble();
    return answer;
  }

  #find(id: SnapshotId, operation: Operation): FakeSnapshot {
    const snapshot = this.snapshots.find((known) => known.id === id);
    if (snapshot === undefined) throw refused(operation, "none", "ResourceNotFoundException");
    return snapshot;
  }

  #pending(id: SnapshotId, operation: Operation): FakeSnapshot {
    const snapshot = this.#find(id, operation);
    this.#settle(snapshot);
    if (snapshot.status !== "pending" || snapshot.completesIn !== undefined) {
      throw refused(operation, "not pending");
    }
    return snapshot;
  }
}
