/**
 * Reads the service's answers. Strict where a mistake would show a wrong byte: indexes must ascend
 * (a list that comes in one piece is put in order) and lie inside the volume, tokens must be there.
 * Tolerant where nothing is at stake, because other servers implement these APIs too: numbers may
 * come as text, times in any usual form, BlockSize may be missing or wrong (it is checked by the
 * length of every block instead), NextToken may be absent (list-end.ts).
 */
import { BLOCKS_PER_GIB, MAX_VOLUME_GIB } from "../common/sizes.js";
import type {
  BlockPage,
  ChangedBlockPage,
  ListOptions,
  SnapshotStatus,
  StartedSnapshot,
} from "./api.js";
import { parseSnapshotId } from "./snapshot-id.js";
import { AnswerError } from "./trouble.js";

/** Used where an answer does not say when its tokens expire; far below the service's 7 days, ms. */
const UNSAID_LIFE_MS = 60 * 60_000;
/** A number of seconds since the epoch is below this for the next 3000 years; above it is ms. */
const LARGEST_SECONDS = 1e11;

type Fields = Readonly<Record<string, unknown>>;

/**
 * What was asked for, to judge the answer by. Blocks below startingBlockIndex are left out, because
 * a server may ignore it.
 */
export type Asked = Pick<ListOptions, "startingBlockIndex" | "maxResults" | "pageToken">;

/** What pages of both lists have. */
export type Page = Pick<BlockPage, "blockIndexes" | "volumeSizeGiB" | "nextToken">;

/** A page, and how it was cut out of the answer. */
export interface Listed<T extends Page> {
  readonly page: T;
  /** Entries in the answer, and those of them that were left out. */
  readonly count: number;
  readonly skipped: number;
}

export function readBlockPage(body: Uint8Array, asked: Asked): Listed<BlockPage> {
  const page = readPage(body, "Blocks", asked);
  const blockTokens = page.entries.map((entry) => {
    const token = tokenOf(entry, "BlockToken");
    if (token === undefined) throw malformed("a listed block has no BlockToken");
    return token;
  });
  return listed(page, { ...page.head, blockIndexes: page.blockIndexes, blockTokens });
}

export function readChangedBlockPage(body: Uint8Array, asked: Asked): Listed<ChangedBlockPage> {
  const page = readPage(body, "ChangedBlocks", asked);
  return listed(page, {
    ...page.head,
    blockIndexes: page.blockIndexes,
    firstTokens: page.entries.map((entry) => tokenOf(entry, "FirstBlockToken")),
    secondTokens: page.entries.map((entry) => tokenOf(entry, "SecondBlockToken")),
  });
}

function listed<T extends Page>({ count, skipped }: RawPage, page: T): Listed<T> {
  return { page, count, skipped };
}

/** @param date the response's Date header: how long ago the start was is told by the service's clock alone. */
export function readStartedSnapshot(body: Uint8Array, date?: string): StartedSnapshot {
  const fields = readJson(body);
  const parent = fields.ParentSnapshotId;
  try {
    return {
      snapshotId: parseSnapshotId(String(fields.SnapshotId)),
      status: statusOf(fields.Status),
      volumeSizeGiB: volumeSizeOf(fields),
      parentSnapshotId: parent === undefined || parent === null ? undefined : parseId(parent),
      startedAgoMs: startedAgo(fields.StartTime, date),
      kmsKeyArn: keyOf(fields),
    };
  } catch (error) {
    if (error instanceof AnswerError) throw error;
    throw malformed("SnapshotId is missing or malformed");
  }
}

export function readStatus(body: Uint8Array): SnapshotStatus {
  return statusOf(readJson(body).Status);
}

/** @returns undefined where the header is absent or no checksum. */
export function headerText(
  headers: Readonly<Record<string, string>>,
  name: string,
): string | undefined {
  const value = headers[name]?.trim();
  return value === undefined || value === "" ? undefined : value;
}

export function malformed(what: string): AnswerError {
  return new AnswerError(
    "fatal",
    "MalformedAnswer",
    `the endpoint's answer cannot be trusted: ${what}; check --endpoint-url.`,
  );
}

interface PageHead {
  readonly expiresAt: number;
  readonly volumeSizeGiB: number;
  readonly nextToken: string | undefined;
}

interface RawPage {
  readonly head: PageHead;
  readonly blockIndexes: Uint32Array;
  readonly entries: readonly Fields[];
  readonly count: number;
  readonly skipped: number;
}

function readPage(body: Uint8Array, listName: string, asked: Asked): RawPage {
  const fields = readJson(body);
  const all = fields[listName];
  // Null is not taken for an empty list: a server that lost the list would show zeros for all of it.
  if (!Array.isArray(all)) throw malformed(`${listName} is missing or not a list`);
  const volumeSizeGiB = volumeSizeOf(fields);
  const limit = volumeSizeGiB * BLOCKS_PER_GIB;
  const nextToken = nextTokenOf(fields);
  // The whole list in one answer may come in the order of writing; of one of several pages, disorder
  // would mean that blocks are missing here or come later.
  const isWhole = nextToken === undefined && asked.pageToken === undefined;
  const entries: readonly Fields[] = isWhole ? ascending(all, listName) : all;
  const indexes = new Uint32Array(entries.length);
  let last = -1;
  for (let i = 0; i < entries.length; i += 1) {
    const index = indexOf(asFields(entries[i], listName));
    if (index <= last) throw malformed(`block index ${index} is listed after ${last}`);
    if (index >= limit) throw malformed(`block ${index} lies past the ${volumeSizeGiB} GiB volume`);
    indexes[i] = index;
    last = index;
  }
  // Where a token leads is the service's to say; whoever follows it looks whether it leads on.
  const from = asked.pageToken === undefined ? (asked.startingBlockIndex ?? 0) : 0;
  let skip = 0;
  while (skip < indexes.length && (indexes[skip] as number) < from) skip += 1;
  return {
    head: { expiresAt: expiryOf(fields), volumeSizeGiB, nextToken },
    blockIndexes: skip === 0 ? indexes : indexes.slice(skip),
    entries: skip === 0 ? entries : entries.slice(skip),
    count: indexes.length,
    skipped: skip,
  };
}

/** The entries by block index; the same list where they are in order, as the service's always are. */
function ascending(entries: readonly Fields[], listName: string): readonly Fields[] {
  let last = -1;
  for (const entry of entries) {
    const index = indexOf(asFields(entry, listName));
    if (index < last) return [...entries].sort((a, b) => indexOf(a) - indexOf(b));
    last = index;
  }
  return entries;
}

function indexOf(entry: Fields): number {
  const index = wholeNumber(entry.BlockIndex);
  if (index === undefined) throw malformed("a listed block has no valid BlockIndex");
  return index;
}

function readJson(body: Uint8Array): Fields {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8"));
  } catch {
    // Cut short on its way, or a page of some proxy: the next one may be right.
    const sentence = "the endpoint's answer is not JSON; check --endpoint-url.";
    throw new AnswerError("corrupt", "MalformedAnswer", sentence);
  }
  return asFields(value, "the body");
}

function asFields(value: unknown, what: string): Fields {
  if (typeof value === "object" && value !== null) return value as Fields;
  throw malformed(`${what} is not an object`);
}

/** A whole number ≥ 0, as a number or as text. */
function wholeNumber(value: unknown): number | undefined {
  if (typeof value === "number")
    return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  return typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}

function volumeSizeOf(fields: Fields): number {
  const size = wholeNumber(fields.VolumeSize);
  if (size !== undefined && size >= 1 && size <= MAX_VOLUME_GIB) return size;
  throw malformed("VolumeSize is missing or not 1 to 65536 GiB");
}

function nextTokenOf(fields: Fields): string | undefined {
  const token = fields.NextToken;
  if (token === undefined || token === null || token === "") return undefined;
  if (typeof token === "string") return token;
  throw malformed("NextToken is not text");
}

function tokenOf(entry: Fields, name: string): string | undefined {
  const token = entry[name];
  if (token === undefined || token === null || token === "") return undefined;
  // Printable ASCII is all that can go into a request's query and be packed a byte a character.
  if (typeof token === "string" && /^[\x21-\x7e]{1,2048}$/.test(token)) return token;
  throw malformed(`${name} is not a token`);
}

function startedAgo(startTime: unknown, date: string | undefined): number {
  const [at, now] = [timeOf(startTime), timeOf(date)];
  return at === undefined || now === undefined ? 0 : Math.max(0, now - at);
}

function expiryOf(fields: Fields): number {
  return timeOf(fields.ExpiryTime) ?? Date.now() + UNSAID_LIFE_MS;
}

/** A time as any server writes it, ms since the epoch; undefined where it is none. */
function timeOf(value: unknown): number | undefined {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number === "number" && Number.isFinite(number)) {
    return number < LARGEST_SECONDS ? number * 1000 : number;
  }
  const parsed = typeof value === "string" ? Date.parse(value) : Number.NaN;
  return Number.isNaN(parsed) ? undefined : parsed;
}

/** For a comparison and a sentence: printable, and no longer than the service's own can be. */
function keyOf({ KmsKeyArn: key }: Fields): string | undefined {
  if (key === undefined || key === null || key === "") return undefined;
  if (typeof key === "string" && /^[\x21-\x7e]{1,2048}$/.test(key)) return key;
  throw malformed("KmsKeyArn is not the name of a key");
}

function statusOf(value: unknown): SnapshotStatus {
  if (value === "pending" || value === "completed" || value === "error") return value;
  throw malformed(`Status is ${JSON.stringify(value)?.slice(0, 40)}`);
}

function parseId(value: unknown): ReturnType<typeof parseSnapshotId> {
  return parseSnapshotId(String(value));
}
