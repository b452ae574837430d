/**
 * The folder behind the endpoint: `store.json` (format, owner id, token secret), and a folder a
 * snapshot under `snapshots` with its record (snapshot-record.ts) and its own blocks (layer.ts). A
 * child stores only what was put into it and finds the rest along its lineage (snapshot-view.ts).
 * Everything acknowledged is in the kernel's hands before the answer goes out, so kill -9 loses
 * nothing; with `sync` it is on the disk. One process has the folder at a time: the lock on
 * `store.lock` dies with its holder. A snapshot whose record is damaged is not served, and said so;
 * the others are.
 */
import { createHash, randomBytes } from "node:crypto";
import { closeSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../common/failure.js";
import type { SnapshotStatus } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { DATA_FILE, INDEX_FILE } from "./layer.js";
import { PendingLayer } from "./pending-layer.js";
import { invalid, noSnapshot, ServiceError } from "./service-error.js";
import {
  readRecord,
  type SnapshotRecord,
  type StartParameters,
  syncPath,
  writeRecord,
} from "./snapshot-record.js";
import { lockFolder, readIdentity } from "./store-folder.js";
import type { SyntheticSpec } from "./synthetic.js";

export interface StoreOptions {
  /** The folder; made if missing. */
  readonly folder: string;
  /** Acknowledge only what is on the disk. */
  readonly sync: boolean;
  /** What a minute of the Timeout clock lasts, ms. */
  readonly minuteMs: number;
  /**
   * How long a completed snapshot stays `pending`, ms; 0: CompleteSnapshot itself says `completed`.
   * undefined: it says `pending`, and the snapshot is completed for every later request.
   */
  readonly completionDelayMs: number | undefined;
  /** Snapshots that may be pending at a time. */
  readonly maxPending: number;
  /** Told what of the folder cannot be served. */
  readonly log: (message: string) => void;
}

/** What a snapshot's folder is called from the moment its removal begins. */
const GONE = ".gone-";

export class Store {
  readonly ownerId: string;
  readonly secret: Buffer;
  readonly #options: StoreOptions;
  readonly #lock: number;
  readonly #records = new Map<string, SnapshotRecord>();
  readonly #byClientToken = new Map<string, SnapshotRecord>();
  /** At most maxPending, one a pending snapshot. */
  readonly #pending = new Map<string, PendingLayer>();

  /** @throws Failure where the folder cannot be used, is in use, or holds something else. */
  constructor(options: StoreOptions) {
    this.#options = options;
    this.#lock = lockFolder(options.folder);
    try {
      const identity = readIdentity(options.folder);
      this.ownerId = identity.ownerId;
      this.secret = Buffer.from(identity.secret, "base64");
      const names = readdirSync(join(options.folder, "snapshots"));
      const loaded = names.map((name) => this.#load(name));
      // One that cannot be read may inherit from any.
      if (loaded.every(Boolean)) for (const record of this.#records.values()) this.#drop(record);
    } catch (error) {
      closeSync(this.#lock);
      if (error instanceof Failure) throw error;
      throw new Failure(
        "EIO",
        `The store ${options.folder} cannot be read (${(error as Error).message}); choose another folder or restore this one.`,
        { cause: error },
      );
    }
  }

  /** All snapshots that a user can see, in the order in which they were started. */
  list(): SnapshotRecord[] {
    const seen = [...this.#records.values()].filter((record) => record.removed !== true);
    for (const record of seen) this.#settle(record);
    return seen.sort((a, b) => a.startedAt - b.startedAt);
  }

  /** @throws ServiceError SNAPSHOT_NOT_FOUND */
  get(snapshotId: string): SnapshotRecord {
    const record = this.find(snapshotId);
    if (record === undefined) throw noSnapshot(snapshotId);
    return record;
  }

  /** As get; undefined where its user would not see it. */
  find(snapshotId: string): SnapshotRecord | undefined {
    const record = this.#records.get(snapshotId);
    if (record === undefined || record.removed === true) return undefined;
    this.#settle(record);
    return record;
  }

  /** The record of a snapshot in a lineage, whether or not its user removed it. */
  ancestor(snapshotId: string): SnapshotRecord | undefined {
    return this.#records.get(snapshotId);
  }

  dataFile(snapshotId: string): string {
    return join(this.#folder(snapshotId), DATA_FILE);
  }

  indexFile(snapshotId: string): string {
    return join(this.#folder(snapshotId), INDEX_FILE);
  }

  /**
   * The snapshot that this request, by its ClientToken, has made before.
   * @throws ServiceError ConflictException
   */
  startedBy(asked: StartParameters): SnapshotRecord | undefined {
    const { clientToken } = asked;
    const earlier = clientToken === undefined ? undefined : this.#byClientToken.get(clientToken);
    if (earlier === undefined) return undefined;
    this.#settle(earlier);
    if (earlier.request === requestOf(asked)) return earlier;
    throw new ServiceError(
      "ConflictException",
      "Another request with other parameters used this client token.",
    );
  }

  /**
   * A new pending snapshot.
   * @param kmsKeyArn the key that it inherits.
   * @throws ServiceError ConcurrentLimitExceededException
   */
  start(asked: StartParameters, kmsKeyArn = asked.kmsKeyArn): SnapshotRecord {
    const pending = this.list().filter((record) => record.status === "pending").length;
    if (pending >= this.#options.maxPending) {
      throw new ServiceError(
        "ConcurrentLimitExceededException",
        `${pending} snapshots are pending, which is the limit.`,
      );
    }
    const now = Date.now();
    const record: SnapshotRecord = {
      snapshotId: `snap-0${randomBytes(8).toString("hex")}`,
      parameters: { ...asked, ...(kmsKeyArn !== undefined && { kmsKeyArn }) },
      request: requestOf(asked),
      startedAt: now,
      status: "pending",
      activeAt: now,
    };
    this.#create(record);
    return record;
  }

  /** The synthetic snapshot of this description; its id follows from the description. */
  createSynthetic(spec: SyntheticSpec): SnapshotId {
    const text = JSON.stringify([spec.volumeSizeGiB, spec.written, spec.seed]);
    const digest = createHash("sha256").update(text).digest("hex");
    const snapshotId: SnapshotId = `snap-5${digest.slice(0, 16)}`;
    const known = this.#records.get(snapshotId);
    const now = Date.now();
    if (known === undefined || known.removed === true) {
      this.#create({
        snapshotId,
        parameters: { volumeSizeGiB: spec.volumeSizeGiB, tags: [], timeoutMinutes: 60 },
        request: "",
        startedAt: now,
        status: "completed",
        activeAt: now,
        synthetic: spec,
      });
    }
    return snapshotId;
  }

  /** The layer that takes a pending snapshot's puts. @throws ServiceError where it is not pending. */
  pendingLayer(record: SnapshotRecord): PendingLayer {
    this.#settle(record);
    if (record.status !== "pending" || record.completesAt !== undefined) {
      throw invalid(
        "INVALID_SNAPSHOT_ID",
        `The snapshot '${record.snapshotId}' is not pending (its status is ${record.status}).`,
      );
    }
    record.activeAt = Date.now();
    let layer = this.#pending.get(record.snapshotId);
    if (layer === undefined) {
      layer = new PendingLayer(this.#folder(record.snapshotId), this.#options.sync);
      this.#pending.set(record.snapshotId, layer);
    }
    return layer;
  }

  /** Seals a pending snapshot whose blocks have been checked. @returns its status for now. */
  complete(record: SnapshotRecord): SnapshotStatus {
    const layer = this.pendingLayer(record);
    const { completionDelayMs } = this.#options;
    const completesAt = Date.now() + (completionDelayMs ?? 0);
    const [changedBlocksCount, aggregate] = [layer.blockCount, layer.aggregate()];
    this.#write({ ...record, completesAt, changedBlocksCount, aggregate });
    Object.assign(record, { completesAt, changedBlocksCount, aggregate });
    layer.seal();
    this.#pending.delete(record.snapshotId);
    if (completionDelayMs !== undefined) this.#settle(record);
    return record.status;
  }

  /**
   * Removes a snapshot; its blocks stay for as long as others inherit them.
   * @returns the snapshots whose blocks are gone: itself and removed ancestors, as far as they are.
   */
  remove(snapshotId: string): string[] {
    const record = this.get(snapshotId);
    this.#dropPending(record);
    record.removed = true;
    this.#write(record);
    const { clientToken } = record.parameters;
    if (clientToken !== undefined) this.#byClientToken.delete(clientToken);
    return this.#drop(record);
  }

  /** No call is under way any more. */
  close(): void {
    for (const layer of this.#pending.values()) layer.seal();
    this.#pending.clear();
    closeSync(this.#lock);
  }

  #folder(snapshotId: string): string {
    return join(this.#options.folder, "snapshots", snapshotId);
  }

  #hasChildren(snapshotId: string): boolean {
    for (const { parameters } of this.#records.values()) {
      if (parameters.parentSnapshotId === snapshotId) return true;
    }
    return false;
  }

  /** Takes away a removed snapshot that nobody inherits from, and then its parent likewise. */
  #drop(record: SnapshotRecord): string[] {
    const dropped: string[] = [];
    let candidate: SnapshotRecord | undefined = record;
    while (candidate?.removed === true && !this.#hasChildren(candidate.snapshotId)) {
      const { snapshotId, parameters }: SnapshotRecord = candidate;
      this.#records.delete(snapshotId);
      dropped.push(snapshotId);
      this.#removeFolder(snapshotId);
      const parent: string | undefined = parameters.parentSnapshotId;
      candidate = parent === undefined ? undefined : this.#records.get(parent);
    }
    return dropped;
  }

  /** Under another name first, so that a removal that is cut off is known for one. */
  #removeFolder(snapshotId: string): void {
    const gone = this.#folder(`${GONE}${snapshotId}`);
    renameSync(this.#folder(snapshotId), gone);
    rmSync(gone, { recursive: true, force: true });
  }

  /** @returns whether it is known what this name is. */
  #load(name: string): boolean {
    if (name.startsWith(GONE)) rmSync(this.#folder(name), { recursive: true, force: true });
    if (!/^snap-[0-9a-f]+$/.test(name)) return true;
    let record: SnapshotRecord | undefined;
    try {
      record = readRecord(this.#folder(name));
    } catch (error) {
      this.#options.log(`${(error as Error).message} ${name} is not served.`);
      return false;
    }
    if (record === undefined) return true;
    if (record.status === "pending") {
      const written = statSync(this.indexFile(name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
      record.activeAt = Math.max(record.activeAt, written);
    }
    this.#remember(record);
    return true;
  }

  #remember(record: SnapshotRecord): void {
    this.#records.set(record.snapshotId, record);
    const { clientToken } = record.parameters;
    if (clientToken !== undefined && record.removed !== true) {
      this.#byClientToken.set(clientToken, record);
    }
  }

  #create(record: SnapshotRecord): void {
    const folder = this.#folder(record.snapshotId);
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      this.#write(record);
      if (this.#options.sync) syncPath(join(folder, ".."));
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
    this.#remember(record);
  }

  #write(record: SnapshotRecord): void {
    writeRecord(this.#folder(record.snapshotId), record, this.#options.sync);
  }

  #dropPending(record: SnapshotRecord): void {
    this.#pending.get(record.snapshotId)?.seal();
    this.#pending.delete(record.snapshotId);
  }

  /** Applies what time alone has changed. */
  #settle(record: SnapshotRecord): void {
    if (record.status !== "pending") return;
    const now = Date.now();
    if (record.completesAt !== undefined) {
      if (now < record.completesAt) return;
      record.status = "completed";
    } else {
      const limit = record.parameters.timeoutMinutes * this.#options.minuteMs;
      if (now - record.activeAt < limit) return;
      record.status = "error";
      this.#dropPending(record);
      // Nobody can read or finish it now: its space goes back.
      rmSync(this.dataFile(record.snapshotId), { force: true });
      rmSync(this.indexFile(record.snapshotId), { force: true });
    }
    this.#write(record);
  }
}

/**
 * Tells a repeated request from another one with the same ClientToken, by what was asked and not by
 * how it was written: the order of tags means nothing.
 */
function requestOf({ clientToken: _, ...asked }: StartParameters): string {
  const tags = [...asked.tags].sort((a, b) => (a.Key < b.Key ? -1 : 1));
  return createHash("sha256")
    .update(JSON.stringify({ ...asked, tags }))
    .digest("hex");
}
