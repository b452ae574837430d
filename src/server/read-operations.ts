/**
 * ListSnapshotBlocks, ListChangedBlocks and GetSnapshotBlock. They answer only for completed
 * snapshots. A page's JSON is joined from strings: ten thousand entries as objects would cost more
 * than finding them.
 */
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../common/sizes.js";
import type { BlockBuffers } from "./block-buffers.js";
import { type Answer, type Call, id, wholeNumber } from "./call.js";
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

/** Tokens come percent-encoded; one whose plus signs were not is told from a space all the same. */
function tokenOf(call: Call, name: string): string | undefined {
  const text = call.query.get(name);
  return text === null || text === "" ? undefined : text.replaceAll(" ", "+");
}

interface Start {
  readonly from: number;
  readonly limit: number;
}

function startOf(context: ReadContext, call: Call, scope: PageScope): Start {
  const asked = call.query.get("maxResults");
  const results = asked === null ? MAX_RESULTS : wholeNumber("maxResults", asked);
  if (results === 0) throw invalid("INVALID_PARAMETER_VALUE", "maxResults must be 1 or more.");
  const clamped = Math.min(Math.max(results, MIN_RESULTS), MAX_RESULTS);
  const limit = Math.min(clamped, call.pageLimit ?? clamped);
  const token = tokenOf(call, "pageToken");
  if (token !== undefined) {
    const now = call.tokensExpired ? Number.POSITIVE_INFINITY : Date.now();
    return { from: context.tokens.openPageToken(token, scope, now), limit };
  }
  const from = call.query.get("startingBlockIndex");
  return { from: from === null ? 0 : wholeNumber("startingBlockIndex", from), limit };
}

function page(
  context: ReadContext,
  list: "Blocks" | "ChangedBlocks",
  entries: readonly string[],
  record: SnapshotRecord,
  next: number | undefined,
  scope: PageScope,
  expiresAt: number,
): Answer {
  const token =
    next === undefined
      ? "null"
      : `"${context.tokens.pageToken(scope, next, Date.now() + context.pageTokenLife)}"`;
  const body = `{"${list}":[${entries.join(",")}],"ExpiryTime":${expiresAt / 1000},"VolumeSize":${record.parameters.volumeSizeGiB},"BlockSize":${BLOCK_SIZE},"NextToken":${token}}`;
  return { status: 200, headers: { "Content-Type": "application/json" }, body };
}

function blockEntries(
  tokens: TokenIssuer,
  record: SnapshotRecord,
  blockIndexes: Uint32Array,
  expiresAt: number,
  name: string,
): string[] {
  const issued = tokens.blockTokens(
    record.snapshotId,
    blockIndexes,
    blockIndexes.length,
    expiresAt,
  );
  return issued.map((token, i) => `{"BlockIndex":${blockIndexes[i]},"${name}":"${token}"}`);
}

export async function listSnapshotBlocks(context: ReadContext, call: Call): Promise<Answer> {
  const record = completed(context, call.snapshotId);
  const scope = { firstSnapshotId: undefined, snapshotId: call.snapshotId };
  const { from, limit } = startOf(context, call, scope);
  const expiresAt = Date.now() + context.blockTokenLife;
  if (limit === 0) return page(context, "Blocks", [], record, from, scope, expiresAt);
  const view = await context.views.of(record);
  const blocks = record.parameters.volumeSizeGiB * BLOCKS_PER_GIB;
  const { blockIndexes, next } = view.page(from, limit, blocks);
  const entries = blockEntries(context.tokens, record, blockIndexes, expiresAt, "BlockToken");
  return page(context, "Blocks", entries, record, next, scope, expiresAt);
}

export async function listChangedBlocks(context: ReadContext, call: Call): Promise<Answer> {
  const second = completed(context, call.snapshotId);
  const firstId = call.query.get("firstSnapshotId");
  const first = firstId === null ? undefined : completed(context, id(firstId));
  // A list from nothing must not be mistaken for ListSnapshotBlocks' pages.
  const scope = { firstSnapshotId: first?.snapshotId ?? "none", snapshotId: call.snapshotId };
  if (first !== undefined && context.views.root(first) !== context.views.root(second)) {
    throw invalid(
      "UNRELATED_SNAPSHOTS",
      `The snapshots '${first.snapshotId}' and '${second.snapshotId}' are not of one lineage.`,
    );
  }
  const { from, limit } = startOf(context, call, scope);
  const expiresAt = Date.now() + context.blockTokenLife;
  if (limit === 0) return page(context, "ChangedBlocks", [], second, from, scope, expiresAt);
  const secondView = await context.views.of(second);
  if (first === undefined) {
    const blocks = second.parameters.volumeSizeGiB * BLOCKS_PER_GIB;
    const { blockIndexes, next } = secondView.page(from, limit, blocks);
    const name = "SecondBlockToken";
    const entries = blockEntries(context.tokens, second, blockIndexes, expiresAt, name);
    return page(context, "ChangedBlocks", entries, second, next, scope, expiresAt);
  }
  const firstView = await context.views.of(first);
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
  return page(context, "ChangedBlocks", entries, second, next, scope, expiresAt);
}

export async function getSnapshotBlock(context: ReadContext, call: Call): Promise<Answer> {
  const { snapshotId, blockIndex } = call;
  const record = completed(context, snapshotId);
  const wrong = () =>
    invalid("INVALID_BLOCK", `The snapshot '${snapshotId}' has no block ${blockIndex}.`);
  if (blockIndex >= record.parameters.volumeSizeGiB * BLOCKS_PER_GIB) throw wrong();
  const token = tokenOf(call, "blockToken");
  if (token === undefined) throw invalid("INVALID_BLOCK_TOKEN", "The block token is missing.");
  const now = call.tokensExpired ? Number.POSITIVE_INFINITY : Date.now();
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
