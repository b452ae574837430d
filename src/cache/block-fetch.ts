/**
 * One block on its way, and who waits for it. All who want the block wait for one fetch; one that gives
 * up leaves it to the others. How long each may wait is counted from when it came: a fetch can stand in
 * line behind others that take all their time, and its reader must not pay for theirs.
 */
import { Failure } from "../common/failure.js";
import type { Ticket } from "./fetch-queue.js";

/**
 * A fetch that runs ends by its own deadline, which may be a moment later than its reader's, and its error says
 * what the service did, ms.
 */
const RUNNING_GRACE_MS = 500;

export interface Waiter {
  /** @param slot pinned for this waiter, or HOLE. */
  readonly resolve: (slot: number) => void;
  readonly reject: (error: unknown) => void;
  /** When it has waited for long enough, ms of performance.now, unless blocks are arriving; and in any case. */
  readonly until: number;
  readonly latest: number;
  /** What it waits for; changes where another fetch takes over. */
  fetch: BlockFetch;
}

export class BlockFetch {
  readonly key: number;
  readonly waiters = new Set<Waiter>();
  readonly stop = new AbortController();
  ticket: Ticket | undefined;
  /** Wanted though nobody waits: readahead. */
  readonly ahead: boolean;
  /** For sentences, e.g. `block 7 of snap-0123`. */
  readonly what: string;

  constructor(key: number, ahead: boolean, what: string) {
    this.key = key;
    this.ahead = ahead;
    this.what = what;
  }

  /** Nobody wants it any more. */
  get isUnwanted(): boolean {
    return this.waiters.size === 0 && !this.ahead;
  }

  /**
   * Waits for the fetch's end.
   * @param gaveUp called when `signal` ends the wait.
   * @param limitMs longest wait while no block arrives. @param mostMs longest wait.
   * @throws what the fetch ends with; Failure EINTR on abort, ETIMEDOUT past the limit.
   */
  wait(
    limitMs: number,
    mostMs: number,
    signal: AbortSignal | undefined,
    gaveUp: (fetch: BlockFetch) => void,
  ): Promise<number> {
    const now = performance.now();
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        const { fetch } = waiter;
        if (!fetch.waiters.delete(waiter)) return;
        reject(interrupted());
        gaveUp(fetch);
      };
      const end = () => signal?.removeEventListener("abort", giveUp);
      const waiter: Waiter = {
        resolve: (slot) => {
          end();
          resolve(slot);
        },
        reject: (error) => {
          end();
          reject(error);
        },
        until: now + limitMs,
        latest: now + mostMs,
        fetch: this,
      };
      this.waiters.add(waiter);
      signal?.addEventListener("abort", giveUp, { once: true });
    });
  }

  /** All who wait for this one wait for another from now on. */
  handOver(to: BlockFetch): void {
    for (const waiter of this.waiters) {
      waiter.fetch = to;
      to.waiters.add(waiter);
    }
    this.waiters.clear();
  }

  succeed(slot: number): void {
    for (const waiter of this.#taken()) waiter.resolve(slot);
  }

  fail(error: unknown): void {
    for (const waiter of this.#taken()) waiter.reject(error);
  }

  /**
   * Ends the wait of those whose time is over.
   * @param isMoving blocks have arrived lately: over a slow line, that is not too late.
   * @returns the failure of each.
   */
  expire(now: number, isMoving: boolean): Failure[] {
    const told: Failure[] = [];
    const grace = this.ticket?.state === "running" ? RUNNING_GRACE_MS : 0;
    for (const waiter of this.waiters) {
      if (now < (isMoving ? waiter.latest : waiter.until) + grace) continue;
      this.waiters.delete(waiter);
      const failure = new Failure(
        "ETIMEDOUT",
        `Fetching ${this.what} was not over within --io-timeout, for others before it took that long; use a larger one, or a lower --concurrency if the service throttles.`,
      );
      told.push(failure);
      waiter.reject(failure);
    }
    return told;
  }

  #taken(): Waiter[] {
    const waiters = [...this.waiters];
    this.waiters.clear();
    return waiters;
  }
}

export function interrupted(): Failure {
  return new Failure("EINTR", "The read was interrupted.");
}
