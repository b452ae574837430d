/**
 * One kind of error for all six operations. It is plain data underneath (ErrorDetails), so that a
 * worker thread can send it to the main thread, and it reads as one sentence that names the snapshot
 * and the block and says what to do. Tokens and block data never get into it.
 */
import { type ErrnoName, Failure } from "../common/failure.js";
import type { Operation } from "./meter.js";

/** What a request was about. */
export interface Subject {
  readonly operation: Operation;
  readonly snapshotId?: string;
  readonly blockIndex?: number;
}

export interface ErrorDetails extends Subject {
  readonly errno: ErrnoName;
  readonly message: string;
  /** Requests made before giving up. */
  readonly attempts: number;
  /** The service's exception, e.g. ValidationException, or our own or Node's name for the trouble. */
  readonly exception: string;
  /** The service's Reason, e.g. INVALID_BLOCK_TOKEN. */
  readonly reason?: string;
  readonly requestId?: string;
  readonly httpStatus?: number;
}

export class EbsError extends Failure {
  override readonly name = "EbsError";
  readonly operation: Operation;
  readonly snapshotId: string | undefined;
  readonly blockIndex: number | undefined;
  readonly attempts: number;
  readonly exception: string;
  readonly reason: string | undefined;
  readonly requestId: string | undefined;
  readonly httpStatus: number | undefined;

  constructor(details: ErrorDetails, options?: { cause?: unknown }) {
    super(details.errno, details.message, options);
    this.operation = details.operation;
    this.snapshotId = details.snapshotId;
    this.blockIndex = details.blockIndex;
    this.attempts = details.attempts;
    this.exception = details.exception;
    this.reason = details.reason;
    this.requestId = details.requestId;
    this.httpStatus = details.httpStatus;
  }

  /** What structured clone can carry to another thread; `new EbsError(details)` is the way back. */
  details(): ErrorDetails {
    return {
      errno: this.errno,
      message: this.message,
      operation: this.operation,
      attempts: this.attempts,
      exception: this.exception,
      ...(this.snapshotId !== undefined && { snapshotId: this.snapshotId }),
      ...(this.blockIndex !== undefined && { blockIndex: this.blockIndex }),
      ...(this.reason !== undefined && { reason: this.reason }),
      ...(this.requestId !== undefined && { requestId: this.requestId }),
      ...(this.httpStatus !== undefined && { httpStatus: this.httpStatus }),
    };
  }
}

/** The token that was used for a block is not, or no longer, valid: list that range again. */
export function isInvalidBlockToken(error: unknown): boolean {
  return error instanceof EbsError && error.reason === "INVALID_BLOCK_TOKEN";
}

/** The page token is not, or no longer, valid: list again from a starting block index. */
export function isInvalidPageToken(error: unknown): boolean {
  return error instanceof EbsError && error.reason === "INVALID_PAGE_TOKEN";
}

/** The service's response contradicts itself or cannot be read: asking again will not mend it. */
export function isMalformed(error: unknown): boolean {
  return error instanceof EbsError && error.exception === "MalformedAnswer";
}

/** The caller aborted; nobody is to blame. */
export function interrupted(subject: Subject): EbsError {
  return new EbsError({
    ...subject,
    errno: "EINTR",
    message: `${about(subject)} was interrupted.`,
    attempts: 0,
    exception: "AbortError",
  });
}

/** `GetSnapshotBlock of block 7 of snap-0123`, `StartSnapshot as a child of snap-0123`. */
export function about(subject: Subject): string {
  const block = subject.blockIndex === undefined ? "" : ` block ${subject.blockIndex} of`;
  const link = subject.operation === "StartSnapshot" ? " as a child of" : " of";
  const target = subject.snapshotId === undefined ? "" : `${link}${block} ${subject.snapshotId}`;
  return `${subject.operation}${target}`;
}
