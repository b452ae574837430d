/**
 * Makes sure that only its end ends a list. Servers of other makes implement the paging of these APIs
 * loosely, and a list taken for ended too early would show zeros where blocks are:
 *
 * - one that limits a page but forgets its NextToken: a page as full as was asked for, or with so round a
 *   number of blocks that it can be a server's own limit, without a token, is gone on from by starting
 *   block index, with a continuation of our own in place of the token; that costs a call only where
 *   somebody wants to know what comes behind;
 * - one that knows no paging and answers with everything, whatever was asked (blocks below the start
 *   are left out by answers.ts). It is told from one that limits pages, ignores where to start and
 *   forgets tokens, whose list could never be read to its end, by asking for a page that is one
 *   smaller: as many blocks again, or a token, and the list was whole. Else it is refused.
 */
import { BLOCKS_PER_GIB } from "../common/sizes.js";
import type { Asked, Listed, Page } from "./answers.js";
import { malformed } from "./answers.js";
import type { ListOptions } from "./api.js";

/** Starts our own continuation; no token of a service has a colon. Source: pattern of PageToken. */
const CONTINUATION = "ebsmount:from:";

/** What to ask the server for: a continuation of ours is where to start. */
export function askedOf({ signal: _, ...options }: ListOptions): Asked {
  const { pageToken } = options;
  if (!pageToken?.startsWith(CONTINUATION)) return options;
  const startingBlockIndex = Number(pageToken.slice(CONTINUATION.length));
  const { maxResults } = options;
  return { startingBlockIndex, ...(maxResults !== undefined && { maxResults }) };
}

/**
 * One page, whose nextToken is undefined only at the list's end.
 * @param list makes the request.
 * @throws AnswerError where the server's list cannot be read to its end
 */
export async function listPage<T extends Page>(
  asked: Asked,
  list: (asked: Asked) => Promise<Listed<T>>,
): Promise<T> {
  const { page, count, skipped } = await list(asked);
  const { maxResults } = asked;
  // Who got here by a token deals with a server that gives them as long as there is more.
  const isTold = page.nextToken !== undefined || asked.pageToken !== undefined;
  if (isTold || !(count === maxResults || isRound(count))) return page;
  if (skipped > 0) {
    if (maxResults === undefined || count !== maxResults) return page;
    // Not below 100, which servers may raise to 100.
    const other = maxResults > 100 ? maxResults - 1 : maxResults + 1;
    const again = await list({ ...asked, maxResults: other });
    if (again.count === count || again.page.nextToken !== undefined) return page;
    throw malformed(
      "its list ignores startingBlockIndex and stops at maxResults without NextToken",
    );
  }
  const next = (page.blockIndexes.at(-1) ?? 0) + 1;
  if (next >= page.volumeSizeGiB * BLOCKS_PER_GIB) return page;
  return { ...page, nextToken: `${CONTINUATION}${next}` };
}

/** As a limit of a server's own would be. */
function isRound(count: number): boolean {
  return count >= 50 && (count % 50 === 0 || (count & (count - 1)) === 0);
}
