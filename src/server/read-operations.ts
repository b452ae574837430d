/**
 * ListSnapshotBlocks, ListChangedBlocks and GetSnapshotBlock, for completed snapshots only. What a
 * request says is checked before anything is looked up, as the service does. A page's JSON is joined
 * from strings: ten thousand entries as objects would cost more than finding them.
 */
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../common/sizes.js";
import type { BlockBuffers } from "./block-buffers.js";
import { type Answer, type Call, clockOf, id, wholeNumber } from "./call.js";
import { changedPage } from "./changed-blocks.js";
import { invalid } from "./service-error.js";
import type { SnapshotRecord } from "./snapshot-record.js";
import type { Store } from "./store.js";
import type { PageScope, TokenIssuer } from "./token.js";
import type { Views } from "./views.js";

const MIN_RESULTS = 100;
const MAX_RESULTS = 10_000;

export interface ReadContext {
  readonly store: Store;
  readonly views: Views;
  readonly buffers: BlockBuffers;
  readonly tokens: TokenIssuer;
  /** ms */
  readonly blockTokenLife: number;
  /** ms */
  readonly pageTokenLife: number;
}

function completed(context: ReadContext, snapshotId: string): SnapshotRecord {
  const record = context.store.get(snapshotId);
  if (record.status === "completed") return record;
  // Open: the service's own reason here is not documented; the id is what cannot be used.
  throw invalid(
    "INVALID_SNAPSHOT_ID",
    `The snapshot '${snapshotId}' cannot be read: its status is ${record.status}, not completed.`,
  );
}

/** Tokens come percent-encoded; a plus sign that was not, and so reads as a space, is meant as one. */
function tokenOf(call: Call, name: string): string | undefined {
  return call.query.get(name)?.replaceAll(" ", "+");
}

/** What a list request says of its page. */
interface AskedPage {
  readonly limit: number;
  readonly startingBlockIndex: number;
  readonly token: string | undefined;
}

/** @throws ServiceError INVALID_PARAMETER_VALUE */
function askedPage(call: Call): AskedPage {
  const asked = call.query.get("maxResults");
  const results = asked === null ? MAX_RESULTS : wholeNumber("maxResults", asked);
  if (results === 0 || results > MAX_RESULTS) {
    throw invalid("INVALID_PARAMETER_VALUE", `maxResults must be 1 to ${MAX_RESULTS}.`);
  }
  // Documented for the service: a number below 100 is taken, and 100 entries are listed.
  const atLeast = Math.max(results, MIN_RESULTS);
  const from = call.query.get("startingBlockIndex");
  return {
    limit: Math.min(atLeast, call.effects.pageLimit ?? atLeast),
    startingBlockIndex: from === null ? 0 : wholeNumber("startingBlockIndex", from),
    token: tokenOf(call, "pageToken"),
  };
}

/** The block index that a page begins at: a token's, if there is one. */
function startOf(context: ReadContext, call: Call, asked: AskedPage, scope: PageScope): number {
  if (asked.token === undefined) return asked.startingBlockIndex;
  const now = call.effects.tokensExpired ? Number.POSITIVE_INFINITY : clockOf(call);
  return context.tokens.openPageToken(asked.token, scope, now);
}

interface Page {
  readonly list: "Blocks" | "ChangedBlocks";
  /** The snapshot that is listed, or the second of two. */
  readonly record: SnapshotRecord;
  readonly scope: PageScope;
  /** JSON of each. */
  readonly entries: readonly string[];
  /** Block index to go on at; undefined at the end. */
  readonly next: number | undefined;
  /** Of the entries' tokens, ms since the epoch. */
  readonly expiresAt: number;
}

function pageAnswer(context: ReadContext, call: Call, page: Page): Answer {
  const { list, record, scope, next, expiresAt } = page;
  const { nullList, repeatsToken } = call.effects;
  const entries = nullList ? "null" : `[${page.entries.join(",")}]`;
  let token: string | undefined;
  if (next !== undefined && !nullList) {
    token = repeatsToken ? tokenOf(call, "pageToken") : undefined;
    token ??= context.tokens.pageToken(scope, next, clockOf(call) + context.pageTokenLife);
  }
  const body = `{"${list}":${entries},"ExpiryTime":${expiresAt / 1000},"VolumeSize":${record.parameters.volumeSizeGiB},"BlockSize":${BLOCK_SIZE},"NextToken":${token === undefined ? "null" : `"${token}"`}}`;
  return { status: 200, headers: { "Content-Type": "application/json" }, body };
}

export async function listSnapshotBlocks(context: ReadContext, call: Call): Promise<Answer> {
  const asked = askedPage(call);
  const { limit } = asked;
  const record = completed(context, call.snapshotId);
  const scope = { firstSnapshotId: undefined, snapshotId: call.snapshotId };
  const from = startOf(context, call, asked, scope);
  const expiresAt = clockOf(call) + context.blockTokenLife;
  const head = { list: "Blocks", record, scope, expiresAt } as const;
  if (limit === 0) return pageAnswer(context, call, { ...head, entries: [], next: from });
  const view = await context.views.of(record);
  const blocks = record.parameters.volumeSizeGiB * BLOCKS_PER_GIB;
  const { blockIndexes, next } = view.page(from, limit, blocks);
  const entries = context.tokens
    .blockTokens(call.snapshotId, blockIndexes, blockIndexes.length, expiresAt)
    .map((token, i) => `{"BlockIndex":${blockIndexes[i]},"BlockToken":"${token}"}`);
  return pageAnswer(context, call, { ...head, entries, next });
}

export async function listChangedBlocks(context: ReadContext, call: Call): Promise<Answer> {
  const firstId = call.query.get("firstSnapshotId");
  if (firstId === null) {
    throw invalid("INVALID_PARAMETER_VALUE", "firstSnapshotId is missing: name two snapshots.");
  }
  const firstSnapshotId = id(firstId);
  const asked = askedPage(call);
  const { limit } = asked;
  const second = completed(context, call.snapshotId);
  const first = completed(context, firstSnapshotId);
  const scope = { firstSnapshotId, snapshotId: call.snapshotId };
  if (context.views.root(first) !== context.views.root(second)) {
    throw invalid(
      "UNRELATED_SNAPSHOTS",
      `The snapshots '${first.snapshotId}' and '${second.snapshotId}' are not of one lineage.`,
    );
  }
  const from = startOf(context, call, asked, scope);
  const expiresAt = clockOf(call) + context.blockTokenLife;
  const head = { list: "ChangedBlocks", record: second, scope, expiresAt } as const;
  if (limit === 0) return pageAnswer(context, call, { ...head, entries: [], next: from });
  const [firstView, secondView] = [await context.views.of(first), await context.views.of(second)];
  const { blockIndexes, inFirst, inSecond, next } = changedPage(firstView, secondView, from, limit);
  const issue = (record: SnapshotRecord) =>
    context.tokens.blockTokens(record.snapshotId, blockIndexes, blockIndexes.length, expiresAt);
  const [firstTokens, secondTokens] = [issue(first), issue(second)];
  const entries: string[] = [];
  for (let i = 0; i < blockIndexes.length; i++) {
    const before = inFirst[i] === 1 ? `,"FirstBlockToken":"${firstTokens[i]}"` : "";
    const after = inSecond[i] === 1 ? `,"SecondBlockToken":"${secondTokens[i]}"` : "";
    entries.push(`{"BlockIndex":${blockIndexes[i]}${before}${after}}`);
  }
  return pageAnswer(context, call, { ...head, entries, next });
}

export async function getSnapshotBlock(context: ReadContext, call: Call): Promise<Answer> {
  const { snapshotId, blockIndex } = call;
  const token = tokenOf(call, "blockToken");
  if (token === undefined) throw invalid("INVALID_BLOCK_TOKEN", "The block token is missing.");
  const record = completed(context, snapshotId);
  const wrong = () =>
    invalid("INVALID_BLOCK", `The snapshot '${snapshotId}' has no block ${blockIndex}.`);
  if (blockIndex >= record.parameters.volumeSizeGiB * BLOCKS_PER_GIB) throw wrong();
  const now = call.effects.tokensExpired ? Number.POSITIVE_INFINITY : clockOf(call);
  context.tokens.checkBlockToken(token, snapshotId, blockIndex, now);
  const view = await context.views.of(record);
  const buffer = context.buffers.take();
  let checksum: string | undefined;
  try {
    checksum = await context.views.read(view, blockIndex, buffer);
  } catch (error) {
    context.buffers.give(buffer);
    throw error;
  }
  if (checksum === undefined) {
    context.buffers.give(buffer);
    throw wrong();
  }
  return {
    status: 200,
    headers: {
      "Content-Type": "application/octet-stream",
      "x-amz-Data-Length": String(BLOCK_SIZE),
      "x-amz-Checksum": checksum,
      "x-amz-Checksum-Algorithm": "SHA256",
    },
    body: buffer.bytes,
    buffer,
  };
}
