/**
 * One call of the service between HTTP and the operations: what was asked, and the answer. Requests
 * are told apart by method and path alone, as the service's protocol (rest-json) has it.
 */
import type { IncomingHttpHeaders } from "node:http";
import type { BlockBuffer } from "./block-buffers.js";
import { invalid } from "./service-error.js";

export const OPERATIONS = [
  "StartSnapshot",
  "PutSnapshotBlock",
  "CompleteSnapshot",
  "ListSnapshotBlocks",
  "ListChangedBlocks",
  "GetSnapshotBlock",
] as const;

export type Operation = (typeof OPERATIONS)[number];

/** What the path says. */
export interface Route {
  readonly operation: Operation;
  /** Empty for StartSnapshot. */
  readonly snapshotId: string;
  /** -1 where the operation has none. */
  readonly blockIndex: number;
}

export interface Call extends Route {
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  readonly body: readonly Buffer[];
  /** Raw SHA-256 of the body. */
  readonly digest: Buffer;
  /** Grows with each request. */
  readonly arrival: number;
  readonly effects: CallEffects;
}

/** What an operation does otherwise than usual, because a fault was ordered. */
export interface CallEffects {
  /** At most so many entries in a page. */
  readonly pageLimit?: number;
  /** A page goes on with the token that it was asked for with. */
  readonly repeatsToken?: boolean;
  /** `null` in place of a page's list, which ends there. */
  readonly nullList?: boolean;
  /** Every token has expired. */
  readonly tokensExpired?: boolean;
  /** A snapshot that is started is said to be completed. */
  readonly startsCompleted?: boolean;
  /** A snapshot that is started is said not to be encrypted. */
  readonly hidesKey?: boolean;
  /** How far this server's clock is ahead, ms. */
  readonly clockOffsetMs?: number;
}

export const NO_EFFECTS: CallEffects = {};

/** What this server's clock says, ms since the epoch. */
export function clockOf({ effects }: Pick<Call, "effects">): number {
  return Date.now() + (effects.clockOffsetMs ?? 0);
}

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string | Buffer;
  /** The pooled buffer that `body` is in. */
  readonly buffer?: BlockBuffer;
}

const BLOCK_PATH = /^\/snapshots\/([^/]+)\/blocks\/([^/]+)$/;
const LIST_PATH = /^\/snapshots\/([^/]+)\/(blocks|changedblocks)$/;
const COMPLETION_PATH = /^\/snapshots\/completion\/([^/]+)$/;

/**
 * Which operation a request is for; undefined for none.
 * @param sent the path as it came; what is percent-encoded in it means the same plain (RFC 3986, 2.3).
 * @throws ServiceError for an id, an index or an encoding that is malformed.
 */
export function route(method: string, sent: string): Route | undefined {
  const path = decodePath(sent);
  const block = BLOCK_PATH.exec(path);
  if (block !== null) {
    const operation =
      method === "GET" ? "GetSnapshotBlock" : method === "PUT" ? "PutSnapshotBlock" : undefined;
    if (operation === undefined) return undefined;
    return {
      operation,
      snapshotId: id(block[1]!),
      blockIndex: wholeNumber("blockIndex", block[2]!),
    };
  }
  const list = LIST_PATH.exec(path);
  if (list !== null && method === "GET") {
    const operation = list[2] === "blocks" ? "ListSnapshotBlocks" : "ListChangedBlocks";
    return { operation, snapshotId: id(list[1]!), blockIndex: -1 };
  }
  if (method !== "POST") return undefined;
  const completion = COMPLETION_PATH.exec(path);
  if (completion !== null) {
    return { operation: "CompleteSnapshot", snapshotId: id(completion[1]!), blockIndex: -1 };
  }
  return path === "/snapshots"
    ? { operation: "StartSnapshot", snapshotId: "", blockIndex: -1 }
    : undefined;
}

/** Segment by segment: an encoded slash is part of its segment, which then is no id or index. */
function decodePath(path: string): string {
  if (!path.includes("%")) return path;
  try {
    const segments = path.split("/").map(decodeURIComponent);
    return segments.map((segment) => segment.replaceAll("/", "%2F")).join("/");
  } catch {
    throw invalid("INVALID_PARAMETER_VALUE", "The path has a percent sign that encodes nothing.");
  }
}

/** A well-formed snapshot id. @throws ServiceError INVALID_SNAPSHOT_ID */
export function id(text: string): string {
  if (text.length <= 64 && /^snap-[0-9a-f]+$/.test(text)) return text;
  throw invalid("INVALID_SNAPSHOT_ID", `'${text.slice(0, 64)}' is not a snapshot id.`);
}

/** A whole number of 0 or more, below 2^31. @throws ServiceError INVALID_PARAMETER_VALUE */
export function wholeNumber(name: string, text: string): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (value < 2 ** 31) return value;
  throw invalid("INVALID_PARAMETER_VALUE", `${name} must be a whole number of 0 or more.`);
}
