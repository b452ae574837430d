/**
 * The pending snapshot that a session is being put into: started once, with a ClientToken that is on
 * disk before the service hears it, found again after a crash or a lost answer by that same token, and
 * begun anew (new token, new upload log) only when the service says that it is lost: gone, or in state
 * `error`. StartSnapshot with the token of a snapshot that exists changes nothing and tells its status,
 * so it serves as the question as well. A service that has forgotten the token makes another snapshot
 * instead; that proves nothing of the first, which is then asked for by its id.
 */
import { randomUUID } from "node:crypto";
import { errnoOf, Failure } from "../common/failure.js";
import type { EbsApi, SnapshotStatus, StartedSnapshot, StartSnapshotOptions } from "../ebs/api.js";
import { EbsError } from "../ebs/errors.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import {
  type SnapshotWriter,
  startSnapshotWriter,
  SnapshotWriter as Writer,
} from "../snapshot/writer.js";
import type { Session } from "./session.js";
import type { SessionRecord } from "./session-record.js";
import { UploadLog } from "./upload-log.js";

/** Attempts in a row into which nothing could be put; more means that something else is wrong. */
const MAX_RESTARTS = 3;

/** The service understood and refused: another try of the same cannot help. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof EbsError)) return false;
  return /^(Validation|Conflict|ResourceNotFound)Exception$/.test(error.exception);
}

/** The service says that the request does not fit the snapshot. */
export function isInvalid(error: unknown): boolean {
  return error instanceof EbsError && error.exception === "ValidationException";
}

/** The service does not know such a snapshot. */
export function isGone(error: unknown): boolean {
  return error instanceof EbsError && error.exception === "ResourceNotFoundException";
}

/** What the service says of an attempt's snapshot; see Attempt.ask. */
export type Asked = SnapshotStatus | "lost" | "untold";

export class Attempt {
  readonly #session: Session;
  readonly #api: EbsApi;
  #log: UploadLog;
  #number: number;
  #writer: SnapshotWriter | undefined;
  #starting: Promise<SnapshotWriter> | undefined;
  #restarts = 0;

  private constructor(session: Session, api: EbsApi, log: UploadLog) {
    this.#session = session;
    this.#api = api;
    this.#log = log;
    this.#number = session.record.upload?.attempt ?? 1;
  }

  static async open(session: Session, api: EbsApi): Promise<Attempt> {
    const number = session.record.upload?.attempt ?? 1;
    return new Attempt(session, api, await UploadLog.open(session.files, session.reserve, number));
  }

  /** From 1; another number means that everything put before is to be put again. */
  get number(): number {
    return this.#number;
  }

  /** What this attempt has put so far. */
  get log(): UploadLog {
    return this.#log;
  }

  /** Whether there is, or may be, a pending snapshot. */
  get isBegun(): boolean {
    return this.#session.record.upload !== undefined;
  }

  /** The writer of the pending snapshot, started where it is not yet. */
  started(): Promise<SnapshotWriter> {
    if (this.#writer !== undefined) return Promise.resolve(this.#writer);
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  /**
   * What the service says of this attempt's snapshot. `lost`: it has forgotten it, and the next
   * attempt is begun. `untold`: it does not answer this question.
   */
  async ask(): Promise<Asked> {
    const { upload } = this.#session.record;
    if (upload?.snapshotId === undefined) return "pending";
    let answer: StartedSnapshot;
    try {
      answer = await this.#api.startSnapshot(this.#options(upload.clientToken));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return "untold";
    }
    if (answer.snapshotId === upload.snapshotId) return answer.status;
    const found = await this.#look(upload.snapshotId);
    if (found === "gone") {
      // The service has forgotten both: what it has just made is the next attempt's.
      await this.#anew({ clientToken: upload.clientToken, snapshotId: answer.snapshotId });
      return "lost";
    }
    await this.#abandon(answer.snapshotId);
    return found;
  }

  /** A put went through: what befell earlier attempts is over. */
  progressed(): void {
    this.#restarts = 0;
  }

  /** Begins the next attempt. @throws Failure EIO after too many of them */
  async restart(): Promise<void> {
    await this.#anew({ clientToken: randomUUID() });
  }

  /** Notes durably that CompleteSnapshot is about to be called. */
  async completing(): Promise<void> {
    const { upload } = this.#session.record;
    if (upload !== undefined) {
      await this.#session.update({ upload: { ...upload, completing: true } });
    }
  }

  async close(): Promise<void> {
    await this.#starting?.catch(() => {});
    await this.#log.close();
  }

  /** A snapshot that is not completed cannot be listed, but is known. */
  async #look(snapshotId: SnapshotId): Promise<"completed" | "gone" | "untold"> {
    try {
      await this.#api.listSnapshotBlocks(snapshotId, { maxResults: 100 });
      return "completed";
    } catch (error) {
      if (isGone(error)) return "gone";
      if (isRefusal(error) || errnoOf(error) === "EACCES") return "untold";
      throw error;
    }
  }

  /** A snapshot that the service has made for this session and that nothing is put into. */
  async #abandon(snapshotId: SnapshotId): Promise<void> {
    const { abandoned } = this.#session.record;
    if (abandoned.includes(snapshotId)) return;
    await this.#session.update({ abandoned: [...abandoned, snapshotId] });
  }

  async #start(): Promise<SnapshotWriter> {
    const { volumeSizeGiB } = this.#session.record;
    const known = this.#session.record.upload;
    if (known?.snapshotId !== undefined) {
      const { snapshotId } = known;
      const state = { snapshotId, volumeSizeGiB, status: "pending", digests: this.#log } as const;
      this.#writer = new Writer(this.#api, state);
      return this.#writer;
    }
    const upload = known ?? { attempt: 1, clientToken: randomUUID() };
    if (known === undefined) await this.#session.update({ upload });
    const options = this.#options(upload.clientToken);
    const writer = await startSnapshotWriter(this.#api, options, async () => this.#log);
    if (writer.status === "error") {
      // Started by a call whose answer was lost, and timed out since.
      await this.restart();
      return this.#start();
    }
    if (writer.status === "completed") {
      throw new Failure(
        "EIO",
        `The service says that ${writer.snapshotId}, started for session ${this.#session.id}, is completed, but this session did not complete it: look at it before you commit again.`,
      );
    }
    await this.#session.update({ upload: { ...upload, snapshotId: writer.snapshotId } });
    this.#writer = writer;
    return writer;
  }

  #options(clientToken: string): StartSnapshotOptions {
    const { parentSnapshotId, volumeSizeGiB, commit } = this.#session.record;
    return {
      ...commit,
      volumeSizeGiB,
      clientToken,
      ...(parentSnapshotId !== undefined && { parentSnapshotId }),
    };
  }

  async #anew(next: Pick<NonNullable<SessionRecord["upload"]>, "clientToken" | "snapshotId">) {
    this.#restarts += 1;
    if (this.#restarts > MAX_RESTARTS) {
      throw new Failure(
        "EIO",
        `The service lost the pending snapshot of session ${this.#session.id} ${MAX_RESTARTS} times; nothing is lost here: try ebsmount commit ${this.#session.id} later.`,
      );
    }
    const { record, files, reserve } = this.#session;
    const attempt = this.#number + 1;
    files.remove(`uploads-${attempt}`);
    const log = await UploadLog.open(files, reserve, attempt);
    const lost = record.upload?.snapshotId;
    await this.#session.update({
      upload: { attempt, ...next },
      abandoned: lost === undefined ? record.abandoned : [...record.abandoned, lost],
    });
    const old = this.#log;
    this.#log = log;
    this.#number = attempt;
    this.#writer = undefined;
    await old.close();
    files.remove(`uploads-${attempt - 1}`);
  }
}
