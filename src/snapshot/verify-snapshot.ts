/**
 * Whether a completed snapshot shows what it must: the first block that was put into it, and a block of
 * its parent that was not. The service sees to both by itself; a server of another make may take a
 * ParentSnapshotId and forget it, and then every block that was not put is silently missing. A child
 * can overwrite blocks but never lose one, so one block that the parent has, that was not put and that
 * the child does not list gives it away.
 *
 * It costs little: the page that showed that the snapshot is completed was listed from the first put
 * block on (writer.ts), and the parent's block is looked for just behind that one, so that most often
 * the page tells of both.
 */
import { errnoOf, Failure } from "../common/failure.js";
import { lowerBound } from "../common/lower-bound.js";
import type { BlockPage, EbsApi } from "../ebs/api.js";
import { MAX_PAGE_BLOCKS, MIN_PAGE_BLOCKS, pageFrom, walkBlocks } from "../ebs/list-walk.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import type { DigestLedger } from "./digest-ledger.js";
import { firstPut, type SnapshotWriter } from "./writer.js";

/** Blocks of the parent to look through for one that was not put. */
const MAX_LOOKED_AT = 100_000;

/** Blocks of the parent at or after a block index, ascending, listed only as they are taken. */
export type ParentBlocks = (from: number) => AsyncIterable<number>;

/** A block that the snapshot must list and does not. */
export interface MissingBlock {
  readonly blockIndex: number;
  readonly kind: "put" | "inherited";
}

/**
 * Looks at a snapshot that its writer has seen completed.
 * @returns undefined where nothing is missing, or where the lists may not be read.
 * @throws Failure as listing does
 */
export async function findMissing(
  api: EbsApi,
  writer: SnapshotWriter,
  parentBlocks?: ParentBlocks,
  signal?: AbortSignal,
): Promise<MissingBlock | undefined> {
  const put = await firstPut(writer.digests);
  const inherited =
    parentBlocks && (await unlessForbidden(firstInherited(parentBlocks, writer.digests, put)));
  const wanted: MissingBlock[] = [];
  if (put !== undefined) wanted.push({ blockIndex: put, kind: "put" });
  if (inherited !== undefined) wanted.push({ blockIndex: inherited, kind: "inherited" });
  return await unlessForbidden(firstMissing(api, writer, wanted, signal));
}

/** The sentence about a child that does not keep its parent's blocks. */
export function lacksInherited(
  childId: SnapshotId,
  parentId: SnapshotId,
  blockIndex: number,
): Failure {
  return new Failure(
    "EIO",
    `${childId} is completed but lacks block ${blockIndex} of its parent ${parentId}: the service does not keep a parent's blocks, so do not use this snapshot. Check --endpoint-url, or export ${parentId} and import the whole image without --parent.`,
  );
}

/** The parent's blocks by its list, in small pages at first. */
export function listedParentBlocks(
  api: EbsApi,
  parentId: SnapshotId,
  signal?: AbortSignal,
): ParentBlocks {
  return async function* (from) {
    const walk = walkBlocks(api, parentId, from);
    for (let asked = MIN_PAGE_BLOCKS; ; asked = Math.min(MAX_PAGE_BLOCKS, asked * 4)) {
      const walked = await walk.next(asked, signal);
      if (walked === undefined) return;
      for (const block of walked.page.blockIndexes) if (block >= from) yield block;
    }
  };
}

/** Of a parent that is gone, or whose list may not be read, nothing can be told. */
async function unlessForbidden<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "EACCES" || errno === "ESTALE") return undefined;
    throw error;
  }
}

/** Behind the first block that was put, else before it. */
async function firstInherited(
  parentBlocks: ParentBlocks,
  digests: DigestLedger,
  put = 0,
): Promise<number | undefined> {
  let looked = 0;
  for (const [from, to] of [
    [put, Number.POSITIVE_INFINITY],
    [0, put],
  ] as const) {
    if (from >= to) continue;
    for await (const block of parentBlocks(from)) {
      if (block >= to) break;
      if ((await digests.get(block)) === undefined) return block;
      looked += 1;
      if (looked === MAX_LOOKED_AT) return undefined;
    }
  }
  return undefined;
}

async function firstMissing(
  api: EbsApi,
  writer: SnapshotWriter,
  wanted: readonly MissingBlock[],
  signal: AbortSignal | undefined,
): Promise<MissingBlock | undefined> {
  let listed = writer.listed;
  for (const block of wanted) {
    const { blockIndex } = block;
    if (listed === undefined || !tellsOf(listed, blockIndex)) {
      const page = await pageFrom(api, writer.snapshotId, blockIndex, signal);
      listed = { from: blockIndex, page };
    }
    const { blockIndexes } = listed.page;
    if (blockIndexes[lowerBound(blockIndexes, blockIndex)] !== blockIndex) return block;
  }
  return undefined;
}

function tellsOf(listed: { from: number; page: BlockPage }, blockIndex: number): boolean {
  const { from, page } = listed;
  if (blockIndex < from) return false;
  return page.nextToken === undefined || blockIndex <= (page.blockIndexes.at(-1) ?? -1);
}
